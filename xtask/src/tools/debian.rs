//! Tools that **Debian** packages under the program's own name. One on the search path is good enough: their
//! formats are standards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cache::Cache;
use super::{Installed, Missing};
use crate::command::{self, quiet};

/// The program `name` from the search path, else installed (as root) or unpacked into the cache.
pub fn installed(name: &str, cache: &Cache, say: &mut dyn FnMut(&str)) -> Result<Installed, Missing> {
    if let Some(path) = command::on_path(name) {
        return Ok(Installed { version: version(&path)?, path });
    }
    if command::on_path("apt-get").is_none() {
        return Err(Missing::Prerequisite(format!(
            "it is not on PATH, and this is no Debian: install {name}"
        )));
    }
    if is_root()? {
        say("apt-get install");
        quiet(&mut apt(&["update", "--quiet"]))?;
        quiet(&mut apt(&["install", "--quiet", "--yes", "--no-install-recommends", name]))?;
        let path =
            command::on_path(name).with_context(|| format!("the package {name} holds no program {name}"))?;
        return Ok(Installed { version: version(&path)?, path });
    }
    let path = cache.program(name, "debian", say, |folder, say| {
        say("apt-get download");
        unpack(name, folder)
    })?;
    // Unpacked alone it may lack a library.
    let version = version(&path).map_err(|error| {
        Missing::Prerequisite(format!(
            "the unpacked package does not run ({error:#}): install {name} as root"
        ))
    })?;
    Ok(Installed { version, path })
}

fn unpack(name: &str, folder: &Path) -> Result<(), Missing> {
    quiet(apt(&["download", "--quiet", name]).current_dir(folder))?;
    let package: PathBuf = fs::read_dir(folder)
        .context("cannot read the scratch folder")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    quiet(Command::new("dpkg").arg("-x").arg(&package).arg(folder))?;
    fs::rename(folder.join("usr/bin").join(name), folder.join(name))
        .and_then(|()| fs::remove_file(&package))
        .with_context(|| format!("cannot take {name} out of its package"))?;
    Ok(())
}

fn apt(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    command
}

fn is_root() -> Result<bool> {
    Ok(quiet(Command::new("id").arg("-u"))?.stdout.trim_ascii() == b"0")
}

/// What the program says of itself, its first number.
fn version(path: &Path) -> Result<String> {
    let output = quiet(Command::new(path).arg("--version"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = |word: &&str| word.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit());
    let version = text.split_ascii_whitespace().find(word).unwrap_or(&text);
    Ok(version.trim_end_matches(',').to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn versions_are_read_out_of_what_programs_say() {
        let folder = tempfile::tempdir().unwrap();
        for (says, version_in_it) in [
            ("*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***", "v1.5.4"),
            ("3.40.1 2022-12-28 14:03:47 df5c253c0b3d", "3.40.1"),
        ] {
            let path = folder.path().join(version_in_it);
            fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(version(&path).unwrap(), version_in_it);
        }
    }
}
