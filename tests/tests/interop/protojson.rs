//! The protocol's messages as **JSON**, by protobuf's own rules: lowerCamelCase names, enums by name, bytes in base64,
//! nothing that has its default. Written down by hand, so that it owes nothing to the code under test.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_vcluster_backup::object::{decode, encode};
use serde_json::{Map, Value, json};
use vcluster_backup_proto::v1::resource_selector::Match;
use vcluster_backup_proto::v1::{Resource, RunFunctionResponse};

use crate::common::{Case, observed, required};

/// The request of a golden case.
pub fn request(case: &Case) -> Value {
    let resource = |object: &Value| json!({"resource": object});
    let resources = case.observed.iter().map(|(key, value)| (key.clone(), resource(&observed(key, value))));
    let mut request = json!({
        "meta": {"tag": "tag-of-the-request"},
        "observed": {
            "composite": {"resource": case.xr},
            "resources": resources.collect::<Map<_, _>>(),
        },
    });
    if !case.desired.is_empty() {
        let resources = case.desired.iter().map(|(key, value)| (key.clone(), resource(value)));
        request["desired"] = json!({"resources": resources.collect::<Map<_, _>>()});
    }
    for (field, value) in [("input", &case.input), ("context", case.context.as_ref().unwrap_or(&Value::Null))]
    {
        if !value.is_null() {
            request[field] = value.clone();
        }
    }
    let credentials = case.credentials.iter().map(|(name, data)| {
        let data = data.iter().map(|(key, text)| (key.clone(), json!(STANDARD.encode(text))));
        (name.clone(), json!({"credentialData": {"data": data.collect::<Map<_, _>>()}}))
    });
    request["credentials"] = Value::Object(credentials.collect());
    let required = case.required.iter().map(|(key, value)| {
        let items: Vec<Value> = required(key, value).iter().map(resource).collect();
        (key.clone(), json!({"items": items}))
    });
    request["requiredResources"] = Value::Object(required.collect());
    request
}

/// A response.
pub fn response(response: &RunFunctionResponse) -> Value {
    let meta = response.meta.clone().unwrap_or_default();
    let ttl = meta.ttl.map(|ttl| format!("{}s", ttl.seconds));
    let desired = response.desired.as_ref().map(|state| {
        let resources = state.resources.iter().map(|(key, resource)| (key.clone(), of_resource(resource)));
        object([
            ("composite", state.composite.as_ref().map(of_resource)),
            ("resources", some(Value::Object(resources.collect()))),
        ])
    });
    let results = response.results.iter().map(|result| {
        object([
            ("severity", Some(json!(result.severity().as_str_name()))),
            ("message", Some(json!(result.message))),
            ("reason", result.reason.as_ref().map(|reason| json!(reason))),
            ("target", result.target.map(|_| json!(result.target().as_str_name()))),
        ])
    });
    let conditions = response.conditions.iter().map(|condition| {
        object([
            ("type", Some(json!(condition.r#type))),
            ("status", Some(json!(condition.status().as_str_name()))),
            ("reason", Some(json!(condition.reason))),
            ("message", condition.message.as_ref().map(|message| json!(message))),
            ("target", condition.target.map(|_| json!(condition.target().as_str_name()))),
        ])
    });
    let requirements = response.requirements.as_ref().map(|requirements| {
        let selectors = requirements.resources.iter().map(|(key, selector)| {
            let name = match &selector.r#match {
                Some(Match::MatchName(name)) => Some(json!(name)),
                _ => None,
            };
            let selector = object([
                ("apiVersion", Some(json!(selector.api_version))),
                ("kind", Some(json!(selector.kind))),
                ("matchName", name),
                ("namespace", selector.namespace.as_ref().map(|namespace| json!(namespace))),
            ]);
            (key.clone(), selector)
        });
        object([("resources", some(Value::Object(selectors.collect())))])
    });
    object([
        ("meta", Some(object([("tag", some(json!(meta.tag))), ("ttl", ttl.map(Value::String))]))),
        ("desired", desired),
        ("results", some(Value::Array(results.collect()))),
        ("conditions", some(Value::Array(conditions.collect()))),
        ("requirements", requirements),
        ("context", response.context.as_ref().map(decode)),
    ])
}

/// With whole numbers as integers again: a `Struct` knows none, and Python's library writes `1.0`.
pub fn whole(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        Value::Array(items) => items.into_iter().map(whole).collect(),
        // As the function reads them.
        Value::Number(_) => decode(&encode(&json!({"number": value})))["number"].take(),
        other => other,
    }
}

fn of_resource(resource: &Resource) -> Value {
    let ready = resource.ready().as_str_name();
    object([
        ("resource", resource.resource.as_ref().map(decode)),
        ("ready", (ready != "READY_UNSPECIFIED").then(|| json!(ready))),
    ])
}

/// The fields that are there.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// Nothing of what is empty.
fn some(value: Value) -> Option<Value> {
    let is_empty = match &value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    (!is_empty).then_some(value)
}
