//! Requests that nobody would write, made of those that somebody did: never a panic, the same answer twice, no secret
//! where people or logs look, and nothing composed that an API server would refuse for its name.
#![allow(clippy::unwrap_used, deprecated)] // ring's fixed randomness is where its own tests are

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

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
use vcluster_backup_proto::v1::{RunFunctionRequest, RunFunctionResponse};

/// In every Secret and credential of the requests; no more than that must ever hold it.
const MARKER: &str = "hunter2-marker";

/// How every age identity begins, in clear and in a Secret.
const IDENTITIES: [&str; 2] = ["AGE-SECRET-KEY-1", "QUdFLVNFQ1JFVC1LRVktM"];
/// A sentence for people, with names in it that may be long.
const LONGEST: usize = 1024;
/// Keys of composed Secrets with what everybody may know.
const PUBLIC: [&str; 3] = ["recipients", "age-recipient", "ca.crt"];

/// Every stage of life that there is a golden test of.
static STAGES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let mut folders: Vec<PathBuf> = ["claim", "namespaced"]
        .iter()
        .flat_map(|flavour| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(flavour);
            std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path())
        })
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.iter().map(|folder| Case::read(folder)).collect()
});

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
    let odd = [
        "a/../b",
        "{{ .Values }}",
        "\u{0}",
        "-",
        ".",
        "",
        " ",
        "0",
        "-1",
        "1e400",
        "2h 3x",
        "null",
        "true",
        "\n---\n",
        "a: b",
        "${HOME}",
        "$(id)",
        "--flag=1",
        "\u{202e}txet",
        "🦀",
        "é".repeat(70).leak(),
        "9".repeat(400).leak(),
    ];
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        any::<f64>().prop_map(|number| Some(json!(number))),
        prop::sample::select(vec![0_i64, -1, 1 << 53, i64::MIN, i64::MAX])
            .prop_map(|number| Some(json!(number))),
        any::<bool>().prop_map(|flag| Some(json!(flag))),
        "\\PC{0,80}".prop_map(|text| Some(json!(text))),
        prop::sample::select(odd.to_vec()).prop_map(|text| Some(json!(text))),
        Just(Some(json!([{"name": [[]]}, null, 7]))),
        Just(Some(json!({"": {"enabled": true}, "metadata": {"name": 7}}))),
        (0..3000_usize).prop_map(|length| Some(json!("x".repeat(length)))),
        (100_000..300_000_usize).prop_map(|length| Some(json!("y".repeat(length)))),
        (0..3000_usize).prop_map(|length| Some(json!(vec![json!({"name": "z"}); length]))),
        (0..20_usize)
            .prop_map(|depth| Some((0..depth).fold(json!("deep"), |inner, _| json!({"a": [inner]})))),
    ]
}

/// What of a request is changed.
#[derive(Debug, Clone, Copy)]
enum Part {
    Xr,
    Input,
    Observed,
    Required,
    Desired,
    Context,
    Credentials,
}

fn part() -> impl Strategy<Value = Part> {
    use Part::{Context, Credentials, Desired, Input, Observed, Required, Xr};
    prop::sample::select(vec![
        Xr,
        Xr,
        Xr,
        Input,
        Input,
        Observed,
        Observed,
        Required,
        Required,
        Desired,
        Context,
        Credentials,
    ])
}

fn change(case: &mut Case, part: Part, pick: usize, hostile: Option<&Value>) {
    match part {
        Part::Xr => mutate(&mut case.xr, pick, hostile),
        Part::Input => mutate(&mut case.input, pick, hostile),
        Part::Observed => change_one(&mut case.observed, pick, hostile),
        Part::Required => change_one(&mut case.required, pick, hostile),
        Part::Desired => {
            case.desired.entry("vcluster".into()).or_insert_with(|| json!({"kind": "Release"}));
            change_one(&mut case.desired, pick, hostile);
        }
        Part::Context => mutate(case.context.get_or_insert_with(|| json!({"a": {"b": 1}})), pick, hostile),
        Part::Credentials => {
            // Another length, name or key; a credential's data is bytes whatever it was written as.
            let text =
                hostile.map_or_else(String::new, |hostile| format!("{MARKER}{}", hostile.to_string().len()));
            let name = ["master-key", "other", ""][pick % 3];
            case.credentials
                .entry(name.into())
                .or_default()
                .insert(["master-key", "x"][pick / 3 % 2].into(), text);
        }
    }
}

/// Changes one of them, or takes it away. The shorthands are written out before.
fn change_one(objects: &mut BTreeMap<String, Value>, pick: usize, hostile: Option<&Value>) {
    let Some(key) = objects.keys().nth(pick % objects.len().max(1)).cloned() else { return };
    if hostile.is_none() && pick.is_multiple_of(5) {
        objects.remove(&key);
    } else if let Some(object) = objects.get_mut(&key).filter(|object| !object.is_string()) {
        mutate(object, pick, hostile);
        // Text is a shorthand, which a whole object cannot become.
        if object.is_string() {
            *object = json!({});
        }
    }
}

/// All that is logged while it is the default, however little it matters.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The request as it comes over the wire; none if it is nested more deeply than protobuf takes.
fn received(case: &Case) -> Option<RunFunctionRequest> {
    RunFunctionRequest::decode(case.request().encode_to_vec().as_slice()).ok()
}

/// Runs it; returns what was logged too.
fn logged(request: RunFunctionRequest, case: &Case) -> (RunFunctionResponse, String) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let response = tracing::subscriber::with_default(subscriber, || {
        run(request, case.now(), &FixedByteRandom { byte: 9 })
    });
    let bytes = std::mem::take(&mut *log.0.lock().unwrap());
    (response, String::from_utf8_lossy(&bytes).into_owned())
}

/// What is in the composed Secrets and is nobody's business: as it is there, and as it is meant.
fn secrets(response: &RunFunctionResponse) -> Vec<String> {
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
fn shows_identity(text: &str) -> bool {
    IDENTITIES.iter().any(|begin| {
        text.match_indices(begin).any(|(place, _)| {
            let after = text[place + begin.len()..].chars();
            after.take(8).filter(char::is_ascii_alphanumeric).count() == 8
        })
    })
}

/// A name that an API server takes.
fn is_name(name: &str) -> bool {
    let takes =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter);
    let ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    name.len() <= 253 && name.chars().all(takes) && ends(name.chars().next()) && ends(name.chars().last())
}

/// Where people and logs look: everything but the composed Secrets.
fn visible(response: &RunFunctionResponse) -> String {
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
        stage in any::<prop::sample::Index>(),
        mutations in prop::collection::vec((part(), any::<usize>(), hostile()), 1..4),
        (encoded, identities) in any::<(bool, bool)>(),
    ) {
        let mut case = stage.get(&STAGES).clone();
        mark(&mut case, encoded, identities);
        for (part, pick, hostile) in &mutations {
            change(&mut case, *part, *pick, hostile.as_ref());
        }
        let Some(request) = received(&case) else { return Ok(()) };
        let (response, log) = logged(request.clone(), &case);
        let again = run(request, case.now(), &FixedByteRandom { byte: 9 });
        prop_assert_eq!(response.encode_to_vec(), again.encode_to_vec());
        let visible = visible(&response) + &log;
        let marker = STANDARD.encode(MARKER);
        for secret in [MARKER, &marker[..16]] {
            prop_assert!(!visible.contains(secret), "{} in {}", secret, visible);
        }
        prop_assert!(!shows_identity(&visible), "an identity in {}", visible);
        for secret in secrets(&response) {
            prop_assert!(!visible.contains(&secret), "{} of a Secret in {}", secret, visible);
        }
        prop_assert_eq!(wrong(&case, &response), Vec::<String>::new());
    }
}

/// What Crossplane or an API server would not take, or nobody could read.
fn wrong(case: &Case, response: &RunFunctionResponse) -> Vec<String> {
    let mut wrong = Vec::new();
    let desired = response.desired.clone().unwrap_or_default();
    for (key, resource) in &desired.resources {
        // What other functions desire goes on as it came.
        if case.desired.contains_key(key) {
            continue;
        }
        let object = object::decode(resource.resource.as_ref().unwrap());
        for field in ["name", "namespace"] {
            let name = &object["metadata"][field];
            if !name.is_null() && !name.as_str().is_some_and(is_name) {
                wrong.push(format!("{key}: {field} {name}"));
            }
        }
        if object["metadata"].get("managedFields").is_some() || object.get("status").is_some() {
            wrong.push(format!("{key} has what only an API server writes"));
        }
    }
    for condition in &response.conditions {
        let camel =
            |text: &str| !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric());
        if !camel(&condition.r#type) || !camel(&condition.reason) || condition.message().len() > LONGEST {
            wrong.push(format!("condition {}: {} characters", condition.r#type, condition.message().len()));
        }
    }
    let results = response.results.iter().map(|result| result.message.len());
    wrong.extend(
        results.filter(|length| *length > LONGEST).map(|length| format!("a result of {length} characters")),
    );
    wrong
}

#[test]
fn the_stages_of_life_are_there() {
    assert!(STAGES.len() > 90, "{} stages", STAGES.len());
}

#[test]
fn a_leak_would_be_noticed() {
    let case = STAGES.iter().find(|case| case.reason.starts_with("The identity is there")).unwrap();
    let (response, _) = logged(received(case).unwrap(), case);
    let secrets = secrets(&response);
    assert!(secrets.iter().any(|secret| secret == common::IDENTITY), "{secrets:?}");
    assert!(secrets.iter().filter(|secret| shows_identity(secret)).count() == 2, "{secrets:?}");
    assert!(!shows_identity("it begins with AGE-SECRET-KEY-1; put it back"));
    assert!(secrets.len() >= 4, "{secrets:?}");
    let visible = visible(&response);
    assert!(visible.contains("backup-identity") && visible.contains("recipient"), "{visible}");
    assert!(is_name("a.b-c") && !is_name("a/b") && !is_name("") && !is_name("-a") && !is_name("A"));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || tracing::info!("said"));
    assert!(String::from_utf8_lossy(&log.0.lock().unwrap()).contains("said"));
}
