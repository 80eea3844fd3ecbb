//! The **calendar**: the newest snapshots, and the newest of each hour, day, week and month, in UTC.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::{Point, Reason, Retention};
use crate::catalogue::Catalogue;
use crate::clock::Moment;
use crate::timeline::Timeline;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The number of the bucket that a moment lies in.
type Bucket = fn(Moment) -> i64;

/// The snapshots that the calendar keeps, of all timelines together, by timeline. A bucket that is empty counts nothing: a
/// cluster that was asleep keeps as many.
pub(super) fn choose(
    catalogue: &Catalogue,
    rules: &Retention,
    newest: Moment,
) -> BTreeMap<Timeline, BTreeMap<Point, BTreeSet<Reason>>> {
    let mut snapshots: Vec<(bool, Moment, Timeline, Point)> = Vec::new();
    for (timeline, history) in &catalogue.timelines {
        for (point, stored) in &history.snapshots {
            snapshots.push((stored.is_prompt(point.1), point.1, *timeline, *point));
        }
    }
    // What claims to be newer than anything that the store took is in the window, and takes no place here.
    snapshots.retain(|(_, captured, ..)| *captured <= newest);
    snapshots.sort_unstable_by(|a, b| b.cmp(a));
    let mut chosen: BTreeMap<Timeline, BTreeMap<Point, BTreeSet<Reason>>> = BTreeMap::new();
    let buckets: [(Reason, u32, Bucket); 4] = [
        (Reason::Hourly, rules.hourly, |moment| moment.millis().div_euclid(HOUR)),
        (Reason::Daily, rules.daily, |moment| moment.millis().div_euclid(DAY)),
        (Reason::Weekly, rules.weekly, week),
        (Reason::Monthly, rules.monthly, month),
    ];
    let mut choose = |timeline, point, reason| {
        chosen.entry(timeline).or_default().entry(point).or_default().insert(reason);
    };
    for (_, _, timeline, point) in snapshots.iter().take(rules.last as usize) {
        choose(*timeline, *point, Reason::Last);
    }
    for (reason, count, bucket) in buckets {
        let mut seen = BTreeSet::new();
        for (_, captured, timeline, point) in &snapshots {
            if seen.len() < count as usize && seen.insert(bucket(*captured)) {
                choose(*timeline, *point, reason.clone());
            }
        }
    }
    chosen
}

/// Weeks begin on Monday; 1970 began on a Thursday.
fn week(moment: Moment) -> i64 {
    (moment.millis().div_euclid(DAY) + 3).div_euclid(7)
}

fn month(moment: Moment) -> i64 {
    let time = jiff::Timestamp::from_millisecond(moment.millis()).unwrap_or(jiff::Timestamp::MAX);
    let day = TimeZone::UTC.to_datetime(time);
    i64::from(day.year()) * 12 + i64::from(day.month())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_monday_and_months_on_their_first() {
        let at = |text: &str| text.parse::<Moment>().unwrap();
        let (sunday, monday) = (at("2026-11-22T23:59:59.999Z"), at("2026-11-23T00:00:00Z"));
        assert_eq!(week(sunday) + 1, week(monday));
        assert_eq!(week(monday), week(at("2026-11-29T23:59:59Z")));
        let (last, first) = (at("2026-11-30T23:59:59.999Z"), at("2026-12-01T00:00:00Z"));
        assert_eq!(month(last) + 1, month(first));
        assert_eq!(month(at("2026-12-31T12:00:00Z")) + 1, month(at("2027-01-01T00:00:00Z")));
    }
}
