//! A **copy** of the database, as it is at one moment, made for a snapshot.
//!
//! kine's is read in ranges, so that no read transaction lasts and the change feed is read in between. What compaction
//! removed behind the copy's back is found by comparing ids, also in ranges, until no compaction has passed between
//! the comparison and the last read. Any other database is copied in one step of SQLite's backup API.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Row as SqlRow, params_from_iter};

use super::kine::{position, row_digest};
use super::{DatabaseError, SharedDatabase, lock, open_scratch};
use crate::chain::{Chain, Link};
use crate::header::DatabaseKind;
use crate::revision::Revision;
use crate::row::{self, Cell, Row};
use crate::signing::Digest;

/// How long one ranged read may last. A tenth of what kine's users would notice, and small beside the budget
/// of 100 ms: the last row of a range may be a large one.
pub(super) const RANGE_TIME: Duration = Duration::from_millis(15);

/// How many bytes of rows are held in memory between a ranged read and its write.
pub(super) const RANGE_BYTES: usize = 1 << 20;

/// How often the copy is compared anew when compaction passes while it is compared.
const COMPARISONS: usize = 8;

/// How many ids one comparison reads in a transaction: about 10 ms.
const RANGE_IDS: i64 = 20_000;

pub(super) const ROWS_AFTER: &str = "SELECT * FROM kine WHERE id > ?1 ORDER BY id";

/// The one row that kine changes in place, if it is not among the rows after.
const COMPACT_ROW: &str = "SELECT * FROM kine WHERE name = 'compact_rev_key' AND id <= ?1";

const IDS_AFTER: &str = "SELECT id FROM kine WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3";

#[cfg(test)]
pub(super) const READS: [&str; 3] = [ROWS_AFTER, COMPACT_ROW, IDS_AFTER];

/// What a finished copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The newest revision in it; zero for a generic database.
    pub revision: Revision,
    /// What wrote it.
    pub kind: DatabaseKind,
    /// The digest of the newest row; `None` for a generic database.
    pub tip: Option<Digest>,
    /// The chain at its revision, if there was one to go on from.
    pub chain: Option<Chain>,
    /// When the newest row was read.
    pub taken: Instant,
}

/// Copies the database into the empty file `scratch`. The database is locked for one short read at a time. With `since`,
/// the chain is followed from there to the copy's revision. `go_on` is asked between the reads.
pub fn copy(
    database: &SharedDatabase,
    scratch: &Path,
    since: Option<Link>,
    go_on: &dyn Fn() -> bool,
) -> Result<Copied, DatabaseError> {
    let kind = lock(database).kind();
    match kind {
        DatabaseKind::Kine => copy_kine(database, scratch, since, go_on),
        DatabaseKind::Generic => {
            let database = lock(database);
            database.copy_generic(scratch)?;
            let taken = Instant::now();
            database.check_untorn()?;
            Ok(Copied { revision: Revision::ZERO, kind, tip: None, chain: None, taken })
        }
    }
}

fn copy_kine(
    database: &SharedDatabase,
    scratch: &Path,
    since: Option<Link>,
    go_on: &dyn Fn() -> bool,
) -> Result<Copied, DatabaseError> {
    let copy = KineCopy { path: scratch, connection: open_scratch(scratch).map_err(|e| failed(scratch, e))? };
    let source = Source { database, go_on };
    let schema = source.read(schema)?;
    copy.begin(&schema)?;
    let mut last = 0;
    while let Some(newest) = source.copy_range(&copy, last)? {
        last = newest;
    }
    for _ in 0..COMPARISONS {
        let compact = source.read(position)?.compact;
        source.drop_vanished(&copy, last)?;
        if let Some(revision) = source.copy_tail(&copy, &mut last, compact)? {
            let taken = Instant::now();
            let chain = match since {
                Some(since) if compact > since.revision => {
                    return Err(DatabaseError::Passed(lock(database).path.clone()));
                }
                Some(since) => Some(copy.chain(since)?),
                None => None,
            };
            copy.finish(&schema)?;
            let tip = row_digest(&copy.connection, revision).map_err(|error| failed(scratch, error))?;
            return Ok(Copied { revision, kind: DatabaseKind::Kine, tip, chain, taken });
        }
    }
    Err(DatabaseError::Restless(lock(database).path.clone()))
}

/// The database, locked for one read at a time.
struct Source<'d> {
    database: &'d SharedDatabase,
    go_on: &'d dyn Fn() -> bool,
}

impl Source<'_> {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        if !(self.go_on)() {
            return Err(DatabaseError::GivenUp);
        }
        lock(self.database).read(work)
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
            Ok(Some((rows, position.live)))
        })?;
        let Some((rows, live)) = tail else { return Ok(None) };
        copy.insert(&rows)?;
        copy.set_sequence(live)?;
        Ok(Some(live))
    }
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

/// A row with all its columns.
struct FullRow {
    id: i64,
    cells: Vec<Cell>,
}

impl FullRow {
    fn bytes(&self) -> usize {
        self.cells.iter().map(Cell::bytes).sum()
    }
}

fn full_row(row: &SqlRow<'_>) -> rusqlite::Result<FullRow> {
    let cells = (0..=row::COLUMNS).map(|column| Ok(row.get_ref(column)?.into()));
    Ok(FullRow { id: row.get(0)?, cells: cells.collect::<rusqlite::Result<_>>()? })
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
                statement.execute(params_from_iter(&row.cells))?;
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

    /// The chain, followed from `since` over the rows after it.
    fn chain(&self, since: Link) -> Result<Chain, DatabaseError> {
        let follow = || {
            let mut statement = self.connection.prepare(ROWS_AFTER)?;
            let mut found = statement.query([since.revision.to_sql()])?;
            let mut chain = since.chain;
            while let Some(row) = found.next()? {
                chain = chain.then(&Row::read(row)?.encode());
            }
            Ok(chain)
        };
        follow().map_err(|error| failed(self.path, error))
    }

    /// kine goes on counting from here, not from the newest row, which compaction may have dropped.
    fn set_sequence(&self, live: Revision) -> Result<(), DatabaseError> {
        self.write(|connection| {
            connection.execute("DELETE FROM sqlite_sequence WHERE name = 'kine'", [])?;
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('kine', ?1)", [live.to_sql()])
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
