//! The **schemas** task: builds the programs and lets `xtask/schemas` write the definitions that ship, or check them.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// What `cargo xtask schemas` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail if a file is not what the types say
    #[arg(long)]
    check: bool,
}

/// The task itself; the exit code is that of the generator.
pub fn run(args: &Args) -> Result<ExitCode> {
    // The whole workspace: another selection would mean other features of shared dependencies, and a second build.
    let built = workspace::cargo(&["build", "--workspace", "--bins"]).status();
    let built = built.context("cannot start cargo")?;
    ensure!(built.success(), "cargo build: {built}");
    let done = Command::new(workspace::target().join("debug/vcluster-backup-schemas"))
        .args(args.check.then_some("--check"))
        .status()
        .context("cannot start the generator")?;
    Ok(if done.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The check as a step of the tests.
pub fn check() -> Result<()> {
    let code = run(&Args { check: true })?;
    ensure!(code == ExitCode::SUCCESS, "the definitions are not what the types say");
    Ok(())
}
