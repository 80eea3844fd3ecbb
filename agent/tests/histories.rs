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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, params_from_iter};
use support::memory_store::{Faults, MemoryStore};
use support::model::{self, History, State};
use support::random::Random;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vcluster_backup::capture::{Capture, OwnKeys};
use vcluster_backup::catalogue::{Catalogue, Segment};
use vcluster_backup::chain::Chain;
use vcluster_backup::clock::{Clock, Moment};
use vcluster_backup::database::{Database, SharedDatabase};
use vcluster_backup::envelope::OpenError;
use vcluster_backup::key::{Identities, Recipients};
use vcluster_backup::merge::Merger;
use vcluster_backup::object_name::{ObjectName, Prefix};
use vcluster_backup::progress::Progress;
use vcluster_backup::replicator::ReplicatorError;
use vcluster_backup::replicator::log::{Log, Shipped};
use vcluster_backup::restore::Keys;
use vcluster_backup::restore::assembly::{OnDamage, assemble};
use vcluster_backup::restore::plan::{Plan, Target, plan};
use vcluster_backup::revision::Revision;
use vcluster_backup::row::{self, Row};
use vcluster_backup::segment::{self, Step};
use vcluster_backup::snapshot;
use vcluster_backup::store::Store as _;
use vcluster_backup::timeline::Timeline;

/// The issue is decided by numbers: so many revisions are restored at least.
const RESTORE_POINTS: u64 = 100_000;

/// One in so many is restored by the whole of `restore` as well.
const WHOLE: u64 = 16;

/// A database, a bucket, and the agent between them.
struct World {
    folder: TempDir,
    random: Random,
    store: MemoryStore,
    history: History,
    now: &'static AtomicI64,
    identity: age::x25519::Identity,
    agent: Option<Agent>,
    /// What a client would see at each revision.
    states: BTreeMap<i64, State>,
    /// What the agent has shipped: these revisions of these timelines must come back.
    shipped: BTreeMap<Timeline, (i64, i64)>,
    /// When a revision was the newest: from the first moment to the last, both before the next write.
    seen: Vec<(Moment, i64)>,
}

/// What a crash takes away.
struct Agent {
    log: Log<MemoryStore>,
    merger: Merger,
    database: SharedDatabase,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().unwrap();
        let history = History::create(&folder.path().join("state.db"), random.number());
        let now: &'static AtomicI64 = Box::leak(Box::new(AtomicI64::new(1_790_000_000_000)));
        Self {
            folder,
            store: MemoryStore::new(Faults::NONE, random.fork()),
            random,
            history,
            now,
            identity: age::x25519::Identity::generate(),
            agent: None,
            states: BTreeMap::new(),
            shipped: BTreeMap::new(),
            seen: Vec::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn pass(&self, millis: i64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }

    fn write(&mut self) {
        use model::Step::{Compacted, Created, Deleted, Nothing, Recreated, Updated};
        match self.history.step() {
            Created(revision) | Updated(revision) | Deleted(revision) | Recreated(revision) => {
                self.states.insert(revision, self.history.state());
                self.seen.push((self.moment(), revision));
            }
            Compacted(_) | Nothing => {}
        }
    }

    fn start_agent(&mut self) -> Agent {
        let now = self.now;
        let clock: &'static _ = Box::leak(Box::new(move || Moment::from_millis(now.load(Ordering::SeqCst))));
        let capture = Capture {
            store: self.store.clone(),
            prefix: Prefix::new("p"),
            recipients: Recipients::parse(&[self.identity.to_public().to_string()]).unwrap(),
            signing_key: None,
            owner: None,
            clock: Clock::new(clock),
            metrics: None,
            watched: false,
            own_keys: OwnKeys::default(),
        };
        let database = Database::open(&self.folder.path().join("state.db"), Arc::new(|_| {})).unwrap();
        Agent { log: Log::new(capture), merger: Merger::default(), database: Arc::new(Mutex::new(database)) }
    }

    /// One turn of the agent, as the replicator does it; a failure leaves the rest for the next.
    async fn turn(&mut self) {
        let mut agent = match self.agent.take() {
            Some(agent) => agent,
            None => self.start_agent(),
        };
        match self.ship(&mut agent).await {
            Err(ReplicatorError::AnotherWriter(key)) => panic!("alone, it found another writer: {key}"),
            Err(_) if self.store.is_crashed() => {
                self.store.revive();
                // Whatever was on its way arrives or not, but before the process is started again.
                self.store.settle();
            }
            Ok(()) | Err(_) => self.agent = Some(agent),
        }
    }

    async fn ship(&mut self, agent: &mut Agent) -> Result<(), ReplicatorError> {
        if agent.log.standing().is_none() && agent.log.resume(&agent.database).await?.is_none() {
            let published = agent.log.begin(&agent.database).await?;
            let revision = published.point.revision.to_sql();
            self.shipped.insert(published.timeline, (revision, revision));
        }
        loop {
            let shipped = agent.log.ship(&agent.database).await?;
            let Some(standing) = agent.log.standing() else { return Ok(()) };
            let end = standing.end.unwrap().0.revision.to_sql();
            // One that was resumed may have been begun by an agent that never heard that it was.
            self.shipped.entry(standing.timeline).or_insert((end, end)).1 = end;
            match shipped {
                Shipped::Nothing | Shipped::Broken => break,
                Shipped::Segment { name, body, .. } => agent.merger.keep(name, *body),
            }
        }
        if self.random.happens(60) {
            let standing = agent.log.standing().unwrap();
            let link = standing.end.map(|(link, _)| link);
            let (timeline, cancel) = (standing.timeline, CancellationToken::new());
            let capture = &agent.log.capture;
            capture.snapshot(&agent.database, timeline, link, Some(standing.captured), &cancel).await?;
        }
        if self.random.happens(300) {
            agent.log.look_for_another().await?;
        }
        while self.random.happens(600) {
            // A failed merge loses nothing; that is the point.
            let _ = agent.merger.merge(&agent.log.capture, self.moment()).await;
        }
        Ok(())
    }

    /// A whole history.
    async fn live(&mut self) {
        let steps = 200 + self.random.below(500);
        let mut away = 0_usize;
        for _ in 0..steps {
            let longest = if self.random.happens(30) { 400_000 } else { 3_000 };
            let pause = 1 + self.random.below(longest);
            self.pass(i64::try_from(pause).unwrap());
            if self.random.happens(5) {
                // Someone sets the clock.
                let jump = self.random.below(7_200_000);
                self.pass(i64::try_from(jump).unwrap() - 3_600_000);
                self.seen.clear();
            }
            self.write();
            if self.random.happens(10) {
                away = self.random.below(60);
            }
            if self.random.happens(20) {
                let faults = if self.random.happens(500) { Faults::MANY } else { Faults::NONE };
                self.store.set_faults(faults);
            }
            if self.random.happens(15) {
                let n = 1 + self.random.below(6);
                if self.random.happens(500) { self.store.crash_after(n) } else { self.store.crash_during(n) }
            }
            away = away.saturating_sub(1);
            if away == 0 && self.random.happens(250) {
                self.pass(1);
                self.turn().await;
            }
        }
        // The last turns are undisturbed: one may find that the log is broken, and the next begins another.
        self.store.set_faults(Faults::NONE);
        self.store.revive();
        self.store.settle();
        self.turn().await;
        self.turn().await;
    }

    fn catalogue(&self) -> Catalogue {
        let listed = futures::executor::block_on(self.store.copy().list("p/", None)).unwrap();
        Catalogue::new(&Prefix::new("p"), &listed)
    }

    fn keys(&self) -> Keys {
        Keys { identities: Arc::new(Identities::from(vec![self.identity.clone()])), signer: None }
    }
}

/// A database on its way through the revisions after one snapshot.
struct Way {
    base: ObjectName,
    file: TempDir,
    connection: Connection,
    reached: Revision,
    /// The chain at each revision since.
    links: HashMap<Revision, Chain>,
    taken: BTreeSet<String>,
    ahead: BTreeMap<Revision, Row>,
}

impl Way {
    fn begin(world: &World, plan: &Plan) -> Self {
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("state.db");
        let mut out = std::fs::File::create(&path).unwrap();
        let object = world.store.object(&plan.snapshot.1.key).unwrap();
        let base = plan.snapshot_name();
        let (header, _) =
            snapshot::open(&base, &object[..], &world.keys().identities, None, &mut out).unwrap();
        let chain = header.parent.unwrap_or_else(|| Chain::begin(&header.encode()));
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        connection.pragma_update(None, "journal_mode", "OFF").unwrap();
        let reached = plan.snapshot.0.revision;
        let (links, taken, ahead) = (HashMap::from([(reached, chain)]), BTreeSet::new(), BTreeMap::new());
        Self { base, file, connection, reached, links, taken, ahead }
    }

    /// Reads a segment of a plan, and holds it against the chain.
    fn take(&mut self, world: &World, timeline: Timeline, segment: &Segment) {
        if !self.taken.insert(segment.stored.key.clone()) {
            return;
        }
        let object = world.store.object(&segment.stored.key).unwrap();
        let (mut rows, mut linked) = (Vec::new(), false);
        let known = &self.links;
        let header = segment::read::<OpenError>(
            &segment.name(timeline),
            &object[..],
            &world.keys().identities,
            None,
            &mut |step| {
                if let Step::Row(row, chain) = step {
                    if let Some(known) = known.get(&row.revision) {
                        assert_eq!(*known, chain, "the chain differs at {}", row.revision);
                        linked = true;
                    }
                    rows.push((row, chain));
                }
                Ok(())
            },
        );
        let header = header.unwrap();
        if let Some(known) = self.links.get(&segment.from) {
            assert_eq!(header.parent, Some(*known), "{} names another parent", segment.stored.key);
            linked = true;
        }
        assert!(linked, "{} leads on from nothing", segment.stored.key);
        for (row, chain) in rows {
            self.links.insert(row.revision, chain);
            self.ahead.insert(row.revision, row);
        }
    }

    fn go_to(&mut self, revision: Revision) {
        let mut apply = self.connection.prepare_cached(row::APPLY).unwrap();
        for (_, row) in self.ahead.range(self.reached.plus(1)..=revision) {
            apply.execute(params_from_iter(&row.cells)).unwrap();
        }
        self.reached = self.reached.max(revision);
    }
}

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
    let must = |revision: i64| world.shipped.values().any(|(from, to)| (*from..=*to).contains(&revision));
    for (revision, expected) in &world.states {
        let target = Target::Revision(Revision::from_sql(*revision));
        let planned = match plan(&catalogue, &target, None, "the bucket") {
            Ok(plan) => plan,
            Err(error) => {
                assert!(!must(*revision), "revision {revision} was shipped: {error}");
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
    if let Some(way) = way {
        drop(way.file);
    }
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut world = World::new(seed);
    runtime.block_on(async {
        world.live().await;
        check(&world).await
    })
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
