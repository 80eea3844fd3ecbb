//! A **random kine history** on a real database: keys made, changed, deleted and made again, and history compacted, all
//! as kine does it and as a seed says; and what a Kubernetes client would see of it at any revision.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use vcluster_backup_tests::kine_shaped::{COMPACT, SCHEMA};

use super::random::Random;

/// kine's insert: the old value is the one of the row before.
const INSERT: &str = "
INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value)
  SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, (SELECT value FROM kine WHERE id = ?5)";

/// The row with the highest revision speaks for its key: beside max(), SQLite takes the other columns from that row.
const STATE: &str = "
SELECT name, max(id), CASE created WHEN 1 THEN id ELSE create_revision END, value, deleted FROM kine
  WHERE id <= ?1 AND name <> 'compact_rev_key' AND name NOT LIKE 'gap-%' GROUP BY name";

/// Keys of which the agent makes no haste.
const IDLE_KEYS: [&str; 4] = [
    "/registry/leases/kube-node-lease/node-",
    "/registry/masterleases/10.0.0.",
    "/registry/peerserverleases/",
    "/registry/events/default/pod.17d",
];

/// What comes after `/registry/configmaps/default/` in keys that SQL, lines or patterns may stumble over. No NUL: SQL
/// text cannot hold one, nor can a name of Kubernetes.
const ODD: [&str; 15] = [
    "it's",
    "''",
    "\"double\"",
    "'); DROP TABLE kine; --",
    "-- sha256: 0",
    "line\nbreak\r\n-- captured: 2026-11-24T14:05:00.000Z",
    "COMMIT;\nBEGIN;",
    "back\\slash",
    "per%cent_under",
    "tab\there",
    "ünï-名前-🦀",
    "e\u{301}",
    "\u{feff}bom",
    "",
    "gap-5",
];

/// Keys that only look as if they were among [`IDLE_KEYS`].
const NEARLY_IDLE: [&str; 3] = ["/registry/leasesx/a", "/registry/events", "/Registry/leases/a"];

const KEYS: usize = 40;

/// By key: mod revision, create revision, value.
pub type State = BTreeMap<String, (i64, i64, Vec<u8>)>;

/// A row of table kine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub created: i64,
    pub deleted: i64,
    pub create_revision: i64,
    pub prev_revision: i64,
    pub lease: i64,
    pub value: Option<Vec<u8>>,
    pub old_value: Option<Vec<u8>>,
}

/// What a step did; with its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Created(i64),
    Updated(i64),
    Deleted(i64),
    Recreated(i64),
    /// The compact revision.
    Compacted(i64),
    /// There was nothing to compact.
    Nothing,
}

/// Which keys a write may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    All,
    /// Leases and events.
    Idle,
    /// All others.
    Busy,
}

/// A kine that does what a seed says.
pub struct History {
    connection: Connection,
    random: Random,
    /// Those of [`IDLE_KEYS`] first.
    keys: Vec<String>,
    idle: usize,
}

impl History {
    /// Makes a database in WAL mode that holds nothing but kine's own row.
    pub fn create(path: &Path, seed: u64) -> Self {
        let history = Self::go_on(path, seed);
        history.connection.execute_batch(SCHEMA).unwrap();
        history
    }

    /// Opens a database that is there, as after a restore.
    pub fn go_on(path: &Path, seed: u64) -> Self {
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        // Nothing here outlives the test: no fsync.
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
        let mut keys: Vec<String> = Vec::new();
        for prefix in IDLE_KEYS {
            keys.extend((0..4).map(|number| format!("{prefix}{number}")));
        }
        let idle = keys.len();
        keys.extend(ODD.map(|odd| format!("/registry/configmaps/default/{odd}")));
        keys.extend(NEARLY_IDLE.map(str::to_owned));
        let plain = KEYS - keys.len();
        keys.extend((0..plain).map(|number| format!("/registry/secrets/default/key-{number}")));
        Self { connection, random: Random::new(seed), keys, idle }
    }

    /// The connection that writes. It is in no transaction.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// All keys that are ever written.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        revision(&self.connection)
    }

    /// What a client sees now.
    pub fn state(&self) -> State {
        state(&self.connection, None)
    }

    /// A write, or of fifty steps one a compaction that leaves 0 to 49 revisions.
    pub fn step(&mut self) -> Step {
        if self.random.happens(20) {
            let retain = self.random.below(50);
            self.compact(i64::try_from(retain).unwrap())
        } else {
            self.write(Among::All)
        }
    }

    /// So many of [`Self::step`].
    pub fn steps(&mut self, count: usize) -> Vec<Step> {
        (0..count).map(|_| self.step()).collect()
    }

    /// Creates, changes or deletes one key.
    pub fn write(&mut self, among: Among) -> Step {
        let keys = match among {
            Among::All => 0..self.keys.len(),
            Among::Idle => 0..self.idle,
            Among::Busy => self.idle..self.keys.len(),
        };
        let index = keys.start + self.random.below(keys.len());
        let name = self.keys[index].clone();
        let lease = if index < self.idle { i64::try_from(self.random.below(3600)).unwrap() } else { 0 };
        let value = self.value();
        let newest: Option<(i64, i64, i64, i64, Vec<u8>)> = self
            .connection
            .prepare_cached(
                "SELECT id, created, deleted, create_revision, value FROM kine WHERE name = ?1
                 ORDER BY id DESC LIMIT 1",
            )
            .unwrap()
            .query_row([&name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
            .optional()
            .unwrap();
        let insert = |created: i64, deleted: i64, create: i64, prev: i64, value: &[u8]| -> i64 {
            self.connection
                .prepare_cached(INSERT)
                .unwrap()
                .execute(params![name, created, deleted, create, prev, lease, value])
                .unwrap();
            self.connection.last_insert_rowid()
        };
        match newest {
            None => Step::Created(insert(1, 0, 0, 0, &value)),
            Some((tombstone, _, 1, ..)) => Step::Recreated(insert(1, 0, 0, tombstone, &value)),
            Some((id, created, _, create, old)) => {
                let create: i64 = if created == 1 { id } else { create };
                if self.random.happens(300) {
                    Step::Deleted(insert(0, 1, create, id, &old))
                } else {
                    Step::Updated(insert(0, 0, create, id, &value))
                }
            }
        }
    }

    /// Compacts all but the newest `retain` revisions. Every other time a FULL checkpoint follows, as in kine.
    pub fn compact(&mut self, retain: i64) -> Step {
        let target = self.revision() - retain;
        if target <= compact_revision(&self.connection) {
            return Step::Nothing;
        }
        compact_at(&self.connection, target);
        if self.random.happens(500) {
            self.connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
        }
        Step::Compacted(target)
    }

    /// The row with which kine fills a revision that was skipped, and a restore bumps it.
    pub fn gap(&mut self, revision: i64) {
        self.connection
            .execute(
                "INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
                 VALUES (?1, 'gap-' || ?1, 0, 1, 0, 0, 0, NULL, NULL)",
                [revision],
            )
            .unwrap();
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(10) {
            0 => Vec::new(),
            1 => b"it's \"quoted\"\0; --\n\\x'00'\r\n".to_vec(),
            _ => {
                let length = 8 + self.random.below(57);
                self.random.bytes(length)
            }
        }
    }
}

/// What a client sees at a revision, or now. Right for revisions that are not below the compact revision.
pub fn state(connection: &Connection, at: Option<i64>) -> State {
    let mut select = connection.prepare_cached(STATE).unwrap();
    let mut rows = select.query([at.unwrap_or(i64::MAX)]).unwrap();
    let mut state = State::new();
    while let Some(row) = rows.next().unwrap() {
        if row.get::<_, i64>(4).unwrap() == 0 {
            let seen = (row.get(1).unwrap(), row.get(2).unwrap(), row.get(3).unwrap());
            state.insert(row.get(0).unwrap(), seen);
        }
    }
    state
}

/// Every row but kine's own `compact_rev_key`, which is changed in place, by revision.
pub fn rows(connection: &Connection) -> BTreeMap<i64, Row> {
    let mut select = connection
        .prepare_cached(
            "SELECT id, name, created, deleted, create_revision, prev_revision, lease, value, old_value FROM kine
             WHERE name <> 'compact_rev_key'",
        )
        .unwrap();
    let rows = select.query_map([], |row| {
        Ok((
            row.get(0)?,
            Row {
                name: row.get(1)?,
                created: row.get(2)?,
                deleted: row.get(3)?,
                create_revision: row.get(4)?,
                prev_revision: row.get(5)?,
                lease: row.get(6)?,
                value: row.get(7)?,
                old_value: row.get(8)?,
            },
        ))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// The newest revision.
pub fn revision(connection: &Connection) -> i64 {
    connection.query_row("SELECT max(id) FROM kine", [], |row| row.get(0)).unwrap()
}

/// Up to where history was compacted; 0 if never.
pub fn compact_revision(connection: &Connection) -> i64 {
    connection
        .query_row("SELECT prev_revision FROM kine WHERE name = 'compact_rev_key'", [], |row| row.get(0))
        .unwrap()
}

/// kine's compaction at a revision. A restored database may hold history that the original has dropped; after this
/// it holds none below.
pub fn compact_at(connection: &Connection, revision: i64) {
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection.prepare_cached(COMPACT).unwrap().execute([revision]).unwrap();
    connection
        .execute("UPDATE kine SET prev_revision = ?1 WHERE name = 'compact_rev_key'", [revision])
        .unwrap();
    connection.execute_batch("COMMIT").unwrap();
}
