//! kine's database: one table, an append-only log. A row is never changed but `compact_rev_key`; compaction
//! deletes superseded rows at or below the compact revision and moves that key in the same transaction
//! (kine pkg/logstructured/sqllog). So rows above the last revision read are exactly what is new, and rows
//! below it can only vanish.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params_from_iter};

use super::{Copied, Database, DatabaseError, open_scratch};
use crate::header::DatabaseKind;
use crate::revision::Revision;
use crate::signing::{Digest, Hasher};

/// kine's columns (pkg/drivers/sqlite/sqlite.go).
const COLUMNS: [&str; 9] =
    ["id", "name", "created", "deleted", "create_revision", "prev_revision", "lease", "value", "old_value"];

/// How long one ranged read may last. A tenth of what kine's users would notice, and small beside the budget
/// of 100 ms: the last row of a range may be a large one.
const RANGE_TIME: Duration = Duration::from_millis(15);

/// How many bytes of rows are held in memory between a ranged read and its write.
const RANGE_BYTES: usize = 1 << 20;

/// How often the copy is compared anew when compaction passes while it is compared.
const COMPARISONS: usize = 8;

/// How many ids one comparison reads in a transaction: about 10 ms.
const RANGE_IDS: i64 = 20_000;

const ROWS_AFTER: &str = "SELECT * FROM kine WHERE id > ?1 ORDER BY id";

/// The one row that kine changes in place, if it is not among the rows after.
const COMPACT_ROW: &str = "SELECT * FROM kine WHERE name = 'compact_rev_key' AND id <= ?1";

/// A range of the index of names: `gap-` and what begins with it.
const GAP_AFTER: &str =
    "SELECT EXISTS (SELECT 1 FROM kine WHERE name >= 'gap-' AND name < 'gap.' AND id > ?1)";

const IDS_AFTER: &str = "SELECT id FROM kine WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3";

const LIVE_REVISION: &str = "SELECT coalesce(max(id), 0) FROM kine";

const ROW: &str = "SELECT id, name, created, deleted, create_revision, prev_revision, lease, value
                   FROM kine WHERE id = ?1";

const COMPACT_REVISION: &str =
    "SELECT coalesce(max(prev_revision), 0) FROM kine WHERE name = 'compact_rev_key'";

/// Whether table `kine` has the columns that this module reads.
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
    /// Where the log stands: two index look-ups.
    pub fn position(&self) -> Result<Position, DatabaseError> {
        self.read(position)
    }

    /// The digest of the row at `revision`; `None` if there is none. Values carry random uids and time stamps,
    /// so the digest gives nothing of them away.
    pub fn row_digest(&self, revision: Revision) -> Result<Option<Digest>, DatabaseError> {
        self.read(|connection| row_digest(connection, revision))
    }

    /// Whether a row as a restore writes it (and kine itself, when it skips a revision) comes after `revision`.
    pub fn jumps_after(&self, revision: Revision) -> Result<bool, DatabaseError> {
        self.read(|connection| {
            connection.prepare_cached(GAP_AFTER)?.query_row([revision.to_sql()], |row| row.get(0))
        })
    }

    /// The highest revision that this database ever gave out: `max(id)` may be lower, because compaction drops
    /// the row of a deleted key.
    pub fn sequence(&self) -> Result<Revision, DatabaseError> {
        self.read(|connection| {
            let sequence = connection
                .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'kine'", [], |row| row.get(0))
                .optional()?;
            Ok(Revision::from_sql(sequence.unwrap_or(0)))
        })
    }

    /// Copies kine's table in ranges. Each is a short read transaction; a last one takes the rows since.
    /// What compaction removed behind the copy's back is found by comparing ids, also in ranges, until no
    /// compaction has passed between the comparison and the last read.
    pub(super) fn copy_kine(&self, scratch: &Path) -> Result<Copied, DatabaseError> {
        let copy =
            KineCopy { path: scratch, connection: open_scratch(scratch).map_err(|e| failed(scratch, e))? };
        let schema = self.read(schema)?;
        copy.begin(&schema)?;
        let mut last = 0;
        while let Some(newest) = self.copy_range(&copy, last)? {
            last = newest;
        }
        for _ in 0..COMPARISONS {
            let compact = self.position()?.compact;
            self.drop_vanished(&copy, last)?;
            let taken = Instant::now();
            if let Some(revision) = self.copy_tail(&copy, &mut last, compact)? {
                copy.finish(&schema)?;
                let tip = row_digest(&copy.connection, revision).map_err(|error| failed(scratch, error))?;
                return Ok(Copied { revision, kind: DatabaseKind::Kine, tip, taken });
            }
        }
        Err(DatabaseError::Restless(self.path.clone()))
    }

    /// Copies rows after `last` for [`RANGE_TIME`]; `None` when there was none.
    fn copy_range(&self, copy: &KineCopy, last: i64) -> Result<Option<i64>, DatabaseError> {
        let rows = self.read(|connection| read_range(connection, last))?;
        copy.insert(&rows)?;
        Ok(rows.last().map(|row| row.id))
    }

    /// Removes from the copy what is no longer in the database, up to `last`.
    fn drop_vanished(&self, copy: &KineCopy, last: i64) -> Result<(), DatabaseError> {
        let mut from = 0;
        while from < last {
            let (ids, to) = self.read(|connection| ids_after(connection, from, last))?;
            copy.keep_only(&ids, from, to)?;
            from = to;
        }
        Ok(())
    }

    /// One last transaction: if compaction has not moved since `compact`, the rows since and the one row that
    /// kine changes in place. `None` if it has moved.
    fn copy_tail(
        &self,
        copy: &KineCopy,
        last: &mut i64,
        compact: Revision,
    ) -> Result<Option<Revision>, DatabaseError> {
        // Brings `last` close, so that the transaction that counts is short.
        while let Some(newest) = self.copy_range(copy, *last)? {
            *last = newest;
        }
        let tail = self.read(|connection| {
            let position = position(connection)?;
            if position.compact != compact {
                return Ok(None);
            }
            let mut rows = Vec::new();
            // Two look-ups by index: joined by OR they would scan the table, and kine would wait for it.
            for sql in [ROWS_AFTER, COMPACT_ROW] {
                let mut statement = connection.prepare_cached(sql)?;
                let mut found = statement.query([*last])?;
                while let Some(row) = found.next()? {
                    rows.push(full_row(row)?);
                }
            }
            let sequence = connection
                .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'kine'", [], |row| row.get(0))
                .unwrap_or(position.live.to_sql());
            Ok(Some((rows, sequence, position.live)))
        })?;
        let Some((rows, sequence, live)) = tail else { return Ok(None) };
        copy.insert(&rows)?;
        copy.set_sequence(sequence)?;
        Ok(Some(live))
    }
}

fn row_digest(connection: &Connection, revision: Revision) -> rusqlite::Result<Option<Digest>> {
    connection.prepare_cached(ROW)?.query_row([revision.to_sql()], digest).optional()
}

/// Every column with its type and length before it, so that no two rows have the same bytes.
fn digest(row: &SqlRow<'_>) -> rusqlite::Result<Digest> {
    let mut hasher = Hasher::default();
    for column in 0..COLUMNS.len() - 1 {
        let (kind, bytes) = match row.get_ref(column)? {
            ValueRef::Null => (b'n', Vec::new()),
            ValueRef::Integer(number) => (b'i', number.to_be_bytes().to_vec()),
            ValueRef::Real(number) => (b'r', number.to_be_bytes().to_vec()),
            ValueRef::Text(bytes) => (b't', bytes.to_vec()),
            ValueRef::Blob(bytes) => (b'b', bytes.to_vec()),
        };
        hasher.update(&[kind]);
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(&bytes);
    }
    Ok(hasher.finish())
}

fn position(connection: &Connection) -> rusqlite::Result<Position> {
    let live =
        connection.prepare_cached(LIVE_REVISION)?.query_row([], |row| row.get(0)).map(Revision::from_sql)?;
    let compact = connection
        .prepare_cached(COMPACT_REVISION)?
        .query_row([], |row| row.get(0))
        .map(Revision::from_sql)?;
    Ok(Position { live, compact })
}

/// Tables first, then indexes: these are made after the rows are in, which is several times faster.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare(
            "SELECT type, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             ORDER BY type <> 'table', rowid",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

struct FullRow {
    id: i64,
    values: Vec<Value>,
}

impl FullRow {
    fn bytes(&self) -> usize {
        let of = |value: &Value| match value {
            Value::Blob(bytes) => bytes.len(),
            Value::Text(text) => text.len(),
            _ => 8,
        };
        self.values.iter().map(of).sum()
    }
}

fn full_row(row: &SqlRow<'_>) -> rusqlite::Result<FullRow> {
    let values = (0..COLUMNS.len()).map(|column| row.get(column)).collect::<Result<_, _>>()?;
    Ok(FullRow { id: row.get(0)?, values })
}

fn read_range(connection: &Connection, last: i64) -> rusqlite::Result<Vec<FullRow>> {
    let began = Instant::now();
    let mut statement = connection.prepare_cached(ROWS_AFTER)?;
    let mut found = statement.query([last])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let row = full_row(row)?;
        bytes += row.bytes();
        rows.push(row);
        if bytes > RANGE_BYTES || began.elapsed() > RANGE_TIME {
            break;
        }
    }
    Ok(rows)
}

fn ids_after(connection: &Connection, from: i64, last: i64) -> rusqlite::Result<(Vec<i64>, i64)> {
    let ids: Vec<i64> = connection
        .prepare_cached(IDS_AFTER)?
        .query_map([from, last, RANGE_IDS], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let full = i64::try_from(ids.len()) == Ok(RANGE_IDS);
    let to = if full { ids.last().copied().unwrap_or(last) } else { last };
    Ok((ids, to))
}

/// The copy in the making.
struct KineCopy<'p> {
    path: &'p Path,
    connection: Connection,
}

fn failed(path: &Path, source: rusqlite::Error) -> DatabaseError {
    DatabaseError::Scratch { path: path.to_owned(), source }
}

impl KineCopy<'_> {
    fn write<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        let result = self.connection.unchecked_transaction().and_then(|transaction| {
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        result.map_err(|source| failed(self.path, source))
    }

    fn begin(&self, schema: &[(String, String)]) -> Result<(), DatabaseError> {
        self.write(|connection| {
            schema
                .iter()
                .filter(|(kind, _)| kind == "table")
                .try_for_each(|(_, sql)| connection.execute_batch(sql))
        })
    }

    fn insert(&self, rows: &[FullRow]) -> Result<(), DatabaseError> {
        self.write(|connection| {
            let mut statement = connection
                .prepare_cached("INSERT OR REPLACE INTO kine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
            for row in rows {
                statement.execute(params_from_iter(&row.values))?;
            }
            Ok(())
        })
    }

    /// Of the rows in `(from, to]`, keeps those whose ids are given (sorted).
    fn keep_only(&self, ids: &[i64], from: i64, to: i64) -> Result<(), DatabaseError> {
        self.write(|connection| {
            let copied: Vec<i64> = connection
                .prepare_cached("SELECT id FROM kine WHERE id > ?1 AND id <= ?2 ORDER BY id")?
                .query_map([from, to], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut delete = connection.prepare_cached("DELETE FROM kine WHERE id = ?1")?;
            for id in copied.iter().filter(|id| ids.binary_search(id).is_err()) {
                delete.execute([id])?;
            }
            Ok(())
        })
    }

    /// kine goes on counting from here, not from the newest row, which compaction may have dropped.
    fn set_sequence(&self, sequence: i64) -> Result<(), DatabaseError> {
        self.write(|connection| {
            connection.execute("DELETE FROM sqlite_sequence WHERE name = 'kine'", [])?;
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('kine', ?1)", [sequence])
        })
        .map(drop)
    }

    fn finish(&self, schema: &[(String, String)]) -> Result<(), DatabaseError> {
        self.write(|connection| {
            schema
                .iter()
                .filter(|(kind, _)| kind != "table")
                .try_for_each(|(_, sql)| connection.execute_batch(sql))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// kine's compaction waits for whoever reads: no statement may walk the table.
    #[test]
    fn every_read_goes_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        vcluster_backup_tests::kine_shaped::create(&path, 10, 10).unwrap();
        let connection = Connection::open(&path).unwrap();
        for sql in [ROWS_AFTER, COMPACT_ROW, GAP_AFTER, IDS_AFTER, LIVE_REVISION, ROW, COMPACT_REVISION] {
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
