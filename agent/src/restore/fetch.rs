//! **Fetching** segments ahead of their use, several at a time, into scratch files: memory stays bounded, and so does the
//! disk, for a file is gone when its rows are applied.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt as _, stream};

use super::assembly::AssemblyError;
use crate::capture::blocking;
use crate::catalogue::Segment;
use crate::envelope::TransportError;
use crate::progress::Progress;
use crate::store::Store;

/// Downloads at a time; a few hide the way to a distant store.
const AT_A_TIME: usize = 4;

/// Fetches segments in order, some ahead.
pub(super) fn ahead<S: Store + Clone>(
    store: &S,
    segments: Vec<Segment>,
    folder: &Path,
    progress: &Progress,
) -> impl Stream<Item = Result<(Segment, File), AssemblyError>> + use<S> {
    let (store, folder, progress) = (store.clone(), folder.to_owned(), progress.clone());
    let fetch = move |segment: Segment| {
        let (store, folder, progress) = (store.clone(), folder.clone(), progress.clone());
        async move {
            let file = one(&store, &segment, folder, &progress).await?;
            Ok((segment, file))
        }
    };
    stream::iter(segments).map(fetch).buffered(AT_A_TIME)
}

/// Fetches one segment.
pub(super) async fn one<S: Store + Clone>(
    store: &S,
    segment: &Segment,
    folder: PathBuf,
    progress: &Progress,
) -> Result<File, AssemblyError> {
    let object = store.get(&segment.stored.key).await?;
    let (key, bar) = (segment.stored.key.clone(), progress.clone());
    blocking(move || {
        let write = |source| AssemblyError::Write { path: folder.clone(), source };
        let mut file = tempfile::tempfile_in(&folder).map_err(write)?;
        let mut object = bar.reading(object);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match object.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => file.write_all(&buffer[..read]).map_err(write)?,
                Err(source) => return Err(broken(key, source)),
            }
        }
        file.rewind().map_err(write)?;
        Ok(file)
    })
    .await
}

/// An object that could not be fetched to its end; one that is no longer there was merged into another meanwhile.
fn broken(key: String, source: io::Error) -> AssemblyError {
    match source.downcast::<TransportError>() {
        Ok(TransportError(error)) => match error.downcast() {
            Ok(error) => AssemblyError::Store(*error),
            Err(error) => AssemblyError::Fetch { key, source: io::Error::other(error) },
        },
        Err(source) => AssemblyError::Fetch { key, source },
    }
}
