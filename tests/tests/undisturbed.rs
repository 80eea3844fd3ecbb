//! **kine undisturbed**: the agent beside it does not make its writes wait, not even through compactions, whose FULL
//! checkpoints wait for every reader.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vcluster_backup_tests::kine::{Compaction, Kine};
use vcluster_backup_tests::latency::Latency;
use vcluster_backup_tests::site::Site;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::writer::{self, Load};

const COMPACTION: Compaction = Compaction { interval: Duration::from_secs(5), retain: 100 };
/// Compactions that each measurement goes through.
const COMPACTIONS: usize = 3;
/// Whoever holds a read transaction open makes a write wait for kine's busy timeout, 30 s.
const LONGEST: Duration = Duration::from_secs(5);

/// What the writes took through so many compactions.
async fn measured(kine: &Kine) -> Result<Latency> {
    let history = writer::through_compactions(kine, Load::default(), COMPACTIONS).await?;
    ensure!(history.unanswered.is_none(), "a write failed: {:?}", history.unanswered);
    history.latency().context("nothing was written")
}

#[tokio::test]
async fn kine_does_not_wait_for_the_agent() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let kine = Kine::start(site.tools(), &site.database(), Some(COMPACTION)).await?;
    let alone = measured(&kine).await?;
    println!("alone        {alone}");
    ensure!(kine.stop().await?.success(), "kine failed");

    site.lose_volume()?;
    let kine = Kine::start(site.tools(), &site.database(), Some(COMPACTION)).await?;
    let sidecar = site.sidecar(&["--snapshot-interval", "5s"]).await?;
    let beside = measured(&kine).await?;
    println!("with agent   {beside}");
    let ratio = |with: Duration, without: Duration| with.as_secs_f64() / without.as_secs_f64();
    println!(
        "ratio        p50 {:.2}  p99 {:.2}  max {:.2}",
        ratio(beside.p50, alone.p50),
        ratio(beside.p99, alone.p99),
        ratio(beside.max, alone.max)
    );
    ensure!(beside.max < LONGEST, "a write took {:?}", beside.max);

    let metrics = sidecar.metrics().await?;
    let snapshots = metrics.sum("vcluster_backup_uploads_total", &[("kind", "snapshot"), ("result", "ok")]);
    ensure!(snapshots >= 3.0, "{snapshots} snapshots fell into it");
    let reads = metrics.sum("vcluster_backup_read_transaction_seconds_count", &[]);
    let short = metrics.sum("vcluster_backup_read_transaction_seconds_bucket", &[("le", "0.1")]);
    println!("reads        {reads}, of which {short} took 0.1 s at most");
    ensure!(reads > 0.0 && (reads - short).abs() < 0.5, "{} reads took more than 0.1 s", reads - short);
    Ok(())
}
