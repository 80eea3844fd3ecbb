//! `snapshot`: one snapshot now, pinned if it is given a name.

use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::{Place, blocking, database_path, print};
use crate::args;
use crate::database::Database;
use crate::error::Exit;
use crate::pin::PinRequest;
use crate::replicator::log::{Log, Resumed, Standing};
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, flags: args::Snapshot) -> anyhow::Result<Exit> {
    let place = Place::open(settings, None).await?;
    let path = database_path(settings);
    let database = blocking(move || Database::open(&path, Arc::new(|_| {}))).await?;
    let database = Arc::new(Mutex::new(database));
    let capture = place.capture(settings, true).await?;
    let mut log = Log::new(capture);
    let published = match log.resume(&database).await? {
        Some(Resumed { standing: Standing { timeline, captured, end }, .. }) => {
            let (link, cancel) = (end.map(|(link, _)| link), CancellationToken::new());
            log.capture.snapshot(&database, timeline, link, Some(captured), &cancel).await?
        }
        None => log.begin(&database).await?,
    };
    if let Some(name) = flags.name {
        let pin = PinRequest { name, keep_for: flags.keep, since: None };
        log.capture.pin(published.timeline, published.point, &pin).await?;
    }
    print(&published.key)?;
    let (revision, bytes, took) = (published.point.revision, published.bytes, published.took.as_secs_f64());
    eprintln!("snapshot at revision {revision} published: {bytes} bytes in {took:.1} s");
    Ok(Exit::Done)
}
