//! A **process** under test: its output goes to a file that is shown when a wait fails; it dies when dropped.
//!
//! It stays in the process group of the test, so that an interrupt from the terminal ends it too.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

/// So many last lines of the log are shown.
const TAIL: usize = 60;
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: NamedTempFile,
}

impl Process {
    /// Starts it; `name` is for messages.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let log = NamedTempFile::new().context("cannot make a log file")?;
        // Clones share one offset: stdout and stderr do not overwrite each other.
        let child = command
            .stdin(Stdio::null())
            .stdout(log.as_file().try_clone()?)
            .stderr(log.as_file().try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until `condition` holds. Fails with the log if the process ends before, or the deadline passes.
    pub async fn until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            if condition().await {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}; its log ends:\n{}", self.name, self.tail());
            }
            if start.elapsed() > deadline {
                bail!("{}: not {what} within {deadline:?}; its log ends:\n{}", self.name, self.tail());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until something listens on this port of 127.0.0.1.
    pub async fn until_listening(&mut self, port: u16) -> Result<()> {
        self.until(&format!("listening on port {port}"), Duration::from_secs(30), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await
    }

    /// Sends SIGTERM, as the kubelet does.
    pub fn terminate(&self) -> Result<()> {
        kill_process(self.pid()?, Signal::TERM).with_context(|| format!("cannot stop {}", self.name))
    }

    /// SIGTERM, then waits for the end.
    pub async fn stop(mut self, deadline: Duration) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait(deadline).await
    }

    /// Waits for the end.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                bail!("{} still runs after {deadline:?}; its log ends:\n{}", self.name, self.tail());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends SIGKILL and waits: what a lost node does to it.
    pub fn kill(mut self) -> Result<()> {
        self.end().with_context(|| format!("cannot kill {}", self.name))
    }

    /// All that it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read(self.log.path()).map_or_else(
            |error| format!("(the log cannot be read: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Its resident memory in bytes, and the most it ever was (VmRSS, VmHWM of /proc/PID/status).
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kibibytes = |field: &str| -> Result<u64> {
            let line =
                status.lines().find(|line| line.starts_with(field)).context("no such field in status")?;
            Ok(line.split_ascii_whitespace().nth(1).context("an empty field in status")?.parse::<u64>()?
                * 1024)
        };
        Ok((kibibytes("VmRSS:")?, kibibytes("VmHWM:")?))
    }

    /// The file that it writes to.
    pub fn log_file(&self) -> std::path::PathBuf {
        self.log.path().to_owned()
    }

    /// The end of it.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    fn pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.child.id())?).context("pid 0")
    }

    fn end(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

/// The names of all processes that this one has started and that are still there.
pub fn children() -> Result<Vec<String>> {
    let own = std::process::id().to_string();
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        // `PID (NAME) STATE PARENT …`; a process may end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        let Some((before, after)) = stat.rsplit_once(") ") else { continue };
        if after.split(' ').nth(1) == Some(&own) {
            names.push(before.split_once('(').map_or(before, |(_, name)| name).to_owned());
        }
    }
    Ok(names)
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before; nothing more can be done here.
        let _ = self.end();
        if std::thread::panicking() {
            eprintln!("the log of {} ends:\n{}", self.name, self.tail());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Process> {
        Process::start("script", Command::new("sh").args(["-c", script]))
    }

    #[tokio::test]
    async fn a_failed_wait_shows_the_log() -> Result<()> {
        let mut ends = shell("echo to stdout; echo to stderr >&2; exit 3")?;
        let error =
            ends.until("ready", Duration::from_secs(10), async || false).await.map_err(|e| e.to_string());
        let error = error.err().context("the condition cannot hold")?;
        assert!(error.contains("exit status: 3") && error.ends_with("to stdout\nto stderr"), "{error}");
        let mut stays = shell("exec sleep 60")?;
        let error =
            stays.until("ready", Duration::from_millis(50), async || false).await.map_err(|e| e.to_string());
        assert!(error.is_err_and(|error| error.contains("not ready within 50ms")));
        Ok(())
    }

    #[tokio::test]
    async fn dropped_is_dead() -> Result<()> {
        let process = shell("exec sleep 60")?;
        let proc_entry = format!("/proc/{}", process.child.id());
        assert!(std::path::Path::new(&proc_entry).exists());
        assert!(children()?.contains(&"sleep".to_owned()), "{:?}", children()?);
        drop(process);
        assert!(!std::path::Path::new(&proc_entry).exists());
        let status = shell("trap 'exit 7' TERM; while :; do sleep 0.01; done")?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(status.stop(Duration::from_secs(10)).await?.code(), Some(7));
        Ok(())
    }
}
