//! **Continuity**: the proof that the database at hand goes on the newest timeline in the bucket.
//!
//! Each snapshot's metadata says whose it is and which digest its newest row has. If the same row is in the
//! database, nothing was restored, replaced or rolled back in between; if there is any doubt, a new timeline
//! begins, which costs a snapshot and loses nothing.

use crate::catalogue::{Catalogue, History};
use crate::database::{Copied, Database, DatabaseError};
use crate::header::{DatabaseKind, Owner};
use crate::object_name::{ObjectName, Prefix};
use crate::revision::Revision;
use crate::store::{Metadata, Store, StoreError};
use crate::timeline::Timeline;

/// Metadata key: the owner as headers write it.
pub const OWNER: &str = "owner";
/// Metadata key: the digest of the newest row.
pub const TIP: &str = "tip";

/// The newest snapshot of a timeline, as its metadata tells it without a key.
#[derive(Debug, Clone)]
pub struct Tip {
    /// The history.
    pub timeline: Timeline,
    /// The snapshot.
    pub name: ObjectName,
    /// Its revision.
    pub revision: Revision,
    /// Whose it is; `None` if it does not say.
    pub owner: Option<Owner>,
    /// The digest of its newest row.
    digest: Option<String>,
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

/// The newest snapshot of one timeline.
pub async fn tip<S: Store>(
    store: &S,
    prefix: &Prefix,
    timeline: Timeline,
    history: &History,
) -> Result<Option<Tip>, StoreError> {
    let Some(((revision, captured), _)) = history.snapshots.last_key_value() else { return Ok(None) };
    let name = ObjectName::Snapshot { timeline, revision: *revision, captured: *captured };
    let metadata = store.head(&prefix.key(&name)).await?.unwrap_or_default();
    let owner = metadata.get(OWNER).and_then(|owner| owner.parse().ok());
    Ok(Some(Tip { timeline, name, revision: *revision, owner, digest: metadata.get(TIP).cloned() }))
}

/// What a snapshot's metadata says.
pub fn metadata(owner: Option<&Owner>, copied: &Copied) -> Metadata {
    let owner = owner.map(|owner| (OWNER.to_owned(), owner.to_string()));
    let tip = copied.tip.map(|digest| (TIP.to_owned(), digest.to_string()));
    owner.into_iter().chain(tip).collect()
}

impl Tip {
    /// Whether `database`, of `owner`, goes on from here.
    pub fn continues(&self, owner: Option<&Owner>, database: &Database) -> Result<bool, DatabaseError> {
        if self.owner.as_ref() != owner {
            return Ok(false);
        }
        if database.kind() == DatabaseKind::Generic {
            // No revisions, so nothing to go on from: its timeline is a row of independent snapshots.
            return Ok(self.revision == Revision::ZERO);
        }
        let digest = database.row_digest(self.revision)?.map(|digest| digest.to_string());
        // A restored database begins a timeline of its own, though it holds the rows of the one it came from.
        Ok(digest.is_some() && digest == self.digest && !database.jumps_after(self.revision)?)
    }
}
