//! The **record** of a verification: an object whose name tells when, which revision and how it ended, and whose body says
//! so in a sentence. It is not signed: whoever can write to the bucket could have put it.

use std::io::Read as _;

use bytes::Bytes;

use super::Finding;
use crate::capture::blocking;
use crate::catalogue::{Catalogue, Verification};
use crate::clock::Moment;
use crate::object_name::{ObjectName, Prefix};
use crate::store::{Metadata, Parts, Store, StoreError};
use crate::timeline::Timeline;

/// So much of a body is read; ours are shorter.
const LONGEST: u64 = 1000;

/// The last verification of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// When it was done.
    pub at: Moment,
    /// What was wrong; `None` if nothing was.
    pub problem: Option<String>,
}

impl Last {
    /// `ok`, or `failed: ` and why.
    pub fn result(&self) -> String {
        self.problem.as_ref().map_or_else(|| "ok".to_owned(), |problem| format!("failed: {problem}"))
    }
}

/// Records a finding; returns the object.
pub async fn write<S: Store>(
    store: &S,
    prefix: &Prefix,
    finding: &Finding,
    now: Moment,
) -> Result<String, StoreError> {
    let (timeline, revision, passed) = (finding.timeline, finding.point.revision, finding.passed());
    let key = prefix.key(&ObjectName::Verification { timeline, at: now, revision, passed });
    let body = Parts::whole(Bytes::from(format!("{}\n", finding.sentence(now))));
    store.put_new(&key, &Metadata::new(), body).await?;
    Ok(key)
}

/// The last record of a timeline: one LIST, and if it failed its body.
pub async fn last<S: Store>(
    store: &S,
    prefix: &Prefix,
    timeline: Timeline,
) -> Result<Option<Last>, StoreError> {
    let listed = store.list(&format!("{}{timeline}/verify/", prefix.folder()), None).await?;
    let mut catalogue = Catalogue::new(prefix, &listed);
    let history = catalogue.timelines.remove(&timeline).unwrap_or_default();
    let Some(Verification { at, passed, stored, .. }) = history.verifications.into_iter().next_back() else {
        return Ok(None);
    };
    let problem = if passed { None } else { Some(read(store, &stored.key).await) };
    Ok(Some(Last { at, problem }))
}

/// The sentence of a record, on one line. That it failed counts also where why cannot be read.
async fn read<S: Store>(store: &S, key: &str) -> String {
    let Ok(object) = store.get(key).await else { return format!("see {key}") };
    let mut body = Vec::new();
    let body = blocking(move || object.take(LONGEST).read_to_end(&mut body).map(|_| body)).await;
    let text = String::from_utf8_lossy(&body.unwrap_or_default()).replace(char::is_control, " ");
    if text.trim().is_empty() { format!("see {key}") } else { text.trim().to_owned() }
}
