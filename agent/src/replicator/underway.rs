//! A snapshot that is **under way** while the log goes on: of a large database it takes a while.

use std::time::Instant;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::log::Standing;
use crate::capture::{Capture, CaptureError, Published};
use crate::database::{DatabaseError, SharedDatabase};
use crate::pin::PinRequest;
use crate::store::Store;

/// The task, and what is to be done when it is over.
pub(super) struct Underway {
    task: JoinHandle<Result<Published, CaptureError>>,
    cancel: CancellationToken,
    /// When it began.
    pub(super) began: Instant,
    /// Pins that it is taken for.
    pub(super) pins: Vec<PinRequest>,
    /// `data_version` from before it began.
    pub(super) version: i64,
}

impl Underway {
    /// Begins one.
    pub(super) fn begin<S: Store + Clone>(
        capture: &Capture<S>,
        database: &SharedDatabase,
        standing: Standing,
        version: i64,
        pins: Vec<PinRequest>,
    ) -> Self {
        let (capture, database, cancel) = (capture.clone(), database.clone(), CancellationToken::new());
        let stop = cancel.clone();
        let task = tokio::spawn(async move {
            let (timeline, link) = (standing.timeline, standing.end.map(|(link, _)| link));
            capture.snapshot(&database, timeline, link, Some(standing.captured), &stop).await
        });
        Self { task, cancel, began: Instant::now(), pins, version }
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// What came of it; `None` if it must be begun anew because compaction passed it.
    pub(super) async fn finish(mut self) -> Result<Option<Published>, CaptureError> {
        match (&mut self.task).await {
            Ok(Err(CaptureError::Database(DatabaseError::Passed(_) | DatabaseError::GivenUp))) => Ok(None),
            Ok(result) => result.map(Some),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Gives it up, and waits until it lets go of the database.
    pub(super) async fn give_up(self) {
        self.cancel.cancel();
        // Whatever it came to, nobody needs it.
        let _ = self.finish().await;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
