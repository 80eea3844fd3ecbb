//! The **plan** of a restore: which objects, in which order, to which point. A dry run prints it, a restore
//! carries it out.

use std::fmt;

use crate::catalogue::{Catalogue, History, RestorePoint, Stored};
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

/// What to do.
#[derive(Debug)]
pub struct Plan {
    /// The history.
    pub timeline: Timeline,
    /// Where it begins.
    pub snapshot: (ObjectName, Stored),
    /// What is applied to it, in order.
    pub segments: Vec<(ObjectName, Stored)>,
    /// Where it ends.
    pub point: RestorePoint,
    /// What the restored database must rise above.
    pub highest_revision: Revision,
}

impl Plan {
    /// Bytes to fetch.
    pub fn bytes(&self) -> u64 {
        self.snapshot.1.size + self.segments.iter().map(|(_, stored)| stored.size).sum::<u64>()
    }
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
        chosen.iter().find_map(|(timeline, history)| route(**timeline, history, target, highest_revision));
    found.ok_or_else(|| {
        unreachable(if let Target::Pin(_) = target {
            "no pin has this name".to_owned()
        } else {
            let newest = chosen.iter().filter_map(|(_, history)| history.newest()).max();
            let oldest = chosen.iter().filter_map(|(_, history)| history.oldest()).min_by_key(|p| p.captured);
            match (oldest, newest) {
                (Some(oldest), Some(newest)) => format!(
                    "the backup reaches from revision {} ({}) to revision {} ({})",
                    oldest.revision, oldest.captured, newest.revision, newest.captured
                ),
                _ => "nothing was captured".to_owned(),
            }
        })
    })
}

/// The way to the target on one timeline.
fn route(timeline: Timeline, history: &History, target: &Target, highest_revision: Revision) -> Option<Plan> {
    let point = match target {
        Target::Latest => history.newest()?,
        Target::At(moment) => history
            .snapshots
            .keys()
            .flat_map(|(revision, captured)| {
                let chain = history.chain(*revision);
                std::iter::once((*revision, *captured))
                    .chain(chain.into_iter().map(|(_, to, at, _)| (to, at)))
            })
            .filter(|(_, captured)| captured <= moment)
            .max()
            .map(|(revision, captured)| RestorePoint { revision, captured })?,
        Target::Revision(revision) => {
            RestorePoint { revision: *revision, captured: Moment::from_millis(i64::MAX) }
        }
        Target::Pin(name) => {
            let (revision, captured) = history.pins.get(name)?;
            RestorePoint { revision: *revision, captured: *captured }
        }
    };
    let ((from, taken), stored) = history
        .snapshots
        .iter()
        .filter(|((revision, captured), _)| *revision <= point.revision && *captured <= point.captured)
        .max_by_key(|((revision, captured), _)| (*revision, *captured))?;
    let snapshot = (ObjectName::Snapshot { timeline, revision: *from, captured: *taken }, stored.clone());
    let mut segments = Vec::new();
    let mut reached = RestorePoint { revision: *from, captured: *taken };
    for (from, to, captured, stored) in history.chain(*from) {
        if reached.revision >= point.revision {
            break;
        }
        segments.push((ObjectName::Segment { timeline, from, to, captured }, stored.clone()));
        reached = RestorePoint { revision: to.min(point.revision), captured };
    }
    (reached.revision >= point.revision).then_some(Plan {
        timeline,
        snapshot,
        segments,
        point: reached,
        highest_revision,
    })
}
