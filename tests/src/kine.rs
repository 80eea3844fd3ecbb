//! **kine** on a SQLite file, as a vcluster runs it, and its etcd API, as kube-apiserver speaks it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tonic::transport::{Channel, Endpoint};

use crate::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcd::kv_client::KvClient;
use crate::etcd::request_op::Request;
use crate::etcd::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::history::Entry;
use crate::port;
use crate::process::Process;
use crate::toolbox::Tools;

/// The parameters of a vcluster's database (vcluster pkg/k8s/k8s.go, charts from 0.25).
const PARAMETERS: &str = "_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate";
/// Keys per page of a listing, as kube-apiserver asks for them.
const PAGE: i64 = 500;

/// Compaction by kine itself; without it only kube-apiserver asks for compaction.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    /// How often.
    pub interval: Duration,
    /// So many newest revisions are left alone.
    pub retain: u32,
}

/// A running kine.
pub struct Kine {
    process: Process,
    endpoint: String,
}

impl Kine {
    /// Starts it on a database, which it makes if there is none, and waits until it answers.
    pub async fn start(tools: &Tools, database: &Path, compaction: Option<Compaction>) -> Result<Self> {
        let port = port::free()?;
        let mut command = tools.command("kine")?;
        command
            .arg(format!("--endpoint=sqlite://{}?{PARAMETERS}", database.display()))
            .arg(format!("--listen-address=127.0.0.1:{port}"))
            .arg("--metrics-bind-address=0");
        if let Some(Compaction { interval, retain }) = compaction {
            command
                .arg(format!("--compact-interval={}ms", interval.as_millis()))
                .arg(format!("--compact-min-retain={retain}"));
        }
        let mut kine = Self {
            process: Process::start("kine", &mut command)?,
            endpoint: format!("http://127.0.0.1:{port}"),
        };
        let endpoint = kine.endpoint.clone();
        kine.process
            .until("answering", Duration::from_secs(30), async || match Client::connect(&endpoint).await {
                Ok(mut client) => client.list("/registry/health").await.is_ok(),
                Err(_) => false,
            })
            .await?;
        Ok(kine)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A connection of its own.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(&self.endpoint).await
    }

    /// SIGTERM, and waits until it has closed the database.
    pub async fn stop(self) -> Result<ExitStatus> {
        self.process.stop(Duration::from_secs(30)).await
    }

    /// Waits until it has closed the database after a SIGTERM that it was sent.
    pub async fn ended(mut self) -> Result<ExitStatus> {
        self.process.wait(Duration::from_secs(30)).await
    }

    /// How often it has compacted; it then checkpoints with FULL.
    pub fn compactions(&self) -> usize {
        // kine pkg/logstructured/sqllog/sql.go, compactIter.
        self.process.log().matches("COMPACT compacted from").count()
    }

    /// SIGKILL.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// A connection to kine. It understands only the transactions of kube-apiserver's storage
/// (kine pkg/server: isCreate, isUpdate, isDelete), and only they are here.
pub struct Client(KvClient<Channel>);

impl Client {
    async fn connect(endpoint: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect().await;
        Ok(Self(KvClient::new(channel.with_context(|| format!("cannot connect to kine at {endpoint}"))?)))
    }

    /// Makes a key that must not be there. Returns its revision.
    pub async fn create(&mut self, key: &str, value: &[u8]) -> Result<i64> {
        self.commit("create", key, 0, put(key, value), None).await
    }

    /// Changes a key that must be at revision `at`. Returns the new revision.
    pub async fn update(&mut self, key: &str, value: &[u8], at: i64) -> Result<i64> {
        self.commit("update", key, at, put(key, value), Some(get(key))).await
    }

    /// Deletes a key that must be at revision `at`. Returns the revision of the deletion.
    pub async fn delete(&mut self, key: &str, at: i64) -> Result<i64> {
        let delete = Request::RequestDeleteRange(DeleteRangeRequest { key: key.into() });
        self.commit("delete", key, at, delete, Some(get(key))).await
    }

    /// Every key that begins with `prefix`, and the revision of the database at which this is so.
    pub async fn list(&mut self, prefix: &str) -> Result<(i64, BTreeMap<String, Entry>)> {
        let mut entries = BTreeMap::new();
        let mut key = prefix.as_bytes().to_vec();
        let mut range_end = key.clone();
        // The last byte of a prefix is ASCII: one more is the first key behind them all.
        *range_end.last_mut().context("an empty prefix")? += 1;
        let mut revision = 0;
        loop {
            let request = RangeRequest { key, range_end: range_end.clone(), limit: PAGE, revision };
            let page =
                self.0.range(request).await.with_context(|| format!("cannot list {prefix}"))?.into_inner();
            if revision == 0 {
                revision = page.header.context("kine answered without a header")?.revision;
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            for kv in page.kvs {
                let (create_revision, mod_revision) = (kv.create_revision, kv.mod_revision);
                entries.insert(
                    String::from_utf8(kv.key)?,
                    Entry { value: kv.value, create_revision, mod_revision },
                );
            }
            match last {
                Some(last) if page.more => key = [last.as_slice(), b"\0"].concat(),
                _ => return Ok((revision, entries)),
            }
        }
    }

    /// `then`, if the key was last changed at revision `at`.
    async fn commit(
        &mut self,
        verb: &str,
        key: &str,
        at: i64,
        then: Request,
        or: Option<Request>,
    ) -> Result<i64> {
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.into(),
            target_union: Some(TargetUnion::ModRevision(at)),
        };
        let op = |request| RequestOp { request: Some(request) };
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![op(then)],
            failure: or.map(op).into_iter().collect(),
        };
        let answer = self.0.txn(txn).await.with_context(|| format!("cannot {verb} {key}"))?.into_inner();
        ensure!(answer.succeeded, "kine refused to {verb} {key}: it is not at revision {at}");
        Ok(answer.header.context("kine answered without a header")?.revision)
    }
}

fn put(key: &str, value: &[u8]) -> Request {
    Request::RequestPut(PutRequest { key: key.into(), value: value.into() })
}

fn get(key: &str) -> Request {
    Request::RequestRange(RangeRequest { key: key.into(), ..RangeRequest::default() })
}
