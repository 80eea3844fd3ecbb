//! **Retention**: what is kept of a backup. Pure: a catalogue and the rules go in, a [`Plan`] comes out that judges every
//! object and says why. A dry run prints it, `prune` carries it out.
//!
//! ```text
//!      kept by the calendar           the window: every revision
//!  ────●──────────●─────────●────╂──●━━━━━━●━━━━━━●━━━━━━●━━━━━━▶ newest capture
//!    monthly    weekly    daily  │  the log, and a snapshot of each seventh
//!                              from
//! ```
//!
//! All times are those in names, counted back from the newest capture and never from now: a cluster asleep for a month
//! keeps its backups. Names are not signed, so what one claims must fit what the store says of it: a snapshot that was
//! taken long after the time in its name takes no other's place ([`Stored::is_prompt`]), and none is so new that it moves
//! the window beyond what the store last took.
//!
//! What is kept suffices for itself: whatever of the rest is deleted, and in whatever order, every kept point can be
//! restored. So a deletion may be broken off anywhere.

mod calendar;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::catalogue::{Catalogue, History, Stored};
use crate::clock::Moment;
use crate::object_name::ObjectName;
use crate::pin::PinName;
use crate::revision::Revision;
use crate::timeline::Timeline;

/// What leads nowhere is left alone so long: what it belongs to may be under way. So is what a merged segment replaces,
/// for restores that were planned before.
const YOUNG: Duration = Duration::from_mins(10);

/// The rules. The window is counted back from the newest capture, not from now: a cluster asleep for a month
/// keeps its backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Every revision stays restorable this far back.
    pub window: Duration,
    /// So many newest snapshots.
    pub last: u32,
    /// One snapshot of each of so many hours.
    pub hourly: u32,
    /// One of each of so many days.
    pub daily: u32,
    /// One of each of so many weeks.
    pub weekly: u32,
    /// One of each of so many months.
    pub monthly: u32,
}

/// What a pin's keep-until says. One that is not told of is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// Its point is kept.
    InForce,
    /// Its time is over.
    Over,
    /// Its time is over, but the configuration still asks for it: it stays as the sign that it was made once.
    Asked,
}

/// The pins that are not in force.
pub type Pins = BTreeMap<(Timeline, PinName), PinState>;

/// Why an object is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is one of the newest snapshots.
    Last,
    /// It is the newest of its hour.
    Hourly,
    /// Of its day.
    Daily,
    /// Of its week.
    Weekly,
    /// Of its month.
    Monthly,
    /// A revision in the window needs it.
    Window,
    /// The newest of a seventh of the window, so that the log before it can go once the window has passed it.
    Seventh,
    /// Two agents wrote here: names do not tell what is whose.
    Forked,
    /// A pin in force needs it.
    Pinned(PinName),
    /// A pin whose time is over and that the configuration still asks for.
    Asked,
    /// Files of a point that is kept.
    Files,
    /// What it belongs to may be under way.
    Young,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Window => "window",
            Self::Seventh => "one of each seventh of the window",
            Self::Forked => "two agents wrote here",
            Self::Pinned(name) => return write!(f, "pin {name}"),
            Self::Asked => "pin is over, and still in the configuration",
            Self::Files => "files of a kept point",
            Self::Young => "may be under way",
        })
    }
}

/// Why an object is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surplus {
    /// No rule keeps the snapshot.
    NoRule,
    /// A merged segment holds it.
    Merged,
    /// It leads to no revision that is kept.
    Before,
    /// The files of no point that is kept.
    Files,
    /// The pin's time is over.
    Over,
    /// A later pin has its name.
    Renewed,
    /// Its timeline has no snapshot.
    Orphan,
}

impl fmt::Display for Surplus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "no rule keeps it",
            Self::Merged => "merged into another",
            Self::Before => "leads to nothing that is kept",
            Self::Files => "files of no kept point",
            Self::Over => "the pin's time is over",
            Self::Renewed => "a later pin has this name",
            Self::Orphan => "no snapshot to begin with",
        })
    }
}

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept, for at least one reason.
    Keep(BTreeSet<Reason>),
    /// It is deleted.
    Delete(Surplus),
}

/// An object and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The object.
    pub name: ObjectName,
    /// Its size; 0 for a pin.
    pub bytes: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What is kept and what is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Where the window begins; `None` if nothing was captured.
    pub from: Option<Moment>,
    /// Every object of every timeline. What this program does not know is not among it.
    pub objects: Vec<Judged>,
}

impl Plan {
    /// What is deleted, in this order: what leads to a point goes before the point, the far end of a log before its
    /// beginning. Broken off anywhere, it leaves no gap in what was to go.
    pub fn deletions(&self) -> Vec<&Judged> {
        let is_deleted = |judged: &&Judged| matches!(judged.verdict, Verdict::Delete(_));
        let mut deletions: Vec<&Judged> = self.objects.iter().filter(is_deleted).collect();
        deletions.sort_by_key(|judged| match judged.name {
            ObjectName::Pin { captured, .. } => (0, std::cmp::Reverse(captured.millis())),
            ObjectName::Segment { to, .. } => (1, std::cmp::Reverse(to.to_sql())),
            ObjectName::Files { captured, .. } => (2, std::cmp::Reverse(captured.millis())),
            ObjectName::Snapshot { captured, .. } => (3, std::cmp::Reverse(captured.millis())),
            _ => (4, std::cmp::Reverse(0)),
        });
        deletions
    }

    /// The oldest snapshot of a timeline that is kept.
    pub fn oldest(&self, timeline: Timeline) -> Option<Moment> {
        let kept = self.objects.iter().filter(|judged| matches!(judged.verdict, Verdict::Keep(_)));
        let captured = kept.filter_map(|judged| match judged.name {
            ObjectName::Snapshot { timeline: of, captured, .. } if of == timeline => Some(captured),
            _ => None,
        });
        captured.min()
    }
}

/// Judges every object of the catalogue.
pub fn plan(catalogue: &Catalogue, rules: &Retention, pins: &Pins) -> Plan {
    let Some(newest) = newest(catalogue) else { return Plan::default() };
    let from = newest.minus(rules.window);
    let chosen = calendar::choose(catalogue, rules, newest);
    // The state at the window's beginning lies on the newest timeline that had begun by then.
    let begun = |history: &History| history.snapshots.keys().any(|(_, captured)| *captured <= from);
    let opening = catalogue.timelines.iter().rev().find(|(_, history)| begun(history));
    let ending = catalogue.timelines.iter().rev().find(|(_, history)| !history.snapshots.is_empty());
    let mut objects = Vec::new();
    for (timeline, history) in &catalogue.timelines {
        let mut keeping = Keeping::new(*timeline, history);
        keeping.snapshots.extend(chosen.get(timeline).cloned().unwrap_or_default());
        let is_end = |end: Option<(&Timeline, &History)>| end.is_some_and(|(end, _)| end == timeline);
        if captures(history).any(|(captured, _)| captured > from) || is_end(opening) || is_end(ending) {
            window::keep(&mut keeping, from, rules.window);
        }
        for (name, (revision, captured)) in &history.pins {
            if !pins.contains_key(&(*timeline, name.clone())) {
                keeping.pin(name, *revision, *captured);
            }
        }
        keeping.judge(newest, pins, &mut objects);
    }
    Plan { from: Some(from), objects }
}

/// When each snapshot and segment was captured.
fn captures(history: &History) -> impl Iterator<Item = (Moment, &Stored)> {
    let snapshots = history.snapshots.iter().map(|((_, captured), stored)| (*captured, stored));
    snapshots.chain(history.segments.iter().map(|segment| (segment.captured, &segment.stored)))
}

/// The newest capture; not later than the store took anything, whatever a name claims.
fn newest(catalogue: &Catalogue) -> Option<Moment> {
    let all = || catalogue.timelines.values().flat_map(captures);
    let captured = all().map(|(captured, _)| captured).max()?;
    let taken = all().filter_map(|(_, stored)| stored.taken).max();
    Some(taken.map_or(captured, |taken| taken.min(captured)))
}

/// A snapshot's place in a history.
type Point = (Revision, Moment);

/// What of one timeline is kept so far.
struct Keeping<'c> {
    timeline: Timeline,
    history: &'c History,
    snapshots: BTreeMap<Point, BTreeSet<Reason>>,
    /// Rows after the first revision up to the second are needed, and why.
    rows: Vec<(Revision, Revision, Reason)>,
    /// Archives of files between these moments are needed.
    files: Vec<(Moment, Moment)>,
    /// Names do not tell which of its segments replace others.
    is_forked: bool,
}

impl<'c> Keeping<'c> {
    fn new(timeline: Timeline, history: &'c History) -> Self {
        let is_forked = history.is_forked();
        let (snapshots, rows, files) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { timeline, history, snapshots, rows, files, is_forked }
    }

    fn snapshot(&mut self, point: Point, reason: Reason) {
        self.snapshots.entry(point).or_default().insert(reason);
    }

    /// Keeps all that a restore of a pin needs: it begins at the newest snapshot before.
    fn pin(&mut self, name: &PinName, revision: Revision, captured: Moment) {
        let up_to = ..=(revision, Moment::from_millis(i64::MAX));
        let mut before = self.history.snapshots.range(up_to).rev().map(|(point, _)| *point);
        let Some(begin) = before.find(|(_, taken)| *taken <= captured) else { return };
        self.snapshot(begin, Reason::Pinned(name.clone()));
        self.files.push((begin.1, captured));
        if begin.0 < revision {
            self.rows.push((begin.0, revision, Reason::Pinned(name.clone())));
            self.is_forked |= self.history.is_forked();
        }
    }

    fn judge(mut self, newest: Moment, pins: &Pins, objects: &mut Vec<Judged>) {
        let (timeline, history) = (self.timeline, self.history);
        let is_orphaned = history.snapshots.is_empty();
        let young = newest.minus(YOUNG);
        let mut judge = |name, bytes, captured: Moment, reasons: BTreeSet<Reason>, surplus| {
            let verdict = match () {
                () if !reasons.is_empty() => Verdict::Keep(reasons),
                () if is_orphaned && captured > young => Verdict::Keep([Reason::Young].into()),
                () if is_orphaned => Verdict::Delete(Surplus::Orphan),
                () => Verdict::Delete(surplus),
            };
            objects.push(Judged { name, bytes, verdict });
        };
        let needed = self.needed_files();
        for (captured, stored) in &history.files {
            let reasons = needed.contains(captured).then_some(Reason::Files).into_iter().collect();
            let name = ObjectName::Files { timeline, captured: *captured };
            judge(name, stored.size, *captured, reasons, Surplus::Files);
        }
        let merged = if self.is_forked { BTreeSet::new() } else { merged(history, young) };
        for (index, segment) in history.segments.iter().enumerate() {
            let needs =
                |(after, to, _): &&(Revision, Revision, Reason)| segment.to > *after && segment.from < *to;
            let mut reasons: BTreeSet<Reason> =
                self.rows.iter().filter(needs).map(|(_, _, reason)| reason.clone()).collect();
            let is_replaced = merged.contains(&index) && !reasons.is_empty();
            if is_replaced {
                reasons.clear();
            }
            let surplus = if is_replaced { Surplus::Merged } else { Surplus::Before };
            judge(segment.name(timeline), segment.stored.size, segment.captured, reasons, surplus);
        }
        let is_kept = !self.snapshots.is_empty();
        for (name, (revision, captured)) in &history.pins {
            let reason = match pins.get(&(timeline, name.clone())) {
                None | Some(PinState::InForce) => Some(Reason::Pinned(name.clone())),
                Some(PinState::Asked) if is_kept => Some(Reason::Asked),
                Some(PinState::Asked | PinState::Over) => None,
            };
            let (revision, captured) = (*revision, *captured);
            let name = ObjectName::Pin { timeline, name: name.clone(), revision, captured };
            judge(name, 0, captured, reason.into_iter().collect(), Surplus::Over);
        }
        for (name, revision, captured) in &history.earlier_pins {
            let (revision, captured) = (*revision, *captured);
            let name = ObjectName::Pin { timeline, name: name.clone(), revision, captured };
            judge(name, 0, captured, BTreeSet::new(), Surplus::Renewed);
        }
        for ((revision, captured), stored) in &history.snapshots {
            let reasons = self.snapshots.remove(&(*revision, *captured)).unwrap_or_default();
            let name = ObjectName::Snapshot { timeline, revision: *revision, captured: *captured };
            judge(name, stored.size, *captured, reasons, Surplus::NoRule);
        }
    }

    /// The archives that a restore of a kept point takes: the newest that was captured by then, else the first of all.
    fn needed_files(&self) -> BTreeSet<Moment> {
        let files = &self.history.files;
        let points = self.snapshots.keys().map(|(_, captured)| (*captured, *captured));
        let mut needed = BTreeSet::new();
        for (begin, end) in points.chain(self.files.iter().copied()) {
            let first = files.range(..=begin).next_back().or_else(|| files.first_key_value());
            needed.extend(first.map(|(captured, _)| *captured));
            needed.extend(files.range(begin..=end.max(begin)).map(|(captured, _)| *captured));
        }
        needed
    }
}

/// The segments (by their place) that a larger one holds, which was merged in due time and is older than `young`.
fn merged(history: &History, young: Moment) -> BTreeSet<usize> {
    let mut places: Vec<usize> = (0..history.segments.len()).collect();
    // Of those that begin at the same revision the one that reaches furthest comes first.
    places
        .sort_by_key(|place| (history.segments[*place].from, std::cmp::Reverse(history.segments[*place].to)));
    let (mut merged, mut furthest) = (BTreeSet::new(), None::<&crate::catalogue::Segment>);
    for place in places {
        let segment = &history.segments[place];
        if furthest.is_some_and(|whole| segment.to <= whole.to && segment.captured <= whole.captured) {
            merged.insert(place);
        } else if segment.stored.is_merged_in_time(segment.captured)
            && segment.stored.taken.unwrap_or(segment.captured) <= young
        {
            furthest = Some(segment);
        }
    }
    merged
}

#[cfg(test)]
mod tests;
