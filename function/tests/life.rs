//! A cluster's **life** against a small model of Crossplane: responses that are applied by half, observed state
//! that lags behind, providers that take their time. Whatever happens, the identity is drawn once and the
//! recipients in the cluster belong to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Case;
use function_vcluster_backup::function::run;
use function_vcluster_backup::object;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::resource_selector::Match;
use vcluster_backup_proto::v1::{RunFunctionResponse, Severity};

/// What the API server holds.
struct Cluster {
    case: Case,
    objects: BTreeMap<String, Value>,
    identity: Option<Value>,
    /// How often the garbage collector was refused, which ends a reconcile before anything is applied.
    refused: usize,
}

/// What goes wrong, or not, in one reconcile.
#[derive(Debug, Clone)]
struct Weather {
    /// So many objects are applied before an error ends the reconcile.
    applied: usize,
    /// The XR, and so what is observed, is read from a cache that knows of nothing yet.
    stale: bool,
    /// The providers get on with their work.
    progress: bool,
    /// From which object on is applied (Crossplane goes through a map, in any order).
    first: usize,
}

impl Cluster {
    fn new(flavour: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(flavour);
        let mut case = Case::read(&root.join("first-call"));
        case.required.clear();
        Self { case, objects: BTreeMap::new(), identity: None, refused: 0 }
    }

    /// Calls the function until its requirements no longer change, as Crossplane does.
    fn ask(&self, stale: bool) -> RunFunctionResponse {
        let mut case = self.case.clone();
        if stale {
            case.xr["status"] = Value::Null;
        } else {
            case.observed.clone_from(&self.objects);
        }
        let first = run(case.request(), case.now(), &SystemRandom::new());
        for (key, selector) in first.requirements.clone().unwrap().resources {
            let Some(Match::MatchName(name)) = selector.r#match else { panic!("by name") };
            let found = self.objects.values().find(|object| {
                object["kind"] == selector.kind.as_str()
                    && object["metadata"]["name"] == name.as_str()
                    && object["metadata"]["namespace"].as_str() == selector.namespace.as_deref()
            });
            case.required.insert(key, found.cloned().unwrap_or(json!("none")));
        }
        let second = run(case.request(), case.now(), &SystemRandom::new());
        assert_eq!(first.requirements, second.requirements);
        for result in &second.results {
            assert_ne!(result.severity(), Severity::Fatal, "{}", result.message);
        }
        second
    }

    fn reconcile(&mut self, weather: &Weather) -> RunFunctionResponse {
        let response = self.ask(weather.stale);
        let desired = response.desired.clone().unwrap();
        if !weather.stale && !self.collect(|key| desired.resources.contains_key(key)) {
            self.refused += 1;
            return response;
        }
        let mut keys: Vec<String> = desired.resources.keys().cloned().collect();
        let count = keys.len();
        keys.rotate_left(weather.first % count);
        for key in keys.iter().take(weather.applied) {
            let object = object::decode(desired.resources[key].resource.as_ref().unwrap());
            self.apply(key, object);
            self.check();
        }
        if weather.applied >= count {
            let status = object::decode(desired.composite.unwrap().resource.as_ref().unwrap());
            self.case.xr["status"] = status["status"].clone();
        }
        if weather.progress {
            self.make_progress();
        }
        self.check();
        response
    }

    /// What is no longer desired goes, first of all: not what a Usage is of, and a composed Usage only after the object
    /// that it is `by`.
    fn collect(&mut self, is_desired: impl Fn(&str) -> bool) -> bool {
        let leaving: Vec<String> = self.objects.keys().filter(|key| !is_desired(key)).cloned().collect();
        for key in leaving {
            let object = self.objects[&key].clone();
            let is_used = self.objects.values().any(|usage| {
                let of = &usage["spec"]["of"];
                of["kind"] == object["kind"] && of["resourceRef"]["name"] == object["metadata"]["name"]
            });
            if is_used {
                return false;
            }
            if object["spec"]["by"].is_null() || !self.objects.contains_key("vcluster") {
                self.objects.remove(&key);
            }
        }
        true
    }

    /// Server-side apply: status stays, and what is immutable is refused.
    fn apply(&mut self, key: &str, mut object: Value) {
        if key == "backup-user" {
            assert!(
                self.objects.get("backup-policy").is_some_and(object::is_ready),
                "a user before its policy"
            );
        }
        if let Some(there) = self.objects.get(key) {
            if there["immutable"] == true && there["data"] != object["data"] {
                return;
            }
            object["status"] = there["status"].clone();
        }
        self.objects.insert(key.to_owned(), object);
    }

    fn make_progress(&mut self) {
        for (key, object) in &mut self.objects {
            if ["Release", "Bucket", "Policy", "User"].contains(&object["kind"].as_str().unwrap()) {
                // One stage at a time.
                object["status"] = match (key.as_str(), &object["status"]) {
                    ("vcluster", Value::Null) => json!({"atProvider": {"state": "pending-install"}}),
                    _ => json!({
                        "atProvider": {"state": "deployed"},
                        "conditions": [{"type": "Ready", "status": "True"}],
                    }),
                };
            }
        }
    }

    /// What must hold at every moment.
    fn check(&mut self) {
        let identity = self.objects.get("backup-identity").map(|secret| secret["data"].clone());
        let is_dropped = self.case.xr["spec"]["backup"]["deletionPolicy"] == "Delete";
        if let Some(before) = self.identity.as_ref().filter(|_| !is_dropped) {
            assert_eq!(identity.as_ref(), Some(before), "the identity changed");
        }
        self.identity = identity;
        if let Some(keys) = self.objects.get("backup-keys") {
            let decode =
                |value: &Value| String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap();
            let identity = self.identity.as_ref().expect("recipients without their identity");
            let recipients = decode(&keys["data"]["recipients"]);
            assert!(recipients.lines().any(|line| line == decode(&identity["age-recipient"])));
        }
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    (0..14_usize, prop::bool::weighted(0.3), any::<bool>(), 0..13_usize)
        .prop_map(|(applied, stale, progress, first)| Weather { applied, stale, progress, first })
}

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
        let calm = Weather { applied: usize::MAX, stale: false, progress: true, first: 0 };
        for _ in 0..6 {
            cluster.reconcile(&calm);
        }
        let settled = cluster.reconcile(&calm);
        let keys: Vec<&str> = cluster.objects.keys().map(String::as_str).collect();
        prop_assert_eq!(keys, [
            "backup-bucket", "backup-config", "backup-identity", "backup-keys", "backup-policy", "backup-user",
            "protection-backup-bucket", "protection-backup-identity", "protection-backup-keys",
            "protection-backup-policy", "protection-backup-user", "vcluster",
        ]);
        prop_assert_eq!(settled.desired.clone().unwrap().composite.unwrap().ready().as_str_name(), "READY_TRUE");
        prop_assert_eq!(settled.results.clone(), vec![]);
        for _ in 0..20 {
            prop_assert_eq!(&cluster.reconcile(&calm), &settled);
        }
    }
}

#[test]
fn a_lost_identity_is_never_made_anew() {
    let mut cluster = Cluster::new("claim");
    let calm = Weather { applied: usize::MAX, stale: false, progress: true, first: 0 };
    for _ in 0..6 {
        cluster.reconcile(&calm);
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
    let calm = Weather { applied: usize::MAX, stale: false, progress: true, first: 0 };
    for _ in 0..6 {
        cluster.reconcile(&calm);
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
        let calm = Weather { applied: usize::MAX, stale: false, progress: true, first: 0 };
        cluster.case.xr["spec"]["backup"] = json!({"enabled": false});
        for _ in 0..3 {
            cluster.reconcile(&calm);
        }
        cluster.case.xr["spec"]["backup"] = json!({"enabled": true});
        let mut passes = 0;
        let mut before = BTreeMap::new();
        while !cluster.objects["vcluster"].to_string().contains("vcluster-backup-ensure") {
            passes += 1;
            assert!(passes < 10, "{flavour}: it never joins");
            before.clone_from(&cluster.objects);
            cluster.reconcile(&calm);
        }
        assert!(before.contains_key("backup-keys") && before.contains_key("backup-config"), "{flavour}");
        assert!(before.get("backup-user").is_some_and(object::is_ready), "{flavour}");
    }
}

#[test]
fn a_dropped_backup_goes_whatever_protects_it() {
    for flavour in ["claim", "namespaced"] {
        let mut cluster = Cluster::new(flavour);
        let calm = Weather { applied: usize::MAX, stale: false, progress: true, first: 0 };
        for _ in 0..7 {
            cluster.reconcile(&calm);
        }
        assert!(cluster.objects.contains_key("protection-backup-bucket"), "{flavour}");
        cluster.case.xr["spec"]["backup"] = json!({"enabled": false});
        for _ in 0..3 {
            cluster.reconcile(&calm);
        }
        assert!(cluster.objects.contains_key("backup-bucket"), "{flavour}");
        cluster.case.xr["spec"]["backup"] = json!({"enabled": false, "deletionPolicy": "Delete"});
        let mut armed = Value::Null;
        for _ in 0..6 {
            cluster.reconcile(&calm);
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
        let calm = Weather { applied: usize::MAX, stale: false, progress: true, first: 0 };
        for _ in 0..7 {
            cluster.reconcile(&calm);
        }
        let role =
            json!({"mode": "WebIdentity", "roleArn": "arn:aws:iam::111122223333:role/vcluster-backup"});
        cluster.case.input["storage"]["credentials"] = role;
        for _ in 0..4 {
            cluster.reconcile(&calm);
        }
        assert!(!cluster.objects.contains_key("backup-user"), "{flavour}");
        assert!(!cluster.objects.contains_key("protection-backup-user"), "{flavour}");
        assert!(cluster.objects.contains_key("protection-backup-bucket"), "{flavour}");
        assert_eq!(cluster.refused, 0, "{flavour}");
    }
}
