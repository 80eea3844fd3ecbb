//! The **function** under test, on loopback: without TLS, or with certificates as Crossplane calls it.

use std::path::Path;

use anyhow::Result;

use crate::metrics::Metrics;
use crate::port;
use crate::process::Process;
use crate::program;

/// A running function.
pub struct Function {
    process: Process,
    port: u16,
    metrics_port: u16,
}

impl Function {
    /// Starts it without TLS and waits until it listens.
    pub async fn start() -> Result<Self> {
        Self::start_with(&["--insecure"]).await
    }

    /// Starts it with the certificates in a folder; clients must have one of the same authority.
    pub async fn start_with_certificates(folder: &Path) -> Result<Self> {
        Self::start_with(&["--debug", "--tls-certs-dir", &folder.to_string_lossy()]).await
    }

    async fn start_with(args: &[&str]) -> Result<Self> {
        let (port, metrics_port) = (port::free()?, port::free()?);
        let mut command = program::command(program::FUNCTION)?;
        command
            .args(args)
            .arg(format!("--address=127.0.0.1:{port}"))
            .arg(format!("--metrics-address=127.0.0.1:{metrics_port}"));
        let mut process = Process::start("function", &mut command)?;
        process.until_listening(port).await?;
        Ok(Self { process, port, metrics_port })
    }

    /// The port on 127.0.0.1 on which it speaks gRPC.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port on 127.0.0.1 on which it serves its metrics.
    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// How many calls it has answered.
    pub async fn calls(&self) -> Result<f64> {
        let metrics = Metrics::scrape(self.metrics_port, "/metrics").await?;
        Ok(metrics.sum("grpc_server_handled_total", &[("grpc_code", "OK")]))
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
