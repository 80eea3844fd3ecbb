//! **Checks** of chart and values: what cannot be with a backup is refused, with its field and the way out.

use serde_json::Value;

use super::generation::Generation;
use super::{Distro, Version};
use crate::fatal::Fatal;
use crate::input::Chart;
use crate::values::Values;

/// First chart whose `plugin` is known to be a container.
const OLDEST: (u64, u64) = (0, 10);
/// First chart without the k3s distro (loft-sh/vcluster#3595).
const NO_K3S: (u64, u64) = (0, 33);

/// What switches it on.
const K3S: [&str; 4] = ["controlPlane", "distro", "k3s", "enabled"];
/// What else there is to do.
const OR_OFF: &str = "or set spec.backup.enabled to false";
/// The charts up to 0.19 whose database is none that the agent knows.
const OTHER_CHARTS: [&str; 3] = ["-k8s", "-eks", "-k0s"];
/// Arguments of k3s that move the database.
const MOVES: [&str; 3] = ["--datastore-endpoint", "--cluster-init", "--data-dir"];

/// Checks that a backup can work with this chart and these values; `field` names the version.
pub fn check_backup(field: &str, version: &Version, chart: &Chart, values: &Values) -> Result<Distro, Fatal> {
    if version.release < OLDEST {
        return Err(Fatal::new(
            field,
            format_args!("chart {} cannot carry the backup's sidecar", version.text),
            format_args!("use 0.10.0 or newer, {OR_OFF}"),
        ));
    }
    let generation = Generation::of(version);
    check_replicas(generation, values)?;
    if generation.is_k3s_chart() {
        check_k3s_chart(version, chart, values)?;
        check_k3s_volume(generation, values)?;
        return Ok(distro(generation, values));
    }
    check_store(values)?;
    check_volume(values)?;
    check_distro(version, values)?;
    Ok(distro(generation, values))
}

/// A refusal of the field at `path`.
fn refuse(values: &Values, path: &[&str], cause: &str) -> Result<(), Fatal> {
    Err(Fatal::new(values.field(path), cause, format_args!("take it out, {OR_OFF}")))
}

fn check_replicas(generation: Generation, values: &Values) -> Result<(), Fatal> {
    let replicas = generation.replicas_path(values);
    if values.at(replicas).and_then(Value::as_f64).is_some_and(|replicas| replicas > 1.0) {
        return Err(Fatal::new(
            values.field(replicas),
            "more than one replica needs another store than the SQLite file that is backed up",
            format_args!("set it to 1, {OR_OFF}"),
        ));
    }
    Ok(())
}

/// Refuses the first of `paths` that is switched on.
fn refuse_on(values: &Values, paths: &[&[&str]], cause: &str) -> Result<(), Fatal> {
    match paths.iter().find(|path| values.is_on(path)) {
        Some(path) => refuse(values, path, cause),
        None => Ok(()),
    }
}

fn is_off(value: &Value) -> bool {
    value == false || value == "false"
}

fn has_items(values: &Values, path: &[&str]) -> bool {
    values.at(path).and_then(Value::as_array).is_some_and(|items| !items.is_empty())
}

/// Charts up to 0.19.
fn check_k3s_chart(version: &Version, chart: &Chart, values: &Values) -> Result<(), Fatal> {
    if OTHER_CHARTS.iter().any(|end| chart.name.ends_with(end)) {
        return Err(Fatal::new(
            "input.chart.name",
            format_args!("{} {} keeps its state where the backup does not look", chart.name, version.text),
            format_args!("take the chart of k3s, vcluster, {OR_OFF}"),
        ));
    }
    refuse_on(
        values,
        &[&["headless"], &["syncer", "disabled"], &["vcluster", "disabled"], &["noopSyncer", "enabled"]],
        "without a control plane of its own there is nothing to back up",
    )?;
    refuse_on(
        values,
        &[&["enableHA"], &["embeddedEtcd", "enabled"]],
        "only k3s' own SQLite database can be backed up",
    )?;
    for path in [["vcluster", "env"], ["syncer", "env"]] {
        let variables = values.at(&path).and_then(Value::as_array);
        let is_store = |variable: &Value| variable["name"] == "K3S_DATASTORE_ENDPOINT";
        if variables.is_some_and(|variables| variables.iter().any(is_store)) {
            return refuse(
                values,
                &path,
                "K3S_DATASTORE_ENDPOINT names another store than the SQLite file that is backed up",
            );
        }
    }
    for path in [["vcluster", "command"], ["vcluster", "baseArgs"], ["vcluster", "extraArgs"]] {
        let texts =
            values.at(&path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for text in texts.filter(|text| *text != "--data-dir=/data") {
            if let Some(moves) = MOVES.iter().find(|moves| text.contains(**moves)) {
                let cause = format!("{moves} moves the database to where the backup does not look");
                return refuse(values, &path, &cause);
            }
        }
    }
    Ok(())
}

fn check_k3s_volume(generation: Generation, values: &Values) -> Result<(), Fatal> {
    const STORAGE: [&str; 2] = ["storage", "persistence"];
    const SYNCER: [&str; 3] = ["syncer", "storage", "persistence"];
    if has_items(values, &["volumeClaimTemplates"]) {
        return Ok(());
    }
    // The old place counts where both are.
    let has_old = generation == Generation::Plugin || values.at(&STORAGE).is_some();
    let path: &[&str] = if has_old { &STORAGE } else { &SYNCER };
    if values.at(path).is_some_and(is_off) {
        return refuse(values, path, "without a volume the database is gone with its pod");
    }
    Ok(())
}

/// The stores of 0.20 and newer.
fn check_store(values: &Values) -> Result<(), Fatal> {
    refuse_on(
        values,
        &[
            &["controlPlane", "backingStore", "database", "external", "enabled"],
            &["controlPlane", "backingStore", "etcd", "embedded", "enabled"],
            &["controlPlane", "backingStore", "etcd", "deploy", "enabled"],
            &["controlPlane", "backingStore", "etcd", "external", "enabled"],
        ],
        "only the embedded SQLite database can be backed up",
    )?;
    refuse_on(
        values,
        &[
            &["experimental", "isolatedControlPlane", "headless"],
            &["experimental", "syncSettings", "disableSync"],
        ],
        "without a control plane of its own there is nothing to back up",
    )?;
    let moved = "it moves the database to where the backup does not look";
    let source = ["controlPlane", "backingStore", "database", "embedded", "dataSource"];
    if values.at(&source).and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
        return refuse(values, &source, moved);
    }
    let args = ["controlPlane", "backingStore", "database", "embedded", "extraArgs"];
    let mut texts =
        values.at(&args).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    if texts.any(|text| text.trim_start_matches('-').starts_with("endpoint")) {
        return refuse(values, &args, moved);
    }
    Ok(())
}

fn check_volume(values: &Values) -> Result<(), Fatal> {
    let claim = ["controlPlane", "statefulSet", "persistence", "volumeClaim", "enabled"];
    let templates = ["controlPlane", "statefulSet", "persistence", "volumeClaimTemplates"];
    // Templates of one's own are volumes whatever that says (the chart's _persistence.tpl).
    if !has_items(values, &templates) && values.at(&claim).is_some_and(is_off) {
        return refuse(values, &claim, "without a volume the database is gone with its pod");
    }
    Ok(())
}

fn check_distro(version: &Version, values: &Values) -> Result<(), Fatal> {
    refuse_on(
        values,
        &[&["controlPlane", "distro", "k0s", "enabled"]],
        "the backup does not know the database of k0s",
    )?;
    if values.is_on(&K3S) && version.release >= NO_K3S {
        let cause = format!("chart {} has no k3s", version.text);
        let way_out = "take it out, or name a version before 0.33 in spec.version";
        return Err(Fatal::new(values.field(&K3S), cause, way_out));
    }
    Ok(())
}

/// The distro of values that are fine.
pub fn distro(generation: Generation, values: &Values) -> Distro {
    if generation.is_k3s_chart() || values.is_on(&K3S) { Distro::K3s } else { Distro::K8s }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn check(version: &str, values: Value) -> Result<Distro, String> {
        let Value::Object(user) = values else { panic!("values are an object") };
        let version = Version::parse("spec.version", version).unwrap();
        check_backup("spec.version", &version, &Chart::default(), &Values::layered(&Map::new(), &user))
            .map_err(|fatal| fatal.to_string())
    }

    #[test]
    fn the_generation_decides() {
        let k3s = json!({"controlPlane": {"distro": {"k3s": {"enabled": true}}}});
        for version in ["0.20.0", "0.29.3", "0.30.0", "0.32.9"] {
            assert_eq!(check(version, json!({})), Ok(Distro::K8s), "{version}");
            assert_eq!(check(version, k3s.clone()), Ok(Distro::K3s), "{version}");
        }
        for version in ["0.10.0", "0.15.7", "0.19.10"] {
            assert_eq!(check(version, json!({})), Ok(Distro::K3s), "{version}");
        }
        assert!(
            check("0.33.0", k3s).unwrap_err().starts_with("spec.values.controlPlane.distro.k3s.enabled: ")
        );
        assert!(check("0.9.1", json!({})).unwrap_err().starts_with("spec.version: chart 0.9.1 cannot carry"));
        assert!(check("1.0.0", json!({})).is_ok());
    }

    #[test]
    fn what_cannot_be_backed_up_is_refused() {
        for (path, values) in [
            (
                "controlPlane.statefulSet.highAvailability.replicas",
                json!({"controlPlane": {"statefulSet": {"highAvailability": {"replicas": 3}}}}),
            ),
            (
                "controlPlane.backingStore.etcd.deploy.enabled",
                json!({"controlPlane": {"backingStore": {"etcd": {"deploy": {"enabled": true}}}}}),
            ),
            (
                "controlPlane.backingStore.database.external.enabled",
                json!({"controlPlane": {"backingStore": {"database": {"external": {"enabled": true}}}}}),
            ),
            (
                "controlPlane.backingStore.database.embedded.dataSource",
                json!({"controlPlane": {"backingStore": {"database": {"embedded": {"dataSource": "sqlite:///tmp/x"}}}}}),
            ),
            (
                "controlPlane.backingStore.database.embedded.extraArgs",
                json!({"controlPlane": {"backingStore": {"database": {"embedded": {"extraArgs": ["--endpoint=x"]}}}}}),
            ),
            (
                "controlPlane.statefulSet.persistence.volumeClaim.enabled",
                json!({"controlPlane": {"statefulSet": {"persistence": {
                    "volumeClaim": {"enabled": "false"}, "volumeClaimTemplates": [],
                }}}}),
            ),
            (
                "controlPlane.distro.k0s.enabled",
                json!({"controlPlane": {"distro": {"k0s": {"enabled": true}}}}),
            ),
            (
                "experimental.isolatedControlPlane.headless",
                json!({"experimental": {"isolatedControlPlane": {"headless": true}}}),
            ),
        ] {
            for version in ["0.20.4", "0.36.1"] {
                let message = check(version, values.clone()).unwrap_err();
                assert!(message.starts_with(&format!("spec.values.{path}: ")), "{message}");
            }
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
    fn so_it_is_in_the_old_layout() {
        for (version, path, values) in [
            ("0.18.1", "replicas", json!({"replicas": 2})),
            ("0.19.0", "syncer.replicas", json!({"syncer": {"replicas": 2}})),
            ("0.15.7", "enableHA", json!({"enableHA": true})),
            ("0.19.0", "embeddedEtcd.enabled", json!({"embeddedEtcd": {"enabled": true}})),
            ("0.19.0", "headless", json!({"headless": true})),
            ("0.19.0", "noopSyncer.enabled", json!({"noopSyncer": {"enabled": true}})),
            ("0.18.1", "storage.persistence", json!({"storage": {"persistence": false}})),
            (
                "0.19.0",
                "storage.persistence",
                json!({"storage": {"persistence": false}, "syncer": {"storage": {"persistence": true}}}),
            ),
            ("0.19.0", "syncer.storage.persistence", json!({"syncer": {"storage": {"persistence": false}}})),
            (
                "0.15.7",
                "vcluster.env",
                json!({"vcluster": {"env": [{"name": "K3S_DATASTORE_ENDPOINT", "value": "x"}]}}),
            ),
            ("0.19.0", "vcluster.extraArgs", json!({"vcluster": {"extraArgs": ["--datastore-endpoint=x"]}})),
            ("0.19.0", "vcluster.baseArgs", json!({"vcluster": {"baseArgs": ["server", "--data-dir=/x"]}})),
        ] {
            let message = check(version, values).unwrap_err();
            assert!(message.starts_with(&format!("spec.values.{path}: ")), "{message}");
        }
        for (version, values) in [
            ("0.18.1", json!({"syncer": {"replicas": 2, "storage": {"persistence": false}}})),
            (
                "0.19.0",
                json!({"storage": {"persistence": true}, "syncer": {"storage": {"persistence": false}}}),
            ),
            ("0.19.0", json!({"storage": {"persistence": false}, "volumeClaimTemplates": [{}]})),
            (
                "0.15.7",
                json!({"vcluster": {"extraArgs": ["--token=a", "--debug"], "baseArgs": ["--data-dir=/data"]}}),
            ),
        ] {
            assert_eq!(check(version, values), Ok(Distro::K3s));
        }
        let k8s = Chart { name: "vcluster-k8s".into(), ..Chart::default() };
        let values = Values::layered(&Map::new(), &Map::new());
        let of = |version: &str| check_backup("f", &Version::parse("f", version).unwrap(), &k8s, &values);
        assert!(of("0.19.0").unwrap_err().to_string().starts_with("input.chart.name: vcluster-k8s 0.19.0"));
        assert!(of("0.20.0").is_ok());
    }
}
