//! Requests that nobody would write, made of those that somebody did: never a panic, the same answer twice, and
//! no secret where people look.
#![allow(clippy::unwrap_used, deprecated)] // ring's fixed randomness is where its own tests are

mod common;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Case;
use function_vcluster_backup::function::run;
use function_vcluster_backup::object;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use prost::Message as _;
use ring::test::rand::FixedByteRandom;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::RunFunctionResponse;

/// In every Secret and credential of the requests; no more than that must ever hold it.
const MARKER: &str = "hunter2-marker";

/// Stages of life with much in them.
const STAGES: [&str; 21] = [
    "claim/healthy",
    "claim/native-sidecar",
    "claim/existing",
    "claim/restore-asked",
    "claim/master-key-awaiting-key",
    "claim/off-and-delete",
    "claim/prune-elsewhere",
    "claim/s3-register-healthy",
    "claim/verify-failed",
    "namespaced/awaiting-key",
    "namespaced/certificate",
    "claim/rotate",
    "claim/saved-several",
    "claim/clone-handed-over",
    "claim/clone-shared",
    "claim/clone-bucket",
    "claim/connection",
    "namespaced/rotated-restore-asked",
    "namespaced/clone-ready",
    "namespaced/verify-first",
    "claim/rancher-registered",
];

fn stage(name: &str) -> Case {
    Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name))
}

/// Every path of a value.
fn paths(value: &Value, path: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
    all.push(path.clone());
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (name, child) in children {
        path.push(name);
        paths(child, path, all);
        path.pop();
    }
}

/// Puts `hostile` in the place of what stands at one of the value's paths, or takes that away.
fn mutate(value: &mut Value, pick: usize, hostile: Option<&Value>) {
    let mut all = Vec::new();
    paths(value, &mut Vec::new(), &mut all);
    let path = &all[pick % all.len()];
    let Some((last, parents)) = path.split_last() else {
        *value = hostile.cloned().unwrap_or(Value::Null);
        return;
    };
    let parent = parents.iter().fold(value, |value, name| match value {
        Value::Array(items) => &mut items[name.parse::<usize>().unwrap()],
        other => &mut other[name.as_str()],
    });
    match (parent, hostile) {
        (Value::Array(items), Some(hostile)) => items[last.parse::<usize>().unwrap()] = hostile.clone(),
        (Value::Array(items), None) => drop(items.remove(last.parse::<usize>().unwrap())),
        (Value::Object(fields), Some(hostile)) => drop(fields.insert(last.clone(), hostile.clone())),
        (Value::Object(fields), None) => drop(fields.remove(last)),
        _ => unreachable!("a path's parents have children"),
    }
}

fn hostile() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        any::<f64>().prop_map(|number| Some(json!(number))),
        any::<bool>().prop_map(|flag| Some(json!(flag))),
        "\\PC{0,80}".prop_map(|text| Some(json!(text))),
        prop::sample::select(vec!["a/../b", "{{ .Values }}", "\u{0}", "-", ".", "é".repeat(70).leak(), "🦀"])
            .prop_map(|text| Some(json!(text))),
        Just(Some(json!([{"name": [[]]}, null, 7]))),
        Just(Some(json!({"": {"enabled": true}, "metadata": {"name": 7}}))),
        (0..3000_usize).prop_map(|length| Some(json!("x".repeat(length)))),
    ]
}

/// Where people and logs look: everything but the composed Secrets and the connection details, which go into one.
fn visible(response: &RunFunctionResponse) -> String {
    let desired = response.desired.clone().unwrap_or_default();
    let composite = desired.composite.as_ref().map(|composite| &composite.resource);
    let told = (&response.results, &response.conditions, &response.requirements, composite);
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

/// Writes the shorthands out, and puts the marker into every Secret and credential: encoded as it should be, or in
/// clear as a careless reader would find it. `identities` too, which makes them none.
fn mark(case: &mut Case, encoded: bool, identities: bool) {
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
    // The address by which Rancher's agent is had holds a token.
    if let Some(token) = case.observed.get_mut("rancher-token") {
        let address = format!("https://rancher.example.org/v3/import/{clear}.yaml");
        token["status"]["atProvider"]["manifest"]["status"]["manifestUrl"] = json!(address);
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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutated_requests(
        name in prop::sample::select(STAGES.to_vec()),
        mutations in prop::collection::vec((0..5_usize, any::<usize>(), hostile()), 1..4),
        (encoded, identities) in any::<(bool, bool)>(),
    ) {
        let mut case = stage(name);
        mark(&mut case, encoded, identities);
        for (part, pick, hostile) in &mutations {
            match part {
                0 | 1 => mutate(&mut case.xr, *pick, hostile.as_ref()),
                2 => mutate(&mut case.input, *pick, hostile.as_ref()),
                part => {
                    let objects = if *part == 3 { &mut case.observed } else { &mut case.required };
                    let count = objects.len().max(1);
                    if let Some(object) = objects.values_mut().nth(pick % count).filter(|object| !object.is_string()) {
                        mutate(object, *pick, hostile.as_ref().filter(|hostile| !hostile.is_string()));
                    }
                }
            }
        }
        let random = FixedByteRandom { byte: 9 };
        let response = run(case.request(), case.now(), &random);
        let again = run(case.request(), case.now(), &random);
        prop_assert_eq!(response.encode_to_vec(), again.encode_to_vec());
        let visible = visible(&response);
        for secret in [MARKER, &STANDARD.encode(MARKER)[..16], common::IDENTITY, &STANDARD.encode(common::IDENTITY)] {
            prop_assert!(!visible.contains(secret), "{}", visible);
        }
    }
}

#[test]
fn every_stage_is_there() {
    for name in STAGES {
        assert!(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).is_dir(), "{name}");
    }
}
