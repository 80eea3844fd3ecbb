//! The **replicator**: keeps the bucket up with the database until it is told to stop.
//!
//! It looks at the database every sync interval, which costs two index look-ups. A snapshot is taken at the
//! start, at the snapshot interval if anything has changed, when a pin asks for one, and at the end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::capture::{Capture, CaptureError, SharedDatabase, blocking, lock};
use crate::catalogue::{Catalogue, History};
use crate::cause;
use crate::clock::Moment;
use crate::continuity;
use crate::database::{Database, DatabaseError, Position, ReadObserver};
use crate::header::DatabaseKind;
use crate::key::Recipients;
use crate::metrics::{Kind, Metrics, RevisionKind};
use crate::object_name::ObjectName;
use crate::pin::{PinName, PinRequest};
use crate::revision::Revision;
use crate::status::{Phase, Status};
use crate::store::{Store, StoreError};
use crate::timeline::Timeline;

/// The longest pause after failures: a bucket that is back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// kine is taken to have written its last when nothing has changed for so long after SIGTERM.
const QUIET: Duration = Duration::from_millis(500);

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
    metrics: Metrics,
    status: watch::Sender<Status>,
    database: Option<SharedDatabase>,
    timeline: Option<Timeline>,
    shipped: Option<Shipped>,
    pinned: Vec<PinName>,
    /// When the oldest change that is not in the bucket was first seen.
    pending_since: Option<Instant>,
    /// A snapshot is due at once: the process has just started.
    fresh: bool,
}

impl<S: Store + Clone> Replicator<S> {
    /// A replicator of the database that `find` names: an upgrade of the control plane may move it.
    pub fn new(
        capture: Capture<S>,
        find: impl Fn() -> PathBuf + Send + Sync + 'static,
        rhythm: watch::Receiver<Rhythm>,
        metrics: Metrics,
        status: watch::Sender<Status>,
    ) -> Self {
        let (pinned, find) = (Vec::new(), Box::new(find));
        let (database, timeline, shipped, pending_since) = (None, None, None, None);
        let fresh = true;
        Self {
            capture,
            find,
            rhythm,
            metrics,
            status,
            database,
            timeline,
            shipped,
            pinned,
            pending_since,
            fresh,
        }
    }

    /// Replicates until `stop`, then ships what is left within `grace`.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration) -> Result<(), ReplicatorError> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.turn().await {
                Ok(()) => {
                    failures = 0;
                    self.rhythm.borrow().sync_interval
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) if error.is_waiting() => {
                    self.wait_for_database(&error);
                    self.rhythm.borrow().sync_interval
                }
                Err(error) => {
                    failures += 1;
                    let pause =
                        Duration::from_millis(500).saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
                    self.report_failure(&error, failures, pause);
                    pause
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.finish(grace).await
    }

    /// Ships what is there, once.
    pub async fn run_once(mut self) -> Result<(), ReplicatorError> {
        self.turn().await
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
        if pending && (self.fresh || interval_over || pin.is_some()) {
            self.capture.recipients = rhythm.recipients.clone();
            self.snapshot(&database, timeline, look).await?;
        }
        self.fresh = false;
        if let (Some(pin), Some(shipped)) = (pin, &self.shipped) {
            self.capture.pin(&shipped.name, pin).await?;
            tracing::info!(pin = %pin.name, revision = %shipped.revision, "pinned");
            self.pinned.push(pin.name.clone());
        }
        self.report_success();
        Ok(())
    }

    /// The open database; opened anew if another file lies at the path.
    async fn open(&mut self) -> Result<SharedDatabase, ReplicatorError> {
        let path = (self.find)();
        if let Some(database) = &self.database
            && lock(database).path() == path
            && lock(database).is_current()
        {
            return Ok(database.clone());
        }
        // Closed before it is opened again: see `Database::refresh`.
        self.database = None;
        let metrics = self.metrics.clone();
        let observer: ReadObserver = Arc::new(move |lasted| metrics.read_transaction(lasted));
        let database = blocking(move || Database::open(&path, observer)).await?;
        tracing::info!(database = %database.path().display(), "opened");
        let database = Arc::new(Mutex::new(database));
        // What this connection counts as a version has no meaning for another.
        if let Some(shipped) = &mut self.shipped {
            shipped.version = None;
        }
        // Another file may hold another history.
        self.timeline = None;
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
            self.metrics.revision(RevisionKind::live, position.live);
            self.metrics.revision(RevisionKind::compact, position.compact);
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
            self.set_restorable_from(history.and_then(History::oldest).map(|point| point.captured));
            self.metrics.revision(RevisionKind::shipped, tip.revision);
            self.shipped =
                Some(Shipped { name: tip.name, revision: tip.revision, version: None, at: Instant::now() });
            tip.timeline
        } else {
            let timeline = Timeline::open(capture.clock.now());
            tracing::info!(%timeline, "a new timeline begins: the bucket holds none that this database goes on");
            self.shipped = None;
            timeline
        };
        self.timeline = Some(timeline);
        self.status.send_modify(|status| status.timeline = Some(timeline.to_string()));
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
                self.metrics.failed(Kind::snapshot);
                return Err(error.into());
            }
        };
        tracing::info!(
            object = published.key,
            revision = %published.copied.revision,
            bytes = published.bytes,
            seconds = published.took.as_secs_f64(),
            "snapshot published"
        );
        let revision = published.copied.revision;
        self.metrics.snapshot(published.bytes, published.took);
        self.metrics.revision(RevisionKind::shipped, revision);
        if self.shipped.is_none() {
            self.set_restorable_from(Some(published.captured));
        }
        self.shipped = Some(Shipped { name: published.name, revision, version: Some(look.version), at });
        self.pending_since = None;
        self.status.send_modify(|status| {
            status.revision = revision;
            status.size_bytes = published.bytes;
        });
        Ok(())
    }

    /// After SIGTERM: kine gets the same signal at the same time, and may still write.
    async fn finish(&mut self, grace: Duration) -> Result<(), ReplicatorError> {
        let path = (self.find)();
        let last = async {
            loop {
                self.fresh = true;
                match self.turn().await {
                    Ok(()) => {}
                    Err(error) if error.is_waiting() => return Ok(()),
                    Err(error) if error.is_final() => return Err(error),
                    Err(error) => {
                        self.report_failure(&error, 1, QUIET);
                        tokio::time::sleep(QUIET).await;
                        continue;
                    }
                }
                tokio::time::sleep(QUIET).await;
                let database = self.open().await?;
                let look = self.look(&database).await?;
                if !self.note_pending(look) {
                    return Ok(());
                }
            }
        };
        let result = tokio::time::timeout(grace, last).await.unwrap_or(Err(ReplicatorError::Unshipped(path)));
        self.status.send_modify(|status| status.phase = Phase::Stopped);
        if result.is_ok() {
            tracing::info!("everything is in the bucket");
        }
        result
    }

    fn lag(&self) -> Duration {
        self.pending_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn set_restorable_from(&self, moment: Option<Moment>) {
        if let Some(moment) = moment {
            self.metrics.restorable_from(moment);
        }
        self.status.send_modify(|status| status.restorable_from = moment);
    }

    fn report_success(&self) {
        let (now, lag) = (self.capture.clock.now(), self.lag());
        self.metrics.lag(lag);
        let everything_shipped = self.pending_since.is_none();
        if everything_shipped {
            self.metrics.success(now);
        }
        self.status.send_modify(|status| {
            status.phase = Phase::Replicating;
            status.lag_seconds = lag.as_secs_f64();
            status.message.clear();
            if everything_shipped {
                status.last_success = Some(now);
            }
        });
    }

    fn report_failure(&self, error: &ReplicatorError, failures: u32, pause: Duration) {
        let lag = self.lag();
        self.metrics.lag(lag);
        let message = cause::chain(error);
        tracing::warn!(
            error = message,
            failures,
            lag = lag.as_secs_f64(),
            pause = pause.as_secs_f64(),
            "not shipped"
        );
        self.status.send_modify(|status| {
            status.phase = Phase::Failing;
            status.lag_seconds = lag.as_secs_f64();
            status.message = message;
        });
    }

    fn wait_for_database(&mut self, error: &ReplicatorError) {
        self.database = None;
        let message = cause::chain(error);
        self.status.send_if_modified(|status| {
            let news = status.message != message;
            if news {
                tracing::info!(reason = message, "waiting for the control plane");
                status.phase = Phase::Waiting;
                status.message = message;
            }
            news
        });
    }
}
