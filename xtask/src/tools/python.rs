//! **Python packages** from PyPI, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Missing;
use crate::command::{self, quiet};

/// The oldest Python that they run on.
const OLDEST: (u32, u32) = (3, 11);

/// Puts the packages into `folder`, with nothing that they do not name.
pub fn install(requirements: &[&str], folder: &Path, say: &mut dyn FnMut(&str)) -> Result<(), Missing> {
    let python = with_pip()?;
    say("pip install");
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"])
        .args(["--no-deps", "--only-binary=:all:", "--target"])
        .arg(folder)
        .args(requirements);
    quiet(&mut pip)?;
    Ok(())
}

/// The version of Python on the search path, such as `3.11`.
pub fn version() -> Result<String, Missing> {
    let asked =
        quiet(Command::new(python()?).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]))?;
    let version = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    if is_older(&version) {
        let (major, minor) = OLDEST;
        return Err(Missing::Prerequisite(format!(
            "python3 is {version}: install Python {major}.{minor} or newer"
        )));
    }
    Ok(version)
}

/// Python, if it has pip.
pub fn with_pip() -> Result<PathBuf, Missing> {
    let python = python()?;
    if quiet(Command::new(&python).args(["-m", "pip", "--version"])).is_err() {
        return Err(Missing::Prerequisite(
            "it comes by pip, which python3 lacks: install python3-pip".to_owned(),
        ));
    }
    Ok(python)
}

fn python() -> Result<PathBuf, Missing> {
    command::on_path("python3")
        .ok_or_else(|| Missing::Prerequisite("it comes by pip: install python3 and python3-pip".to_owned()))
}

fn is_older(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, older) in [("3.9", true), ("3.11", false), ("3.14", false), ("4.0", false), ("", true)]
        {
            assert_eq!(is_older(version), older, "{version}");
        }
    }
}
