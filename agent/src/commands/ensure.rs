//! `ensure`: before kine starts, one decision and one sentence on stdout.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::source::Origin;
use super::{Place, blocking, bring_back, database_path, host, no_identity, print};
use crate::args::Ensure;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::continuity;
use crate::database::{Database, DatabaseError, with_suffix};
use crate::ensure::{Backup, Decision, OnUnreachable, Rules, Volume, decide};
use crate::error::{self, Exit, VerbError};
use crate::files::Included;
use crate::header::DatabaseKind;
use crate::host_secrets::HostSecrets;
use crate::restore::assembly::OnDamage;
use crate::restore::beside::Beside;
use crate::restore::plan::{Target, plan};
use crate::restore::source::Source;
use crate::restore::{Order, RestoreRequest, Restored};
use crate::scratch;
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

async fn ensure(mut settings: Settings, flags: Ensure) -> anyhow::Result<Exit> {
    scratch::remove_stale(database_path(&settings).parent().unwrap_or(Path::new(".")));
    loop {
        if let Some(exit) = Box::pin(decide_and_do(&settings, &flags)).await? {
            return Ok(exit);
        }
        tracing::info!("something else is asked for by now: it is decided anew");
        settings = settings.reload()?;
    }
}

/// `None` if something else was asked for while it waited.
async fn decide_and_do(settings: &Settings, flags: &Ensure) -> anyhow::Result<Option<Exit>> {
    let rules = settings.ensure_rules(flags);
    let path = database_path(settings);
    let volume = look(path.clone()).await?;
    let done = read_marker(&path)?;
    let asked = settings.restore_request().filter(|request| done.as_deref() != Some(&request.id));
    if let (Volume::Whole(_), None) = (&volume, asked) {
        let backup = glance(settings, &rules).await;
        return match decide(&volume, backup.as_ref(), None, settings.owner(), &rules) {
            Decision::Restore(target, why) => {
                let place = Place::open(settings, None).await?;
                let wanted = Wanted { target, backup: backup.as_ref(), why, asked: None };
                Box::pin(carry_out(settings, &place, &path, wanted, rules.on_damage)).await
            }
            decision => end(decision),
        };
    }
    let place = Place::open(settings, None).await?;
    // Starting empty may be better than waiting; starting on a damaged database never is.
    let on_unreachable = match (&volume, asked) {
        (Volume::Empty, None) => rules.on_unreachable,
        _ => OnUnreachable::Block,
    };
    let Some(backup) = patiently(&place, settings, &rules, on_unreachable).await? else {
        let why = "the bucket cannot be reached: the control plane starts empty, as asked for";
        return end(Decision::Leave(why.to_owned()));
    };
    let request = asked.map(|request| (request.id.as_str(), request.target()));
    match decide(&volume, backup.as_ref(), request, settings.owner(), &rules) {
        Decision::Restore(target, why) => {
            let wanted = Wanted { target, backup: backup.as_ref(), why, asked };
            Box::pin(carry_out(settings, &place, &path, wanted, rules.on_damage)).await
        }
        decision => end(decision),
    }
}

fn end(decision: Decision) -> anyhow::Result<Option<Exit>> {
    match decision {
        Decision::Leave(why) => print(&why).map(|()| Some(Exit::Done)),
        Decision::Restore(_, why) | Decision::Fail(why) => Err(VerbError::NotReady(why).into()),
    }
}

/// The newest backup, if the bucket tells at once: a sound database does not wait for it, whatever is wrong there.
async fn glance(settings: &Settings, rules: &Rules) -> Option<Backup> {
    let asking = async {
        let place = Place::open(settings, None).await?;
        Ok::<_, anyhow::Error>(newest(&place, settings, rules).await?)
    };
    match tokio::time::timeout(GLANCE, asking).await {
        Ok(Ok(backup)) => backup,
        Ok(Err(error)) => {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "the bucket cannot be asked; the database is whole, so it is not waited for"
            );
            None
        }
        Err(_) => {
            tracing::warn!("the bucket does not answer; the database is whole, so it is not waited for");
            None
        }
    }
}

/// A restore that was decided on.
struct Wanted<'w> {
    target: Target,
    /// The newest backup, if the decision was about it.
    backup: Option<&'w Backup>,
    why: String,
    /// The restore that was asked for, if one was.
    asked: Option<&'w RestoreRequest>,
}

async fn carry_out(
    settings: &Settings,
    place: &Place,
    path: &Path,
    wanted: Wanted<'_>,
    on_damage: OnDamage,
) -> anyhow::Result<Option<Exit>> {
    let host = host::cluster(settings).await;
    let done = read_marker(path)?;
    let handover = Handover { settings, host: host.as_ref(), done: done.as_deref() };
    let Wanted { why, asked, .. } = &wanted;
    let id = asked.map(|request| request.id.as_str());
    let restored = match Box::pin(fetch(&handover, place, path, &wanted, on_damage)).await {
        Ok(Some(restored)) => restored,
        Ok(None) => return Ok(None),
        Err(error) => {
            host::tell(host.as_ref(), "Failed", &error::told(&error), done.as_deref()).await;
            return Err(error);
        }
    };
    if let Some(id) = id {
        let marker = marker(path);
        write_synced(&marker, id).with_context(|| {
            format!(
                "the restore is done but {} cannot be written, so it would be done again",
                marker.display()
            )
        })?;
    }
    let kept = restored.kept.map(|kept| format!("; what was there is kept as {}", kept.display()));
    // The control plane starts all the same: that was asked for.
    let missing = restored.missing.map(|missing| format!("; {missing}"));
    let beside = restored.beside.map(|beside| format!("; {beside}"));
    let told = [kept, beside, missing].into_iter().flatten().collect::<String>();
    let sentence = format!("{why}: restored {}{told}", restored.point);
    host::tell(host.as_ref(), "Restored", &sentence, id.or(done.as_deref())).await;
    print(&sentence)?;
    Ok(Some(Exit::Done))
}

/// Waits for what is to be handed over, and brings the database back; `None` if something else is asked for by then.
async fn fetch(
    handover: &Handover<'_>,
    own: &Place,
    path: &Path,
    wanted: &Wanted<'_>,
    on_damage: OnDamage,
) -> anyhow::Result<Option<Restored>> {
    let (settings, target) = (handover.settings, &wanted.target);
    let source = wanted.asked.and_then(|request| request.from.as_ref());
    if !handover.await_files(source.map(Source::credential_files).unwrap_or_default()).await {
        return Ok(None);
    }
    let origin = Origin::open(settings, own, source).await?;
    // A point that is asked for may lie on any timeline; the newest is that of the backup that was decided on.
    let timeline = wanted.backup.filter(|_| wanted.asked.is_none()).map(|backup| backup.timeline);
    // Before anyone hands over a key for nothing.
    plan(&origin.place.catalogue().await?, target, timeline, &origin.place.name)?;
    let identity = settings.identity_file().filter(|_| settings.passphrase().is_none());
    if !handover.await_files(identity.into_iter().collect()).await {
        return Ok(None);
    }
    let keys = origin.keys(settings).await?.ok_or_else(no_identity)?;
    host::tell(handover.host, "Restoring", &wanted.why, handover.done).await;
    let included = Included::new(settings.include().iter().cloned(), Some(path))?;
    let secrets = handover.host.map(|host| HostSecrets::new(host, path));
    let order = Order {
        target: path.to_owned(),
        on_damage,
        beside: Some(Beside { included, root: PathBuf::from("/"), secrets }),
        clock: Clock::SYSTEM,
        owner: origin.place.owner.clone(),
        above: origin.above,
    };
    bring_back(&origin.place, target, timeline, keys, &order).await.map(Some)
}

/// What lies on the volume. Nobody has the database open yet, so it is read in full.
async fn look(path: PathBuf) -> anyhow::Result<Volume> {
    let looked = blocking(move || {
        let database = Database::open(&path, Arc::new(|_| {}))?;
        if let Some(problem) = database.damage()? {
            return Ok(Volume::Damaged(problem));
        }
        Ok(Volume::Whole(match database.kind() {
            DatabaseKind::Kine => Some(database.position()?.live),
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

/// The newest backup in the bucket that is this owner's; if none is, the newest of all.
async fn newest(place: &Place, settings: &Settings, rules: &Rules) -> Result<Option<Backup>, StoreError> {
    let catalogue = place.catalogue().await?;
    let mut other = None;
    for (timeline, history) in catalogue.timelines.iter().rev() {
        let tip = continuity::tip(&place.store, &place.prefix, *timeline, history).await?;
        let Some((tip, newest)) = tip.zip(history.newest()) else { continue };
        let backup = Backup { timeline: *timeline, owner: tip.owner, newest };
        if backup.is_of(settings.owner(), rules.adopt) {
            return Ok(Some(backup));
        }
        other.get_or_insert(backup);
    }
    Ok(other)
}

/// The newest backup, however long the bucket takes to answer; the outer `None` when it cannot be reached and need
/// not be waited for.
async fn patiently(
    place: &Place,
    settings: &Settings,
    rules: &Rules,
    on_unreachable: OnUnreachable,
) -> anyhow::Result<Option<Option<Backup>>> {
    loop {
        match newest(place, settings, rules).await {
            Ok(backup) => return Ok(Some(backup)),
            Err(error) if !error.is_retryable() => return Err(error.into()),
            Err(error) if on_unreachable == OnUnreachable::Start => {
                tracing::warn!(%error, "the bucket cannot be asked");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(%error, "the bucket cannot be asked; starting could bury a backup, so it is tried again");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

/// What is handed over for a restore alone: the identity, and the credentials of a source.
struct Handover<'h> {
    settings: &'h Settings,
    host: Option<&'h Cluster>,
    /// The restore that was done last.
    done: Option<&'h str>,
}

impl Handover<'_> {
    /// Waits until these files are there; whether they are what is still asked for.
    async fn await_files(&self, files: Vec<&Path>) -> bool {
        let (mut told, mut looked) = (false, Instant::now());
        while let Some(path) = files.iter().find(|path| !path.exists()) {
            if !told {
                tracing::warn!(phase = "AwaitingKey", identity = %path.display(), "a restore waits for the identity");
                host::tell(self.host, "AwaitingKey", "a restore waits for the identity", self.done).await;
                told = true;
            }
            tokio::time::sleep(KEY_PATIENCE).await;
            if looked.elapsed() >= PATIENCE {
                looked = Instant::now();
                if self.is_outdated() {
                    return false;
                }
            }
        }
        true
    }

    /// Whether another restore is asked for by now, or none. A file that cannot be read says nothing.
    fn is_outdated(&self) -> bool {
        let now = self.settings.reload();
        now.is_ok_and(|now| now.restore_request() != self.settings.restore_request())
    }
}

/// Beside the database: the id of the last restore that was asked for and done.
fn marker(database: &Path) -> PathBuf {
    with_suffix(database, ".restored")
}

fn write_synced(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(super) fn read_marker(database: &Path) -> anyhow::Result<Option<String>> {
    let path = marker(database);
    match std::fs::read_to_string(&path) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
