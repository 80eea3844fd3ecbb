//! A **case**: a request written down compactly, for a whole `RunFunctionRequest` is mostly the same each time.
//!
//! ```yaml
//! reason: what this stage of life is, and what must come of it
//! now: "2026-11-22T14:05:00Z"
//! xr: {...}            # laid over base.yaml's of the flavour
//! input: {...}         # likewise
//! observed: {key: ready | failing | exists | {...}}
//! required: {key: none | identity | {...}}
//! credentials: {name: {key: text}}
//! desired: {key: {...}}
//! context: {...}
//! ```

#![allow(dead_code, deprecated)] // ring's fixed randomness is where its own tests are; every test binary takes what it needs of it

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use function_vcluster_backup::credentials::identity::Identity;
use function_vcluster_backup::object;
use ring::test::rand::FixedByteRandom;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vcluster_backup_proto::v1::{
    CredentialData, Credentials, RequestMeta, Resource, Resources, RunFunctionRequest, RunFunctionResponse,
    State, credentials::Source,
};

/// The identity that the shorthand `identity` stands for: 32 bytes of 7. `identity-N` is one of 7 + 10 N.
pub const IDENTITY: &str = "AGE-SECRET-KEY-1QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSKMP32K";

/// A request as it is written down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Case {
    pub reason: String,
    #[serde(default = "noon")]
    pub now: String,
    #[serde(default)]
    pub xr: Value,
    #[serde(default)]
    pub input: Value,
    #[serde(default)]
    pub observed: BTreeMap<String, Value>,
    #[serde(default)]
    pub required: BTreeMap<String, Value>,
    #[serde(default)]
    pub credentials: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    pub desired: BTreeMap<String, Value>,
    #[serde(default)]
    pub context: Option<Value>,
}

fn noon() -> String {
    "2026-11-22T12:00:00Z".into()
}

impl Case {
    /// Reads `folder/request.yaml` and lays it over the flavour's `base.yaml`.
    pub fn read(folder: &Path) -> Self {
        let read = |path: &Path| -> Value {
            let text =
                std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let mut case = read(&folder.with_file_name("base.yaml"));
        merge(&mut case, &read(&folder.join("request.yaml")));
        serde_json::from_value(case).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    }

    /// The clock of this case.
    pub fn now(&self) -> SystemTime {
        SystemTime::try_from(self.now.parse::<jiff::Timestamp>().unwrap()).unwrap()
    }

    /// The whole request.
    pub fn request(&self) -> RunFunctionRequest {
        let resource =
            |value: &Value| Resource { resource: Some(object::encode(value)), ..Default::default() };
        let observed =
            self.observed.iter().map(|(key, value)| (key.clone(), resource(&observed(key, value))));
        let required = self.required.iter().map(|(key, value)| {
            let items = required(key, value).iter().map(resource).collect();
            (key.clone(), Resources { items })
        });
        let credentials = self.credentials.iter().map(|(name, data)| {
            let data = data.iter().map(|(key, text)| (key.clone(), text.clone().into_bytes())).collect();
            let source = Some(Source::CredentialData(CredentialData { data }));
            (name.clone(), Credentials { source })
        });
        RunFunctionRequest {
            meta: Some(RequestMeta { tag: "tag-of-the-request".into(), ..Default::default() }),
            observed: Some(State { composite: Some(resource(&self.xr)), resources: observed.collect() }),
            desired: (!self.desired.is_empty()).then(|| State {
                composite: None,
                resources: self.desired.iter().map(|(key, value)| (key.clone(), resource(value))).collect(),
            }),
            input: (!self.input.is_null()).then(|| object::encode(&self.input)),
            context: self.context.as_ref().map(object::encode),
            credentials: credentials.collect(),
            required_resources: required.collect(),
            ..Default::default()
        }
    }
}

/// `ready`, `failing` and `exists` say what is needed of an observed object. A release has the backup in it unless
/// its `spec` is written down.
pub fn observed(key: &str, value: &Value) -> Value {
    let status = |ready: &str, state: &str| json!({"status": {"atProvider": {"state": state}, "conditions": [{"type": "Ready", "status": ready}]}});
    let mut object = match value.as_str() {
        None => value.clone(),
        Some("ready") => status("True", "deployed"),
        Some("failing") => status("False", "failed"),
        Some("exists") => json!({}),
        Some(other) if other.starts_with("identity") => secret(key, other),
        Some(other) => panic!("observed.{key}: {other} is no shorthand"),
    };
    if key == "vcluster" && object.is_object() && object.get("spec").is_none() {
        let containers = json!([{"name": "vcluster-backup-ensure"}]);
        object["spec"] = json!({"forProvider": {"values": {"controlPlane": {"statefulSet": {"initContainers": containers}}}}});
    }
    object
}

pub fn required(key: &str, value: &Value) -> Vec<Value> {
    match value.as_str() {
        None => vec![value.clone()],
        Some("none") => Vec::new(),
        Some(other) if other.starts_with("identity") => vec![secret(key, other)],
        Some(other) => panic!("required.{key}: {other} is no shorthand"),
    }
}

/// The identity's Secret as the API server gives it, with what must not be sent back.
fn secret(name: &str, shorthand: &str) -> Value {
    let rotation = shorthand.strip_prefix("identity-").map_or(0, |rotation| rotation.parse().unwrap());
    let text = Identity::draw(&FixedByteRandom { byte: 7 + 10 * rotation }).unwrap().reveal().unwrap();
    let entries = [("age-identity", text.as_bytes()), ("age-recipient", &b"age1"[..])];
    let mut secret = object::secret(name, "kept", entries);
    secret["immutable"] = json!(true);
    secret["metadata"]["managedFields"] = json!([{"manager": "crossplane"}]);
    secret["metadata"]["resourceVersion"] = json!("7");
    secret
}

/// The whole response, to be read by people.
pub fn show(response: &RunFunctionResponse) -> Value {
    let desired = response.desired.clone().unwrap_or_default();
    let ready =
        |resource: &Resource| resource.ready().as_str_name().trim_start_matches("READY_").to_lowercase();
    let show = |resource: &Resource| json!({"ready": ready(resource), "resource": resource.resource.as_ref().map(object::decode)});
    let composite = |resource: &Resource| {
        let mut shown = show(resource);
        if !resource.connection_details.is_empty() {
            let text = |value: &Vec<u8>| json!(String::from_utf8_lossy(value));
            let details = &resource.connection_details;
            shown["connection"] = details.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        }
        shown
    };
    let resources: Map<String, Value> =
        desired.resources.iter().map(|(key, resource)| (key.clone(), show(resource))).collect();
    let requirements = response.requirements.clone().unwrap_or_default().resources;
    let requirements: Map<String, Value> = requirements
        .iter()
        .map(|(key, selector)| {
            let name = format!("{:?}", selector.r#match);
            let name = name.split('"').nth(1).unwrap_or_default().to_owned();
            let namespace = selector.namespace.clone().unwrap_or_default();
            (key.clone(), json!(format!("{} {} {namespace}/{name}", selector.api_version, selector.kind)))
        })
        .collect();
    let conditions: Vec<String> = response
        .conditions
        .iter()
        .map(|condition| {
            let status =
                condition.status().as_str_name().trim_start_matches("STATUS_CONDITION_").to_lowercase();
            let message = condition.message.clone().unwrap_or_default();
            format!("{} {status} {}: {message}", condition.r#type, condition.reason)
        })
        .collect();
    let results: Vec<String> = response
        .results
        .iter()
        .map(|result| {
            let severity = result.severity().as_str_name().trim_start_matches("SEVERITY_").to_lowercase();
            format!("{severity} {}: {}", result.reason.clone().unwrap_or_default(), result.message)
        })
        .collect();
    let meta = response.meta.clone().unwrap_or_default();
    json!({
        "meta": {"tag": meta.tag, "ttl": format!("{}s", meta.ttl.unwrap_or_default().seconds)},
        "results": results,
        "conditions": conditions,
        "requirements": requirements,
        "composite": desired.composite.as_ref().map(composite),
        "resources": resources,
        "context": response.context.as_ref().map(object::decode),
    })
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}
