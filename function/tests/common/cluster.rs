//! A **model** of Crossplane and of what the API server holds, and the weather that both go through.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_vcluster_backup::function::run;
use function_vcluster_backup::object;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::resource_selector::Match;
use vcluster_backup_proto::v1::{RunFunctionResponse, Severity};

use super::{Case, reveals_identity};

/// How often Crossplane asks again because of what is required (`MaxRequirementsIterations`), and once more.
const ITERATIONS: usize = 6;

/// What the API server holds.
pub struct Cluster {
    /// The XR, and the platform's settings.
    pub case: Case,
    /// What was composed, by key.
    pub objects: BTreeMap<String, Value>,
    /// What others have made.
    pub others: Vec<Value>,
    /// Passes that were stopped because something was dropped before what protects it.
    pub refused: u32,
    /// Identities that were ever there, by key.
    identities: BTreeMap<String, Value>,
}

/// What goes wrong, or not, in one reconcile.
#[derive(Debug, Clone)]
pub struct Weather {
    /// So many objects are applied before an error ends the reconcile.
    applied: usize,
    /// The XR, and so what is observed, is read from a cache that knows of nothing yet.
    stale: bool,
    /// The providers get on with their work.
    progress: bool,
    /// From which object on is applied (Crossplane goes through a map, in any order).
    first: usize,
    /// Before it the user changes something, where a test lets him.
    pub turn: bool,
}

/// Nothing goes wrong.
pub const CALM: Weather =
    Weather { applied: usize::MAX, stale: false, progress: true, first: 0, turn: false };

/// Any weather.
pub fn weather() -> impl Strategy<Value = Weather> {
    let parts =
        (0..14_usize, prop::bool::weighted(0.3), any::<bool>(), 0..13_usize, prop::bool::weighted(0.2));
    parts.prop_map(|(applied, stale, progress, first, turn)| Weather {
        applied,
        stale,
        progress,
        first,
        turn,
    })
}

impl Cluster {
    /// An XR that was made just now.
    pub fn new(flavour: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(flavour);
        let mut case = Case::read(&root.join("first-call"));
        case.required.clear();
        Self { case, objects: BTreeMap::new(), others: Vec::new(), refused: 0, identities: BTreeMap::new() }
    }

    /// An identity is known to be lost.
    pub fn forget(&mut self, key: &str) {
        self.identities.remove(key);
    }

    /// Calls the function until its requirements no longer change, as Crossplane does.
    fn ask(&self, stale: bool) -> RunFunctionResponse {
        let mut case = self.case.clone();
        if stale {
            case.xr["status"] = Value::Null;
            // It may be the spec of before the last change, too.
            if let Some(rotations) = case.xr["spec"]["backup"]["rotateKeys"].as_u64() {
                case.xr["spec"]["backup"]["rotateKeys"] = json!(rotations.saturating_sub(1));
            }
        } else {
            case.observed.clone_from(&self.objects);
        }
        let mut before = None;
        for _ in 0..ITERATIONS {
            let response = run(case.request(), case.now(), &SystemRandom::new());
            if before == Some(response.requirements.clone()) {
                for result in &response.results {
                    assert_ne!(result.severity(), Severity::Fatal, "{}", result.message);
                }
                return response;
            }
            case.required = self.find(&response);
            before = Some(response.requirements);
        }
        panic!("the requirements do not settle");
    }

    fn find(&self, response: &RunFunctionResponse) -> BTreeMap<String, Value> {
        let selectors = response.requirements.clone().unwrap().resources;
        let found = selectors.into_iter().map(|(key, selector)| {
            let Some(Match::MatchName(name)) = selector.r#match else { panic!("by name") };
            let found = self.objects.values().chain(&self.others).find(|object| {
                object["kind"] == selector.kind.as_str()
                    && object["metadata"]["name"] == name.as_str()
                    && object["metadata"]["namespace"].as_str() == selector.namespace.as_deref()
            });
            (key, found.cloned().unwrap_or(json!("none")))
        });
        found.collect()
    }

    /// One pass.
    pub fn reconcile(&mut self, weather: &Weather) -> RunFunctionResponse {
        let response = self.ask(weather.stale);
        let desired = response.desired.clone().unwrap();
        if !weather.stale && !self.collect(|key| desired.resources.contains_key(key)) {
            self.refused += 1;
            return response;
        }
        let mut keys: Vec<String> = desired.resources.keys().cloned().collect();
        let count = keys.len();
        keys.rotate_left(weather.first % count.max(1));
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
        let is_dropped = self.case.xr["spec"]["backup"]["deletionPolicy"] == "Delete";
        for (key, before) in self.identities.iter().filter(|_| !is_dropped) {
            assert_eq!(self.objects.get(key).map(|secret| &secret["data"]), Some(before), "{key} was lost");
        }
        let identities = self.objects.iter().filter(|(key, _)| key.starts_with("backup-identity"));
        self.identities = identities.map(|(key, secret)| (key.clone(), secret["data"].clone())).collect();
        if let Some(keys) = self.objects.get("backup-keys") {
            let recipients = text(&keys["data"]["recipients"]);
            let is_kept = |line| self.identities.values().any(|data| text(&data["age-recipient"]) == line);
            assert!(recipients.lines().next().is_some_and(is_kept), "recipients without their identity");
        }
        // In this model all but the claim's kept identities and what was handed over is in the pod's reach.
        let is_sealed = self.case.xr["kind"] == "XVcluster";
        for (key, object) in self.objects.iter().filter(|(key, _)| *key != "backup-restore-key") {
            let is_apart = object["metadata"]["namespace"] == "crossplane-system";
            assert!(!is_sealed || is_apart || !reveals_identity(object), "{key}");
        }
    }
}

/// An entry of a Secret.
pub fn text(encoded: &Value) -> String {
    String::from_utf8(STANDARD.decode(encoded.as_str().unwrap()).unwrap()).unwrap()
}
