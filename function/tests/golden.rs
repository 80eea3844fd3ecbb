//! Golden tests: a request in, the whole response out, a folder per stage of life. `UPDATE_GOLDEN=1 cargo test
//! --test golden` writes the responses anew; read the difference before it is committed.
#![allow(clippy::unwrap_used, deprecated)] // ring's fixed randomness is where its own tests are

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Case, reveals_identity, show};
use function_vcluster_backup::function::run;
use function_vcluster_backup::object;
use prost::Message as _;
use ring::test::rand::FixedByteRandom;
use serde_json::json;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = |path: &Path| {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.is_dir());
        paths.sort();
        paths
    };
    entries(&root).iter().flat_map(|flavour| entries(flavour)).collect()
}

#[test]
fn every_stage_of_life_answers_as_written() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let folders = folders();
    assert!(folders.len() > 40, "the cases are gone");
    for folder in folders {
        let case = Case::read(&folder);
        // Another draw than the identity of the cases: what is new and what was there must not be mixed up.
        let random = FixedByteRandom { byte: 9 };
        let response = run(case.request(), case.now(), &random);
        let again = run(case.request(), case.now(), &random);
        assert_eq!(
            response.encode_to_vec(),
            again.encode_to_vec(),
            "{}: not the same bytes",
            folder.display()
        );

        let text = format!("# {}\n{}", case.reason, serde_saphyr::to_string(&show(&response)).unwrap());
        let golden = folder.join("response.yaml");
        if update {
            fs::write(&golden, &text).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{}: {}", folder.display(), case.reason));
        }
    }
    assert!(
        wrong.is_empty(),
        "other answers than written (UPDATE_GOLDEN=1 writes them):\n{}",
        wrong.join("\n")
    );
}

/// The pod reads every Secret of its namespace: what is sealed away must be in none.
#[test]
fn what_is_sealed_is_out_of_the_pods_reach() {
    let mut sealed = 0;
    for folder in folders() {
        let case = Case::read(&folder);
        let response = run(case.request(), case.now(), &FixedByteRandom { byte: 9 });
        let phase = case.required.get("backup-status").map(|report| report["data"]["phase"].clone());
        let restores = ["AwaitingKey", "Restoring", "Failed"].iter().any(|it| phase == Some(json!(it)));
        let asked = !case.xr["spec"]["restore"].is_null();
        if case.input["encryption"]["identity"] == "InNamespace" || restores || asked {
            continue;
        }
        sealed += 1;
        let desired = response.desired.unwrap_or_default();
        for (key, resource) in &desired.resources {
            let object = object::decode(resource.resource.as_ref().unwrap());
            let is_kept_apart = object["metadata"]["namespace"] == "crossplane-system";
            assert!(is_kept_apart || !reveals_identity(&object), "{}: {key}", folder.display());
        }
    }
    assert!(sealed > 60, "{sealed} cases");
}
