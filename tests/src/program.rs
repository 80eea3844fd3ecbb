//! A **program** of ours, as it was built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

/// The folder with both programs; `cargo xtask test` sets it after building them.
pub const PROGRAMS: &str = "VCB_PROGRAMS";

/// The backup agent.
pub const AGENT: &str = "vcluster-backup";
/// The composition function.
pub const FUNCTION: &str = "function-vcluster-backup";

static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// A command of the program, in a clean environment: the developer's own settings and credentials have no say.
pub fn command(name: &str) -> Result<Command> {
    let mut command = Command::new(path(name)?);
    command.env_clear();
    for kept in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    Ok(command)
}

/// Where the program is. Without `VCB_PROGRAMS` it is built once per test binary, so that it is never stale.
pub fn path(name: &str) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return Ok(Path::new(&folder).join(name));
    }
    let folder = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match folder {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) => bail!("{error}"),
    }
}

fn build() -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "vcluster-backup", "--package", "function-vcluster-backup"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cannot start cargo build")?;
    if !status.success() {
        bail!("cargo build of our programs: {status}");
    }
    // A test binary lies in <target>/<profile>/deps, programs one above.
    let test = std::env::current_exe()?;
    Ok(test.parent().and_then(Path::parent).context("the test binary lies in no target folder")?.to_owned())
}
