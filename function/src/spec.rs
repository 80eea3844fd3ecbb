//! The **spec**: what the user asks for. Strict: a field that nobody knows is refused with its path.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::check;
use crate::condition::{Kind, Reason};
use crate::fatal::{Fatal, unsupported};
use crate::recipient::Recipient;
use crate::reference::LocalSecretRef;
use crate::restore::Restore;
use crate::schedule;
use crate::span::Span;

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
    /// How often the identity was changed: each number has its own, and the earlier ones stay readable.
    pub rotate_keys: u32,
    /// A saved identity (key `age-identity`) to go on with, beside the claim; instead of a new one.
    pub identity_secret_ref: Option<LocalSecretRef>,
    /// The drill: a restore that is tried out on a schedule.
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

/// The drill.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// When, as cron writes it, such as `0 3 * * *`.
    pub schedule: String,
    /// How much is tried out.
    #[serde(default)]
    pub mode: VerifyMode,
    /// `BackupVerified` turns False when the last success is older; a week and a day if not said.
    pub max_age: Option<Span>,
}

/// How much of a restore is tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum VerifyMode {
    /// A whole restore into a scratch file, and its checks.
    #[default]
    Full,
    /// Every object is there, whole, and links to the one before.
    Quick,
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

impl Spec {
    /// Checks what types cannot.
    pub fn check(&self) -> Result<(), Fatal> {
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
