//! The platform's **policy**: how far a claim reaches. Whoever writes one is not the platform, so its chart values
//! may not widen what the vcluster can do to the host.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;

/// What a claim may not do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// For `spec.values`.
    pub values: ValuesPolicy,
}

/// Paths of `spec.values`, as `a.b.c`; `[]` stands for every item of a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValuesPolicy {
    /// Refused.
    pub deny: Vec<String>,
    /// Taken all the same.
    pub allow: Vec<String>,
}

/// What would widen the vcluster's reach into the host: rights, what runs beside the control plane, the
/// host's Secrets and file system.
const DENIED: [&str; 12] = [
    "rbac",
    "controlPlane.statefulSet.security",
    "controlPlane.statefulSet.image",
    "controlPlane.statefulSet.sidecarContainers",
    "controlPlane.statefulSet.initContainers",
    "controlPlane.statefulSet.persistence.addVolumes[].hostPath",
    "controlPlane.statefulSet.persistence.dataVolume[].hostPath",
    "controlPlane.statefulSet.persistence.binariesVolume[].hostPath",
    "sync.fromHost.secrets",
    "experimental.deploy.host",
    "plugin",
    "plugins",
];

impl Default for ValuesPolicy {
    fn default() -> Self {
        Self { deny: DENIED.map(str::to_owned).to_vec(), allow: Vec::new() }
    }
}

/// Refuses user's values that reach further than the platform lets them.
pub fn check_reach(user: &Map<String, Value>, policy: &ValuesPolicy) -> Result<(), Fatal> {
    let deny: Vec<Vec<&str>> = policy.deny.iter().map(|path| split(path)).collect();
    let allow: Vec<Vec<&str>> = policy.allow.iter().map(|path| split(path)).collect();
    let mut refused = None;
    walk(&Value::Object(user.clone()), &mut Vec::new(), &mut |leaf| {
        let leaf: Vec<&str> = leaf.iter().map(String::as_str).collect();
        let denied = deny.iter().any(|path| {
            // A leaf above a denied path replaces all that is below it.
            let reached = if path.len() > leaf.len() { path } else { &leaf };
            // ... but not of a path into a list: other items are no part of this one.
            let below = path.get(leaf.len()) != Some(&"[]");
            let related = below && path.iter().zip(&leaf).all(|(a, b)| a == b);
            related
                && !allow.iter().any(|allowed| allowed.len() >= path.len() && reached.starts_with(allowed))
        });
        if denied && refused.is_none() {
            refused = Some(leaf.join(".").replace(".[]", "[]"));
        }
    });
    match refused {
        None => Ok(()),
        Some(path) => Err(Fatal::new(
            format_args!("spec.values.{path}"),
            "the platform does not let a claim set this: it would widen what the vcluster can do to the host",
            "take it out, or ask the platform to add it to policy.values.allow",
        )
        .shown_as(Kind::ClusterReady, Reason::ValueDenied)),
    }
}

/// `a.b[].c` as its segments `a`, `b`, `[]`, `c`.
fn split(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for name in path.split('.') {
        let plain = name.trim_end_matches("[]");
        segments.push(plain);
        segments.extend(std::iter::repeat_n("[]", (name.len() - plain.len()) / 2));
    }
    segments
}

/// Visits the path of every value that is no object; a list and the values in it. An empty object changes
/// nothing where objects are merged.
fn walk(value: &Value, path: &mut Vec<String>, visit: &mut impl FnMut(&[String])) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(name.clone());
                walk(value, path, visit);
                path.pop();
            }
        }
        Value::Array(items) => {
            visit(path);
            path.push("[]".into());
            for item in items {
                walk(item, path, visit);
            }
            path.pop();
        }
        _ => visit(path),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    #[test]
    fn what_widens_the_reach_is_refused_with_its_path() {
        let policy = ValuesPolicy::default();
        for (values, path) in [
            (json!({"rbac": {"clusterRole": {"enabled": true}}}), Some("rbac.clusterRole.enabled")),
            (json!({"rbac": null}), Some("rbac")),
            (json!({"controlPlane": null}), Some("controlPlane")),
            (json!({"controlPlane": {"statefulSet": "x"}}), Some("controlPlane.statefulSet")),
            (
                json!({"controlPlane": {"statefulSet": {"initContainers": []}}}),
                Some("controlPlane.statefulSet.initContainers"),
            ),
            (
                json!({"controlPlane": {"statefulSet": {"persistence": {"addVolumes": [{"name": "x"}, {"hostPath": {"path": "/"}}]}}}}),
                Some("controlPlane.statefulSet.persistence.addVolumes[].hostPath.path"),
            ),
            (json!({"plugins": {"p": {"image": "x"}}}), Some("plugins.p.image")),
            (
                json!({"sync": {"fromHost": {"secrets": {"enabled": true}}}}),
                Some("sync.fromHost.secrets.enabled"),
            ),
            (json!({"sync": {"fromHost": {"nodes": {"enabled": true}}}}), None),
            (json!({"controlPlane": {"statefulSet": {"resources": {"limits": {"memory": "1Gi"}}}}}), None),
            (
                json!({"controlPlane": {"statefulSet": {"persistence": {"addVolumes": [{"name": "x"}]}}}}),
                None,
            ),
            (json!({"controlPlane": {}, "rbac": {}, "rbacs": true}), None),
        ] {
            let refused = check_reach(&map(values.clone()), &policy).err().map(|fatal| fatal.to_string());
            match path {
                None => assert_eq!(refused, None, "{values}"),
                Some(path) => {
                    let message = refused.unwrap();
                    assert!(message.starts_with(&format!("spec.values.{path}: ")), "{message}");
                }
            }
        }
    }

    #[test]
    fn the_platform_may_allow_a_part_of_it() {
        let policy = ValuesPolicy {
            deny: vec!["a.b".into(), "c".into()],
            allow: vec!["a.b.d".into(), "c".into(), "a".into()],
        };
        let refused = |values: Value| check_reach(&map(values), &policy).is_err();
        assert!(!refused(json!({"a": {"b": {"d": 1}}})));
        assert!(refused(json!({"a": {"b": {"d": 1, "e": 1}}})));
        assert!(refused(json!({"a": {"b": null}})));
        assert!(!refused(json!({"c": {"x": 1}})));
    }
}
