//! A **timeline**: one unbroken history of one database, named by a ULID so that names sort by birth.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use ulid::Ulid;

use crate::clock::Moment;

/// A timeline's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(Ulid);

impl Timeline {
    /// A new timeline, born `now`. Two agents that open one at the same instant draw different names: 80 of
    /// the 128 bits are random.
    pub fn open(now: Moment) -> Self {
        let since = Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
        Self(Ulid::from_datetime(UNIX_EPOCH + since))
    }
}

impl Timeline {
    /// A new timeline that sorts behind `newest`, also if the clock was set back since that was born.
    pub fn open_after(newest: Option<Self>, now: Moment) -> Self {
        let born =
            |timeline: Self| Moment::from_millis(i64::try_from(timeline.0.timestamp_ms()).unwrap_or(0));
        match newest {
            Some(newest) if born(newest) >= now => Self::open(born(newest).plus(Duration::from_millis(1))),
            _ => Self::open(now),
        }
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl FromStr for Timeline {
    type Err = NotATimeline;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ulid = Ulid::from_string(text).map_err(|_| NotATimeline(text.to_owned()))?;
        // Crockford's alphabet reads lower case and look-alikes too; a name must have one spelling.
        if ulid.to_string() != text {
            return Err(NotATimeline(text.to_owned()));
        }
        Ok(Self(ulid))
    }
}

/// Text that names no timeline.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a timeline: it is the 26-character name that `vcluster-backup list` shows")]
pub struct NotATimeline(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_timeline_sorts_behind_the_others() {
        let at = Moment::from_millis;
        let newest = Timeline::open(at(5_000));
        for now in [0, 4_999, 5_000, 5_001] {
            assert!(Timeline::open_after(Some(newest), at(now)) > newest, "{now}");
        }
        assert!(Timeline::open_after(None, at(1)) < newest);
    }
}
