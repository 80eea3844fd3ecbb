//! What the verbs tell the **host cluster**: the agent's word for the composition function. Nothing waits for it, and
//! nothing fails with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ensure::read_marker;
use crate::cause;
use crate::cluster::Cluster;
use crate::settings::Settings;
use crate::status::Status;

/// What has changed is told after this; so are the API server and the function spared.
const SHORTEST: Duration = Duration::from_secs(15);

/// What has not changed is told again after this much longer: a minute in all, or the function would think us gone.
const LONGER: Duration = Duration::from_secs(45);

/// The cluster that this pod belongs to; `None` outside of one.
pub(super) async fn cluster(settings: &Settings) -> Option<Cluster> {
    let owner = settings.owner()?;
    let by_file = settings.host_cluster()?;
    match Cluster::connect(owner, by_file).await {
        Ok(cluster) => Some(cluster),
        Err(error) => {
            tracing::warn!(
                error = cause::chain(&error),
                "the host cluster is not told how the backup is doing"
            );
            None
        }
    }
}

/// Tells one thing now.
pub(super) async fn tell(cluster: Option<&Cluster>, phase: &str, message: &str, restored: Option<&str>) {
    let Some(cluster) = cluster else { return };
    let mut data = BTreeMap::from([("phase", phase.to_owned()), ("message", message.to_owned())]);
    data.extend(restored.map(|id| ("restoredId", id.to_owned())));
    if let Err(error) = cluster.tell(&data).await {
        tracing::warn!(error = cause::chain(&error), phase, "the host cluster was not told");
    }
}

/// Tells how replication is doing, until `stop`.
pub(super) async fn keep_telling(
    cluster: Cluster,
    mut statuses: watch::Receiver<Status>,
    database: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut refused = false;
    loop {
        let status = statuses.borrow_and_update().clone();
        let restored = read_marker(&database).ok().flatten();
        match cluster.tell(&data(&status, restored)).await {
            Ok(()) => refused = false,
            // Told once: it goes on every minute.
            Err(error) if !refused => {
                tracing::warn!(
                    error = cause::chain(&error),
                    "the host cluster is not told how the backup is doing"
                );
                refused = true;
            }
            Err(_) => {}
        }
        // Others wait for these; the rest is told within a minute.
        let news = |now: &Status| {
            (now.phase, &now.message, &now.pins, now.last_verify)
                != (status.phase, &status.message, &status.pins, status.last_verify)
        };
        let next = async {
            tokio::time::sleep(SHORTEST).await;
            // An error means that the replicator has ended, and with it all this.
            let _ = tokio::time::timeout(LONGER, statuses.wait_for(news)).await;
        };
        tokio::select! {
            () = next => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn data(status: &Status, restored: Option<String>) -> BTreeMap<&'static str, String> {
    let mut data = BTreeMap::from([
        ("phase", format!("{:?}", status.phase)),
        ("revision", status.revision.to_string()),
        ("sizeBytes", status.size_bytes.to_string()),
        ("message", status.message.clone()),
    ]);
    data.extend(status.last_success.map(|moment| ("lastSuccess", moment.to_string())));
    data.extend(status.last_verify.map(|moment| ("lastVerify", moment.to_string())));
    data.extend(status.last_verify_result.clone().map(|result| ("lastVerifyResult", result)));
    // A map of texts cannot fail.
    data.extend(serde_json::to_string(&status.pins).ok().map(|pins| ("pins", pins)));
    data.extend(status.restorable_from.map(|moment| ("restorableFrom", moment.to_string())));
    data.extend(restored.map(|id| ("restoredId", id)));
    data
}
