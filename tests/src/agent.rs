//! The **agent** under test, run as its pod or an operator runs it: arguments, nothing of our environment.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::Process;
use crate::program;

/// What became of a verb.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stdout as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.stdout).with_context(|| format!("no JSON on stdout: {}", self.text()))
    }

    /// This, if it ended with `code`; an error with all that it wrote otherwise.
    pub fn ended(self, code: i32) -> Result<Self> {
        anyhow::ensure!(
            self.code == Some(code),
            "the agent ended with {:?} in place of {code}\nstdout:\n{}\nstderr:\n{}",
            self.code,
            self.text(),
            self.stderr
        );
        Ok(self)
    }
}

/// A command of the agent, for callers that set more than arguments.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = program::command(program::AGENT)?;
    command.args(args);
    Ok(command)
}

/// Runs a verb to its end. Other tasks of the runtime go on meanwhile.
pub async fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Finished> {
    finish(command(args)?).await
}

/// Runs a command of the agent to its end.
pub async fn finish(command: Command) -> Result<Finished> {
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output().await.context("cannot start the agent")?;
    Ok(Finished {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Starts a verb that goes on until it is told to stop: `run`, or an `ensure` that waits.
pub fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Process> {
    Process::start("agent", &mut command(args)?)
}
