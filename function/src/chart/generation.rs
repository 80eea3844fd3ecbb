//! **Generations** of the chart: how each takes a container beside its control plane, and where its values have
//! what the backup must know or set. Nothing else in the crate branches on a version.

use serde_json::{Value, json};

use super::Version;
use crate::values::Values;

/// First chart with `version: v2` plugins, which are init containers.
const PLUGINS_V2: (u64, u64) = (0, 19);
/// First chart with today's layout of values, and with a schema for them.
const VCLUSTER_YAML: (u64, u64) = (0, 20);
/// First chart with `sidecarContainers` and `initContainers` (loft-sh/vcluster#3260).
const SIDECARS: (u64, u64) = (0, 30);

/// A path into the values.
type Path = &'static [&'static str];

/// Charts that take containers in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Up to 0.18: a `plugin` is a container beside the syncer. Nothing of ours can run before it.
    Plugin,
    /// 0.19: the same, and a `plugin` of version v2 is an init container.
    PluginV2,
    /// 0.20 to 0.29: `plugin` is kept for the old ones, `plugins` are init containers; values have a schema.
    Plugins,
    /// From 0.30 on: any container.
    Containers,
}

/// Where values have what the backup must know or set.
struct Layout {
    /// Security context of the containers.
    container_security: Path,
    /// Group of the volumes' files; any of these.
    fs_group: &'static [Path],
    /// Annotations of the pod.
    pod_annotations: Path,
    /// Annotations of the service account.
    account_annotations: Path,
    /// Registry that is put before the image of a plugin, and what is put between.
    registry: (Path, &'static str),
    /// Volumes of the pod.
    volumes: Path,
}

/// Up to 0.19.
static K3S: Layout = Layout {
    container_security: &["securityContext"],
    fs_group: &[&["podSecurityContext", "fsGroup"], &["fsGroup"]],
    pod_annotations: &["podAnnotations"],
    // The service account has no other annotations than those of all objects.
    account_annotations: &["globalAnnotations"],
    registry: (&["defaultImageRegistry"], ""),
    volumes: &["volumes"],
};

/// From 0.20 on.
static VCLUSTER: Layout = Layout {
    container_security: &["controlPlane", "statefulSet", "security", "containerSecurityContext"],
    fs_group: &[&["controlPlane", "statefulSet", "security", "podSecurityContext", "fsGroup"]],
    pod_annotations: &["controlPlane", "statefulSet", "pods", "annotations"],
    account_annotations: &["controlPlane", "advanced", "serviceAccount", "annotations"],
    registry: (&["controlPlane", "advanced", "defaultImageRegistry"], "/"),
    volumes: &["controlPlane", "statefulSet", "persistence", "addVolumes"],
};

const INIT_CONTAINERS: Path = &["controlPlane", "statefulSet", "initContainers"];
const SIDECAR_CONTAINERS: Path = &["controlPlane", "statefulSet", "sidecarContainers"];
/// The list of the seed's patched chart.
const SIDECAR_CONTAINER: Path = &["sidecarContainer"];
/// Fields of a container that `plugin` renders; `plugins`, and a plugin of version v2, take fewer.
const PLUGIN_FIELDS: [&str; 8] = [
    "image",
    "imagePullPolicy",
    "args",
    "env",
    "resources",
    "securityContext",
    "volumeMounts",
    "livenessProbe",
];
const INIT_FIELDS: [&str; 6] =
    ["image", "imagePullPolicy", "args", "resources", "securityContext", "volumeMounts"];

impl Generation {
    /// The generation of a version.
    pub fn of(version: &Version) -> Self {
        match version.release {
            release if release < PLUGINS_V2 => Self::Plugin,
            release if release < VCLUSTER_YAML => Self::PluginV2,
            release if release < SIDECARS => Self::Plugins,
            _ => Self::Containers,
        }
    }

    /// Whether the values are those of the k3s chart, up to 0.19.
    pub fn is_k3s_chart(self) -> bool {
        matches!(self, Self::Plugin | Self::PluginV2)
    }

    /// Whether a container of ours can run before the control plane.
    pub fn has_init_containers(self) -> bool {
        self != Self::Plugin
    }

    /// Whether an init container may go on running beside the control plane.
    pub fn has_native_sidecars(self) -> bool {
        self == Self::Containers
    }

    fn layout(self) -> &'static Layout {
        if self.is_k3s_chart() { &K3S } else { &VCLUSTER }
    }

    /// Where the number of control planes is said.
    pub fn replicas_path(self, values: &Values) -> Path {
        match self {
            Self::Plugin => &["replicas"],
            // As the chart decides between the old place and the new one.
            Self::PluginV2 if values.at(&["replicas"]).and_then(Value::as_f64).unwrap_or(0.0) != 0.0 => {
                &["replicas"]
            }
            Self::PluginV2 => &["syncer", "replicas"],
            Self::Plugins | Self::Containers => {
                &["controlPlane", "statefulSet", "highAvailability", "replicas"]
            }
        }
    }

    /// Whether the control plane is scaled to zero.
    pub fn is_asleep(self, values: &Values) -> bool {
        values.at(self.replicas_path(values)).and_then(Value::as_f64) == Some(0.0)
    }

    /// A field of the security context that the control plane's containers have.
    pub fn security(self, values: &Values, field: &'static str) -> Option<u64> {
        values.at(&[self.layout().container_security, &[field]].concat()).and_then(Value::as_u64)
    }

    /// Whether the volumes' files have a group.
    pub fn has_fs_group(self, values: &Values) -> bool {
        self.layout().fs_group.iter().any(|path| values.at(path).and_then(Value::as_u64).is_some())
    }

    /// Adds a volume to the pod.
    pub fn add_volume(self, values: &mut Values, volume: Value) {
        values.append(self.layout().volumes, volume);
    }

    /// Sets an annotation of the service account.
    pub fn annotate_account(self, values: &mut Values, name: &'static str, text: &str) {
        values.set(&[self.layout().account_annotations, &[name]].concat(), json!(text));
    }

    /// Adds a container beside the control plane; `is_patched` is the chart that takes `sidecarContainer`.
    pub fn add_sidecar(self, values: &mut Values, container: Value, is_patched: bool) {
        match self {
            Self::Containers => values.append(SIDECAR_CONTAINERS, container),
            Self::Plugin | Self::PluginV2 if is_patched => values.append(SIDECAR_CONTAINER, container),
            Self::Plugin | Self::PluginV2 => {
                // Optional, or the syncer would wait for it to register.
                self.add_plugin(values, "plugin", &container, &PLUGIN_FIELDS, json!({"optional": true}));
            }
            // Here it is a version that keeps the syncer from waiting, and optional that makes it wait.
            Self::Plugins => {
                self.add_plugin(values, "plugin", &container, &PLUGIN_FIELDS, json!({"version": "v1"}));
            }
        }
    }

    /// Adds a container that runs before the control plane, where there can be one.
    pub fn add_init_container(self, values: &mut Values, container: Value) {
        match self {
            Self::Plugin => {}
            Self::PluginV2 => {
                self.add_plugin(values, "plugin", &container, &INIT_FIELDS, json!({"version": "v2"}));
            }
            Self::Plugins => self.add_plugin(values, "plugins", &container, &INIT_FIELDS, json!({})),
            Self::Containers => values.append(INIT_CONTAINERS, container),
        }
    }

    fn add_plugin(
        self,
        values: &mut Values,
        kind: &'static str,
        container: &Value,
        fields: &[&str],
        more: Value,
    ) {
        let mut plugin = more;
        for field in fields {
            if let Some(value) = container.get(*field) {
                plugin[*field] = value.clone();
            }
        }
        let image = plugin["image"].as_str().unwrap_or_default();
        plugin["image"] = json!(self.without_registry(values, image));
        let name = container["name"].as_str().unwrap_or_default();
        values.set(&[kind, name], plugin);
    }

    /// An image as a plugin takes it: the chart puts the registry before it.
    fn without_registry(self, values: &Values, image: &str) -> String {
        let (path, separator) = self.layout().registry;
        let registry = values.at(path).and_then(Value::as_str).unwrap_or_default();
        let rest = image.strip_prefix(registry).and_then(|rest| rest.strip_prefix(separator));
        rest.filter(|_| !registry.is_empty()).unwrap_or(image).to_owned()
    }

    /// Makes the pod another one when `text` is another: by a variable of the init container where the chart
    /// takes one, else by an annotation.
    pub fn restart_by(self, values: &mut Values, init: &mut Value, mark: Mark, text: &str) {
        match self {
            Self::Containers => {
                init["env"] = json!([{"name": mark.variable, "value": text}]);
            }
            _ => values.set(&[self.layout().pod_annotations, &[mark.annotation]].concat(), json!(text)),
        }
    }
}

/// What the pod of another restore is told apart by.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Environment variable.
    pub variable: &'static str,
    /// Annotation.
    pub annotation: &'static str,
}

/// Whether a container of this name is in values of any generation.
pub fn has_container(values: &Value, name: &str) -> bool {
    container(values, name).is_some()
}

/// The mark that is in values of any generation.
pub fn mark_in<'a>(values: &'a Value, init: &str, mark: Mark) -> Option<&'a str> {
    let variable = container(values, init).and_then(|container| {
        let variables = container.get("env")?.as_array()?;
        variables.iter().find(|variable| variable["name"] == mark.variable)?.get("value")?.as_str()
    });
    let annotation =
        |layout: &Layout| crate::object::text(values, &[layout.pod_annotations, &[mark.annotation]].concat());
    variable.or_else(|| annotation(&VCLUSTER)).or_else(|| annotation(&K3S))
}

fn container<'a>(values: &'a Value, name: &str) -> Option<&'a Value> {
    let list = |path: Path| {
        let containers = crate::object::at(values, path)?.as_array()?;
        containers.iter().find(|container| container["name"] == name)
    };
    let plugin = |kind: &str| values.get(kind)?.get(name);
    [INIT_CONTAINERS, SIDECAR_CONTAINERS, SIDECAR_CONTAINER]
        .into_iter()
        .find_map(list)
        .or_else(|| plugin("plugins"))
        .or_else(|| plugin("plugin"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Map;

    use super::*;

    const MARK: Mark = Mark { variable: "ID", annotation: "example.org/id" };

    fn of(version: &str) -> Generation {
        Generation::of(&Version::parse("f", version).unwrap())
    }

    fn values(value: Value) -> Values {
        let Value::Object(user) = value else { panic!("values are an object") };
        Values::layered(&Map::new(), &user)
    }

    #[test]
    fn what_is_put_in_is_found_again_and_nothing_that_is_not_rendered_is_put_in() {
        let container = |name: &str| json!({"name": name, "image": "i", "args": ["a"], "env": [], "ports": [], "livenessProbe": {}});
        for (version, patched, sidecar, init) in [
            ("0.18.1", false, json!({"plugin": {"run": {"optional": true}}}), json!(null)),
            ("0.18.1", true, json!({"sidecarContainer": [{"name": "run", "ports": []}]}), json!(null)),
            (
                "0.19.10",
                false,
                json!({"plugin": {"run": {"optional": true}}}),
                json!({"plugin": {"init": {"version": "v2"}}}),
            ),
            (
                "0.20.4",
                false,
                json!({"plugin": {"run": {"version": "v1"}}}),
                json!({"plugins": {"init": {}}}),
            ),
            (
                "0.30.0",
                false,
                json!({"controlPlane": {"statefulSet": {"sidecarContainers": [{"name": "run", "ports": []}]}}}),
                json!({"controlPlane": {"statefulSet": {"initContainers": [{"name": "init"}]}}}),
            ),
        ] {
            let generation = of(version);
            let mut all = values(json!({}));
            let mut ensure = container("init");
            generation.restart_by(&mut all, &mut ensure, MARK, "oops");
            generation.add_sidecar(&mut all, container("run"), patched);
            generation.add_init_container(&mut all, ensure);
            let all = all.into_json();
            assert_eq!(has_container(&all, "init"), !init.is_null(), "{version}");
            assert!(has_container(&all, "run"), "{version}");
            assert_eq!(mark_in(&all, "init", MARK), Some("oops"), "{version}");
            for expected in [sidecar, init] {
                assert!(contains(&all, &expected), "{version}: {all} has not {expected}");
            }
            let text = all.to_string();
            assert_eq!(text.contains("ports"), patched || version == "0.30.0", "{version}");
            assert_eq!(
                text.matches("livenessProbe").count(),
                if version == "0.30.0" { 2 } else { 1 },
                "{version}"
            );
        }
    }

    /// Whether `whole` has all that `part` has.
    fn contains(whole: &Value, part: &Value) -> bool {
        match (whole, part) {
            (_, Value::Null) => true,
            (Value::Object(whole), Value::Object(part)) => {
                part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part)))
            }
            (Value::Array(whole), Value::Array(part)) => {
                part.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
            }
            (whole, part) => whole == part,
        }
    }

    #[test]
    fn an_image_of_the_registry_is_not_given_it_twice() {
        for (version, registry, image, taken) in [
            ("0.19.0", "r.example/", "r.example/agent:v1", "agent:v1"),
            ("0.19.0", "r.example/", "ghcr.io/agent:v1", "ghcr.io/agent:v1"),
            ("0.19.0", "", "ghcr.io/agent:v1", "ghcr.io/agent:v1"),
        ] {
            let values = values(json!({"defaultImageRegistry": registry}));
            assert_eq!(of(version).without_registry(&values, image), taken);
        }
        let values = values(json!({"controlPlane": {"advanced": {"defaultImageRegistry": "r.example"}}}));
        assert_eq!(of("0.29.3").without_registry(&values, "r.example/agent:v1"), "agent:v1");
        assert_eq!(
            of("0.29.3").without_registry(&values, "r.example.org/agent:v1"),
            "r.example.org/agent:v1"
        );
    }

    #[test]
    fn sleep_is_found_where_the_chart_has_it() {
        for (version, asleep, awake) in [
            ("0.18.1", json!({"replicas": 0}), json!({"syncer": {"replicas": 0}})),
            (
                "0.19.10",
                json!({"replicas": 0, "syncer": {"replicas": 0}}),
                json!({"replicas": 1, "syncer": {"replicas": 0}}),
            ),
            (
                "0.20.4",
                json!({"controlPlane": {"statefulSet": {"highAvailability": {"replicas": 0}}}}),
                json!({"replicas": 0}),
            ),
        ] {
            assert!(of(version).is_asleep(&values(asleep)), "{version}");
            assert!(!of(version).is_asleep(&values(awake)), "{version}");
        }
    }
}
