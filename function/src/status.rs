//! The XR's **status**. Like all desired state it is written whole every time: what is left out is gone.

use serde_json::{Map, Value, json};

use crate::condition::{Condition, Reason};
use crate::report::Report;
use crate::subject::Subject;

/// What identifies the keys of a backup; none of it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issued {
    /// The cluster's recipient.
    pub recipient: Option<String>,
    /// What it is remembered by.
    pub fingerprint: Option<String>,
    /// Whose signature the objects bear.
    pub signer: Option<String>,
}

impl Issued {
    /// As the XR's status has it.
    pub fn remembered(subject: &Subject) -> Self {
        let field = |name| subject.remembered(name).map(str::to_owned);
        Self { recipient: field("recipient"), fingerprint: field("fingerprint"), signer: field("signer") }
    }
}

/// What the status tells.
pub struct Facts<'a> {
    /// The agent's report.
    pub report: &'a Report,
    /// What is thought of it.
    pub health: &'a Condition,
    /// The chart's version.
    pub version: &'a str,
    /// Where the backup goes; none where there is none.
    pub bucket: Option<&'a str>,
    /// Its keys.
    pub issued: &'a Issued,
    /// When a restore was last tried out.
    pub last_verify: Option<String>,
}

/// The whole status.
pub fn status(subject: &Subject, facts: &Facts) -> Map<String, Value> {
    let names = subject.names;
    let report = facts.report;
    let mut status = Map::new();
    status.insert("backup".into(), backup(facts));
    status.insert(
        "cluster".into(),
        json!({
            "version": facts.version,
            "endpoint": format!("https://{}.{}.svc", names.release, names.namespace),
            "kubeconfigSecret": names.kubeconfig(),
        }),
    );
    let restore = match &subject.xr.spec.restore {
        Some(restore) => {
            let pending = subject.pending_restore(report.restored_id.as_deref()).is_some();
            Some(json!({"id": restore.id, "phase": if pending { "Pending" } else { "Done" }}))
        }
        // Remembered when it is no longer asked for: the same id asked for again is done already.
        None => subject.remembered_restore().cloned(),
    };
    if let Some(restore) = restore {
        status.insert("restore".into(), restore);
    }
    status
}

fn backup(facts: &Facts) -> Value {
    let Facts { report, health, issued, .. } = facts;
    // The agent's word for what it does, unless it is its silence that matters.
    let phase = match health.reason {
        Reason::Disabled | Reason::Stale | Reason::Asleep => health.reason.to_string(),
        reason => report.phase.clone().unwrap_or_else(|| match reason {
            Reason::NotReported => "Pending".into(),
            reason => reason.to_string(),
        }),
    };
    let fields = [
        ("phase", Some(json!(phase))),
        ("bucket", facts.bucket.map(|bucket| json!(bucket))),
        ("lastSuccess", report.last_success.as_ref().map(|time| json!(time))),
        ("revision", report.revision.map(|revision| json!(revision))),
        ("restorableFrom", report.restorable_from.as_ref().map(|time| json!(time))),
        ("sizeBytes", report.size_bytes.map(|bytes| json!(bytes))),
        ("lastVerify", facts.last_verify.as_ref().map(|time| json!(time))),
        ("message", report.message.as_ref().map(|message| json!(message))),
        ("recipient", issued.recipient.as_ref().map(|recipient| json!(recipient))),
        ("fingerprint", issued.fingerprint.as_ref().map(|fingerprint| json!(fingerprint))),
        ("signer", issued.signer.as_ref().map(|signer| json!(signer))),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<Map<_, _>>()
        .into()
}
