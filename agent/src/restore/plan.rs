//! The **plan** of a restore: which objects, in which order, to which point. A dry run prints it, a restore
//! carries it out.

use std::fmt;

use crate::catalogue::{Catalogue, History, RestorePoint, Segment, Stored};
use crate::clock::Moment;
use crate::object_name::ObjectName;
use crate::pin::PinName;
use crate::revision::Revision;
use crate::timeline::Timeline;

/// Which point is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The newest of the newest timeline.
    Latest,
    /// The newest captured at or before this moment.
    At(Moment),
    /// Exactly this revision.
    Revision(Revision),
    /// The one pinned under this name.
    Pin(PinName),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the newest point"),
            Self::At(moment) => write!(f, "the point at {moment}"),
            Self::Revision(revision) => write!(f, "revision {revision}"),
            Self::Pin(name) => write!(f, "pin {name}"),
        }
    }
}

/// Which rows of the segments count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Those up to this revision.
    Revision(Revision),
    /// Those captured at or before this moment.
    Moment(Moment),
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The history.
    pub timeline: Timeline,
    /// Where it begins.
    pub snapshot: (RestorePoint, Stored),
    /// What is applied to it, in order.
    pub segments: Vec<Segment>,
    /// Which of their rows.
    pub limit: Limit,
    /// Where it ends, as far as names tell: a merged segment may hold a later point before the limit.
    pub point: RestorePoint,
    /// What the restored database must rise above.
    pub highest_revision: Revision,
    /// Something between the point and this segment is missing, and was asked for.
    pub gap: Option<Segment>,
    /// All that there is on the timeline, for when one of the objects above is bad.
    history: History,
}

impl Plan {
    /// Bytes to fetch.
    pub fn bytes(&self) -> u64 {
        self.snapshot.1.size + self.segments.iter().map(|segment| segment.stored.size).sum::<u64>()
    }

    /// The snapshot's name.
    pub fn snapshot_name(&self) -> ObjectName {
        let (RestorePoint { revision, captured }, _) = self.snapshot;
        ObjectName::Snapshot { timeline: self.timeline, revision, captured }
    }

    /// Every segment that may lead on from a revision, those that reach furthest first.
    pub fn segments_after(&self, reached: Revision) -> Vec<&Segment> {
        let segments = self.history.segments.iter();
        let mut segments: Vec<_> = segments.filter(|s| s.from <= reached && s.to > reached).collect();
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.to));
        segments
    }

    /// The archive of files that belongs to a point: the newest that was captured by then, else the first that was.
    pub fn files(&self, point: RestorePoint) -> Option<(ObjectName, Stored)> {
        let files = &self.history.files;
        let before = files.range(..=point.captured).next_back();
        let (captured, stored) = before.or_else(|| files.first_key_value())?;
        Some((ObjectName::Files { timeline: self.timeline, captured: *captured }, stored.clone()))
    }

    /// Where two writers went on from the same point: the segment that the one ended with that stayed. Only the chain tells
    /// which of the others lead to it.
    pub fn fork(&self) -> Option<&Segment> {
        self.history.end().filter(|_| self.history.is_forked() && !self.segments.is_empty())
    }

    /// The first of these segments, which lead on from one another, that reach the limit; all, if none does.
    pub fn up_to_limit<'s>(&self, route: &'s [Segment]) -> &'s [Segment] {
        let mut reached = self.snapshot.0;
        let over = route.iter().position(|segment| {
            let over = !self.limit.reaches_into(reached);
            reached = RestorePoint { revision: segment.to, captured: segment.captured };
            over
        });
        &route[..over.unwrap_or(route.len())]
    }

    /// The same from the next older snapshot; `None` if there is none.
    pub fn from_older_snapshot(&self) -> Option<Self> {
        let RestorePoint { revision, captured } = self.snapshot.0;
        let older = self.history.snapshots.range(..(revision, captured)).next_back()?;
        let plan = route(self.timeline, &self.history, owned(older), self.limit, self.highest_revision);
        Some(Self { gap: self.gap.clone(), ..plan })
    }

    /// The newest point of the timeline.
    pub fn newest(&self) -> RestorePoint {
        self.history.newest().unwrap_or(self.point)
    }
}

fn owned(((revision, captured), stored): (&(Revision, Moment), &Stored)) -> (RestorePoint, Stored) {
    (RestorePoint { revision: *revision, captured: *captured }, stored.clone())
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The bucket holds no backup here.
    #[error(
        "there is no backup in {0}: check --bucket and --prefix, `vcluster-backup list` shows what is there"
    )]
    NoBackup(String),
    /// The point lies outside what was captured.
    #[error("{target} cannot be restored: {reason}; `vcluster-backup list` shows what can")]
    Unreachable {
        /// What was asked for.
        target: String,
        /// Why not.
        reason: String,
    },
}

/// Computes the plan. `place` names bucket and prefix, for the error.
pub fn plan(
    catalogue: &Catalogue,
    target: &Target,
    timeline: Option<Timeline>,
    place: &str,
) -> Result<Plan, PlanError> {
    let chosen: Vec<(&Timeline, &History)> = catalogue
        .timelines
        .iter()
        .filter(|(name, history)| {
            timeline.is_none_or(|wanted| wanted == **name) && !history.snapshots.is_empty()
        })
        .rev()
        .collect();
    if chosen.is_empty() {
        return Err(PlanError::NoBackup(match timeline {
            Some(timeline) => format!("timeline {timeline} of {place}"),
            None => place.to_owned(),
        }));
    }
    let unreachable = |reason: String| PlanError::Unreachable { target: target.to_string(), reason };
    let highest_revision = catalogue.highest_revision();
    // Newest timeline first: the first that holds the point is the history that went on.
    let found =
        chosen.iter().find_map(|(timeline, history)| reach(**timeline, history, target, highest_revision));
    found.ok_or_else(|| {
        unreachable(if let Target::Pin(_) = target {
            "no pin has this name".to_owned()
        } else {
            let newest = chosen.iter().filter_map(|(_, history)| history.newest()).max();
            let oldest = chosen.iter().filter_map(|(_, history)| history.oldest()).min_by_key(|p| p.captured);
            match (oldest, newest) {
                (Some(oldest), Some(newest)) => {
                    let range = oldest.revision..=newest.revision;
                    let but = match target {
                        Target::Revision(revision) if range.contains(revision) => {
                            ", but before its window the snapshots' revisions alone are kept"
                        }
                        _ => "",
                    };
                    format!(
                        "the backup reaches from revision {} ({}) to revision {} ({}){but}",
                        oldest.revision, oldest.captured, newest.revision, newest.captured
                    )
                }
                _ => "nothing was captured".to_owned(),
            }
        })
    })
}

/// The way to the target on one timeline.
fn reach(timeline: Timeline, history: &History, target: &Target, highest_revision: Revision) -> Option<Plan> {
    let (limit, before) = match target {
        Target::Latest => (Limit::Revision(history.newest()?.revision), Moment::from_millis(i64::MAX)),
        Target::At(moment) => (Limit::Moment(*moment), *moment),
        Target::Revision(revision) => (Limit::Revision(*revision), Moment::from_millis(i64::MAX)),
        Target::Pin(name) => {
            let (revision, captured) = history.pins.get(name)?;
            (Limit::Revision(*revision), *captured)
        }
    };
    let reachable = |(revision, captured): (Revision, Moment)| {
        captured <= before && limit.revision().is_none_or(|limit| revision <= limit)
    };
    let mut snapshots = history.snapshots.iter().rev();
    let snapshot = snapshots.find(|((revision, captured), _)| reachable((*revision, *captured)))?;
    let mut plan = route(timeline, history, owned(snapshot), limit, highest_revision);
    plan.gap = match target {
        Target::Latest => history.stranded().cloned(),
        Target::At(moment) => history.stranded().filter(|segment| segment.captured <= *moment).cloned(),
        Target::Revision(_) | Target::Pin(_) => None,
    };
    // Where two writers went on from the same point, what only the other had written lies on no history that went on.
    let end = history.newest()?.revision.min(plan.point.revision);
    let reached = limit.revision().is_none_or(|limit| end >= limit);
    reached.then_some(plan)
}

impl Limit {
    fn revision(self) -> Option<Revision> {
        match self {
            Self::Revision(revision) => Some(revision),
            Self::Moment(_) => None,
        }
    }

    /// Whether a segment that follows a point of which everything counts may have rows that count.
    fn reaches_into(self, reached: RestorePoint) -> bool {
        match self {
            Self::Revision(revision) => reached.revision < revision,
            Self::Moment(moment) => reached.captured <= moment,
        }
    }
}

/// The segments from a snapshot to the limit, or as far as they go.
fn route(
    timeline: Timeline,
    history: &History,
    snapshot: (RestorePoint, Stored),
    limit: Limit,
    highest_revision: Revision,
) -> Plan {
    let (mut segments, mut point, mut reached) = (Vec::new(), snapshot.0, snapshot.0);
    for segment in history.chain(snapshot.0.revision) {
        if !limit.reaches_into(reached) {
            break;
        }
        segments.push(segment.clone());
        reached = RestorePoint { revision: segment.to, captured: segment.captured };
        point = match limit {
            Limit::Revision(limit) => RestorePoint { revision: segment.to.min(limit), ..reached },
            // Only its marks tell which of its rows count.
            Limit::Moment(moment) if segment.captured > moment => point,
            Limit::Moment(_) => reached,
        };
    }
    Plan { timeline, snapshot, segments, limit, point, highest_revision, gap: None, history: history.clone() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalogue::Listed;
    use crate::object_name::Prefix;

    /// Snapshots as (revision, ms), segments as (from, to, ms).
    fn catalogue(snapshots: &[(u64, i64)], segments: &[(u64, u64, i64)]) -> Catalogue {
        let timeline = Timeline::open(Moment::from_millis(1));
        let at = Moment::from_millis;
        let snapshots = snapshots.iter().map(|&(revision, ms)| ObjectName::Snapshot {
            timeline,
            revision: revision.into(),
            captured: at(ms),
        });
        let segments = segments.iter().map(|&(from, to, ms)| ObjectName::Segment {
            timeline,
            from: from.into(),
            to: to.into(),
            captured: at(ms),
        });
        let listed =
            snapshots.chain(segments).map(|name| Listed { key: name.to_string(), size: 1, modified: None });
        Catalogue::new(&Prefix::default(), &listed.collect::<Vec<_>>())
    }

    /// The snapshot's revision, the segments' ranges, and the point's revision.
    type Planned = (u64, Vec<(u64, u64)>, u64);

    fn planned(catalogue: &Catalogue, target: &Target) -> Option<Planned> {
        let plan = plan(catalogue, target, None, "here").ok()?;
        let segments = plan.segments.iter().map(|s| (s.from.number(), s.to.number())).collect();
        Some((plan.snapshot.0.revision.number(), segments, plan.point.revision.number()))
    }

    #[test]
    fn the_way_begins_at_the_newest_snapshot_before_the_point() {
        let catalogue =
            catalogue(&[(10, 100), (20, 200)], &[(10, 13, 110), (13, 22, 210), (22, 25, 220), (25, 30, 230)]);
        let revision = |number: u64| Target::Revision(number.into());
        let at = |ms| Target::At(Moment::from_millis(ms));
        for (target, expected) in [
            (Target::Latest, Some((20, vec![(13, 22), (22, 25), (25, 30)], 30))),
            (revision(30), Some((20, vec![(13, 22), (22, 25), (25, 30)], 30))),
            (revision(21), Some((20, vec![(13, 22)], 21))),
            (revision(20), Some((20, vec![], 20))),
            (revision(19), Some((10, vec![(10, 13), (13, 22)], 19))),
            (revision(10), Some((10, vec![], 10))),
            (revision(9), None),
            (revision(31), None),
            // A segment captured later may be merged, and then hold earlier marks.
            (at(225), Some((20, vec![(13, 22), (22, 25), (25, 30)], 25))),
            (at(230), Some((20, vec![(13, 22), (22, 25), (25, 30)], 30))),
            (at(199), Some((10, vec![(10, 13), (13, 22)], 13))),
            (at(99), None),
        ] {
            assert_eq!(planned(&catalogue, &target), expected, "{target}");
        }
    }

    /// The agent that stayed wrote last, though the other had got further.
    #[test]
    fn a_fork_ends_with_what_was_captured_last() {
        let catalogue = catalogue(
            &[(10, 100)],
            &[(10, 14, 101), (10, 30, 102), (14, 18, 103), (30, 60, 104), (18, 20, 105)],
        );
        let plan = plan(&catalogue, &Target::Latest, None, "here").unwrap();
        assert_eq!(plan.limit, Limit::Revision(20.into()));
        assert_eq!(plan.fork().map(|segment| segment.to), Some(20.into()));
        assert!(planned(&catalogue, &Target::Revision(21.into())).is_none(), "only the other wrote it");
    }

    #[test]
    fn a_merged_segment_replaces_those_that_it_holds_and_a_gap_ends_the_way() {
        let catalogue =
            catalogue(&[(10, 100)], &[(10, 12, 1), (12, 14, 2), (10, 16, 4), (14, 16, 4), (17, 18, 5)]);
        assert_eq!(planned(&catalogue, &Target::Latest), Some((10, vec![(10, 16)], 16)));
        assert_eq!(planned(&catalogue, &Target::Revision(18.into())), None);
        assert_eq!(catalogue.highest_revision(), Revision::from(18));
        let gap =
            |target: &Target| plan(&catalogue, target, None, "here").unwrap().gap.map(|gap| gap.to.number());
        assert_eq!(gap(&Target::Latest), Some(18), "revision 17 is missing");
        assert_eq!(gap(&Target::At(Moment::from_millis(100))), Some(18));
        assert_eq!(gap(&Target::Revision(16.into())), None);
    }
}
