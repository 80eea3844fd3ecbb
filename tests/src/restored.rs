//! A **restored** database, read without kine: its keys as kine would list them, to compare with what was written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection;

use crate::history::{Entry, History};
use crate::kine_shaped;
use crate::site::{IDENTITY_FILE, Site};
use crate::writer;

/// The newest row of each key under a prefix that is not deleted. What makes a key is at its own revision, which
/// kine does not write twice (pkg/server: create_revision of a created row).
const ALIVE: &str = "
SELECT name, value, CASE created WHEN 1 THEN id ELSE create_revision END, id FROM kine AS newest
WHERE substr(name, 1, length(?1)) = ?1 AND deleted = 0
  AND id = (SELECT max(id) FROM kine WHERE name = newest.name)";

/// What a restore gave.
pub struct Restored {
    /// Where it is.
    pub path: PathBuf,
    /// The newest revision that it holds, but for the gap above it.
    pub revision: i64,
    /// The writer's keys.
    pub keys: BTreeMap<String, Entry>,
}

impl Restored {
    /// Restores a point, as `["--revision", "7"]`; to `name`, in place of what was restored there before.
    pub async fn point(site: &Site, name: &str, point: &[&str]) -> Result<Self> {
        let to = ["restore", "--output", name, "--identity-file", IDENTITY_FILE];
        let path = site.path(name);
        if path.exists() {
            std::fs::remove_file(&path).context("cannot remove what was restored before")?;
        }
        site.run(&[&to, point].concat()).await.with_context(|| format!("restore {}", point.join(" ")))?;
        Self::read(&path)
    }

    /// Restores a revision.
    pub async fn revision(site: &Site, name: &str, revision: i64) -> Result<Self> {
        Self::point(site, name, &["--revision", &revision.to_string()]).await
    }

    /// Reads a database that was restored, however that was done.
    pub fn read(path: &Path) -> Result<Self> {
        let verdict = kine_shaped::integrity(path)?;
        ensure!(verdict == "ok", "{}: {verdict}", path.display());
        let connection = Connection::open(path)?;
        let mut alive = connection.prepare(ALIVE)?;
        let keys = alive.query_map([writer::PREFIX], |row| {
            let (value, create_revision, mod_revision) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get(0)?, Entry { value, create_revision, mod_revision }))
        })?;
        let keys = keys.collect::<Result<_, _>>()?;
        let newest = "SELECT max(id) FROM kine WHERE name NOT LIKE 'gap-%'";
        let revision = connection.query_row(newest, [], |row| row.get(0))?;
        Ok(Self { path: path.to_owned(), revision, keys })
    }

    /// Fails unless it is the database as of this revision, to the byte and to the key.
    pub fn is_exactly(&self, history: &History, revision: i64) -> Result<()> {
        let wrong = history.differences(revision, &self.keys);
        ensure!(
            wrong.is_empty(),
            "restored at revision {revision}, it holds up to {}; {} keys are wrong: {:#?}",
            self.revision,
            wrong.len(),
            &wrong[..wrong.len().min(10)]
        );
        ensure!(self.revision == revision, "restored at revision {revision}, it is at {}", self.revision);
        Ok(())
    }
}

/// Restores each of these revisions; fails unless each comes back exactly.
pub async fn every_one(site: &Site, history: &History, revisions: &[i64]) -> Result<()> {
    for revision in revisions {
        Restored::revision(site, "restored.db", *revision).await?.is_exactly(history, *revision)?;
    }
    Ok(())
}

/// The first and the last revision that the bucket can give back, which must hold one timeline.
pub async fn range(site: &Site) -> Result<(i64, i64)> {
    match ranges(site).await?[..] {
        [range] => Ok(range),
        ref other => anyhow::bail!("{} timelines in place of one: {other:?}", other.len()),
    }
}

/// The first and the last revision of each timeline, the oldest timeline first.
pub async fn ranges(site: &Site) -> Result<Vec<(i64, i64)>> {
    let listing = site.run(&["list", "--json"]).await?.json()?;
    let timelines = listing["timelines"].as_array().context("list tells no timelines")?;
    let range = |timeline: &serde_json::Value| {
        let end = |end: &str| timeline["restorable"][end]["revision"].as_i64();
        end("from").zip(end("to")).with_context(|| format!("list tells no range: {timeline:#}"))
    };
    timelines.iter().map(range).collect()
}
