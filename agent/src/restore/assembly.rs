//! **Assembly**: fetches what a plan names, builds the database in a scratch file, and checks it.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::Keys;
use super::plan::Plan;
use crate::capture::blocking;
use crate::envelope::OpenError;
use crate::header::{Content, DatabaseKind, Header};
use crate::key::seed::SeedError;
use crate::progress::Progress;
use crate::revision::Revision;
use crate::snapshot;
use crate::store::{Store, StoreError};

/// How far above the highest revision ever seen a restored database goes on, so that no watch sees time run
/// backwards; vcluster's own restore takes the same step (`BumpRevision`).
const REVISION_BUMP: u64 = 1000;

/// No cluster writes so much between a backup and its restore (a million writes a second for twelve days), and after
/// a higher number kine soon had none left: names in a bucket are not signed.
const LARGEST_JUMP: u64 = 1 << 40;

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
    /// An object of the seed format was refused.
    #[error("{key} {source}")]
    Seed {
        /// The object.
        key: String,
        /// Why.
        source: SeedError,
    },
    /// An object could not be fetched to its end.
    #[error("cannot fetch {key}: the target was not touched")]
    Fetch {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: io::Error,
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
    /// The bucket holds what this version cannot apply.
    #[error(
        "{segment} is a log segment, written by a newer version: restore with that, or a point at a snapshot"
    )]
    Newer {
        /// The first of them.
        segment: String,
    },
    /// A name in the bucket claims a revision that cannot be.
    #[error(
        "the bucket names revision {highest}, far above the {newest} of this backup: remove the object of that name, it is forged or foreign; the target was not touched"
    )]
    Implausible {
        /// The highest revision named.
        highest: Revision,
        /// The newest in the restored database.
        newest: Revision,
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

/// Builds the database of `plan` in the empty file `scratch`. `highest` is the revision that it must rise above.
pub async fn assemble<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    keys: Keys,
    highest: Revision,
    scratch: &Path,
    progress: &Progress,
) -> Result<Assembled, AssemblyError> {
    if let Some((segment, _)) = plan.segments.first() {
        return Err(AssemblyError::Newer { segment: segment.to_string() });
    }
    let (name, stored) = plan.snapshot.clone();
    let object = store.get(&stored.key).await?;
    let (path, bar) = (scratch.to_owned(), progress.clone());
    let header = blocking(move || {
        let write = |source| AssemblyError::Write { path: path.clone(), source };
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(write)?);
        let opened =
            snapshot::open(&name, bar.reading(object), &keys.identities, keys.signer.as_ref(), &mut file);
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
    let path = scratch.to_owned();
    blocking(move || {
        let bumped_to = match header.content {
            Content::Snapshot { database: DatabaseKind::Kine, revision } => {
                check_and_bump(&path, Some(revision), highest)?
            }
            // A table that happens to be called kine is not kine's.
            _ => check(&path).map(|_| None)?,
        };
        Ok(Assembled { header, bumped_to })
    })
    .await
}

/// Checks the database and lifts its revision above `highest`. `promised` is the revision that it must end at;
/// `None` if nothing promises one. Returns the revision that kine goes on from; `None` for a database that is not
/// kine's.
pub(super) fn check_and_bump(
    path: &Path,
    promised: Option<Revision>,
    highest: Revision,
) -> Result<Option<Revision>, AssemblyError> {
    let sqlite = |source| AssemblyError::Sqlite { path: path.to_owned(), source };
    let connection = check(path)?;
    let is_kine = connection.table_exists(None, "kine").map_err(sqlite)?;
    if !is_kine {
        return Ok(None);
    }
    let newest: i64 = connection
        .query_row("SELECT coalesce(max(id), 0) FROM kine", [], |row| row.get(0))
        .map_err(sqlite)?;
    let newest = Revision::from_sql(newest);
    if let Some(promised) = promised.filter(|promised| *promised != newest) {
        let problem = format!("its newest revision is {newest}, not {promised}");
        return Err(AssemblyError::Unsound { problem });
    }
    if highest > newest.plus(LARGEST_JUMP) {
        return Err(AssemblyError::Implausible { highest, newest });
    }
    let bumped = highest.max(newest).plus(REVISION_BUMP);
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

/// SQLite's own check of the whole file; leaves it open for what is written next.
fn check(path: &Path) -> Result<Connection, AssemblyError> {
    let sqlite = |source| AssemblyError::Sqlite { path: path.to_owned(), source };
    let unsound = |problem| AssemblyError::Unsound { problem };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
    // The file is nobody's yet: it is synced as a whole before it is placed.
    connection.pragma_update(None, "journal_mode", "MEMORY").map_err(|error| unsound(error.to_string()))?;
    connection.pragma_update(None, "synchronous", "OFF").map_err(sqlite)?;
    connection.pragma_update(None, "cache_size", -8192).map_err(sqlite)?;
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| unsound(error.to_string()))?;
    if verdict == "ok" { Ok(connection) } else { Err(unsound(verdict)) }
}
