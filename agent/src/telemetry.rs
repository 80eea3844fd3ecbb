//! **Logs**: to stderr, as text or JSON; stdout is for results.

use std::fmt::{self, Display};
use std::io::IsTerminal as _;

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs someone.
    Error,
    /// What may need someone.
    Warn,
    /// What was done.
    Info,
    /// What was seen.
    Debug,
    /// Everything.
    Trace,
}

impl Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

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
