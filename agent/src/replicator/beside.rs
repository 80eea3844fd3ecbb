//! The files **beside** the database: looked at every few seconds, and shipped when they have changed.

use std::io::Seek as _;
use std::time::{Duration, Instant};

use super::log::Resumed;
use super::{Replicator, ReplicatorError};
use crate::capture::{Capture, blocking};
use crate::continuity;
use crate::files::{FilesError, Fingerprint, Included};
use crate::scratch;
use crate::signing::Digest;
use crate::store::Store;
use crate::timeline::Timeline;

/// How often the files are looked at; they are written when a control plane starts, and seldom after.
const LOOKS: Duration = Duration::from_secs(5);

/// What is included, and what of it is in the bucket.
pub(super) struct Beside {
    included: Included,
    looked: Option<Instant>,
    fingerprint: Option<Fingerprint>,
    shipped: Option<(Timeline, Digest)>,
    /// What was told already.
    problem: Option<String>,
}

impl Beside {
    pub(super) fn new(included: Included) -> Self {
        Self { included, looked: None, fingerprint: None, shipped: None, problem: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.included.is_empty()
    }

    /// The timeline holds an archive of this digest.
    pub(super) fn resumed(&mut self, timeline: Timeline, digest: Digest) {
        self.shipped = Some((timeline, digest));
    }

    /// Ships the files if they have changed, or are not on this timeline yet. Returns the object. Files that cannot be
    /// read are told of once and stop nothing else.
    pub(super) async fn ship<S: Store + Clone>(
        &mut self,
        capture: &Capture<S>,
        timeline: Timeline,
        at_once: bool,
    ) -> Result<Option<(String, u64)>, ReplicatorError> {
        let rested = self.looked.is_some_and(|looked| looked.elapsed() < LOOKS);
        if self.is_empty() || (rested && !at_once) {
            return Ok(None);
        }
        self.looked = Some(Instant::now());
        let known = self.fingerprint.filter(|_| self.shipped.is_some_and(|(on, _)| on == timeline));
        let included = self.included.clone();
        let packed = blocking(move || {
            if known.is_some() && Some(included.fingerprint()?) == known {
                return Ok(None);
            }
            let mut archive = scratch::unnamed().map_err(FilesError::Out)?;
            let packed = included.pack(&mut archive)?;
            archive.rewind().map_err(FilesError::Out)?;
            Ok::<_, FilesError>(Some((archive, packed)))
        })
        .await;
        let (archive, packed) = match packed {
            Ok(Some(packed)) => packed,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.tell(&error);
                return Ok(None);
            }
        };
        self.problem = None;
        let mut published = None;
        // Nothing there yet is nothing to ship.
        if packed.entries > 0 && self.shipped != Some((timeline, packed.digest)) {
            published = Some((capture.files(timeline, archive, packed.digest).await?, packed.bytes));
        }
        self.shipped = Some((timeline, packed.digest));
        self.fingerprint = Some(packed.fingerprint);
        Ok(published)
    }

    fn tell(&mut self, error: &FilesError) {
        let problem = crate::cause::chain(error);
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(error = problem, "the files beside the database are not backed up");
            self.problem = Some(problem);
        }
    }
}

impl<S: Store + Clone> Replicator<S> {
    /// Finds out which files are on the timeline already.
    pub(super) async fn resume_files(&mut self, resumed: &Resumed) -> Result<(), ReplicatorError> {
        let (Some(name), false) = (&resumed.files, self.beside.is_empty()) else { return Ok(()) };
        let capture = &self.log.capture;
        let metadata = capture.store.head(&capture.prefix.key(name)).await?.unwrap_or_default();
        if let Some(digest) = continuity::digest(&metadata) {
            self.beside.resumed(resumed.standing.timeline, digest);
        }
        Ok(())
    }
}
