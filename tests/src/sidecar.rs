//! The **sidecar**: the agent's `run` beside kine, and what it tells of itself over HTTP.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::metrics::{Metrics, page};
use crate::port;
use crate::process::Process;

/// After SIGTERM a pod has so long.
const GRACE: Duration = Duration::from_secs(15);

/// A running sidecar.
pub struct Sidecar {
    process: Process,
    port: u16,
}

impl Sidecar {
    /// Starts the command of a `run` and waits until it is ready: all that was there is in the bucket.
    pub async fn start(mut command: Command) -> Result<Self> {
        let port = port::free()?;
        command.arg(format!("--listen=127.0.0.1:{port}"));
        let mut process = Process::start("sidecar", &mut command)?;
        process
            .until("ready", Duration::from_mins(2), async || {
                page(port, "/readyz").await.is_ok_and(|(status, _)| status == 200)
            })
            .await?;
        Ok(Self { process, port })
    }

    /// Its metrics as they are now.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.port, "/metrics").await
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGTERM; it goes on as long as kine writes.
    pub fn terminate(&self) -> Result<()> {
        self.process.terminate()
    }

    /// Waits for its end, which must be a good one, in the time that a pod has.
    pub async fn ended(mut self) -> Result<()> {
        let status = self.process.wait(GRACE).await?;
        ensure!(status.success(), "the sidecar ended with {status}:\n{}", self.process.log());
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }
}
