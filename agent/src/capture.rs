//! **Capture**: takes what the database holds and publishes it, encrypted and signed.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tempfile::NamedTempFile;

use crate::clock::{Clock, Moment};
use crate::continuity;
use crate::database::{Copied, Database, DatabaseError};
use crate::header::{Content, Header, Owner};
use crate::key::Recipients;
use crate::object_name::{ObjectName, Prefix};
use crate::pin::PinRequest;
use crate::progress::Progress;
use crate::scratch;
use crate::signing::SigningKey;
use crate::snapshot;
use crate::store::{Metadata, PartWriter, Parts, Store, StoreError, parts};
use crate::timeline::Timeline;

/// How often a copy is begun anew when kine replaces the database under it.
const ATTEMPTS: u32 = 10;

/// A database shared with the threads that may block on it.
pub type SharedDatabase = Arc<Mutex<Database>>;

/// Why nothing was captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The database could not be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The bucket did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The scratch copy failed.
    #[error("cannot use a scratch file in {folder}: TMPDIR names the folder for scratch files")]
    Scratch {
        /// The folder.
        folder: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Encrypting failed.
    #[error("cannot encrypt {object}")]
    Seal {
        /// The object.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A published snapshot.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its name.
    pub name: ObjectName,
    /// Its full key.
    pub key: String,
    /// What it holds.
    pub copied: Copied,
    /// When its newest row was captured.
    pub captured: Moment,
    /// Its size in the bucket.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Everything that stays the same from one capture to the next.
#[derive(Clone)]
pub struct Capture<S> {
    /// Where objects go.
    pub store: S,
    /// Under which folder.
    pub prefix: Prefix,
    /// Who can read them.
    pub recipients: Recipients,
    /// Who vouches for them.
    pub signing_key: Option<Arc<SigningKey>>,
    /// Whose they are.
    pub owner: Option<Owner>,
    /// What time it is.
    pub clock: Clock,
    /// Whether a person waits for it.
    pub watched: bool,
}

impl<S: Store + Clone> Capture<S> {
    /// Publishes one snapshot of the database on `timeline`.
    pub async fn snapshot(
        &self,
        database: &SharedDatabase,
        timeline: Timeline,
    ) -> Result<Published, CaptureError> {
        let began = std::time::Instant::now();
        let (scratch, copied) = self.copy(database).await?;
        let captured = self.clock.now().minus(copied.taken.elapsed());
        let header = Header {
            content: Content::Snapshot { revision: copied.revision, database: copied.kind },
            timeline,
            captured,
            parent: None,
            owner: self.owner.clone(),
            signer: self.signing_key.as_ref().map(|key| key.signer()),
        };
        let name = ObjectName::Snapshot { timeline, revision: copied.revision, captured };
        let key = self.prefix.key(&name);
        let metadata = continuity::metadata(self.owner.as_ref(), &copied);
        let bytes = self.publish(&key, &metadata, header, scratch).await?;
        Ok(Published { name, key, copied, captured, bytes, took: began.elapsed() })
    }

    /// Names a published snapshot, so that prune leaves it: until `keep` from now is over, or for ever.
    pub async fn pin(&self, snapshot: &ObjectName, pin: &PinRequest) -> Result<(), CaptureError> {
        let ObjectName::Snapshot { timeline, revision, captured } = *snapshot else { return Ok(()) };
        let name = ObjectName::Pin { timeline, name: pin.name.clone(), revision, captured };
        let until = pin
            .keep_for
            .map_or_else(|| "for ever".to_owned(), |keep| self.clock.now().plus(keep).to_string());
        let body = Parts::whole(Bytes::from(format!("{until}\n")));
        match self.store.put_new(&self.prefix.key(&name), &Metadata::new(), body).await {
            // The same name for the same snapshot: what was asked for is there.
            Ok(()) | Err(StoreError::Exists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn copy(&self, database: &SharedDatabase) -> Result<(NamedTempFile, Copied), CaptureError> {
        let mut attempt = 0;
        loop {
            let shared = database.clone();
            let copied = blocking(move || {
                let folder = std::env::temp_dir();
                let scratch = tempfile::Builder::new()
                    .prefix(&scratch::prefix())
                    .tempfile_in(&folder)
                    .map_err(|source| CaptureError::Scratch { folder, source })?;
                let mut database = lock(&shared);
                database.refresh()?;
                let copied = database.copy_into(scratch.path())?;
                Ok::<_, CaptureError>((scratch, copied))
            })
            .await;
            match copied {
                Err(CaptureError::Database(DatabaseError::Restless(path))) if attempt < ATTEMPTS => {
                    attempt += 1;
                    tracing::debug!(database = %path.display(), attempt, "the database changed under the copy");
                    tokio::time::sleep(Duration::from_millis(100 * u64::from(attempt))).await;
                }
                copied => return copied,
            }
        }
    }

    /// Encrypts on one thread and uploads on another, a part at a time.
    async fn publish(
        &self,
        key: &str,
        metadata: &Metadata,
        header: Header,
        scratch: NamedTempFile,
    ) -> Result<u64, CaptureError> {
        let (sender, receiver) = parts();
        let watched = self.watched;
        let (recipients, signing_key, object) =
            (self.recipients.clone(), self.signing_key.clone(), key.to_owned());
        let sealing = tokio::task::spawn_blocking(move || {
            let seal_error = |source| CaptureError::Seal { object: object.clone(), source };
            let file = File::open(scratch.path()).map_err(seal_error)?;
            let expected = file.metadata().map_err(seal_error)?.len();
            let mut out = PartWriter::new(sender, expected);
            let progress = if watched { Progress::bytes("uploading", expected) } else { Progress::hidden() };
            let body = progress.reading(file);
            snapshot::seal(&header, body, &recipients, signing_key.as_deref(), &mut out)
                .map_err(seal_error)?;
            progress.finish();
            Ok(out.finish())
        });
        let stored = self.store.put_new(key, metadata, receiver).await;
        let sealed = join(sealing).await;
        match (stored, sealed) {
            // An abandoned upload's cause is the sealing's error; otherwise the store's own comes first.
            (Err(StoreError::Abandoned(_)), Err(sealing)) => Err(sealing),
            (Err(error), _) => Err(error.into()),
            (Ok(()), sealed) => sealed,
        }
    }
}

/// The database, also after a panic elsewhere: it is only read.
pub fn lock(database: &SharedDatabase) -> std::sync::MutexGuard<'_, Database> {
    database.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs blocking work; a panic in it goes on here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    join(tokio::task::spawn_blocking(work)).await
}

async fn join<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
