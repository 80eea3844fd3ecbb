//! The vcluster **chart**: which generations can carry the backup, and which of their settings cannot.

use serde_json::{Map, Value};

use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::values::Values;

/// First chart with today's layout of values, and with a schema for them.
const LAYOUT: (u64, u64) = (0, 20);
/// First chart with `sidecarContainers` and `initContainers` (loft-sh/vcluster#3260).
const SIDECARS: (u64, u64) = (0, 30);
/// First chart without the k3s distro (loft-sh/vcluster#3595).
const NO_K3S: (u64, u64) = (0, 33);

const STATEFUL_SET: [&str; 2] = ["controlPlane", "statefulSet"];
const BACKING_STORE: [&str; 2] = ["controlPlane", "backingStore"];
const DISTRO: [&str; 2] = ["controlPlane", "distro"];

/// A chart version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    text: String,
    release: (u64, u64),
}

impl Version {
    /// Reads a version; `field` is what whoever chose it calls it.
    pub fn parse(field: &str, text: &str) -> Result<Self, Fatal> {
        let plain = text.trim().trim_start_matches('v');
        let core = plain.split(['-', '+']).next().unwrap_or_default();
        let numbers: Option<Vec<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
        let known = plain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
        match numbers.as_deref() {
            Some([major, minor, _patch]) if known => {
                Ok(Self { text: plain.to_owned(), release: (*major, *minor) })
            }
            _ => Err(Fatal::new(field, "it is no chart version", "name one exactly, such as 0.36.1")),
        }
    }

    /// As Helm takes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Where the chart's distro keeps the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distro {
    /// `/data/state.db`.
    K8s,
    /// `/data/server/db/state.db`.
    K3s,
}

/// Checks that what a claim may not set can be told from the rest; `field` names the version.
pub fn check_layout(field: &str, version: &Version, user: &Map<String, Value>) -> Result<(), Fatal> {
    if version.release >= LAYOUT || user.is_empty() {
        return Ok(());
    }
    Err(Fatal::new(
        field,
        format_args!(
            "spec.values of chart {} have another layout, which the platform's policy does not know",
            version.text
        ),
        "use 0.20.0 or newer, or take spec.values out",
    )
    .shown_as(Kind::ClusterReady, Reason::ValueDenied))
}

/// Checks that a backup can work with this chart and these values; `field` names the version.
pub fn check_backup(field: &str, version: &Version, values: &Values) -> Result<Distro, Fatal> {
    if version.release < SIDECARS {
        return Err(Fatal::new(
            field,
            format_args!("chart {} cannot carry the backup's sidecar", version.text),
            "use 0.30.0 or newer, or set spec.backup.enabled to false",
        ));
    }
    check_store(values)?;
    check_distro(version, values)
}

fn check_store(values: &Values) -> Result<(), Fatal> {
    let path = |root: [&'static str; 2], rest: &[&'static str]| [&root[..], rest].concat();
    let refuse =
        |path: &[&str], cause: &str, way_out: &str| Err(Fatal::new(values.field(path), cause, way_out));
    let replicas = path(STATEFUL_SET, &["highAvailability", "replicas"]);
    if values.at(&replicas).and_then(Value::as_f64).is_some_and(|replicas| replicas > 1.0) {
        return refuse(
            &replicas,
            "more than one replica needs another store than the SQLite file that is backed up",
            "set it to 1, or set spec.backup.enabled to false",
        );
    }
    for store in [
        ["database", "external", "enabled"],
        ["etcd", "embedded", "enabled"],
        ["etcd", "deploy", "enabled"],
        ["etcd", "external", "enabled"],
    ] {
        let store = path(BACKING_STORE, &store);
        if values.is_on(&store) {
            return refuse(
                &store,
                "only the embedded SQLite database can be backed up",
                "take it out, or set spec.backup.enabled to false",
            );
        }
    }
    let source = path(BACKING_STORE, &["database", "embedded", "dataSource"]);
    if values.at(&source).and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
        return refuse(
            &source,
            "it moves the database to where the backup does not look",
            "take it out, or set spec.backup.enabled to false",
        );
    }
    let claim = path(STATEFUL_SET, &["persistence", "volumeClaim", "enabled"]);
    // Templates of one's own are volumes whatever that says (the chart's _persistence.tpl).
    let templates = values.at(&path(STATEFUL_SET, &["persistence", "volumeClaimTemplates"]));
    let has_templates = templates.and_then(Value::as_array).is_some_and(|templates| !templates.is_empty());
    if !has_templates && values.at(&claim).is_some_and(|value| value == false || value == "false") {
        return refuse(
            &claim,
            "without a volume the database is gone with its pod",
            "take it out, or set spec.backup.enabled to false",
        );
    }
    Ok(())
}

fn check_distro(version: &Version, values: &Values) -> Result<Distro, Fatal> {
    let distro = |name| [DISTRO[0], DISTRO[1], name, "enabled"];
    if values.is_on(&distro("k0s")) {
        let cause = format!("chart {} has no k0s", version.text);
        return Err(Fatal::new(values.field(&distro("k0s")), cause, "take it out"));
    }
    if !values.is_on(&distro("k3s")) {
        return Ok(Distro::K8s);
    }
    if version.release >= NO_K3S {
        let cause = format!("chart {} has no k3s", version.text);
        let way_out = "take it out, or name a version from 0.30 to 0.32 in spec.version";
        return Err(Fatal::new(values.field(&distro("k3s")), cause, way_out));
    }
    Ok(Distro::K3s)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(version: &str, values: Value) -> Result<Distro, String> {
        let Value::Object(user) = values else { panic!("values are an object") };
        let version = Version::parse("spec.version", version).unwrap();
        check_backup("spec.version", &version, &Values::layered(&Map::new(), &user))
            .map_err(|fatal| fatal.to_string())
    }

    #[test]
    fn versions_are_read_as_people_write_them() {
        for (text, plain) in [
            ("0.36.1", "0.36.1"),
            ("v0.30.0", "0.30.0"),
            ("0.37.0-rc.1", "0.37.0-rc.1"),
            (" 0.36.1\n", "0.36.1"),
        ] {
            assert_eq!(Version::parse("f", text).unwrap().as_str(), plain);
        }
        for text in ["", "latest", "0.36", ">=0.30.0", "0.36.x", "0.36. 1"] {
            assert!(Version::parse("f", text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_generation_decides() {
        assert_eq!(check("0.30.0", json!({})), Ok(Distro::K8s));
        let k3s = json!({"controlPlane": {"distro": {"k3s": {"enabled": true}}}});
        assert_eq!(check("0.32.9", k3s.clone()), Ok(Distro::K3s));
        assert!(
            check("0.33.0", k3s).unwrap_err().starts_with("spec.values.controlPlane.distro.k3s.enabled: ")
        );
        assert!(
            check("0.29.3", json!({})).unwrap_err().starts_with("spec.version: chart 0.29.3 cannot carry")
        );
        assert!(check("1.0.0", json!({})).is_ok());
    }

    #[test]
    fn what_cannot_be_backed_up_is_refused() {
        for (path, values) in [
            (
                "statefulSet.highAvailability.replicas",
                json!({"statefulSet": {"highAvailability": {"replicas": 3}}}),
            ),
            (
                "backingStore.etcd.deploy.enabled",
                json!({"backingStore": {"etcd": {"deploy": {"enabled": true}}}}),
            ),
            (
                "backingStore.etcd.embedded.enabled",
                json!({"backingStore": {"etcd": {"embedded": {"enabled": true}}}}),
            ),
            (
                "backingStore.database.external.enabled",
                json!({"backingStore": {"database": {"external": {"enabled": true}}}}),
            ),
            (
                "backingStore.database.embedded.dataSource",
                json!({"backingStore": {"database": {"embedded": {"dataSource": "sqlite:///tmp/x"}}}}),
            ),
            (
                "statefulSet.persistence.volumeClaim.enabled",
                json!({"statefulSet": {"persistence": {"volumeClaim": {"enabled": false}}}}),
            ),
            (
                "statefulSet.persistence.volumeClaim.enabled",
                json!({"statefulSet": {"persistence": {
                    "volumeClaim": {"enabled": false}, "volumeClaimTemplates": [],
                }}}),
            ),
            ("distro.k0s.enabled", json!({"distro": {"k0s": {"enabled": true}}})),
        ] {
            let message = check("0.36.1", json!({"controlPlane": values})).unwrap_err();
            assert!(message.starts_with(&format!("spec.values.controlPlane.{path}: ")), "{message}");
        }
        let fine = json!({"controlPlane": {
            "statefulSet": {"highAvailability": {"replicas": 1}, "persistence": {"volumeClaim": {"enabled": "auto"}}},
            "backingStore": {"database": {"embedded": {"enabled": true}}},
        }});
        assert_eq!(check("0.36.1", fine), Ok(Distro::K8s));
        let templates = json!({"controlPlane": {"statefulSet": {"persistence": {
            "volumeClaim": {"enabled": false}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        }}}});
        assert_eq!(check("0.36.1", templates), Ok(Distro::K8s));
    }

    #[test]
    fn values_of_another_layout_are_refused() {
        let check = |version: &str, values: Value| {
            let version = Version::parse("spec.version", version).unwrap();
            check_layout("spec.version", &version, values.as_object().unwrap())
        };
        let values = json!({"rbac": {}});
        let fatal = check("0.19.9", values.clone()).unwrap_err();
        assert!(fatal.to_string().starts_with("spec.version: "), "{fatal}");
        assert_eq!(fatal.reason(), Reason::ValueDenied);
        assert!(check("0.19.9", json!({})).is_ok());
        assert!(check("0.20.0", values).is_ok());
    }
}
