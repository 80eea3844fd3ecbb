//! **Every revision** that kine acknowledged can be brought back, exactly, by its number or by its time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vcluster_backup::clock::{Clock, Moment};
use vcluster_backup_tests::dice::Dice;
use vcluster_backup_tests::history::History;
use vcluster_backup_tests::kine::{Compaction, Kine};
use vcluster_backup_tests::restored::{self, Restored};
use vcluster_backup_tests::site::Site;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::writer::{self, Load, Writer};

const SYNC_INTERVAL: Duration = Duration::from_millis(300);
/// What a busy machine may add to the sync interval, and to the time between a write and the look that saw it.
const MARGIN: Duration = Duration::from_millis(700);

/// The newest acknowledged revision at so many moments.
type Seen = Vec<(Moment, i64)>;

#[tokio::test]
async fn comes_back_exactly_by_number_and_by_time() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let mut dice = Dice::of_the_moment("every revision");
    // More than is written in an interval is left alone: compaction that passes what is shipped makes a gap, by design.
    let compaction = Compaction { interval: Duration::from_secs(2), retain: 500 };
    let kine = Kine::start(site.tools(), &site.database(), Some(compaction)).await?;
    let interval = format!("{}ms", SYNC_INTERVAL.as_millis());
    let sidecar = site.sidecar(&["--sync-interval", &interval]).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    let seen = watch(&writer, Duration::from_secs(15)).await;
    sidecar.terminate()?;
    let history = writer.stop().await?;
    ensure!(history.unanswered.is_none(), "a write failed beside the agent: {:?}", history.unanswered);
    ensure!(kine.process().log().contains("COMPACT"), "kine did not compact");
    ensure!(kine.stop().await?.success(), "kine failed");
    sidecar.ended().await?;

    let (first, last) = restored::range(&site).await?;
    ensure!(last == history.newest(), "the bucket ends at {last}, kine at {}", history.newest());
    let revisions = dice.revisions(first, last, 25);
    println!("{revisions:?}");
    restored::every_one(&site, &history, &revisions).await?;
    by_time(&site, &history, &seen, &mut dice).await?;
    kine_goes_on(&site, &history, revisions[revisions.len() / 2]).await
}

async fn watch(writer: &Writer, span: Duration) -> Seen {
    let mut seen = Seen::new();
    let end = Clock::SYSTEM.now().plus(span);
    loop {
        let newest = writer.newest();
        let now = Clock::SYSTEM.now();
        seen.push((now, newest));
        if now >= end {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A point in time holds what was acknowledged a sync interval before it, nothing that was written after it, and is the
/// state of one revision.
async fn by_time(site: &Site, history: &History, seen: &Seen, dice: &mut Dice) -> Result<()> {
    let end = seen.last().context("nothing was seen")?.0;
    // Early enough for all that follows to be in the record.
    let usable: Vec<_> = seen
        .iter()
        .filter(|(at, revision)| *revision > 0 && at.plus(SYNC_INTERVAL + 2 * MARGIN) < end)
        .collect();
    for _ in 0..5 {
        let (acknowledged, revision) =
            **usable.get(usize::try_from(dice.below(usable.len() as u64))?).context("none")?;
        let at = acknowledged.plus(SYNC_INTERVAL + MARGIN);
        let latest = seen.iter().find(|(moment, _)| *moment >= at.plus(MARGIN)).context("too late")?.1;
        let restored = Restored::point(site, "at.db", &["--at", &at.to_string()]).await?;
        println!("--at {at}: {revision} was acknowledged in time, {} is restored", restored.revision);
        ensure!(
            (revision..=latest).contains(&restored.revision),
            "--at {at} gives revision {}: {revision} was acknowledged at {acknowledged}, and not more than {latest} by then",
            restored.revision
        );
        restored.is_exactly(history, restored.revision)?;
    }
    Ok(())
}

/// kine on a revision from the middle of the history gives the same keys, and goes on above all that ever were.
async fn kine_goes_on(site: &Site, history: &History, revision: i64) -> Result<()> {
    let restored = Restored::revision(site, "middle.db", revision).await?;
    let kine = Kine::start(site.tools(), &restored.path, None).await?;
    let mut client = kine.client().await?;
    let (now, found) = client.list(writer::PREFIX).await?;
    assert_eq!(history.differences(revision, &found), Vec::<String>::new());
    ensure!(now >= history.newest() + 1000, "the revision is {now}, it was {}", history.newest());
    let next = client.create(&format!("{}after", writer::PREFIX), b"1").await?;
    assert_eq!(next, now + 1);
    let (key, entry) = found.iter().next().context("nothing was written")?;
    let changed = client.update(key, b"after the restore", entry.mod_revision).await?;
    assert_eq!(changed, next + 1);
    Ok(())
}
