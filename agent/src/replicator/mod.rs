//! The **replicator**: keeps the bucket up with the database until it is told to stop.
//!
//! It looks at the database every sync interval, which costs two index look-ups. A snapshot is taken at the
//! start, at the snapshot interval if anything has changed, when a pin asks for one, and at the end.

mod report;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::capture::{Capture, CaptureError, SharedDatabase, blocking, lock};
use crate::catalogue::{Catalogue, History};
use crate::continuity;
use crate::database::{Database, DatabaseError, Position, is_open_elsewhere};
use crate::header::DatabaseKind;
use crate::key::Recipients;
use crate::object_name::ObjectName;
use crate::pin::{PinName, PinRequest};
use crate::revision::Revision;
use crate::store::{Store, StoreError};
use crate::timeline::Timeline;

pub use report::Report;

/// The longest pause after failures: a bucket that is back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Between two looks after SIGTERM.
const LAST_LOOKS: Duration = Duration::from_millis(200);

/// After SIGTERM changes are shipped this often while kine still writes, and no change older than twice this may be
/// left when the grace is over.
const LAST_SYNCS: Duration = Duration::from_secs(1);

/// What may change while the replicator runs.
#[derive(Clone)]
pub struct Rhythm {
    /// How often the database is looked at.
    pub sync_interval: Duration,
    /// How often a snapshot is taken.
    pub snapshot_interval: Duration,
    /// Named restore points to make.
    pub pins: Vec<PinRequest>,
    /// Who can read what is captured from now on.
    pub recipients: Recipients,
}

/// Why the replicator failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplicatorError {
    /// Reading or publishing failed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The bucket could not be asked what it holds.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The time after SIGTERM was not enough.
    #[error(
        "the last changes of {0} are not in the bucket: --shutdown-grace was over before they could be shipped"
    )]
    Unshipped(PathBuf),
}

impl From<DatabaseError> for ReplicatorError {
    fn from(error: DatabaseError) -> Self {
        Self::Capture(error.into())
    }
}

impl ReplicatorError {
    /// Whether trying again makes no sense.
    fn is_final(&self) -> bool {
        match self {
            Self::Store(error) | Self::Capture(CaptureError::Store(error)) => {
                matches!(error, StoreError::Exists(_) | StoreError::Settings(_))
            }
            Self::Capture(CaptureError::Database(error)) => matches!(error, DatabaseError::NotSqlite(_)),
            Self::Capture(_) => false,
            Self::Unshipped(_) => true,
        }
    }

    /// Whether the control plane has yet to write its database.
    fn is_waiting(&self) -> bool {
        let Self::Capture(CaptureError::Database(error)) = self else { return false };
        matches!(error, DatabaseError::Missing(_) | DatabaseError::Empty(_))
    }
}

/// The newest snapshot of this timeline.
struct Shipped {
    name: ObjectName,
    revision: Revision,
    /// `data_version` from before it was taken; `None` if another process took it.
    version: Option<i64>,
    at: Instant,
}

/// What a look at the database showed.
#[derive(Clone, Copy)]
struct Look {
    version: i64,
    position: Option<Position>,
}

/// Keeps the bucket up with one database.
pub struct Replicator<S> {
    capture: Capture<S>,
    find: Box<dyn Fn() -> PathBuf + Send + Sync>,
    rhythm: watch::Receiver<Rhythm>,
    report: Report,
    database: Option<SharedDatabase>,
    timeline: Option<Timeline>,
    shipped: Option<Shipped>,
    pinned: Vec<PinName>,
    /// When the oldest change that is not in the bucket was first seen.
    pending_since: Option<Instant>,
    /// Whatever is pending is due at once: the process has just started, or is about to end.
    urgent: bool,
}

impl<S: Store + Clone> Replicator<S> {
    /// A replicator of the database that `find` names: an upgrade of the control plane may move it.
    pub fn new(
        capture: Capture<S>,
        find: impl Fn() -> PathBuf + Send + Sync + 'static,
        rhythm: watch::Receiver<Rhythm>,
        report: Report,
    ) -> Self {
        let (pinned, find) = (Vec::new(), Box::new(find));
        let (database, timeline, shipped, pending_since) = (None, None, None, None);
        let urgent = true;
        Self { capture, find, rhythm, report, database, timeline, shipped, pinned, pending_since, urgent }
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
            None if self.shipped.is_some() && self.lag() < 2 * LAST_SYNCS => Ok(()),
            None => Err(ReplicatorError::Unshipped(path)),
        }
    }

    /// Ships what is there, once.
    pub async fn run_once(mut self) -> Result<(), ReplicatorError> {
        self.turn().await
    }

    async fn replicate(&mut self, stop: &CancellationToken) -> Result<(), ReplicatorError> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.turn().await {
                Ok(()) => {
                    failures = 0;
                    self.rhythm.borrow().sync_interval
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) if error.is_waiting() => {
                    // What comes to lie there next may have another history.
                    (self.database, self.timeline) = (None, None);
                    self.report.waiting(&error);
                    self.rhythm.borrow().sync_interval
                }
                Err(error) => {
                    failures += 1;
                    let pause =
                        Duration::from_millis(500).saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
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
        let mut failures = 0;
        loop {
            self.database = None;
            // Asked before the look, which then sees all that was written before the close.
            let closed = !is_open_elsewhere(&(self.find)());
            self.urgent = closed || self.shipped.as_ref().is_none_or(|last| last.at.elapsed() >= LAST_SYNCS);
            match self.turn().await {
                Ok(()) if closed || self.is_generic() => {
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
        let database = self.open().await?;
        let look = self.look(&database).await?;
        let timeline = match self.timeline {
            Some(timeline) => timeline,
            None => self.resume(&database).await?,
        };
        let pending = self.note_pending(look);
        let pin = rhythm.pins.iter().find(|pin| !self.pinned.contains(&pin.name));
        let interval_over =
            self.shipped.as_ref().is_none_or(|last| last.at.elapsed() >= rhythm.snapshot_interval);
        if pending && (self.urgent || interval_over || pin.is_some()) {
            self.capture.recipients = rhythm.recipients.clone();
            self.snapshot(&database, timeline, look).await?;
        }
        self.urgent = false;
        if let (Some(pin), Some(shipped)) = (pin, &self.shipped) {
            self.capture.pin(&shipped.name, pin).await?;
            tracing::info!(pin = %pin.name, revision = %shipped.revision, "pinned");
            self.pinned.push(pin.name.clone());
        }
        self.report.success(self.lag(), self.capture.clock.now());
        Ok(())
    }

    /// The open database; opened anew if another file lies at the path.
    async fn open(&mut self) -> Result<SharedDatabase, ReplicatorError> {
        let path = (self.find)();
        if let Some(database) = &self.database {
            let database = lock(database);
            if database.path() != path || !database.is_current() {
                // Another file, or the same after someone wrote to it: it may hold another history.
                self.timeline = None;
            }
        }
        if let (Some(database), Some(_)) = (&self.database, self.timeline) {
            return Ok(database.clone());
        }
        // Closed before it is opened again: see `Database::refresh`.
        self.database = None;
        let observer = self.report.read_observer();
        let database = blocking(move || Database::open(&path, observer)).await?;
        tracing::debug!(database = %database.path().display(), "opened");
        let database = Arc::new(Mutex::new(database));
        // What this connection counts as a version has no meaning for another.
        if let Some(shipped) = &mut self.shipped {
            shipped.version = None;
        }
        self.database = Some(database.clone());
        Ok(database)
    }

    async fn look(&self, database: &SharedDatabase) -> Result<Look, ReplicatorError> {
        let database = database.clone();
        let look = blocking(move || {
            let database = lock(&database);
            let version = database.data_version()?;
            let position = match database.kind() {
                DatabaseKind::Kine => Some(database.position()?),
                DatabaseKind::Generic => None,
            };
            Ok::<_, DatabaseError>(Look { version, position })
        })
        .await?;
        if let Some(position) = look.position {
            self.report.looked(position);
        }
        Ok(look)
    }

    /// The timeline to write: the bucket's newest if the database goes it on, else a new one.
    async fn resume(&mut self, database: &SharedDatabase) -> Result<Timeline, ReplicatorError> {
        let capture = &self.capture;
        let catalogue = Catalogue::new(&capture.prefix, &capture.store.list(&capture.prefix.folder()).await?);
        let tip = continuity::newest_tip(&capture.store, &capture.prefix, &catalogue).await?;
        let (owner, shared) = (capture.owner.clone(), database.clone());
        let going_on = blocking(move || match tip {
            Some(tip) => {
                Ok::<_, DatabaseError>(tip.continues(owner.as_ref(), &lock(&shared))?.then_some(tip))
            }
            None => Ok(None),
        })
        .await?;
        let timeline = if let Some(tip) = going_on {
            tracing::info!(timeline = %tip.timeline, revision = %tip.revision, "the database goes on this timeline");
            let history = catalogue.timelines.get(&tip.timeline);
            self.pinned = history.map(|history| history.pins.keys().cloned().collect()).unwrap_or_default();
            let oldest = history.and_then(History::oldest).map(|point| point.captured);
            self.report.resumed(tip.timeline, tip.revision, oldest);
            self.shipped =
                Some(Shipped { name: tip.name, revision: tip.revision, version: None, at: Instant::now() });
            tip.timeline
        } else {
            let timeline = Timeline::open(capture.clock.now());
            tracing::info!(%timeline, "a new timeline begins: the bucket holds none that this database goes on");
            self.report.resumed(timeline, Revision::ZERO, None);
            self.shipped = None;
            self.pinned.clear();
            timeline
        };
        self.timeline = Some(timeline);
        Ok(timeline)
    }

    /// Whether the database holds what the bucket does not.
    fn note_pending(&mut self, look: Look) -> bool {
        let pending = self.shipped.as_ref().is_none_or(|shipped| match look.position {
            // Compaction alone changes nothing that a restore would miss.
            Some(position) => position.live != shipped.revision,
            None => shipped.version != Some(look.version),
        });
        if pending {
            self.pending_since.get_or_insert_with(Instant::now);
        } else {
            self.pending_since = None;
        }
        pending
    }

    async fn snapshot(
        &mut self,
        database: &SharedDatabase,
        timeline: Timeline,
        look: Look,
    ) -> Result<(), ReplicatorError> {
        let at = Instant::now();
        let published = match self.capture.snapshot(database, timeline).await {
            Ok(published) => published,
            Err(error) => {
                self.report.not_published();
                return Err(error.into());
            }
        };
        self.report.published(&published, self.shipped.is_none());
        let revision = published.copied.revision;
        self.shipped = Some(Shipped { name: published.name, revision, version: Some(look.version), at });
        self.pending_since = None;
        Ok(())
    }

    fn lag(&self) -> Duration {
        self.pending_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn is_generic(&self) -> bool {
        self.database.as_ref().is_some_and(|database| lock(database).kind() == DatabaseKind::Generic)
    }
}
