//! **Restore**: a plan computed from the catalogue, a database assembled and checked beside the target, and
//! its placement.

pub mod assembly;
pub mod beside;
pub mod drill;
mod fetch;
pub mod placement;
pub mod plan;
mod route;
pub mod seed;
mod soundness;
pub mod source;
pub mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::capture::blocking;
use crate::catalogue::RestorePoint;
use crate::clock::{Clock, Moment};
use crate::database::Database;
use crate::header::{DatabaseKind, Owner};
use crate::key::Identities;
use crate::pin::PinName;
use crate::progress::Progress;
use crate::revision::Revision;
use crate::signing::Signers;
use crate::store::Store;
use assembly::{Assembled, AssemblyError, OnDamage};
use beside::{Beside, BesideError};
use placement::PlacementError;
use plan::{Plan, Target};
use source::Source;

/// A restore that the configuration file asks for, done once per id by `ensure`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreRequest {
    /// Names the request.
    pub id: String,
    /// The newest point; what none of the others means too.
    #[serde(default)]
    pub latest: bool,
    /// The newest point at or before this time.
    #[serde(default)]
    pub at: Option<Moment>,
    /// This revision.
    #[serde(default)]
    pub revision: Option<Revision>,
    /// The point pinned under this name.
    #[serde(default)]
    pub pin: Option<PinName>,
    /// Where it lies, if not in the agent's own backup.
    #[serde(default)]
    pub from: Option<Source>,
}

impl RestoreRequest {
    /// The point that it asks for.
    pub fn target(&self) -> Target {
        match (&self.at, &self.revision, &self.pin) {
            (Some(moment), _, _) => Target::At(*moment),
            (_, Some(revision), _) => Target::Revision(*revision),
            (_, _, Some(pin)) => Target::Pin(pin.clone()),
            _ => Target::Latest,
        }
    }
}

/// What opens objects, and whose they must be.
#[derive(Clone)]
pub struct Keys {
    /// What decrypts.
    pub identities: Arc<Identities>,
    /// Whose signature they must bear; nobody named takes unsigned ones too.
    pub signers: Signers,
}

/// Why nothing was restored; the target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The database could not be assembled.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The files beside it could not be restored.
    #[error(transparent)]
    Beside(#[from] BesideError),
    /// It could not be placed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// It is another cluster's.
    #[error(
        "the backup is {found}'s, not {expected}'s: check the bucket and prefix that it is restored from; the target was not touched"
    )]
    Owner {
        /// Whose it must be.
        expected: Owner,
        /// Whose the signed header says that it is.
        found: String,
    },
}

/// What is wanted beside the point itself.
#[derive(Clone)]
pub struct Order {
    /// Where the database goes.
    pub target: PathBuf,
    /// What a bad object does.
    pub on_damage: OnDamage,
    /// Where the files beside it go; `None` leaves them.
    pub beside: Option<Beside>,
    /// What time it is.
    pub clock: Clock,
    /// Whose backup it must be; `None` takes whatever the plan names.
    pub owner: Option<Owner>,
    /// The restored revision must rise above this one too.
    pub above: Revision,
}

/// A restore that was done.
#[derive(Debug)]
pub struct Restored {
    /// The point that is back.
    pub point: RestorePoint,
    /// The revision that the control plane goes on from; `None` for a database without revisions.
    pub goes_on_at: Option<Revision>,
    /// Whose backup it was, as the signed header says.
    pub owner: Option<Owner>,
    /// Where the database that was there before is kept.
    pub kept: Option<PathBuf>,
    /// What could not be restored because an object is bad, and why.
    pub missing: Option<String>,
    /// What became of the files beside it, in words.
    pub beside: Option<String>,
}

/// Carries out a plan. The target is untouched until its replacement is fetched, checked and synced.
pub async fn carry_out<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    keys: Keys,
    order: &Order,
    progress: &Progress,
) -> Result<Restored, RestoreError> {
    let Order { target, on_damage, clock, .. } = order;
    placement::check_unused(target)?;
    let seen = revision_seen(target).await;
    let scratch = placement::scratch_beside(target)?;
    let highest = plan.highest_revision.max(seen).max(order.above);
    let assembled =
        assembly::assemble(store, plan, keys.clone(), highest, scratch.path(), *on_damage, progress).await?;
    check_owner(order.owner.as_ref(), assembled.header.owner.as_ref())?;
    // Before the database is placed: a control plane must not find it without them.
    let beside = match &order.beside {
        Some(beside) => beside::restore(store, plan, assembled.point, keys, beside, clock.now()).await?,
        None => None,
    };
    let kept = placement::place(scratch, target, clock.now())?;
    let Assembled { header, point, missing, bumped_to, .. } = assembled;
    Ok(Restored { point, goes_on_at: bumped_to, owner: header.owner, kept, missing, beside })
}

fn check_owner(expected: Option<&Owner>, found: Option<&Owner>) -> Result<(), RestoreError> {
    let Some(expected) = expected else { return Ok(()) };
    if found.is_some_and(|found| expected.is_same(found)) {
        return Ok(());
    }
    let found = found.map_or_else(|| "nobody".to_owned(), ToString::to_string);
    Err(RestoreError::Owner { expected: expected.clone(), found })
}

/// The highest revision that clients of the database at `target` have seen; zero if it cannot be told. It may be above
/// everything in the bucket.
async fn revision_seen(target: &Path) -> Revision {
    let target = target.to_owned();
    blocking(move || {
        let database = Database::open(&target, Arc::new(|_| {})).ok()?;
        (database.kind() == DatabaseKind::Kine)
            .then(|| database.position().map(|position| position.live).ok())
            .flatten()
    })
    .await
    .unwrap_or_default()
}
