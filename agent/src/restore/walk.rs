//! The **walk**: every object on the way to a point is read to its end and held against its name, its digest, its signature
//! and the chain. No database is built.

use std::io;
use std::pin::pin;

use futures::StreamExt as _;

use super::assembly::{self, AssemblyError};
use super::plan::Plan;
use super::{Keys, RestoreError, beside, fetch, route};
use crate::capture::blocking;
use crate::envelope::OpenError;
use crate::header::Header;
use crate::progress::Progress;
use crate::scratch;
use crate::snapshot;
use crate::store::Store;

/// Walks to the end of a plan; the archive of files that belongs to its point, if there is one.
pub async fn walk<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    keys: &Keys,
    progress: &Progress,
) -> Result<Option<String>, RestoreError> {
    assembly::check_gap(plan)?;
    let header = snapshot(store, plan, keys, progress).await?;
    let mut link = assembly::begin(&header, plan.snapshot.0.revision);
    let folder = scratch::folder();
    if let Some(end) = plan.fork() {
        // Where two writers went on from the same point, names do not tell which segments are whose.
        let found = route::search(store, plan, keys, link, &folder, progress).await?;
        if found.last().is_none_or(|last| (last.captured, last.to) != (end.captured, end.to)) {
            return Err(AssemblyError::Unlinked { key: end.stored.key.clone() }.into());
        }
    } else {
        let mut ahead = pin!(fetch::ahead(store, plan.segments.clone(), &folder, progress));
        while let Some(fetched) = ahead.next().await {
            let (segment, mut file) = fetched?;
            let (keys, timeline) = (keys.clone(), plan.timeline);
            link = blocking(move || route::verify(timeline, &segment, &mut file, &keys, link)).await?;
        }
    }
    let files = beside::fetch(store, plan, plan.point, keys.clone()).await?;
    Ok(files.map(|(key, _)| key))
}

/// What LIST alone can tell: a way of names without a gap, on which no object is empty.
pub fn names(plan: &Plan) -> Result<(), AssemblyError> {
    assembly::check_gap(plan)?;
    let objects = std::iter::once(&plan.snapshot.1).chain(plan.segments.iter().map(|s| &s.stored));
    match objects.into_iter().find(|stored| stored.size == 0) {
        Some(empty) => {
            let source = OpenError::Damaged("it is empty".to_owned());
            Err(AssemblyError::Object { key: empty.key.clone(), source })
        }
        None => Ok(()),
    }
}

async fn snapshot<S: Store>(
    store: &S,
    plan: &Plan,
    keys: &Keys,
    progress: &Progress,
) -> Result<Header, AssemblyError> {
    let (name, key) = (plan.snapshot_name(), plan.snapshot.1.key.clone());
    let object = store.get(&key).await?;
    let (bar, keys) = (progress.clone(), keys.clone());
    blocking(move || {
        let mut nowhere = io::sink();
        let object = bar.reading(object);
        let opened = snapshot::open(&name, object, &keys.identities, &keys.signers, &mut nowhere);
        opened.map(|(header, _)| header).map_err(|source: OpenError| AssemblyError::Object { key, source })
    })
    .await
}
