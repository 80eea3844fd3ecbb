//! The XR's **status**. Like all desired state it is written whole every time: what is left out is gone.

use serde_json::{Map, Value, json};

use crate::condition::{Condition, Reason};
use crate::object::{at, text};
use crate::progress::Progress;
use crate::report::Report;
use crate::subject::Subject;

/// What identifies the keys of a backup; none of it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issued {
    /// The newest identity's recipient.
    pub recipient: Option<String>,
    /// What identities are remembered by, by rotation number.
    pub fingerprints: Vec<String>,
    /// Whose signatures the objects bear, by rotation number.
    pub signers: Vec<String>,
}

impl Issued {
    /// As the status of an XR or a claim has it.
    pub fn remembered(object: &Value) -> Self {
        let field = |name| text(object, &["status", "backup", name]).map(str::to_owned);
        // Where there are several the single field holds the newest, else the only one.
        let all = |several, one| {
            let several = at(object, &["status", "backup", several]).and_then(Value::as_array);
            let several = several.map(|texts| texts.iter().filter_map(Value::as_str).map(str::to_owned));
            several.map_or_else(|| field(one).into_iter().collect(), Iterator::collect::<Vec<_>>)
        };
        Self {
            recipient: field("recipient"),
            fingerprints: all("fingerprints", "fingerprint"),
            signers: all("signers", "signer"),
        }
    }

    /// Whether an identity is known to have been issued under a rotation number, and which.
    pub fn fingerprint(&self, rotation: usize) -> Option<&str> {
        self.fingerprints.get(rotation).map(String::as_str)
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
    /// The upgrade that is to come.
    pub upgrade: Option<Value>,
    /// Where the backup goes; none where there is none.
    pub bucket: Option<&'a str>,
    /// Its keys.
    pub issued: &'a Issued,
    /// How far the restore is that is asked for.
    pub progress: &'a Progress,
    /// When a restore was last tried out.
    pub last_verify: Option<String>,
}

/// The whole status.
pub fn status(subject: &Subject, facts: &Facts) -> Map<String, Value> {
    let names = subject.names;
    let report = facts.report;
    let mut status = Map::new();
    status.insert("backup".into(), backup(facts));
    let mut cluster = json!({
        "version": facts.version,
        "endpoint": format!("https://{}.{}.svc", names.release, names.namespace),
        "kubeconfigSecret": names.kubeconfig(),
    });
    if let Some(upgrade) = &facts.upgrade {
        cluster["upgrade"] = upgrade.clone();
    }
    status.insert("cluster".into(), cluster);
    if let Some(restore) = facts.progress.status(subject, report) {
        status.insert("restore".into(), restore);
    }
    status
}

fn backup(facts: &Facts) -> Value {
    let Facts { report, health, issued, .. } = facts;
    let several = |all: &Vec<String>| (all.len() > 1).then(|| json!(all));
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
        ("fingerprint", issued.fingerprints.last().map(|fingerprint| json!(fingerprint))),
        ("fingerprints", several(&issued.fingerprints)),
        ("signer", issued.signers.last().map(|signer| json!(signer))),
        ("signers", several(&issued.signers)),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<Map<_, _>>()
        .into()
}
