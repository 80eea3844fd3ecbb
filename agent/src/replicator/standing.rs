//! Where the replicator **stands**: on the bucket's newest timeline if the database goes it on, else on one of its own.

use std::time::Instant;

use super::log::{Resumed, Standing};
use super::schedule::Schedule;
use super::snapshots::Snapshot;
use super::{Replicator, ReplicatorError};
use crate::database::SharedDatabase;
use crate::metrics::Kind;
use crate::store::Store;

impl<S: Store + Clone> Replicator<S> {
    /// Goes on with the bucket's newest timeline if the database goes it on, else begins one.
    pub(super) async fn stand(&mut self, database: &SharedDatabase) -> Result<Standing, ReplicatorError> {
        if let Some(standing) = self.log.keep(database).await? {
            return Ok(standing);
        }
        (self.snapshot, self.look, self.schedule) = (None, None, Schedule::default());
        self.without_log.get_or_insert_with(Instant::now);
        let standing = match self.log.resume(database).await? {
            Some(resumed) => self.resume(resumed).await?,
            None => self.begin(database).await?,
        };
        self.without_log = None;
        Ok(standing)
    }

    async fn resume(&mut self, resumed: Resumed) -> Result<Standing, ReplicatorError> {
        let now = self.log.capture.clock.now();
        self.snapshot = resumed.snapshot.map(|point| Snapshot {
            point,
            version: None,
            at: Instant::now().checked_sub(point.captured.until(now)).unwrap_or_else(Instant::now),
        });
        self.report.resumed(&resumed);
        self.resume_files(&resumed).await?;
        self.pinned = resumed.pins;
        Ok(resumed.standing)
    }

    async fn begin(&mut self, database: &SharedDatabase) -> Result<Standing, ReplicatorError> {
        tracing::info!("a new timeline begins: the bucket holds none that this database goes on");
        self.pinned.clear();
        let at = Instant::now();
        let published = self.log.begin(database).await;
        let published = published.inspect_err(|_| self.report.not_published(Kind::snapshot))?;
        self.report.began(&published);
        self.snapshot = Some(Snapshot { point: published.point, version: None, at });
        self.pruner.send_replace(Some(published.timeline));
        Ok(Standing::from(&published))
    }
}
