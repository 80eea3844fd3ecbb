//! Where backups go: the platform's **storage** settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check;
use crate::fatal::{Fatal, unsupported};
use crate::reference::{ProviderConfigRef, SecretRef};
use crate::schema;

/// Where backups go.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoint"], "x-kubernetes-validations" = [
    {
        "rule": "self.provisioner != 'Existing' || has(self.existing)",
        "message": "provisioner Existing needs existing",
    },
    {
        "rule": "self.provisioner != 'S3Register' || has(self.s3Register)",
        "message": "provisioner S3Register needs s3Register",
    },
]))]
pub struct Storage {
    /// S3 server, as `https://host:port`.
    #[schemars(with = "schema::Address")]
    pub endpoint: String,
    /// Region that requests are signed for; us-east-1 if left out.
    pub region: Option<String>,
    /// Secret whose ca.crt is trusted beside the system's certificates.
    pub ca_secret_ref: Option<SecretRef>,
    /// Does not check the server's certificate.
    pub insecure: bool,
    /// Who makes bucket and user.
    pub provisioner: Provisioner,
    /// Settings of ProviderMinio.
    pub provider_minio: ProviderMinio,
    /// Settings of S3Register.
    pub s3_register: Option<S3Register>,
    /// Settings of Existing.
    pub existing: Option<Existing>,
    /// How the agent proves to the server who it is.
    pub credentials: S3Credentials,
    /// What whoever takes the vcluster's pod cannot do to the backups.
    pub protection: Protection,
}

impl Storage {
    /// The region, `us-east-1` if none is named.
    pub fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1")
    }

    /// Checks what types cannot.
    pub fn check(&self) -> Result<(), Fatal> {
        let storage = self;
        check_endpoint(&storage.endpoint)?;
        if storage.insecure && storage.ca_secret_ref.is_some() {
            return Err(Fatal::new(
                "input.storage.insecure",
                "with it no certificate is checked, so caSecretRef would mean nothing",
                "keep caSecretRef and take insecure out",
            ));
        }
        if let Some(secret) = &storage.ca_secret_ref {
            secret.check("input.storage.caSecretRef")?;
        }
        match (storage.provisioner, &storage.existing) {
            (Provisioner::S3Register, _) => Err(unsupported(
                "input.storage.provisioner",
                "use ProviderMinio, or Existing with a bucket and a Secret of your own, instead of S3Register",
            )),
            (Provisioner::Existing, None) => Err(Fatal::new(
                "input.storage.existing",
                "provisioner Existing needs it and it is not there",
                "name bucket and secretRef",
            )),
            (Provisioner::Existing, Some(existing)) => {
                check::bucket("input.storage.existing.bucket", &existing.bucket)?;
                existing.secret_ref.check("input.storage.existing.secretRef")
            }
            (Provisioner::ProviderMinio, _) => Ok(()),
        }
    }
}

/// Who makes bucket and user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum Provisioner {
    /// provider-minio, for each cluster.
    #[default]
    ProviderMinio,
    /// The s3-register chart, for each cluster.
    S3Register,
    /// Nobody: they are there.
    Existing,
}

/// Settings of `ProviderMinio`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProviderMinio {
    /// The provider's configuration.
    pub provider_config_ref: Option<ProviderConfigRef>,
}

/// Settings of `S3Register`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Register {
    /// The chart.
    #[serde(default)]
    pub chart: RegisterChart,
    /// Secret of the server's administrator (keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY).
    pub admin_secret_ref: SecretRef,
}

/// The chart that makes bucket, user and policy.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegisterChart {
    /// Helm repository.
    pub repository: String,
    /// Name of the chart.
    pub name: String,
    /// Version of the chart.
    #[schemars(with = "schema::ChartVersion")]
    pub version: String,
    /// Secret with username and password of the repository.
    pub pull_secret_ref: Option<SecretRef>,
    /// Further values.
    pub values: Map<String, Value>,
}

impl Default for RegisterChart {
    fn default() -> Self {
        Self {
            repository: "https://mcsps.github.io/helm-charts".into(),
            name: "s3-register".into(),
            version: "0.0.2".into(),
            pull_secret_ref: None,
            values: Map::new(),
        }
    }
}

/// What the agent proves with who it is.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct S3Credentials {
    /// How.
    pub mode: CredentialMode,
    /// The role that the service account takes on (WebIdentity).
    pub role_arn: Option<String>,
}

/// How the agent proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum CredentialMode {
    /// By keys in a Secret.
    #[default]
    Static,
    /// By its service account's token: no user, no Secret.
    WebIdentity,
}

/// What whoever takes the pod cannot do to the backups.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Protection {
    /// What the agent may do in the bucket.
    pub writer: Writer,
    /// The platform's job that applies retention, which an agent that is AppendOnly cannot.
    pub prune: Option<Prune>,
}

/// What the agent may do in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum Writer {
    /// Write, and delete what retention no longer keeps.
    #[default]
    ReadWrite,
    /// Write alone.
    AppendOnly,
}

/// The platform's job that applies retention.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prune {
    /// When, as cron writes it, such as `30 4 * * *`.
    #[schemars(with = "schema::Schedule")]
    pub schedule: String,
    /// Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of somebody who may delete.
    pub secret_ref: SecretRef,
}

/// Settings of `Existing`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Existing {
    /// The shared bucket.
    #[schemars(with = "schema::BucketName")]
    pub bucket: String,
    /// Folder above those of the clusters.
    #[serde(default)]
    #[schemars(with = "schema::Folder")]
    pub prefix: String,
    /// Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    pub secret_ref: SecretRef,
}

fn check_endpoint(endpoint: &str) -> Result<(), Fatal> {
    let refuse =
        |cause| Err(Fatal::new("input.storage.endpoint", cause, "write it as https://minio.minio.svc:9000"));
    if endpoint.is_empty() {
        return refuse("it is needed and it is not there");
    }
    let Some(host) = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://")) else {
        return refuse("it does not begin with https:// or http://");
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    if host.is_empty() || host.contains('@') || !host.chars().all(|c| c.is_ascii_graphic()) {
        return refuse("it names no server, or holds credentials, which belong into a Secret");
    }
    Ok(())
}
