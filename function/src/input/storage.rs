//! Where backups go: the platform's **storage** settings.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::check;
use crate::fatal::{Fatal, unsupported};
use crate::reference::{ProviderConfigRef, SecretRef};

/// Where backups go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Storage {
    /// S3 server, as `https://host:port`.
    pub endpoint: String,
    /// Region that requests are signed for.
    pub region: Option<String>,
    /// Secret with `ca.crt`, trusted beside the system's certificates.
    pub ca_secret_ref: Option<SecretRef>,
    /// Does not check the server's certificate.
    pub insecure: bool,
    /// Who makes bucket and user.
    pub provisioner: Provisioner,
    /// Settings of `ProviderMinio`.
    pub provider_minio: ProviderMinio,
    /// Settings of `S3Register`.
    pub s3_register: Option<S3Register>,
    /// Settings of `Existing`.
    pub existing: Option<Existing>,
    /// What the agent proves with who it is.
    pub credentials: S3Credentials,
    /// What whoever takes the pod cannot do to the backups.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Provisioner {
    /// provider-minio.
    #[default]
    ProviderMinio,
    /// The s3-register chart.
    S3Register,
    /// Nobody: they are there.
    Existing,
}

/// Settings of `ProviderMinio`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProviderMinio {
    /// Its configuration.
    pub provider_config_ref: Option<ProviderConfigRef>,
}

/// Settings of `S3Register`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Register {
    /// The chart.
    #[serde(default)]
    pub chart: RegisterChart,
    /// Secret of the server's administrator (keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`).
    pub admin_secret_ref: SecretRef,
}

/// The chart that makes bucket, user and policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegisterChart {
    /// Helm repository.
    pub repository: String,
    /// Chart name.
    pub name: String,
    /// Version.
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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct S3Credentials {
    /// How.
    pub mode: CredentialMode,
    /// The role that the service account takes (`WebIdentity`).
    pub role_arn: Option<String>,
}

/// How the agent proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum CredentialMode {
    /// By keys in a Secret.
    #[default]
    Static,
    /// By its service account's token: no user, no Secret.
    WebIdentity,
}

/// What whoever takes the pod cannot do to the backups.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Protection {
    /// What the agent may do in the bucket.
    pub writer: Writer,
    /// With `AppendOnly`: the platform's job that applies retention.
    pub prune: Option<Prune>,
}

/// What the agent may do in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Writer {
    /// Write, and delete what retention no longer keeps.
    #[default]
    ReadWrite,
    /// Write alone.
    AppendOnly,
}

/// The platform's job that applies retention.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prune {
    /// When, as cron writes it, such as `30 4 * * *`.
    pub schedule: String,
    /// Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of somebody who may delete.
    pub secret_ref: SecretRef,
}

/// Settings of `Existing`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Existing {
    /// The bucket.
    pub bucket: String,
    /// Folder in the bucket, above each cluster's own.
    #[serde(default)]
    pub prefix: String,
    /// Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
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
