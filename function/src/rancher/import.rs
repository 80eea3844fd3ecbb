//! The **import**: a Job beside the vcluster that applies Rancher's agent to it, once.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::names::Place;
use crate::object::{self, at, text};

/// The key in the Secret: where the agent's manifest is, as `curl --config` reads it, for the address holds the token
/// and must not be an argument.
const REQUEST: &str = "request";
/// Longest address that is taken.
const ADDRESS: usize = 2048;
/// Neither the address nor what it gives is ever shown or written to a disk. The kubeconfig names an address that only
/// a port-forward has; the Service is what the certificate is for as well.
const SCRIPT: &str = "curl --fail --silent --show-error --location --proto =https --max-time 60 \
                      --config /import/request --output /tmp/agent.yaml\n\
                      kubectl --kubeconfig=/kubeconfig/config --server=\"$SERVER\" apply --filename=/tmp/agent.yaml\n";

/// What an import depends on.
pub struct Import<'a> {
    /// A shell, curl and kubectl.
    pub image: &'a str,
    /// The vcluster.
    pub release: &'a str,
    /// Where it is.
    pub namespace: &'a str,
    /// The Secret with the address.
    pub secret: &'a str,
    /// Rancher's name for the cluster.
    pub id: &'a str,
    /// The restore that was last done: it may have taken the agent away.
    pub restored: Option<&'a str>,
}

impl Import<'_> {
    /// A Job cannot be changed; another digest is another Job, and the one before goes.
    pub fn digest(&self) -> String {
        let what = json!([self.image, self.release, self.namespace, self.id, self.restored, SCRIPT]);
        hex::encode(&digest(&SHA256, what.to_string().as_bytes()).as_ref()[..5])
    }

    /// What the Job is called; several vclusters may share the namespace.
    pub fn name(&self) -> String {
        format!("rancher-import-{}", self.digest())
    }

    /// The Job. It goes by a kubeconfig that the vcluster's pod wrote, which may make kubectl run what it likes: so it
    /// has no rights of its own, and no more within reach than that pod.
    pub fn job(&self) -> Value {
        let volume = |name: &str, secret: &str, key: &str| json!({"name": name, "secret": {"secretName": secret, "items": [{"key": key, "path": key}]}});
        let mount =
            |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": name != "scratch"});
        let labels = json!({
            "app.kubernetes.io/name": "rancher-import",
            "app.kubernetes.io/instance": self.release,
            "app.kubernetes.io/managed-by": "crossplane",
        });
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name(), "namespace": self.namespace, "labels": labels},
            "spec": {
                // With the growing pauses between them a good hour.
                "backoffLimit": 20,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "restartPolicy": "OnFailure",
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "securityContext": {
                            "runAsNonRoot": true,
                            "runAsUser": 65532,
                            "runAsGroup": 65532,
                            "fsGroup": 65532,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [{
                            "name": "import",
                            "image": self.image,
                            "command": ["/bin/sh", "-ec", SCRIPT],
                            "env": [
                                {"name": "HOME", "value": "/tmp"},
                                {"name": "SERVER", "value": format!("https://{}.{}.svc", self.release, self.namespace)},
                            ],
                            "resources": {
                                "requests": {"cpu": "10m", "memory": "64Mi"},
                                "limits": {"memory": "256Mi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "capabilities": {"drop": ["ALL"]},
                                "readOnlyRootFilesystem": true,
                            },
                            "volumeMounts": [
                                mount("kubeconfig", "/kubeconfig"),
                                mount("import", "/import"),
                                mount("scratch", "/tmp"),
                            ],
                        }],
                        "volumes": [
                            volume("kubeconfig", &format!("vc-{}", self.release), "config"),
                            volume("import", self.secret, REQUEST),
                            // The manifest holds the agent's credentials.
                            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                        ],
                    },
                },
            },
        })
    }
}

/// The Secret with the address. The vcluster's pod can read it; what it opens is a place for this cluster alone, and
/// the agent in the vcluster has the same.
pub fn secret(place: &Place, url: &str) -> Value {
    let request = Zeroizing::new(format!("url = \"{url}\"\n"));
    object::secret(&place.name, &place.namespace, [(REQUEST, request.as_bytes())])
}

/// Whether an observed token is that of this cluster.
pub fn is_of(token: &Value, id: &str) -> bool {
    text(token, &["status", "atProvider", "manifest", "metadata", "namespace"]) == Some(id)
}

/// Where an observed token says that the agent's manifest is; nothing that would be more than an address to curl.
pub fn manifest_url(token: &Value) -> Option<Zeroizing<String>> {
    let url = text(token, &["status", "atProvider", "manifest", "status", "manifestUrl"])?;
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    (url.starts_with("https://") && url.len() <= ADDRESS && url.chars().all(plain))
        .then(|| Zeroizing::new(url.to_owned()))
}

/// Whether the observed Job has given up.
pub fn has_failed(object: &Value) -> bool {
    let conditions = at(object, &["status", "atProvider", "manifest", "status", "conditions"]);
    conditions.and_then(Value::as_array).is_some_and(|conditions| {
        conditions
            .iter()
            .any(|c| text(c, &["type"]) == Some("Failed") && text(c, &["status"]) == Some("True"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_nothing_else_to_curl() {
        let token =
            |url: &str| json!({"status": {"atProvider": {"manifest": {"status": {"manifestUrl": url}}}}});
        let url = |text: &str| manifest_url(&token(text)).is_some();
        assert!(url("https://rancher.example.org/v3/import/abc_c-m-1.yaml"));
        for bad in [
            "http://rancher/x",
            "https://r\"\noutput = \"/x",
            "https://r/\\",
            "https://r/ x",
            "",
            "file:///x",
        ] {
            assert!(!url(bad), "{bad}");
        }
    }

    #[test]
    fn what_matters_to_a_job_is_in_its_name() {
        let import =
            |image, id, restored| Import { image, release: "dev", namespace: "n", secret: "s", id, restored };
        let name = import("a", "c-1", None).name();
        assert_eq!(name, import("a", "c-1", None).name());
        for other in [import("b", "c-1", None), import("a", "c-2", None), import("a", "c-1", Some("oops"))] {
            assert_ne!(name, other.name());
        }
    }
}
