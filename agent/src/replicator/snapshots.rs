//! When **snapshots** and pins fall due.

use std::time::Instant;

use super::log::Standing;
use super::underway::Underway;
use super::{Haste, Look, Replicator, ReplicatorError, Rhythm};
use crate::catalogue::RestorePoint;
use crate::database::SharedDatabase;
use crate::metrics::Kind;
use crate::pin::PinRequest;
use crate::store::Store;

/// The newest snapshot of this timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    /// The point that it holds.
    pub(super) point: RestorePoint,
    /// `data_version` from before it was taken; `None` if another process took it.
    pub(super) version: Option<i64>,
    /// When it was begun.
    pub(super) at: Instant,
}

impl<S: Store + Clone> Replicator<S> {
    /// Takes snapshots and makes pins as they fall due.
    pub(super) async fn snapshots(
        &mut self,
        database: &SharedDatabase,
        look: Look,
        rhythm: &Rhythm,
    ) -> Result<(), ReplicatorError> {
        if self.underway.as_ref().is_some_and(Underway::is_over) {
            self.finish_snapshot().await?;
        }
        let (Some(standing), None) = (self.log.standing(), &self.underway) else { return Ok(()) };
        self.verifications(standing.timeline).await;
        self.tell_pins(&rhythm.pins);
        let now = self.log.capture.clock.now();
        // One that must be captured later than now, where another's clock goes before ours, is waited for.
        let wanted = |pin: &&PinRequest| !self.is_made(pin) && pin.is_met_by(now);
        let wanted: Vec<PinRequest> = rhythm.pins.iter().filter(wanted).cloned().collect();
        let changed = self.snapshot.is_none_or(|snapshot| match look.position {
            Some(position) => position.live != snapshot.point.revision,
            None => snapshot.version != Some(look.version),
        });
        let is_log = standing.end.is_some();
        if changed && !is_log {
            self.without_log.get_or_insert_with(Instant::now);
        }
        if !changed {
            self.without_log = None;
            let (met, unmet): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|pin| {
                self.snapshot.is_some_and(|snapshot| pin.is_met_by(snapshot.point.captured))
            });
            if let Some(snapshot) = self.snapshot {
                self.pin(snapshot.point, &met).await?;
            }
            // The same again, but captured when it was asked for.
            if !unmet.is_empty() {
                self.underway =
                    Some(Underway::begin(&self.log.capture, database, standing, look.version, unmet));
            }
            return Ok(());
        }
        let interval_over =
            self.snapshot.is_none_or(|snapshot| snapshot.at.elapsed() >= rhythm.snapshot_interval);
        // Without a log, a snapshot is all that ships what is new.
        let first = !is_log && self.snapshot.is_none_or(|snapshot| snapshot.version.is_none());
        let due = match self.haste {
            Haste::None => interval_over || first,
            Haste::Once => interval_over || !is_log,
            Haste::Last => !is_log,
        };
        if due || !wanted.is_empty() {
            self.underway =
                Some(Underway::begin(&self.log.capture, database, standing, look.version, wanted));
        }
        Ok(())
    }

    /// Waits for the one that is under way, and makes the pins that it was taken for.
    pub(super) async fn finish_snapshot(&mut self) -> Result<(), ReplicatorError> {
        let Some(underway) = self.underway.take() else { return Ok(()) };
        let (pins, version, at) = (underway.pins.clone(), underway.version, underway.began);
        let published = underway.finish().await.inspect_err(|_| self.report.not_published(Kind::snapshot))?;
        let Some(published) = published else { return Ok(()) };
        self.report.published(&published);
        self.pruner.send_replace(Some(published.timeline));
        self.snapshot = Some(Snapshot { point: published.point, version: Some(version), at });
        self.pin(published.point, &pins).await
    }

    async fn pin(&mut self, snapshot: RestorePoint, pins: &[PinRequest]) -> Result<(), ReplicatorError> {
        let Some(Standing { timeline, .. }) = self.log.standing() else { return Ok(()) };
        for pin in pins {
            self.log.capture.pin(timeline, snapshot, pin).await?;
            tracing::info!(pin = %pin.name, revision = %snapshot.revision, "pinned");
            self.pinned.insert(pin.name.clone(), snapshot.captured);
        }
        Ok(())
    }

    fn is_made(&self, pin: &PinRequest) -> bool {
        self.pinned.get(&pin.name).is_some_and(|captured| pin.is_met_by(*captured))
    }

    fn tell_pins(&self, asked: &[PinRequest]) {
        let made = asked.iter().filter(|pin| self.is_made(pin));
        let made = made.filter_map(|pin| self.pinned.get_key_value(&pin.name));
        self.report.pins(made.map(|(name, captured)| (name.clone(), *captured)).collect());
    }
}
