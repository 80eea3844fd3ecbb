//! **Assembly**: fetches what a plan names, builds the database in a scratch file, and checks it.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::plan::Plan;
use crate::capture::blocking;
use crate::envelope::OpenError;
use crate::header::{Content, DatabaseKind, Header};
use crate::key::Identities;
use crate::progress::Progress;
use crate::revision::Revision;
use crate::signing::Signer;
use crate::snapshot;
use crate::store::{Store, StoreError};

/// How far above the highest revision ever seen a restored database goes on, so that no watch sees time run
/// backwards; vcluster's own restore takes the same step (`BumpRevision`).
const REVISION_BUMP: u64 = 1000;

/// Why a database could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object was refused.
    #[error("{key} {source}")]
    Object {
        /// The object.
        key: String,
        /// Why.
        source: OpenError,
    },
    /// The scratch file could not be written.
    #[error("cannot write {path}: is the disk full? The target was not touched")]
    Write {
        /// The scratch file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite refused what was assembled.
    #[error("the restored database is not sound ({problem}): the target was not touched")]
    Unsound {
        /// What the check found.
        problem: String,
    },
    /// SQLite failed.
    #[error("SQLite failed on the restored database in {path}: the target was not touched")]
    Sqlite {
        /// The scratch file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

/// What was assembled.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The header of the snapshot it began with.
    pub header: Header,
    /// The revision that kine goes on from; `None` for a generic database.
    pub bumped_to: Option<Revision>,
}

/// Builds the database of `plan` in the empty file `scratch`.
pub async fn assemble<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    identities: std::sync::Arc<Identities>,
    signer: Option<Signer>,
    scratch: &Path,
    progress: &Progress,
) -> Result<Assembled, AssemblyError> {
    let (name, stored) = plan.snapshot.clone();
    let object = store.get(&stored.key).await?;
    let (path, bar) = (scratch.to_owned(), progress.clone());
    let header = blocking(move || {
        let write = |source| AssemblyError::Write { path: path.clone(), source };
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(write)?);
        let opened = snapshot::open(&name, bar.reading(object), &identities, signer.as_ref(), &mut file);
        let (header, _) = opened.map_err(|source| match source {
            OpenError::Io(source) if source.raw_os_error().is_some() => {
                AssemblyError::Write { path: path.clone(), source }
            }
            source => AssemblyError::Object { key: stored.key, source },
        })?;
        file.flush().map_err(write)?;
        Ok::<_, AssemblyError>(header)
    })
    .await?;
    let (path, highest) = (scratch.to_owned(), plan.highest_revision);
    blocking(move || {
        let bumped_to = finish(&path, &header, highest)?;
        Ok(Assembled { header, bumped_to })
    })
    .await
}

/// Checks the database and lifts its revision.
fn finish(path: &Path, header: &Header, highest: Revision) -> Result<Option<Revision>, AssemblyError> {
    let sqlite = |source| AssemblyError::Sqlite { path: path.to_owned(), source };
    let unsound = |problem| AssemblyError::Unsound { problem };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
    // The file is nobody's yet: it is synced as a whole before it is placed.
    connection.pragma_update(None, "journal_mode", "MEMORY").map_err(sqlite)?;
    connection.pragma_update(None, "synchronous", "OFF").map_err(sqlite)?;
    connection.pragma_update(None, "cache_size", -8192).map_err(sqlite)?;
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| unsound(error.to_string()))?;
    if verdict != "ok" {
        return Err(unsound(verdict));
    }
    let Content::Snapshot { database: DatabaseKind::Kine, revision } = header.content else {
        return Ok(None);
    };
    let newest: i64 = connection
        .query_row("SELECT coalesce(max(id), 0) FROM kine", [], |row| row.get(0))
        .map_err(sqlite)?;
    if Revision::from_sql(newest) != revision {
        return Err(unsound(format!("its newest revision is {newest}, not {revision}")));
    }
    let bumped = highest.max(revision).plus(REVISION_BUMP);
    // As kine itself fills a gap (pkg/logstructured/sqllog, Fill); tried: it goes on at the next revision and
    // compacts this row away.
    connection
        .execute(
            "INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
             VALUES (?1, 'gap-' || ?1, 0, 1, 0, 0, 0, NULL, NULL)",
            [bumped.to_sql()],
        )
        .map_err(sqlite)?;
    Ok(Some(bumped))
}
