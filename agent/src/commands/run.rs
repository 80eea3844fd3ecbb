//! `run`: replicates until SIGTERM.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Place, database_path, host};
use crate::args::Run;
use crate::capture::Capture;
use crate::error::Exit;
use crate::files::Included;
use crate::key::Recipients;
use crate::keyring::{self, KeyringError};
use crate::metrics::Metrics;
use crate::replicator::{Replicator, Report, Rhythm};
use crate::settings::Settings;
use crate::status::Status;
use crate::{listen, scratch, shutdown};

/// How often the configuration and recipients files are looked at.
const RELOAD: Duration = Duration::from_secs(2);

/// How long a bucket that does not answer at the start is left alone.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(settings: Settings, flags: Run) -> anyhow::Result<Exit> {
    let stop = shutdown::on_signal()?;
    scratch::remove_stale(&std::env::temp_dir());
    let metrics = Metrics::default();
    let place = Place::open(&settings, Some(&metrics)).await?;
    let (status, statuses) = watch::channel(Status::default());
    let mut tasks = JoinSet::new();
    if let Some(address) = settings.listen().filter(|_| !flags.once) {
        let listener = listen::bind(address).await?;
        let watcher = listen::Watched { metrics: metrics.clone(), status: statuses.clone() };
        tasks.spawn(listen::serve(listener, watcher, stop.clone()));
    }
    let Some(capture) = first_capture(&place, &settings, flags.once, &stop).await? else {
        return Ok(Exit::Done);
    };
    let (rhythm, rhythms) = watch::channel(rhythm(&settings, capture.recipients.clone()));
    let database = settings.reload()?;
    let find = move || database_path(&database);
    let included = Included::new(settings.include().iter().cloned(), Some(&database_path(&settings)))?;
    let report = Report { metrics, status };
    let (replicator, tidying) = Replicator::new(capture, included, find, rhythms, report);
    if flags.once {
        Box::pin(replicator.run_once()).await?;
        return Ok(Exit::Done);
    }
    let grace = settings.shutdown_grace();
    if let Some(cluster) = host::cluster(&settings).await {
        tasks.spawn(host::keep_telling(cluster, statuses, database_path(&settings), stop.clone()));
    }
    tasks.spawn(reload(settings, place, rhythm, stop.clone()));
    // Broken off at the end: it loses nothing, and the pod's time is short.
    let tidying = tokio::spawn(tidying);
    let mut replicated = {
        let stop = stop.clone();
        tokio::spawn(async move { Box::pin(replicator.run(stop, grace)).await })
    };
    // The other tasks end when told to stop, while the replicator still ships its last, or by failing.
    loop {
        tokio::select! {
            ended = &mut replicated => break ended.context("the replicator broke off")??,
            Some(ended) = tasks.join_next() => ended.context("a task broke off")??,
        }
    }
    stop.cancel();
    tidying.abort();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task broke off")??;
    }
    Ok(Exit::Done)
}

/// What publishes. In passphrase mode the bucket must answer first, and a sidecar waits for it; `None` if it was
/// told to stop meanwhile.
async fn first_capture(
    place: &Place,
    settings: &Settings,
    once: bool,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Capture<std::sync::Arc<crate::store::S3Store>>>> {
    loop {
        let error = tokio::select! {
            captured = place.capture(settings, false) => match captured {
                Ok(capture) => return Ok(Some(capture)),
                Err(error) => error,
            },
            () = stop.cancelled() => return Ok(None),
        };
        if once || !is_away(&error) {
            return Err(error);
        }
        tracing::warn!(error = format!("{error:#}"), "the bucket does not answer; it is tried again");
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
}

/// Whether the bucket could not be asked, and may be later.
fn is_away(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(KeyringError::Store(error)) if error.is_retryable())
}

fn rhythm(settings: &Settings, recipients: Recipients) -> Rhythm {
    Rhythm {
        sync_interval: settings.sync_interval(),
        idle_interval: settings.idle_interval(),
        snapshot_interval: settings.snapshot_interval(),
        pins: settings.pins().to_vec(),
        retention: settings.retention(),
        append_only: settings.append_only(),
        recipients,
    }
}

/// Reads the files again when they change; what is wrong in them is told once and changes nothing.
async fn reload(
    mut settings: Settings,
    place: Place,
    rhythms: watch::Sender<Rhythm>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut seen = stamps(&settings);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(RELOAD) => {}
        }
        let now = stamps(&settings);
        if now == seen {
            continue;
        }
        let read = tokio::select! {
            read = read_again(&settings, &place) => read,
            () = stop.cancelled() => return Ok(()),
        };
        match read {
            Ok((read, rhythm)) => {
                tracing::info!("settings were read again");
                settings = read;
                rhythms.send_replace(rhythm);
            }
            Err(error) if is_away(&error) => continue,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the settings are wrong: the old ones stay in force"
                );
            }
        }
        seen = now;
    }
}

async fn read_again(settings: &Settings, place: &Place) -> anyhow::Result<(Settings, Rhythm)> {
    let read = settings.reload()?;
    let named = read.recipients()?;
    let recipients = keyring::recipients(&place.store, &place.prefix, named, read.passphrase()).await?;
    let rhythm = rhythm(&read, recipients);
    Ok((read, rhythm))
}

/// When each file was last changed. A mounted ConfigMap or Secret changes by a link that is swapped, which this
/// follows.
fn stamps(settings: &Settings) -> Vec<(PathBuf, Option<SystemTime>)> {
    let changed = |path: PathBuf| {
        let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        (path, changed)
    };
    settings.watched_files().into_iter().map(changed).collect()
}
