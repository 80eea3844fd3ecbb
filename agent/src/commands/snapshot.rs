//! `snapshot`: one snapshot now, pinned if it is given a name.

use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::{Place, blocking, database_path, print};
use crate::args;
use crate::clock::Clock;
use crate::continuity::{self, Continued};
use crate::database::{Database, DatabaseError, lock};
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
    let catalogue = place.catalogue().await?;
    let tip = continuity::newest_tip(&place.store, &place.prefix, &catalogue).await?;
    let (shared, owner) = (database.clone(), capture.owner.clone());
    let known = blocking(move || match tip {
        Some(tip) => {
            let continued = tip.continues(owner.as_ref(), &lock(&shared))?;
            Ok::<_, DatabaseError>(continued.map(|continued| (tip, continued)))
        }
        None => Ok(None),
    })
    .await?;
    let (timeline, since, not_before) = match known {
        Some((tip, Continued::Log { link, .. })) => (tip.timeline, Some(link), Some(tip.newest.captured)),
        Some((tip, Continued::Generic)) => (tip.timeline, None, Some(tip.newest.captured)),
        None => {
            let newest = catalogue.timelines.last_key_value().map(|(timeline, _)| *timeline);
            (Timeline::open_after(newest, Clock::SYSTEM.now()), None, None)
        }
    };
    let cancel = CancellationToken::new();
    let published = capture.snapshot(&database, timeline, since, not_before, &cancel).await?;
    if let Some(name) = flags.name {
        capture.pin(timeline, published.point, &PinRequest { name, keep_for: flags.keep }).await?;
    }
    print(&published.key)?;
    let (revision, bytes, took) = (published.point.revision, published.bytes, published.took.as_secs_f64());
    eprintln!("snapshot at revision {revision} published: {bytes} bytes in {took:.1} s");
    Ok(Exit::Done)
}
