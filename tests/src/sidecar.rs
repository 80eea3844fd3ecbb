//! The **sidecar**: the agent's `run` beside kine, and what it tells of itself over HTTP.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::metrics::Metrics;
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
        let (status, text) = page(self.port, "/metrics").await?;
        ensure!(status == 200, "the sidecar answers /metrics with {status}: {text}");
        Metrics::parse(&text)
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

/// Status and body of a page. HTTP/1.0: the answer ends with the connection.
async fn page(port: u16, path: &str) -> Result<(u16, String)> {
    let mut connection =
        TcpStream::connect(("127.0.0.1", port)).await.context("the sidecar does not listen")?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the sidecar's answer ends in its head")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
    Ok((status, body.to_owned()))
}
