//! The **test** task: everything that CI runs, in named steps. A failed step does not keep the next ones away,
//! so that one run tells all that is wrong.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::counts::Counts;
use crate::report::Report;
use crate::{command, schemas, tidy, tools, workspace};

/// What `cargo xtask test` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Only what needs Rust alone
    #[arg(long)]
    quick: bool,
}

/// The folder of the end-to-end suite, whose tests are the only ones that need more than Rust.
const END_TO_END: &str = "tests";
/// Those that take ten minutes of waiting: what an idle control plane costs is not known sooner.
const SLOW: [&str; 1] = ["--test=cost"];
/// What the end-to-end suite uses of the tools.
const TOOLS: [&str; 17] = [
    "kine",
    "minio",
    "mc",
    "crossplane",
    "crossplane-core",
    "crossplane-crds",
    "provider-helm",
    "provider-helm-crds",
    "helm",
    "vcluster-chart",
    "vcluster-chart-0.33",
    "kube-apiserver",
    "kubectl",
    "function-sdk-python",
    "age",
    "zstd",
    "sqlite3",
];

/// The task itself. Fails if a step did, or if `CI=true` and a test was skipped.
pub fn run(args: &Args) -> ExitCode {
    let mut report = Report::default();
    // The whole workspace in every step: another selection would mean other features of shared dependencies,
    // and with them a second build of nearly everything.
    report.step("format", |_| succeed(workspace::cargo(&["fmt", "--all", "--check"])));
    report.step("lints", |_| {
        succeed(workspace::cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
    });
    report.step("tidy", |_| tidy::check());
    if command::on_path("cargo-deny").is_some() {
        report.step("licences and advisories", |_| succeed(workspace::cargo(&["deny", "check"])));
    } else {
        report.absent("licences and advisories", "cargo-deny is not installed");
    }
    report.step("unit tests", |counts| {
        let mut cargo = workspace::cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
        for member in workspace::members()?.iter().filter(|member| !member.ends_with(END_TO_END)) {
            cargo.args(test_targets(member)?);
        }
        tests(cargo, counts)
    });
    report.step("definitions", |_| schemas::check());
    report.step("examples in the documentation", |counts| {
        tests(workspace::cargo(&["test", "--workspace", "--no-fail-fast", "--doc"]), counts)
    });
    if !args.quick {
        end_to_end(&mut report);
    }
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    report.close(in_ci)
}

fn end_to_end(report: &mut Report) {
    let folder = workspace::target().join("xtask");
    let (answer, skipped) = (folder.join("tools.json"), folder.join("skipped"));
    report.step("real components", |_| {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let found = tools::ensure(&TOOLS)?;
        fs::write(&answer, with_reasons(&found).to_string())
            .with_context(|| format!("cannot write {}", answer.display()))?;
        // What this machine cannot have makes tests skip; what could not be installed is a failure.
        let failed: Vec<&str> = found
            .iter()
            .filter(|(_, tool)| matches!(tool, Err(tools::Missing::Failed(_))))
            .map(|(name, _)| *name)
            .collect();
        ensure!(failed.is_empty(), "not installed: {}", failed.join(", "));
        Ok(())
    });
    report.step("both programs", |_| succeed(workspace::cargo(&["build", "--workspace", "--all-targets"])));
    report.step("end to end", |counts| {
        remove_if_there(&skipped)?;
        let cargo = |targets: &[String]| {
            let mut cargo = workspace::cargo(&["test", "--workspace", "--no-fail-fast"]);
            cargo
                .args(targets)
                // Figures that a test measured are part of what it shows.
                .args(["--", "--show-output"])
                .env("VCB_TOOLS", &answer)
                .env("VCB_SKIPPED", &skipped)
                .env("VCB_PROGRAMS", workspace::target().join("debug"));
            cargo
        };
        let (slow, quick): (Vec<String>, Vec<String>) = test_targets(&workspace::root().join(END_TO_END))?
            .into_iter()
            .partition(|name| SLOW.contains(&name.as_str()));
        // Cargo runs one test program after the other; those that mostly wait run beside the rest.
        let waiting = cargo(&slow).stdout(Stdio::piped()).spawn();
        let waiting = waiting.context("cannot start cargo test")?;
        let result = tests(cargo(&quick), counts);
        let waited = waiting.wait_with_output().context("cargo test is lost")?;
        for line in String::from_utf8_lossy(&waited.stdout).lines() {
            println!("{line}");
            counts.read(line);
        }
        if !waited.status.success() {
            bail!("cargo test: {}", waited.status);
        }
        if let Ok(lines) = fs::read_to_string(&skipped) {
            counts.skip(&lines);
        }
        result
    });
}

/// The tools that are there, as `cargo xtask tools --json` prints them, and why the others are not.
fn with_reasons(found: &[(&'static str, Result<tools::Installed, tools::Missing>)]) -> Value {
    let mut answer = tools::to_json(found);
    for (name, tool) in found {
        if let Err(why) = tool {
            let why = why.to_string();
            answer[*name] = json!({ "missing": why.lines().next() });
        }
    }
    answer
}

/// Runs cargo's tests: their output is passed on and counted.
fn tests(mut cargo: Command, counts: &mut Counts) -> Result<()> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo test has no stdout")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what cargo test writes")?;
        println!("{line}");
        counts.read(&line);
    }
    let status = child.wait().context("cargo test is lost")?;
    ensure!(status.success(), "cargo test: {status}");
    Ok(())
}

fn succeed(mut cargo: Command) -> Result<()> {
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// `--test=NAME` for each integration test of the package in `folder`, be it a file or a folder with a `main.rs`.
fn test_targets(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.join("tests");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file()
    });
    files.sort();
    let names = files.iter().filter_map(|path| path.file_stem()?.to_str());
    Ok(names.map(|name| format!("--test={name}")).collect())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", path.display())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_a_file_or_a_folder_with_a_main() {
        let folder = tempfile::tempdir().unwrap();
        for path in
            ["tests/life.rs", "tests/runtime/main.rs", "tests/runtime/serving.rs", "tests/common/mod.rs"]
        {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(test_targets(folder.path()).unwrap(), ["--test=life", "--test=runtime"]);
        assert!(test_targets(&folder.path().join("nowhere")).unwrap().is_empty());
    }
}
