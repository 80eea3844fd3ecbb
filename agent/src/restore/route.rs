//! The **route**: segments that were verified to lead on from one another, and their rows applied.
//!
//! Names alone do not prove that one segment goes on from another: two writers may have written to one timeline, an object
//! may be damaged or forged. The [chain](crate::chain) does.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::path::Path;

use rusqlite::{Connection, params_from_iter};

use super::Keys;
use super::assembly::AssemblyError;
use super::fetch;
use super::plan::{Limit, Plan};
use crate::capture::blocking;
use crate::catalogue::{RestorePoint, Segment};
use crate::chain::Link;
use crate::envelope::OpenError;
use crate::object_name::ObjectName;
use crate::progress::Progress;
use crate::row::{self, Row};
use crate::segment::{self, Step};
use crate::store::{Store, StoreError};
use crate::timeline::Timeline;

/// Why a segment does not lead on.
enum Fault {
    Open(OpenError),
    Apply(rusqlite::Error),
    Unlinked,
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl Fault {
    fn of(self, key: &str, scratch: &Path) -> AssemblyError {
        match self {
            Self::Open(source) => AssemblyError::Object { key: key.to_owned(), source },
            Self::Apply(source) => AssemblyError::Sqlite { path: scratch.to_owned(), source },
            Self::Unlinked => AssemblyError::Unlinked { key: key.to_owned() },
        }
    }
}

/// Reads a fetched segment to its end without applying it: the digest and the signature come last. Returns the link at
/// its end, if it leads on from `reached`.
pub(super) fn verify(
    timeline: Timeline,
    segment: &Segment,
    file: &mut File,
    keys: &Keys,
    reached: Link,
) -> Result<Link, AssemblyError> {
    let (mut is_linked, mut end) = (false, reached);
    let result = read(&segment.name(timeline), file, keys, &mut |step| {
        let Step::Row(row, chain) = step else { return Ok(()) };
        if row.revision == reached.revision {
            is_linked = chain == reached.chain;
        }
        end = Link { revision: row.revision, chain };
        Ok(())
    });
    let result = result.and_then(|header| {
        let begins_here = segment.from == reached.revision && header.parent == Some(reached.chain);
        if begins_here || is_linked { Ok(end) } else { Err(Fault::Unlinked) }
    });
    result.map_err(|fault| fault.of(&segment.stored.key, Path::new("")))
}

/// Applies the rows of a verified segment after `reached` that count. Returns the point that is reached.
pub(super) fn apply(
    connection: &Connection,
    timeline: Timeline,
    segment: &Segment,
    file: &mut File,
    keys: &Keys,
    reached: RestorePoint,
    limit: Limit,
) -> Result<RestorePoint, AssemblyError> {
    let (mut point, mut captured, mut over) = (reached, reached.captured, false);
    let apply = |row: &Row| connection.prepare_cached(row::APPLY)?.execute(params_from_iter(&row.cells));
    let applied = connection.execute_batch("BEGIN").map_err(Fault::Apply).and_then(|()| {
        read(&segment.name(timeline), file, keys, &mut |step| {
            match step {
                Step::Captured(moment) => {
                    captured = moment;
                    over |= matches!(limit, Limit::Moment(limit) if moment > limit);
                }
                Step::Row(row, _) if row.revision <= reached.revision || over => {}
                Step::Row(row, _) if matches!(limit, Limit::Revision(limit) if row.revision > limit) => {
                    over = true;
                }
                Step::Row(row, _) => {
                    apply(&row).map_err(Fault::Apply)?;
                    point = RestorePoint { revision: row.revision, captured };
                }
            }
            Ok(())
        })?;
        connection.execute_batch("COMMIT").map_err(Fault::Apply)
    });
    let path = connection.path().unwrap_or_default();
    applied.map_err(|fault| fault.of(&segment.stored.key, Path::new(path)))?;
    Ok(point)
}

fn read(
    name: &ObjectName,
    file: &mut File,
    keys: &Keys,
    each: &mut dyn FnMut(Step) -> Result<(), Fault>,
) -> Result<crate::header::Header, Fault> {
    file.rewind().map_err(OpenError::Io)?;
    segment::read(name, BufReader::new(file), &keys.identities, &keys.signers, each)
}

/// Searches the segments for the route from `start` to where the timeline ends, or to what was captured last on the way:
/// needed only where the one that the names suggest is bad, or where two writers went on from the same point.
pub(super) async fn search<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    keys: &Keys,
    start: Link,
    folder: &Path,
    progress: &Progress,
) -> Result<Vec<Segment>, AssemblyError> {
    let goal = plan.fork().or(plan.segments.last());
    let candidates = |reached: Link| -> Vec<Segment> {
        // Taken from the end: those that reach furthest first.
        plan.segments_after(reached.revision).into_iter().rev().cloned().collect()
    };
    let (mut best, mut path): (Vec<Segment>, Vec<(Segment, Link)>) = (Vec::new(), Vec::new());
    // Depth first: for each place on the path, what has not been tried from there. Two ways to one link are the same.
    let (mut untried, mut seen) = (vec![candidates(start)], HashSet::from([start]));
    while let Some(here) = untried.last_mut() {
        let Some(segment) = here.pop() else {
            untried.pop();
            path.pop();
            continue;
        };
        let reached = path.last().map_or(start, |(_, link)| *link);
        let mut file = match fetch::one(store, &segment, folder.to_owned(), progress).await {
            Err(AssemblyError::Store(StoreError::NotFound(_))) => continue,
            file => file?,
        };
        let (timeline, keys, candidate) = (plan.timeline, keys.clone(), segment.clone());
        let verified = blocking(move || verify(timeline, &candidate, &mut file, &keys, reached)).await;
        let Some(end) = verified.ok().filter(|end| seen.insert(*end)) else { continue };
        path.push((segment, end));
        let key = |segment: &Segment| (segment.captured, segment.to);
        let last = path.last().map(|(segment, _)| key(segment));
        if best.last().map(key) < last {
            best = path.iter().map(|(segment, _)| segment.clone()).collect();
        }
        if last >= goal.map(key) {
            break;
        }
        untried.push(candidates(end));
    }
    Ok(best)
}
