//! **Why** the replicator failed, and whether it makes sense to try again.

use std::path::PathBuf;

use crate::capture::CaptureError;
use crate::database::DatabaseError;
use crate::store::StoreError;

/// Why the replicator failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplicatorError {
    /// Reading or publishing failed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The bucket could not be asked what it holds.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another agent writes to the same timeline.
    #[error(
        "{0} was written by another agent: two must not back up the same database; stop one, or give each its own --prefix"
    )]
    AnotherWriter(String),
    /// The time after SIGTERM was not enough.
    #[error(
        "the last changes of {0} are not in the bucket: --shutdown-grace was over before they could be shipped"
    )]
    Unshipped(PathBuf),
}

impl From<DatabaseError> for ReplicatorError {
    fn from(error: DatabaseError) -> Self {
        Self::Capture(error.into())
    }
}

impl ReplicatorError {
    /// Whether trying again makes no sense.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Store(error) | Self::Capture(CaptureError::Store(error)) => {
                matches!(error, StoreError::Exists(_) | StoreError::Settings(_))
            }
            Self::Capture(CaptureError::Database(error)) => matches!(error, DatabaseError::NotSqlite(_)),
            Self::Capture(_) => false,
            Self::Unshipped(_) | Self::AnotherWriter(_) => true,
        }
    }

    /// Whether the control plane has yet to write its database.
    pub(super) fn is_waiting(&self) -> bool {
        let Self::Capture(CaptureError::Database(error)) = self else { return false };
        matches!(error, DatabaseError::Missing(_) | DatabaseError::Empty(_))
    }
}
