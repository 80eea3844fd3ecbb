//! What **verifications** of this timeline came to, for whoever watches the agent: looked for at the start and after each
//! snapshot.

use std::time::{Duration, Instant};

use super::{Haste, Replicator};
use crate::clock::Moment;
use crate::store::Store;
use crate::timeline::Timeline;
use crate::verify::record;

/// After a look that failed.
const PATIENCE: Duration = Duration::from_mins(5);

/// For what it was looked last.
#[derive(Default)]
pub(super) struct Verified {
    /// The timeline, and the capture of its newest snapshot.
    looked: Option<(Timeline, Option<Moment>)>,
    failed: Option<Instant>,
}

impl<S: Store + Clone> Replicator<S> {
    /// Looks for the last verification if there is a snapshot more. That this fails stops nothing else.
    pub(super) async fn verifications(&mut self, timeline: Timeline) {
        let now = (timeline, self.snapshot.map(|snapshot| snapshot.point.captured));
        let rests = self.verified.failed.is_some_and(|failed| failed.elapsed() < PATIENCE);
        if self.verified.looked == Some(now) || rests || self.haste != Haste::None {
            return;
        }
        let capture = &self.log.capture;
        match record::last(&capture.store, &capture.prefix, timeline).await {
            Ok(last) => {
                self.report.verified(last);
                self.verified = Verified { looked: Some(now), failed: None };
            }
            Err(error) => {
                tracing::warn!(%error, "what the last verification came to is not known");
                self.verified.failed = Some(Instant::now());
            }
        }
    }
}
