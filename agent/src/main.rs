//! The backup agent: sidecar and command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use vcluster_backup::args::Cli;
use vcluster_backup::error::{Exit, exit_of, told};
use vcluster_backup::{commands, seed_args};

/// How long blocking work may take to end after everything else has.
const LAST_MOMENT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let bucket_in_environment = std::env::var_os("BUCKET_NAME").is_some_and(|bucket| !bucket.is_empty());
    let cli = Cli::parse_from(seed_args::translate(std::env::args_os().collect(), bucket_in_environment));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    let done = runtime.block_on(commands::dispatch(cli));
    // A copy of a large database that is under way is not waited for: the kubelet would not wait either.
    runtime.shutdown_timeout(LAST_MOMENT);
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {}", told(&error));
            exit_of(&error).into()
        }
    }
}
