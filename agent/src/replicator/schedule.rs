//! The **schedule**: when what is new is due. Pure: instants go in.

use std::time::{Duration, Instant};

use crate::database::News;
use crate::revision::Revision;

/// How often the database is looked at within one sync interval: finding out that nothing is new costs microseconds.
const LOOKS: u32 = 10;

/// The longest pause between two looks, and the shortest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// What is not in the bucket yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    since: Instant,
    /// Leases and events alone, up to this revision; `None` if anything else is among it.
    idle_until: Option<Revision>,
}

/// What is pending, and when the last capture was.
#[derive(Debug, Default)]
pub struct Schedule {
    pending: Option<Pending>,
    last_capture: Option<Instant>,
    /// How long the last one took from reading to publishing.
    took: Duration,
}

impl Schedule {
    /// Until the next look.
    pub fn pause(sync_interval: Duration) -> Duration {
        (sync_interval / LOOKS).clamp(PAUSES.0, PAUSES.1)
    }

    /// The revision from which what is new is still to be looked at; `None` if that changes nothing.
    pub fn unseen_after(&self, shipped: Revision) -> Option<Revision> {
        self.pending.map_or(Some(shipped), |pending| pending.idle_until)
    }

    /// Something is new.
    pub fn found(&mut self, news: News, now: Instant) {
        let idle_until = match news {
            News::Idle(revision) => Some(revision),
            News::Busy => None,
        };
        let since = self.pending.map_or(now, |pending| pending.since);
        self.pending = Some(Pending { since, idle_until });
    }

    /// Whether something else than leases and events is pending.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some_and(|pending| pending.idle_until.is_none())
    }

    /// Whether it is to be shipped now. What a user did goes at once, but no two captures come closer than a sync
    /// interval less what the next will take: so each change is in the bucket within the interval.
    pub fn is_due(&self, now: Instant, sync_interval: Duration, idle_interval: Duration) -> bool {
        let Some(pending) = self.pending else { return false };
        if pending.idle_until.is_some() {
            return now.duration_since(pending.since) >= idle_interval;
        }
        let ahead = (self.took + Self::pause(sync_interval)).min(sync_interval / 2);
        self.last_capture.is_none_or(|last| now.duration_since(last) + ahead >= sync_interval)
    }

    /// A capture that began then is in the bucket; whether more is waiting.
    pub fn shipped(&mut self, began: Instant, now: Instant, more: bool) {
        self.last_capture = Some(began);
        self.took = now.duration_since(began);
        if !more {
            self.pending = None;
        }
    }

    /// Nothing is new after all.
    pub fn nothing(&mut self) {
        self.pending = None;
    }

    /// The age of the oldest change that is not in the bucket.
    pub fn lag(&self, now: Instant) -> Duration {
        self.pending.map_or(Duration::ZERO, |pending| now.duration_since(pending.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(30);

    #[test]
    fn what_a_user_did_goes_at_once_and_then_every_interval() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut schedule = Schedule::default();
        assert!(!schedule.is_due(start, SYNC, IDLE), "nothing is new");
        schedule.found(News::Busy, at(0));
        assert!(schedule.is_due(at(0), SYNC, IDLE));
        schedule.shipped(at(0), at(50), false);
        assert_eq!(schedule.lag(at(60)), Duration::ZERO);
        schedule.found(News::Busy, at(100));
        assert!(!schedule.is_due(at(700), SYNC, IDLE), "a second capture within the interval");
        // A look (100 ms) and an upload (50 ms) before the interval is over.
        assert!(schedule.is_due(at(850), SYNC, IDLE));
        assert_eq!(schedule.lag(at(850)), Duration::from_millis(750));
    }

    #[test]
    fn leases_and_events_wait_until_something_else_takes_them_along() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.found(News::Idle(Revision::from(7)), at(0));
        assert_eq!(schedule.unseen_after(Revision::from(5)), Some(Revision::from(7)));
        schedule.found(News::Idle(Revision::from(9)), at(20));
        assert!(!schedule.is_due(at(29), SYNC, IDLE));
        assert!(schedule.is_due(at(30), SYNC, IDLE), "the oldest has waited long enough");
        schedule.found(News::Busy, at(21));
        assert!(schedule.is_due(at(21), SYNC, IDLE));
        assert_eq!(schedule.unseen_after(Revision::from(5)), None);
    }

    #[test]
    fn a_capture_that_left_something_is_followed_by_another() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.found(News::Busy, start);
        schedule.shipped(start, start, true);
        assert_eq!(schedule.lag(start + SYNC), SYNC);
    }
}
