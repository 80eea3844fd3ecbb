//! The **keys** of a cluster through its life: changed, brought along, brought back, lent to a clone. Whatever
//! happens, each is drawn once and none is lost ([`common::cluster`] looks after that at every step).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::cluster::{CALM, Cluster, text, weather};
use common::{IDENTITY, required};
use function_vcluster_backup::object;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 100,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// A Secret of the user's, beside the claim.
fn saved(name: &str, entries: &[(&str, &str)]) -> Value {
    object::secret(name, "team-a", entries.iter().map(|(key, text)| (*key, text.as_bytes())))
}

fn fingerprints(cluster: &Cluster) -> usize {
    let backup = &cluster.case.xr["status"]["backup"];
    backup["fingerprints"].as_array().map_or(usize::from(backup["fingerprint"].is_string()), Vec::len)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn each_rotation_draws_once_and_keeps_all(
        flavour in prop::sample::select(vec!["claim", "namespaced"]),
        storm in prop::collection::vec(weather(), 0..16),
    ) {
        let mut cluster = Cluster::new(flavour);
        cluster.case.xr["spec"]["backup"] = json!({"rotateKeys": 0});
        let mut rotations = 0;
        for weather in &storm {
            if weather.turn {
                rotations += 1;
                cluster.case.xr["spec"]["backup"]["rotateKeys"] = json!(rotations);
            }
            cluster.reconcile(weather);
        }
        for _ in 0..8 + rotations {
            cluster.reconcile(&CALM);
        }
        prop_assert_eq!(fingerprints(&cluster), rotations + 1);
        let newest = if rotations == 0 { "backup-identity".into() } else { format!("backup-identity-{rotations}") };
        let recipient = text(&cluster.objects[&newest]["data"]["age-recipient"]);
        let recipients = text(&cluster.objects["backup-keys"]["data"]["recipients"]);
        prop_assert_eq!(recipients.trim_end(), recipient);
        let settled = cluster.reconcile(&CALM);
        prop_assert_eq!(settled.results.clone(), vec![]);
        for _ in 0..5 {
            prop_assert_eq!(&cluster.reconcile(&CALM), &settled);
        }
    }

    #[test]
    fn a_saved_identity_is_waited_for(
        flavour in prop::sample::select(vec!["claim", "namespaced"]),
        before in prop::collection::vec(weather(), 0..8),
        after in prop::collection::vec(weather(), 0..8),
    ) {
        let mut cluster = Cluster::new(flavour);
        cluster.case.xr["spec"]["backup"] = json!({"identitySecretRef": {"name": "my-key"}});
        for weather in &before {
            cluster.reconcile(weather);
            prop_assert!(!cluster.objects.contains_key("backup-identity"));
        }
        cluster.others.push(saved("my-key", &[("age-identity", IDENTITY)]));
        for weather in &after {
            cluster.reconcile(weather);
        }
        for _ in 0..8 {
            cluster.reconcile(&CALM);
        }
        prop_assert_eq!(text(&cluster.objects["backup-identity"]["data"]["age-identity"]), IDENTITY);
        cluster.others.clear();
        let settled = cluster.reconcile(&CALM);
        prop_assert_eq!(settled.results.clone(), vec![]);
        prop_assert_eq!(settled.desired.unwrap().composite.unwrap().ready().as_str_name(), "READY_TRUE");
    }

    #[test]
    fn a_clone_starts_with_all_that_it_takes_or_not_at_all(
        flavour in prop::sample::select(vec!["claim", "namespaced"]),
        storm in prop::collection::vec(weather(), 0..16),
    ) {
        let mut cluster = Cluster::new(flavour);
        cluster.case.xr["spec"]["restore"] = json!({"id": "clone", "latest": true, "from": {"name": "prod"}});
        let source = source(flavour);
        let mut missing = source.iter();
        let check = |cluster: &Cluster| {
            let Some(config) = cluster.objects.get("backup-config") else { return };
            assert!(config.to_string().contains("vcb-team-a-prod"), "it would start empty");
            let key = &cluster.objects.get("backup-restore-key").expect("told before it was handed over")["data"];
            assert!(text(&key["age-identity"]).contains(IDENTITY));
            assert_eq!(text(&key["source-access-key-id"]), "access");
        };
        for weather in &storm {
            if weather.turn {
                cluster.others.extend(missing.next().cloned());
            }
            cluster.reconcile(weather);
            check(&cluster);
        }
        cluster.others.extend(missing.cloned());
        for _ in 0..8 {
            cluster.reconcile(&CALM);
            check(&cluster);
        }
        prop_assert!(cluster.objects.contains_key("backup-config"));
        let namespace = if flavour == "claim" { "vcluster-team-a-dev" } else { "team-a" };
        cluster.others.push(json!({
            "kind": "ConfigMap",
            "metadata": {"name": "dev-backup-status", "namespace": namespace},
            "data": {"phase": "Replicating", "lastSuccess": "2026-11-22T11:59:40Z", "restoredId": "clone"},
        }));
        for _ in 0..2 {
            cluster.reconcile(&CALM);
        }
        // The source may go now.
        cluster.others.retain(|other| other["kind"] == "ConfigMap");
        let settled = cluster.reconcile(&CALM);
        prop_assert_eq!(&cluster.reconcile(&CALM), &settled);
        prop_assert_eq!(settled.desired.unwrap().composite.unwrap().ready().as_str_name(), "READY_TRUE");
        prop_assert!(!cluster.objects["backup-config"].to_string().contains("restore"));
        let left = cluster.objects.get("backup-restore-key").map(|key| text(&key["data"]["age-identity"]));
        prop_assert!(left.as_ref().is_none_or(|left| flavour == "namespaced" && !left.contains(IDENTITY)));
    }
}

/// Another Vcluster beside the claim, and what Crossplane and the provider made for it.
fn source(flavour: &str) -> [Value; 3] {
    let metadata = json!({"name": "prod", "namespace": "team-a", "uid": "source"});
    let vcluster = json!({"kind": "Vcluster", "metadata": metadata, "spec": {}});
    let mut identity = required("identity", &json!("identity")).remove(0);
    let (place, namespace) = match flavour {
        "claim" => (
            json!({"name": "team-a.prod-backup-identity", "namespace": "crossplane-system"}),
            "vcluster-team-a-prod",
        ),
        _ => (json!({"name": "prod-backup-identity", "namespace": "team-a"}), "team-a"),
    };
    identity["metadata"] = place;
    identity["metadata"]["labels"] =
        json!({"crossplane.io/claim-name": "prod", "crossplane.io/claim-namespace": "team-a"});
    identity["metadata"]["ownerReferences"] = json!([{"controller": true, "uid": "source"}]);
    let mut keys =
        saved("prod-backup-s3", &[("AWS_ACCESS_KEY_ID", "access"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
    keys["metadata"]["namespace"] = json!(namespace);
    keys["metadata"]["ownerReferences"] =
        json!([{"controller": true, "uid": "user", "kind": "User", "name": "vcb-team-a-prod"}]);
    [vcluster, identity, keys]
}

#[test]
fn an_identity_that_was_lost_comes_back_from_where_it_was_saved() {
    for flavour in ["claim", "namespaced"] {
        let mut cluster = Cluster::new(flavour);
        cluster.case.xr["spec"]["backup"] = json!({"rotateKeys": 1});
        for _ in 0..10 {
            cluster.reconcile(&CALM);
        }
        let lost = cluster.objects.remove("backup-identity").unwrap();
        let text = text(&lost["data"]["age-identity"]);
        cluster.others.push(saved("my-key", &[("age-identity", &format!("# saved\n{text}\n"))]));
        cluster.case.xr["spec"]["backup"]["identitySecretRef"] = json!({"name": "my-key"});
        cluster.forget("backup-identity");
        for _ in 0..3 {
            cluster.reconcile(&CALM);
        }
        assert_eq!(cluster.objects["backup-identity"]["data"], lost["data"]);
    }
}
