//! The two **measurements**: how long kine's writes take, and what a backup of a large database costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use vcluster_backup_tests::kine::{Compaction, Kine};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::site::{IDENTITY_FILE, Site};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::traffic::Traffic;
use vcluster_backup_tests::writer::{self, Load, Writer};

use crate::beside::{Beside, Contender};
use crate::litestream;

/// After each of them kine checkpoints with FULL, which waits for every reader.
const COMPACTIONS: usize = 3;
const COMPACTION: Compaction = Compaction { interval: Duration::from_secs(5), retain: 100 };
/// 200 MB.
const KEYS: u32 = 50_000;
const VALUE_BYTES: usize = 4000;
/// Transactions a second on it, and for how many seconds.
const RATE: u32 = 10;
const SECONDS: u64 = 60;

/// An empty bucket and an empty volume for each measurement: litestream would take a new database for an old one that
/// fell behind its bucket.
async fn site() -> Result<Site> {
    let tools = Tools::with(["kine", "minio", "mc", "litestream"]).context("a tool is missing")?;
    Site::start(tools).await
}

/// How long kine's writes took.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Writes {
    /// So many were acknowledged.
    pub count: usize,
    /// Half of them took no longer, milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, milliseconds.
    pub p99_ms: f64,
    /// None took longer, milliseconds.
    pub max_ms: f64,
    /// Whether the last write failed, which ended the measurement.
    pub failed: bool,
}

/// Writes through some compactions, with the contender beside kine.
pub async fn writes(contender: Contender) -> Result<Writes> {
    let site = &site().await?;
    let kine = Kine::start(site.tools(), &site.database(), Some(COMPACTION)).await?;
    let beside = Beside::start(contender, site, false).await?;
    let history = writer::through_compactions(&kine, Load::default(), COMPACTIONS).await?;
    kine.stop().await?;
    beside.stop().await?;
    let latency = history.latency().context("nothing was written")?;
    let [p50_ms, p99_ms, max_ms] =
        [latency.p50, latency.p99, latency.max].map(|took| took.as_secs_f64() * 1000.0);
    Ok(Writes { count: latency.count, p50_ms, p99_ms, max_ms, failed: history.unanswered.is_some() })
}

/// What a backup of a large database costs, and what it takes to get it back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Bytes that the store received in the minute, after the first snapshot.
    pub uploaded_bytes: u64,
    /// Requests in the minute that upload something.
    pub uploads: u64,
    /// All requests in the minute, as the store names them.
    pub requests: std::collections::BTreeMap<String, u64>,
    /// The most memory that the program ever had, first snapshot and all.
    pub peak_memory_bytes: u64,
    /// To restore the newest state, as the program does it unless told otherwise.
    pub restore_seconds: f64,
}

/// Ten transactions a second for a minute on 200 MB, then a restore.
pub async fn cost(contender: Contender) -> Result<Cost> {
    let site = &site().await?;
    kine_shaped::create(&site.database(), KEYS, VALUE_BYTES)?;
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let beside = Beside::start(contender, site, true).await?;
    let before = Traffic::at(&site.minio().metrics().await?);
    let writer = Writer::start(&kine, Load { rate: RATE, ..Load::default() }).await?;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let history = writer.stop().await?;
    ensure!(history.unanswered.is_none(), "a write failed: {:?}", history.unanswered);
    // The last of it is shipped.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let traffic = Traffic::at(&site.minio().metrics().await?).since(&before);
    let peak_memory_bytes = beside.peak_memory()?;
    kine.stop().await?;
    beside.stop().await?;

    let output = site.path("restored.db");
    let begin = Instant::now();
    match contender {
        Contender::Alone => {}
        Contender::Agent => {
            site.run(&["restore", "--output", "restored.db", "--identity-file", IDENTITY_FILE]).await?;
        }
        Contender::Litestream => litestream::restore(site, &output)?,
    }
    let restore_seconds = begin.elapsed().as_secs_f64();
    let verdict = kine_shaped::integrity(&output)?;
    ensure!(verdict == "ok", "the restored database: {verdict}");
    std::fs::remove_file(&output)?;
    Ok(Cost {
        uploaded_bytes: traffic.bytes(),
        uploads: traffic.uploads(),
        requests: traffic.requests,
        peak_memory_bytes,
        restore_seconds,
    })
}
