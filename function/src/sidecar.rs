//! The **sidecar**: the agent's two containers beside kine, and the volumes they share. Their arguments never
//! change while a cluster lives, for any change restarts its only control plane; what may change is in the
//! ConfigMap ([`crate::config`]).

use serde_json::{Map, Value, json};

use crate::chart::Distro;
use crate::input::Agent;
use crate::input::storage::Storage;
use crate::names::Names;
use crate::object::{at, text};
use crate::storage::Access;
use crate::values::Values;

/// Prefix of all names in the pod that are ours.
const NAME: &str = "vcluster-backup";
/// The container that decides what kine starts on.
const ENSURE: &str = "ensure";
/// Where metrics and health are served.
const PORT: u16 = 8090;
const CONFIG: &str = "/etc/vcluster-backup";
const KEYS: &str = "/etc/vcluster-backup-keys";
const S3: &str = "/etc/vcluster-backup-s3";
const IDENTITY: &str = "/etc/vcluster-backup-identity";
/// Where the agent makes snapshots; its root file system is read-only.
const SCRATCH: &str = "/scratch";

/// All that the containers are made of.
pub struct Sidecar<'a> {
    /// The platform's settings of the container.
    pub agent: &'a Agent,
    /// The S3 server.
    pub storage: &'a Storage,
    /// Names of what is mounted.
    pub names: &'a Names,
    /// The way to the bucket.
    pub access: &'a Access,
    /// The Secret that the identity is in when a restore needs it.
    pub identity_secret: &'a str,
    /// Where the database is.
    pub distro: Distro,
}

impl Sidecar<'_> {
    /// Puts the containers and volumes into the chart's values.
    pub fn add_to(&self, values: &mut Values) {
        let user = RunAs::of(values);
        let path = |rest: &[&'static str]| [&["controlPlane", "statefulSet"], rest].concat();
        values.append(&path(&["initContainers"]), self.ensure(&user));
        let mut run = self.run(&user);
        if self.agent.native_sidecar {
            run["restartPolicy"] = json!("Always");
            // After `ensure`, in order: it must not read a database that is about to be replaced.
            values.append(&path(&["initContainers"]), run);
        } else {
            values.append(&path(&["sidecarContainers"]), run);
        }
        for volume in self.volumes(user.secret_mode) {
            values.append(&path(&["persistence", "addVolumes"]), volume);
        }
    }

    /// The container that replicates.
    fn run(&self, user: &RunAs) -> Value {
        let mut args = vec![
            "run".into(),
            format!("--config={CONFIG}/config.yaml"),
            format!("--recipients-file={KEYS}/recipients"),
        ];
        args.extend(self.common_args());
        args.push(format!("--listen=:{PORT}"));
        args.extend(self.agent.args.iter().cloned());
        let mounts = json!([
            {"name": "data", "mountPath": "/data", "readOnly": true},
            mount("config", CONFIG),
            mount("keys", KEYS),
            mount("s3", S3),
            {"name": volume("scratch"), "mountPath": SCRATCH},
        ]);
        let mut container = self.container(NAME, &args, &mounts, &user.context(&[]));
        container["ports"] = json!([{"name": "backup", "containerPort": PORT}]);
        // Liveness alone: an agent that is not ready must not make the control plane unready.
        container["livenessProbe"] = json!({
            "httpGet": {"path": "/healthz", "port": PORT},
            "periodSeconds": 30,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        });
        container
    }

    /// The container that decides what kine starts on.
    fn ensure(&self, user: &RunAs) -> Value {
        let mut args = vec![
            "ensure".into(),
            format!("--config={CONFIG}/config.yaml"),
            format!("--identity-file={IDENTITY}/age-identity"),
        ];
        args.extend(self.common_args());
        if self.distro == Distro::K3s {
            // On an empty volume there is no database to be found.
            args.push("--database=/data/server/db/state.db".into());
        }
        args.extend(self.agent.args.iter().cloned());
        let mounts = json!([
            {"name": "data", "mountPath": "/data"},
            mount("config", CONFIG),
            mount("keys", KEYS),
            mount("s3", S3),
            mount("identity", IDENTITY),
            {"name": volume("scratch"), "mountPath": SCRATCH},
        ]);
        // A restored database gets the owner and mode of the one before it.
        let context = user.context(&["CHOWN", "DAC_OVERRIDE", "FOWNER"]);
        self.container(&volume(ENSURE), &args, &mounts, &context)
    }

    fn common_args(&self) -> Vec<String> {
        let mut args = vec![format!("--signing-key-file={KEYS}/signing-key")];
        if self.access.secret.is_some() {
            args.push(format!("--access-key-file={S3}/AWS_ACCESS_KEY_ID"));
            args.push(format!("--secret-key-file={S3}/AWS_SECRET_ACCESS_KEY"));
        }
        args.extend([
            format!("--endpoint={}", self.storage.endpoint),
            format!("--region={}", self.storage.region()),
            format!("--bucket={}", self.access.bucket),
        ]);
        args.extend(self.access.prefix.as_ref().map(|prefix| format!("--prefix={prefix}")));
        args.push(format!("--owner={}", self.names.owner));
        if self.storage.ca_secret_ref.is_some() {
            args.push(format!("--ca-file={CONFIG}/ca.crt"));
        }
        if self.storage.insecure {
            args.push("--insecure".into());
        }
        args
    }

    /// Whether a volume or mount is: without keys there is no Secret of them.
    fn is_needed(&self, item: &Value) -> bool {
        self.access.secret.is_some() || text(item, &["name"]) != Some(&volume("s3"))
    }

    fn container(&self, name: &str, args: &[String], mounts: &Value, context: &Value) -> Value {
        let mounts: Vec<&Value> =
            mounts.as_array().into_iter().flatten().filter(|mount| self.is_needed(mount)).collect();
        let mut container = json!({
            "name": name,
            "image": self.agent.image,
            "args": args,
            "env": [{"name": "TMPDIR", "value": SCRATCH}],
            "resources": self.resources(),
            "securityContext": context,
            "volumeMounts": mounts,
        });
        if let Some(policy) = self.agent.image_pull_policy {
            container["imagePullPolicy"] = json!(format!("{policy:?}"));
        }
        container
    }

    /// Replication takes under 40 MiB; a restore more, by the parts that it fetches at once.
    fn resources(&self) -> Value {
        match &self.agent.resources {
            Some(resources) => Value::Object(resources.clone()),
            None => json!({"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}}),
        }
    }

    fn volumes(&self, mode: u32) -> Vec<Value> {
        let secret = |name: &str, secret: Value| json!({"name": volume(name), "secret": secret});
        let mut volumes = vec![
            json!({"name": volume("config"), "configMap": {"name": self.names.config().name}}),
            secret(
                "keys",
                json!({
                    "secretName": self.names.keys().name,
                    "defaultMode": mode,
                    "items": [
                        {"key": "recipients", "path": "recipients"},
                        {"key": "signing-key", "path": "signing-key"},
                    ],
                }),
            ),
            secret(
                "s3",
                json!({
                    "secretName": self.access.secret,
                    "defaultMode": mode,
                    "items": [
                        {"key": "AWS_ACCESS_KEY_ID", "path": "AWS_ACCESS_KEY_ID"},
                        {"key": "AWS_SECRET_ACCESS_KEY", "path": "AWS_SECRET_ACCESS_KEY"},
                    ],
                }),
            ),
            secret(
                "identity",
                json!({
                    "secretName": self.identity_secret,
                    "defaultMode": mode,
                    "optional": true,
                    "items": [{"key": "age-identity", "path": "age-identity"}],
                }),
            ),
            json!({"name": volume("scratch"), "emptyDir": {}}),
        ];
        volumes.retain(|volume| self.is_needed(volume));
        volumes
    }
}

fn volume(name: &str) -> String {
    format!("{NAME}-{name}")
}

fn mount(name: &str, path: &str) -> Value {
    json!({"name": volume(name), "mountPath": path, "readOnly": true})
}

/// Whether an observed release has the backup in it.
pub fn is_in(release: &Value) -> bool {
    let path = ["spec", "forProvider", "values", "controlPlane", "statefulSet", "initContainers"];
    let containers = at(release, &path).and_then(Value::as_array);
    containers
        .is_some_and(|containers| containers.iter().any(|c| text(c, &["name"]) == Some(&volume(ENSURE))))
}

/// Who the control plane runs as: only the owner of the database's folder can open it (kine makes it 0700).
struct RunAs {
    ids: Map<String, Value>,
    /// Mode of the Secrets' files, which are root's.
    secret_mode: u32,
}

impl RunAs {
    fn of(values: &Values) -> Self {
        let id = |context, field| {
            let path = ["controlPlane", "statefulSet", "security", context, field];
            values.at(&path).and_then(Value::as_u64)
        };
        let user = id("containerSecurityContext", "runAsUser").unwrap_or(0);
        let group = id("containerSecurityContext", "runAsGroup").unwrap_or(0);
        // With an fsGroup the kubelet lets that group read too; without, nobody but root could. The files are
        // mounted into these containers alone.
        let is_readable = user == 0 || id("podSecurityContext", "fsGroup").is_some();
        Self {
            ids: Map::from_iter([("runAsUser".into(), json!(user)), ("runAsGroup".into(), json!(group))]),
            secret_mode: if is_readable { 0o400 } else { 0o444 },
        }
    }

    fn context(&self, capabilities: &[&str]) -> Value {
        let mut context = json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        if !capabilities.is_empty() {
            context["capabilities"]["add"] = json!(capabilities);
        }
        for (field, id) in &self.ids {
            context[field] = id.clone();
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_by_whoever_the_control_plane_runs_as() {
        for (security, mode) in [
            (json!({}), 0o400),
            (json!({"containerSecurityContext": {"runAsUser": 0}}), 0o400),
            (json!({"containerSecurityContext": {"runAsUser": 1000}}), 0o444),
            (
                json!({"containerSecurityContext": {"runAsUser": 1000}, "podSecurityContext": {"fsGroup": 1000}}),
                0o400,
            ),
        ] {
            let values = json!({"controlPlane": {"statefulSet": {"security": security}}});
            let values = values.as_object().cloned().unwrap_or_default();
            assert_eq!(RunAs::of(&Values::layered(&values, &Map::new())).secret_mode, mode, "{security}");
        }
    }
}
