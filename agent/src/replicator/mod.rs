//! The **replicator**: keeps the bucket up with the database until it is told to stop.
//!
//! It looks at the database several times in a sync interval, which costs microseconds, and ships what is new as log
//! segments ([`log`], [`schedule`]). A snapshot is taken at the start of a timeline, at the snapshot interval if anything
//! has changed, and when a pin asks for one, while the log goes on ([`underway`]). Segments are merged, and the bucket is
//! pruned, in a task of their own. A database that is not kine's has no log: it is shipped as snapshots alone.

mod beside;
mod error;
pub mod log;
mod looking;
mod merging;
mod pruning;
mod report;
pub mod schedule;
mod snapshots;
mod standing;
mod underway;
mod verified;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::capture::Capture;
use crate::clock::Moment;
use crate::database::{SharedDatabase, is_open_elsewhere, lock};
use crate::files::Included;
use crate::header::DatabaseKind;
use crate::key::Recipients;
use crate::metrics::Kind;
use crate::object_name::ObjectName;
use crate::pin::{PinName, PinRequest};
use crate::retention::Retention;
use crate::store::Store;
use crate::timeline::Timeline;
use beside::Beside;
use log::{Log, Shipped, Standing};
use looking::Look;
use schedule::Schedule;
use snapshots::Snapshot;
use underway::Underway;
use verified::Verified;

pub use error::ReplicatorError;
pub use report::Report;

/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause after failures: a bucket that is back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Between two looks after SIGTERM.
const LAST_LOOKS: Duration = Duration::from_millis(100);

/// No change older than this may be left when the grace is over: kine still runs then.
const LAST_LAG: Duration = Duration::from_secs(2);

/// How often another writer is looked for while segments are shipped: one request in so long.
const LOOK_FOR_ANOTHER: Duration = Duration::from_secs(10);

/// The same while leases and events alone were shipped: an idle control plane pays for little else.
const LOOK_FOR_ANOTHER_IDLY: Duration = Duration::from_mins(5);

/// What may change while the replicator runs.
#[derive(Clone)]
pub struct Rhythm {
    /// Every change is shipped within this.
    pub sync_interval: Duration,
    /// Leases and events alone are shipped within this.
    pub idle_interval: Duration,
    /// How often a snapshot is taken.
    pub snapshot_interval: Duration,
    /// Named restore points to make.
    pub pins: Vec<PinRequest>,
    /// What is kept.
    pub retention: Retention,
    /// Nothing is deleted.
    pub append_only: bool,
    /// Who can read what is captured from now on.
    pub recipients: Recipients,
}

/// The task that merges and prunes.
pub type Tidying = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps the bucket up with one database.
pub struct Replicator<S> {
    log: Log<S>,
    find: Box<dyn Fn() -> PathBuf + Send + Sync>,
    rhythm: watch::Receiver<Rhythm>,
    report: Report,
    merger: mpsc::UnboundedSender<(ObjectName, Body)>,
    /// The timeline of the last snapshot.
    pruner: watch::Sender<Option<Timeline>>,
    database: Option<SharedDatabase>,
    look: Option<Look>,
    schedule: Schedule,
    snapshot: Option<Snapshot>,
    underway: Option<Underway>,
    beside: Beside,
    /// The pins on this timeline, and when each was captured last.
    pinned: BTreeMap<PinName, Moment>,
    verified: Verified,
    looked_for_another: Instant,
    /// Something else than leases and events was shipped since.
    was_busy: bool,
    /// Since when the database holds what only a snapshot will ship: because a timeline is to be begun, or because it has
    /// no log.
    without_log: Option<Instant>,
    haste: Haste,
}

/// Whether whatever is pending is due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// As the schedule has it.
    None,
    /// It is the only turn.
    Once,
    /// The process is about to end: there is no time for a snapshot where there is a log.
    Last,
}

impl<S: Store + Clone> Replicator<S> {
    /// A replicator of the database that `find` names: an upgrade of the control plane may move it. Also the task that
    /// merges what it ships and prunes after its snapshots, which ends with it.
    pub fn new(
        capture: Capture<S>,
        included: Included,
        find: impl Fn() -> PathBuf + Send + Sync + 'static,
        rhythm: watch::Receiver<Rhythm>,
        report: Report,
    ) -> (Self, Tidying) {
        let (merger, bodies) = mpsc::unbounded_channel();
        let (pruner, snapshots) = watch::channel(None);
        let merging = merging::merge(bodies, capture.clone(), rhythm.clone(), report.clone());
        let pruning = pruning::prune(snapshots, capture.clone(), rhythm.clone(), report.clone());
        let tidying: Tidying = Box::pin(async {
            tokio::join!(merging, pruning);
        });
        let replicator = Self {
            log: Log::new(capture),
            find: Box::new(find),
            rhythm,
            report,
            merger,
            pruner,
            database: None,
            look: None,
            schedule: Schedule::default(),
            snapshot: None,
            underway: None,
            beside: Beside::new(included),
            pinned: BTreeMap::new(),
            verified: Verified::default(),
            looked_for_another: Instant::now(),
            was_busy: false,
            without_log: None,
            haste: Haste::None,
        };
        (replicator, tidying)
    }

    /// Replicates until `stop`, then ships what is left; ends when `grace` is over, whatever is under way.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration) -> Result<(), ReplicatorError> {
        let path = (self.find)();
        let over = async {
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let finished = tokio::select! {
            finished = self.replicate(&stop) => Some(finished),
            () = over => None,
        };
        self.report.stopped();
        match finished {
            Some(finished) => finished,
            // kine still runs and writes: what it wrote just now is no loss of ours.
            None if self.log.standing().is_some() && self.lag() < LAST_LAG => Ok(()),
            None => Err(ReplicatorError::Unshipped(path)),
        }
    }

    /// Ships what is there, once.
    pub async fn run_once(mut self) -> Result<(), ReplicatorError> {
        self.haste = Haste::Once;
        self.turn().await?;
        self.finish_snapshot().await
    }

    async fn replicate(&mut self, stop: &CancellationToken) -> Result<(), ReplicatorError> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.turn().await {
                Ok(()) => {
                    failures = 0;
                    Schedule::pause(self.rhythm.borrow().sync_interval)
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) if error.is_waiting() => {
                    // What comes to lie there next may have another history.
                    self.close().await;
                    self.log.doubt();
                    self.report.waiting(&error);
                    self.rhythm.borrow().sync_interval
                }
                Err(error) => {
                    failures += 1;
                    let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(8)).min(LONGEST_PAUSE);
                    self.report.failure(&error, failures, self.lag(), pause);
                    pause
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.finish().await
    }

    /// After SIGTERM: kine gets the same signal at the same time, and may still write until it has closed the
    /// database.
    async fn finish(&mut self) -> Result<(), ReplicatorError> {
        self.haste = Haste::Last;
        let mut failures = 0;
        loop {
            // Asked before the look, which then sees all that was written before the close.
            let closed = self.is_generic() || {
                self.close().await;
                !is_open_elsewhere(&(self.find)())
            };
            match self.turn().await {
                Ok(()) if closed || self.is_generic() => {
                    self.finish_snapshot().await?;
                    tracing::info!("everything is in the bucket");
                    return Ok(());
                }
                Ok(()) => {}
                Err(error) if error.is_waiting() => return Ok(()),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    failures += 1;
                    self.report.failure(&error, failures, self.lag(), LAST_LOOKS);
                }
            }
            tokio::time::sleep(LAST_LOOKS).await;
        }
    }

    /// One look, and whatever it makes due.
    async fn turn(&mut self) -> Result<(), ReplicatorError> {
        let rhythm = self.rhythm.borrow().clone();
        self.log.capture.recipients = rhythm.recipients.clone();
        let database = self.open().await?;
        let standing = match self.log.standing() {
            Some(standing) => standing,
            None => self.stand(&database).await?,
        };
        let look = self.look(&database, standing).await?;
        let due = self.schedule.is_due(Instant::now(), rhythm.sync_interval, rhythm.idle_interval);
        if due || self.haste != Haste::None {
            self.ship(&database).await?;
        }
        self.snapshots(&database, look, &rhythm).await?;
        if let Some(Standing { timeline, .. }) = self.log.standing() {
            let at_once = self.haste != Haste::None;
            let shipped = self.beside.ship(&self.log.capture, timeline, at_once).await;
            if let Some((key, bytes)) = shipped.inspect_err(|_| self.report.not_published(Kind::files))? {
                self.report.files(&key, bytes);
            }
        }
        let rest = if self.was_busy { LOOK_FOR_ANOTHER } else { LOOK_FOR_ANOTHER_IDLY };
        if self.looked_for_another.elapsed() >= rest {
            self.log.look_for_another().await?;
            (self.looked_for_another, self.was_busy) = (Instant::now(), false);
        }
        let due_within = if standing.end.is_some() { rhythm.idle_interval } else { rhythm.snapshot_interval };
        let limit = 2 * due_within + Duration::from_mins(1);
        self.report.success(self.lag(), limit, self.log.capture.clock.now());
        Ok(())
    }

    /// Ships all that is new.
    async fn ship(&mut self, database: &SharedDatabase) -> Result<(), ReplicatorError> {
        self.was_busy |= self.schedule.is_busy();
        loop {
            let began = Instant::now();
            let shipped = self.log.ship(database).await;
            match shipped.inspect_err(|_| self.report.not_published(Kind::segment))? {
                Shipped::Nothing => {
                    self.schedule.nothing();
                    return Ok(());
                }
                Shipped::Segment { name, uploaded, body, more } => {
                    self.schedule.shipped(began, Instant::now(), more);
                    self.report.shipped(&name, uploaded, &body);
                    // The merger ends only after this replicator.
                    let _ = self.merger.send((name, *body));
                    if !more {
                        return Ok(());
                    }
                }
                Shipped::Broken => {
                    tracing::warn!(
                        "the database does not go on from the last shipped revision, or compaction has passed it"
                    );
                    self.close().await;
                    let database = self.open().await?;
                    self.stand(&database).await?;
                    return Ok(());
                }
            }
        }
    }

    fn lag(&self) -> Duration {
        let without_log = self.without_log.map_or(Duration::ZERO, |since| since.elapsed());
        self.schedule.lag(Instant::now()).max(without_log)
    }

    fn is_generic(&self) -> bool {
        self.database.as_ref().is_some_and(|database| lock(database).kind() == DatabaseKind::Generic)
    }
}
