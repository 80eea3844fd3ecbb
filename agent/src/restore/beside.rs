//! Restoring the files **beside** the database.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;

use super::Keys;
use super::plan::Plan;
use crate::capture::blocking;
use crate::catalogue::RestorePoint;
use crate::clock::Moment;
use crate::envelope::OpenError;
use crate::files::{FilesError, Included, Unpacked};
use crate::host_secrets::{HostSecretError, HostSecrets};
use crate::scratch;
use crate::snapshot;
use crate::store::{Store, StoreError};

/// Where files go, and which.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Those that are wanted.
    pub included: Included,
    /// What their absolute paths are below of.
    pub root: PathBuf,
    /// What must match them in the host cluster, if there is one.
    pub secrets: Option<HostSecrets>,
}

/// Why files were not restored. The database was not placed.
#[derive(Debug, thiserror::Error)]
pub enum BesideError {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive was refused.
    #[error("{key} {source}")]
    Object {
        /// The object.
        key: String,
        /// Why.
        source: OpenError,
    },
    /// They could not be written.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The host's Secrets hold others.
    #[error(transparent)]
    Secrets(#[from] HostSecretError),
}

/// The archive that belongs to a point, read to its end: the digest and the signature come last. Its key goes with it.
pub(super) async fn fetch<S: Store>(
    store: &S,
    plan: &Plan,
    point: RestorePoint,
    keys: Keys,
) -> Result<Option<(String, File)>, BesideError> {
    let Some((name, stored)) = plan.files(point) else { return Ok(None) };
    let object = store.get(&stored.key).await?;
    blocking(move || {
        let refused = |source| BesideError::Object { key: stored.key.clone(), source };
        let io = |source| refused(OpenError::Io(source));
        let mut archive = scratch::unnamed().map_err(io)?;
        snapshot::open(&name, object, &keys.identities, &keys.signers, &mut archive).map_err(refused)?;
        archive.flush().map_err(io)?;
        archive.rewind().map_err(io)?;
        Ok(Some((stored.key, archive)))
    })
    .await
}

/// Restores the files that belong to a point; what became of them, in words. `None` if the backup has none.
pub(super) async fn restore<S: Store>(
    store: &S,
    plan: &Plan,
    point: RestorePoint,
    keys: Keys,
    beside: &Beside,
    now: Moment,
) -> Result<Option<String>, BesideError> {
    let Some((key, archive)) = fetch(store, plan, point, keys).await? else { return Ok(None) };
    let files = beside.clone();
    let unpacked = blocking(move || {
        let io = |source| BesideError::Object { key: key.clone(), source: OpenError::Io(source) };
        std::fs::create_dir_all(&files.root).map_err(io)?;
        Ok::<_, BesideError>(files.included.unpack(archive, &files.root, now)?)
    })
    .await?;
    let secrets = match &beside.secrets {
        Some(secrets) => secrets.follow(&unpacked).await?,
        None => None,
    };
    Ok(Some(told(&unpacked, secrets)))
}

fn told(unpacked: &Unpacked, secrets: Option<String>) -> String {
    let (written, unchanged) = (unpacked.written.len(), unpacked.unchanged.len());
    let kept = match unpacked.kept.len() {
        0 => String::new(),
        kept => format!("; {kept} that differed are kept as NAME.before-restore-TIME"),
    };
    let skipped = match unpacked.skipped.len() {
        0 => String::new(),
        skipped => format!("; {skipped} were left out: name their paths with --include to bring them back"),
    };
    let secrets = secrets.map(|secrets| format!("; {secrets}")).unwrap_or_default();
    format!(
        "{written} files beside the database were written, {unchanged} were as they should be{kept}{skipped}{secrets}"
    )
}
