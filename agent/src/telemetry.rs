//! **Logs**: to stderr, as text or JSON; stdout is for results.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::{LogFormat, LogLevel};

/// Starts logging. With `trace_s3` the SDK's own request log is let through: it shows no credentials.
pub fn start(format: LogFormat, level: LogLevel, trace_s3: bool) {
    let mut filter = EnvFilter::new(format!("warn,vcluster_backup={level}"));
    if trace_s3 {
        for directive in ["aws_smithy_runtime::client::orchestrator=debug", "hyper_util=debug"] {
            if let Ok(directive) = directive.parse() {
                filter = filter.add_directive(directive);
            }
        }
    }
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    // A second start (in a test's process) changes nothing.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
