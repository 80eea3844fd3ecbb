//! **Merging** beside the replicator: what it ships is kept and merged as it falls due.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{Report, Rhythm};
use crate::body::Body;
use crate::capture::Capture;
use crate::merge::Merger;
use crate::object_name::ObjectName;
use crate::store::Store;

/// How often it is looked whether something is due.
const LOOKS: Duration = Duration::from_secs(5);

/// Merges until the replicator is gone. It may be broken off at any time: nothing is deleted before its replacement is
/// there.
pub(super) async fn merge<S: Store + Clone>(
    mut bodies: mpsc::UnboundedReceiver<(ObjectName, Body)>,
    mut capture: Capture<S>,
    rhythm: watch::Receiver<Rhythm>,
    report: Report,
) {
    let mut merger = Merger::default();
    let mut looks = tokio::time::interval(LOOKS);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            shipped = bodies.recv() => match shipped {
                Some((name, body)) => merger.keep(name, body),
                None => return,
            },
            _ = looks.tick() => {
                {
                    let rhythm = rhythm.borrow();
                    capture.recipients = rhythm.recipients.clone();
                    merger.set_append_only(rhythm.append_only);
                }
                match merger.merge(&capture, capture.clock.now()).await {
                    Ok(Some(done)) => report.merged(&done),
                    Ok(None) => {}
                    Err(error) => report.not_merged(&error),
                }
            }
        }
    }
}
