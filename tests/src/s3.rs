//! An **S3 server in this process**, for tests and the demo that need Rust alone: crate `s3s` over a temp folder. It
//! can be told to fail as networks and servers do.
//!
//! Its objects are plain files, so a test can cut, swap or forge them ([`S3::object`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fault::{self, Body, Closed};

pub use crate::fault::Fault;

/// The access key that the server takes.
pub const ACCESS_KEY: &str = "AKIDTEST";
/// Its secret key, which no log or error may show.
pub const SECRET_KEY: &str = "s3cr3t-of-the-tests";

/// Which requests a fault meets.
type Matching = fn(&Method, &str) -> bool;

#[derive(Default)]
struct Script {
    faults: VecDeque<(Matching, Fault)>,
    requests: Vec<String>,
}

/// A running server.
pub struct S3 {
    folder: TempDir,
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl S3 {
    /// Starts it on a free port of 127.0.0.1, with one bucket.
    pub async fn start(bucket: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for objects")?;
        std::fs::create_dir(folder.path().join(bucket)).context("cannot make the bucket")?;
        let files = FileSystem::new(folder.path())
            .map_err(|error| anyhow::anyhow!("the S3 server refuses its folder: {error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let script = Arc::new(Mutex::new(Script::default()));
        let task = tokio::spawn(serve(listener, service.build(), script.clone()));
        Ok(Self { folder, address, script, task })
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request that `matching` takes fails in this way. Faults are met in the order in which they were set.
    pub fn fail(&self, matching: Matching, fault: Fault) {
        lock(&self.script).faults.push_back((matching, fault));
    }

    /// Whether every fault was met.
    pub fn all_met(&self) -> bool {
        lock(&self.script).faults.is_empty()
    }

    /// The requests so far, as `METHOD path?query`.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.script).requests.clone()
    }

    /// The file that an object is.
    pub fn object(&self, bucket: &str, key: &str) -> PathBuf {
        self.folder.path().join(bucket).join(key)
    }

    /// The keys in a bucket, sorted.
    pub fn keys(&self, bucket: &str) -> Result<Vec<String>> {
        let root = self.folder.path().join(bucket);
        let mut keys = Vec::new();
        collect(&root, &root, &mut keys)?;
        keys.sort();
        Ok(keys)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn collect(root: &Path, folder: &Path, keys: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, keys)?;
        } else {
            keys.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, service: S3Service, script: Arc<Mutex<Script>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (service, script) = (service.clone(), script.clone());
        let answer = service_fn(move |request| answer(service.clone(), script.clone(), request));
        tokio::spawn(async move {
            // A client may go away at any time.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn answer(
    service: S3Service,
    script: Arc<Mutex<Script>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let fault = {
        let mut script = lock(&script);
        script.requests.push(format!("{} {}", request.method(), request.uri()));
        let meets =
            |(matching, _): &(Matching, Fault)| matching(request.method(), &request.uri().to_string());
        if script.faults.front().is_some_and(meets) { script.faults.pop_front() } else { None }
    };
    fault::meet(fault.map(|(_, fault)| fault), request, async |request| {
        let answer = service.call(request.map(s3s::Body::http_body_unsync)).await.map_err(|_| Closed)?;
        Ok(answer.map(|body| {
            body.map_err(|error| -> Box<dyn std::error::Error + Send + Sync> { error }).boxed_unsync()
        }))
    })
    .await
}
