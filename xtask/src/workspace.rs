//! The **workspace**: where it is, and cargo run in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The folder with the workspace's `Cargo.toml`. Taken from where this program was compiled: `cargo run`
/// compiles it again in a moved checkout.
pub fn root() -> &'static Path {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder)
}

/// The folders of its packages.
pub fn members() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(root()).with_context(|| format!("cannot read {}", root().display()))?;
    let mut folders: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    folders.retain(|folder| folder.join("Cargo.toml").is_file());
    folders.sort();
    Ok(folders)
}

/// The cargo that runs this program, in the workspace's folder.
pub fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(args);
    // What `cargo run` tells this program of itself. A build script that watches such variables (ring's does) would run
    // again, and all that needs its crate be built anew, whenever cargo is run by hand and by this program in turn.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    // `cargo run` started this program from there: <target>/<profile>/xtask.
    std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.to_owned()))
        .unwrap_or_else(|| root().join("target"))
}
