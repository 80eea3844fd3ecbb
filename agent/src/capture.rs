//! **Capture**: takes what the database holds and publishes it, encrypted and signed.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BodyWriter};
use crate::catalogue::RestorePoint;
use crate::chain::{Chain, Link};
use crate::clock::{Clock, Moment};
use crate::continuity;
use crate::database::{self, Copied, DatabaseError, Feed, SharedDatabase, lock};
use crate::header::{Content, Header, Owner};
use crate::key::Recipients;
use crate::metrics::Metrics;
use crate::object_name::{ObjectName, Prefix};
use crate::own_keys::OwnKeys;
use crate::pin::PinRequest;
use crate::progress::Progress;
use crate::scratch;
use crate::segment;
use crate::signing::{Digest, SigningKey};
use crate::snapshot;
use crate::store::{Metadata, PartWriter, Parts, Store, StoreError, parts};
use crate::timeline::Timeline;

/// How often a copy is begun anew when kine replaces the database under it.
const ATTEMPTS: u32 = 10;

/// A segment of more rows than this is ended: what is left follows in the next. Bounds memory and disk after an outage.
const SEGMENT_BYTES: usize = 8 << 20;

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
        folder: PathBuf,
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
    /// Its history.
    pub timeline: Timeline,
    /// Its full key.
    pub key: String,
    /// The point that it holds.
    pub point: RestorePoint,
    /// The digest of its newest row, and the chain after that; `None` for a database that has no rows of kine's.
    pub end: Option<(Digest, Chain)>,
    /// Its size in the bucket.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// What the feed had.
#[derive(Debug)]
pub enum Read {
    /// Nothing new.
    Nothing,
    /// Rows; whether more are waiting.
    Rows(Body, bool),
    /// Rows may be missing: the log cannot go on from where it was.
    Broken,
}

/// An object that was uploaded, and what it must read back as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// Bytes in the bucket.
    pub bytes: u64,
    /// SHA-256 of them.
    pub digest: Digest,
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
    /// What is told of the cost; `None` for a process that does not stay.
    pub metrics: Option<Metrics>,
    /// Whether a person waits for it.
    pub watched: bool,
    /// The segments of this process.
    pub own_keys: OwnKeys,
}

impl<S: Store + Clone> Capture<S> {
    /// Publishes one snapshot of the database on `timeline`. `since` is a link of the chain that it goes on; without
    /// one a chain begins. It is captured at `not_before` at the earliest: time never runs backwards on a timeline.
    pub async fn snapshot(
        &self,
        database: &SharedDatabase,
        timeline: Timeline,
        since: Option<Link>,
        not_before: Option<Moment>,
        cancel: &CancellationToken,
    ) -> Result<Published, CaptureError> {
        let began = Instant::now();
        let (scratch, copied) = self.copy(database, since, cancel).await?;
        let taken = self.clock.now().minus(copied.taken.elapsed());
        let captured = not_before.map_or(taken, |before| before.max(taken));
        let content = Content::Snapshot { revision: copied.revision, database: copied.kind };
        let header = self.header(content, timeline, captured, copied.chain);
        // A chain begins with the header that it is not in yet.
        let chain = copied.chain.unwrap_or_else(|| Chain::begin(&header.encode()));
        let end = copied.tip.map(|tip| (tip, chain));
        let key = self.prefix.key(&header.object_name());
        let metadata = self.metadata(copied.tip, end.map(|(_, chain)| chain));
        let file = scratch.reopen().map_err(scratch_error)?;
        let bytes = self.publish_framed(&key, &metadata, header, file, cancel).await?;
        let point = RestorePoint { revision: copied.revision, captured };
        Ok(Published { timeline, key, point, end, bytes, took: began.elapsed() })
    }

    /// Publishes an archive of files, whose digest tells whether it has changed.
    pub async fn files(
        &self,
        timeline: Timeline,
        archive: File,
        digest: Digest,
    ) -> Result<String, CaptureError> {
        let header = self.header(Content::Files, timeline, self.clock.now(), None);
        let key = self.prefix.key(&header.object_name());
        let metadata = self.metadata(Some(digest), None);
        self.publish_framed(&key, &metadata, header, archive, &CancellationToken::new()).await?;
        Ok(key)
    }

    /// Leaves the public key in the bucket, for whoever has to pin it by hand. It proves nothing there: anyone who can
    /// write to the bucket could have put it.
    pub async fn publish_signer(&self) -> Result<(), CaptureError> {
        let Some(signer) = self.signing_key.as_ref().map(|key| key.signer()) else { return Ok(()) };
        let name = ObjectName::Signer { public: signer.to_string() };
        let body = Parts::whole(Bytes::from(format!("{signer}\n")));
        match self.store.put_new(&self.prefix.key(&name), &Metadata::new(), body).await {
            Ok(()) | Err(StoreError::Exists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Names a snapshot's point, so that prune leaves it: until `keep_for` from now is over, or for ever.
    pub async fn pin(
        &self,
        timeline: Timeline,
        snapshot: RestorePoint,
        pin: &PinRequest,
    ) -> Result<(), CaptureError> {
        let RestorePoint { revision, captured } = snapshot;
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

    /// Reads what came after `link`, whose row has the digest `tip`, into a scratch file.
    pub async fn read(
        &self,
        database: &SharedDatabase,
        timeline: Timeline,
        link: Link,
        tip: Digest,
        not_before: Moment,
    ) -> Result<Read, CaptureError> {
        let (database, clock) = (database.clone(), self.clock);
        blocking(move || {
            let mut feed = lock(&database).feed(link.revision, tip)?;
            let mut body: Option<BodyWriter> = None;
            let (mut bytes, mut more, mut broken) = (0, false, false);
            loop {
                let Feed::Rows { rows, cut } = feed else {
                    // What was read before is exact; the next read finds out.
                    broken = true;
                    break;
                };
                let Some(last) = rows.last() else { break };
                let reached = last.revision;
                bytes += rows.iter().map(crate::row::Row::bytes).sum::<usize>();
                let mut writer = match body.take() {
                    Some(writer) => writer,
                    None => BodyWriter::new(timeline, link).map_err(scratch_error)?,
                };
                writer.push(&rows, clock.now().max(not_before)).map_err(scratch_error)?;
                body = Some(writer);
                more = cut;
                if !cut || bytes > SEGMENT_BYTES {
                    break;
                }
                feed = lock(&database).feed_further(reached)?;
            }
            match body.map(BodyWriter::finish).transpose().map_err(scratch_error)?.flatten() {
                Some(body) => Ok(Read::Rows(body, more || broken)),
                None if broken => Ok(Read::Broken),
                None => Ok(Read::Nothing),
            }
        })
        .await
    }

    /// The name that a body's segment gets.
    pub fn segment_name(&self, body: &Body) -> ObjectName {
        let (from, to) = (body.parent.revision, body.end.revision);
        ObjectName::Segment { timeline: body.timeline, from, to, captured: body.captured }
    }

    /// Publishes a body as a segment.
    pub async fn segment(&self, body: &Body) -> Result<Uploaded, CaptureError> {
        let content = Content::Segment { from: body.parent.revision, to: body.end.revision };
        let header = self.header(content, body.timeline, body.captured, Some(body.parent.chain));
        let key = self.prefix.key(&header.object_name());
        self.own_keys.add(&key);
        let mut metadata = self.metadata(Some(body.tip), Some(body.end.chain));
        metadata.insert(continuity::WRITER.to_owned(), self.own_keys.writer());
        let mut lines = body.reader().map_err(scratch_error)?;
        let (recipients, signing_key) = (self.recipients.clone(), self.signing_key.clone());
        let seal = move |out: &mut PartWriter| {
            segment::seal(&header, &mut lines, &recipients, signing_key.as_deref(), out)
        };
        self.publish(&key, &metadata, body.bytes, seal).await
    }

    fn header(
        &self,
        content: Content,
        timeline: Timeline,
        captured: Moment,
        parent: Option<Chain>,
    ) -> Header {
        let signer = self.signing_key.as_ref().map(|key| key.signer());
        Header { content, timeline, captured, parent, owner: self.owner.clone(), signer }
    }

    fn metadata(&self, tip: Option<Digest>, chain: Option<Chain>) -> Metadata {
        let mut metadata = continuity::metadata(self.owner.as_ref(), tip, chain);
        metadata.extend(self.metrics.as_ref().and_then(|metrics| metrics.usage().metadata()));
        metadata
    }

    async fn copy(
        &self,
        database: &SharedDatabase,
        since: Option<Link>,
        cancel: &CancellationToken,
    ) -> Result<(NamedTempFile, Copied), CaptureError> {
        let mut attempt = 0;
        loop {
            let (shared, cancel) = (database.clone(), cancel.clone());
            let copied = blocking(move || {
                let scratch = scratch::named().map_err(scratch_error)?;
                lock(&shared).refresh()?;
                let copied = database::copy(&shared, scratch.path(), since, &|| !cancel.is_cancelled())?;
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

    /// Publishes a file in the frame of a snapshot.
    async fn publish_framed(
        &self,
        key: &str,
        metadata: &Metadata,
        header: Header,
        file: File,
        cancel: &CancellationToken,
    ) -> Result<u64, CaptureError> {
        let expected = file.metadata().map_err(scratch_error)?.len();
        let watched = self.watched;
        let (recipients, signing_key, cancel) =
            (self.recipients.clone(), self.signing_key.clone(), cancel.clone());
        let seal = move |out: &mut PartWriter| {
            let progress = if watched { Progress::bytes("uploading", expected) } else { Progress::hidden() };
            let body = Cancellable { inner: progress.reading(file), cancel };
            snapshot::seal(&header, body, &recipients, signing_key.as_deref(), out)?;
            progress.finish();
            Ok(())
        };
        Ok(self.publish(key, metadata, expected, seal).await?.bytes)
    }

    /// Encrypts on one thread and uploads on another, a part at a time.
    async fn publish(
        &self,
        key: &str,
        metadata: &Metadata,
        expected: u64,
        seal: impl FnOnce(&mut PartWriter) -> io::Result<()> + Send + 'static,
    ) -> Result<Uploaded, CaptureError> {
        let (sender, receiver) = parts();
        let object = key.to_owned();
        let sealing = tokio::task::spawn_blocking(move || {
            let mut out = PartWriter::new(sender, expected);
            seal(&mut out).map_err(|source| CaptureError::Seal { object, source })?;
            let (bytes, digest) = out.finish();
            Ok(Uploaded { bytes, digest })
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

/// Fails once it is cancelled, so that an upload is given up as one that cannot be read to its end.
struct Cancellable<R> {
    inner: R,
    cancel: CancellationToken,
}

impl<R: io::Read> io::Read for Cancellable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the upload was given up"));
        }
        self.inner.read(buffer)
    }
}

fn scratch_error(source: io::Error) -> CaptureError {
    CaptureError::Scratch { folder: scratch::folder(), source }
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
