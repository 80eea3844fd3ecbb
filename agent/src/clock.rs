//! A **moment**: UTC time in milliseconds, as names and headers carry it, and the clock that tells it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, Unit};

/// Milliseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

/// Text that is no RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a time: write it as 2026-11-24T14:05:00Z")]
pub struct NotAMoment(String);

impl Moment {
    /// From milliseconds since 1970 UTC.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970 UTC.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// How long before `later` this was; zero if it was not.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// The moment `span` earlier.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms after 1970", self.0),
        }
    }
}

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: Timestamp = text.parse().map_err(|_| NotAMoment(text.to_owned()))?;
        // A finer time means the millisecond it lies in.
        let time = time
            .round(jiff::TimestampRound::new().smallest(Unit::Millisecond).mode(jiff::RoundMode::Floor))
            .map_err(|_| NotAMoment(text.to_owned()))?;
        Ok(Self(time.as_millisecond()))
    }
}

impl serde::Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the time comes from; tests pass one that they move by hand.
#[derive(Clone, Copy)]
pub struct Clock(&'static (dyn Fn() -> Moment + Send + Sync));

impl Clock {
    /// The machine's clock.
    pub const SYSTEM: Self = Self(&system);

    /// A clock of one's own.
    pub const fn new(now: &'static (dyn Fn() -> Moment + Send + Sync)) -> Self {
        Self(now)
    }

    /// The time now.
    pub fn now(self) -> Moment {
        (self.0)()
    }
}

fn system() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trips_to_the_millisecond() {
        for (text, shown) in [
            ("2026-11-24T14:05:00Z", "2026-11-24T14:05:00.000Z"),
            ("2026-11-24T15:05:00.1239+01:00", "2026-11-24T14:05:00.123Z"),
        ] {
            assert_eq!(text.parse::<Moment>().unwrap().to_string(), shown);
        }
        assert!("yesterday".parse::<Moment>().is_err());
    }
}
