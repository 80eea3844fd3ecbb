//! The **catalogue**: what a LIST of the bucket says can be restored. No key is needed to make it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::object_name::{ObjectName, Prefix, is_seed_object};
use crate::pin::PinName;
use crate::revision::Revision;
use crate::timeline::Timeline;

/// Everything under one prefix.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Histories, oldest first.
    pub timelines: BTreeMap<Timeline, History>,
    /// Recipients whose identity is wrapped by a passphrase.
    pub wrapped_identities: Vec<(String, Stored)>,
    /// Objects of the Go program, by key.
    pub seed_objects: Vec<(Stored, Option<Moment>)>,
}

/// One timeline's objects.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Complete databases, by revision and time.
    pub snapshots: BTreeMap<(Revision, Moment), Stored>,
    /// Rows, sorted. They may overlap: a merged one and those that it holds, or those of two writers.
    pub segments: Vec<Segment>,
    /// Named restore points.
    pub pins: BTreeMap<PinName, (Revision, Moment)>,
    /// Restore points whose name a later one got.
    pub earlier_pins: Vec<(PinName, Revision, Moment)>,
    /// Archives of the files beside the database.
    pub files: BTreeMap<Moment, Stored>,
    /// What verifications came to, oldest first.
    pub verifications: Vec<Verification>,
}

/// An object as LIST tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The full key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When the store took it.
    pub modified: Option<Moment>,
}

/// An object as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The full key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When the store took it, which no writer can forge.
    pub taken: Option<Moment>,
}

/// An upload lasts no longer, and clocks differ by no more.
const PROMPT: Duration = Duration::from_hours(1);

/// A segment is merged within a day, or not at all.
const MERGED_IN_TIME: Duration = Duration::from_hours(25);

impl Stored {
    /// Whether the store took it about when it was captured, as its name says: one that was put there later under an older
    /// name is a copy or a forgery.
    pub fn is_prompt(&self, captured: Moment) -> bool {
        self.taken.is_none_or(|taken| captured.until(taken) <= PROMPT && taken.until(captured) <= PROMPT)
    }

    /// The same of a segment, which may have been merged until then.
    pub fn is_merged_in_time(&self, captured: Moment) -> bool {
        self.taken.is_none_or(|taken| captured.until(taken) <= MERGED_IN_TIME)
    }
}

/// A log segment as its name tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The revision before its first row.
    pub from: Revision,
    /// Its last row.
    pub to: Revision,
    /// When that was captured.
    pub captured: Moment,
    /// The object.
    pub stored: Stored,
}

/// What a verification came to, as the name of its record tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// When it was done.
    pub at: Moment,
    /// The revision that was to be restored.
    pub revision: Revision,
    /// Whether nothing was found to be wrong.
    pub passed: bool,
    /// The record.
    pub stored: Stored,
}

impl Segment {
    /// Its name on a timeline.
    pub fn name(&self, timeline: Timeline) -> ObjectName {
        ObjectName::Segment { timeline, from: self.from, to: self.to, captured: self.captured }
    }
}

/// What two writers wrote on one timeline, as far as names tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// Both went on from here, or later.
    pub from: Revision,
    /// When the last of it was captured.
    pub until: Moment,
}

/// A revision and when it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct RestorePoint {
    /// The revision.
    pub revision: Revision,
    /// When it was captured.
    pub captured: Moment,
}

impl std::fmt::Display for RestorePoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Generic databases have no revisions.
        if self.revision == Revision::ZERO {
            return write!(f, "{}", self.captured);
        }
        write!(f, "revision {} ({})", self.revision, self.captured)
    }
}

impl Catalogue {
    /// Sorts a listing; foreign objects are passed over.
    pub fn new(prefix: &Prefix, listed: &[Listed]) -> Self {
        let mut catalogue = Self::default();
        for object in listed {
            let stored = Stored { key: object.key.clone(), size: object.size, taken: object.modified };
            let Some(name) = ObjectName::parse(prefix, &object.key) else {
                if is_seed_object(&object.key) {
                    catalogue.seed_objects.push((stored, object.modified));
                }
                continue;
            };
            catalogue.add(name, stored);
        }
        for history in catalogue.timelines.values_mut() {
            history.segments.sort_by_key(|segment| (segment.from, segment.to, segment.captured));
            history.verifications.sort_by_key(|verification| verification.at);
        }
        catalogue.seed_objects.sort_by_key(|(stored, modified)| (*modified, stored.key.clone()));
        catalogue
    }

    fn add(&mut self, name: ObjectName, stored: Stored) {
        match name {
            ObjectName::Snapshot { timeline, revision, captured } => {
                self.history(timeline).snapshots.insert((revision, captured), stored);
            }
            ObjectName::Segment { timeline, from, to, captured } => {
                self.history(timeline).segments.push(Segment { from, to, captured, stored });
            }
            ObjectName::Pin { timeline, name, revision, captured } => {
                // A name that was given twice means the later point.
                let history = self.history(timeline);
                let mut other = (revision, captured);
                let pin = history.pins.entry(name.clone()).or_insert(other);
                if other.1 > pin.1 {
                    std::mem::swap(pin, &mut other);
                }
                if other != *pin {
                    history.earlier_pins.push((name, other.0, other.1));
                }
            }
            ObjectName::Files { timeline, captured } => {
                self.history(timeline).files.insert(captured, stored);
            }
            ObjectName::Verification { timeline, at, revision, passed } => {
                self.history(timeline).verifications.push(Verification { at, revision, passed, stored });
            }
            ObjectName::WrappedIdentity { recipient } => self.wrapped_identities.push((recipient, stored)),
            ObjectName::Signer { .. } => {}
        }
    }

    fn history(&mut self, timeline: Timeline) -> &mut History {
        self.timelines.entry(timeline).or_default()
    }

    /// The highest revision ever captured, on any timeline: what a restored database must rise above.
    pub fn highest_revision(&self) -> Revision {
        let of = |history: &History| {
            let snapshots = history.snapshots.keys().map(|(revision, _)| *revision);
            snapshots.chain(history.segments.iter().map(|segment| segment.to)).max()
        };
        self.timelines.values().filter_map(of).max().unwrap_or_default()
    }

    /// Whether there is nothing to restore.
    pub fn is_empty(&self) -> bool {
        self.seed_objects.is_empty() && self.timelines.values().all(|history| history.snapshots.is_empty())
    }
}

impl History {
    /// The segments that lead on from `revision` without a gap, in order. Where several begin inside what is
    /// covered, the one that reaches furthest is taken, so that merged segments replace those they hold.
    pub fn chain(&self, revision: Revision) -> Vec<&Segment> {
        let (mut chain, mut reached) = (Vec::new(), revision);
        let mut segments = self.segments.iter().peekable();
        let mut furthest: Option<&Segment> = None;
        loop {
            while let Some(segment) = segments.next_if(|segment| segment.from <= reached) {
                furthest = furthest.into_iter().chain([segment]).max_by_key(|segment| segment.to);
            }
            let Some(next) = furthest.filter(|segment| segment.to > reached) else { return chain };
            chain.push(next);
            reached = next.to;
        }
    }

    /// The newest snapshot. Whatever can be reached from an older one can be reached from it.
    pub fn newest_snapshot(&self) -> Option<RestorePoint> {
        let ((revision, captured), _) = self.snapshots.last_key_value()?;
        Some(RestorePoint { revision: *revision, captured: *captured })
    }

    /// The segment that a timeline ends with: of all that are led to without a gap, the one captured last. Where two writers
    /// went on from the same point, the one that stayed wrote last, though the other may have got further.
    pub fn end(&self) -> Option<&Segment> {
        let mut reached = self.newest_snapshot()?.revision;
        let snapshot = reached;
        let mut end: Option<&Segment> = None;
        for segment in &self.segments {
            if segment.from > reached {
                break;
            }
            reached = reached.max(segment.to);
            if segment.to > snapshot {
                end = end.into_iter().chain([segment]).max_by_key(|segment| (segment.captured, segment.to));
            }
        }
        end
    }

    /// The first segment behind a gap: it was captured after the newest point, and nothing leads to it. Nobody prunes behind
    /// the newest snapshot, so what lies between was lost or taken away.
    pub fn stranded(&self) -> Option<&Segment> {
        let (mut reached, newest) = (self.newest_snapshot()?.revision, self.newest()?);
        let behind = self.segments.iter().skip_while(|segment| {
            let leads_on = segment.from <= reached;
            reached = reached.max(segment.to);
            leads_on
        });
        behind.into_iter().find(|segment| segment.captured > newest.captured)
    }

    /// Where two writers went on from the same point: two segments overlap and neither holds the other, or one holds what
    /// was captured later than itself. Merging makes no such, nor does an upload that was tried again.
    pub fn fork(&self) -> Option<Fork> {
        let (mut fork, mut furthest): (Option<Fork>, Option<&Segment>) = (None, None);
        for segment in &self.segments {
            if let Some(before) = furthest {
                let overlaps = segment.from < before.to;
                let reaches_out = segment.from > before.from && segment.to > before.to;
                let is_later = segment.to <= before.to && segment.captured > before.captured;
                if overlaps && (reaches_out || is_later) {
                    let until = before.captured.max(segment.captured);
                    // They are sorted: the first begins first.
                    let known = fork.unwrap_or(Fork { from: before.from, until });
                    fork = Some(Fork { until: known.until.max(until), ..known });
                }
            }
            furthest = furthest.into_iter().chain([segment]).max_by_key(|segment| segment.to);
        }
        fork
    }

    /// Whether there is a [`Self::fork`].
    pub fn is_forked(&self) -> bool {
        self.fork().is_some()
    }

    /// The newest point that can be restored.
    pub fn newest(&self) -> Option<RestorePoint> {
        let end = self.end().map(|segment| RestorePoint { revision: segment.to, captured: segment.captured });
        end.or_else(|| self.newest_snapshot())
    }

    /// The oldest point that can be restored.
    pub fn oldest(&self) -> Option<RestorePoint> {
        let oldest = self.snapshots.keys().min_by_key(|(_, captured)| *captured);
        oldest.map(|(revision, captured)| RestorePoint { revision: *revision, captured: *captured })
    }

    /// The oldest snapshot from which the log leads to the newest point: every revision since can be restored, of those before
    /// only what snapshots hold. A database that has no revisions has no log.
    pub fn unbroken_from(&self) -> Option<RestorePoint> {
        let newest = self.newest()?.revision;
        let leads =
            |revision: Revision| self.chain(revision).last().map_or(revision, |segment| segment.to) >= newest;
        let points = self.snapshots.keys().filter(|(revision, _)| *revision > Revision::ZERO);
        let mut points =
            points.map(|(revision, captured)| RestorePoint { revision: *revision, captured: *captured });
        points.find(|point| leads(point.revision))
    }

    /// Bytes of all its objects.
    pub fn bytes(&self) -> u64 {
        let snapshots = self.snapshots.values().map(|stored| stored.size);
        let segments = self.segments.iter().map(|segment| segment.stored.size);
        snapshots.chain(segments).chain(self.files.values().map(|stored| stored.size)).sum()
    }
}
