//! **Pruning** beside the replicator: after a snapshot, at most once an hour.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Report, Rhythm};
use crate::capture::Capture;
use crate::cause;
use crate::pin::PinName;
use crate::progress::Progress;
use crate::prune;
use crate::store::Store;
use crate::timeline::Timeline;

/// Between two prunes, or as long as the window if that is shorter. Less than an hour, so that of snapshots that are an
/// hour apart, more or less, each is followed by one.
const REST: Duration = Duration::from_mins(50);

/// Prunes until the replicator is gone. It may be broken off at any time, see [`prune::carry_out`]; a failure is told, and
/// what is left is pruned the next time.
pub(super) async fn prune<S: Store + Clone>(
    mut snapshots: watch::Receiver<Option<Timeline>>,
    capture: Capture<S>,
    rhythm: watch::Receiver<Rhythm>,
    report: Report,
) {
    let Capture { store, prefix, clock, .. } = &capture;
    let mut last: Option<Instant> = None;
    while snapshots.changed().await.is_ok() {
        let timeline = *snapshots.borrow_and_update();
        let Rhythm { retention, append_only, pins, .. } = rhythm.borrow().clone();
        let rest = REST.min(retention.window);
        if append_only || last.is_some_and(|last| last.elapsed() < rest) {
            continue;
        }
        last = Some(Instant::now());
        let asked: Vec<PinName> = pins.into_iter().map(|pin| pin.name).collect();
        match prune::plan(store, prefix, &retention, &asked, clock.now()).await {
            Ok(plan) => {
                let pruned = prune::carry_out(store, prefix, &plan, &Progress::hidden()).await;
                report.pruned(&pruned, timeline.and_then(|timeline| plan.oldest(timeline)));
            }
            Err(error) => {
                tracing::warn!(error = cause::chain(&error), "nothing was pruned; it will be tried again");
            }
        }
    }
}
