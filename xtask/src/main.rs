//! `cargo xtask`: the developer's one entry. Needs Rust alone; what else a task needs, it installs.

mod bench;
mod command;
mod counts;
mod demo;
mod report;
mod schemas;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developer's one entry to this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Tell the main job as a story: claim, backup, loss, restore; needs Rust alone
    Demo,
    /// Measure the function beside Crossplane's Go SDK, and the agent beside litestream; some ten minutes
    Bench(bench::Args),
    /// Install the pinned real components into the user's cache folder
    Tools(tools::Args),
    /// Write the XRDs and the Input's CRD from the Rust types that read them
    Schemas(schemas::Args),
    /// Run everything that CI runs: format, lints, unit tests, end-to-end tests on real components
    Test(test::Args),
    /// Check what neither compiler nor clippy can know
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo => demo::run(),
        Task::Bench(args) => bench::run(&args),
        Task::Tools(args) => tools::run(&args),
        Task::Schemas(args) => schemas::run(&args),
        Task::Test(args) => Ok(test::run(&args)),
        Task::Tidy => tidy::check().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
