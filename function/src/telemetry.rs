//! **Logs**: JSON lines on stderr, as Crossplane's own pods write them.
//!
//! A request holds Secrets. Nothing here or elsewhere logs what Crossplane sends or gets, at any level.

use std::panic::{self, PanicHookInfo};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging, panics included.
pub fn start(debug: bool) {
    let ours = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // The libraries' debug level shows frames and headers, not what was asked for with --debug.
    let targets = Targets::new().with_default(LevelFilter::WARN).with_target(env!("CARGO_CRATE_NAME"), ours);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    // A second start (in a test's process) changes nothing.
    let _ = tracing_subscriber::registry().with(targets).with(lines).try_init();
    panic::set_hook(Box::new(log_panic));
}

/// One line for a panic. A formatted text may quote the request, a literal one cannot: only that is shown.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("text withheld");
    tracing::error!(place, text, "panic: a defect of this program, please report it");
}
