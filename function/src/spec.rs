//! The **spec**: what the user asks for. Strict: a field that nobody knows is refused with its path.
//!
//! What is said of a field here is what `kubectl explain` says of it: the definitions are made of these types
//! (`cargo xtask schemas`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check;
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::rancher;
use crate::recipient::Recipient;
use crate::reference::LocalSecretRef;
use crate::restore::Restore;
use crate::schedule;
use crate::schema;
use crate::span::Span;

/// How often an identity can be changed.
pub const ROTATIONS: u32 = 16;

/// What the virtual cluster shall be.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.__namespace__) == has(oldSelf.__namespace__) && (!has(self.__namespace__) || self.__namespace__ == oldSelf.__namespace__)",
    "message": "namespace cannot be changed; the cluster would be installed anew elsewhere",
}]))]
pub struct Spec {
    /// Version of the vcluster chart, exactly; the platform's default if left out.
    #[schemars(with = "Option<schema::ChartVersion>")]
    pub version: Option<String>,
    /// Namespace to install into; only one that the platform allows.
    #[schemars(with = "Option<schema::Label>")]
    pub namespace: Option<String>,
    /// Values of the vcluster chart. Those that the backup needs win; those that reach into the host are refused.
    pub values: Map<String, Value>,
    /// The backup of the control plane.
    pub backup: Backup,
    /// Brings the control plane back to a point, once per id.
    pub restore: Option<Restore>,
    /// Registration in Rancher.
    pub rancher: Rancher,
}

/// The backup.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.bucket) == has(oldSelf.bucket) && (!has(self.bucket) || self.bucket == oldSelf.bucket)",
    "message": "bucket cannot be changed; make a new cluster and restore into it",
}]))]
pub struct Backup {
    /// Whether there is one. Keys and bucket stay when it is switched off, unless deletionPolicy is Delete.
    pub enabled: bool,
    /// How often changes are shipped; what a lost disk costs.
    pub sync_interval: Span,
    /// How often a whole snapshot is taken.
    pub snapshot_interval: Span,
    /// What is kept.
    pub retention: Retention,
    /// Your age recipients (`vcluster-backup keygen` makes one), beside the cluster's own. With one of them the
    /// backup can be read when everything else is gone.
    #[schemars(length(max = 16))]
    pub recipients: Vec<Recipient>,
    /// Whether the bucket outlives the cluster.
    pub deletion_policy: DeletionPolicy,
    /// When to restore without being asked.
    pub auto_restore: AutoRestore,
    /// BackupHealthy turns False when the agent has been silent this long; a minute at least.
    pub stale_after: Span,
    /// Restore points that are kept beyond retention.
    #[schemars(length(max = 64))]
    pub pins: Vec<Pin>,
    /// Namespaces whose clusters may be made of this backup (restore.from).
    #[schemars(with = "Vec<schema::Label>", length(max = 64))]
    pub share_with: Vec<String>,
    /// Another bucket than `vcb-<namespace>-<name>`. It must not exist yet.
    #[schemars(with = "Option<schema::BucketName>")]
    pub bucket: Option<String>,
    /// Count it up, and what comes from then on is encrypted to a new key. The earlier keys are kept: they read what
    /// was written before.
    #[schemars(range(max = 16), extend("x-kubernetes-validations" = [{
        "rule": "self >= oldSelf",
        "message": "rotateKeys can only be counted up; an earlier key is never taken again",
    }]))]
    pub rotate_keys: u32,
    /// Secret beside this object with a saved identity (key age-identity), to go on with it in place of a new one.
    pub identity_secret_ref: Option<LocalSecretRef>,
    /// A drill: the backup is restored into a scratch file, on a schedule. BackupVerified tells the result.
    pub verify: Option<Verify>,
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
            rotate_keys: 0,
            identity_secret_ref: None,
            verify: None,
        }
    }
}

/// What is kept.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// How far back every revision can be restored, counted from the newest capture.
    pub pitr_window: Span,
    /// This many newest snapshots.
    #[schemars(range(max = 100_000))]
    pub last: u32,
    /// One snapshot of each of so many hours.
    #[schemars(range(max = 100_000))]
    pub hourly: u32,
    /// One snapshot of each of so many days.
    #[schemars(range(max = 100_000))]
    pub daily: u32,
    /// One snapshot of each of so many weeks.
    #[schemars(range(max = 100_000))]
    pub weekly: u32,
    /// One snapshot of each of so many months.
    #[schemars(range(max = 100_000))]
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

/// The drill.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// When, as cron writes it, such as `0 3 * * *`.
    #[schemars(with = "schema::Schedule")]
    pub schedule: String,
    /// How much is tried out.
    #[serde(default)]
    pub mode: VerifyMode,
    /// BackupVerified turns False when the last success is older; a week and a day if left out.
    pub max_age: Option<Span>,
}

/// How much of a restore is tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum VerifyMode {
    /// A whole restore into a scratch file, and its checks.
    #[default]
    Full,
    /// Every object is there, whole, and links to the one before.
    Quick,
}

/// What becomes of bucket and Secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It does.
    Retain,
    /// It goes with the cluster, and with the backup when that is switched off.
    Delete,
}

/// When to restore without being asked.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AutoRestore {
    /// States of the volume at which the newest point is restored before the control plane starts.
    #[schemars(length(max = 3))]
    pub when: Vec<When>,
    /// Whether the backup of a deleted cluster may be taken over.
    pub adopt: Adopt,
}

impl Default for AutoRestore {
    fn default() -> Self {
        Self { when: vec![When::Empty], adopt: Adopt::Never }
    }
}

/// A state of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum When {
    /// No database.
    Empty,
    /// A damaged one.
    Damaged,
    /// One that the backup is ahead of.
    Behind,
}

/// Whether a deleted cluster's backup may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Adopt {
    /// No.
    Never,
    /// If it had the same name.
    SameName,
}

/// A restore point that prune leaves.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// Name of the point.
    #[schemars(with = "schema::PinName")]
    pub name: String,
    /// How long it is kept; for ever if left out.
    pub keep_for: Option<Span>,
}

/// Registration in Rancher.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!self.enabled || !oldSelf.enabled || (has(self.clusterName) == has(oldSelf.clusterName) && (!has(self.clusterName) || self.clusterName == oldSelf.clusterName))",
    "message": "clusterName cannot be changed while the cluster is registered; set enabled to false first",
}]))]
pub struct Rancher {
    /// Whether the cluster is registered. Switched off, it is taken out of Rancher.
    pub enabled: bool,
    /// What it is called in Rancher, between the namespace and a short digest; its own name if left out.
    #[schemars(with = "Option<schema::Label>")]
    pub cluster_name: Option<String>,
    /// Labels of the cluster in Rancher; none of Rancher's or Kubernetes' own.
    #[schemars(with = "BTreeMap<String, schema::LabelValue>", extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
}

impl Spec {
    /// Checks what types cannot.
    pub fn check(&self) -> Result<(), Fatal> {
        let backup = &self.backup;
        rancher::cluster::check(&self.rancher)?;
        for (index, namespace) in backup.share_with.iter().enumerate() {
            check::label(&format!("spec.backup.shareWith[{index}]"), namespace)?;
        }
        if backup.rotate_keys > ROTATIONS {
            return Err(Fatal::new(
                "spec.backup.rotateKeys",
                format_args!("it is above {ROTATIONS}"),
                "make a new cluster, and restore this one's backup into it",
            ));
        }
        if let Some(secret) = &backup.identity_secret_ref {
            check::subdomain("spec.backup.identitySecretRef.name", &secret.name)?;
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
        if let Some(verify) = &backup.verify {
            schedule::check("spec.backup.verify.schedule", &verify.schedule)
                .map_err(|fatal| fatal.shown_as(Kind::BackupVerified, Reason::Refused))?;
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
    use serde_json::json;

    use crate::xr::Xr;

    #[test]
    fn what_cannot_be_is_refused_with_its_path() {
        for (backup, field) in [
            (json!({"staleAfter": "30s"}), "spec.backup.staleAfter: "),
            (json!({"retention": {"last": -1}}), "spec.backup.retention.last: "),
            (json!({"retention": {"last": 1.5}}), "spec.backup.retention.last: "),
            (json!({"pins": [{"name": "a"}, {"name": "a"}]}), "spec.backup.pins[1].name: "),
            (json!({"pins": [{"name": "../x"}]}), "spec.backup.pins[0].name: "),
            (json!({"bucket": "Mine"}), "spec.backup.bucket: "),
            (json!({"shareWith": ["team-b", "*"]}), "spec.backup.shareWith[1]: "),
            (json!({"rotateKeys": 17}), "spec.backup.rotateKeys: "),
            (json!({"identitySecretRef": {"name": "../x"}}), "spec.backup.identitySecretRef.name: "),
            (json!({"deletionPolicy": "Orphan"}), "spec.backup.deletionPolicy: "),
            (json!({"verify": {"schedule": "daily"}}), "spec.backup.verify.schedule: "),
            (json!({"autoRestore": {"when": ["Always"]}}), "spec.backup.autoRestore.when[0]: "),
        ] {
            let xr = json!({"metadata": {"name": "dev"}, "spec": {"backup": backup}});
            let message = Xr::parse(&xr).unwrap_err().to_string();
            assert!(message.starts_with(field), "{message}");
        }
    }
}
