//! The **change feed**: what kine has written since a revision, in short reads.

use std::time::Instant;

use rusqlite::Connection;

use super::copy::{RANGE_BYTES, RANGE_TIME, ROWS_AFTER};
use super::kine::{COMPACT_REVISION, goes_on_from};
use super::{Database, DatabaseError};
use crate::revision::Revision;
use crate::row::Row;
use crate::signing::Digest;

/// The names alone: a value may be long.
const NAMES_AFTER: &str = "SELECT id, name FROM kine WHERE id > ?1 ORDER BY id";

#[cfg(test)]
pub(super) const READS: [&str; 1] = [NAMES_AFTER];

/// What a control plane writes when nobody does anything: who is alive, and what it noticed. A user misses none of it.
const IDLE: [&[u8]; 4] =
    [b"/registry/leases/", b"/registry/masterleases/", b"/registry/peerserverleases/", b"/registry/events/"];

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Leases and events alone, up to this revision.
    Idle(Revision),
    /// Something else, or so much that it is not looked through.
    Busy,
}

/// One read of the feed.
#[derive(Debug)]
pub enum Feed {
    /// Rows after the revision, as many as one short read gives; none if there is nothing new.
    Rows {
        /// In order.
        rows: Vec<Row>,
        /// Whether the read was ended before the last.
        cut: bool,
    },
    /// The database does not go on from that revision, or compaction has passed it: rows may be missing.
    Broken,
}

impl Database {
    /// What rows after `revision` are of.
    pub fn news_after(&self, revision: Revision) -> Result<News, DatabaseError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(NAMES_AFTER)?;
            let mut found = statement.query([revision.to_sql()])?;
            let (mut newest, began) = (revision, Instant::now());
            while let Some(row) = found.next()? {
                let name = row.get_ref(1)?.as_bytes().unwrap_or_default();
                let is_idle = IDLE.iter().any(|prefix| name.starts_with(prefix));
                if !is_idle || began.elapsed() > RANGE_TIME {
                    return Ok(News::Busy);
                }
                newest = Revision::from_sql(row.get(0)?);
            }
            Ok(News::Idle(newest))
        })
    }

    /// Rows after `revision`, whose row has the digest `tip`.
    pub fn feed(&self, revision: Revision, tip: Digest) -> Result<Feed, DatabaseError> {
        self.read(|connection| {
            if !goes_on_from(connection, revision, tip)? {
                return Ok(Feed::Broken);
            }
            rows_after(connection, revision)
        })
    }

    /// Further rows after `revision`, up to which all were read a moment ago.
    pub fn feed_further(&self, revision: Revision) -> Result<Feed, DatabaseError> {
        self.read(|connection| {
            let compact: i64 =
                connection.prepare_cached(COMPACT_REVISION)?.query_row([], |row| row.get(0))?;
            if Revision::from_sql(compact) > revision {
                return Ok(Feed::Broken);
            }
            rows_after(connection, revision)
        })
    }
}

fn rows_after(connection: &Connection, revision: Revision) -> rusqlite::Result<Feed> {
    let began = Instant::now();
    let mut statement = connection.prepare_cached(ROWS_AFTER)?;
    let mut found = statement.query([revision.to_sql()])?;
    let (mut rows, mut bytes, mut cut) = (Vec::new(), 0, false);
    while let Some(row) = found.next()? {
        let row = Row::read(row)?;
        bytes += row.bytes();
        rows.push(row);
        if bytes > RANGE_BYTES || began.elapsed() > RANGE_TIME {
            cut = true;
            break;
        }
    }
    Ok(Feed::Rows { rows, cut })
}
