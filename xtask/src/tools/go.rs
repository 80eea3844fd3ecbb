//! Tools **built with Go** from the module proxy, checked by Go against its checksum database.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Missing;
use crate::command::{self, quiet};

/// How a program comes out of its module.
pub enum Source {
    /// `go install PACKAGE@VERSION`.
    Install {
        /// The package's whole path.
        package: &'static str,
        /// Whether it holds C (kine: SQLite).
        cgo: bool,
    },
    /// Through a module of our own that requires it: `go install` refuses modules that replace others, and asks
    /// for version lists that the proxy does not have of every module.
    Module {
        /// The module.
        module: &'static str,
        /// The package in it; empty for the module itself.
        package: &'static str,
        /// Modules that it takes from its own repository, and their versions.
        beside: &'static [(&'static str, &'static str)],
        /// What it is built with, where that is not as its makers do it.
        set: Option<&'static Set>,
    },
    /// The same, of Kubernetes: it replaces all of its libraries by folders; outside they are `v0.` of its `v1.`
    Kubernetes {
        /// The package in `k8s.io/kubernetes`.
        package: &'static str,
    },
}

/// Text variables of a program that the linker sets, for what has no flag.
pub struct Set {
    /// How the build is called, beside its version.
    pub called: &'static str,
    /// Their whole paths and values.
    pub variables: &'static [(&'static str, &'static str)],
}

const KUBERNETES: &str = "k8s.io/kubernetes";

impl Source {
    /// The version, and what else tells this build from another.
    pub fn title(&self, version: &str) -> String {
        match self {
            Self::Module { set: Some(set), .. } => format!("{version}-{}", set.called),
            _ => version.to_owned(),
        }
    }

    /// Builds it as `folder/name`.
    pub fn build(
        &self,
        name: &str,
        version: &str,
        folder: &Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), Missing> {
        let go = go()?;
        let program = folder.join(name);
        match self {
            Self::Install { package, cgo } => {
                if *cgo && !["cc", "gcc"].iter().any(|compiler| command::on_path(compiler).is_some()) {
                    return Err(Missing::Prerequisite(
                        "a C compiler is needed to build it: install gcc".to_owned(),
                    ));
                }
                say("go install, some minutes");
                let mut install = go_in(&go, folder, *cgo);
                install.env("GOBIN", folder).args(["install", "-trimpath", "-ldflags", "-s -w"]);
                quiet(install.arg(format!("{package}@{version}")))?;
            }
            Self::Module { module, package, beside, set } => {
                say("go build, some minutes");
                let path = format!("{module}/{package}");
                let mut flags = "-s -w".to_owned();
                for (variable, value) in set.iter().flat_map(|set| set.variables) {
                    let _ = write!(flags, " -X {variable}={value}");
                }
                Module::new(&go, folder, module, version)?.build(
                    path.trim_end_matches('/'),
                    &requires(module, version, beside),
                    &flags,
                    &program,
                )?;
            }
            Self::Kubernetes { package } => {
                say("go build, some minutes");
                let module = Module::new(&go, folder, KUBERNETES, version)?;
                let text = fs::read_to_string(module.source.join("go.mod"))
                    .context("cannot read Kubernetes' go.mod")?;
                let go_mod = requires(KUBERNETES, version, &[]) + &staging(&text, version);
                let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
                module.build(&format!("{KUBERNETES}/{package}"), &go_mod, &flags, &program)?;
            }
        }
        Ok(())
    }
}

/// Builds a program that this repository holds the source of; Go's own cache makes a second time short.
pub fn build_own(folder: &Path, program: &Path) -> Result<(), Missing> {
    let mut build = go_in(&go()?, folder, false);
    build.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]);
    quiet(build.arg(program).arg("."))?;
    Ok(())
}

/// The module of our own through which one program is built.
struct Module<'a> {
    go: &'a Path,
    /// It goes when the program is built.
    folder: PathBuf,
    /// The tool's own module, unpacked in Go's cache.
    source: PathBuf,
}

impl<'a> Module<'a> {
    fn new(go: &'a Path, folder: &Path, module: &str, version: &str) -> Result<Self> {
        let own = folder.join("module");
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        let source = download(go, &own, module, version)?;
        Ok(Self { go, folder: own, source })
    }

    /// The checksums are the tool's own; `-mod=mod` lets Go add those that it looked up.
    fn build(&self, package: &str, go_mod: &str, linker_flags: &str, program: &Path) -> Result<()> {
        let sums = fs::read(self.source.join("go.sum"))
            .with_context(|| format!("cannot read go.sum of {package}"))?;
        for (name, content) in [("go.sum", sums.as_slice()), ("go.mod", go_mod.as_bytes())] {
            let path = self.folder.join(name);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut build = go_in(self.go, &self.folder, false);
        build.args(["build", "-mod=mod", "-trimpath", "-ldflags", linker_flags, "-o"]);
        quiet(build.arg(program).arg(package))?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }
}

fn requires(module: &str, version: &str, beside: &[(&str, &str)]) -> String {
    let mut text = format!("module tools\n\ngo 1.26.0\n\nrequire {module} {version}\n");
    for (module, version) in beside {
        let _ = writeln!(text, "require {module} {version}");
    }
    text
}

/// Files that lie in a module beside its code, such as definitions and charts, as `folder/name`.
pub fn files(
    module: &str,
    within: &str,
    name: &str,
    version: &str,
    folder: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<(), Missing> {
    let go = go()?;
    say("go mod download");
    let source = download(&go, folder, module, version)?.join(within);
    // Go's cache is read-only to the last folder; the copy is not.
    copy(&source, &folder.join(name)).with_context(|| format!("cannot copy {}", source.display()))?;
    Ok(())
}

/// The module, unpacked in Go's cache.
fn download(go: &Path, folder: &Path, module: &str, version: &str) -> Result<PathBuf> {
    let mut download = go_in(go, folder, false);
    let output = quiet(download.args(["mod", "download", "-json", &format!("{module}@{version}")]))?;
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("go mod download -json wrote no JSON")?;
    Ok(answer["Dir"].as_str().context("go mod download -json named no Dir")?.into())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::write(&target, fs::read(&path)?)?;
        }
    }
    Ok(())
}

/// `replace` lines for the libraries that Kubernetes' go.mod takes from its own folder `staging`.
fn staging(go_mod: &str, version: &str) -> String {
    let library_version = version.replacen("v1.", "v0.", 1);
    let mut text = String::new();
    for line in go_mod.lines() {
        if let Some((library, folder)) = line.trim().trim_start_matches("replace ").split_once(" => ")
            && folder.starts_with("./staging/")
        {
            let _ = writeln!(text, "replace {library} => {library} {library_version}");
        }
    }
    text
}

/// Go, from the search path or where its own installer puts it.
fn go() -> Result<PathBuf, Missing> {
    let usual = PathBuf::from("/usr/local/go/bin/go");
    command::on_path("go").or_else(|| command::is_program(&usual).then_some(usual)).ok_or_else(|| {
        Missing::Prerequisite(
            "it is built with Go, which is neither on PATH nor in /usr/local/go/bin: install Go 1.26 or newer".to_owned(),
        )
    })
}

/// Go in `folder`. No workspace that happens to lie above has a say; without C the program runs anywhere.
fn go_in(go: &Path, folder: &Path, cgo: bool) -> Command {
    let mut command = Command::new(go);
    command.current_dir(folder).env("GOWORK", "off").env("CGO_ENABLED", if cgo { "1" } else { "0" });
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_libraries_are_replaced_by_their_released_versions() {
        let go_mod = "require k8s.io/api v0.0.0\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\
                      \tother => ../other\n)\nreplace k8s.io/kms => ./staging/src/k8s.io/kms\n";
        assert_eq!(
            staging(go_mod, "v1.36.1"),
            "replace k8s.io/api => k8s.io/api v0.36.1\nreplace k8s.io/kms => k8s.io/kms v0.36.1\n"
        );
    }

    #[test]
    fn our_module_requires_the_tool_and_what_lies_beside_it() {
        assert_eq!(
            requires("a/b", "v1", &[("a/c", "v2")]),
            "module tools\n\ngo 1.26.0\n\nrequire a/b v1\nrequire a/c v2\n"
        );
    }
}
