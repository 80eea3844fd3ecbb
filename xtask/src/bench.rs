//! The **bench** task: builds the programs and measures them beside their peers. Two parts: the function (`xtask/bench/function`)
//! beside Crossplane's official Go SDK, the agent (`xtask/bench`) beside litestream.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::tools::go;
use crate::workspace;

/// What `cargo xtask bench` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Which part; both if none is named
    #[arg(value_enum)]
    part: Option<Part>,
    /// One JSON document a part on stdout in place of the table
    #[arg(long)]
    json: bool,
    /// Measure the agent's release build, which takes many minutes to make the first time; the function's is the release
    /// build always
    #[arg(long)]
    release: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// RunFunction beside the same composition in Go; about a minute
    Function,
    /// The agent beside no agent and litestream; about six minutes
    Agent,
}

/// The task itself; the exit code is the worst of the parts.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for part in [Part::Function, Part::Agent] {
        if args.part.is_some_and(|only| only != part) {
            continue;
        }
        let mut bench = match part {
            Part::Function => function()?,
            Part::Agent => agent(args.release)?,
        };
        let measured =
            bench.args(args.json.then_some("--json")).status().context("cannot start the bench")?;
        if !measured.success() {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn function() -> Result<Command> {
    let bench = "vcluster-backup-bench-function";
    let programs = build(&["--release", "--bin", "function-vcluster-backup", "--bin", bench], "release")?;
    eprintln!("building the peer");
    let peer = programs.join("function-peer");
    if let Err(why) = go::build_own(&workspace::root().join("xtask/bench/peer"), &peer) {
        bail!("the peer, xtask/bench/peer, cannot be built: {why}");
    }
    let mut command = Command::new(programs.join(bench));
    command.env("VCB_PROGRAMS", &programs).env("VCB_FUNCTION_PEER", peer);
    Ok(command)
}

fn agent(release: bool) -> Result<Command> {
    let programs = if release {
        build(&["--all-targets", "--release"], "release")?
    } else {
        build(&["--all-targets"], "debug")?
    };
    let mut command = Command::new(programs.join("vcluster-backup-bench"));
    command.env("VCB_PROGRAMS", &programs);
    Ok(command)
}

/// Builds with these arguments; the folder of the programs. The whole workspace is selected: another selection would mean
/// other features of shared dependencies, and a second build.
fn build(args: &[&str], profile: &str) -> Result<PathBuf> {
    eprintln!("building the programs (a few minutes the first time)");
    let mut cargo = workspace::cargo(&["build", "--workspace"]);
    let built = cargo.args(args).status().context("cannot start cargo")?;
    ensure!(built.success(), "cargo build: {built}");
    Ok(workspace::target().join(profile))
}
