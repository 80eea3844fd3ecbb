//! A cluster's **life** against a small model of Crossplane: responses that are applied by half, observed state
//! that lags behind, providers that take their time. Whatever happens, the identity is drawn once and the
//! recipients in the cluster belong to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;

use common::cluster::{CALM, Cluster, weather};
use function_vcluster_backup::function::run;
use function_vcluster_backup::object;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::{RunFunctionResponse, Severity};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_identity_is_drawn_once(
        flavour in prop::sample::select(vec!["claim", "namespaced"]),
        storm in prop::collection::vec(weather(), 0..12),
    ) {
        let mut cluster = Cluster::new(flavour);
        for weather in &storm {
            cluster.reconcile(weather);
        }
        for _ in 0..6 {
            cluster.reconcile(&CALM);
        }
        let settled = cluster.reconcile(&CALM);
        let mut all = vec!["backup-bucket", "backup-config", "backup-identity", "backup-keys", "backup-policy"];
        // Where the pod can read the identity anyway, it lies where the init container looks.
        all.extend((flavour == "namespaced").then_some("backup-restore-key"));
        all.extend([
            "backup-user", "protection-backup-bucket", "protection-backup-identity", "protection-backup-keys",
            "protection-backup-policy", "protection-backup-user", "vcluster",
        ]);
        prop_assert_eq!(cluster.objects.keys().map(String::as_str).collect::<Vec<_>>(), all);
        prop_assert_eq!(settled.desired.clone().unwrap().composite.unwrap().ready().as_str_name(), "READY_TRUE");
        prop_assert_eq!(settled.results.clone(), vec![]);
        for _ in 0..20 {
            prop_assert_eq!(&cluster.reconcile(&CALM), &settled);
        }
    }
}

#[test]
fn a_lost_identity_is_never_made_anew() {
    let mut cluster = Cluster::new("claim");
    for _ in 0..6 {
        cluster.reconcile(&CALM);
    }
    let all = cluster.objects.clone();
    // With the status, without it, and without both: only when nothing at all is left is there nothing to lose.
    for (status, left, refused) in
        [(true, vec![], true), (false, vec!["backup-keys"], true), (false, vec![], false)]
    {
        let mut case = cluster.case.clone();
        if !status {
            case.xr["status"] = Value::Null;
        }
        case.observed = left.iter().map(|key| ((*key).to_owned(), all[*key].clone())).collect();
        case.required = BTreeMap::from([("backup-identity".to_owned(), json!("none"))]);
        let response = run(case.request(), case.now(), &SystemRandom::new());
        let fatal = response.results.iter().any(|result| result.severity() == Severity::Fatal);
        assert_eq!(fatal, refused, "{left:?}");
        let made = response.desired.unwrap().resources.contains_key("backup-identity");
        assert_eq!(made, !refused, "{left:?}");
    }
}

#[test]
fn a_deleted_clusters_identity_is_waited_for_and_never_remembered() {
    let mut cluster = Cluster::new("claim");
    for _ in 0..6 {
        cluster.reconcile(&CALM);
    }
    // Deleted and made again: another uid, nothing observed, and the garbage collector is not through yet.
    let mut left = cluster.objects["backup-identity"].clone();
    let owner = json!({"kind": "XVcluster", "uid": cluster.case.xr["metadata"]["uid"], "controller": true});
    left["metadata"]["ownerReferences"] = json!([owner]);
    let mut case = Cluster::new("claim").case;
    case.xr["metadata"]["uid"] = json!("1f6f3f9e-0000-4000-8000-00000000000f");
    for deleting in [false, true] {
        if deleting {
            left["metadata"]["deletionTimestamp"] = json!("2026-11-22T12:00:00Z");
        }
        case.required = BTreeMap::from([("backup-identity".to_owned(), left.clone())]);
        let response = run(case.request(), case.now(), &SystemRandom::new());
        let desired = response.desired.unwrap();
        assert!(
            !desired.resources.contains_key("backup-identity")
                && !desired.resources.contains_key("backup-keys")
        );
        let status = object::decode(desired.composite.unwrap().resource.as_ref().unwrap());
        assert_eq!(status["status"]["backup"].get("fingerprint"), None);
        case.xr["status"] = status["status"].clone();
    }
    case.required = BTreeMap::from([("backup-identity".to_owned(), json!("none"))]);
    let desired = run(case.request(), case.now(), &SystemRandom::new()).desired.unwrap();
    let drawn = object::decode(desired.resources["backup-identity"].resource.as_ref().unwrap());
    assert_ne!(drawn["data"], left["data"]);
}

#[test]
fn a_running_control_plane_is_restarted_only_when_all_that_it_mounts_is_there() {
    for flavour in ["claim", "namespaced"] {
        let mut cluster = Cluster::new(flavour);
        cluster.case.xr["spec"]["backup"] = json!({"enabled": false});
        for _ in 0..3 {
            cluster.reconcile(&CALM);
        }
        cluster.case.xr["spec"]["backup"] = json!({"enabled": true});
        let mut passes = 0;
        let mut before = BTreeMap::new();
        while !cluster.objects["vcluster"].to_string().contains("vcluster-backup-ensure") {
            passes += 1;
            assert!(passes < 10, "{flavour}: it never joins");
            before.clone_from(&cluster.objects);
            cluster.reconcile(&CALM);
        }
        assert!(before.contains_key("backup-keys") && before.contains_key("backup-config"), "{flavour}");
        assert!(before.get("backup-user").is_some_and(object::is_ready), "{flavour}");
    }
}

#[test]
fn an_upgrade_waits_with_the_release_as_it_is_and_goes_on_once() {
    for flavour in ["claim", "namespaced"] {
        let mut cluster = Cluster::new(flavour);
        for _ in 0..6 {
            cluster.reconcile(&CALM);
        }
        let before = cluster.objects["vcluster"]["spec"].clone();
        cluster.case.xr["spec"]["version"] = json!("0.35.3");
        let results = |response: &RunFunctionResponse| response.results.len();
        for now in ["2026-11-22T12:00:00Z", "2026-11-22T12:00:01Z", "2026-11-22T12:04:59Z"] {
            cluster.case.now = now.into();
            assert_eq!(results(&cluster.reconcile(&CALM)), 0, "{flavour} {now}");
            assert_eq!(cluster.objects["vcluster"]["spec"], before, "{flavour} {now}");
            let config = cluster.objects["backup-config"]["data"]["config.yaml"].as_str().unwrap();
            let pin = r#"{"keepFor":"2160h","name":"before-0.35.3","since":"2026-11-22T12:00:00Z"}"#;
            assert!(config.contains(pin), "{flavour} {now}: {config}");
        }
        cluster.case.now = "2026-11-22T12:05:00Z".into();
        let response = cluster.reconcile(&CALM);
        assert_eq!(response.results[0].reason.as_deref(), Some("UpgradeUnguarded"), "{flavour}");
        assert_eq!(results(&response), 1, "{flavour}");
        assert_eq!(cluster.objects["vcluster"]["spec"]["forProvider"]["chart"]["version"], "0.35.3");
        for _ in 0..3 {
            assert_eq!(results(&cluster.reconcile(&CALM)), 0, "{flavour}");
        }
        assert_eq!(cluster.case.xr["status"]["cluster"].get("upgrade"), None, "{flavour}");
        let config = &cluster.objects["backup-config"]["data"]["config.yaml"];
        assert!(!config.as_str().unwrap().contains("before-"), "{flavour}: {config}");
    }
}

#[test]
fn a_restore_makes_the_pod_anew_once_and_after_the_agent_was_told() {
    let restore_id = |cluster: &Cluster| cluster.objects["vcluster"].to_string().contains("VCB_RESTORE_ID");
    for flavour in ["claim", "namespaced"] {
        let mut cluster = Cluster::new(flavour);
        for _ in 0..6 {
            cluster.reconcile(&CALM);
        }
        cluster.case.xr["spec"]["restore"] = json!({"id": "oops", "latest": true});
        cluster.reconcile(&CALM);
        let config = cluster.objects["backup-config"]["data"]["config.yaml"].as_str().unwrap();
        assert!(config.contains("restore: {\"id\":\"oops\""), "{flavour}: {config}");
        assert!(!restore_id(&cluster), "{flavour}: the pod would not find it");
        cluster.reconcile(&CALM);
        assert!(restore_id(&cluster), "{flavour}");
        let release = cluster.objects["vcluster"]["spec"].clone();
        cluster.case.xr["spec"]["restore"] = Value::Null;
        for _ in 0..3 {
            cluster.reconcile(&CALM);
            assert_eq!(cluster.objects["vcluster"]["spec"], release, "{flavour}: another restart");
        }
    }
}

#[test]
fn a_dropped_backup_goes_whatever_protects_it() {
    for flavour in ["claim", "namespaced"] {
        let mut cluster = Cluster::new(flavour);
        for _ in 0..7 {
            cluster.reconcile(&CALM);
        }
        assert!(cluster.objects.contains_key("protection-backup-bucket"), "{flavour}");
        cluster.case.xr["spec"]["backup"] = json!({"enabled": false});
        for _ in 0..3 {
            cluster.reconcile(&CALM);
        }
        assert!(cluster.objects.contains_key("backup-bucket"), "{flavour}");
        cluster.case.xr["spec"]["backup"] = json!({"enabled": false, "deletionPolicy": "Delete"});
        let mut armed = Value::Null;
        for _ in 0..6 {
            cluster.reconcile(&CALM);
            armed = cluster.objects.get("backup-bucket").cloned().unwrap_or(armed);
        }
        assert_eq!(cluster.objects.keys().collect::<Vec<_>>(), ["vcluster"], "{flavour}");
        assert_eq!(armed["spec"]["forProvider"]["bucketDeletionPolicy"], "DeleteAll", "{flavour}");
        assert_eq!(cluster.refused, 0, "{flavour}: an object was dropped before what protects it");
    }
}

#[test]
fn a_user_goes_when_a_role_takes_its_place() {
    for flavour in ["claim", "namespaced"] {
        let mut cluster = Cluster::new(flavour);
        for _ in 0..7 {
            cluster.reconcile(&CALM);
        }
        let role =
            json!({"mode": "WebIdentity", "roleArn": "arn:aws:iam::111122223333:role/vcluster-backup"});
        cluster.case.input["storage"]["credentials"] = role;
        for _ in 0..4 {
            cluster.reconcile(&CALM);
        }
        assert!(!cluster.objects.contains_key("backup-user"), "{flavour}");
        assert!(!cluster.objects.contains_key("protection-backup-user"), "{flavour}");
        assert!(cluster.objects.contains_key("protection-backup-bucket"), "{flavour}");
        assert_eq!(cluster.refused, 0, "{flavour}");
    }
}
