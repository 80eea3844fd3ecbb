//! The agent's **configuration**: all that may change while the sidecar runs, in a ConfigMap that it reads
//! again when it changes. The keys are the agent's flags in camelCase.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::names::{Place, key};
use crate::object::text;
use crate::request::Request;
use crate::spec::{Adopt, Spec, When};
use crate::upgrade::Upgrade;

/// The settings as they were last applied.
pub fn observed(request: &Request) -> Option<Value> {
    let config = request.observed(key::CONFIG)?;
    serde_saphyr::from_str(text(config, &["data", "config.yaml"])?).ok()
}

/// The file, sorted by key.
fn file(spec: &Spec, orders: &Orders) -> String {
    let backup = &spec.backup;
    let retention = &backup.retention;
    let guard = orders.upgrade.as_ref().map(Upgrade::pin);
    let pins: Vec<Value> = backup
        .pins
        .iter()
        .filter(|pin| Some(&pin.name) != guard.as_ref())
        .map(|pin| {
            let mut request = Map::new();
            request.insert("name".into(), json!(pin.name));
            if let Some(span) = &pin.keep_for {
                request.insert("keepFor".into(), json!(span.to_string()));
            }
            Value::Object(request)
        })
        .chain(orders.upgrade.as_ref().map(Upgrade::request))
        .collect();
    let when: Vec<&str> = backup
        .auto_restore
        .when
        .iter()
        .map(|state| match state {
            When::Empty => "empty",
            When::Damaged => "damaged",
            When::Behind => "behind",
        })
        .collect();
    let adopt = match backup.auto_restore.adopt {
        Adopt::Never => "never",
        Adopt::SameName => "same-name",
    };
    let mut settings = BTreeMap::from([
        ("syncInterval", json!(backup.sync_interval.to_string())),
        ("snapshotInterval", json!(backup.snapshot_interval.to_string())),
        ("pitrWindow", json!(retention.pitr_window.to_string())),
        ("keepLast", json!(retention.last)),
        ("keepHourly", json!(retention.hourly)),
        ("keepDaily", json!(retention.daily)),
        ("keepWeekly", json!(retention.weekly)),
        ("keepMonthly", json!(retention.monthly)),
        ("pins", json!(pins)),
        ("autoRestore", json!(when)),
        ("adopt", json!(adopt)),
        ("include", json!([orders.include])),
    ]);
    if orders.is_append_only {
        settings.insert("appendOnly", json!(true));
    }
    if let Some(restore) = &orders.restore {
        settings.insert("restore", restore.clone());
    }
    // One signs with the key that the agent has; what others signed before it was changed is to be read too.
    if orders.signers.len() > 1 {
        settings.insert("signer", json!(orders.signers.join(",")));
    }
    // Each value in JSON, which is YAML: nothing that a user typed can be read as anything but text.
    let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    lines.concat()
}

/// What the agent is told beside what the spec says.
#[derive(Debug, Clone)]
pub struct Orders {
    /// What a restore needs beside the database.
    pub include: &'static str,
    /// Whether the bucket takes no deletion from the agent.
    pub is_append_only: bool,
    /// The restore that is still to be done, as the agent reads it.
    pub restore: Option<Value>,
    /// Whose signatures this cluster's own objects bear.
    pub signers: Vec<String>,
    /// The upgrade that wants a restore point.
    pub upgrade: Option<Upgrade>,
}

/// The ConfigMap; `certificate` is what the server's certificate is checked against.
pub fn config_map(place: &Place, spec: &Spec, orders: &Orders, certificate: Option<&str>) -> Value {
    let mut data = Map::from_iter([("config.yaml".to_owned(), json!(file(spec, orders)))]);
    if let Some(certificate) = certificate {
        data.insert("ca.crt".into(), json!(certificate));
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": place.name, "namespace": place.namespace},
        "data": data,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::chart::Distro;
    use crate::restore::Restore;

    #[test]
    fn the_file_is_yaml_with_sorted_keys() {
        let spec: Spec = serde_json::from_value(json!({
            "backup": {"pins": [{"name": "before-migration", "keepFor": "2160h"}, {"name": "for-ever"}],
                       "autoRestore": {"when": ["Empty", "Behind"], "adopt": "SameName"}},
            "restore": {"id": "a: b # \"c\"", "revision": 7},
        }))
        .unwrap();
        let restore = spec.restore.as_ref().map(Restore::config);
        let orders = Orders {
            include: Distro::K8s.include(),
            is_append_only: false,
            restore,
            signers: vec!["one".into(), "two".into()],
            upgrade: None,
        };
        let text = file(&spec, &orders);
        let keys: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
        assert!(keys.is_sorted(), "{text}");
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            read["pins"],
            json!([{"keepFor": "2160h", "name": "before-migration"}, {"name": "for-ever"}])
        );
        assert_eq!(read["restore"], json!({"id": "a: b # \"c\"", "revision": 7}));
        assert_eq!(
            (&read["autoRestore"], &read["adopt"]),
            (&json!(["empty", "behind"]), &json!("same-name"))
        );
        assert_eq!((&read["syncInterval"], &read["keepLast"]), (&json!("1s"), &json!(3)));
        assert_eq!((&read["include"], &read["signer"]), (&json!(["/data/pki"]), &json!("one,two")));
        let orders = Orders { restore: None, signers: vec!["one".into()], is_append_only: true, ..orders };
        let text = file(&spec, &orders);
        assert!(text.starts_with("adopt: ") && text.contains("\nappendOnly: true\n"), "{text}");
        assert!(!text.contains("restore:") && !text.contains("signer:"));
    }
}
