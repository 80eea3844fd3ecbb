//! The function's **Input**: what the platform team decides, once, in the Composition. Strict: a field that
//! nobody knows is refused with its path.

pub mod storage;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check;
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::glob;
use crate::policy::Policy;
use crate::recipient::Recipient;
use crate::reference::{ProviderConfigRef, SecretRef};
use crate::schema;
use crate::span::Span;
use crate::typed;
use storage::Storage;

/// What the platform team decides, once, in a Composition. Unknown fields are refused.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("required" = ["storage"]))]
pub struct Input {
    /// The vcluster chart.
    pub chart: Chart,
    /// The backup agent's container.
    pub agent: Agent,
    /// How provider-helm is used.
    pub helm: Helm,
    /// Where backups go.
    pub storage: Storage,
    /// Who can read the backups.
    pub encryption: Encryption,
    /// Rancher, by provider-kubernetes; without it spec.rancher.enabled is refused.
    pub rancher: Option<Rancher>,
    /// What a user may not do.
    pub policy: Policy,
    /// How long an answer is good for, a minute if left out: Crossplane asks again after it.
    pub ttl: Option<Span>,
}

/// The vcluster chart.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Chart {
    /// Helm repository.
    pub repository: String,
    /// Name of the chart.
    pub name: String,
    /// Version where the composite names none.
    #[schemars(with = "schema::ChartVersion")]
    pub version: String,
    /// Secret with username and password of the repository.
    pub pull_secret_ref: Option<SecretRef>,
    /// Values under the user's.
    pub values: Map<String, Value>,
    /// The chart is a patched one that takes a top-level sidecarContainer, up to 0.19.
    pub sidecar_container: bool,
}

impl Default for Chart {
    fn default() -> Self {
        Self {
            repository: "https://charts.loft.sh".into(),
            name: "vcluster".into(),
            version: "0.36.1".into(),
            pull_secret_ref: None,
            values: Map::new(),
            sidecar_container: false,
        }
    }
}

/// The backup agent's container.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agent {
    /// Image; that of this version if left out.
    pub image: String,
    /// When to pull it.
    pub image_pull_policy: Option<PullPolicy>,
    /// Requests and limits; 10m CPU and 48Mi are requested, 256Mi the limit if left out.
    pub resources: Option<Map<String, Value>>,
    /// Further arguments of both containers.
    pub args: Vec<String>,
    /// Starts before and stops after kine (an init container that is restarted, Kubernetes 1.29).
    pub native_sidecar: bool,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            image: concat!("ghcr.io/eumel8/vcluster-backup-agent:v", env!("CARGO_PKG_VERSION")).into(),
            image_pull_policy: None,
            resources: None,
            args: Vec::new(),
            native_sidecar: false,
        }
    }
}

/// Kubernetes' words for when to pull an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// How provider-helm is used.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Helm {
    /// The provider's configuration.
    pub provider_config_ref: Option<ProviderConfigRef>,
    /// Namespaces that spec.namespace may name, as globs; none if empty.
    pub allowed_namespaces: Vec<String>,
}

/// Who can read the backups.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Encryption {
    /// The platform's break-glass keys, on every backup.
    pub recipients: Vec<Recipient>,
    /// Refuses a backup that nobody could read once composite or host cluster is gone.
    pub require_escrow: bool,
    /// Where identities are kept.
    pub identity: Keeping,
    /// Namespace of the sealed identities of cluster-scoped composites.
    #[schemars(with = "schema::Label")]
    pub key_namespace: String,
}

impl Default for Encryption {
    fn default() -> Self {
        Self {
            recipients: Vec::new(),
            require_escrow: true,
            identity: Keeping::Sealed,
            key_namespace: "crossplane-system".into(),
        }
    }
}

/// Where identities are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Keeping {
    /// Out of reach of the vcluster's pod.
    Sealed,
    /// Beside the vcluster, where its pod can read them.
    InNamespace,
}

/// Rancher, by provider-kubernetes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rancher {
    /// The provider's configuration for Rancher's own cluster.
    pub provider_config_ref: Option<ProviderConfigRef>,
    /// The same for the host cluster, which the import Job runs in.
    pub host_provider_config_ref: Option<ProviderConfigRef>,
    /// Namespace of Rancher's cluster objects.
    #[schemars(with = "schema::Label")]
    pub namespace: String,
    /// Image of the import Job: a shell, curl and kubectl.
    pub image: String,
    /// The rancher-cluster chart in place of provider-kubernetes, for vclusters of the k3s distro.
    pub chart: Option<RancherChart>,
}

impl Default for Rancher {
    fn default() -> Self {
        Self {
            provider_config_ref: None,
            host_provider_config_ref: None,
            namespace: "fleet-default".into(),
            image: "docker.io/alpine/k8s:1.36.1".into(),
            chart: None,
        }
    }
}

impl Rancher {
    fn check(&self) -> Result<(), Fatal> {
        check::label("input.rancher.namespace", &self.namespace)?;
        if self.image.trim().is_empty() {
            let way_out = "leave it out for the default, or name one";
            return Err(Fatal::new("input.rancher.image", "it is empty", way_out));
        }
        let Some(chart) = &self.chart else { return Ok(()) };
        chart.token_secret_ref.check("input.rancher.chart.tokenSecretRef")?;
        if !["https://", "http://"].iter().any(|scheme| chart.url.starts_with(scheme)) {
            return Err(Fatal::new(
                "input.rancher.chart.url",
                "it does not begin with https:// or http://",
                "write it as https://rancher.example.org",
            ));
        }
        Ok(())
    }
}

/// The `rancher-cluster` chart.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RancherChart {
    /// Rancher's address.
    #[schemars(with = "schema::Address")]
    pub url: String,
    /// Secret with Rancher's API token: apitoken (key APITOKEN), for the chart takes no other name. The chart is
    /// installed beside it.
    pub token_secret_ref: SecretRef,
    /// Helm repository.
    #[serde(default = "rancher_repository")]
    pub repository: String,
    /// Name of the chart.
    #[serde(default = "rancher_chart")]
    pub name: String,
    /// Version of the chart.
    #[serde(default = "rancher_version")]
    #[schemars(with = "schema::ChartVersion")]
    pub version: String,
}

fn rancher_repository() -> String {
    "https://mcsps.github.io/helm-charts".into()
}

fn rancher_chart() -> String {
    "rancher-cluster".into()
}

fn rancher_version() -> String {
    "0.1.4".into()
}

impl Input {
    /// Reads and checks the Input; `None` is one that was not given.
    pub fn parse(value: Option<&Value>) -> Result<Self, Fatal> {
        let mut value = value.cloned().unwrap_or_else(|| Value::Object(Map::new()));
        if let Value::Object(fields) = &mut value {
            // What every Kubernetes object has; the Composition's schema looks after it.
            for field in ["apiVersion", "kind", "metadata"] {
                fields.remove(field);
            }
        }
        let input: Self = typed::parse(&value, "input")?;
        input.check()?;
        Ok(input)
    }

    fn check(&self) -> Result<(), Fatal> {
        self.storage.check().map_err(|fatal| fatal.shown_as(Kind::StorageReady, Reason::Refused))?;
        for (index, pattern) in self.helm.allowed_namespaces.iter().enumerate() {
            glob::check(pattern).map_err(|cause| {
                Fatal::new(
                    format_args!("input.helm.allowedNamespaces[{index}]"),
                    cause,
                    "write it as team-* or team-a",
                )
            })?;
        }
        self.rancher.as_ref().map_or(Ok(()), Rancher::check)?;
        check::label("input.encryption.keyNamespace", &self.encryption.key_namespace)?;
        for (field, text) in [
            ("input.chart.repository", &self.chart.repository),
            ("input.chart.name", &self.chart.name),
            ("input.agent.image", &self.agent.image),
        ] {
            if text.trim().is_empty() {
                return Err(Fatal::new(field, "it is empty", "leave it out for the default, or name one"));
            }
        }
        if let Some(secret) = &self.chart.pull_secret_ref {
            secret.check("input.chart.pullSecretRef")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_is_all_that_must_be_said() {
        let input = Input::parse(Some(&json!({"storage": {"endpoint": "https://minio:9000"}}))).unwrap();
        assert_eq!((input.chart.version.as_str(), input.storage.region()), ("0.36.1", "us-east-1"));
        assert!(input.encryption.require_escrow && input.encryption.identity == Keeping::Sealed);
        assert!(input.agent.image.starts_with("ghcr.io/eumel8/vcluster-backup-agent:v"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_path() {
        for (storage, more, field) in [
            (json!({}), json!({}), "input.storage.endpoint: "),
            (json!({"endpoint": "https://key:secret@minio"}), json!({}), "input.storage.endpoint: "),
            (json!({"endpoint": "ftp://minio"}), json!({}), "input.storage.endpoint: "),
            (
                json!({"endpoint": "https://m", "insecure": true, "caSecretRef": {"name": "ca"}}),
                json!({}),
                "input.storage.insecure: ",
            ),
            (
                json!({"endpoint": "https://m", "provisioner": "Ceph"}),
                json!({}),
                "input.storage.provisioner: ",
            ),
            (json!({"endpoint": "https://m"}), json!({"ttl": "never"}), "input.ttl: "),
            (
                json!({"endpoint": "https://m"}),
                json!({"helm": {"allowedNamespaces": ["a/b"]}}),
                "input.helm.allowedNamespaces[0]: ",
            ),
            (json!({"endpoint": "https://m"}), json!({"agent": {"image": " "}}), "input.agent.image: "),
            (
                json!({"endpoint": "https://m"}),
                json!({"encryption": {"recipients": ["age1x"]}}),
                "input.encryption.recipients[0]: ",
            ),
        ] {
            let mut input = more;
            input["storage"] = storage;
            let message = Input::parse(Some(&input)).unwrap_err().to_string();
            assert!(message.starts_with(field) && !message.contains("secret@"), "{message}");
        }
    }
}
