//! `ensure`: before kine starts, one decision and one sentence on stdout.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::{Place, blocking, database_path, no_identity};
use crate::args::Ensure;
use crate::clock::Clock;
use crate::continuity;
use crate::database::{Database, DatabaseError};
use crate::ensure::{Backup, Decision, OnUnreachable, Volume, decide};
use crate::error::{Exit, VerbError};
use crate::header::DatabaseKind;
use crate::progress::Progress;
use crate::restore::placement::with_suffix;
use crate::restore::plan::{Target, plan};
use crate::restore::{self, Keys};
use crate::settings::Settings;
use crate::shutdown;
use crate::store::StoreError;

/// How often what is waited for is looked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same for the identity: looking costs one look-up in a folder, and an outage ends with it.
const KEY_PATIENCE: Duration = Duration::from_millis(200);

/// A sound database does not wait longer for the bucket: kine may start.
const GLANCE: Duration = Duration::from_secs(10);

pub(super) async fn run(settings: Settings, flags: Ensure) -> anyhow::Result<Exit> {
    let stop = shutdown::on_signal()?;
    tokio::select! {
        result = ensure(settings, flags) => result,
        () = stop.cancelled() => anyhow::bail!("told to stop before the database was ready: nothing was changed"),
    }
}

async fn ensure(settings: Settings, flags: Ensure) -> anyhow::Result<Exit> {
    let rules = settings.ensure_rules(flags);
    let path = database_path(&settings);
    let volume = look(path.clone()).await?;
    let place = Place::open(&settings, None).await?;
    let done = read_marker(&path)?;
    let asked = settings.restore_request().filter(|request| done.as_deref() != Some(&request.id));
    let backup = match &volume {
        Volume::Whole(_) if asked.is_none() => match tokio::time::timeout(GLANCE, newest(&place)).await {
            Ok(Ok(backup)) => backup,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the bucket cannot be asked; the database is whole, so it is not waited for");
                None
            }
            Err(_) => {
                tracing::warn!("the bucket does not answer; the database is whole, so it is not waited for");
                None
            }
        },
        _ => match patiently(&place, rules.on_unreachable).await? {
            Some(backup) => backup,
            None => {
                return Ok(leave(
                    "the bucket cannot be reached: the control plane starts empty, as asked for",
                ));
            }
        },
    };
    let request = asked.map(|request| (request.id.as_str(), request.target()));
    let id = asked.map(|request| request.id.clone());
    match decide(&volume, backup.as_ref(), request, settings.owner(), &rules) {
        Decision::Leave(why) => Ok(leave(&why)),
        Decision::Fail(why) => Err(VerbError::NotReady(why).into()),
        Decision::Restore(target, why) => bring_back(&settings, &place, &path, &target, &why, id).await,
    }
}

fn leave(why: &str) -> Exit {
    println!("{why}");
    Exit::Done
}

async fn bring_back(
    settings: &Settings,
    place: &Place,
    path: &Path,
    target: &Target,
    why: &str,
    id: Option<String>,
) -> anyhow::Result<Exit> {
    let plan = plan(&place.catalogue().await?, target, None, &place.name)?;
    let keys = await_keys(settings, place).await?;
    let progress = Progress::bytes("restoring", plan.bytes());
    let restored = restore::carry_out(&place.store, &plan, keys, path, Clock::SYSTEM, &progress).await;
    progress.finish();
    let restored = restored?;
    if let Some(id) = id {
        let marker = marker(path);
        std::fs::write(&marker, id).with_context(|| {
            format!(
                "the restore is done but {} cannot be written, so it would be done again",
                marker.display()
            )
        })?;
    }
    let kept = restored.kept.map(|kept| format!("; what was there is kept as {}", kept.display()));
    println!("{why}: restored {}{}", plan.point, kept.unwrap_or_default());
    Ok(Exit::Done)
}

/// What lies on the volume. Nobody has the database open yet, so it is read in full.
async fn look(path: PathBuf) -> anyhow::Result<Volume> {
    let looked = blocking(move || {
        let database = Database::open(&path, Arc::new(|_| {}))?;
        if let Some(problem) = database.damage()? {
            return Ok(Volume::Damaged(problem));
        }
        Ok(Volume::Whole(match database.kind() {
            DatabaseKind::Kine => Some(database.sequence()?),
            DatabaseKind::Generic => None,
        }))
    })
    .await;
    match looked {
        Err(DatabaseError::Missing(_) | DatabaseError::Empty(_)) => Ok(Volume::Empty),
        Err(DatabaseError::NotSqlite(_)) => Ok(Volume::Damaged("it is not a SQLite file".to_owned())),
        Err(error) if error.is_damage() => Ok(Volume::Damaged(error.to_string())),
        looked => Ok(looked?),
    }
}

/// The newest backup in the bucket.
async fn newest(place: &Place) -> Result<Option<Backup>, StoreError> {
    let catalogue = place.catalogue().await?;
    let Some(tip) = continuity::newest_tip(&place.store, &place.prefix, &catalogue).await? else {
        return Ok(None);
    };
    let newest = catalogue.timelines.get(&tip.timeline).and_then(crate::catalogue::History::newest);
    Ok(newest.map(|newest| Backup { owner: tip.owner, newest }))
}

/// The newest backup, however long the bucket takes to answer; the outer `None` when it cannot be reached and need
/// not be waited for.
async fn patiently(place: &Place, on_unreachable: OnUnreachable) -> anyhow::Result<Option<Option<Backup>>> {
    loop {
        match newest(place).await {
            Ok(backup) => return Ok(Some(backup)),
            Err(error) if !error.is_retryable() => return Err(error.into()),
            Err(error) if on_unreachable == OnUnreachable::Start => {
                tracing::warn!(%error, "the bucket cannot be asked");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(%error, "the bucket cannot be asked; starting empty could bury a backup, so it is tried again");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

/// The keys, waited for if the identity is to be handed over first.
async fn await_keys(settings: &Settings, place: &Place) -> anyhow::Result<Keys> {
    let mut told = false;
    while let Some(path) = settings.identity_file().filter(|path| !path.exists()) {
        if settings.passphrase().is_some() {
            break;
        }
        if !told {
            tracing::warn!(phase = "AwaitingKey", identity = %path.display(), "a restore waits for the identity");
            told = true;
        }
        tokio::time::sleep(KEY_PATIENCE).await;
    }
    place.keys(settings).await?.ok_or_else(no_identity)
}

/// Beside the database: the id of the last restore that was asked for and done.
fn marker(database: &Path) -> PathBuf {
    with_suffix(database, ".restored")
}

fn read_marker(database: &Path) -> anyhow::Result<Option<String>> {
    let path = marker(database);
    match std::fs::read_to_string(&path) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
