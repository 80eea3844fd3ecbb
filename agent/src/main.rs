//! The backup agent: sidecar and command line.

use std::process::ExitCode;

use clap::Parser as _;
use vcluster_backup::args::Cli;
use vcluster_backup::error::{Exit, exit_of, told};
use vcluster_backup::{commands, seed_args};

fn main() -> ExitCode {
    let bucket_in_environment = std::env::var_os("BUCKET_NAME").is_some_and(|bucket| !bucket.is_empty());
    let cli = Cli::parse_from(seed_args::translate(std::env::args_os().collect(), bucket_in_environment));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(commands::dispatch(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {}", told(&error));
            exit_of(&error).into()
        }
    }
}
