//! The **sidecar**: the agent's two containers beside kine, and the volumes they share. Their arguments never
//! change while a cluster lives, for any change restarts its only control plane; what may change is in the
//! ConfigMap ([`crate::config`]).

use serde_json::{Map, Value, json};

use crate::chart::{Distro, Generation, generation};
use crate::input::Agent;
use crate::input::storage::Storage;
use crate::names::Names;
use crate::object::at;
use crate::restart;
use crate::storage::Access;
use crate::values::Values;

/// Prefix of all names in the pod that are ours.
const NAME: &str = "vcluster-backup";
/// The container that decides what kine starts on.
pub const ENSURE: &str = "vcluster-backup-ensure";
/// Where metrics and health are served.
const PORT: u16 = 8090;
const CONFIG: &str = "/etc/vcluster-backup";
const KEYS: &str = "/etc/vcluster-backup-keys";
const S3: &str = "/etc/vcluster-backup-s3";
const IDENTITY: &str = "/etc/vcluster-backup-identity";
/// Where the agent makes snapshots; its root file system is read-only. Not a folder that a variable names: not
/// every chart renders variables.
const SCRATCH: &str = "/tmp";
/// What a service account's role in the cloud is called by.
const ROLE: &str = "eks.amazonaws.com/role-arn";

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
    /// Where the database is.
    pub distro: Distro,
    /// How the chart takes containers.
    pub generation: Generation,
    /// The chart takes `sidecarContainer`.
    pub is_patched: bool,
    /// The restore that the pod is made anew for.
    pub restart: Option<&'a str>,
}

impl Sidecar<'_> {
    /// Puts the containers and volumes into the chart's values.
    pub fn add_to(&self, values: &mut Values) {
        let generation = self.generation;
        let user = RunAs::of(generation, values);
        if generation.has_init_containers() {
            let mut ensure = self.ensure(&user);
            if let Some(id) = self.restart {
                generation.restart_by(values, &mut ensure, restart::MARK, id);
            }
            generation.add_init_container(values, ensure);
        }
        let mut run = self.run(&user);
        if self.agent.native_sidecar && generation.has_native_sidecars() {
            run["restartPolicy"] = json!("Always");
            // After `ensure`, in order: it must not read a database that is about to be replaced.
            generation.add_init_container(values, run);
        } else {
            generation.add_sidecar(values, run, self.is_patched);
        }
        for volume in self.volumes(user.secret_mode) {
            generation.add_volume(values, volume);
        }
        if let Some(role) = &self.access.role_arn {
            generation.annotate_account(values, ROLE, role);
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
        let data = json!({"name": "data", "mountPath": "/data", "readOnly": true});
        let mounts = self.mounts(data, None);
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
        let data = json!({"name": "data", "mountPath": "/data"});
        let mounts = self.mounts(data, Some(mount("identity", IDENTITY)));
        // A restored database gets the owner and mode of the one before it.
        let context = user.context(&["CHOWN", "DAC_OVERRIDE", "FOWNER"]);
        self.container(ENSURE, &args, &mounts, &context)
    }

    fn common_args(&self) -> Vec<String> {
        let mut args = vec![format!("--signing-key-file={KEYS}/signing-key")];
        if self.access.secret.is_some() {
            args.push(format!("--access-key-file={S3}/AWS_ACCESS_KEY_ID"));
            args.push(format!("--secret-key-file={S3}/AWS_SECRET_ACCESS_KEY"));
        }
        args.push(format!("--endpoint={}", self.storage.endpoint));
        args.push(format!("--region={}", self.storage.region()));
        args.push(format!("--bucket={}", self.access.bucket));
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

    fn mounts(&self, data: Value, identity: Option<Value>) -> Vec<Value> {
        let mut mounts = vec![data, mount("config", CONFIG), mount("keys", KEYS)];
        mounts.extend(self.access.secret.as_ref().map(|_| mount("s3", S3)));
        mounts.extend(identity);
        mounts.push(json!({"name": volume("scratch"), "mountPath": SCRATCH}));
        mounts
    }

    fn container(&self, name: &str, args: &[String], mounts: &[Value], context: &Value) -> Value {
        let mut container = json!({
            "name": name,
            "image": self.agent.image,
            "args": args,
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
        ];
        volumes.extend(self.access.secret.as_ref().map(|name| {
            let items = json!([
                {"key": "AWS_ACCESS_KEY_ID", "path": "AWS_ACCESS_KEY_ID"},
                {"key": "AWS_SECRET_ACCESS_KEY", "path": "AWS_SECRET_ACCESS_KEY"},
            ]);
            secret("s3", json!({"secretName": name, "defaultMode": mode, "items": items}))
        }));
        if self.generation.has_init_containers() {
            // All that is in it: a clone brings the keys of its source's bucket too.
            let identity =
                json!({"secretName": self.names.restore_key().name, "defaultMode": mode, "optional": true});
            volumes.push(secret("identity", identity));
        }
        volumes.push(json!({"name": volume("scratch"), "emptyDir": {}}));
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
    let values = at(release, &["spec", "forProvider", "values"]);
    values
        .is_some_and(|values| [ENSURE, NAME].into_iter().any(|name| generation::has_container(values, name)))
}

/// Who the control plane runs as: only the owner of the database's folder can open it (kine makes it 0700).
struct RunAs {
    ids: Map<String, Value>,
    /// Mode of the Secrets' files, which are root's.
    secret_mode: u32,
}

impl RunAs {
    fn of(generation: Generation, values: &Values) -> Self {
        let user = generation.security(values, "runAsUser").unwrap_or(0);
        let group = generation.security(values, "runAsGroup").unwrap_or(0);
        // With an fsGroup the kubelet lets that group read too; without, nobody but root could. The files are
        // mounted into these containers alone.
        let is_readable = user == 0 || generation.has_fs_group(values);
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
        for (container, pod, mode) in [
            (json!({}), json!({}), 0o400),
            (json!({"runAsUser": 0}), json!({}), 0o400),
            (json!({"runAsUser": 1000}), json!({}), 0o444),
            (json!({"runAsUser": 1000}), json!({"fsGroup": 1000}), 0o400),
        ] {
            let security = json!({"containerSecurityContext": container, "podSecurityContext": pod});
            for (generation, values) in [
                (Generation::Containers, json!({"controlPlane": {"statefulSet": {"security": security}}})),
                (Generation::Plugin, json!({"securityContext": container, "podSecurityContext": pod})),
                (Generation::PluginV2, json!({"securityContext": container, "fsGroup": pod.get("fsGroup")})),
            ] {
                let values = values.as_object().cloned().unwrap_or_default();
                let user = RunAs::of(generation, &Values::layered(&values, &Map::new()));
                assert_eq!(user.secret_mode, mode, "{generation:?} {values:?}");
            }
        }
    }
}
