//! The **upgrade guard**: before another version of the chart takes over the database, the agent makes a restore
//! point, and the release stays as it is until that is in the bucket, or the wait has been long enough.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::Severity;

use crate::chart::{Generation, Version};
use crate::check::LABEL;
use crate::condition::{Condition, Kind, Reason};
use crate::config;
use crate::names::key;
use crate::object::{at, text};
use crate::report::Report;
use crate::response::Response;
use crate::sidecar;
use crate::subject::{Subject, Wanted};
use crate::values::Values;

/// How long a restore point is waited for: an upgrade may be what repairs the agent.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long the restore point is kept.
const KEEP_FOR: &str = "2160h";

/// An upgrade, or a downgrade, that has not been applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    from: String,
    to: String,
    since: Timestamp,
    phase: Phase,
    /// The phase is another one than before.
    is_new: bool,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// The restore point is to come.
    AwaitingPin,
    /// It is there.
    Guarded,
    /// It did not come.
    Unguarded,
}

impl Upgrade {
    /// The upgrade to `version`, if the observed release is of another, and there is an agent to make a restore point.
    pub fn of(subject: &Subject, version: &Version, report: &Report, now: SystemTime) -> Option<Self> {
        let release = subject.request.observed(key::CLUSTER)?;
        let from = running(release)?;
        // A restore says itself which point it wants, and must not be done under the version that it leaves.
        let is_restored = subject.pending_restore(report.restored_id.as_deref()).is_some();
        let is_guarded =
            subject.wanted() == Wanted::On && sidecar::is_in(release) && is_awake(release, &from);
        if from == *version || is_restored || !is_guarded {
            return None;
        }
        let now = Timestamp::try_from(now).ok()?;
        let remembered = at(subject.request.composite(), &["status", "cluster", "upgrade"]);
        let remembered = remembered.filter(|upgrade| text(upgrade, &["to"]) == Some(version.as_str()));
        let word = |field| remembered.and_then(|upgrade| text(upgrade, &[field]));
        let mut upgrade = Self {
            from: from.as_str().to_owned(),
            to: version.as_str().to_owned(),
            // To the second, as it is remembered.
            since: Timestamp::from_second(now.as_second()).ok()?,
            phase: Phase::AwaitingPin,
            is_new: false,
        };
        // A definition that does not know the field forgets it, and a wait that begins anew each time has no end.
        let asked =
            config::observed(subject.request).and_then(|settings| asked_since(&settings, &upgrade.pin()));
        let since = word("since").and_then(|text| text.parse().ok()).or(asked);
        // A clock that is ahead must not prolong the wait.
        upgrade.since = since.unwrap_or(upgrade.since).min(upgrade.since);
        upgrade.phase = match word("phase") {
            Some("Guarded") => Phase::Guarded,
            Some("Unguarded") => Phase::Unguarded,
            _ => {
                let made = report.pins.get(&upgrade.pin()).is_some_and(|made| *made >= upgrade.since);
                let is_over = now.duration_since(upgrade.since).unsigned_abs() >= PATIENCE;
                upgrade.is_new = made || is_over;
                match (made, is_over) {
                    (true, _) => Phase::Guarded,
                    (false, true) => Phase::Unguarded,
                    (false, false) => Phase::AwaitingPin,
                }
            }
        };
        Some(upgrade)
    }

    /// Whether the release is to stay as it is.
    pub fn waits(&self) -> bool {
        self.phase == Phase::AwaitingPin
    }

    /// The name of the restore point. A version has letters that the name of a pin has not.
    pub fn pin(&self) -> String {
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
        let name: String = format!("before-{}", self.to).chars().map(plain).take(LABEL).collect();
        name.trim_end_matches(['-', '.']).to_owned()
    }

    /// What the agent is asked for: a point made before is none of this upgrade.
    pub fn request(&self) -> Value {
        json!({"name": self.pin(), "keepFor": KEEP_FOR, "since": self.since.to_string()})
    }

    /// What the XR's status remembers.
    pub fn status(&self) -> Value {
        let phase = format!("{:?}", self.phase);
        json!({"to": self.to, "since": self.since.to_string(), "phase": phase})
    }

    /// Tells, once, how the wait ended; while it lasts, so does the condition. `health` is what is thought of the agent.
    pub fn tell(&self, cluster: &mut Condition, health: &Condition, response: &mut Response) {
        let Self { from, to, .. } = self;
        let pin = self.pin();
        if self.waits() {
            response.withhold();
            cluster.reason = Reason::AwaitingRestorePoint;
            let wait = format!(
                " It stays at {from} until restore point {pin} is in the bucket, for five minutes at most; then the upgrade to {to} begins."
            );
            cluster.message.push_str(&wait);
        } else if self.is_new && self.phase == Phase::Guarded {
            let message = format!(
                "The upgrade from {from} to {to} begins; restore point {pin} is in the bucket. To undo it set spec.version to {from} and spec.restore to a new id with pin: {pin}."
            );
            response.tell(Severity::Normal, Reason::UpgradeGuarded, message);
        } else if self.is_new {
            let message = format!(
                "The upgrade from {from} to {to} goes on without restore point {pin}, which the agent did not make in five minutes. {}: {}",
                Kind::BackupHealthy,
                health.message
            );
            response.tell(Severity::Warning, Reason::UpgradeUnguarded, message);
        }
    }
}

/// Since when the agent is asked for a restore point.
fn asked_since(settings: &Value, pin: &str) -> Option<Timestamp> {
    let pins = settings.get("pins")?.as_array()?;
    text(pins.iter().find(|request| request["name"] == pin)?, &["since"])?.parse().ok()
}

/// The version of an observed release.
pub fn running(release: &Value) -> Option<Version> {
    let field = ["spec", "forProvider", "chart", "version"];
    Version::parse(&field.join("."), text(release, &field)?).ok()
}

/// Whether the observed control plane runs, so that an agent does.
fn is_awake(release: &Value, version: &Version) -> bool {
    // One that was never installed has nothing to lose.
    let is_installed = text(release, &["status", "atProvider", "state"]).is_some();
    is_installed && !Generation::of(version).is_asleep(&Values::observed(release))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::check;

    #[test]
    fn the_restore_point_has_a_name_that_a_pin_may_have() {
        let long = format!("0.36.1-{}", "rc.".repeat(30));
        for (to, pin) in [
            ("0.36.1", "before-0.36.1"),
            ("0.37.0-rc.1", "before-0.37.0-rc.1"),
            ("0.36.1-Beta+Build.7", "before-0.36.1-beta-build.7"),
            (&long, "before-0.36.1-rc.rc.rc.rc.rc.rc.rc.rc.rc.rc.rc.rc.rc.rc.rc.rc.r"),
        ] {
            let upgrade = Upgrade {
                from: "0.35.3".into(),
                to: to.into(),
                since: Timestamp::UNIX_EPOCH,
                phase: Phase::AwaitingPin,
                is_new: false,
            };
            assert_eq!(upgrade.pin(), pin);
            check::pin("pin", &upgrade.pin()).unwrap();
        }
    }
}
