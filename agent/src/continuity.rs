//! **Continuity**: the proof that the database at hand goes on the newest timeline in the bucket.
//!
//! Each object's metadata says whose it is, which digest its newest row has, and the chain after that row. If the same
//! row is in the database, nothing was restored, replaced or rolled back in between; if there is any doubt, a new
//! timeline begins, which costs a snapshot and loses nothing.

use crate::catalogue::{Catalogue, History, RestorePoint};
use crate::chain::{Chain, Link};
use crate::database::{Database, DatabaseError};
use crate::header::{DatabaseKind, Owner};
use crate::object_name::{ObjectName, Prefix};
use crate::signing::Digest;
use crate::store::{Metadata, Store, StoreError};
use crate::timeline::Timeline;

/// Metadata key: the owner as headers write it.
pub const OWNER: &str = "owner";
/// Metadata key: the process that wrote a segment.
pub const WRITER: &str = "writer";
/// Metadata key: the digest of the newest row.
const TIP: &str = "tip";
/// Metadata key: the chain after that row.
const CHAIN: &str = "chain";

/// The newest object of a timeline, as its metadata tells it without a key.
#[derive(Debug, Clone)]
pub struct Tip {
    /// The history.
    pub timeline: Timeline,
    /// Its newest point.
    pub newest: RestorePoint,
    /// Whose it is; `None` if it does not say.
    pub owner: Option<Owner>,
    /// The digest of its newest row.
    pub digest: Option<Digest>,
    /// The chain after that row.
    pub chain: Option<Chain>,
    /// All that the metadata says.
    pub metadata: Metadata,
}

/// The newest timeline that has a snapshot.
pub async fn newest_tip<S: Store>(
    store: &S,
    prefix: &Prefix,
    catalogue: &Catalogue,
) -> Result<Option<Tip>, StoreError> {
    for (timeline, history) in catalogue.timelines.iter().rev() {
        if let Some(tip) = tip(store, prefix, *timeline, history).await? {
            return Ok(Some(tip));
        }
    }
    Ok(None)
}

/// The newest object of one timeline.
pub async fn tip<S: Store>(
    store: &S,
    prefix: &Prefix,
    timeline: Timeline,
    history: &History,
) -> Result<Option<Tip>, StoreError> {
    let Some(snapshot) = history.newest_snapshot() else { return Ok(None) };
    let (newest, name) = if let Some(segment) = history.end() {
        let newest = RestorePoint { revision: segment.to, captured: segment.captured };
        (newest, segment.name(timeline))
    } else {
        let RestorePoint { revision, captured } = snapshot;
        (snapshot, ObjectName::Snapshot { timeline, revision, captured })
    };
    let metadata = store.head(&prefix.key(&name)).await?.unwrap_or_default();
    let owner = metadata.get(OWNER).and_then(|owner| owner.parse().ok());
    let digest = digest(&metadata);
    let chain = metadata.get(CHAIN).and_then(|chain| chain.parse().ok());
    Ok(Some(Tip { timeline, newest, owner, digest, chain, metadata }))
}

/// What an object's metadata says; `tip` and `chain` are those of its newest row, if it has rows.
pub fn metadata(owner: Option<&Owner>, tip: Option<Digest>, chain: Option<Chain>) -> Metadata {
    let owner = owner.map(|owner| (OWNER.to_owned(), owner.to_string()));
    let tip = tip.map(|digest| (TIP.to_owned(), digest.to_string()));
    let chain = chain.map(|chain| (CHAIN.to_owned(), chain.to_string()));
    owner.into_iter().chain(tip).chain(chain).collect()
}

/// The digest of an object's newest row, or of an archive.
pub fn digest(metadata: &Metadata) -> Option<Digest> {
    metadata.get(TIP)?.parse().ok()
}

impl Tip {
    /// Whether `database`, of `owner`, goes on from here; for one of kine's, from which link of the chain.
    pub fn continues(
        &self,
        owner: Option<&Owner>,
        database: &Database,
    ) -> Result<Option<Continued>, DatabaseError> {
        if self.owner.as_ref() != owner {
            return Ok(None);
        }
        let revision = self.newest.revision;
        if database.kind() == DatabaseKind::Generic {
            // No revisions, so nothing to go on from: its timeline is a row of independent snapshots.
            return Ok((revision.number() == 0).then_some(Continued::Generic));
        }
        let (Some(tip), Some(chain)) = (self.digest, self.chain) else { return Ok(None) };
        // A restored database begins a timeline of its own, though it holds the rows of the one it came from.
        let goes_on = database.goes_on_from(revision, tip)? && !database.jumps_after(revision)?;
        Ok(goes_on.then_some(Continued::Log { link: Link { revision, chain }, tip }))
    }
}

/// How a timeline is gone on.
#[derive(Debug, Clone, Copy)]
pub enum Continued {
    /// Independent snapshots.
    Generic,
    /// From this link, whose row has this digest.
    Log {
        /// The link.
        link: Link,
        /// The digest of its row.
        tip: Digest,
    },
}
