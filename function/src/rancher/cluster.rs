//! The **cluster** as Rancher has it: its name, its labels, and what Rancher says of it.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::check;
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::object::{at, text};
use crate::spec::Rancher;
use crate::subject::Subject;

/// So much of a name is for people; the digest after it brings it to what Helm takes for a release.
const READABLE: usize = 36;
/// Whose labels a tenant may not set: Rancher acts on its own, and ours tell whose cluster it is.
const RESERVED: [&str; 5] = ["cattle.io", "rancher.io", "kubernetes.io", "k8s.io", "vcluster-backup.io"];

/// Checks what a user says of the registration.
pub fn check(rancher: &Rancher) -> Result<(), Fatal> {
    let refused = |fatal: Fatal| fatal.shown_as(Kind::ClusterRegistered, Reason::Refused);
    if let Some(name) = &rancher.cluster_name {
        check::label("spec.rancher.clusterName", name).map_err(refused)?;
    }
    for (name, value) in &rancher.labels {
        let field = format!("spec.rancher.labels[{}]", name.replace(char::is_control, " "));
        let refuse = |cause: &str, way_out: &str| Err(refused(Fatal::new(&field, cause, way_out)));
        let (domain, plain) = name.split_once('/').unwrap_or(("", name));
        if !is_word(plain)
            || plain.is_empty()
            || (name.contains('/') && check::subdomain("", domain).is_err())
        {
            return refuse(
                "it is no name of a label",
                "take letters, digits, -, _ and ., after a domain and / if you like",
            );
        }
        if RESERVED.iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}"))) {
            return refuse("labels of this domain are not a tenant's to set", "take a name of your own");
        }
        if !is_word(value) {
            return refuse("its value is none of a label", "take at most 63 letters, digits, -, _ and .");
        }
    }
    Ok(())
}

/// What a label and its name are made of.
fn is_word(text: &str) -> bool {
    let framed = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| framed(c) || "-_.".contains(c);
    text.is_empty()
        || (text.len() <= check::LABEL
            && text.starts_with(framed)
            && text.ends_with(framed)
            && text.chars().all(inner))
}

/// What the cluster is called in Rancher. Rancher's clusters are in one namespace, and an Object takes over what is
/// there under its name; so the digest, of whose cluster it is alone, keeps every two apart, whatever a tenant chooses.
/// It is the same when a host cluster is rebuilt.
pub fn name(subject: &Subject) -> String {
    let xr = subject.xr;
    apart(subject, xr.spec.rancher.cluster_name.as_deref().unwrap_or(&xr.name))
}

/// What the objects are called that make it, whatever it is called itself.
pub fn object_name(subject: &Subject) -> String {
    apart(subject, &subject.xr.name)
}

fn apart(subject: &Subject, chosen: &str) -> String {
    let namespace = subject.xr.namespace.as_deref().unwrap_or_default();
    let whose = digest(&SHA256, format!("{namespace}/{}", subject.xr.name).as_bytes());
    let mut readable = format!("{namespace}-{chosen}").trim_start_matches('-').to_owned();
    readable.truncate(READABLE); // ASCII, by the checks
    format!("{}-{}", readable.trim_end_matches('-'), hex::encode(&whose.as_ref()[..8]))
}

/// The cluster, of no kind but that it is imported. It stays where it was made: under another name or in another
/// namespace it would be another cluster, and the first one nobody's.
pub fn manifest(subject: &Subject, namespace: &str, observed: Option<&Value>) -> Value {
    let made = observed.and_then(|object| at(object, &["spec", "forProvider", "manifest", "metadata"]));
    let made = |field| made.and_then(|metadata| text(metadata, &[field]));
    let xr = subject.xr;
    let mut labels = json!(xr.spec.rancher.labels);
    labels["vcluster-backup.io/name"] = json!(xr.name);
    let mut whose = format!("vcluster {}", xr.name);
    if let Some(namespace) = &xr.namespace {
        labels["vcluster-backup.io/namespace"] = json!(namespace);
        whose = format!("{whose} of {namespace}");
    }
    json!({
        "apiVersion": "provisioning.cattle.io/v1",
        "kind": "Cluster",
        "metadata": {
            "name": made("name").unwrap_or(&name(subject)),
            "namespace": made("namespace").unwrap_or(namespace),
            "labels": labels,
            "annotations": {"field.cattle.io/description": whose},
        },
        "spec": {},
    })
}

/// Rancher's own name for it, which is a namespace there too.
pub fn id(object: &Value) -> Option<String> {
    let id = text(object, &["status", "atProvider", "manifest", "status", "clusterName"])?;
    check::label("", id).ok()?;
    Some(id.to_owned())
}

/// Whether its agent is in touch with Rancher.
pub fn is_connected(object: &Value) -> bool {
    at(object, &["status", "atProvider", "manifest", "status", "ready"]) == Some(&json!(true))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::names::Names;
    use crate::request::Request;
    use crate::xr::Xr;
    use vcluster_backup_proto::v1::RunFunctionRequest;

    fn name_of(namespace: &str, claim: &str, chosen: Option<&str>) -> String {
        let claim = json!({"name": claim, "namespace": namespace});
        let spec = json!({"claimRef": claim, "rancher": {"clusterName": chosen}});
        let xr = Xr::parse(&json!({"metadata": {"name": "x"}, "spec": spec})).unwrap();
        let input = Input::default();
        let names = Names::of(&xr, &input).unwrap();
        let request = Request::from(RunFunctionRequest::default());
        name(&Subject { request: &request, input: &input, xr: &xr, names: &names })
    }

    #[test]
    fn no_choice_of_a_tenant_makes_two_clusters_one() {
        let own = name_of("team-a", "dev", None);
        assert!(own.starts_with("team-a-dev-") && own.len() == "team-a-dev-".len() + 16, "{own}");
        assert_eq!(own, name_of("team-a", "dev", Some("dev")));
        for other in [
            name_of("team", "a-dev", None),
            name_of("team-a", "test", Some("dev")),
            name_of("team", "x", Some("a-dev")),
        ] {
            assert_ne!(own, other);
        }
        let long = name_of(&"n".repeat(63), "dev", Some(&"c".repeat(63)));
        assert_eq!(long.len(), 53);
    }

    #[test]
    fn labels_that_are_none_or_not_a_tenants_are_refused() {
        let check = |labels: Value| {
            let rancher: Rancher = serde_json::from_value(json!({"labels": labels})).unwrap();
            check(&rancher).map_err(|fatal| fatal.to_string())
        };
        assert_eq!(check(json!({"env": "dev", "example.org/team": "", "a_b.c": "A-1"})), Ok(()));
        for name in [
            "",
            "a b",
            "/a",
            "a/",
            "a/b/c",
            "-a",
            "cattle.io/x",
            "fleet.cattle.io/x",
            "vcluster-backup.io/name",
        ] {
            let message = check(json!({name: "x"})).unwrap_err();
            assert!(message.starts_with(&format!("spec.rancher.labels[{name}]: ")), "{message}");
        }
        assert!(check(json!({"env": "a b"})).is_err());
    }
}
