//! The **window** on one timeline: every revision that was captured in it, and the state at its beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Keeping, Point, Reason};
use crate::catalogue::{Fork, History};
use crate::clock::Moment;
use crate::revision::Revision;

/// The window's parts, of which each keeps a snapshot: days, if it is a week. Without them the log could never be cut, for
/// the calendar may keep no snapshot but the first and the newest. They do not move with the window, so two that prune at
/// once agree on them.
const PARTS: u32 = 7;

/// Of two writers the second may have gone on so long: a snapshot may be its.
const SECOND: Duration = Duration::from_mins(1);

/// Keeps what the window needs, which is `length` long and begins at `from`.
pub(super) fn keep(keeping: &mut Keeping<'_>, from: Moment, length: Duration) {
    let history = keeping.history;
    let fork = history.fork();
    let sevenths = sevenths(history, length, fork);
    let Some(begin) = begin(history, &sevenths, from) else { return };
    keeping.is_forked = fork.is_some_and(|fork| begin.1 <= fork.until.plus(SECOND));
    keeping.rows.push((begin.0, Revision::from(u64::MAX), Reason::Window));
    keeping.files.push((begin.1, Moment::from_millis(i64::MAX)));
    let mut reached: Option<Revision> = None;
    for point in history.snapshots.range(begin..).map(|(point, _)| *point) {
        // Without revisions (of a database that is not kine's) nothing leads from one snapshot to another.
        let is_led_to = reached.is_some_and(|reached| point.0 <= reached) && point.0 > Revision::ZERO;
        if !is_led_to {
            keeping.snapshot(point, Reason::Window);
            let end = history.chain(point.0).last().map_or(point.0, |segment| segment.to);
            reached = reached.max(Some(end));
        }
        if keeping.is_forked {
            keeping.snapshot(point, Reason::Forked);
        }
        if sevenths.contains_key(&point) {
            keeping.snapshot(point, Reason::Seventh);
        }
    }
}

/// The newest snapshot of each part of the time, and whether the store took it when it says.
fn sevenths(history: &History, length: Duration, fork: Option<Fork>) -> BTreeMap<Point, bool> {
    let part = i64::try_from((length / PARTS).as_millis()).unwrap_or(i64::MAX).max(1);
    let mut newest: BTreeMap<i64, (bool, Point)> = BTreeMap::new();
    for (point, stored) in &history.snapshots {
        // A snapshot of the one that stopped leads to nothing that the other wrote.
        let is_of_either = fork.is_some_and(|fork| point.0 > fork.from && point.1 <= fork.until.plus(SECOND));
        if !is_of_either {
            let candidate = (stored.is_prompt(point.1), *point);
            let of_part = newest.entry(point.1.millis().div_euclid(part)).or_insert(candidate);
            *of_part = candidate.max(*of_part);
        }
    }
    newest.into_values().map(|(is_prompt, point)| (point, is_prompt)).collect()
}

/// The snapshot that a restore of the window's beginning begins with: one that every row which may have been captured in the
/// window comes after.
fn begin(history: &History, sevenths: &BTreeMap<Point, bool>, from: Moment) -> Option<Point> {
    let in_window = history.segments.iter().filter(|segment| segment.captured > from);
    let first = in_window.map(|segment| segment.from).min();
    let leads = |point: &Point| point.1 <= from && first.is_none_or(|first| point.0 <= first);
    let newest =
        sevenths.iter().filter(|(point, _)| leads(point)).max_by_key(|(point, prompt)| (**prompt, **point));
    newest.map(|(point, _)| *point).or_else(|| history.snapshots.first_key_value().map(|(point, _)| *point))
}
