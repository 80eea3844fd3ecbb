//! The composition function's container.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser as _;
use function_vcluster_backup::args::Args;
use function_vcluster_backup::server::{self, Listeners, Settings};
use function_vcluster_backup::tls::Certificates;
use function_vcluster_backup::{function, telemetry};
use ring::rand::SystemRandom;

fn main() -> ExitCode {
    let args = Args::parse();
    let certificates = args.certificates().unwrap_or_else(|usage| usage.exit());
    telemetry::start(args.debug);
    match serve(&args, certificates.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args, certificates: Option<&Path>) -> anyhow::Result<()> {
    let certificates = certificates.map(Certificates::open).transpose()?;
    let settings =
        Settings { certificates, max_request_bytes: args.max_request_bytes(), drain: server::DRAIN };
    let random = SystemRandom::new();
    let function = Arc::new(move |request| function::run(request, SystemTime::now(), &random));
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(async {
        let listeners = Listeners::bind(args.address, args.metrics_address).await?;
        Ok(server::run(listeners, settings, function, server::stop_signal()?).await?)
    });
    // A call that is still running after the drain must not keep the process.
    runtime.shutdown_background();
    outcome
}
