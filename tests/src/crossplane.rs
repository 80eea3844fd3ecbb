//! **`crossplane render`**: Crossplane's own reconciler, once, over files, with our function as it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::function::Function;
use crate::toolbox::Tools;

/// The shipped definitions and compositions.
pub fn compositions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compositions")
}

/// What is rendered. Needs the tools `crossplane` and `crossplane-core`.
#[derive(Debug, Clone)]
pub struct Rendering {
    /// The XR.
    pub composite: Value,
    /// The Composition.
    pub composition: Value,
    /// The definition; needed for one of version 1, whose XRs keep Crossplane's own fields in `spec`.
    pub definition: Option<PathBuf>,
    /// What is there when the function asks for it.
    pub required: Vec<Value>,
    /// What was composed before.
    pub observed: Vec<Value>,
}

/// What came out.
#[derive(Debug)]
pub struct Rendered {
    /// The XR with its status, then everything composed, then the function's results, as they were printed.
    pub text: String,
    /// Warnings, and the fatal result of a pipeline that failed.
    pub messages: String,
    /// Whether the pipeline went through.
    pub success: bool,
}

impl Rendering {
    /// A composition of ours (`claim` or `namespaced`) over one XR.
    pub fn new(flavour: &str, composite: Value) -> Result<Self> {
        let folder = compositions().join(flavour);
        let definition = folder.join("xrd.yaml");
        Ok(Self {
            composite,
            composition: read(&folder.join("composition.yaml"))?,
            definition: Some(definition),
            required: Vec::new(),
            observed: Vec::new(),
        })
    }

    /// Renders it, once.
    pub fn run(&self, tools: &Tools, function: &Function) -> Result<Rendered> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, objects: &[Value]| -> Result<PathBuf> {
            let path = folder.path().join(name);
            // JSON is YAML.
            let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
            std::fs::write(&path, documents.join("\n---\n"))
                .with_context(|| format!("cannot write {name}"))?;
            Ok(path)
        };
        let mut command = tools.command("crossplane")?;
        command
            .arg("render")
            .arg(write("xr.yaml", std::slice::from_ref(&self.composite))?)
            .arg(write("composition.yaml", std::slice::from_ref(&self.composition))?)
            .arg(write("functions.yaml", &[function_object(&self.composition, function)?])?)
            .arg("--include-full-xr")
            .arg("--include-function-results")
            .arg("--crossplane-binary")
            .arg(tools.path("crossplane-core")?)
            .env("HOME", folder.path());
        if let Some(definition) = &self.definition {
            command.arg("--xrd").arg(definition);
        }
        if !self.required.is_empty() {
            command.arg("--required-resources").arg(write("required.yaml", &self.required)?);
        }
        if !self.observed.is_empty() {
            command.arg("--observed-resources").arg(write("observed.yaml", &self.observed)?);
        }
        run(command)
    }
}

impl Rendered {
    /// This, if the pipeline went through; an error with its messages otherwise.
    pub fn succeeded(self) -> Result<Self> {
        ensure!(self.success, "crossplane render failed:\n{}", self.messages);
        Ok(self)
    }

    /// Everything that was printed, as objects.
    pub fn objects(&self) -> Result<Vec<Value>> {
        serde_saphyr::from_multiple(&self.text)
            .with_context(|| format!("crossplane render printed no YAML:\n{}", self.text))
    }

    /// The object that was composed as this resource of the XR.
    pub fn composed(&self, resource: &str) -> Result<Option<Value>> {
        let annotation = "/metadata/annotations/crossplane.io~1composition-resource-name";
        let is_it = |object: &Value| object.pointer(annotation).and_then(Value::as_str) == Some(resource);
        Ok(self.objects()?.into_iter().find(is_it))
    }

    /// All objects of this kind.
    pub fn of_kind(&self, kind: &str) -> Result<Vec<Value>> {
        Ok(self.objects()?.into_iter().filter(|object| object["kind"] == kind).collect())
    }
}

/// What `crossplane resource validate` says of objects, by these definitions. Needs the tool `crossplane`.
#[derive(Debug)]
pub struct Validated {
    /// Each object and what is wrong with it.
    pub text: String,
    /// Whether all of them are right.
    pub success: bool,
}

/// Checks objects against XRDs and CRDs; an object of a kind that none of them defines is wrong too.
pub fn validate(tools: &Tools, definitions: &[PathBuf], objects: &[Value]) -> Result<Validated> {
    let folder = tempfile::tempdir()?;
    // Crossplane's own kinds would come from its image; they are none of ours.
    let own = folder.path().join("cache/xpkg.crossplane.io/crossplane/crossplane@stable");
    std::fs::create_dir_all(&own)?;
    std::fs::write(own.join("package.yaml"), "{apiVersion: v1, kind: ConfigMap, metadata: {name: none}}\n")?;
    let resources = folder.path().join("resources.yaml");
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    std::fs::write(&resources, documents.join("\n---\n"))?;
    let definitions: Vec<_> = definitions.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let output = tools
        .command("crossplane")?
        .args(["resource", "validate", "--error-on-missing-schemas", "--cache-dir"])
        .arg(folder.path().join("cache"))
        .arg(definitions.join(","))
        .arg(&resources)
        .env("HOME", folder.path())
        .output()
        .context("cannot start crossplane resource validate")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Validated { text, success: output.status.success() })
}

/// The one object of a YAML file.
pub fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not one YAML document", path.display()))
}

/// The Function that the composition's only step names, where it listens.
fn function_object(composition: &Value, function: &Function) -> Result<Value> {
    let name =
        composition.pointer("/spec/pipeline/0/functionRef/name").context("the composition has no step")?;
    Ok(serde_json::json!({
        "apiVersion": "pkg.crossplane.io/v1",
        "kind": "Function",
        "metadata": {
            "name": name,
            "annotations": {
                "render.crossplane.io/runtime": "Development",
                "render.crossplane.io/runtime-development-target": format!("127.0.0.1:{}", function.port()),
            },
        },
        "spec": { "package": "example.org/function:v0" },
    }))
}

fn run(mut command: Command) -> Result<Rendered> {
    let output = command.output().context("cannot start crossplane render")?;
    Ok(Rendered {
        text: without_chatter(&String::from_utf8_lossy(&output.stdout)),
        messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        success: output.status.success(),
    })
}

/// Crossplane's own results are left out: which resources are not ready yet it tells in the order of a Go map,
/// another one every time.
fn without_chatter(printed: &str) -> String {
    let chatter = |document: &&str| {
        let is_result = document.lines().any(|line| line == "kind: Result");
        is_result && !document.contains("Pipeline step")
    };
    let mut kept = String::new();
    for document in printed.split("---\n").filter(|document| !document.is_empty() && !chatter(document)) {
        kept.push_str("---\n");
        kept.push_str(document);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crossplanes_own_results_are_left_out() {
        let ours = "---\nkind: XVcluster\nspec:\n  text: kind of Result\n---\nkind: Secret\n\
                    ---\nkind: Result\nmessage: 'Pipeline step \"vcluster\": made'\n";
        let printed = format!("{ours}---\nkind: Result\nmessage: Composed resource \"a\" is not yet ready\n");
        assert_eq!(without_chatter(&printed), ours);
    }
}
