//! What a backup **costs**: requests and bytes, of a busy cluster and of an idle one.

use std::time::Duration;

use anyhow::{Result, ensure};
use vcluster_backup_tests::api_server::ApiServer;
use vcluster_backup_tests::kine::Kine;
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::sidecar::Sidecar;
use vcluster_backup_tests::site::Site;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::traffic::Traffic;
use vcluster_backup_tests::wal::Wal;
use vcluster_backup_tests::writer::{Load, Writer};

async fn traffic(sidecar: &Sidecar) -> Result<Traffic> {
    Ok(Traffic::of(&sidecar.metrics().await?))
}

/// 10 transactions a second for a minute, on a database of 200 MB.
#[tokio::test]
async fn a_busy_cluster_costs_what_changes() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    kine_shaped::create(&site.database(), 50_000, 4000)?;
    let bytes = std::fs::metadata(site.database())?.len();
    ensure!(bytes > 200_000_000, "the database has {bytes} bytes alone");
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let sidecar = site.sidecar(&[]).await?;
    let before = traffic(&sidecar).await?;
    println!("the first snapshot of {bytes} bytes: {before}");

    let (load, seconds) = (Load { rate: 10, ..Load::default() }, 60);
    let wal = Wal::measure(&site.database());
    let writer = Writer::start(&kine, load).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let history = writer.stop().await?;
    ensure!(history.unanswered.is_none(), "a write failed: {:?}", history.unanswered);
    let wal = wal.written().await?;
    // The last of it is shipped.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cost = traffic(&sidecar).await?.since(&before);
    let count = history.acknowledged.len();
    let values: usize =
        history.acknowledged.iter().filter_map(|write| Some(write.value.as_ref()?.len())).sum();
    println!("{count} writes in {seconds} s, values of {values} bytes: {cost}");
    println!("the WAL: {wal} bytes, {} times as many", wal / cost.bytes().max(1));

    // A segment a second, two where the store is slow and the agent begins early; a merge a minute. Whether another agent
    // writes is looked for every 10 s.
    ensure!(cost.uploads() <= 2 * seconds + 10, "{} uploads", cost.uploads());
    ensure!(cost.count("list") <= seconds / 10 + 2, "{} lists", cost.count("list"));
    ensure!(!cost.uploaded.contains_key("snapshot"), "a snapshot more");
    ensure!(cost.bytes() > 0 && cost.bytes() < 3 * values as u64, "{} bytes uploaded", cost.bytes());
    ensure!(cost.bytes() < wal / 4, "{} bytes uploaded, {wal} written", cost.bytes());
    Ok(())
}

/// A control plane on which nobody works, for ten minutes: leases are renewed, nothing else happens.
#[tokio::test]
async fn an_idle_cluster_costs_next_to_nothing() -> Result<()> {
    let tools = ["minio", "mc", "kine", "kube-apiserver", "kubectl"];
    let Some(tools) = Tools::with(tools) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let api = ApiServer::start_on(site.tools(), &site.database()).await?;
    let sidecar = site.sidecar(&[]).await?;
    // An API server goes on for a while with what belongs to its start.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = traffic(&sidecar).await?;
    let first = revision(&api).await?;
    let seconds = 600;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cost = traffic(&sidecar).await?.since(&before);
    let revisions = revision(&api).await? - first;
    println!("idle for {seconds} s, {revisions} revisions all the same: {cost}");
    let days = 86_400.0 / 600.0;
    let [uploads, lists, bytes] = [cost.uploads(), cost.count("list"), cost.bytes()];
    // A provider asks as much for a list as for an upload, and next to nothing for the rest.
    let a_day = f64::from(u32::try_from(uploads + lists)?) * days;
    println!(
        "a day: {a_day:.0} uploads and lists, {:.2} MB; a month at 0.005 dollars for 1000: {:.2} dollars",
        f64::from(u32::try_from(bytes)?) * days / 1e6,
        a_day * 30.0 / 1000.0 * 0.005
    );
    ensure!(revisions > 0, "not even a lease was renewed");
    // A segment in 30 s, and a merge a minute.
    ensure!(uploads <= seconds / 30 + seconds / 60 + 5, "{uploads} uploads");
    // After a segment it is looked for another agent once; what has not changed is not even listed.
    ensure!(lists <= seconds / 30 + 2, "{lists} lists");
    Ok(())
}

async fn revision(api: &ApiServer) -> Result<i64> {
    Ok(api.kine().client().await?.list("/registry/health").await?.0)
}
