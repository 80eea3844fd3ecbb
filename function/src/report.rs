//! The agent's **report**: what it writes into ConfigMap `<name>-backup-status`, at least once a minute. The
//! vcluster's pod writes it, so it is read as anything that a stranger says.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use crate::check;
use crate::condition::{Condition, Kind, Reason};
use crate::object::text;

/// Longest message that is passed on.
const MESSAGE: usize = 512;
/// Longest list of pins that is read, in bytes; one has 100 or so.
const PINS: usize = 65_536;

/// What the agent says; all of it may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In one word, what it does.
    pub phase: Option<String>,
    /// When the last capture arrived in the bucket.
    pub last_success: Option<String>,
    /// The newest revision in the bucket.
    pub revision: Option<u64>,
    /// How far back a restore can go.
    pub restorable_from: Option<String>,
    /// What the backup takes in the bucket.
    pub size_bytes: Option<u64>,
    /// When a restore was last tried out.
    pub last_verify: Option<String>,
    /// What came of it: `ok`, or `failed: why`.
    pub last_verify_result: Option<String>,
    /// The restore that was last done.
    pub restored_id: Option<String>,
    /// The pins that were asked for and are made, and of when they are.
    pub pins: BTreeMap<String, Timestamp>,
    /// More, for people.
    pub message: Option<String>,
}

impl Report {
    /// Reads the ConfigMap.
    pub fn of(config_map: Option<&Value>) -> Self {
        let Some(config_map) = config_map else { return Self::default() };
        let word = |field: &str| text(config_map, &["data", field]).map(clean);
        let time = |field: &str| word(field).filter(|text| text.parse::<Timestamp>().is_ok());
        Self {
            phase: word("phase").filter(|phase| phase.chars().all(|c| c.is_ascii_alphanumeric())),
            last_success: time("lastSuccess"),
            revision: word("revision").and_then(|text| text.parse().ok()),
            restorable_from: time("restorableFrom"),
            size_bytes: word("sizeBytes").and_then(|text| text.parse().ok()),
            last_verify: time("lastVerify"),
            last_verify_result: word("lastVerifyResult"),
            restored_id: word("restoredId"),
            pins: pins(text(config_map, &["data", "pins"]).unwrap_or_default()),
            message: word("message"),
        }
    }

    /// Whether the agent waits for the identity.
    pub fn awaits_key(&self) -> bool {
        self.phase.as_deref() == Some("AwaitingKey")
    }

    /// Whether it is at a restore, or has failed at one and tries again.
    pub fn is_restoring(&self) -> bool {
        matches!(self.phase.as_deref(), Some("Restoring" | "Failed"))
    }

    /// Why the restore that was last tried out was none, if it was none.
    pub fn verify_failure(&self) -> Option<&str> {
        let result = self.last_verify_result.as_deref().filter(|result| *result != "ok")?;
        Some(result.strip_prefix("failed: ").unwrap_or(result))
    }

    /// What is to be thought of it at `now`; silence counts from `stale_after` on.
    pub fn health(&self, now: SystemTime, stale_after: Duration) -> Condition {
        let kind = Kind::BackupHealthy;
        let own_words =
            self.message.as_ref().map(|message| format!(" It says: {message}")).unwrap_or_default();
        match self.phase.as_deref() {
            Some("AwaitingKey") => {
                return Condition::no(
                    kind,
                    Reason::AwaitingKey,
                    "The agent needs the identity for a restore before the control plane starts; it is being handed over.",
                );
            }
            Some("Asleep") => {
                return Condition::unknown(
                    kind,
                    Reason::Asleep,
                    "The vcluster is scaled to zero; nothing changes.",
                );
            }
            Some("Failing" | "Failed" | "Error" | "Stopped") => {
                let message = format!("The agent cannot back up; look at its logs.{own_words}");
                return Condition::no(kind, Reason::Failing, message);
            }
            _ => {}
        }
        let Some(last) = self
            .last_success
            .as_ref()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .and_then(|last| SystemTime::try_from(last).ok())
        else {
            return Condition::unknown(
                kind,
                Reason::NotReported,
                "The agent has not reported a capture yet; nothing is known about the backup.",
            );
        };
        // A clock that is ahead of ours is no silence.
        if now.duration_since(last).is_ok_and(|silence| silence > stale_after) {
            let message = format!(
                "The agent has been silent for longer than staleAfter; look at container vcluster-backup of the vcluster's pod.{own_words}"
            );
            return Condition::no(kind, Reason::Stale, message);
        }
        Condition::yes(kind, Reason::Replicating, "Captures arrive in the bucket.")
    }
}

/// A JSON object of names and times. What is neither is left out.
fn pins(list: &str) -> BTreeMap<String, Timestamp> {
    let list = Some(list).filter(|list| list.len() <= PINS);
    let pins = list.and_then(|list| serde_json::from_str::<BTreeMap<String, Value>>(list).ok());
    let pin = |(name, time): (String, Value)| Some((name, time.as_str()?.parse().ok()?));
    let pins = pins.unwrap_or_default().into_iter().filter_map(pin);
    pins.filter(|(name, _)| check::pin("pins", name).is_ok()).collect()
}

/// One line without control characters, not too long.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::condition::Status;

    fn report(data: &Value) -> Report {
        Report::of(Some(&json!({"data": data})))
    }

    #[test]
    fn health_is_what_the_agent_says_and_how_long_ago() {
        let now = SystemTime::try_from("2026-11-22T12:00:00Z".parse::<Timestamp>().unwrap()).unwrap();
        let at = |time: &str| json!({"phase": "Replicating", "lastSuccess": time});
        for (data, status, reason) in [
            (json!({}), Status::Unknown, Reason::NotReported),
            (json!({"phase": "Starting"}), Status::Unknown, Reason::NotReported),
            (at("2026-11-22T11:55:00Z"), Status::True, Reason::Replicating),
            (at("2026-11-22T11:54:59Z"), Status::False, Reason::Stale),
            (at("2026-11-22T12:30:00Z"), Status::True, Reason::Replicating),
            (at("a while ago"), Status::Unknown, Reason::NotReported),
            (json!({"phase": "AwaitingKey"}), Status::False, Reason::AwaitingKey),
            (
                json!({"phase": "Asleep", "lastSuccess": "2026-11-01T00:00:00Z"}),
                Status::Unknown,
                Reason::Asleep,
            ),
            (
                json!({"phase": "Failing", "lastSuccess": "2026-11-22T11:59:59Z"}),
                Status::False,
                Reason::Failing,
            ),
        ] {
            let health = report(&data).health(now, Duration::from_mins(5));
            assert_eq!((health.status, health.reason), (status, reason), "{data}");
        }
    }

    #[test]
    fn a_stranger_cannot_say_anything() {
        let long = "x\u{1b}[31m".repeat(500);
        let report =
            report(&json!({"phase": "a b", "revision": "-1", "message": long, "restorableFrom": "<script>"}));
        assert_eq!((report.phase, report.revision, report.restorable_from), (None, None, None));
        let message = report.message.unwrap();
        assert!(message.chars().count() == MESSAGE && !message.contains('\u{1b}'));
        assert_eq!(Report::of(None), Report::default());
        let made = json!({"a": "2026-11-22T12:00:00Z", "../b": "2026-11-22T12:00:00Z", "c": "now", "d": 7});
        let pins = super::pins(&made.to_string());
        assert_eq!(pins.keys().collect::<Vec<_>>(), ["a"]);
        let long = format!("{{\"a\": \"2026-11-22T12:00:00Z\"{}}}", " ".repeat(PINS));
        for text in [long.as_str(), "", "[]", "{", "7"] {
            assert!(super::pins(text).is_empty());
        }
        assert_eq!(Report::of(Some(&json!(7))), Report::default());
    }
}
