//! The **demo** task: builds the programs and lets `xtask/demo` tell the story.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// The task itself; the exit code is the story's.
pub fn run() -> Result<ExitCode> {
    eprintln!("building the programs (a few minutes the first time)");
    // The whole workspace: another selection would mean other features of shared dependencies, and a second build.
    let built = workspace::cargo(&["build", "--workspace", "--all-targets"])
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "cargo build: {built}");
    let programs = workspace::target().join("debug");
    let told = Command::new(programs.join("vcluster-backup-demo"))
        .env("VCB_PROGRAMS", &programs)
        .status()
        .context("cannot start the demo")?;
    Ok(if told.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
