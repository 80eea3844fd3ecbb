//! The **lag** of a sidecar: how far the bucket is behind the database, by the sidecar's own word.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::sidecar::Sidecar;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Seconds since the capture of what was shipped last, if anything is left to ship.
pub async fn seconds(sidecar: &Sidecar) -> Result<f64> {
    Ok(sidecar.metrics().await?.sum("vcluster_backup_lag_seconds", &[]))
}

/// Waits until everything up to a revision is in the bucket.
pub async fn until_shipped(sidecar: &Sidecar, revision: i64, deadline: Duration) -> Result<()> {
    let (begin, wanted) = (Instant::now(), f64::from(i32::try_from(revision)?));
    loop {
        // A sidecar that does not answer has ended before its time.
        let metrics = sidecar.metrics().await.with_context(|| sidecar.process().log())?;
        let shipped = metrics.sum("vcluster_backup_revision", &[("kind", "shipped")]);
        if shipped >= wanted {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < deadline,
            "revision {revision} is not shipped within {deadline:?}, but {shipped}:\n{}",
            sidecar.process().log()
        );
        tokio::time::sleep(PAUSE).await;
    }
}
