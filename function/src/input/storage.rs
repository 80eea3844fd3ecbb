//! Where backups go: the platform's **storage** settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check;
use crate::fatal::Fatal;
use crate::object::at;
use crate::reference::{ProviderConfigRef, SecretRef};
use crate::schedule;
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
        storage.check_provisioner()?;
        storage.check_credentials()?;
        let Some(prune) = &storage.protection.prune else { return Ok(()) };
        if !storage.is_append_only() {
            return Err(Fatal::new(
                "input.storage.protection.prune",
                "with writer ReadWrite each agent prunes its own backup",
                "take it out, or set storage.protection.writer to AppendOnly",
            ));
        }
        schedule::check("input.storage.protection.prune.schedule", &prune.schedule)?;
        prune.secret_ref.check("input.storage.protection.prune.secretRef")
    }

    fn check_provisioner(&self) -> Result<(), Fatal> {
        let needed = |field: &str, provisioner: &str, way_out: &str| {
            let cause = format!("provisioner {provisioner} needs it and it is not there");
            Err(Fatal::new(format_args!("input.storage.{field}"), cause, way_out))
        };
        match (self.provisioner, &self.existing, &self.s3_register) {
            (Provisioner::ProviderMinio, ..) => Ok(()),
            (Provisioner::Existing, None, _) => needed("existing", "Existing", "name bucket and secretRef"),
            (Provisioner::Existing, Some(existing), _) => {
                check::bucket("input.storage.existing.bucket", &existing.bucket)?;
                match &existing.secret_ref {
                    Some(secret) => secret.check("input.storage.existing.secretRef"),
                    None if self.credentials.mode == CredentialMode::WebIdentity => Ok(()),
                    None => Err(Fatal::new(
                        "input.storage.existing.secretRef",
                        "the agent needs the keys of the bucket and no Secret is named",
                        "name one with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or set storage.credentials.mode to WebIdentity",
                    )),
                }
            }
            (Provisioner::S3Register, _, None) => needed("s3Register", "S3Register", "name adminSecretRef"),
            (Provisioner::S3Register, _, Some(register)) => {
                register.admin_secret_ref.check("input.storage.s3Register.adminSecretRef")?;
                let values = Value::Object(register.chart.values.clone());
                if ["adminuser", "adminpassword"].iter().any(|field| at(&values, &["s3", field]).is_some()) {
                    return Err(Fatal::new(
                        "input.storage.s3Register.chart.values.s3",
                        "the administrator's credentials would be readable in every Release",
                        "put them into the Secret of adminSecretRef",
                    ));
                }
                Ok(())
            }
        }
    }

    fn check_credentials(&self) -> Result<(), Fatal> {
        let arn = self.credentials.role_arn.as_deref();
        let refuse = |field: &str, cause: &str, way_out: &str| {
            Err(Fatal::new(format_args!("input.storage.credentials.{field}"), cause, way_out))
        };
        match (self.credentials.mode, arn) {
            (CredentialMode::Static, None) => Ok(()),
            (CredentialMode::Static, Some(_)) => refuse(
                "roleArn",
                "with mode Static nobody takes a role",
                "take it out, or set mode to WebIdentity",
            ),
            (CredentialMode::WebIdentity, _) if self.provisioner == Provisioner::S3Register => refuse(
                "mode",
                "the s3-register chart makes a user with keys",
                "take it out, or use ProviderMinio or Existing",
            ),
            (CredentialMode::WebIdentity, Some(arn)) if is_role(arn) => Ok(()),
            (CredentialMode::WebIdentity, _) => refuse(
                "roleArn",
                "it names no role, and the agents have nothing else to prove who they are",
                "write it as arn:aws:iam::111122223333:role/vcluster-backup, as the server's list of roles has it",
            ),
        }
    }

    /// Whether the agents may write alone: as asked, or because the chart's policy lets nobody delete.
    pub fn is_append_only(&self) -> bool {
        self.protection.writer == Writer::AppendOnly || self.provisioner == Provisioner::S3Register
    }

    /// The role that stands in for keys, if that is how the agent proves who it is.
    pub fn role_arn(&self) -> Option<&str> {
        self.credentials.role_arn.as_deref().filter(|_| self.credentials.mode == CredentialMode::WebIdentity)
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
    /// Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; needed unless the pod proves who it is.
    pub secret_ref: Option<SecretRef>,
}

fn is_role(arn: &str) -> bool {
    let is_plain = arn.len() <= 2048 && arn.chars().all(|c| c.is_ascii_graphic());
    let name = arn.strip_prefix("arn:").and_then(|rest| rest.split_once(":role/")).map(|(_, name)| name);
    is_plain && name.is_some_and(|name| !name.is_empty())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(fields: &Value) -> Result<(), String> {
        let mut storage = json!({"endpoint": "https://m"});
        for (name, value) in fields.as_object().unwrap() {
            storage[name] = value.clone();
        }
        let storage: Storage = serde_json::from_value(storage).map_err(|error| error.to_string())?;
        storage.check().map_err(|fatal| fatal.to_string())
    }

    #[test]
    fn each_provisioner_is_asked_for_what_it_needs() {
        let role = "arn:aws:iam::1:role/vcb";
        let web = json!({"mode": "WebIdentity", "roleArn": role});
        let append =
            json!({"writer": "AppendOnly", "prune": {"schedule": "@daily", "secretRef": {"name": "p"}}});
        let register = json!({"adminSecretRef": {"name": "admin"}});
        for fields in [
            json!({"credentials": web}),
            json!({"provisioner": "Existing", "existing": {"bucket": "shared"}, "credentials": web}),
            json!({"provisioner": "S3Register", "s3Register": register}),
            json!({"protection": append}),
            json!({"credentials": {"mode": "WebIdentity", "roleArn": "arn:minio:iam:::role/idmp-k8s"}}),
        ] {
            assert_eq!(check(&fields), Ok(()), "{fields}");
        }
        for (fields, field) in [
            (json!({"provisioner": "Existing", "existing": {"bucket": "shared"}}), "existing.secretRef"),
            (json!({"provisioner": "S3Register"}), "s3Register"),
            (
                json!({"provisioner": "S3Register", "s3Register": register, "credentials": web}),
                "credentials.mode",
            ),
            (
                json!({"provisioner": "S3Register", "s3Register": {"adminSecretRef": {"name": "a"}, "chart": {"values": {"s3": {"adminuser": "root"}}}}}),
                "s3Register.chart.values.s3",
            ),
            (json!({"credentials": {"mode": "WebIdentity"}}), "credentials.roleArn"),
            (json!({"credentials": {"mode": "WebIdentity", "roleArn": "vcb"}}), "credentials.roleArn"),
            (json!({"credentials": {"roleArn": role}}), "credentials.roleArn"),
            (json!({"protection": {"prune": append["prune"]}}), "protection.prune"),
            (
                json!({"protection": {"writer": "AppendOnly", "prune": {"schedule": "daily", "secretRef": {"name": "p"}}}}),
                "protection.prune.schedule",
            ),
        ] {
            let message = check(&fields).unwrap_err();
            assert!(message.starts_with(&format!("input.storage.{field}: ")), "{message}");
        }
    }
}
