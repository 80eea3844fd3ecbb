//! **Soundness**: what a restored database must be before it is placed, and the revision that it goes on from.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::assembly::AssemblyError;
use crate::database::LIVE_REVISION;
use crate::revision::Revision;

/// How far above the highest revision ever seen a restored database goes on, so that no watch sees time run
/// backwards; vcluster's own restore takes the same step (`BumpRevision`).
const REVISION_BUMP: u64 = 1000;

/// No cluster writes so much between a backup and its restore (a million writes a second for twelve days), and after
/// a higher number kine soon had none left: names in a bucket are not signed.
const LARGEST_JUMP: u64 = 1 << 40;

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
    let newest: i64 = connection.query_row(LIVE_REVISION, [], |row| row.get(0)).map_err(sqlite)?;
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

/// Rows up to a revision, and bytes of the file.
pub(super) fn measure(path: &Path, up_to: Revision) -> Result<(Option<u64>, u64), AssemblyError> {
    let sqlite = |source| AssemblyError::Sqlite { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    let count = "SELECT count(*) FROM kine WHERE id <= ?1";
    let mut rows: Option<i64> = None;
    if connection.table_exists(None, "kine").map_err(sqlite)? {
        rows = Some(connection.query_row(count, [up_to.to_sql()], |row| row.get(0)).map_err(sqlite)?);
    }
    let written = |source| AssemblyError::Write { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(written)?.len();
    Ok((rows.and_then(|rows| u64::try_from(rows).ok()), bytes))
}

/// SQLite's own check of the whole file; leaves it open for what is written next.
pub(super) fn check(path: &Path) -> Result<Connection, AssemblyError> {
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
