//! What the agent's tests share: the program as an operator runs it, against an S3 server in the test's process.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub mod faults;
pub mod memory_store;
pub mod model;
pub mod random;
pub mod way;
pub mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vcluster_backup_tests::s3::{ACCESS_KEY, S3, SECRET_KEY};

pub const BUCKET: &str = "backups";

/// A bucket, a folder and a key pair.
pub struct Bench {
    pub s3: S3,
    pub folder: TempDir,
}

/// What became of a verb.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Fails the test unless it ended so.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless it was refused with all these words.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) {
        let finished = self.ended(code);
        for word in words {
            assert!(finished.stderr.contains(word), "no '{word}' in: {}", finished.stderr);
        }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl Bench {
    pub async fn new() -> Self {
        let bench = Self { s3: S3::start(BUCKET).await.unwrap(), folder: tempfile::tempdir().unwrap() };
        for name in ["key.txt", "other.txt"] {
            let made = bench.command(&["keygen"]).output().unwrap();
            std::fs::write(bench.path(name), made.stdout).unwrap();
            std::fs::write(bench.path(&format!("{name}.pub")), made.stderr).unwrap();
        }
        // 43 characters of base64url are the 32 bytes of a seed.
        std::fs::write(bench.path("signing-key"), format!("{}A", "B".repeat(42))).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn recipient(&self) -> String {
        std::fs::read_to_string(self.path("key.txt.pub")).unwrap().trim().to_owned()
    }

    /// The agent in a clean environment, with bucket and credentials set as a pod has them.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vcluster-backup"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", std::env::temp_dir())
            .env("ENDPOINT", self.s3.endpoint())
            .env("BUCKET_NAME", BUCKET)
            .env("ACCESS_KEY", ACCESS_KEY)
            .env("SECRET_KEY", SECRET_KEY)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    pub async fn run(&self, args: &[&str]) -> Finished {
        finish(self.command(args)).await
    }

    /// One snapshot of a database; its key.
    #[track_caller]
    pub fn snapshot<'a>(
        &'a self,
        database: &'a Path,
        more: &'a [&'a str],
    ) -> impl Future<Output = String> + 'a {
        let recipient = self.recipient();
        async move {
            let database = database.to_str().unwrap();
            let mut args = vec!["snapshot", "--database", database, "--recipient", &recipient];
            args.extend_from_slice(more);
            self.run(&args).await.ended(0).stdout.trim().to_owned()
        }
    }

    /// The newest point, restored to `name`.
    pub async fn restore(&self, name: &str, more: &[&str]) -> Finished {
        let mut args = vec!["restore", "--output", name, "--identity-file", "key.txt"];
        args.extend_from_slice(more);
        self.run(&args).await
    }
}

/// Waits until the condition holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "not {what} within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The answer to a GET, head and body; empty if nobody listens.
pub async fn get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut socket) = tokio::net::TcpStream::connect(address).await else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = socket.write_all(request.as_bytes()).await;
    let _ = socket.read_to_string(&mut answer).await;
    answer
}

/// Runs a command to its end; the server in this process goes on meanwhile.
pub async fn finish(command: Command) -> Finished {
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await.unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
