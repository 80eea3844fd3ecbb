//! `prune`: applies retention. No key is needed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Place, print, print_json};
use crate::args::Prune;
use crate::cause;
use crate::clock::{Clock, Moment};
use crate::error::Exit;
use crate::object_name::ObjectName;
use crate::pin::PinName;
use crate::progress::Progress;
use crate::prune::{self, Pruned};
use crate::retention::{Judged, Plan, Verdict};
use crate::settings::Settings;
use crate::timeline::Timeline;

/// The JSON document; fields are only ever added.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    bucket: String,
    dry_run: bool,
    window_from: Option<Moment>,
    objects: Vec<ObjectReport>,
    deleted: Count,
    failed: Vec<Failure>,
}

#[derive(Serialize)]
struct ObjectReport {
    key: String,
    bytes: u64,
    action: &'static str,
    reasons: Vec<String>,
}

#[derive(Serialize, Default, Clone, Copy)]
struct Count {
    objects: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct Failure {
    key: String,
    error: String,
}

pub(super) async fn run(settings: &Settings, flags: Prune) -> anyhow::Result<Exit> {
    let place = Place::open(settings, None).await?;
    let asked: Vec<PinName> = settings.pins().iter().map(|pin| pin.name.clone()).collect();
    let rules = settings.retention();
    let plan = prune::plan(&place.store, &place.prefix, &rules, &asked, Clock::SYSTEM.now()).await?;
    let due = due(&plan);
    if !flags.json {
        print_table(&plan)?;
    }
    let pruned = if flags.dry_run {
        Pruned::default()
    } else {
        let progress = Progress::objects("pruning", due.objects);
        let pruned = prune::carry_out(&place.store, &place.prefix, &plan, &progress).await;
        progress.finish();
        pruned
    };
    let size = |bytes| indicatif::BinaryBytes(bytes).to_string();
    if due.objects == 0 {
        eprintln!("nothing to prune in {}: all that is there is kept", place.name);
    } else if flags.dry_run {
        eprintln!("{} objects of {} would be deleted", due.objects, size(due.bytes));
    } else {
        eprintln!("{} of {} objects deleted, {}", pruned.objects, due.objects, size(pruned.bytes));
    }
    let failure = pruned.failure();
    if flags.json {
        print_json(&report(&place, &plan, &pruned, flags.dry_run))?;
    } else {
        for (key, error) in &pruned.failed {
            eprintln!("not deleted: {key}: {}", cause::chain(error));
        }
    }
    let Some(failure) = failure else { return Ok(Exit::Done) };
    eprintln!("error: {failure}");
    Ok(Exit::Failed)
}

fn due(plan: &Plan) -> Count {
    plan.deletions().into_iter().fold(Count::default(), Count::with)
}

impl Count {
    fn with(self, judged: &Judged) -> Self {
        Self { objects: self.objects + 1, bytes: self.bytes + judged.bytes }
    }
}

fn report(place: &Place, plan: &Plan, pruned: &Pruned, dry_run: bool) -> Report {
    let objects = plan.objects.iter().map(|judged| {
        let (action, reasons) = told(judged);
        ObjectReport { key: place.prefix.key(&judged.name), bytes: judged.bytes, action, reasons }
    });
    let failed =
        pruned.failed.iter().map(|(key, error)| Failure { key: key.clone(), error: cause::chain(error) });
    Report {
        bucket: place.name.clone(),
        dry_run,
        window_from: plan.from,
        objects: objects.collect(),
        deleted: Count { objects: pruned.objects, bytes: pruned.bytes },
        failed: failed.collect(),
    }
}

fn told(judged: &Judged) -> (&'static str, Vec<String>) {
    match &judged.verdict {
        Verdict::Keep(reasons) => ("keep", reasons.iter().map(ToString::to_string).collect()),
        Verdict::Delete(surplus) => ("delete", vec![surplus.to_string()]),
    }
}

/// Every snapshot and pin, and how much there is of the rest.
fn print_table(plan: &Plan) -> anyhow::Result<()> {
    if let Some(from) = plan.from {
        print(&format!("every revision since {from} is kept"))?;
    }
    let mut timelines: BTreeMap<Timeline, Vec<&Judged>> = BTreeMap::new();
    for judged in &plan.objects {
        if let Some(timeline) = judged.name.timeline() {
            timelines.entry(timeline).or_default().push(judged);
        }
    }
    for (timeline, objects) in timelines {
        print(&format!("timeline {timeline}"))?;
        let mut others: BTreeMap<(&str, &str, String), Count> = BTreeMap::new();
        for judged in objects {
            let (action, reasons) = told(judged);
            let reasons = reasons.join(", ");
            let what = match &judged.name {
                ObjectName::Snapshot { revision, captured, .. } => {
                    let size = indicatif::BinaryBytes(judged.bytes);
                    format!("snapshot  {revision:>12}  {captured}  {:>10}", size.to_string())
                }
                ObjectName::Pin { name, revision, captured, .. } => {
                    format!("pin       {revision:>12}  {captured}  {name}")
                }
                ObjectName::Segment { .. } => {
                    let count = others.entry(("log segments", action, reasons)).or_default();
                    *count = count.with(judged);
                    continue;
                }
                ObjectName::Verification { .. } => {
                    let count = others.entry(("verifications", action, reasons)).or_default();
                    *count = count.with(judged);
                    continue;
                }
                _ => {
                    let count = others.entry(("archives of files", action, reasons)).or_default();
                    *count = count.with(judged);
                    continue;
                }
            };
            print(&format!("  {action:6}  {what}  {reasons}"))?;
        }
        for ((what, action, reasons), Count { objects, bytes }) in others {
            print(&format!("  {action:6}  {objects} {what}, {}: {reasons}", indicatif::BinaryBytes(bytes)))?;
        }
    }
    Ok(())
}
