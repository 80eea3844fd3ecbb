//! Restoring an object of the Go program: one encrypted file, held in memory whole, as its format wants it.

use std::io::{Read as _, Write as _};
use std::path::Path;

use secrecy::SecretString;

use super::assembly::AssemblyError;
use super::{RestoreError, placement, soundness};
use crate::capture::blocking;
use crate::catalogue::Stored;
use crate::clock::Clock;
use crate::key::seed;
use crate::revision::Revision;
use crate::store::Store;

/// Restores a seed object; returns the revision that the control plane goes on from and where the old database
/// is kept.
pub async fn carry_out<S: Store>(
    store: &S,
    stored: &Stored,
    passphrase: SecretString,
    target: &Path,
    clock: Clock,
) -> Result<(Option<Revision>, Option<std::path::PathBuf>), RestoreError> {
    let mut object = store.get(&stored.key).await.map_err(AssemblyError::Store)?;
    placement::check_unused(target)?;
    let seen = super::revision_seen(target).await;
    let scratch = placement::scratch_beside(target)?;
    let (key, size) = (stored.key.clone(), stored.size);
    let scratch = blocking(move || {
        let mut scratch = scratch;
        let mut sealed = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        object
            .read_to_end(&mut sealed)
            .map_err(|source| AssemblyError::Fetch { key: key.clone(), source })?;
        let plain =
            seed::decrypt(sealed, &passphrase).map_err(|source| AssemblyError::Seed { key, source })?;
        let write = |source| AssemblyError::Write { path: scratch.path().to_owned(), source };
        scratch.as_file().write_all(&plain).map_err(write)?;
        scratch.flush().map_err(|source| AssemblyError::Write { path: scratch.path().to_owned(), source })?;
        Ok::<_, AssemblyError>(scratch)
    })
    .await?;
    let path = scratch.path().to_owned();
    let goes_on_at = blocking(move || soundness::check_and_bump(&path, None, seen)).await?;
    let kept = placement::place(scratch, target, clock.now())?;
    Ok((goes_on_at, kept))
}
