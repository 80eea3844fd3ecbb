//! **Merging**: small segments become larger ones in the background, by minute, ten minutes, hour and day, and by size,
//! so that a restore reads tens of objects and a LIST stays short.
//!
//! The agent holds no key to read its own segments, so it merges from their [bodies](crate::body), which it keeps for a
//! day at most and within a bound; what a restart makes it forget stays as it is. Nothing is deleted before what
//! replaces it was read back and found to be, byte for byte, what was uploaded.

use std::collections::VecDeque;
use std::io::Read as _;
use std::ops::Range;
use std::time::Duration;

use crate::body::Body;
use crate::capture::{Capture, CaptureError, blocking};
use crate::clock::Moment;
use crate::object_name::ObjectName;
use crate::scratch;
use crate::signing::Hasher;
use crate::store::{Store, StoreError};

/// What is merged at each tier: all segments whose last rows were captured in the same one of these.
const TIERS: [Duration; 4] =
    [Duration::from_mins(1), Duration::from_mins(10), Duration::from_hours(1), Duration::from_hours(24)];

/// Fewer are left for the next tier: of the two or three that an idle control plane ships in a minute, a merge would cost
/// more requests than it saves.
const FEWEST: [usize; 4] = [4, 2, 2, 2];

/// A segment grows by merging up to this many bytes: a larger object saves no request worth having.
const LARGEST: u64 = 32 << 20;

/// So many bytes of bodies are kept on disk. The oldest are forgotten first; their segments stay as they are.
const KEPT: u64 = 256 << 20;

/// A segment whose body is kept.
#[derive(Debug)]
struct Kept {
    name: ObjectName,
    body: Body,
    /// The first tier that it has not been through.
    tier: usize,
}

/// What one merge did.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// The key of the new segment.
    pub key: String,
    /// How many it replaces.
    pub segments: usize,
    /// Its bytes.
    pub bytes: u64,
}

/// Why a merge was not done. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The merged segment was not published, or not deleted what it replaces.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the bucket gives back is not what it was given.
    #[error("{0} does not read back as it was uploaded: what it was to replace was left; check the store")]
    Different(String),
    /// It cannot be read back.
    #[error("cannot read {key} back: what it was to replace was left")]
    ReadBack {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The segments that may still be merged.
#[derive(Debug, Default)]
pub struct Merger {
    kept: VecDeque<Kept>,
    /// Replaced and not yet deleted.
    replaced: Vec<String>,
    /// The store has refused to delete, which is told once.
    refused: bool,
    /// Nothing is deleted.
    append_only: bool,
}

impl Merger {
    /// Takes over the body of a published segment.
    pub fn keep(&mut self, name: ObjectName, body: Body) {
        self.kept.push_back(Kept { name, body, tier: 0 });
        while self.kept.iter().map(|kept| kept.body.bytes).sum::<u64>() > KEPT {
            self.kept.pop_front();
        }
    }

    /// Whether to leave what was merged beside what replaces it, for a policy that only lets objects be added.
    pub fn set_append_only(&mut self, append_only: bool) {
        self.append_only = append_only;
    }

    /// Carries out one merge that is due at `now`; `None` if none is.
    pub async fn merge<S: Store + Clone>(
        &mut self,
        capture: &Capture<S>,
        now: Moment,
    ) -> Result<Option<Merged>, MergeError> {
        self.delete_replaced(capture).await?;
        let Some((range, tier)) = self.due(now) else { return Ok(None) };
        let members = self.kept.range(range.clone());
        let replaced: Vec<String> = members.clone().map(|kept| capture.prefix.key(&kept.name)).collect();
        let bodies: Vec<&Body> = members.map(|kept| &kept.body).collect();
        let scratch = |source| CaptureError::Scratch { folder: scratch::folder(), source };
        let Some(body) = Body::join(&bodies).map_err(scratch)? else { return Ok(None) };
        let name = capture.segment_name(&body);
        let key = capture.prefix.key(&name);
        let uploaded = match capture.segment(&body).await {
            Ok(uploaded) => uploaded,
            // Of an earlier try, whose answer was lost: the rows are the same, but not the bytes, which are encrypted
            // anew each time. What is there is not deleted, and neither is what it would replace.
            Err(CaptureError::Store(StoreError::Exists(_))) => {
                self.kept.drain(range);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let segments = replaced.len();
        let read = read_back(capture, &key, uploaded.digest).await;
        if let (Err(MergeError::Different(_)), false) = (&read, self.append_only) {
            // Nobody may take it for what it was to replace. The error says what was found.
            let _ = capture.store.delete(&key).await;
        }
        read?;
        self.kept.drain(range.clone());
        self.kept.insert(range.start, Kept { name, body, tier: tier + 1 });
        self.replaced.extend(replaced);
        // The merge is done; what cannot be deleted now is tried again before the next.
        if let Err(error) = self.delete_replaced(capture).await {
            tracing::debug!(%error, "what was merged is not deleted yet");
        }
        Ok(Some(Merged { key, segments, bytes: uploaded.bytes }))
    }

    /// The members of the next merge and its tier. What has been through its last tier is forgotten.
    fn due(&mut self, now: Moment) -> Option<(Range<usize>, usize)> {
        for (tier, length) in TIERS.into_iter().enumerate() {
            loop {
                let shapes: Vec<Shape> = self.kept.iter().map(Kept::shape).collect();
                let Some(range) = group(&shapes, tier, length, now) else { break };
                if range.len() >= FEWEST[tier] {
                    return Some((range, tier));
                }
                // Too few in their time: one tier further.
                for kept in self.kept.range_mut(range) {
                    kept.tier = tier + 1;
                }
            }
        }
        self.kept.retain(|kept| kept.tier < TIERS.len());
        None
    }

    async fn delete_replaced<S: Store + Clone>(&mut self, capture: &Capture<S>) -> Result<(), StoreError> {
        if self.append_only {
            self.replaced.clear();
        }
        while let Some(key) = self.replaced.last() {
            match capture.store.delete(key).await {
                // A policy that only lets objects be added: the rest need not be asked for. The next merge asks again,
                // for a refusal may also be that of a key that was just rotated.
                Err(error @ StoreError::Refused { .. }) => {
                    if !self.refused {
                        tracing::info!(%error, "merged segments stay beside what they replace");
                    }
                    self.refused = true;
                    self.replaced.clear();
                    return Ok(());
                }
                deleted => deleted?,
            }
            self.replaced.pop();
        }
        Ok(())
    }
}

async fn read_back<S: Store + Clone>(
    capture: &Capture<S>,
    key: &str,
    expected: crate::signing::Digest,
) -> Result<(), MergeError> {
    let mut object = capture.store.get(key).await?;
    let found = blocking(move || {
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 64 * 1024]);
        loop {
            match object.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(&buffer[..read]),
            }
        }
    })
    .await
    .map_err(|source| MergeError::ReadBack { key: key.to_owned(), source })?;
    if found == expected { Ok(()) } else { Err(MergeError::Different(key.to_owned())) }
}

/// What decides about a segment.
#[derive(Debug, Clone, Copy)]
struct Shape {
    timeline: crate::timeline::Timeline,
    from: u64,
    to: u64,
    captured: Moment,
    bytes: u64,
    tier: usize,
}

impl Kept {
    fn shape(&self) -> Shape {
        let body = &self.body;
        Shape {
            timeline: body.timeline,
            from: body.parent.revision.number(),
            to: body.end.revision.number(),
            captured: body.captured,
            bytes: body.bytes,
            tier: self.tier,
        }
    }
}

/// The first group of segments at `tier` that is complete: captured in the same `length` of time, which is over, or so
/// large together that more would be too much.
fn group(kept: &[Shape], tier: usize, length: Duration, now: Moment) -> Option<Range<usize>> {
    let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    let period = |moment: Moment| moment.millis().div_euclid(length);
    let mut start = 0;
    while let Some(first) = kept.get(start) {
        if first.tier != tier {
            start += 1;
            continue;
        }
        let (mut end, mut bytes) = (start + 1, first.bytes);
        let mut full = bytes >= LARGEST;
        while let Some(next) = kept.get(end).filter(|_| !full) {
            let before = &kept[end - 1];
            let follows = next.timeline == before.timeline && next.from == before.to && next.tier == tier;
            if !follows || period(next.captured) != period(first.captured) {
                break;
            }
            full = bytes + next.bytes > LARGEST;
            if !full {
                bytes += next.bytes;
                end += 1;
            }
        }
        if full || period(first.captured) < period(now) {
            return Some(start..end);
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Timeline;

    fn shapes(segments: &[(u64, u64, i64, u64, usize)]) -> Vec<Shape> {
        let timeline = Timeline::open(Moment::from_millis(0));
        let shape = |&(from, to, seconds, bytes, tier): &(u64, u64, i64, u64, usize)| Shape {
            timeline,
            from,
            to,
            captured: Moment::from_millis(seconds * 1000),
            bytes,
            tier,
        };
        segments.iter().map(shape).collect()
    }

    #[test]
    fn a_group_is_what_was_captured_in_one_period_that_is_over() {
        let minute = Duration::from_mins(1);
        let group = |segments: &[(u64, u64, i64, u64, usize)], seconds: i64| {
            group(&shapes(segments), 0, minute, Moment::from_millis(seconds * 1000))
        };
        let three = [(1, 2, 10, 1, 0), (2, 3, 50, 1, 0), (3, 4, 61, 1, 0)];
        assert_eq!(group(&three, 59), None, "the minute is not over");
        assert_eq!(group(&three, 60), Some(0..2));
        assert_eq!(group(&three, 120), Some(0..2), "one group at a time");
        assert_eq!(group(&[(1, 2, 10, 1, 0), (3, 4, 50, 1, 0)], 60), Some(0..1), "a gap divides");
        assert_eq!(group(&[(1, 2, 10, 1, 1), (2, 3, 50, 1, 0)], 60), Some(1..2), "another tier divides");
        assert_eq!(
            group(&[(1, 2, 10, LARGEST, 0), (2, 3, 11, 1, 0)], 12),
            Some(0..1),
            "full before its time"
        );
        let half = LARGEST / 2;
        let halves = [(1, 2, 10, half, 0), (2, 3, 11, half, 0), (3, 4, 12, 1, 0)];
        assert_eq!(group(&halves, 12), Some(0..2), "full with two");
        assert_eq!(group(&[], 100), None);
    }
}
