//! A **kine-shaped database**: kine's table, its indexes and its habits (WAL, short immediate transactions, compaction
//! followed by a FULL checkpoint) without kine, for tests and the demo that need Rust alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OptionalExtension as _, params};

/// kine's schema (pkg/drivers/sqlite/sqlite.go).
pub const SCHEMA: &str = "
CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER,
  create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
CREATE INDEX kine_name_index ON kine (name);
CREATE INDEX kine_name_id_index ON kine (name,id);
CREATE INDEX kine_id_deleted_index ON kine (id,deleted);
CREATE INDEX kine_prev_revision_index ON kine (prev_revision);
CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);
INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
  VALUES ('compact_rev_key', 1, 0, 0, 0, 0, x'');";

/// kine's compaction of the rows superseded at or below a revision (pkg/drivers/generic).
pub const COMPACT: &str = "
DELETE FROM kine AS kv WHERE kv.id IN (
  SELECT kp.prev_revision FROM kine AS kp
    WHERE kp.name != 'compact_rev_key' AND kp.prev_revision != 0 AND kp.id <= ?1
  UNION SELECT kd.id FROM kine AS kd WHERE kd.deleted != 0 AND kd.id <= ?1)";

/// Revisions that compaction leaves, as kine's `--compact-min-retain` does.
const RETAIN: i64 = 100;

/// A key and its value, as it was acknowledged.
pub type Row = (String, Vec<u8>);

/// Makes a database with `keys` keys of `value_bytes` each, at rest.
pub fn create(path: &Path, keys: u32, value_bytes: usize) -> Result<()> {
    let connection = open(path)?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.execute_batch("BEGIN")?;
    for key in 0..keys {
        write(
            &connection,
            &format!("/registry/configmaps/default/first-{key:07}"),
            &value(key.into(), value_bytes),
        )?;
    }
    connection.execute_batch("COMMIT")?;
    // The last connection to close leaves neither -wal nor -shm, as kine does at its end.
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Creates or changes one key, as kine would; returns the revision.
pub fn put(path: &Path, key: &str, value: &[u8]) -> Result<i64> {
    write(&open(path)?, key, value)
}

/// Compacts history up to a revision.
pub fn compact_to(path: &Path, revision: i64) -> Result<()> {
    compact(&open(path)?, revision)
}

/// Every row but kine's own, by revision.
pub fn rows(path: &Path) -> Result<BTreeMap<i64, Row>> {
    let connection = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut select = connection.prepare(
        "SELECT id, name, value FROM kine WHERE name <> 'compact_rev_key' AND name NOT LIKE 'gap-%' AND deleted = 0",
    )?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What SQLite's own check says; `ok` if the database is sound.
pub fn integrity(path: &Path) -> Result<String> {
    let connection = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?)
}

/// A database under load.
pub struct Load {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeMap<i64, Row>>>,
    slowest: Arc<AtomicI64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts to write so many transactions a second. With `compacting`, history is compacted every second.
    pub fn start(path: &Path, rate: u32, value_bytes: usize, compacting: bool) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let slowest = Arc::new(AtomicI64::new(0));
        let thread = {
            let (path, stop, acknowledged) = (path.to_owned(), stop.clone(), acknowledged.clone());
            let slowest = slowest.clone();
            std::thread::spawn(move || {
                run(&path, rate, value_bytes, compacting, &stop, &acknowledged, &slowest)
            })
        };
        Self { path: path.to_owned(), stop, acknowledged, slowest, thread: Some(thread) }
    }

    /// Every write that was acknowledged so far, by revision.
    pub fn acknowledged(&self) -> BTreeMap<i64, Row> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The longest that one write took so far.
    pub fn slowest(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.slowest.load(Ordering::Relaxed)).unwrap_or(0))
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops after the write that is under way and closes the database, as kine does at SIGTERM.
    pub fn stop(mut self) -> Result<BTreeMap<i64, Row>> {
        self.end()?;
        Ok(self.acknowledged())
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => anyhow::bail!("the load panicked"),
            Some(Ok(result)) => result,
            None => Ok(()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A failed load fails the test by its rows; here only its end matters.
        let _ = self.end();
    }
}

fn run(
    path: &Path,
    rate: u32,
    value_bytes: usize,
    compacting: bool,
    stop: &AtomicBool,
    acknowledged: &Mutex<BTreeMap<i64, Row>>,
    slowest: &AtomicI64,
) -> Result<()> {
    let connection = open(path)?;
    let pause = Duration::from_secs(1) / rate.max(1);
    let (begin, mut number) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        // Three of four writes change a key that is there.
        let key = format!(
            "/registry/configmaps/default/load-{:05}",
            if number % 4 == 0 { number } else { number % 64 }
        );
        let value = value(number.into(), value_bytes);
        let before = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let revision = write(&connection, &key, &value)?;
        connection.execute_batch("COMMIT")?;
        let took = i64::try_from(before.elapsed().as_micros()).unwrap_or(i64::MAX);
        slowest.fetch_max(took, Ordering::Relaxed);
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(revision, (key, value));
        if compacting && number % rate.max(1) == 0 {
            compact(&connection, revision - RETAIN)?;
        }
        std::thread::sleep((begin + pause * number).saturating_duration_since(Instant::now()));
    }
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Creates or changes a key as kine does; returns the revision.
fn write(connection: &Connection, key: &str, value: &[u8]) -> Result<i64> {
    let known: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT id, CASE created WHEN 1 THEN id ELSE create_revision END FROM kine
             WHERE name = ?1 ORDER BY id DESC LIMIT 1",
        )?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (previous, create_revision) = known.unwrap_or((0, 0));
    connection
        .prepare_cached(
            "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value)
             SELECT ?1, ?2, 0, ?3, ?4, 0, ?5, (SELECT value FROM kine WHERE id = ?4)",
        )?
        .execute(params![key, known.is_none(), create_revision, previous, value])?;
    Ok(connection.last_insert_rowid())
}

fn compact(connection: &Connection, revision: i64) -> Result<()> {
    if revision <= 0 {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute(COMPACT, [revision])?;
    connection.execute("UPDATE kine SET prev_revision = ?1 WHERE name = 'compact_rev_key'", [revision])?;
    connection.execute_batch("COMMIT")?;
    connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?;
    Ok(())
}

/// Bytes that compress about as API objects do.
fn value(seed: u64, length: usize) -> Vec<u8> {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = Vec::with_capacity(length + 64);
    value.extend_from_slice(b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap");
    while value.len() < length {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value.extend_from_slice(b"app.kubernetes.io/managed-by: ");
        value.extend_from_slice(&mixed.to_le_bytes());
        mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
    value.truncate(length.max(16));
    value
}
