//! The platform's **policy**: how far a claim reaches. Whoever writes one is not the platform, so its chart values
//! may not widen what the vcluster can do to the host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;

/// What a claim may not do.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Paths of spec.values, as a.b.c; `[]` stands for every item of a list. Templates and line breaks, which the chart
    /// would run or write as its own, are refused as well.
    pub values: ValuesPolicy,
}

/// Paths of spec.values, as a.b.c; `[]` stands for every item of a list. Templates and line breaks, which the chart
/// would run or write as its own, are refused as well.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValuesPolicy {
    /// Refused; what reaches into the host if left out.
    pub deny: Vec<String>,
    /// Taken all the same.
    pub allow: Vec<String>,
}

/// What would widen the vcluster's reach into the host: rights, what runs in the control plane's pod or beside
/// it, the host's objects and file system. The charts' templates from 0.10 to 0.36 were read for it. One list for
/// all of them: no field means one thing up to 0.19 and another since.
const DENIED: [&str; 86] = [
    "rbac",
    "plugin",
    "plugins",
    // Pods and nodes of all namespaces.
    "pro",
    // What the platform confines its vclusters to, should it do so.
    "policies",
    "isolation",
    // Since 0.20.
    "controlPlane.advanced.defaultImageRegistry",
    "controlPlane.advanced.serviceAccount",
    // Annotations of service accounts: by these, clouds give roles.
    "controlPlane.advanced.globalMetadata",
    "controlPlane.advanced.workloadServiceAccount",
    "controlPlane.advanced.kubeVip",
    "controlPlane.backingStore.etcd.deploy.statefulSet",
    "controlPlane.distro.k8s.image",
    "controlPlane.distro.k8s.env",
    "controlPlane.distro.k8s.securityContext",
    "controlPlane.distro.k8s.apiServer.image",
    "controlPlane.distro.k8s.apiServer.command",
    "controlPlane.distro.k8s.controllerManager.image",
    "controlPlane.distro.k8s.controllerManager.command",
    "controlPlane.distro.k8s.scheduler.image",
    "controlPlane.distro.k8s.scheduler.command",
    "controlPlane.distro.k3s.image",
    "controlPlane.distro.k3s.env",
    "controlPlane.distro.k3s.command",
    "controlPlane.distro.k3s.securityContext",
    "controlPlane.distro.k0s.image",
    "controlPlane.distro.k0s.env",
    "controlPlane.distro.k0s.command",
    "controlPlane.distro.k0s.securityContext",
    // A DaemonSet of the host's folders.
    "controlPlane.hostPathMapper",
    "controlPlane.statefulSet.args",
    "controlPlane.statefulSet.command",
    // Any Secret of the namespace as a variable, and with a file at hand any library in the syncer.
    "controlPlane.statefulSet.env",
    "controlPlane.statefulSet.runtimeClassName",
    "controlPlane.statefulSet.security",
    "controlPlane.statefulSet.image",
    "controlPlane.statefulSet.sidecarContainers",
    "controlPlane.statefulSet.initContainers",
    "controlPlane.statefulSet.persistence.addVolumes[].hostPath",
    // Files in the place of the control plane's programs.
    "controlPlane.statefulSet.persistence.addVolumeMounts",
    "controlPlane.statefulSet.persistence.binariesVolume",
    "controlPlane.statefulSet.persistence.dataVolume[].hostPath",
    // Writes into other namespaces.
    "exportKubeConfig.secret.namespace",
    "exportKubeConfig.additionalSecrets[].namespace",
    "sync.fromHost.configMaps",
    "sync.fromHost.customResources",
    "sync.fromHost.secrets",
    "sync.fromHost.nodes.syncBackChanges",
    "sync.toHost.customResources",
    "sync.toHost.namespaces",
    "sync.toHost.persistentVolumes",
    "sync.toHost.priorityClasses",
    "sync.toHost.storageClasses",
    "sync.toHost.volumeSnapshots",
    "sync.toHost.volumeSnapshotContents",
    // Services of all namespaces.
    "networking.replicateServices",
    "experimental.deploy.host",
    // Rules of a ClusterRole, up to 0.27.
    "experimental.genericSync",
    "experimental.multiNamespaceMode",
    "experimental.isolatedControlPlane",
    "experimental.syncSettings.targetNamespace",
    "integrations",
    // `apiKey` names any Secret of any namespace, and the chart makes a Role to read it.
    "platform",
    "external",
    // Up to 0.19.
    "defaultImageRegistry",
    "globalAnnotations",
    "serviceAccount",
    "workloadServiceAccount",
    "securityContext",
    "podSecurityContext",
    "fsGroup",
    "openshift",
    "proLicenseSecret",
    "hostpathMapper",
    "multiNamespaceMode",
    "noopSyncer",
    // Services, and with a plugin of CoreDNS pods, of all namespaces.
    "mapServices",
    "coredns.plugin",
    "volumes[].hostPath",
    // All that makes the two containers: image, command, arguments (a shell runs them up to 0.15), variables, mounts.
    "vcluster",
    "sync.generic",
    "sync.nodes.syncNodeChanges",
    "sync.persistentvolumes",
    "sync.priorityclasses",
    "sync.storageclasses",
    "sync.volumesnapshots",
];

/// The same of the syncer up to 0.19, which has harmless fields too.
const DENIED_SYNCER: [&str; 10] = [
    "image",
    "command",
    "workingDir",
    "noArgs",
    "extraArgs",
    "env",
    "volumes",
    "volumeMounts",
    "extraVolumeMounts",
    "storage.binariesVolume",
];

/// The list as a platform would write it.
fn denied() -> Vec<String> {
    let syncer = DENIED_SYNCER.into_iter().map(|field| format!("syncer.{field}"));
    DENIED.into_iter().map(str::to_owned).chain(syncer).collect()
}

/// Where the chart knows how to carry text of many lines.
const TEXTS: [&str; 9] = [
    "controlPlane.coredns.overwriteConfig",
    "controlPlane.coredns.overwriteManifests",
    "coredns.config",
    "coredns.manifests",
    "experimental.deploy.vcluster",
    "init.helm[].values",
    "init.manifests",
    "sync.fromHost",
    "sync.toHost",
];

impl Default for ValuesPolicy {
    fn default() -> Self {
        Self { deny: denied(), allow: Vec::new() }
    }
}

/// Refuses user's values that reach further than the platform lets them.
pub fn check_reach(user: &Map<String, Value>, policy: &ValuesPolicy) -> Result<(), Fatal> {
    let deny: Vec<Vec<&str>> = policy.deny.iter().map(|path| split(path)).collect();
    let allow: Vec<Vec<&str>> = policy.allow.iter().map(|path| split(path)).collect();
    let mut refused = None;
    walk(&Value::Object(user.clone()), &mut Vec::new(), &mut |leaf, value| {
        if refused.is_some() {
            return;
        }
        let leaf: Vec<&str> = leaf.iter().map(String::as_str).collect();
        let field = || leaf.join(".").replace(".[]", "[]").replace(char::is_control, " ");
        // An empty object changes nothing where objects are merged.
        let denied = !value.is_object()
            && deny.iter().any(|path| {
                // A leaf above a denied path replaces all that is below it.
                let reached = if path.len() > leaf.len() { path } else { &leaf };
                // ... but not of a path into a list: other items are no part of this one.
                let below = path.get(leaf.len()) != Some(&"[]");
                let related = below && path.iter().zip(&leaf).all(|(a, b)| a == b);
                related
                    && !allow
                        .iter()
                        .any(|allowed| allowed.len() >= path.len() && reached.starts_with(allowed))
            });
        if denied {
            refused = Some((field(), "it would widen what the vcluster can do to the host"));
        } else if rewrites(&leaf, value) && !allow.iter().any(|allowed| leaf.starts_with(allowed)) {
            refused =
                Some((field(), "a template or line break could make the chart write anything into the host"));
        }
    });
    match refused {
        None => Ok(()),
        Some((field, cause)) => Err(Fatal::new(
            format_args!("spec.values.{field}"),
            format_args!("the platform does not let a claim set this: {cause}"),
            "take it out, or ask the platform to add it to policy.values.allow",
        )
        .shown_as(Kind::ClusterReady, Reason::ValueDenied)),
    }
}

/// Whether a value, or its name, would become a part of the chart's own text: some values are run as templates
/// (`tpl`: volumes, annotations of the ingress), others are written into its manifests as they are, where a line
/// break begins another field or object.
fn rewrites(path: &[&str], value: &Value) -> bool {
    // What YAML takes for a line break and no `indent` of a template does.
    let breaks = |c| matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let runs = |text: &str| text.contains("{{") || text.contains(breaks);
    let is_text = TEXTS.iter().any(|text| path.starts_with(&split(text)));
    let name = path.last().copied().unwrap_or_default();
    let value = value.as_str().unwrap_or_default();
    runs(name) || name.contains('\n') || runs(value) || (value.contains('\n') && !is_text)
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

/// Visits every value with its path: an object or list, then what is in it.
fn walk(value: &Value, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Value)) {
    visit(path, value);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(name.clone());
                walk(value, path, visit);
                path.pop();
            }
        }
        Value::Array(items) => {
            path.push("[]".into());
            for item in items {
                walk(item, path, visit);
            }
            path.pop();
        }
        _ => {}
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

    /// The default policy refuses values at this path, or takes them.
    fn assert_refused(values: &Value, path: Option<&str>) {
        let refused = check_reach(&map(values.clone()), &ValuesPolicy::default());
        match (refused.err().map(|fatal| fatal.to_string()), path) {
            (None, None) => {}
            (Some(message), Some(path)) if message.starts_with(&format!("spec.values.{path}: ")) => {}
            (refused, path) => panic!("{values}: {refused:?} is not at {path:?}"),
        }
    }

    #[test]
    fn what_widens_the_reach_is_refused_with_its_path() {
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
            // Up to 0.19.
            (json!({"vcluster": {"extraArgs": ["; id"]}}), Some("vcluster.extraArgs")),
            (json!({"syncer": {"extraArgs": ["--x"]}}), Some("syncer.extraArgs")),
            (
                json!({"syncer": {"resources": {"limits": {"memory": "1Gi"}}, "storage": {"size": "9Gi"}}}),
                None,
            ),
            (json!({"volumes": [{"hostPath": {"path": "/"}}]}), Some("volumes[].hostPath.path")),
            (
                json!({"sync": {"ingresses": {"enabled": true}, "nodes": {"enabled": true}}, "storage": {"size": "9Gi"}}),
                None,
            ),
            (json!({"coredns": {"plugin": {"enabled": true}}}), Some("coredns.plugin.enabled")),
        ] {
            assert_refused(&values, path);
        }
    }

    #[test]
    fn all_that_is_denied_is_refused() {
        for denied in denied() {
            let values = split(&denied).into_iter().rev().fold(json!("x"), |below, name| match name {
                "[]" => json!([below]),
                name => json!({name: below}),
            });
            assert_refused(&values, Some(&denied));
        }
    }

    #[test]
    fn what_the_chart_would_take_for_its_own_text_is_refused() {
        let template = "{{ lookup }}";
        let injected = "x\n---\nkind: ClusterRoleBinding";
        let in_vcluster =
            |field: &str, text: &str| json!({"experimental": {"deploy": {"vcluster": {field: text}}}});
        for (values, path) in [
            (json!({"a": {"b": template}}), Some("a.b")),
            (json!({"a": {template: {}}}), Some("a.{{ lookup }}")),
            (json!({"a": ["b", {"c": [template]}]}), Some("a[].c[]")),
            (
                in_vcluster("manifestsTemplate", template),
                Some("experimental.deploy.vcluster.manifestsTemplate"),
            ),
            (json!({"a": {"b": injected}}), Some("a.b")),
            (json!({"sync": {"toHost": {injected: {}}}}), Some("sync.toHost.x --- kind: ClusterRoleBinding")),
            (in_vcluster("manifests", "a\u{2028}b"), Some("experimental.deploy.vcluster.manifests")),
            (in_vcluster("manifests", injected), None),
            (json!({"init": {"manifests": injected}}), None),
            (json!({"init": {"manifestsTemplate": template}}), Some("init.manifestsTemplate")),
            (json!({"init": {"helm": [{"values": injected}]}}), None),
            (json!({"init": {"helm": [{"chart": {"name": injected}}]}}), Some("init.helm[].chart.name")),
            (json!({"sync": {"nodes": {"nodeSelector": injected}}}), Some("sync.nodes.nodeSelector")),
            (json!({"sync": {"toHost": {"pods": {"patches": [{"expression": "a\nb"}]}}}}), None),
            (json!({"a": "{ }} ${b} {c}"}), None),
        ] {
            assert_refused(&values, path);
        }
        let allows = |allow: &str| ValuesPolicy { allow: vec![allow.into()], ..ValuesPolicy::default() };
        let values = map(json!({"a": {"b": template}}));
        assert!(check_reach(&values, &allows("a")).is_ok() && check_reach(&values, &allows("a.b")).is_ok());
        assert!(check_reach(&values, &allows("a.c")).is_err());
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
