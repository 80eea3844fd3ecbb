//! The **status**: what the running agent tells of itself, as `/status` prints it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Moment;
use crate::pin::PinName;
use crate::revision::Revision;

/// What the agent is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Phase {
    /// There is no database yet.
    #[default]
    Waiting,
    /// All is well.
    Replicating,
    /// The last try failed; it goes on trying.
    Failing,
    /// It has shipped its last.
    Stopped,
}

/// A replicator at one moment.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// What it is about.
    pub phase: Phase,
    /// The history that it writes.
    pub timeline: Option<String>,
    /// The newest revision in the bucket.
    pub revision: Revision,
    /// When everything that was due was last in the bucket.
    pub last_success: Option<Moment>,
    /// Age of the oldest change that is not in the bucket, in seconds.
    pub lag_seconds: f64,
    /// Whether that is older than it should ever be.
    #[serde(skip)]
    pub is_behind: bool,
    /// The oldest point that can be restored.
    pub restorable_from: Option<Moment>,
    /// Bytes of the newest snapshot.
    pub size_bytes: u64,
    /// The pins that were asked for and are made, and when each was captured.
    pub pins: BTreeMap<PinName, Moment>,
    /// When this timeline was last verified.
    pub last_verify: Option<Moment>,
    /// What that came to: `ok`, or `failed: ` and why.
    pub last_verify_result: Option<String>,
    /// What went wrong last, or what is waited for; empty when all is well.
    pub message: String,
}
