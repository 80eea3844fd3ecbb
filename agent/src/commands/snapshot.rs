//! `snapshot`: one snapshot now, pinned if it is given a name.

use std::sync::{Arc, Mutex};

use super::{Place, blocking, database_path, print};
use crate::args;
use crate::capture::lock;
use crate::clock::Clock;
use crate::continuity;
use crate::database::{Database, DatabaseError};
use crate::error::Exit;
use crate::pin::PinRequest;
use crate::settings::Settings;
use crate::timeline::Timeline;

pub(super) async fn run(settings: &Settings, flags: args::Snapshot) -> anyhow::Result<Exit> {
    let place = Place::open(settings, None).await?;
    let path = database_path(settings);
    let database = blocking(move || Database::open(&path, Arc::new(|_| {}))).await?;
    let database = Arc::new(Mutex::new(database));
    let capture = place.capture(settings, true).await?;
    let tip = continuity::newest_tip(&place.store, &place.prefix, &place.catalogue().await?).await?;
    let (shared, owner) = (database.clone(), capture.owner.clone());
    let known = blocking(move || match tip {
        Some(tip) => {
            Ok::<_, DatabaseError>(tip.continues(owner.as_ref(), &lock(&shared))?.then_some(tip.timeline))
        }
        None => Ok(None),
    })
    .await?;
    let timeline = known.unwrap_or_else(|| Timeline::open(Clock::SYSTEM.now()));
    let published = capture.snapshot(&database, timeline).await?;
    if let Some(name) = flags.name {
        capture.pin(&published.name, &PinRequest { name, keep_for: flags.keep }).await?;
    }
    print(&published.key)?;
    let (revision, bytes, took) = (published.copied.revision, published.bytes, published.took.as_secs_f64());
    eprintln!("snapshot at revision {revision} published: {bytes} bytes in {took:.1} s");
    Ok(Exit::Done)
}
