//! **Pruning**: applies [retention](crate::retention) to a bucket. It needs no key: LIST tells all but how long pins are
//! kept, which their bodies say in plain text.
//!
//! It may run beside an agent that ships and merges, and beside another of itself: it deletes only what was listed and what
//! nothing that is kept needs, and what the agent makes meanwhile is not listed.

use std::io::Read as _;
use std::mem::discriminant;

use futures::StreamExt as _;

use crate::capture::blocking;
use crate::catalogue::Catalogue;
use crate::cause;
use crate::clock::Moment;
use crate::object_name::{ObjectName, Prefix};
use crate::pin::{self, PinName};
use crate::progress::Progress;
use crate::retention::{self, PinState, Pins, Plan, Retention};
use crate::store::{Store, StoreError};

/// So many are deleted at a time: beside a control plane there is no hurry.
const AT_A_TIME: usize = 8;

/// A pin's body is a line.
const PIN_BYTES: u64 = 256;

/// What was deleted, and what could not be.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Objects that are gone.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is still there, and why. After a refusal of the very first the others were not tried.
    pub failed: Vec<(String, StoreError)>,
}

impl Pruned {
    /// What went wrong, in words; `None` if all that was to go is gone.
    pub fn failure(&self) -> Option<String> {
        let (key, error) = self.failed.first()?;
        let refused = self.failed.iter().any(|(_, error)| matches!(error, StoreError::Refused { .. }));
        let hint = if refused {
            "; a policy without s3:DeleteObject (protection AppendOnly) lets objects be added only: prune with the \
             platform's credentials, and tell the sidecar with --append-only"
        } else {
            "; prune again later"
        };
        let others = match self.failed.len() {
            1 => String::new(),
            failed => format!(" and {} more", failed - 1),
        };
        Some(format!("could not delete {key}{others}: {}{hint}", cause::chain(error)))
    }
}

/// Computes what is to go. Pins of which `asked` has the name stay when their time is over, as a sign that they were made.
pub async fn plan<S: Store>(
    store: &S,
    prefix: &Prefix,
    rules: &Retention,
    asked: &[PinName],
    now: Moment,
) -> Result<Plan, StoreError> {
    let catalogue = Catalogue::new(prefix, &store.list(&prefix.folder(), None).await?);
    let pins = pins(store, prefix, &catalogue, asked, now).await?;
    Ok(retention::plan(&catalogue, rules, &pins))
}

/// The pins whose time is over.
async fn pins<S: Store>(
    store: &S,
    prefix: &Prefix,
    catalogue: &Catalogue,
    asked: &[PinName],
    now: Moment,
) -> Result<Pins, StoreError> {
    let mut pins = Pins::new();
    for (timeline, history) in &catalogue.timelines {
        for (name, (revision, captured)) in &history.pins {
            let object = ObjectName::Pin {
                timeline: *timeline,
                name: name.clone(),
                revision: *revision,
                captured: *captured,
            };
            let body = match body(store, &prefix.key(&object)).await {
                // Whoever took it away meanwhile will prune again.
                Err(StoreError::NotFound(_)) => continue,
                body => body?,
            };
            if pin::kept_until(&body).is_some_and(|until| until <= now) {
                let state = if asked.contains(name) { PinState::Asked } else { PinState::Over };
                pins.insert((*timeline, name.clone()), state);
            }
        }
    }
    Ok(pins)
}

async fn body<S: Store>(store: &S, key: &str) -> Result<String, StoreError> {
    let object = store.get(key).await?;
    let read = blocking(move || {
        let mut bytes = Vec::new();
        object.take(PIN_BYTES).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = read.await.map_err(|error| StoreError::Unreachable {
        operation: "read",
        object: key.to_owned(),
        endpoint: "the bucket".to_owned(),
        cause: error.to_string(),
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Deletes what the plan lets go. It may be broken off anywhere: what is kept needs nothing of it.
pub async fn carry_out<S: Store + Clone>(
    store: &S,
    prefix: &Prefix,
    plan: &Plan,
    progress: &Progress,
) -> Pruned {
    let mut pruned = Pruned::default();
    let mut kinds: Vec<Vec<(String, u64)>> = Vec::new();
    for kind in plan.deletions().chunk_by(|a, b| discriminant(&a.name) == discriminant(&b.name)) {
        kinds.push(kind.iter().map(|judged| (prefix.key(&judged.name), judged.bytes)).collect());
    }
    // The first alone: where nothing may be deleted, one refusal tells enough.
    if let Some((key, bytes)) = kinds.first_mut().map(|kind| kind.remove(0)) {
        let deleted = store.delete(&key).await;
        progress.advance();
        pruned.add(key, bytes, deleted);
        if let Some((_, StoreError::Refused { .. })) = pruned.failed.first() {
            return pruned;
        }
    }
    for kind in kinds {
        let delete = |(key, bytes): (String, u64)| async move {
            let deleted = store.delete(&key).await;
            (key, bytes, deleted)
        };
        let mut deleted = futures::stream::iter(kind).map(delete).buffered(AT_A_TIME);
        while let Some((key, bytes, deleted)) = deleted.next().await {
            progress.advance();
            pruned.add(key, bytes, deleted);
        }
    }
    pruned
}

impl Pruned {
    fn add(&mut self, key: String, bytes: u64, deleted: Result<(), StoreError>) {
        match deleted {
            Ok(()) => {
                self.objects += 1;
                self.bytes += bytes;
            }
            Err(error) => self.failed.push((key, error)),
        }
    }
}
