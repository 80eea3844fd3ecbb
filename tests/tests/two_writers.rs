//! **Two writers**: two copies of one database, each with its own kine and its own agent, on one bucket and prefix, as
//! after a volume was cloned or a pod came up twice. Their histories must never be merged.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use vcluster_backup_tests::history::{History, Write};
use vcluster_backup_tests::kine::Kine;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::restored::{self, Restored};
use vcluster_backup_tests::site::Site;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster;
use vcluster_backup_tests::writer::{self, Load, Writer};

const ANOTHER_WRITER: i32 = 11;

/// One of the two: a database, its kine and its agent.
struct Side {
    kine: Kine,
    agent: Process,
}

impl Side {
    async fn start(site: &Site, database: &Path) -> Result<Self> {
        let kine = Kine::start(site.tools(), database, None).await?;
        let database = database.to_string_lossy();
        let recipient = vcluster::RECIPIENT;
        let args = ["run", "--recipient", recipient, "--database", &database, "--sync-interval", "200ms"];
        let mut agent = Process::start("agent", &mut site.command(&args)?)?;
        // It has found its timeline, whichever that is.
        let log = agent.log_file();
        let resumed = || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.contains("goes on this timeline") || log.contains("snapshot published")
        };
        agent.until("on a timeline", Duration::from_secs(30), async || resumed()).await?;
        Ok(Self { kine, agent })
    }
}

/// What both have in common, in a database at rest.
async fn common_history(site: &Site) -> Result<Vec<Write>> {
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let mut client = kine.client().await?;
    let mut common = Vec::new();
    for number in 0..50 {
        let (key, value) =
            (format!("{}common-{number}", writer::PREFIX), format!("value {number}").into_bytes());
        let revision = client.create(&key, &value).await?;
        common.push(Write { revision, key, value: Some(value) });
    }
    ensure!(kine.stop().await?.success(), "kine failed");
    Ok(common)
}

#[tokio::test]
async fn one_of_them_ends_and_their_histories_are_never_mixed() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let common = common_history(&site).await?;
    let copy = site.path("copy.db");
    std::fs::copy(site.database(), &copy)?;
    let mut sides = [Side::start(&site, &site.database()).await?, Side::start(&site, &copy).await?];
    let mut writers = Vec::new();
    for (seed, side) in (1..).zip(&sides) {
        writers.push(Writer::start(&side.kine, Load { seed, ..Load::default() }).await?);
    }

    let begin = Instant::now();
    let (loser, status) = 'ended: loop {
        for (number, side) in sides.iter_mut().enumerate() {
            if let Ok(status) = side.agent.wait(Duration::ZERO).await {
                break 'ended (number, status);
            }
        }
        let logs = || sides.iter().map(|side| side.agent.log()).collect::<Vec<_>>().join("\n---\n");
        ensure!(begin.elapsed() < Duration::from_secs(30), "both agents still run after 30 s:\n{}", logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let told = sides[loser].agent.log();
    println!(
        "agent {loser} ended after {:.1} s: {}",
        begin.elapsed().as_secs_f64(),
        told.lines().last().unwrap_or_default()
    );
    ensure!(status.code() == Some(ANOTHER_WRITER), "agent {loser} ended with {status}:\n{told}");
    let last = told.lines().last().context("it ended without a word")?.to_lowercase();
    ensure!(last.contains("writer") || last.contains("another"), "it does not say why it ended:\n{told}");

    // The other goes on until its planned stop.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let [first, second] = sides;
    let (winner, other) = if loser == 0 { (second, first) } else { (first, second) };
    let Side { kine, mut agent } = winner;
    ensure!(agent.wait(Duration::ZERO).await.is_err(), "both agents ended:\n{}", agent.log());
    agent.terminate()?;
    let mut histories = Vec::new();
    for writer in writers {
        let mut history = writer.stop().await?;
        ensure!(history.unanswered.is_none(), "a write failed: {:?}", history.unanswered);
        history.acknowledged.splice(0..0, common.iter().cloned());
        histories.push(history);
    }
    ensure!(kine.stop().await?.success(), "kine failed");
    let status = agent.wait(Duration::from_secs(15)).await?;
    ensure!(status.success(), "the other agent ended with {status}:\n{}", agent.log());
    ensure!(other.kine.stop().await?.success(), "the other kine failed");

    one_history(&site, &histories[1 - loser], &histories[loser]).await
}

/// Every revision is that of the agent that went on, to its last write; none is that of the other, or of both.
async fn one_history(site: &Site, winner: &History, loser: &History) -> Result<()> {
    let (first, last) = restored::range(site).await?;
    ensure!(
        last == winner.newest(),
        "the bucket ends at {last}, the history that went on at {}",
        winner.newest()
    );
    let step = usize::try_from((last - first) / 10)?.max(1);
    let revisions: Vec<i64> = (first..last).step_by(step).chain([last]).collect();
    for revision in &revisions {
        let restored = Restored::revision(site, "restored.db", *revision).await?;
        let of_the_other = loser.differences(*revision, &restored.keys).is_empty();
        restored
            .is_exactly(winner, *revision)
            .with_context(|| format!("of the other history: {of_the_other}"))?;
    }
    println!("{} revisions of {first} to {last} are of one history", revisions.len());
    Ok(())
}
