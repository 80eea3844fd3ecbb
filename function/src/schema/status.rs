//! The schema of the **status**: every field that [`crate::status`] may write. Crossplane drops what a definition does
//! not know, so a field that is missing here is never seen.

use schemars::JsonSchema;
use serde::Deserialize;

/// What became of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// The backup, as its agent reports it.
    pub backup: Option<BackupStatus>,
    /// The restore that was last asked for.
    pub restore: Option<RestoreStatus>,
    /// The virtual cluster.
    pub cluster: Option<ClusterStatus>,
    /// Its registration in Rancher.
    pub rancher: Option<RancherStatus>,
}

/// The backup, as its agent reports it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupStatus {
    /// What the agent does, in one word.
    pub phase: Option<String>,
    /// Where the backup is.
    pub bucket: Option<String>,
    /// When the last capture arrived in the bucket.
    pub last_success: Option<String>,
    /// The newest Kubernetes revision in the bucket.
    pub revision: Option<i64>,
    /// The oldest point that can be restored.
    pub restorable_from: Option<String>,
    /// What the backup takes in the bucket.
    pub size_bytes: Option<i64>,
    /// When a restore was last tried out.
    pub last_verify: Option<String>,
    /// More, for people.
    pub message: Option<String>,
    /// The public key that this cluster's backup is encrypted to.
    pub recipient: Option<String>,
    /// What the newest key is remembered by; another one is never taken silently.
    pub fingerprint: Option<String>,
    /// The same of every key by its rotation number, where there are several.
    pub fingerprints: Option<Vec<String>>,
    /// Whose signature the newest objects bear; pin it with --signer.
    pub signer: Option<String>,
    /// The same by rotation number, where there are several.
    pub signers: Option<Vec<String>>,
}

/// The restore that was last asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreStatus {
    /// Its id.
    pub id: Option<String>,
    /// How far it is, in one word; Done at the end.
    pub phase: Option<String>,
    /// More, for people.
    pub message: Option<String>,
    /// The point that was asked for.
    pub point: Option<String>,
}

/// The virtual cluster.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterStatus {
    /// Version of its chart.
    pub version: Option<String>,
    /// The Secret with the kubeconfig, beside the cluster (key config).
    pub kubeconfig_secret: Option<String>,
    /// Its API server, inside the host cluster.
    pub endpoint: Option<String>,
    /// An upgrade of the chart that is under way.
    pub upgrade: Option<UpgradeStatus>,
}

/// An upgrade of the chart that is under way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeStatus {
    /// The version that is asked for.
    pub to: Option<String>,
    /// When it was first asked for.
    pub since: Option<String>,
    /// How far it is, in one word.
    pub phase: Option<String>,
}

/// Its registration in Rancher.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RancherStatus {
    /// What Rancher calls it, such as c-m-4x8zq2kp.
    pub cluster_id: Option<String>,
    /// Whether it was registered once: from then on the cluster is ready whatever becomes of Rancher.
    pub registered: Option<bool>,
}
