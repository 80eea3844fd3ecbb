//! A **CronJob** that runs the agent now and then, where the identity is: the drill and the platform's prune.

use serde_json::{Value, json};

use crate::input::Input;
use crate::names::Place;
use crate::storage::Access;

/// Where its Secrets are mounted.
const SECRETS: &str = "/etc/vcluster-backup";
/// Where it works; its root file system is read-only.
const SCRATCH: &str = "/scratch";
/// What the scratch volume takes at most: twice the chart's default volume.
const SCRATCH_SIZE: &str = "10Gi";
/// Who it runs as: nobody's files are read.
const USER: u32 = 65532;
/// A run that takes longer hangs.
const DEADLINE: u32 = 6 * 3600;

/// A CronJob in the making.
pub struct CronJob<'a> {
    /// Where it lives.
    pub place: &'a Place,
    /// When it runs.
    pub schedule: &'a str,
    /// The agent's command, and its flags but for the way to the bucket.
    pub args: Vec<String>,
    /// The Secrets with what it needs, each entry a file.
    pub secrets: Vec<String>,
    /// The platform's settings.
    pub input: &'a Input,
    /// The way to the bucket.
    pub access: &'a Access,
    /// The service account that takes the role, where there are no keys.
    pub account: Option<&'a str>,
}

/// The path of a Secret's entry.
pub fn file(entry: &str) -> String {
    format!("{SECRETS}/{entry}")
}

impl CronJob<'_> {
    /// The object.
    pub fn object(&self) -> Value {
        let mut pod = json!({
            "automountServiceAccountToken": false,
            "containers": [self.container()],
            "restartPolicy": "Never",
            "securityContext": {
                "fsGroup": USER,
                "runAsGroup": USER,
                "runAsNonRoot": true,
                "runAsUser": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [
                {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": self.sources()}},
                {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_SIZE}},
            ],
        });
        if let Some(account) = self.account {
            pod["serviceAccountName"] = json!(account);
        }
        json!({
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": self.place.name, "namespace": self.place.namespace},
            "spec": {
                "concurrencyPolicy": "Forbid",
                "failedJobsHistoryLimit": 3,
                "jobTemplate": {
                    "spec": {
                        "activeDeadlineSeconds": DEADLINE,
                        "backoffLimit": 1,
                        "template": {"spec": pod},
                    },
                },
                "schedule": self.schedule,
                "startingDeadlineSeconds": 3600,
                "successfulJobsHistoryLimit": 1,
            },
        })
    }

    fn container(&self) -> Value {
        let agent = &self.input.agent;
        let mut env = vec![json!({"name": "TMPDIR", "value": SCRATCH})];
        if let Some(role) = &self.access.role_arn.as_ref().filter(|_| self.account.is_some()) {
            env.push(json!({"name": "AWS_ROLE_ARN", "value": role}));
            env.push(json!({"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": file("token")}));
        }
        let resources = agent.resources.clone().map_or_else(
            || json!({"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "512Mi"}}),
            Value::Object,
        );
        let args = [self.args.clone(), self.bucket_args()].concat();
        let mut container = json!({
            "name": "vcluster-backup",
            "image": agent.image,
            "args": args,
            "env": env,
            "resources": resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            },
            "volumeMounts": [
                {"name": "secrets", "mountPath": SECRETS, "readOnly": true},
                {"name": "scratch", "mountPath": SCRATCH},
            ],
        });
        if let Some(policy) = agent.image_pull_policy {
            container["imagePullPolicy"] = json!(format!("{policy:?}"));
        }
        container
    }

    fn bucket_args(&self) -> Vec<String> {
        let storage = &self.input.storage;
        let mut args = vec![
            format!("--endpoint={}", storage.endpoint),
            format!("--region={}", storage.region()),
            format!("--bucket={}", self.access.bucket),
        ];
        args.extend(self.access.prefix.as_ref().map(|prefix| format!("--prefix={prefix}")));
        if self.account.is_none() {
            args.push(format!("--access-key-file={}", file("AWS_ACCESS_KEY_ID")));
            args.push(format!("--secret-key-file={}", file("AWS_SECRET_ACCESS_KEY")));
        }
        if storage.ca_secret_ref.is_some() {
            args.push(format!("--ca-file={}", file("ca.crt")));
        }
        if storage.insecure {
            args.push("--insecure".into());
        }
        args
    }

    fn sources(&self) -> Vec<Value> {
        let mut sources: Vec<Value> =
            self.secrets.iter().map(|name| json!({"secret": {"name": name}})).collect();
        if self.account.is_some() {
            let token = json!({"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"});
            sources.push(json!({"serviceAccountToken": token}));
        }
        sources
    }
}
