//! The **toolbox**: the real components that a test needs. Where one cannot be had, the test is skipped, and
//! says so.
//!
//! ```text
//! let Some(tools) = Tools::with(["kine", "minio"]) else { return Ok(()) };
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A file with the answer of `cargo xtask tools --json`, and `{"NAME": {"missing": why}}` for what cannot be had;
/// `cargo xtask test` sets it. Without it each tool is asked for when it is first needed.
pub const TOOLS: &str = "VCB_TOOLS";
/// A file to which a skipped test appends its line, `NAME<tab>reason`; `cargo xtask test` reads it.
pub const SKIPPED: &str = "VCB_SKIPPED";

static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// The programs that one test asked for.
pub struct Tools(BTreeMap<String, PathBuf>);

impl Tools {
    /// These tools, or none: the calling test is then recorded as skipped and must return.
    #[track_caller]
    #[must_use]
    pub fn with<const N: usize>(names: [&str; N]) -> Option<Self> {
        let here = Location::caller();
        let mut tools = BTreeMap::new();
        for name in names {
            match find(name) {
                Ok(path) => {
                    tools.insert(name.to_owned(), path);
                }
                Err(why) => {
                    skip(here, &format!("{name} is missing: {why:#}"));
                    return None;
                }
            }
        }
        Some(Self(tools))
    }

    /// The program of a tool that was asked for.
    pub fn path(&self, name: &str) -> Result<&Path> {
        self.0
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("this test did not ask for the tool {name}"))
    }

    /// A command of a tool that was asked for.
    pub fn command(&self, name: &str) -> Result<Command> {
        Ok(Command::new(self.path(name)?))
    }
}

fn find(name: &str) -> Result<PathBuf> {
    if let Some(file) = std::env::var_os(TOOLS) {
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        return of_answer(&text, name);
    }
    // Held while it installs: tests that need the same tool wait for one installation.
    let mut found = FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = found.get(name) {
        return Ok(path.clone());
    }
    let answer = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["xtask", "tools", "--json", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo xtask tools")?;
    let path = of_answer(&answer.stdout, name)?;
    found.insert(name.to_owned(), path.clone());
    Ok(path)
}

fn of_answer(json: &[u8], name: &str) -> Result<PathBuf> {
    let tools: Value = serde_json::from_slice(json).context("cargo xtask tools wrote no JSON")?;
    if let Some(why) = tools[name]["missing"].as_str() {
        bail!("{why}");
    }
    let path = tools[name]["path"].as_str().context("cargo xtask tools says why")?;
    Ok(path.into())
}

fn skip(here: &Location<'_>, reason: &str) {
    // libtest names the thread after the test, unless it runs them all on the main thread.
    let place = format!("{}:{}", here.file(), here.line());
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or(&place);
    let line = format!("{test}\t{reason}\n");
    eprint!("skipped: {line}");
    if let Some(path) = std::env::var_os(SKIPPED) {
        let written = OpenOptions::new().create(true).append(true).open(&path);
        // One write of a short line to a file opened for appending is not torn by another test's.
        if let Err(error) = written.and_then(|mut file| file.write_all(line.as_bytes())) {
            panic!("a skipped test must not go unnoticed: cannot write {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_paths() {
        let answer = br#"{"kine": {"path": "/tools/kine", "version": "v1"}, "mc": {"missing": "no Go"}}"#;
        assert_eq!(of_answer(answer, "kine").ok(), Some(PathBuf::from("/tools/kine")));
        assert!(of_answer(answer, "mc").is_err_and(|why| why.to_string() == "no Go"));
        assert!(of_answer(answer, "minio").is_err());
        assert!(of_answer(b"", "kine").is_err());
    }
}
