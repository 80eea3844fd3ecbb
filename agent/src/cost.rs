//! The **cost** of a backup: requests and bytes per day at the rate that was observed.

use std::time::Duration;

use serde::Serialize;

use crate::store::Metadata;

/// Metadata key.
const COST: &str = "cost";

/// Less than this says nothing about a day.
const SHORTEST: Duration = Duration::from_secs(10);

const DAY: f64 = 86_400.0;

/// What was asked of the store since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Calls of any kind.
    pub requests: u64,
    /// Bytes published.
    pub bytes: u64,
    /// In so much time.
    pub observed: Duration,
}

/// A day at that rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Calls of any kind.
    pub requests_per_day: u64,
    /// Bytes published.
    pub bytes_per_day: u64,
    /// How long was looked at, seconds.
    pub observed_seconds: u64,
}

impl Usage {
    /// As metadata of an object; nothing while too little was observed.
    pub fn metadata(self) -> Option<(String, String)> {
        let Self { requests, bytes, observed } = self;
        (observed >= SHORTEST)
            .then(|| (COST.to_owned(), format!("{requests} {bytes} {}", observed.as_secs())))
    }

    /// Extrapolated; `None` while too little was observed.
    pub fn cost(self) -> Option<Cost> {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // an estimate
        let per_day = |count: u64| (count as f64 * DAY / self.observed.as_secs_f64()).round() as u64;
        (self.observed >= SHORTEST).then(|| Cost {
            requests_per_day: per_day(self.requests),
            bytes_per_day: per_day(self.bytes),
            observed_seconds: self.observed.as_secs(),
        })
    }

    /// As an object's metadata tells it.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let mut numbers = metadata.get(COST)?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { requests: next()?, bytes: next()?, observed: Duration::from_secs(next()?) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_extrapolated_and_the_metadata_round_trips() {
        let usage = Usage { requests: 60, bytes: 6_000, observed: Duration::from_mins(1) };
        let cost = usage.cost().unwrap();
        assert_eq!((cost.requests_per_day, cost.bytes_per_day), (86_400, 8_640_000));
        assert_eq!(Usage::of(&usage.metadata().into_iter().collect()), Some(usage));
        let short = Usage { observed: Duration::from_secs(1), ..usage };
        assert_eq!((short.cost(), short.metadata()), (None, None));
        assert_eq!(Usage::of(&Metadata::from([(COST.to_owned(), "1 x 3".to_owned())])), None);
    }
}
