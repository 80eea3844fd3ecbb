//! `list`: what can be restored, as a table or as JSON. No key is needed.

use serde::Serialize;

use super::{Place, print, print_json};
use crate::args::List;
use crate::catalogue::{Catalogue, History, RestorePoint};
use crate::clock::Moment;
use crate::continuity::{self, Tip};
use crate::cost::{Cost, Usage};
use crate::error::Exit;
use crate::revision::Revision;
use crate::settings::Settings;
use crate::timeline::Timeline;

/// The JSON document; fields are only ever added.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    bucket: String,
    timelines: Vec<TimelineListing>,
    seed_objects: Vec<SeedListing>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimelineListing {
    timeline: String,
    owner: Option<String>,
    restorable: Option<Range>,
    every_revision_from: Option<RestorePoint>,
    bytes: u64,
    snapshots: Vec<SnapshotListing>,
    segments: SegmentsListing,
    pins: Vec<PinListing>,
    files: Vec<FilesListing>,
    cost: Option<Cost>,
}

#[derive(Serialize)]
struct SegmentsListing {
    count: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct FilesListing {
    key: String,
    captured: Moment,
    bytes: u64,
}

#[derive(Serialize)]
struct Range {
    from: RestorePoint,
    to: RestorePoint,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotListing {
    key: String,
    revision: Revision,
    captured: Moment,
    bytes: u64,
}

#[derive(Serialize)]
struct PinListing {
    name: String,
    revision: Revision,
    captured: Moment,
}

#[derive(Serialize)]
struct SeedListing {
    key: String,
    modified: Option<Moment>,
    bytes: u64,
}

pub(super) async fn run(settings: &Settings, flags: List) -> anyhow::Result<Exit> {
    let place = Place::open(settings, None).await?;
    let catalogue = place.catalogue().await?;
    let mut timelines = Vec::new();
    for (timeline, history) in &catalogue.timelines {
        let tip = continuity::tip(&place.store, &place.prefix, *timeline, history).await?;
        timelines.push(timeline_listing(*timeline, tip.as_ref(), history));
    }
    let listing = Listing { bucket: place.name, timelines, seed_objects: seed_listing(&catalogue) };
    if flags.json {
        print_json(&listing)?;
    } else if catalogue.is_empty() {
        eprintln!("there is no backup in {}", listing.bucket);
    } else {
        print_table(&listing)?;
    }
    Ok(Exit::Done)
}

fn timeline_listing(timeline: Timeline, tip: Option<&Tip>, history: &History) -> TimelineListing {
    let restorable = history.oldest().zip(history.newest()).map(|(from, to)| Range { from, to });
    let snapshots = history.snapshots.iter().map(|((revision, captured), stored)| SnapshotListing {
        key: stored.key.clone(),
        revision: *revision,
        captured: *captured,
        bytes: stored.size,
    });
    let pins = history.pins.iter().map(|(name, (revision, captured))| PinListing {
        name: name.to_string(),
        revision: *revision,
        captured: *captured,
    });
    let files = history.files.iter().map(|(captured, stored)| FilesListing {
        key: stored.key.clone(),
        captured: *captured,
        bytes: stored.size,
    });
    TimelineListing {
        timeline: timeline.to_string(),
        owner: tip.and_then(|tip| tip.owner.as_ref()).map(ToString::to_string),
        restorable,
        every_revision_from: history.unbroken_from(),
        bytes: history.bytes(),
        snapshots: snapshots.collect(),
        segments: SegmentsListing {
            count: history.segments.len(),
            bytes: history.segments.iter().map(|segment| segment.stored.size).sum(),
        },
        pins: pins.collect(),
        files: files.collect(),
        cost: tip.and_then(|tip| Usage::of(&tip.metadata)).and_then(Usage::cost),
    }
}

fn seed_listing(catalogue: &Catalogue) -> Vec<SeedListing> {
    let listing = |(stored, modified): &(crate::catalogue::Stored, Option<Moment>)| SeedListing {
        key: stored.key.clone(),
        modified: *modified,
        bytes: stored.size,
    };
    catalogue.seed_objects.iter().map(listing).collect()
}

fn print_table(listing: &Listing) -> anyhow::Result<()> {
    for timeline in &listing.timelines {
        let owner = timeline.owner.as_deref().map(|owner| format!(" of {owner}")).unwrap_or_default();
        print(&format!("timeline {}{owner}, {}", timeline.timeline, size(timeline.bytes)))?;
        if let Some(Range { from, to }) = &timeline.restorable {
            print(&format!("  restorable from {from} to {to}"))?;
            if let Some(since) = timeline.every_revision_from.filter(|since| since != from) {
                print(&format!("  every revision since {since}, before that the snapshots alone"))?;
            }
        }
        if timeline.segments.count > 0 {
            let SegmentsListing { count, bytes } = timeline.segments;
            print(&format!("  {count} log segments, {}", size(bytes)))?;
        }
        if let Some(cost) = timeline.cost {
            let (requests, bytes) = (cost.requests_per_day, size(cost.bytes_per_day));
            print(&format!("  {requests} requests and {bytes} a day at the rate last seen"))?;
        }
        let pins = |snapshot: &SnapshotListing| {
            let here =
                |pin: &&PinListing| (pin.revision, pin.captured) == (snapshot.revision, snapshot.captured);
            timeline.pins.iter().filter(here).map(|pin| pin.name.as_str()).collect::<Vec<_>>().join(" ")
        };
        print(&format!("  {:>12}  {:24}  {:>10}  PINS", "REVISION", "CAPTURED", "SIZE"))?;
        for snapshot in &timeline.snapshots {
            let (revision, captured) = (snapshot.revision.to_string(), snapshot.captured.to_string());
            let line =
                format!("  {revision:>12}  {captured:24}  {:>10}  {}", size(snapshot.bytes), pins(snapshot));
            print(line.trim_end())?;
        }
    }
    if !listing.seed_objects.is_empty() {
        print("objects of the seed format, opened by ENC_KEY")?;
        for object in &listing.seed_objects {
            let modified = object.modified.map(|moment| moment.to_string()).unwrap_or_default();
            print(&format!("  {:>12}  {modified:24}  {:>10}  {}", "", size(object.bytes), object.key))?;
        }
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
