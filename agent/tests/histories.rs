//! **Property tests of the log**: random kine histories, shipped by a replicator that crashes, loses answers, is away,
//! merges and has its clock set, and every revision of them restored.
//!
//! A revision is restored from what the bucket holds: plan, snapshot and verified segments, whose rows are applied one
//! after another, so that the state is compared at every revision on the way. One of sixteen is restored once more by the
//! whole of `restore`, into a file. Each history is a seed; a failure prints it, and
//!
//! ```text
//! VCB_SEED=17 cargo test --workspace --test histories
//! ```
//! replays it. `VCB_RESTORE_POINTS` sets how many revisions are restored at least.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use support::model::{self, History, State};
use support::random::Random;
use support::way::Way;
use support::world::World;
use tempfile::TempDir;
use vcluster_backup::catalogue::Catalogue;
use vcluster_backup::progress::Progress;
use vcluster_backup::restore::assembly::{OnDamage, assemble};
use vcluster_backup::restore::plan::{Plan, Target, plan};
use vcluster_backup::retention::Retention;
use vcluster_backup::revision::Revision;

/// The issue is decided by numbers: so many revisions are restored at least.
const RESTORE_POINTS: u64 = 100_000;

/// One in so many is restored by the whole of `restore` as well.
const WHOLE: u64 = 16;

/// Fails with the keys that differ.
#[track_caller]
fn assert_same(found: &State, expected: &State, what: &str) {
    let keys: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let different: Vec<_> = keys
        .into_iter()
        .filter(|key| found.get(*key) != expected.get(*key))
        .map(|key| format!("{key:?}: found {:?}, expected {:?}", found.get(key), expected.get(key)))
        .collect();
    assert!(different.is_empty(), "{what}: {different:#?}");
}

/// Restores every revision of a history; returns how many.
async fn check(world: &World) -> u64 {
    let catalogue = world.catalogue();
    let (mut way, mut count): (Option<Way>, u64) = (None, 0);
    let of_all = catalogue.timelines.values().flat_map(|history| {
        let snapshots = history.snapshots.keys().map(|(_, captured)| *captured);
        snapshots.chain(history.segments.iter().map(|segment| segment.captured))
    });
    let newest = of_all.max();
    let window = world.retention.and_then(|rules| Some(newest?.minus(rules.window)));
    let must = |revision: i64| {
        world.shipped.values().any(|(from, to)| (*from..=*to).contains(&revision))
            && window
                .is_none_or(|from| world.captured.get(&revision).is_some_and(|captured| *captured > from))
    };
    for (revision, expected) in &world.states {
        let target = Target::Revision(Revision::from_sql(*revision));
        let planned = match plan(&catalogue, &target, None, "the bucket") {
            Ok(plan) => plan,
            Err(error) => {
                let captured = world.captured.get(revision);
                assert!(
                    !must(*revision),
                    "revision {revision}, captured at {captured:?}, window from {window:?}: {error}"
                );
                continue;
            }
        };
        let way = match &mut way {
            Some(way) if way.base == planned.snapshot_name() => way,
            other => other.insert(Way::begin(world, &planned)),
        };
        for segment in &planned.segments {
            way.take(world, planned.timeline, segment);
        }
        way.go_to(Revision::from_sql(*revision));
        assert_same(&model::state(&way.connection, None), expected, &format!("revision {revision}"));
        count += 1;
        if count.is_multiple_of(WHOLE) {
            let restored = restore(world, &planned).await;
            assert_same(&model::state(&restored.1, None), expected, &format!("revision {revision}, whole"));
        }
    }
    let newest = plan(&catalogue, &Target::Latest, None, "the bucket").unwrap();
    assert!(newest.point.revision.to_sql() >= world.history.revision(), "the last turns shipped everything");
    check_rows(world, &newest).await;
    check_moments(world, &catalogue).await;
    count
}

/// The newest restored database has every row of the live one, and after the same compaction no other.
async fn check_rows(world: &World, newest: &Plan) {
    let (_folder, restored) = restore(world, newest).await;
    let live = model::rows(world.history.connection());
    let found = model::rows(&restored);
    for (id, row) in &live {
        assert_eq!(found.get(id), Some(row), "row {id}");
    }
    model::compact_at(&restored, model::compact_revision(world.history.connection()));
    let found = model::rows(&restored);
    let extra: Vec<_> =
        found.iter().filter(|(id, row)| !live.contains_key(id) && !row.name.starts_with("gap-")).collect();
    assert_eq!(extra, Vec::new(), "rows that kine had dropped");
}

/// `--at`: what was written before and shipped is there, and nothing that was written later.
async fn check_moments(world: &World, catalogue: &Catalogue) {
    for (moment, revision) in world.seen.iter().step_by(97) {
        let Ok(planned) = plan(catalogue, &Target::At(*moment), None, "the bucket") else { continue };
        let restored = restore(world, &planned).await;
        let found = restored.0.1;
        assert!(found <= *revision, "at {moment}: revision {found} was not written before {revision} was");
        let expected = world.states.get(&found);
        if let Some(expected) = expected {
            assert_same(
                &model::state(&restored.1, None),
                expected,
                &format!("at {moment}, revision {found}"),
            );
        }
    }
}

/// A plan carried out into a file; the revision that is reached.
async fn restore(world: &World, plan: &Plan) -> ((TempDir, i64), Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("restored.db");
    let store = world.store.copy();
    let highest = plan.highest_revision;
    let assembled = assemble(&store, plan, world.keys(), highest, &path, OnDamage::Fail, &Progress::hidden())
        .await
        .unwrap();
    assert_eq!(assembled.bumped_to, Some(highest.plus(1000)));
    let connection = open(&path);
    ((folder, assembled.point.revision.to_sql()), connection)
}

fn open(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

/// A copy of a world's database with a life of its own, and an agent that ships it to the same place.
fn fork(world: &World, seed: u64) -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let copied = format!("VACUUM INTO '{}'", path.display());
    world.history.connection().execute_batch(&copied).unwrap();
    World {
        history: History::go_on(&path, seed),
        folder,
        random: Random::new(seed),
        store: world.store.clone(),
        now: world.now,
        identity: world.identity.clone(),
        agent: None,
        states: world.states.clone(),
        shipped: BTreeMap::new(),
        captured: BTreeMap::new(),
        retention: None,
        pruned: 0,
        seen: Vec::new(),
    }
}

/// Two agents ship two copies of one database to one place, and neither looks for the other; returns how many points
/// were restored.
async fn two_writers(seed: u64) -> u64 {
    let mut first = World::new(seed);
    for _ in 0..40 {
        first.write();
        first.pass(100);
    }
    first.turn().await;
    first.write();
    first.turn().await;
    let mut second = fork(&first, seed + 1);
    // The second starts before the first goes on, so that both go on from the same link.
    // Opened while it is written, as a sidecar finds it.
    second.write();
    let mut agents = [first.agent.take().unwrap(), second.start_agent()];
    agents[1].log.resume(&agents[1].database).await.unwrap().unwrap();
    for _ in 0..30 {
        let side = first.random.below(2);
        let world = if side == 0 { &mut first } else { &mut second };
        for _ in 0..=world.random.below(4) {
            world.write();
        }
        world.pass(1000);
        let _ = agents[side].log.ship(&agents[side].database).await.unwrap();
    }
    let catalogue = first.catalogue();
    let mut points = 0;
    let revisions: BTreeSet<i64> = first.states.keys().chain(second.states.keys()).copied().collect();
    for revision in revisions {
        let Ok(planned) =
            plan(&catalogue, &Target::Revision(Revision::from_sql(revision)), None, "the bucket")
        else {
            continue;
        };
        let (_folder, restored) = restore(&first, &planned).await;
        let found = model::state(&restored, None);
        let of = |world: &World| {
            world.states.range(..=revision).next_back().is_some_and(|(_, state)| *state == found)
        };
        assert!(of(&first) || of(&second), "revision {revision} is of neither history");
        points += 1;
    }
    points
}

/// What two wrote is never mixed, whatever they do.
#[test]
fn two_writers_are_never_mixed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let points: u64 = (1..=30).map(|seed| runtime.block_on(two_writers(seed))).sum();
    println!("{points} restore points of 30 forks");
    assert!(points > 1000, "{points}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run(seed: u64) -> u64 {
    live(seed, None).0
}

/// A whole history, pruned now and then if there are rules; how many points were restored and how many objects pruned.
fn live(seed: u64, retention: Option<Retention>) -> (u64, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut world = World::new(seed);
    world.retention = retention;
    runtime.block_on(async {
        world.live().await;
        (check(&world).await, world.pruned)
    })
}

/// Beside an agent that crashes, merges and loses answers, and broken off with it.
#[test]
fn every_revision_of_the_window_comes_back_after_pruning() {
    let (mut points, mut pruned) = (0, 0);
    for seed in 1..=40 {
        let window = Duration::from_mins([1, 10, 60, 600][usize::try_from(seed % 4).unwrap()]);
        let last = u32::try_from(seed % 3).unwrap();
        let rules = Retention { window, last, hourly: last, daily: 1, weekly: 0, monthly: 0 };
        let done = live(seed, Some(rules));
        (points, pruned) = (points + done.0, pruned + done.1);
    }
    println!("{points} restore points of 40 random histories, {pruned} objects pruned");
    assert!(points > 1000 && pruned > 500, "{points} points, {pruned} objects pruned");
}

#[test]
fn every_revision_of_every_history_comes_back() {
    if let Some(seed) = number("VCB_SEED") {
        println!("seed {seed}: {} restore points", run(seed));
        return;
    }
    let wanted = number("VCB_RESTORE_POINTS").unwrap_or(RESTORE_POINTS);
    let (next, done) = (AtomicU64::new(1), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while done.load(Ordering::SeqCst) < wanted {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    let points = std::panic::catch_unwind(|| run(seed));
                    let Ok(points) = points else { panic!("VCB_SEED={seed} replays this failure") };
                    done.fetch_add(points, Ordering::SeqCst);
                }
            });
        }
    });
    let (points, histories) = (done.load(Ordering::SeqCst), next.load(Ordering::SeqCst) - 1);
    println!("{points} restore points of {histories} random histories, seeds 1 to {histories}");
    assert!(points >= wanted);
}
