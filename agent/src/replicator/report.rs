//! The **report**: metrics and status of one replicator.

use std::time::Duration;

use tokio::sync::watch;

use super::ReplicatorError;
use super::log::Resumed;
use crate::body::Body;
use crate::capture::{Published, Uploaded};
use crate::cause;
use crate::clock::Moment;
use crate::database::{Position, ReadObserver};
use crate::merge::{MergeError, Merged};
use crate::metrics::{Kind, Metrics, RevisionKind};
use crate::object_name::ObjectName;
use crate::prune::Pruned;
use crate::revision::Revision;
use crate::status::{Phase, Status};

/// Tells what the replicator does.
#[derive(Clone)]
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

    /// A timeline is gone on with; what of it is in the bucket already.
    pub(super) fn resumed(&self, resumed: &Resumed) {
        let revision = resumed.newest.revision;
        let restorable_from = resumed.oldest.map(|point| point.captured);
        self.metrics.revision(RevisionKind::shipped, revision);
        if let Some(moment) = restorable_from {
            self.metrics.restorable_from(moment);
        }
        let timeline = resumed.standing.timeline.to_string();
        tracing::info!(timeline, %revision, "the database goes on this timeline");
        self.status.send_modify(|status| {
            status.timeline = Some(timeline);
            status.revision = revision;
            status.restorable_from = restorable_from;
        });
    }

    /// A timeline was begun with this snapshot.
    pub(super) fn began(&self, published: &Published) {
        self.published(published);
        self.metrics.restorable_from(published.point.captured);
        self.status.send_modify(|status| {
            status.timeline = Some(published.timeline.to_string());
            status.revision = published.point.revision;
            status.restorable_from = Some(published.point.captured);
        });
        self.metrics.revision(RevisionKind::shipped, published.point.revision);
    }

    pub(super) fn published(&self, published: &Published) {
        let revision = published.point.revision;
        tracing::info!(
            object = published.key,
            %revision,
            bytes = published.bytes,
            seconds = published.took.as_secs_f64(),
            "snapshot published"
        );
        self.metrics.snapshot(published.bytes, published.took);
        self.status.send_modify(|status| status.size_bytes = published.bytes);
        // As often as snapshots are taken, people may want to know what all this costs.
        if let Some(cost) = self.metrics.usage().cost() {
            tracing::info!(
                requests_per_day = cost.requests_per_day,
                bytes_per_day = cost.bytes_per_day,
                "at the rate so far"
            );
        }
        // A snapshot alone ships what a database without a log holds.
        if revision == Revision::ZERO {
            self.metrics.revision(RevisionKind::shipped, revision);
        }
    }

    /// A segment was published.
    pub(super) fn shipped(&self, name: &ObjectName, uploaded: Uploaded, body: &Body) {
        let revision = body.end.revision;
        tracing::debug!(object = %name, bytes = uploaded.bytes, "segment published");
        self.metrics.published(Kind::segment, uploaded.bytes);
        self.metrics.revision(RevisionKind::shipped, revision);
        self.status.send_modify(|status| status.revision = revision);
    }

    /// Files were published.
    pub(super) fn files(&self, key: &str, bytes: u64) {
        tracing::info!(object = key, bytes, "files beside the database published");
        self.metrics.published(Kind::files, bytes);
    }

    pub(super) fn not_published(&self, kind: Kind) {
        self.metrics.failed(kind);
    }

    pub(super) fn merged(&self, merged: &Merged) {
        tracing::debug!(
            object = merged.key,
            segments = merged.segments,
            bytes = merged.bytes,
            "segments merged"
        );
        self.metrics.published(Kind::merged, merged.bytes);
    }

    pub(super) fn not_merged(&self, error: &MergeError) {
        self.metrics.failed(Kind::merged);
        tracing::warn!(error = cause::chain(error), "segments were not merged; it will be tried again");
    }

    /// What retention no longer keeps is gone; the oldest point of this timeline that is left.
    pub(super) fn pruned(&self, pruned: &Pruned, oldest: Option<Moment>) {
        if let Some(problem) = pruned.failure() {
            tracing::warn!(
                problem,
                deleted = pruned.objects,
                "not everything was pruned; it will be tried again"
            );
        } else if pruned.objects > 0 {
            tracing::info!(objects = pruned.objects, bytes = pruned.bytes, "pruned");
        }
        if let Some(moment) = oldest {
            self.metrics.restorable_from(moment);
            self.status.send_modify(|status| status.restorable_from = Some(moment));
        }
    }

    /// A turn went well: whatever was due is in the bucket. `lag` is the age of what is not due yet, `limit` what it
    /// should never come to.
    pub(super) fn success(&self, lag: Duration, limit: Duration, now: Moment) {
        self.metrics.lag(lag);
        self.metrics.success(now);
        self.status.send_modify(|status| {
            status.phase = Phase::Replicating;
            status.lag_seconds = lag.as_secs_f64();
            status.is_behind = lag > limit;
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
