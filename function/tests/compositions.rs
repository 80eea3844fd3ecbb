//! What is shipped in `compositions` is what the function takes: both Inputs, every example, and the definitions'
//! fields and defaults.
#![allow(clippy::unwrap_used, deprecated)] // ring's fixed randomness is where its own tests are

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use function_vcluster_backup::function::run;
use function_vcluster_backup::input::Input;
use function_vcluster_backup::object;
use function_vcluster_backup::schema::status::Status;
use function_vcluster_backup::spec::Spec;
use ring::test::rand::FixedByteRandom;
use serde_json::{Map, Value, json};
use vcluster_backup_proto::v1::{Resource, RunFunctionRequest, State};

const FLAVOURS: [&str; 2] = ["claim", "namespaced"];
/// Examples that need more than a first call: a source, a Secret, the other side. The golden cases have them.
const LATER: [&str; 4] = ["clone", "clone-by-bucket", "identity", "share"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compositions")
}

fn read(path: impl AsRef<Path>) -> Value {
    let path = root().join(path);
    serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn examples(folder: &str) -> Vec<(String, Value)> {
    let folder = root().join(folder);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), read(path))).collect()
}

/// A schema's defaults, laid into a value as the API server does.
fn with_defaults(schema: &Value, value: &mut Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let Value::Object(fields) = value else { return };
    for (name, schema) in properties {
        if let Some(default) = schema.get("default") {
            fields.entry(name.clone()).or_insert_with(|| default.clone());
        }
        if let Some(value) = fields.get_mut(name) {
            with_defaults(schema, value);
        }
    }
}

fn schema(flavour: &str) -> Value {
    read(format!("{flavour}/xrd.yaml"))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        .take()
}

#[test]
fn every_example_is_composed() {
    for flavour in FLAVOURS {
        let mut input = read(format!("{flavour}/composition.yaml"))["spec"]["pipeline"][0]["input"].take();
        input["rancher"] = read("inputs/rancher.yaml")["rancher"].take();
        let mut examples = examples(&format!("{flavour}/examples"));
        examples.retain(|(path, _)| !LATER.iter().any(|later| path.ends_with(&format!("/{later}.yaml"))));
        assert!(examples.len() >= 4);
        for (path, mut xr) in examples {
            if flavour == "claim" && xr["kind"] == "Vcluster" {
                // What Crossplane makes of a claim.
                let claim = xr["metadata"].take();
                xr["spec"]["claimRef"] = json!({"name": claim["name"], "namespace": claim["namespace"]});
                xr["metadata"] = json!({"name": "dev-x7k2p"});
            }
            with_defaults(&schema(flavour)["spec"], &mut xr["spec"]);
            let composite = Resource { resource: Some(object::encode(&xr)), ..Default::default() };
            let request = RunFunctionRequest {
                observed: Some(State { composite: Some(composite), ..Default::default() }),
                input: Some(object::encode(&input)),
                ..Default::default()
            };
            let response = run(request, SystemTime::now(), &FixedByteRandom { byte: 9 });
            assert_eq!(response.results, [], "{path}");
            assert!(response.desired.unwrap().resources.contains_key("vcluster"), "{path}");
        }
    }
}

#[test]
fn both_definitions_are_of_one_thing() {
    assert_eq!(schema("claim"), schema("namespaced"));
}

#[test]
fn a_definitions_defaults_are_the_functions() {
    let mut spec = json!({});
    with_defaults(&schema("claim")["spec"], &mut spec);
    let defaulted: Spec = serde_json::from_value(spec).unwrap();
    assert_eq!(format!("{defaulted:?}"), format!("{:?}", Spec::default()));
}

#[test]
fn every_input_is_read_and_its_defaults_are_the_functions() {
    let crd = read("../package/function/input/input.yaml");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for (path, input) in examples("inputs") {
        let read = |input: &Value| {
            let mut input = input.clone();
            for field in ["apiVersion", "kind", "metadata"] {
                input.as_object_mut().unwrap().remove(field);
            }
            serde_json::from_value::<Input>(input).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let mut defaulted = input.clone();
        with_defaults(schema, &mut defaulted);
        assert_eq!(format!("{:?}", read(&defaulted)), format!("{:?}", read(&input)), "{path}");
    }
}

#[test]
fn every_status_that_is_written_is_one_that_a_definition_knows() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for case in FLAVOURS.iter().flat_map(|flavour| std::fs::read_dir(golden.join(flavour)).unwrap()) {
        let path = case.unwrap().path().join("response.yaml");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let response: Value = serde_saphyr::from_str(&text).unwrap();
        let Some(status) = response.pointer("/composite/resource/status") else { continue };
        let status: Result<Status, _> = serde_json::from_value(status.clone());
        assert!(status.is_ok(), "{}: {:?}", path.display(), status.err());
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}

/// Every field that a schema knows, each with something of its type: the function must know it too.
fn filled(schema: &Value) -> Value {
    if let Some(choice) = schema["enum"].as_array().and_then(|choices| choices.first()) {
        return choice.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            Value::Object(
                properties.iter().map(|(name, schema)| (name.clone(), filled(schema))).collect::<Map<_, _>>(),
            )
        }
        Some("array") => json!([filled(&schema["items"])]),
        Some("integer") => json!(1),
        Some("boolean") => json!(true),
        _ if schema["pattern"].as_str().is_some_and(|pattern| pattern.starts_with("^age1")) => {
            json!("age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa")
        }
        // A length of time, and a name as good as any.
        _ => json!("1m"),
    }
}

#[test]
fn a_definition_has_no_field_that_the_function_refuses() {
    let spec = filled(&schema("claim")["spec"]);
    let read: Result<Spec, _> = serde_json::from_value(spec.clone());
    assert!(read.is_ok(), "{:?}: {spec}", read.err());
    assert_eq!(spec.as_object().unwrap().len(), 6);
}
