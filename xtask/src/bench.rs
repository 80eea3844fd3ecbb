//! The **bench** task: builds the programs and lets `xtask/bench` measure them against litestream.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// What `cargo xtask bench` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON document on stdout in place of the table
    #[arg(long)]
    json: bool,
    /// Measure the release build, which takes many minutes to make the first time
    #[arg(long)]
    release: bool,
}

/// The task itself; the exit code is the bench's.
pub fn run(args: &Args) -> Result<ExitCode> {
    eprintln!("building the programs (a few minutes the first time)");
    // The whole workspace: another selection would mean other features of shared dependencies, and a second build.
    let mut cargo = workspace::cargo(&["build", "--workspace", "--all-targets"]);
    let mut profile = "debug";
    if args.release {
        cargo.arg("--release");
        profile = "release";
    }
    let built = cargo.status().context("cannot start cargo")?;
    ensure!(built.success(), "cargo build: {built}");
    let programs = workspace::target().join(profile);
    let measured = Command::new(programs.join("vcluster-backup-bench"))
        .args(args.json.then_some("--json"))
        .env("VCB_PROGRAMS", &programs)
        .status()
        .context("cannot start the bench")?;
    Ok(if measured.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
