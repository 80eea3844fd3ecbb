//! Requests that nobody would write, made of those that somebody did: never a panic, the same answer twice, no secret
//! where people or logs look, and nothing composed that an API server would refuse for its name.
#![allow(clippy::unwrap_used, deprecated)] // ring's fixed randomness is where its own tests are

#[path = "../common/mod.rs"]
mod common;
mod mutation;
mod secrecy;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Case;
use function_vcluster_backup::function::run;
use function_vcluster_backup::object;
use mutation::{change, hostile, part};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use prost::Message as _;
use ring::test::rand::FixedByteRandom;
use secrecy::{MARKER, mark, secrets, shows_identity, visible};
use vcluster_backup_proto::v1::{RunFunctionRequest, RunFunctionResponse};

/// A sentence for people, with names in it that may be long.
const LONGEST: usize = 1024;

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

/// A name that an API server takes.
fn is_name(name: &str) -> bool {
    let takes =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter);
    let ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    name.len() <= 253 && name.chars().all(takes) && ends(name.chars().next()) && ends(name.chars().last())
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
