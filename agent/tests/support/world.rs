//! A **world** for one random history: a database, a bucket, and an agent that crashes, is away, and has its clock set.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vcluster_backup::capture::Capture;
use vcluster_backup::catalogue::Catalogue;
use vcluster_backup::clock::{Clock, Moment};
use vcluster_backup::database::{Database, SharedDatabase};
use vcluster_backup::key::{Identities, Recipients};
use vcluster_backup::merge::Merger;
use vcluster_backup::object_name::Prefix;
use vcluster_backup::own_keys::OwnKeys;
use vcluster_backup::progress::Progress;
use vcluster_backup::prune;
use vcluster_backup::replicator::ReplicatorError;
use vcluster_backup::replicator::log::{Log, Shipped};
use vcluster_backup::restore::Keys;
use vcluster_backup::retention::Retention;
use vcluster_backup::signing::Signers;
use vcluster_backup::store::Store as _;
use vcluster_backup::timeline::Timeline;

use super::memory_store::{Faults, MemoryStore};
use super::model::{self, History, State};
use super::random::Random;

/// A database, a bucket, and the agent between them.
pub struct World {
    pub folder: TempDir,
    pub random: Random,
    pub store: MemoryStore,
    pub history: History,
    pub now: &'static AtomicI64,
    pub identity: age::x25519::Identity,
    pub agent: Option<Agent>,
    /// What a client would see at each revision.
    pub states: BTreeMap<i64, State>,
    /// What the agent has shipped: these revisions of these timelines must come back.
    pub shipped: BTreeMap<Timeline, (i64, i64)>,
    /// When each of them was captured.
    pub captured: BTreeMap<i64, Moment>,
    /// What is kept; everything, if none.
    pub retention: Option<Retention>,
    /// How many objects were pruned.
    pub pruned: usize,
    /// When a revision was the newest: from the first moment to the last, both before the next write.
    pub seen: Vec<(Moment, i64)>,
}

/// What a crash takes away.
pub struct Agent {
    pub log: Log<MemoryStore>,
    pub merger: Merger,
    pub database: SharedDatabase,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().unwrap();
        let history = History::create(&folder.path().join("state.db"), random.number());
        let now: &'static AtomicI64 = Box::leak(Box::new(AtomicI64::new(1_790_000_000_000)));
        let store = MemoryStore::new(Faults::NONE, random.fork());
        store.set_clock(now);
        Self {
            folder,
            store,
            random,
            history,
            now,
            identity: age::x25519::Identity::generate(),
            agent: None,
            states: BTreeMap::new(),
            shipped: BTreeMap::new(),
            captured: BTreeMap::new(),
            retention: None,
            pruned: 0,
            seen: Vec::new(),
        }
    }

    pub fn moment(&self) -> Moment {
        Moment::from_millis(self.now.load(Ordering::SeqCst))
    }

    pub fn pass(&self, millis: i64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }

    pub fn write(&mut self) {
        use model::Step::{Compacted, Created, Deleted, Nothing, Recreated, Updated};
        match self.history.step() {
            Created(revision) | Updated(revision) | Deleted(revision) | Recreated(revision) => {
                self.states.insert(revision, self.history.state());
                self.seen.push((self.moment(), revision));
            }
            Compacted(_) | Nothing => {}
        }
    }

    pub fn start_agent(&mut self) -> Agent {
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
    pub async fn turn(&mut self) {
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

    pub async fn ship(&mut self, agent: &mut Agent) -> Result<(), ReplicatorError> {
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
                Shipped::Segment { name, body, .. } => {
                    let rows = body.parent.revision.to_sql() + 1..=body.end.revision.to_sql();
                    self.captured.extend(rows.map(|revision| (revision, body.captured)));
                    agent.merger.keep(name, *body);
                }
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
        if let Some(rules) = &self.retention
            && self.random.happens(150)
        {
            let Capture { store, prefix, .. } = &agent.log.capture;
            let plan = prune::plan(store, prefix, rules, &[], self.moment()).await?;
            self.pruned += prune::carry_out(store, prefix, &plan, &Progress::hidden()).await.objects;
        }
        while self.random.happens(600) {
            // A failed merge loses nothing; that is the point.
            let _ = agent.merger.merge(&agent.log.capture, self.moment()).await;
        }
        Ok(())
    }

    /// A whole history.
    pub async fn live(&mut self) {
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

    pub fn catalogue(&self) -> Catalogue {
        let listed = futures::executor::block_on(self.store.copy().list("p/", None)).unwrap();
        Catalogue::new(&Prefix::new("p"), &listed)
    }

    pub fn keys(&self) -> Keys {
        Keys {
            identities: Arc::new(Identities::from(vec![self.identity.clone()])),
            signers: Signers::default(),
        }
    }
}
