//! The **drill**: a whole restore, done as any other, into a scratch file that is thrown away.

use super::assembly::{self, Assembled, AssemblyError, OnDamage};
use super::plan::Plan;
use super::{Keys, RestoreError, beside, soundness};
use crate::capture::blocking;
use crate::progress::Progress;
use crate::scratch;
use crate::store::Store;

/// A restore that went well, or as far as the objects let it.
#[derive(Debug)]
pub struct Drilled {
    /// What was assembled; around a bad object, if there is one.
    pub assembled: Assembled,
    /// Rows of kine's; `None` for a database that is not kine's.
    pub rows: Option<u64>,
    /// Bytes of the database.
    pub bytes: u64,
    /// The archive of files that would have been restored beside it.
    pub files: Option<String>,
}

/// Carries out a plan far from every database. The scratch file is gone when this returns, or is dropped.
pub async fn drill<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    keys: &Keys,
    progress: &Progress,
) -> Result<Drilled, RestoreError> {
    let write = |source| AssemblyError::Write { path: scratch::folder(), source };
    let folder = scratch::directory().map_err(write)?;
    let path = folder.path().join("state.db");
    let (highest, last_good) = (plan.highest_revision, OnDamage::LastGood);
    let assembled =
        assembly::assemble(store, plan, keys.clone(), highest, &path, last_good, progress).await?;
    let files = beside::fetch(store, plan, assembled.point, keys.clone()).await?.map(|(key, _)| key);
    let up_to = assembled.point.revision;
    let (rows, bytes) = blocking(move || soundness::measure(&path, up_to)).await?;
    Ok(Drilled { assembled, rows, bytes, files })
}
