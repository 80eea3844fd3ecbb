//! `verify`: the drill. A point is restored far from every database, or its objects are read, and the result recorded.

use serde_json::json;

use super::{Place, no_identity, print, print_json};
use crate::args;
use crate::cause;
use crate::clock::{Clock, Moment};
use crate::error::Exit;
use crate::settings::Settings;
use crate::verify::{Built, Depth, Finding, record, verify};
use crate::{scratch, shutdown};

pub(super) async fn run(settings: &Settings, flags: args::Verify) -> anyhow::Result<Exit> {
    let stop = shutdown::on_signal()?;
    scratch::remove_stale(&scratch::folder());
    tokio::select! {
        result = drill(settings, flags) => result,
        () = stop.cancelled() => anyhow::bail!("told to stop before the backup was verified: nothing was recorded"),
    }
}

async fn drill(settings: &Settings, flags: args::Verify) -> anyhow::Result<Exit> {
    let place = Place::open(settings, None).await?;
    let keys = place.keys(settings).await?;
    let depth = match (keys, flags.quick) {
        (Some(keys), false) => Depth::Full(keys),
        (Some(keys), true) => Depth::Quick(keys),
        (None, true) => Depth::Names,
        (None, false) => return Err(no_identity()),
    };
    let target = flags.point.target();
    let found = Box::pin(verify(&place.store, &place.prefix, &place.name, &target, &depth)).await?;
    let now = Clock::SYSTEM.now();
    let record = match record::write(&place.store, &place.prefix, &found, now).await {
        Ok(key) => Some(key),
        Err(error) => {
            tracing::warn!(error = cause::chain(&error), "the result is not recorded in the bucket");
            None
        }
    };
    if flags.json {
        print_json(&document(&found, record.as_deref(), now))?;
    } else {
        print_lines(&found, now)?;
    }
    if let Some(problem) = &found.problem {
        eprintln!("error: {}", problem.told);
    }
    Ok(Exit::from(&found))
}

/// The JSON document; fields are only ever added.
fn document(found: &Finding, record: Option<&str>, now: Moment) -> serde_json::Value {
    json!({
        "result": if found.passed() { "ok" } else { "failed" },
        "depth": found.depth,
        "timeline": found.timeline.to_string(),
        "point": found.point,
        "newest": found.newest,
        "newestAgeSeconds": found.newest.captured.until(now).as_secs_f64(),
        "objects": found.objects,
        "bytes": found.bytes,
        "files": found.files,
        "rows": found.built.and_then(|built| built.rows),
        "databaseBytes": found.built.map(|built| built.bytes),
        "seconds": found.took.as_secs_f64(),
        "problem": found.problem.as_ref().map(|problem| &problem.told),
        "record": record,
    })
}

fn print_lines(found: &Finding, now: Moment) -> anyhow::Result<()> {
    let size = indicatif::BinaryBytes;
    let result = if found.passed() { "ok" } else { "failed" };
    let done = match (found.depth, found.passed()) {
        ("full", true) => "restored into a scratch file and checked",
        ("quick", true) => {
            "every object on the way is whole, signed as it should be, and goes on from the one before"
        }
        ("names", true) => "names lead there without a gap; without an identity nothing more can be told",
        _ => "see below",
    };
    print(&format!("{result}: timeline {}, {}: {done}", found.timeline, found.point))?;
    print(&format!("  {} objects, {}", found.objects, size(found.bytes)))?;
    if let Some(Built { rows, bytes }) = found.built {
        let rows = rows.map(|rows| format!("{rows} rows, ")).unwrap_or_default();
        print(&format!("  {rows}a database of {}", size(bytes)))?;
    }
    if let Some(key) = &found.files {
        print(&format!("  files beside the database: {key}"))?;
    }
    let age = found.newest.captured.until(now).as_secs();
    print(&format!(
        "  took {:.1} s; the newest point, {}, is {age} s old",
        found.took.as_secs_f64(),
        found.newest
    ))
}
