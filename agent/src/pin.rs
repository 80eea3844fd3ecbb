//! A **pin**: a name that a person gives to a restore point, and that retention honours.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::clock::Moment;
use crate::span;

/// A pin's name: lower case letters, digits, `-` and `.`, as Kubernetes names are (RFC 1123), 63 at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PinName(String);

/// Text that names no pin.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is not a name for a pin: use 1 to 63 lower case letters, digits, '-' and '.', as in before-migration"
)]
pub struct NotAPinName(String);

impl std::str::FromStr for PinName {
    type Err = NotAPinName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let fits = text.len() <= 63 && text.chars().all(inner);
        if fits && outer(text.chars().next()) && outer(text.chars().last()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAPinName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for PinName {
    type Error = NotAPinName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PinName> for String {
    fn from(name: PinName) -> Self {
        name.0
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pin that the configuration file asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PinRequest {
    /// Its name.
    pub name: PinName,
    /// How long it is kept; for ever if absent.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub keep_for: Option<Duration>,
    /// One that was captured earlier does not count: another of this name is made.
    #[serde(default)]
    pub since: Option<Moment>,
}

impl PinRequest {
    /// Whether a pin of this name that was captured then is what was asked for.
    pub fn is_met_by(&self, captured: Moment) -> bool {
        self.since.is_none_or(|since| captured >= since)
    }
}

/// Until when the body of a pin's object keeps it; `None` is for ever, and so is what is no time.
pub fn kept_until(body: &str) -> Option<Moment> {
    body.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_until_when() {
        assert_eq!(kept_until("2026-11-24T14:05:00.000Z\n"), Some("2026-11-24T14:05:00Z".parse().unwrap()));
        for body in ["", "for ever\n", "soon"] {
            assert_eq!(kept_until(body), None, "{body}");
        }
    }

    #[test]
    fn a_pin_of_before_does_not_count() {
        let at = Moment::from_millis;
        let asked = |since| PinRequest { name: "a".parse().unwrap(), keep_for: None, since };
        assert!(asked(None).is_met_by(at(0)));
        assert!(asked(Some(at(5))).is_met_by(at(5)) && !asked(Some(at(5))).is_met_by(at(4)));
    }

    #[test]
    fn a_name_is_a_kubernetes_name() {
        for name in ["a", "before-0.36.1", "x9"] {
            assert_eq!(name.parse::<PinName>().unwrap().to_string(), name);
        }
        for name in ["", "-a", "a-", "A", "a/b", "a b", "..", &"a".repeat(64)] {
            assert!(name.parse::<PinName>().is_err(), "{name}");
        }
    }
}
