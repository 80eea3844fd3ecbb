//! **Secrecy**: what is a secret in requests and responses, and where people and logs look.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_vcluster_backup::object;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::RunFunctionResponse;

use crate::common::{self, Case};

/// In every Secret and credential of the requests; no more than that must ever hold it.
pub const MARKER: &str = "hunter2-marker";

/// How every age identity begins, in clear and in a Secret.
const IDENTITIES: [&str; 2] = ["AGE-SECRET-KEY-1", "QUdFLVNFQ1JFVC1LRVktM"];
/// Keys of composed Secrets with what everybody may know.
const PUBLIC: [&str; 3] = ["recipients", "age-recipient", "ca.crt"];

/// Writes the shorthands out, and puts the marker into every Secret and credential: encoded as it should be, or in
/// clear as a careless reader would find it. `identities` too, which makes them none.
pub fn mark(case: &mut Case, encoded: bool, identities: bool) {
    let clear = format!("{MARKER}-0123456789abcdef0123456789abcdef");
    let marker = if encoded { STANDARD.encode(&clear) } else { clear.clone() };
    for (key, value) in case.required.iter_mut().filter(|(_, value)| value.is_string()) {
        *value = common::required(key, value).pop().unwrap_or(json!("none"));
    }
    for (key, value) in &mut case.observed {
        *value = common::observed(key, value);
    }
    for data in case.credentials.values_mut() {
        for text in data.values_mut() {
            text.clone_from(&clear);
        }
    }
    for value in case.required.values_mut().chain(case.observed.values_mut()) {
        let is_secret = value.get("kind") == Some(&json!("Secret"));
        for (key, entry) in value.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten() {
            if is_secret && key != "ca.crt" && (identities || key != "age-identity") {
                *entry = json!(marker);
            }
        }
    }
}

/// Where people and logs look: everything but the composed Secrets.
pub fn visible(response: &RunFunctionResponse) -> String {
    let desired = response.desired.clone().unwrap_or_default();
    let told = (&response.results, &response.conditions, &response.requirements, &desired.composite);
    let mut text = format!("{told:?}");
    for resource in desired.resources.values().filter_map(|resource| resource.resource.as_ref()) {
        let mut object = object::decode(resource);
        if object["kind"] == "Secret" {
            object["data"] = Value::Null;
        }
        text.push_str(&object.to_string());
    }
    text
}

/// What is in the composed Secrets and is nobody's business: as it is there, and as it is meant.
pub fn secrets(response: &RunFunctionResponse) -> Vec<String> {
    let resources = response.desired.iter().flat_map(|desired| desired.resources.values());
    let objects = resources.filter_map(|resource| resource.resource.as_ref()).map(object::decode);
    let data = objects.filter(|object| object["kind"] == "Secret").flat_map(|secret| {
        secret["data"]
            .as_object()
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| !PUBLIC.contains(&key.as_str()))
    });
    data.filter_map(|(_, value)| value.as_str().map(str::to_owned))
        .flat_map(|encoded| {
            let decoded = STANDARD.decode(&encoded).unwrap_or_default();
            [String::from_utf8_lossy(&decoded).trim().to_owned(), encoded]
        })
        // A shorter one is found anywhere.
        .filter(|text| text.len() >= 8)
        .collect()
}

/// Whether more than its beginning, which messages may tell of, is in a text.
pub fn shows_identity(text: &str) -> bool {
    IDENTITIES.iter().any(|begin| {
        text.match_indices(begin).any(|(place, _)| {
            let after = text[place + begin.len()..].chars();
            after.take(8).filter(char::is_ascii_alphanumeric).count() == 8
        })
    })
}
