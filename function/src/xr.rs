//! The **XR**: what the user asks for, and which flavour of Crossplane it lives in. Strict: a field of the
//! spec that nobody knows is refused with its path.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::check;
use crate::fatal::{Fatal, unsupported};
use crate::object::text;
use crate::recipient::Recipient;
use crate::restore::Restore;
use crate::span::Span;
use crate::typed;

/// Which providers can work for an XR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The XR belongs to no namespace: cluster-scoped providers.
    ClusterScoped,
    /// The XR has a namespace: the namespaced providers (`.m.`), for it may compose nothing else.
    Namespaced,
}

/// An XR, as observed.
#[derive(Debug, Clone)]
pub struct Xr {
    /// Base name: the claim's, else the XR's.
    pub name: String,
    /// Base namespace: the claim's, else the XR's; none for a cluster-scoped XR without claim.
    pub namespace: Option<String>,
    /// Which providers can work.
    pub flavour: Flavour,
    /// Its uid; none where nothing is stored, as in `crossplane render`.
    pub uid: Option<String>,
    /// What the user asks for.
    pub spec: Spec,
}

/// What the user asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Chart version.
    pub version: Option<String>,
    /// Where to install.
    pub namespace: Option<String>,
    /// Chart values.
    pub values: Map<String, Value>,
    /// The backup.
    pub backup: Backup,
    /// A restore.
    pub restore: Option<Restore>,
    /// Rancher.
    pub rancher: Rancher,
}

/// The backup.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Backup {
    /// Whether there is one.
    pub enabled: bool,
    /// How often changes are shipped.
    pub sync_interval: Span,
    /// How often a snapshot is taken.
    pub snapshot_interval: Span,
    /// What is kept.
    pub retention: Retention,
    /// The user's keys, beside the cluster's own.
    pub recipients: Vec<Recipient>,
    /// What becomes of the bucket with the XR.
    pub deletion_policy: DeletionPolicy,
    /// When to restore without being asked.
    pub auto_restore: AutoRestore,
    /// How long the agent may be silent.
    pub stale_after: Span,
    /// Restore points that prune leaves.
    pub pins: Vec<Pin>,
    /// Namespaces that may clone this backup.
    pub share_with: Vec<String>,
    /// Another bucket than `vcb-<namespace>-<name>`.
    pub bucket: Option<String>,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            enabled: true,
            sync_interval: Span::known("1s", 1),
            snapshot_interval: Span::known("1h", 3600),
            retention: Retention::default(),
            recipients: Vec::new(),
            deletion_policy: DeletionPolicy::Retain,
            auto_restore: AutoRestore::default(),
            stale_after: Span::known("5m", 300),
            pins: Vec::new(),
            share_with: Vec::new(),
            bucket: None,
        }
    }
}

/// What is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // numbers of snapshots, each named by its period
pub struct Retention {
    /// Every revision is restorable this far back.
    pub pitr_window: Span,
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            pitr_window: Span::known("168h", 604_800),
            last: 3,
            hourly: 24,
            daily: 7,
            weekly: 4,
            monthly: 6,
        }
    }
}

/// What becomes of bucket and Secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum DeletionPolicy {
    /// The bucket outlives the XR.
    Retain,
    /// It goes with the XR, and with the backup when that is switched off.
    Delete,
}

/// When to restore without being asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoRestore {
    /// The states of the volume.
    pub when: Vec<When>,
    /// Whether a deleted cluster's backup may be taken over.
    pub adopt: Adopt,
}

impl Default for AutoRestore {
    fn default() -> Self {
        Self { when: vec![When::Empty], adopt: Adopt::Never }
    }
}

/// A state of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum When {
    /// No database.
    Empty,
    /// A damaged one.
    Damaged,
    /// One that the bucket is ahead of.
    Behind,
}

/// Whether a deleted cluster's backup may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Adopt {
    /// No.
    Never,
    /// If it had the same name.
    SameName,
}

/// A restore point that prune leaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// Its name.
    pub name: String,
    /// How long; for ever if not said.
    pub keep_for: Option<Span>,
}

/// Rancher.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rancher {
    /// Whether to register.
    pub enabled: bool,
    /// Name in Rancher.
    pub cluster_name: Option<String>,
    /// Labels in Rancher.
    pub labels: Map<String, Value>,
}

/// Fields of the spec that are Crossplane's own: `crossplane`, and in XRs that can be claimed all the others.
const MACHINERY: [&str; 13] = [
    "crossplane",
    "claimRef",
    "compositionRef",
    "compositionSelector",
    "compositionRevisionRef",
    "compositionRevisionSelector",
    "compositionUpdatePolicy",
    "resourceRef",
    "resourceRefs",
    "writeConnectionSecretToRef",
    "publishConnectionDetailsTo",
    "environmentConfigRefs",
    "compositeDeletePolicy",
];

impl Xr {
    /// Reads and checks an observed XR.
    pub fn parse(object: &Value) -> Result<Self, Fatal> {
        let own_name = text(object, &["metadata", "name"])
            .ok_or_else(|| Fatal::new("metadata.name", "the observed XR has none", "give it a name"))?;
        let own_namespace = text(object, &["metadata", "namespace"]);
        let flavour = if own_namespace.is_some() { Flavour::Namespaced } else { Flavour::ClusterScoped };
        let claim = |field| {
            let label = format!("crossplane.io/claim-{field}");
            text(object, &["spec", "claimRef", field])
                .or_else(|| text(object, &["metadata", "labels", &label]))
        };
        let (name, namespace) = match (claim("name"), claim("namespace")) {
            (Some(name), Some(namespace)) if own_namespace.is_none() => (name, Some(namespace)),
            _ => (own_name, own_namespace),
        };
        if let Some(namespace) = namespace {
            check::label("metadata.namespace", namespace)?;
        }
        let mut spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
        if let Value::Object(fields) = &mut spec {
            fields.retain(|field, _| !MACHINERY.contains(&field.as_str()));
        }
        let spec: Spec = typed::parse(&spec, "spec")?;
        spec.check()?;
        Ok(Self {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            flavour,
            uid: text(object, &["metadata", "uid"]).map(str::to_owned),
            spec,
        })
    }
}

impl Spec {
    fn check(&self) -> Result<(), Fatal> {
        let backup = &self.backup;
        if self.rancher.enabled {
            return Err(unsupported(
                "spec.rancher.enabled",
                "set it to false and register the cluster by hand",
            ));
        }
        if !backup.share_with.is_empty() {
            return Err(unsupported("spec.backup.shareWith", "leave it empty; backups are not shared"));
        }
        if let Some(bucket) = &backup.bucket {
            check::bucket("spec.backup.bucket", bucket)?;
        }
        if backup.stale_after.length().as_secs() < 60 {
            return Err(Fatal::new(
                "spec.backup.staleAfter",
                "the agent reports once a minute",
                "take a minute or more, such as 5m",
            ));
        }
        for (index, pin) in backup.pins.iter().enumerate() {
            let field = format!("spec.backup.pins[{index}].name");
            check::pin(&field, &pin.name)?;
            if backup.pins[..index].iter().any(|other| other.name == pin.name) {
                return Err(Fatal::new(field, "another pin has this name", "give each pin its own name"));
            }
        }
        let Some(restore) = &self.restore else { return Ok(()) };
        restore.check()?;
        if !backup.enabled {
            return Err(Fatal::new(
                "spec.restore",
                "the agent that would do it is switched off",
                "take spec.restore out, or set spec.backup.enabled to true",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn crossplanes_own_fields_are_none_of_ours() {
        let mut spec = Map::from_iter(MACHINERY.map(|field| (field.to_owned(), json!({}))));
        spec.insert("version".into(), json!("0.30.0"));
        let xr = Xr::parse(&json!({"metadata": {"name": "dev"}, "spec": spec})).unwrap();
        assert_eq!(xr.spec.version.as_deref(), Some("0.30.0"));
        assert!(xr.spec.backup.enabled);
    }

    #[test]
    fn a_claim_gives_its_name() {
        let labels = json!({"crossplane.io/claim-name": "dev", "crossplane.io/claim-namespace": "team-a"});
        let claim_ref = json!({"claimRef": {"name": "dev", "namespace": "team-a"}});
        for xr in [
            json!({"metadata": {"name": "dev-x7k2p", "labels": labels}}),
            json!({"metadata": {"name": "dev-x7k2p"}, "spec": claim_ref}),
        ] {
            let xr = Xr::parse(&xr).unwrap();
            assert_eq!((xr.name.as_str(), xr.namespace.as_deref()), ("dev", Some("team-a")));
            assert_eq!(xr.flavour, Flavour::ClusterScoped);
        }
        // Who may write labels of a namespaced XR must not be able to take another's name.
        let xr =
            json!({"metadata": {"name": "mine", "namespace": "team-b", "labels": labels}, "spec": claim_ref});
        let xr = Xr::parse(&xr).unwrap();
        assert_eq!((xr.name.as_str(), xr.namespace.as_deref()), ("mine", Some("team-b")));
        assert_eq!(xr.flavour, Flavour::Namespaced);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_path() {
        for (backup, field) in [
            (json!({"staleAfter": "30s"}), "spec.backup.staleAfter: "),
            (json!({"retention": {"last": -1}}), "spec.backup.retention.last: "),
            (json!({"retention": {"last": 1.5}}), "spec.backup.retention.last: "),
            (json!({"pins": [{"name": "a"}, {"name": "a"}]}), "spec.backup.pins[1].name: "),
            (json!({"pins": [{"name": "../x"}]}), "spec.backup.pins[0].name: "),
            (json!({"bucket": "Mine"}), "spec.backup.bucket: "),
            (json!({"deletionPolicy": "Orphan"}), "spec.backup.deletionPolicy: "),
            (json!({"autoRestore": {"when": ["Always"]}}), "spec.backup.autoRestore.when[0]: "),
        ] {
            let xr = json!({"metadata": {"name": "dev"}, "spec": {"backup": backup}});
            let message = Xr::parse(&xr).unwrap_err().to_string();
            assert!(message.starts_with(field), "{message}");
        }
    }
}
