//! The **report**: metrics and status of one replicator.

use std::time::Duration;

use tokio::sync::watch;

use super::ReplicatorError;
use crate::capture::Published;
use crate::cause;
use crate::clock::Moment;
use crate::database::{Position, ReadObserver};
use crate::metrics::{Kind, Metrics, RevisionKind};
use crate::revision::Revision;
use crate::status::{Phase, Status};
use crate::timeline::Timeline;

/// Tells what the replicator does.
pub struct Report {
    /// For machines.
    pub metrics: Metrics,
    /// For `/status` and `/readyz`.
    pub status: watch::Sender<Status>,
}

impl Report {
    pub(super) fn read_observer(&self) -> ReadObserver {
        let metrics = self.metrics.clone();
        std::sync::Arc::new(move |lasted| metrics.read_transaction(lasted))
    }

    pub(super) fn looked(&self, position: Position) {
        self.metrics.revision(RevisionKind::live, position.live);
        self.metrics.revision(RevisionKind::compact, position.compact);
    }

    /// A timeline is written from here on; what of it is in the bucket already.
    pub(super) fn resumed(&self, timeline: Timeline, shipped: Revision, restorable_from: Option<Moment>) {
        self.metrics.revision(RevisionKind::shipped, shipped);
        if let Some(moment) = restorable_from {
            self.metrics.restorable_from(moment);
        }
        self.status.send_modify(|status| {
            status.timeline = Some(timeline.to_string());
            status.revision = shipped;
            status.restorable_from = restorable_from;
        });
    }

    pub(super) fn published(&self, published: &Published, is_first: bool) {
        let revision = published.copied.revision;
        tracing::info!(
            object = published.key,
            %revision,
            bytes = published.bytes,
            seconds = published.took.as_secs_f64(),
            "snapshot published"
        );
        self.metrics.snapshot(published.bytes, published.took);
        self.metrics.revision(RevisionKind::shipped, revision);
        if is_first {
            self.metrics.restorable_from(published.captured);
        }
        self.status.send_modify(|status| {
            status.revision = revision;
            status.size_bytes = published.bytes;
            if is_first {
                status.restorable_from = Some(published.captured);
            }
        });
    }

    pub(super) fn not_published(&self) {
        self.metrics.failed(Kind::snapshot);
    }

    /// A turn went well: whatever was due is in the bucket. `lag` is the age of what is not due yet.
    pub(super) fn success(&self, lag: Duration, now: Moment) {
        self.metrics.lag(lag);
        self.metrics.success(now);
        self.status.send_modify(|status| {
            status.phase = Phase::Replicating;
            status.lag_seconds = lag.as_secs_f64();
            status.message.clear();
            status.last_success = Some(now);
        });
    }

    pub(super) fn failure(&self, error: &ReplicatorError, failures: u32, lag: Duration, pause: Duration) {
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

    /// There is no database yet; told once.
    pub(super) fn waiting(&self, reason: &ReplicatorError) {
        let message = cause::chain(reason);
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

    pub(super) fn stopped(&self) {
        self.status.send_modify(|status| status.phase = Phase::Stopped);
    }
}
