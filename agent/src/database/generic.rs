//! Any SQLite file that is not kine's: copied whole.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};

use super::{Database, DatabaseError, open_scratch};

impl Database {
    /// The online backup API in one step: a stepwise backup begins anew at each write of another process and
    /// never ends on a busy database.
    pub(super) fn copy_generic(&self, scratch: &Path) -> Result<(), DatabaseError> {
        let scratch_error = |source| DatabaseError::Scratch { path: scratch.to_owned(), source };
        let mut copy = open_scratch(scratch).map_err(scratch_error)?;
        let began = std::time::Instant::now();
        let step = Backup::new(&self.connection, &mut copy).and_then(|backup| backup.step(-1));
        (self.observer)(began.elapsed());
        match step {
            Ok(StepResult::Done) => {}
            Ok(_) => return Err(DatabaseError::Restless(self.path.clone())),
            Err(source) if is_disk_error(&source) => return Err(scratch_error(source)),
            Err(source) => return Err(DatabaseError::Sqlite { path: self.path.clone(), source }),
        }
        // The copy of a WAL database says WAL in its header; without its -wal it must open on a read-only disk.
        copy.pragma_update(None, "journal_mode", "DELETE").map_err(scratch_error)
    }
}

/// The source is only read, so an error of writing is the scratch file's.
fn is_disk_error(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure)
    )
}
