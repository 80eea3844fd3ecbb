//! The shipped definitions, read by those who go by them: `crossplane resource validate` over every example, and a real
//! API server for what only it does: it refuses what is not structural or too dear to check, fills in defaults, and
//! compares with what was there before.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vcluster_backup_tests::api_server::ApiServer;
use vcluster_backup_tests::crossplane::{compositions, read, validate};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster::FLAVOURS;

fn definition(flavour: &str) -> PathBuf {
    compositions().join(flavour).join("xrd.yaml")
}

fn input_definition() -> PathBuf {
    compositions().join("../package/function/input/input.yaml")
}

/// The objects of a folder, with their files' names.
fn objects(folder: &str) -> Result<Vec<(String, Value)>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(compositions().join(folder))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    paths.sort();
    paths.iter().map(|path| Ok((path.display().to_string(), read(path)?))).collect()
}

fn cluster(spec: &Value) -> Value {
    json!({
        "apiVersion": "vcluster-backup.io/v1alpha1",
        "kind": "Vcluster",
        "metadata": {"name": "dev", "namespace": "default"},
        "spec": spec,
    })
}

#[test]
fn every_example_is_as_its_definition_says() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane"]) else { return Ok(()) };
    let shipped = FLAVOURS.map(|flavour| (definition(flavour), format!("{flavour}/examples")));
    for (definition, folder) in shipped.into_iter().chain([(input_definition(), "inputs".to_owned())]) {
        let (paths, objects): (Vec<_>, Vec<_>) = objects(&folder)?.into_iter().unzip();
        ensure!(paths.len() > 5, "{folder}: where are they?");
        let validated = validate(&tools, &[definition], &objects)?;
        ensure!(validated.success, "{folder}: {}", validated.text);
    }
    // Crossplane itself does not look at what stands in a Composition.
    for flavour in FLAVOURS {
        let composition = read(&compositions().join(flavour).join("composition.yaml"))?;
        let mut input = composition.pointer("/spec/pipeline/0/input").context("no Input")?.clone();
        input["metadata"] = json!({"name": "shipped"});
        let validated = validate(&tools, &[input_definition()], &[input])?;
        ensure!(validated.success, "{flavour}: {}", validated.text);
    }
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_refused() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane"]) else { return Ok(()) };
    let source = |from: Value| json!({"restore": {"id": "a", "latest": true, "from": from}});
    let specs = [
        (json!({"restore": {"id": "a", "latest": true, "pin": "b"}}), "give exactly one of"),
        (json!({"restore": {"id": "a"}}), "give exactly one of"),
        (json!({"restore": {"latest": true}}), "id"),
        (json!({"restore": {"id": "a", "at": "yesterday"}}), "at"),
        (source(json!({"name": "a", "bucket": "abc"})), "name the source by name"),
        (source(json!({"bucket": "abc"})), "bucket needs secretRef"),
        (source(json!({"name": "a", "secretRef": {"name": "s"}})), "bucket needs secretRef"),
        (
            source(json!({"bucket": "abc", "namespace": "n", "secretRef": {"name": "s"}})),
            "bucket needs secretRef",
        ),
        (json!({"backup": {"rotateKeys": -1}}), "rotateKeys"),
        (json!({"backup": {"rotateKeys": 17}}), "rotateKeys"),
        (json!({"backup": {"deletionPolicy": "Orphan"}}), "deletionPolicy"),
        (json!({"backup": {"autoRestore": {"when": ["Always"]}}}), "when"),
        (json!({"backup": {"syncInterval": "soon"}}), "syncInterval"),
        (json!({"backup": {"recipients": ["AGE-SECRET-KEY-1"]}}), "recipients"),
        (json!({"backup": {"verify": {"mode": "Full"}}}), "schedule"),
        (json!({"backup": {"verify": {"schedule": "at night"}}}), "schedule"),
        (json!({"backup": {"verify": {"schedule": "0 3 * * *", "mode": "Some"}}}), "mode"),
        (json!({"backup": {"snapshotIntervall": "1h"}}), "snapshotIntervall"),
        (json!({"backup": {"identitySecretRef": {"name": "s", "namespace": "n"}}}), "namespace"),
        (json!({"rancher": {"clusterName": "A b"}}), "clusterName"),
        (json!({"rancher": {"labels": {"a": "b c"}}}), "labels"),
        (json!({"version": "latest"}), "version"),
    ];
    for flavour in FLAVOURS {
        let bad = specs.iter().map(|(spec, complaint)| (cluster(spec), *complaint));
        all_refused(&tools, definition(flavour), bad)?;
    }
    let inputs = [
        (json!({}), "endpoint"),
        (json!({"endpoint": "minio:9000"}), "endpoint"),
        (json!({"endpoint": "https://m", "provisioner": "Ceph"}), "provisioner"),
        (json!({"endpoint": "https://m", "provisioner": "Existing"}), "needs existing"),
        (json!({"endpoint": "https://m", "provisioner": "S3Register"}), "needs s3Register"),
        (json!({"endpoint": "https://m", "endpoints": "x"}), "endpoints"),
    ];
    let bad = inputs.iter().map(|(storage, complaint)| {
        let input = json!({
            "apiVersion": "vcluster-backup.fn.crossplane.io/v1beta1",
            "kind": "Input",
            "metadata": {},
            "storage": storage,
        });
        (input, *complaint)
    });
    all_refused(&tools, input_definition(), bad)
}

/// Each object is refused with its complaint.
fn all_refused<'a>(
    tools: &Tools,
    definition: PathBuf,
    bad: impl Iterator<Item = (Value, &'a str)>,
) -> Result<()> {
    let (mut objects, complaints): (Vec<_>, Vec<_>) = bad.unzip();
    for (index, object) in objects.iter_mut().enumerate() {
        object["metadata"]["name"] = json!(format!("bad-{index}"));
    }
    let validated = validate(tools, &[definition], &objects)?;
    for (index, (object, complaint)) in objects.iter().zip(complaints).enumerate() {
        let is_of_it = |line: &str| line.contains(&format!(", bad-{index} ")) && line.contains(complaint);
        ensure!(
            validated.text.lines().any(is_of_it),
            "{object} is not refused for {complaint}:\n{}",
            validated.text
        );
    }
    Ok(())
}

/// The CRD that Crossplane makes of a definition, without the fields that it adds for itself.
fn crd(flavour: &str) -> Result<Value> {
    let definition = read(&definition(flavour))?;
    let version = definition.pointer("/spec/versions/0").context("no version")?;
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "vclusters.vcluster-backup.io"},
        "spec": {
            "group": "vcluster-backup.io",
            "scope": "Namespaced",
            "names": {"kind": "Vcluster", "plural": "vclusters", "singular": "vcluster", "listKind": "VclusterList"},
            "versions": [{
                "name": version["name"],
                "served": true,
                "storage": true,
                "additionalPrinterColumns": version["additionalPrinterColumns"],
                "subresources": {"status": {}},
                "schema": version["schema"],
            }],
        },
    }))
}

#[tokio::test]
async fn a_real_api_server_goes_by_them() -> Result<()> {
    let Some(tools) = Tools::with(["kine", "kube-apiserver", "kubectl"]) else { return Ok(()) };
    let server = ApiServer::start(&tools, &[]).await?;
    server.apply(&[read(&input_definition())?, crd("claim")?])?;
    // Until the server has taken the new kind in.
    let mut tries = 0;
    while let Err(error) = server.apply(&[cluster(&json!({}))]) {
        tries += 1;
        ensure!(tries < 60, "{error:#}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let kind = "vclusters.vcluster-backup.io";
    let made = server.get(kind, "default", "dev")?.context("it is not there")?;
    let backup = &made["spec"]["backup"];
    assert_eq!((&backup["retention"]["daily"], &backup["enabled"]), (&json!(7), &json!(true)));
    assert_eq!((&backup["rotateKeys"], &made["spec"]["rancher"]["enabled"]), (&json!(0), &json!(false)));

    let changes = [
        (
            json!({"backup": {"bucket": "abc"}}),
            json!({"backup": {"bucket": "abd"}}),
            "bucket cannot be changed",
        ),
        (
            json!({"backup": {"bucket": "abc"}}),
            json!({"backup": {"bucket": null}}),
            "bucket cannot be changed",
        ),
        (
            json!({"backup": {"rotateKeys": 2}}),
            json!({"backup": {"rotateKeys": 1}}),
            "can only be counted up",
        ),
        (json!({"namespace": "a"}), json!({"namespace": "b"}), "namespace cannot be changed"),
        (
            json!({"rancher": {"enabled": true, "clusterName": "a"}}),
            json!({"rancher": {"enabled": true, "clusterName": "b"}}),
            "clusterName cannot be changed",
        ),
    ];
    for (index, (before, after, complaint)) in changes.into_iter().enumerate() {
        let named = |spec: &Value| {
            let mut object = cluster(spec);
            object["metadata"]["name"] = json!(format!("changed-{index}"));
            object
        };
        server.apply(&[named(&before)])?;
        let refused = server.apply(&[named(&after)]).err().map(|error| format!("{error:#}"));
        ensure!(
            refused.as_ref().is_some_and(|text| text.contains(complaint)),
            "{before} {after}: {refused:?}"
        );
    }
    // Counting up, and a new name after switching off, are what they are for.
    for spec in [
        json!({"backup": {"rotateKeys": 1}, "rancher": {"enabled": true, "clusterName": "a"}}),
        json!({"backup": {"rotateKeys": 2}, "rancher": {"enabled": false, "clusterName": "a"}}),
        json!({"backup": {"rotateKeys": 2}, "rancher": {"enabled": true, "clusterName": "b"}}),
    ] {
        server.apply(&[cluster(&spec)])?;
    }
    Ok(())
}
