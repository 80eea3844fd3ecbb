//! A **contender**: a function that serves without TLS on loopback.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The folder with our programs; the peer itself. `cargo xtask bench` builds both and sets these.
const PROGRAMS: &str = "VCB_PROGRAMS";
const PEER: &str = "VCB_FUNCTION_PEER";

/// Linux counts so (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

const PATIENCE: Duration = Duration::from_secs(20);

/// It ends when it is dropped.
pub struct Contender {
    process: Child,
    port: u16,
}

impl Contender {
    /// Our function.
    pub async fn ours() -> Result<Self> {
        let mut command = Command::new(given(PROGRAMS)?.join("function-vcluster-backup"));
        command.arg("--insecure");
        Self::start(command).await
    }

    /// The peer, written with the Go SDK.
    pub async fn peer() -> Result<Self> {
        Self::start(Command::new(given(PEER)?)).await
    }

    async fn start(mut command: Command) -> Result<Self> {
        let (port, metrics) = (free()?, free()?);
        let program = command.get_program().display().to_string();
        let process = command
            .arg(format!("--address=127.0.0.1:{port}"))
            .arg(format!("--metrics-address=127.0.0.1:{metrics}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let mut contender = Self { process, port };
        let begin = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = contender.process.try_wait()? {
                bail!("{program} ended ({status}) before it listened");
            }
            if begin.elapsed() > PATIENCE {
                bail!("{program} does not listen after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(contender)
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How long it was on processors so far, all of its threads (utime and stime of /proc/PID/stat).
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // After the name, which may hold blanks: the third field on, of which these are the fourteenth and fifteenth.
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("no name")?.1.split_ascii_whitespace().collect();
        let ticks = |field: usize| -> Result<u64> {
            Ok(fields.get(field - 3).context("a short line of /proc/PID/stat")?.parse()?)
        };
        Ok(TICK * u32::try_from(ticks(14)? + ticks(15)?)?)
    }

    /// The most memory that it ever had, bytes (VmHWM of /proc/PID/status).
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kibibytes: u64 = line.split_ascii_whitespace().next().context("an empty VmHWM")?.parse()?;
        Ok(kibibytes * 1024)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // It may have ended before; nothing more can be done here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn given(variable: &str) -> Result<PathBuf> {
    let value = std::env::var_os(variable);
    value
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run `cargo xtask bench function`"))
}

fn free() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
