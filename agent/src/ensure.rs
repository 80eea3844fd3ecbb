//! **Ensure**: the one decision before kine starts. Pure: what was found goes in, what to do comes out.

use std::str::FromStr;

use clap::ValueEnum;
use serde::Deserialize;

use crate::catalogue::RestorePoint;
use crate::header::Owner;
use crate::restore::assembly::OnDamage;
use crate::restore::plan::Target;
use crate::revision::Revision;
use crate::timeline::Timeline;

/// When `ensure` restores without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoRestore {
    /// There is no database.
    Empty,
    /// The database fails its check.
    Damaged,
    /// The database is older than the backup.
    Behind,
}

impl FromStr for AutoRestore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "empty" => Ok(Self::Empty),
            "damaged" => Ok(Self::Damaged),
            "behind" => Ok(Self::Behind),
            _ => Err(format!("'{text}' is not a case: use empty, damaged or behind")),
        }
    }
}

/// What `ensure` does on an empty volume while the bucket cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnreachable {
    /// Keep trying; never start empty over a backup.
    Block,
    /// Start empty.
    Start,
}

/// Whether a backup of the same name and another uid may be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adopt {
    /// Leave it, and begin a new timeline beside it.
    Never,
    /// Restore it.
    SameName,
}

/// What the operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// When to restore without being asked.
    pub auto_restore: Vec<AutoRestore>,
    /// What to do on an empty volume while the bucket cannot be reached.
    pub on_unreachable: OnUnreachable,
    /// Whose backup may be taken over.
    pub adopt: Adopt,
    /// What a bad object does to a restore.
    pub on_damage: OnDamage,
}

/// The database as it lies on the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// No database, or one that nobody has written to.
    Empty,
    /// A sound database; its highest revision, if it has revisions.
    Whole(Option<Revision>),
    /// What its check found.
    Damaged(String),
}

/// The newest backup in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its history.
    pub timeline: Timeline,
    /// Whose it is; `None` if it does not say.
    pub owner: Option<Owner>,
    /// Its newest point.
    pub newest: RestorePoint,
}

impl Backup {
    /// Whether it is this owner's: same name and uid; the same name alone if the uid is unknown on a side or `adopt`
    /// says so. Without an owner of one's own, whatever is in the bucket is meant.
    pub fn is_of(&self, owner: Option<&Owner>, adopt: Adopt) -> bool {
        let (Some(owner), Some(other)) = (owner, &self.owner) else { return owner.is_none() };
        owner.is_same(other) || (owner.name == other.name && adopt == Adopt::SameName)
    }
}

/// What to do, and why in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Let kine start on what is there.
    Leave(String),
    /// Restore this point first.
    Restore(Target, String),
    /// Do not let kine start.
    Fail(String),
}

/// Decides. `asked` is a restore that was asked for and is not done yet, with its id.
pub fn decide(
    volume: &Volume,
    backup: Option<&Backup>,
    asked: Option<(&str, Target)>,
    owner: Option<&Owner>,
    rules: &Rules,
) -> Decision {
    if let Some((id, target)) = asked {
        let why = format!("restore {id} was asked for");
        return Decision::Restore(target, why);
    }
    let ours = backup.filter(|backup| backup.is_of(owner, rules.adopt));
    match (volume, ours) {
        (Volume::Empty, None) => Decision::Leave(match backup {
            None => {
                "the volume is empty and the bucket holds no backup: a new control plane starts".to_owned()
            }
            Some(other) => format!(
                "the volume is empty and the backup in the bucket is {}'s: a new control plane starts, on a timeline of \
                 its own; --adopt same-name takes over a backup of the same name",
                other.owner.as_ref().map_or_else(|| "someone else".to_owned(), ToString::to_string)
            ),
        }),
        (Volume::Empty, Some(backup)) => restore_or(
            AutoRestore::Empty,
            rules,
            format!("the volume is empty and the bucket holds a backup up to {}", told(backup)),
            "starting empty would bury it",
        ),
        (Volume::Damaged(problem), Some(backup)) => restore_or(
            AutoRestore::Damaged,
            rules,
            format!(
                "the database is damaged ({problem}) and the bucket holds a backup up to {}",
                told(backup)
            ),
            "a restore keeps the damaged file beside it",
        ),
        (Volume::Damaged(problem), None) => Decision::Fail(format!(
            "the database is damaged ({problem}) and the bucket holds no backup of it: repair it, or move it away to \
             start empty"
        )),
        (Volume::Whole(Some(highest)), Some(backup)) if *highest < backup.newest.revision => restore_or(
            AutoRestore::Behind,
            rules,
            format!(
                "the database ends at revision {highest}, the backup reaches {}: the volume was rolled back",
                told(backup)
            ),
            "starting would let clients see time run backwards",
        ),
        (Volume::Whole(Some(highest)), _) => {
            Decision::Leave(format!("the database is whole, at revision {highest}: left as it is"))
        }
        (Volume::Whole(None), _) => Decision::Leave("the database is whole: left as it is".to_owned()),
    }
}

fn restore_or(case: AutoRestore, rules: &Rules, found: String, danger: &str) -> Decision {
    if rules.auto_restore.contains(&case) {
        return Decision::Restore(Target::Latest, found);
    }
    let word = format!("{case:?}").to_lowercase();
    Decision::Fail(format!(
        "{found}; {danger}: allow it with --auto-restore {word}, ask for a restore by id, or move the database away"
    ))
}

fn told(backup: &Backup) -> String {
    format!("revision {} ({})", backup.newest.revision, backup.newest.captured)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    fn backup(owner: &str) -> Backup {
        let newest = RestorePoint { revision: Revision::from(100), captured: Moment::from_millis(0) };
        Backup { timeline: Timeline::open(Moment::from_millis(0)), owner: owner.parse().ok(), newest }
    }

    fn rules(cases: &[AutoRestore]) -> Rules {
        Rules {
            auto_restore: cases.to_vec(),
            on_unreachable: OnUnreachable::Block,
            adopt: Adopt::Never,
            on_damage: OnDamage::Fail,
        }
    }

    fn word(decision: &Decision) -> &'static str {
        match decision {
            Decision::Leave(_) => "leave",
            Decision::Restore(Target::Latest, _) => "restore",
            Decision::Restore(..) => "restore point",
            Decision::Fail(_) => "fail",
        }
    }

    #[test]
    fn each_case_has_its_decision() {
        let whole = |revision: u64| Volume::Whole(Some(Revision::from(revision)));
        let damaged = Volume::Damaged("page 7".to_owned());
        let (empty, all) =
            (vec![AutoRestore::Empty], vec![AutoRestore::Empty, AutoRestore::Damaged, AutoRestore::Behind]);
        let (ours, rebuilt, foreign) = ("ns/a/uid1", "ns/a/uid0", "ns/b/uid1");
        for (volume, found, cases, expected) in [
            (Volume::Empty, None, &empty, "leave"),
            (Volume::Empty, Some(ours), &empty, "restore"),
            (Volume::Empty, Some(rebuilt), &empty, "leave"),
            (Volume::Empty, Some(foreign), &empty, "leave"),
            (Volume::Empty, Some("ns/a"), &empty, "restore"),
            (Volume::Empty, Some(ours), &vec![], "fail"),
            (whole(100), Some(ours), &empty, "leave"),
            (whole(99), Some(ours), &empty, "fail"),
            (whole(99), Some(ours), &all, "restore"),
            (whole(99), Some(foreign), &all, "leave"),
            (whole(1), None, &all, "leave"),
            (Volume::Whole(None), Some(ours), &all, "leave"),
            (damaged.clone(), Some(ours), &empty, "fail"),
            (damaged.clone(), Some(ours), &all, "restore"),
            (damaged, None, &all, "fail"),
        ] {
            let (found, owner) = (found.map(backup), ours.parse().ok());
            let decision = decide(&volume, found.as_ref(), None, owner.as_ref(), &rules(cases));
            assert_eq!(word(&decision), expected, "{volume:?} {found:?} {cases:?}: {decision:?}");
        }
    }

    #[test]
    fn a_backup_of_the_same_name_is_adopted_when_allowed() {
        let owner = "ns/a/new".parse().ok();
        let adopting = Rules { adopt: Adopt::SameName, ..rules(&[AutoRestore::Empty]) };
        for (found, expected) in [("ns/a/old", "restore"), ("ns/b/old", "leave")] {
            let decision = decide(&Volume::Empty, Some(&backup(found)), None, owner.as_ref(), &adopting);
            assert_eq!(word(&decision), expected, "{found}");
        }
    }

    #[test]
    fn what_is_asked_for_goes_first() {
        let asked = Some(("oops", Target::Revision(Revision::from(7))));
        let decision = decide(&Volume::Whole(None), None, asked, None, &rules(&[]));
        assert_eq!(word(&decision), "restore point");
    }
}
