//! **Property tests of retention**: of a random bucket, with random rules, whatever is deleted and wherever that is broken
//! off, every revision of the window, every kept snapshot and every pin in force can still be restored, from the same
//! timeline and to the same point.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use vcluster_backup::catalogue::{Catalogue, Listed, RestorePoint};
use vcluster_backup::clock::Moment;
use vcluster_backup::object_name::{ObjectName, Prefix};
use vcluster_backup::restore::plan::{Target, plan};
use vcluster_backup::retention::{self, PinState, Pins, Retention, Verdict};
use vcluster_backup::revision::Revision;
use vcluster_backup::timeline::Timeline;

const START: i64 = 1_793_491_200_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// What happens next in a bucket's life.
#[derive(Debug, Clone)]
enum Event {
    /// So many rows are shipped.
    Segment(u64),
    Snapshot,
    /// A snapshot between two segments that went on for a while: its last rows are shipped after it.
    Ahead(u64),
    /// The last so many segments are merged, and those that they were stay or go.
    Merge(usize, bool),
    Files,
    Pin(u8),
    /// Another timeline begins; whether its revisions go on above.
    Timeline(bool),
    /// Nothing happens for so many minutes.
    Asleep(i64),
    /// A segment was lost.
    Loss,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1_u64..5).prop_map(Event::Segment),
        5 => Just(Event::Snapshot),
        1 => (1_u64..5).prop_map(Event::Ahead),
        3 => (2_usize..6, any::<bool>()).prop_map(|(count, stay)| Event::Merge(count, stay)),
        1 => Just(Event::Files),
        1 => (0_u8..4).prop_map(Event::Pin),
        1 => any::<bool>().prop_map(Event::Timeline),
        3 => (1_i64..3000).prop_map(Event::Asleep),
        1 => Just(Event::Loss),
    ]
}

fn rules() -> impl Strategy<Value = Retention> {
    let window = prop_oneof![Just(0_u64), 1_u64..120, 120_u64..20_000];
    (window, 0_u32..4, 0_u32..5, 0_u32..5, 0_u32..3, 0_u32..3).prop_map(
        |(minutes, last, hourly, daily, weekly, monthly)| {
            let window = Duration::from_mins(minutes);
            Retention { window, last, hourly, daily, weekly, monthly }
        },
    )
}

/// The bucket that these events make; and the keys of segments that no merging has replaced.
fn bucket(events: &[Event]) -> Vec<ObjectName> {
    let (mut now, mut revision) = (START, 100_u64);
    let mut timeline = Timeline::open(Moment::from_millis(now));
    let mut names = vec![ObjectName::Snapshot {
        timeline,
        revision: revision.into(),
        captured: Moment::from_millis(now),
    }];
    // The timeline's segments that may be merged: from, to, captured.
    let mut log: Vec<(u64, u64, Moment)> = Vec::new();
    for event in events {
        now += 7 * MINUTE + 1;
        let captured = Moment::from_millis(now);
        match *event {
            Event::Segment(rows) => {
                names.push(segment(timeline, revision, revision + rows, captured));
                log.push((revision, revision + rows, captured));
                revision += rows;
            }
            Event::Snapshot => {
                names.push(ObjectName::Snapshot { timeline, revision: revision.into(), captured });
            }
            Event::Ahead(rows) => {
                let ahead = Revision::from(revision + rows);
                names.push(ObjectName::Snapshot { timeline, revision: ahead, captured });
                let captured = Moment::from_millis(now + 30_000);
                names.push(segment(timeline, revision, revision + rows, captured));
                log.push((revision, revision + rows, captured));
                revision += rows;
            }
            Event::Merge(count, stay) => {
                let members = log.split_off(log.len().saturating_sub(count));
                let (Some(first), Some(last)) = (members.first(), members.last()) else { continue };
                if members.len() < 2 || members.windows(2).any(|pair| pair[0].1 != pair[1].0) {
                    log.extend(members);
                    continue;
                }
                let whole = (first.0, last.1, last.2);
                if !stay {
                    names.retain(|name| !members.iter().any(|m| *name == segment(timeline, m.0, m.1, m.2)));
                }
                names.push(segment(timeline, whole.0, whole.1, whole.2));
                log.push(whole);
            }
            Event::Files => names.push(ObjectName::Files { timeline, captured }),
            Event::Pin(number) => {
                let newest = names.iter().rev().find_map(|name| match name {
                    ObjectName::Snapshot { timeline: of, revision, captured } if *of == timeline => {
                        Some((*revision, *captured))
                    }
                    _ => None,
                });
                let (revision, captured) = newest.unwrap();
                let name = format!("pin-{number}").parse().unwrap();
                let pin = ObjectName::Pin { timeline, name, revision, captured };
                if !names.contains(&pin) {
                    names.push(pin);
                }
            }
            Event::Timeline(above) => {
                timeline = Timeline::open(captured);
                revision = if above { revision + 1000 } else { revision.saturating_sub(20).max(10) };
                names.push(ObjectName::Snapshot { timeline, revision: revision.into(), captured });
                log.clear();
            }
            Event::Asleep(minutes) => now += minutes * MINUTE,
            Event::Loss => {
                if let Some((from, to, captured)) = log.pop() {
                    names.retain(|name| *name != segment(timeline, from, to, captured));
                }
            }
        }
    }
    names
}

fn segment(timeline: Timeline, from: u64, to: u64, captured: Moment) -> ObjectName {
    ObjectName::Segment { timeline, from: from.into(), to: to.into(), captured }
}

fn catalogue<'n>(names: impl IntoIterator<Item = &'n ObjectName>) -> Catalogue {
    let listed = names.into_iter().map(|name| Listed { key: name.to_string(), size: 1, modified: None });
    Catalogue::new(&Prefix::default(), &listed.collect::<Vec<_>>())
}

/// What must come back: by this target on this timeline (or on any), at this point, with these files.
type Promise = (Target, Option<Timeline>, Timeline, RestorePoint, Option<ObjectName>);

fn restored(catalogue: &Catalogue, target: &Target, on: Option<Timeline>) -> Option<Promise> {
    let plan = plan(catalogue, target, on, "here").ok()?;
    // The names that the plan gives must lead there without a gap.
    let mut reached = plan.snapshot.0.revision;
    for segment in &plan.segments {
        assert!(segment.from <= reached, "a gap before {}", segment.stored.key);
        reached = reached.max(segment.to);
    }
    assert!(reached >= plan.point.revision);
    let files = plan.files(plan.point).map(|(name, _)| name);
    Some((target.clone(), on, plan.timeline, plan.point, files))
}

/// Everything that retention promises of a bucket.
fn promises(names: &[ObjectName], kept: &retention::Plan, rules: &Retention, pins: &Pins) -> Vec<Promise> {
    let catalogue = catalogue(names);
    let newest = names.iter().filter_map(|name| match name {
        ObjectName::Snapshot { captured, .. } | ObjectName::Segment { captured, .. } => Some(*captured),
        _ => None,
    });
    let from = newest.max().unwrap().minus(rules.window);
    assert_eq!(kept.from, Some(from));
    let mut promises = Vec::new();
    for name in names {
        match name {
            ObjectName::Segment { timeline, from: after, to, captured } if *captured > from => {
                for revision in after.number() + 1..=to.number() {
                    promises.extend(restored(
                        &catalogue,
                        &Target::Revision(revision.into()),
                        Some(*timeline),
                    ));
                }
            }
            ObjectName::Snapshot { timeline, revision, captured } if *captured > from => {
                promises.extend(restored(&catalogue, &Target::Revision(*revision), Some(*timeline)));
            }
            ObjectName::Pin { timeline, name, .. } if !pins.contains_key(&(*timeline, name.clone())) => {
                promises.extend(restored(&catalogue, &Target::Pin(name.clone()), Some(*timeline)));
            }
            _ => {}
        }
    }
    for judged in &kept.objects {
        if let (ObjectName::Snapshot { timeline, revision, .. }, Verdict::Keep(_)) =
            (&judged.name, &judged.verdict)
        {
            promises.extend(restored(&catalogue, &Target::Revision(*revision), Some(*timeline)));
        }
    }
    promises.extend(restored(&catalogue, &Target::Latest, None));
    promises
}

fn judge(names: &[ObjectName], rules: &Retention, pins: &Pins) -> retention::Plan {
    retention::plan(&catalogue(names), rules, pins)
}

fn states(names: &[ObjectName], over: u8) -> Pins {
    let over = |name: &ObjectName| match name {
        ObjectName::Pin { timeline, name, .. } if name.to_string() == format!("pin-{over}") => {
            Some(((*timeline, name.clone()), PinState::Over))
        }
        _ => None,
    };
    names.iter().filter_map(over).collect()
}

/// A point may be told a little differently when another snapshot is the way to it: the revision and the files count.
fn same(promise: &Promise, found: Option<&Promise>) -> bool {
    found.is_some_and(|found| {
        (promise.2, promise.3.revision) == (found.2, found.3.revision)
            && (promise.4.is_none() || found.4.is_some())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_promised_comes_back_wherever_it_is_broken_off(
        events in proptest::collection::vec(event(), 1..80),
        rules in rules(),
        over in 0_u8..4,
        cut in 0.0_f64..1.0,
    ) {
        let names = bucket(&events);
        let pins = states(&names, over);
        let kept = judge(&names, &rules, &pins);
        prop_assert_eq!(kept.objects.len(), names.len(), "every object is judged once");
        let promises = promises(&names, &kept, &rules, &pins);
        let gone: Vec<&ObjectName> = kept.deletions().into_iter().map(|judged| &judged.name).collect();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let some = (gone.len() as f64 * cut) as usize;
        for count in [some, gone.len()] {
            let gone: BTreeSet<&ObjectName> = gone[..count].iter().copied().collect();
            let left: Vec<ObjectName> = names.iter().filter(|name| !gone.contains(name)).cloned().collect();
            let after = catalogue(&left);
            for promise in &promises {
                let found = restored(&after, &promise.0, promise.1);
                prop_assert!(
                    same(promise, found.as_ref()),
                    "{:?} after {count} deletions of {}: {:?}", promise, kept.deletions().len(), found
                );
            }
            // What is left is judged as it was: nothing more goes, and what is still to go does.
            let again = judge(&left, &rules, &pins);
            let again: BTreeSet<&ObjectName> = again.deletions().into_iter().map(|judged| &judged.name).collect();
            let rest: BTreeSet<&ObjectName> =
                kept.deletions().into_iter().map(|judged| &judged.name).filter(|name| !gone.contains(name)).collect();
            prop_assert_eq!(again, rest, "after {} deletions", count);
        }
    }

    /// Whatever time in the window is asked for, the same timeline and revision answer, or as near as the marks in the log
    /// tell it.
    #[test]
    fn a_time_in_the_window_means_the_same_timeline(
        events in proptest::collection::vec(event(), 1..80),
        rules in rules(),
        at in 0_i64..30 * DAY,
    ) {
        let names = bucket(&events);
        let kept = judge(&names, &rules, &Pins::new());
        let at = Moment::from_millis(START + at);
        prop_assume!(kept.from.is_some_and(|from| at >= from));
        let left: Vec<ObjectName> = kept.objects.iter()
            .filter(|judged| matches!(judged.verdict, Verdict::Keep(_)))
            .map(|judged| judged.name.clone()).collect();
        let timeline = |names: &[ObjectName]| {
            restored(&catalogue(names), &Target::At(at), None).map(|promise| promise.2)
        };
        prop_assert_eq!(timeline(&names), timeline(&left));
    }
}
