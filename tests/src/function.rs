//! The **function** under test, served without TLS on loopback.

use anyhow::Result;

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
    /// Starts it and waits until it listens.
    pub async fn start() -> Result<Self> {
        let (port, metrics_port) = (port::free()?, port::free()?);
        let mut command = program::command(program::FUNCTION)?;
        command
            .arg("--insecure")
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

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
