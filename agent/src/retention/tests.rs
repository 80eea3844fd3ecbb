#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalogue::Listed;
use crate::object_name::Prefix;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// 2026-11-01, a Sunday.
const START: i64 = 1_793_491_200_000;

/// No rule but those that a test sets.
const NOTHING: Retention =
    Retention { window: Duration::ZERO, last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0 };

/// A bucket in the making.
#[derive(Default)]
struct Bucket(Vec<Listed>);

fn timeline(number: i64) -> Timeline {
    // Born at a moment; what is random in a name is the same in each.
    let born = Timeline::open(Moment::from_millis(number)).to_string();
    format!("{}0000000000000000", &born[..10]).parse().unwrap()
}

fn at(millis: i64) -> Moment {
    Moment::from_millis(START + millis)
}

impl Bucket {
    fn add(&mut self, name: &ObjectName, taken: Option<Moment>) -> &mut Self {
        self.0.push(Listed { key: format!("p/{name}"), size: 1, modified: taken });
        self
    }

    fn snapshot(&mut self, of: i64, revision: u64, millis: i64) -> &mut Self {
        let (timeline, captured) = (timeline(of), at(millis));
        self.add(&ObjectName::Snapshot { timeline, revision: revision.into(), captured }, None)
    }

    fn segment(&mut self, of: i64, from: u64, to: u64, millis: i64) -> &mut Self {
        let (timeline, captured) = (timeline(of), at(millis));
        self.add(&ObjectName::Segment { timeline, from: from.into(), to: to.into(), captured }, None)
    }

    fn pin(&mut self, of: i64, name: &str, revision: u64, millis: i64) -> &mut Self {
        let (timeline, captured, name) = (timeline(of), at(millis), name.parse().unwrap());
        self.add(&ObjectName::Pin { timeline, name, revision: revision.into(), captured }, None)
    }

    fn files(&mut self, of: i64, millis: i64) -> &mut Self {
        self.add(&ObjectName::Files { timeline: timeline(of), captured: at(millis) }, None)
    }

    fn plan(&self, rules: &Retention, pins: &Pins) -> Plan {
        plan(&Catalogue::new(&Prefix::new("p"), &self.0), rules, pins)
    }

    /// What is deleted, each as kind and time in hours since the start, and why.
    fn deleted(&self, rules: &Retention) -> Vec<(char, i64, Surplus)> {
        deleted(&self.plan(rules, &Pins::new()))
    }

    /// The hours of the snapshots that are kept.
    fn kept(&self, rules: &Retention) -> Vec<i64> {
        let plan = self.plan(rules, &Pins::new());
        let kept = plan.objects.iter().filter(|judged| matches!(judged.verdict, Verdict::Keep(_)));
        let mut hours: Vec<i64> = kept.filter_map(|judged| hour(&judged.name, 's')).collect();
        hours.sort_unstable();
        hours
    }
}

fn deleted(plan: &Plan) -> Vec<(char, i64, Surplus)> {
    let each = plan.deletions().into_iter().map(|judged| {
        let Verdict::Delete(surplus) = judged.verdict else { panic!("{judged:?}") };
        "slpf".chars().find_map(|kind| Some((kind, hour(&judged.name, kind)?, surplus))).unwrap()
    });
    each.collect()
}

fn hour(name: &ObjectName, wanted: char) -> Option<i64> {
    let (kind, captured) = match name {
        ObjectName::Snapshot { captured, .. } => ('s', captured),
        ObjectName::Segment { captured, .. } => ('l', captured),
        ObjectName::Pin { captured, .. } => ('p', captured),
        ObjectName::Files { captured, .. } => ('f', captured),
        _ => return None,
    };
    (kind == wanted).then(|| (captured.millis() - START).div_euclid(HOUR))
}

/// A snapshot an hour for 100 days, the log between, a segment an hour.
fn hundred_days() -> Bucket {
    let mut bucket = Bucket::default();
    for hour in 0..2400_i64 {
        let revision = 10 + 10 * u64::try_from(hour).unwrap();
        bucket.snapshot(1, revision, hour * HOUR).segment(1, revision, revision + 10, (hour + 1) * HOUR - 1);
    }
    bucket
}

#[test]
fn the_calendar_keeps_the_newest_of_each_bucket() {
    let bucket = hundred_days();
    for (rules, hours) in [
        (Retention { last: 3, ..NOTHING }, vec![2397, 2398, 2399]),
        (Retention { hourly: 4, ..NOTHING }, vec![2396, 2397, 2398, 2399]),
        (Retention { daily: 3, ..NOTHING }, vec![2351, 2375, 2399]),
        // It ends on Monday 2027-02-08; weeks end on Sunday.
        (Retention { weekly: 3, ..NOTHING }, vec![2207, 2375, 2399]),
        // January and December end on day 92 and 61.
        (Retention { monthly: 3, ..NOTHING }, vec![61 * 24 - 1, 92 * 24 - 1, 2399]),
        (Retention { last: 1, daily: 2, ..NOTHING }, vec![2375, 2399]),
        // Never nothing.
        (NOTHING, vec![2399]),
    ] {
        assert_eq!(bucket.kept(&rules), hours, "{rules:?}");
    }
}

#[test]
fn the_window_keeps_its_log_and_a_snapshot_to_begin_with() {
    let bucket = hundred_days();
    let window = Duration::from_hours(7 * 24);
    let rules = Retention { window, ..NOTHING };
    // The newest of each day, from the one that was there when the window began.
    let begin = 2400 - 7 * 24 - 1;
    assert_eq!(bucket.kept(&rules), (0..=7).map(|day| begin + day * 24).collect::<Vec<_>>());
    let plan = bucket.plan(&rules, &Pins::new());
    assert_eq!(plan.from, Some(at(2400 * HOUR - 1 - 7 * DAY)));
    let log = deleted(&plan).into_iter().filter(|(kind, ..)| *kind == 'l').map(|(_, hour, _)| hour);
    assert_eq!(log.max(), Some(begin - 1), "the log goes with what it led to");
    assert_eq!(plan.oldest(timeline(1)), Some(at(begin * HOUR)));
}

#[test]
fn what_is_deleted_goes_from_its_far_end() {
    let mut bucket = Bucket::default();
    bucket
        .snapshot(1, 10, 0)
        .segment(1, 10, 12, 1)
        .segment(1, 12, 14, 2)
        .snapshot(1, 14, 3)
        .files(1, 0)
        .files(1, 3);
    bucket.snapshot(2, 20, DAY).pin(1, "old", 10, 0).pin(1, "old", 14, 3);
    let pins = Pins::from([((timeline(1), "old".parse().unwrap()), PinState::Over)]);
    let plan = bucket.plan(&NOTHING, &pins);
    let order: Vec<String> = plan.deletions().iter().map(|judged| judged.name.to_string()).collect();
    let (of, one, ten, fourteen) = (timeline(1), START, format!("{:020}", 10), format!("{:020}", 14));
    let expected = format!(
        "{of}/pin/old/14-{}\n{of}/pin/old/10-{one}\n{of}/log/{:020}-{fourteen}-{}.sql.zst.age\n\
         {of}/log/{ten}-{:020}-{}.sql.zst.age\n{of}/files/{}.tar.zst.age\n{of}/files/{one}.tar.zst.age\n\
         {of}/snapshot/{fourteen}-{}.db.zst.age\n{of}/snapshot/{ten}-{one}.db.zst.age\n",
        one + 3,
        12,
        one + 2,
        12,
        one + 1,
        one + 3,
        one + 3,
    );
    assert_eq!(order, expected.lines().collect::<Vec<_>>());
}

#[test]
fn a_pin_keeps_its_point_and_the_way_there() {
    let mut bucket = Bucket::default();
    bucket.snapshot(1, 10, 0).segment(1, 10, 20, HOUR).segment(1, 20, 30, 2 * HOUR).segment(
        1,
        30,
        40,
        3 * HOUR,
    );
    bucket.files(1, 0).files(1, 3 * HOUR).snapshot(1, 40, 4 * HOUR).snapshot(1, 41, 50 * HOUR);
    // Not of a snapshot: as a person may make it by hand.
    bucket.pin(1, "here", 25, 2 * HOUR);
    assert_eq!(
        bucket.deleted(&NOTHING),
        [('l', 3, Surplus::Before), ('s', 4, Surplus::NoRule)],
        "the archive is that of the newest too"
    );
    let name = (timeline(1), "here".parse().unwrap());
    let over = deleted(&bucket.plan(&NOTHING, &Pins::from([(name.clone(), PinState::Over)])));
    let expected = [
        ('p', 2, Surplus::Over),
        ('l', 3, Surplus::Before),
        ('l', 2, Surplus::Before),
        ('l', 1, Surplus::Before),
        ('f', 0, Surplus::Files),
        ('s', 4, Surplus::NoRule),
        ('s', 0, Surplus::NoRule),
    ];
    assert_eq!(over, expected);
    let asked = deleted(&bucket.plan(&NOTHING, &Pins::from([(name, PinState::Asked)])));
    assert_eq!(asked, expected[1..], "the sign that it was made stays");
    bucket.pin(1, "here", 40, 4 * HOUR);
    let renewed = bucket.deleted(&NOTHING);
    assert_eq!(renewed[0], ('p', 2, Surplus::Renewed));
    assert_eq!(renewed[5], ('s', 0, Surplus::NoRule), "{renewed:?}");
}

#[test]
fn merged_segments_replace_what_they_hold_once_they_are_settled() {
    let mut bucket = Bucket::default();
    bucket.snapshot(1, 10, 0).segment(1, 10, 12, 1000).segment(1, 12, 14, 2000).segment(1, 10, 14, 2000);
    bucket.segment(1, 14, 16, 3000);
    let rules = Retention { window: Duration::from_hours(1), ..NOTHING };
    assert_eq!(bucket.deleted(&rules), [], "a restore may have been planned with them");
    bucket.segment(1, 16, 18, HOUR / 2);
    let merged = [('l', 0, Surplus::Merged); 2];
    assert_eq!(bucket.deleted(&rules), merged);
    // Two writers: which is whose, names do not tell.
    bucket.segment(1, 15, 17, 4000);
    assert_eq!(bucket.deleted(&rules), []);
}

#[test]
fn a_fork_is_kept_until_the_window_has_passed_it() {
    let mut bucket = Bucket::default();
    bucket.snapshot(1, 10, 0).segment(1, 10, 14, 1000).segment(1, 10, 30, 2000).segment(1, 14, 18, 3000);
    // Of the one that stopped.
    bucket.snapshot(1, 30, 3500).segment(1, 18, 20, 4000).snapshot(1, 20, HOUR).segment(1, 20, 32, HOUR + 1);
    let rules = |hours| Retention { window: Duration::from_hours(hours), ..NOTHING };
    assert_eq!(bucket.deleted(&rules(2)), []);
    bucket.snapshot(1, 32, 2 * HOUR).segment(1, 32, 34, 2 * HOUR + 1);
    let gone: Vec<(char, Surplus)> =
        bucket.deleted(&rules(0)).into_iter().map(|(kind, _, surplus)| (kind, surplus)).collect();
    let segments = std::iter::repeat_n(('l', Surplus::Before), 5);
    assert_eq!(gone, segments.chain(std::iter::repeat_n(('s', Surplus::NoRule), 3)).collect::<Vec<_>>());
}

#[test]
fn older_timelines_count_in_the_same_rules() {
    let mut bucket = Bucket::default();
    bucket.snapshot(1, 10, 0).segment(1, 10, 20, HOUR);
    bucket.snapshot(2, 1030, 30 * HOUR).segment(2, 1030, 1040, 31 * HOUR).snapshot(2, 1040, 32 * HOUR);
    bucket.snapshot(3, 2040, 33 * HOUR).segment(3, 2040, 2050, 40 * HOUR);
    assert_eq!(bucket.kept(&Retention { last: 2, ..NOTHING }), [32, 33]);
    assert_eq!(bucket.kept(&Retention { daily: 2, ..NOTHING }), [0, 33]);
    // The window begins on the second timeline, after its end.
    let rules = Retention { window: Duration::from_hours(7) + Duration::from_mins(30), ..NOTHING };
    assert_eq!(bucket.kept(&rules), [32, 33]);
    let rules = Retention { window: Duration::from_hours(9), ..NOTHING };
    assert_eq!(bucket.kept(&rules), [30, 32, 33], "its log leads from the first to the second");
}

#[test]
fn the_newest_timeline_stays_whatever_the_clock_says() {
    let mut bucket = Bucket::default();
    bucket.snapshot(1, 10, 100 * DAY).snapshot(2, 1010, 0).segment(2, 1010, 1020, 1);
    assert_eq!(bucket.kept(&NOTHING), [0]);
    let mut only = Bucket::default();
    only.segment(1, 10, 20, 0).files(1, 0).snapshot(2, 5, 1000);
    assert_eq!(only.deleted(&NOTHING), [], "its snapshot may be under way");
    only.snapshot(2, 6, DAY);
    let orphans = only.deleted(&NOTHING);
    assert_eq!(orphans[..2], [('l', 0, Surplus::Orphan), ('f', 0, Surplus::Orphan)]);
}

/// Every snapshot is a point of its own where no log leads from one to the next.
#[test]
fn a_database_without_revisions_keeps_every_snapshot_in_the_window() {
    let mut bucket = Bucket::default();
    for hour in 0..100 {
        bucket.snapshot(1, 0, hour * HOUR);
    }
    let rules = Retention { window: Duration::from_hours(10), ..NOTHING };
    assert_eq!(bucket.kept(&rules), (89..100).collect::<Vec<_>>());
}

#[test]
fn what_is_not_ours_is_not_judged() {
    let mut bucket = hundred_days();
    let count = bucket.0.len();
    for key in ["backup_2026.db.enc", "p/backup_2026.db.enc", "p/readme.txt", "p/keys/age1x.age", "q/other"] {
        bucket.0.push(Listed { key: key.to_owned(), size: 1, modified: None });
    }
    assert_eq!(bucket.plan(&NOTHING, &Pins::new()).objects.len(), count);
}

/// Whoever takes the pod can add objects under any name: what the store says of them tells.
#[test]
fn forged_names_displace_nothing() {
    let mut honest = Bucket::default();
    for hour in 0..200_i64 {
        let (timeline, revision, captured) =
            (timeline(1), Revision::from(1000 + hour.unsigned_abs()), at(hour * HOUR));
        honest.add(
            &ObjectName::Snapshot { timeline, revision, captured },
            Some(captured.plus(Duration::from_secs(9))),
        );
        let (from, to, captured) = (revision, revision.plus(1), at((hour + 1) * HOUR - 1));
        honest.add(&ObjectName::Segment { timeline, from, to, captured }, Some(captured));
    }
    let rules =
        Retention { window: Duration::from_hours(168), last: 0, hourly: 5, daily: 9, weekly: 2, monthly: 2 };
    let before = honest.deleted(&rules);
    let now = Some(at(200 * HOUR - 1));
    for hour in 0..200_i64 {
        // The newest of each hour and part, and a merged segment that would replace all.
        let (timeline, revision, captured) =
            (timeline(1), Revision::from(1_000_000), at((hour + 1) * HOUR - 2));
        honest.add(&ObjectName::Snapshot { timeline, revision, captured }, now);
    }
    let (from, to) = (Revision::from(1000), Revision::from(1150));
    honest.add(&ObjectName::Segment { timeline: timeline(1), from, to, captured: at(150 * HOUR - 1) }, now);
    // The future.
    honest.snapshot(1, 1_000_000, 4000 * DAY).0.last_mut().unwrap().modified = now;
    let deleted = honest.plan(&rules, &Pins::new());
    let real = deleted.objects.iter().filter(|judged| {
        let is_forged = match judged.name {
            ObjectName::Snapshot { revision, .. } => revision == Revision::from(1_000_000),
            _ => false,
        };
        matches!(judged.verdict, Verdict::Delete(_)) && !is_forged
    });
    assert!(real.count() <= before.len(), "more of the honest objects go than before");
}
