//! A **chart server**: the vcluster chart in a Helm repository on loopback, as `chart.repository` of the Input names one.
//!
//! The chart is its makers' own, out of their module (tool `vcluster-chart`); like their release it gets its version when it
//! is packaged.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::toolbox::Tools;

/// A running server.
pub struct ChartServer {
    address: SocketAddr,
    // Served as long as the server runs.
    _folder: TempDir,
    task: JoinHandle<()>,
}

impl ChartServer {
    /// Packages the chart in these versions, writes the index and serves both. Needs the tools `helm` and
    /// `vcluster-chart`.
    pub async fn start(tools: &Tools, versions: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for version in versions {
            let mut package = helm(tools, folder.path())?;
            package.arg("package").arg(tools.path("vcluster-chart")?);
            run(package.arg("--version").arg(version).arg("--destination").arg(folder.path()))?;
        }
        run(helm(tools, folder.path())?.args(["repo", "index"]).arg(folder.path()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, folder.path().to_owned()));
        Ok(Self { address, _folder: folder, task })
    }

    /// What the Input gives as `chart.repository`.
    pub fn repository(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for ChartServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// helm, with nothing of our own settings.
fn helm(tools: &Tools, home: &Path) -> Result<Command> {
    let mut command = tools.command("helm")?;
    command.env("HOME", home).current_dir(home);
    Ok(command)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot start helm")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn serve(listener: TcpListener, folder: std::path::PathBuf) {
    while let Ok((socket, _)) = listener.accept().await {
        let folder = folder.clone();
        let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            // The last part of the path alone: there is but one folder.
            let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let file = std::fs::read(folder.join(name));
            async move {
                let mut answer = Response::new(Full::new(Bytes::new()));
                match file {
                    Ok(bytes) => *answer.body_mut() = Full::new(bytes.into()),
                    Err(_) => *answer.status_mut() = StatusCode::NOT_FOUND,
                }
                Ok::<_, Infallible>(answer)
            }
        });
        tokio::spawn(async move {
            // A client may go away at any time.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}
