//! The **definitions**: what stands around the schemas.

use anyhow::Result;
use function_vcluster_backup::input::Input;
use function_vcluster_backup::schema::status::Status;
use function_vcluster_backup::spec::Spec;
use serde_json::{Value, json};

use crate::{structural, yaml};

/// Below what each file says of itself.
const MADE: &str = "\
# Generated from the Rust types that read it: change those (function/src/spec.rs and what it names), then run
# `cargo xtask schemas`.";

const CLAIM: &str = "\
# A virtual cluster as a claim: cluster-scoped composite, cluster-scoped providers. For Crossplane 2.
# Choose this one or ../namespaced, they define the same kind.";

const NAMESPACED: &str = "\
# A virtual cluster as a namespaced composite, with the namespaced (.m.) providers. For Crossplane 2.
# Choose this one or ../claim, they define the same kind.";

const INPUT: &str = "\
# What the platform team decides, as the function's Input in a Composition.";

/// A file as it must be.
pub struct File {
    /// Where, in the repository.
    pub path: &'static str,
    /// All of it.
    pub text: String,
}

/// Both XRDs and the Input's CRD.
pub fn all() -> Result<Vec<File>> {
    let composite = composite()?;
    let file = |path, head, value| -> Result<File> {
        Ok(File { path, text: format!("{head}\n{MADE}\n{}", yaml::document(&value)?) })
    };
    Ok(vec![
        file("compositions/claim/xrd.yaml", CLAIM, claim(&composite))?,
        file("compositions/namespaced/xrd.yaml", NAMESPACED, namespaced(&composite))?,
        file("package/function/input/input.yaml", INPUT, input()?)?,
    ])
}

fn composite() -> Result<Value> {
    let mut spec = structural::of::<Spec>()?;
    // So that a spec that is left out gets its defaults too.
    spec["default"] = json!({});
    Ok(json!({
        "type": "object",
        "description": "A virtual cluster with an encrypted, continuous backup of its control plane.",
        "properties": {"spec": spec, "status": structural::of::<Status>()?},
    }))
}

/// The one version of both. Crossplane adds the columns SYNCED, READY, COMPOSITION and AGE.
fn versions(schema: &Value) -> Value {
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    json!([{
        "name": "v1alpha1",
        "served": true,
        "referenceable": true,
        "additionalPrinterColumns": [
            column("VERSION", "string", ".status.cluster.version"),
            column("BACKUP", "string", ".status.backup.phase"),
            column("LAST BACKUP", "date", ".status.backup.lastSuccess"),
        ],
        "schema": {"openAPIV3Schema": schema},
    }])
}

fn claim(schema: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.crossplane.io/v1",
        "kind": "CompositeResourceDefinition",
        "metadata": {"name": "xvclusters.vcluster-backup.io"},
        "spec": {
            "scope": "LegacyCluster",
            "group": "vcluster-backup.io",
            "names": {"kind": "XVcluster", "plural": "xvclusters"},
            "claimNames": {"kind": "Vcluster", "plural": "vclusters"},
            "connectionSecretKeys": ["kubeconfig"],
            "defaultCompositionRef": {"name": "vcluster-claim"},
            "versions": versions(schema),
        },
    })
}

fn namespaced(schema: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.crossplane.io/v2",
        "kind": "CompositeResourceDefinition",
        "metadata": {"name": "vclusters.vcluster-backup.io"},
        "spec": {
            "scope": "Namespaced",
            "group": "vcluster-backup.io",
            "names": {"kind": "Vcluster", "plural": "vclusters"},
            "defaultCompositionRef": {"name": "vcluster-namespaced"},
            "versions": versions(schema),
        },
    })
}

fn input() -> Result<Value> {
    let mut schema = structural::of::<Input>()?;
    for (field, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        schema["properties"][field] = json!({"type": kind});
    }
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "inputs.vcluster-backup.fn.crossplane.io"},
        "spec": {
            "group": "vcluster-backup.fn.crossplane.io",
            "scope": "Namespaced",
            "names": {
                "kind": "Input",
                "listKind": "InputList",
                "plural": "inputs",
                "singular": "input",
                "categories": ["crossplane"],
            },
            "versions": [{
                "name": "v1beta1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    }))
}
