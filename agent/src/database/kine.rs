//! kine's database: one table, an append-only log. A row is never changed but `compact_rev_key`; compaction
//! deletes superseded rows at or below the compact revision and moves that key in the same transaction
//! (kine pkg/logstructured/sqllog). So rows above the last revision read are exactly what is new, and rows
//! below it can only vanish.

use rusqlite::{Connection, OptionalExtension as _};

use super::{Database, DatabaseError};
use crate::revision::Revision;
use crate::row::Row;
use crate::signing::Digest;

/// kine's columns (pkg/drivers/sqlite/sqlite.go).
const COLUMNS: [&str; 9] =
    ["id", "name", "created", "deleted", "create_revision", "prev_revision", "lease", "value", "old_value"];

/// A range of the index of names: `gap-` and what begins with it.
pub(super) const GAP_AFTER: &str =
    "SELECT EXISTS (SELECT 1 FROM kine WHERE name >= 'gap-' AND name < 'gap.' AND id > ?1)";

/// The highest revision that was ever given out. `max(id)` alone may be lower: compaction drops the row of a key that was
/// deleted last, and what the database then holds is the state after that.
pub const LIVE_REVISION: &str = "SELECT max((SELECT coalesce(max(id), 0) FROM kine),
                (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'kine'))";

/// The newest row at or below a revision.
pub(super) const ROW: &str = "SELECT * FROM kine WHERE id <= ?1 ORDER BY id DESC LIMIT 1";

pub(super) const COMPACT_REVISION: &str =
    "SELECT coalesce(max(prev_revision), 0) FROM kine WHERE name = 'compact_rev_key'";

/// Whether table `kine` has the columns that this program reads.
pub(super) fn has_its_columns(connection: &Connection) -> rusqlite::Result<bool> {
    let mut columns = connection.prepare("SELECT name FROM pragma_table_info('kine')")?;
    let columns: Vec<String> = columns.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(columns == COLUMNS)
}

/// What the log says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The newest revision.
    pub live: Revision,
    /// History at or below it may be gone.
    pub compact: Revision,
}

impl Database {
    /// Where the log stands: a few look-ups by index.
    pub fn position(&self) -> Result<Position, DatabaseError> {
        self.read(position)
    }

    /// Whether a row as a restore writes it (and kine itself, when it skips a revision) comes after `revision`.
    pub fn jumps_after(&self, revision: Revision) -> Result<bool, DatabaseError> {
        self.read(|connection| {
            connection.prepare_cached(GAP_AFTER)?.query_row([revision.to_sql()], |row| row.get(0))
        })
    }

    /// Whether rows after `revision` are exactly what was written since: the newest row up to `revision` has this digest,
    /// and compaction has not passed it.
    pub fn goes_on_from(&self, revision: Revision, tip: Digest) -> Result<bool, DatabaseError> {
        self.read(|connection| goes_on_from(connection, revision, tip))
    }
}

pub(super) fn goes_on_from(
    connection: &Connection,
    revision: Revision,
    tip: Digest,
) -> rusqlite::Result<bool> {
    let compact: i64 = connection.prepare_cached(COMPACT_REVISION)?.query_row([], |row| row.get(0))?;
    if Revision::from_sql(compact) > revision {
        return Ok(false);
    }
    Ok(row_digest(connection, revision)? == Some(tip))
}

/// The digest of the newest row up to `revision`; `None` if there is none.
pub(super) fn row_digest(connection: &Connection, revision: Revision) -> rusqlite::Result<Option<Digest>> {
    let row = connection.prepare_cached(ROW)?.query_row([revision.to_sql()], Row::read);
    Ok(row.optional()?.map(|row| row.digest()))
}

pub(super) fn position(connection: &Connection) -> rusqlite::Result<Position> {
    let number =
        |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).map(Revision::from_sql);
    Ok(Position { live: number(LIVE_REVISION)?, compact: number(COMPACT_REVISION)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rusqlite::params_from_iter;

    use super::super::{copy, feed};
    use super::*;

    /// kine's compaction waits for whoever reads: no statement may walk the table.
    #[test]
    fn every_read_goes_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        vcluster_backup_tests::kine_shaped::create(&path, 10, 10).unwrap();
        let connection = Connection::open(&path).unwrap();
        let here = [GAP_AFTER, LIVE_REVISION, ROW, COMPACT_REVISION];
        for sql in here.into_iter().chain(copy::READS).chain(feed::READS) {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let parameters = vec![1i64; explain.parameter_count()];
            let plan =
                explain.query_map(params_from_iter(parameters), |row| row.get::<_, String>(3)).unwrap();
            let plan: Vec<String> = plan.map(Result::unwrap).collect();
            // The newest id is the index's last entry, found without a walk.
            let searches = plan.iter().any(|step| step.contains("SEARCH"));
            let walks = plan.iter().any(|step| step.contains("SCAN kine"));
            assert!(searches && !walks, "{sql}: {plan:?}");
        }
    }
}
