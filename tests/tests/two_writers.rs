//! **Two writers**: two copies of one database, each with its own kine and its own agent, on one bucket and prefix, as
//! after a volume was cloned or a pod came up twice. Their histories must never be merged.

use std::path::{Path, PathBuf};
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

/// The exit code of an agent that finds another.
const ANOTHER_WRITER: i32 = 11;
/// Within this one of two agents must have ended.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// Another load for each side, and not at the same pace.
async fn load(kine: &Kine, side: u32) -> Result<Writer> {
    Writer::start(kine, Load { rate: 200 / side, seed: side.into(), ..Load::default() }).await
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
        common.push(Write { revision, key, value: Some(value), took: std::time::Duration::ZERO });
    }
    ensure!(kine.stop().await?.success(), "kine failed");
    Ok(common)
}

/// A copy of kine's database.
fn copy(site: &Site) -> Result<PathBuf> {
    let copy = site.path("copy.db");
    for suffix in ["", "-wal"] {
        // What kine has written since its last checkpoint is in the second, which it does not always leave.
        let from = format!("{}{suffix}", site.database().display());
        if Path::new(&from).exists() {
            std::fs::copy(&from, format!("{}{suffix}", copy.display()))?;
        }
    }
    Ok(copy)
}

/// Waits until one of the agents has ended as it must. Returns which one.
async fn one_ends(sides: &mut [Side; 2]) -> Result<usize> {
    let begin = Instant::now();
    let (loser, status) = 'ended: loop {
        for (number, side) in sides.iter_mut().enumerate() {
            if let Ok(status) = side.agent.wait(Duration::ZERO).await {
                break 'ended (number, status);
            }
        }
        let logs = || sides.iter().map(|side| side.agent.log()).collect::<Vec<_>>().join("\n---\n");
        ensure!(begin.elapsed() < PATIENCE, "both agents still run after {PATIENCE:?}:\n{}", logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let told = sides[loser].agent.log();
    let last = told.lines().last().context("it ended without a word")?;
    println!("agent {loser} ended after {:.1} s: {last}", begin.elapsed().as_secs_f64());
    ensure!(status.code() == Some(ANOTHER_WRITER), "agent {loser} ended with {status}:\n{told}");
    ensure!(last.contains("another agent"), "it does not say why it ended:\n{told}");
    Ok(loser)
}

/// The agent that is left goes on until its planned stop. The histories of both sides, that of the one that was left
/// first.
async fn stop(
    sides: [Side; 2],
    writers: [Writer; 2],
    common: &[Write],
    loser: usize,
) -> Result<[History; 2]> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut histories = Vec::new();
    for (number, (side, writer)) in sides.into_iter().zip(writers).enumerate() {
        let Side { kine, mut agent } = side;
        if number != loser {
            ensure!(agent.wait(Duration::ZERO).await.is_err(), "both agents ended:\n{}", agent.log());
            agent.terminate()?;
        }
        let mut history = writer.stop().await?;
        ensure!(history.unanswered.is_none(), "a write failed: {:?}", history.unanswered);
        history.acknowledged.splice(0..0, common.iter().cloned());
        histories.push(history);
        ensure!(kine.stop().await?.success(), "a kine failed");
        if number != loser {
            let status = agent.wait(Duration::from_secs(15)).await?;
            ensure!(status.success(), "the agent that was left ended with {status}:\n{}", agent.log());
        }
    }
    histories.rotate_left(1 - loser);
    histories.try_into().map_err(|_| anyhow::anyhow!("two sides have two histories"))
}

/// Fails unless what was restored is of one of both histories, to the byte and to the key. Returns whose.
fn whose(restored: &Restored, histories: &[History; 2]) -> Result<usize> {
    let wrong = histories.each_ref().map(|history| history.differences(restored.revision, &restored.keys));
    wrong.iter().position(Vec::is_empty).with_context(|| {
        let first = wrong.each_ref().map(|wrong| wrong.iter().take(5).collect::<Vec<_>>());
        format!("revision {} is of neither history: {first:#?}", restored.revision)
    })
}

fn revisions(first: i64, last: i64) -> Vec<i64> {
    let step = usize::try_from((last - first) / 10).unwrap_or(0).max(1);
    (first..last).step_by(step).chain([last]).collect()
}

/// The newest point is the last write beside the agent that was left, and every point is of one history or the other.
async fn never_mixed(site: &Site, histories: &[History; 2]) -> Result<()> {
    let mut points = [0, 0];
    for (first, last) in restored::ranges(site).await? {
        for revision in revisions(first, last) {
            let restored = Restored::revision(site, "restored.db", revision).await?;
            ensure!(restored.revision == revision, "{revision} was asked for, {} came", restored.revision);
            points[whose(&restored, histories)?] += 1;
        }
    }
    println!("{} points are of the agent that was left, {} of the other", points[0], points[1]);
    let latest = Restored::point(site, "restored.db", &["--latest"]).await?;
    latest.is_exactly(&histories[0], histories[0].newest()).context("the newest point")
}

/// Both begin on the same timeline, each with revisions of its own.
#[tokio::test]
async fn of_two_on_one_timeline_one_ends() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let common = common_history(&site).await?;
    let copy = copy(&site)?;
    let mut sides = [Side::start(&site, &site.database()).await?, Side::start(&site, &copy).await?];
    let writers = [load(&sides[0].kine, 1).await?, load(&sides[1].kine, 2).await?];
    let loser = one_ends(&mut sides).await?;
    let histories = stop(sides, writers, &common, loser).await?;
    never_mixed(&site, &histories).await
}

/// The second agent comes when the copies have parted, and opens a timeline of its own: the first must not go on beside
/// it, as nobody could tell which of both is the cluster.
#[tokio::test]
async fn of_two_that_have_parted_one_ends() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let common = common_history(&site).await?;
    let copy = copy(&site)?;
    let first = Side::start(&site, &site.database()).await?;
    let writer = load(&first.kine, 1).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let second = Side::start(&site, &copy).await?;
    let writers = [writer, load(&second.kine, 2).await?];
    let mut sides = [first, second];
    let loser = one_ends(&mut sides).await?;
    let histories = stop(sides, writers, &common, loser).await?;
    never_mixed(&site, &histories).await
}
