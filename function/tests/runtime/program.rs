//! The **program** itself: exit codes, messages, SIGTERM.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::running::{call, connect};
use crate::{DEADLINE, within};

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_function-vcluster-backup"));
    command.args(args).env_remove("TLS_SERVER_CERTS_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that does not outlive its test.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_certificates_it_ends_with_2_and_says_what_to_give() {
    for command in [&mut program(&[]), program(&["--debug"]).env("TLS_SERVER_CERTS_DIR", "")] {
        let output = command.output().unwrap();
        let (stdout, stderr) = text(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains("give --tls-certs-dir DIR") && stderr.contains("--insecure"), "{stderr}");
    }
}

#[test]
fn missing_certificates_end_it_with_1_and_a_line_that_names_the_file() {
    let output = program(&[]).env("TLS_SERVER_CERTS_DIR", "/nowhere").output().unwrap();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let line: serde_json::Value = serde_json::from_str(stderr.trim()).unwrap();
    assert_eq!(line["level"], "ERROR");
    let message = line["message"].as_str().unwrap();
    assert!(message.starts_with("cannot read /nowhere/tls.crt: mount the Secret"), "{message}");
    assert!(message.ends_with("No such file or directory (os error 2)"), "{message}");
}

#[tokio::test]
async fn it_serves_until_sigterm_and_ends_with_0() {
    let args = ["--insecure", "--address=127.0.0.1:0", "--metrics-address=:0"];
    let mut child = Reaped(program(&args).spawn().unwrap());
    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(listening["message"], "listening for gRPC");
    let address = listening["address"].as_str().unwrap().parse().unwrap();

    let channel = connect(address, None).await.unwrap();
    assert_eq!(call(channel.clone(), "tag").await.unwrap(), "tag");

    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    let began = Instant::now();
    let status = within(async {
        loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(status.code(), Some(0), "{rest}");
    // An idle connection, which Crossplane always has, must not use up the time for draining.
    assert!(began.elapsed() < DEADLINE / 6, "took {:?}", began.elapsed());
    assert!(rest.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{rest}");
}
