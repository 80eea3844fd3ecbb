//! **Everything composed validates**: whatever the function answers in its golden tests is what the definitions of its
//! kind and the chart's schema take.
//!
//! The definitions of core and provider-helm and two versions of the chart are tools. More are taken from the folder
//! `VCB_SCHEMAS` (`crds/*.yaml`, `vcluster-chart/values.schema-v*.json`), by default `../shared/schemas` beside the
//! repository if it is there; what none of them defines is named in the output.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use vcluster_backup_tests::crossplane::read;
use vcluster_backup_tests::toolbox::Tools;

const SCHEMAS: &str = "VCB_SCHEMAS";
/// Kubernetes' own kinds have no definitions; the API server of the control-plane tests takes them.
const BUILT_IN: [&str; 4] = ["v1", "batch/v1", "rbac.authorization.k8s.io/v1", "apps/v1"];
/// The oldest chart of the present layout; before it there was a chart for each distribution, with a schema for none.
const OLDEST_SCHEMA: [u64; 3] = [0, 20, 0];

#[tokio::test]
async fn composed_objects_are_as_their_definitions_say() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-crds", "provider-helm-crds"]) else {
        return Ok(());
    };
    let objects: Vec<Composed> = composed()?.into_iter().filter(|composed| !composed.is_built_in()).collect();
    ensure!(objects.len() > 200, "{} objects: the golden files are gone", objects.len());
    let beside = schemas()?.map(|folder| folder.join("crds"));
    let pinned = [tools.path("crossplane-crds")?.to_owned(), tools.path("provider-helm-crds")?.to_owned()];
    // One after the other: two versions of one definition must not stand in for each other.
    let mut undefined: BTreeSet<String> = objects.iter().map(Composed::kind).collect();
    for definitions in [pinned.to_vec()].into_iter().chain(beside.clone().map(|folder| vec![folder])) {
        let missing = validate(&tools, &definitions, &objects)?;
        undefined.retain(|kind| missing.contains(kind));
    }
    println!("{} objects; of no definition at hand: {undefined:?}", objects.len());
    ensure!(beside.is_none() || undefined.is_empty(), "no definition in {beside:?}: {undefined:?}");
    Ok(())
}

#[tokio::test]
async fn composed_values_are_as_the_chart_takes_them() -> Result<()> {
    let Some(tools) = Tools::with(["helm", "vcluster-chart", "vcluster-chart-0.33"]) else { return Ok(()) };
    let charts = Charts::new(&tools)?;
    let mut cases: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for composed in composed()?.into_iter().filter(|composed| composed.object["kind"] == "Release") {
        let for_provider = &composed.object["spec"]["forProvider"];
        if let Some(version) = for_provider["chart"]["version"].as_str().filter(|_| composed.is_vcluster()) {
            let key = (version.to_owned(), for_provider["values"].to_string());
            cases.entry(key).or_default().push(composed.case);
        }
    }
    ensure!(cases.len() > 10, "{} values: the golden files are gone", cases.len());
    let (mut wrong, mut without) = (Vec::new(), BTreeSet::new());
    for ((version, values), cases) in &cases {
        let chart = charts.of(version)?;
        let Some(chart) = chart else {
            without.insert(version);
            continue;
        };
        if let Err(error) = charts.template(&tools, chart, values) {
            wrong.push(format!("{version}, {}: {error}", cases.join(", ")));
        }
    }
    println!("{} values; no schema at hand for charts {without:?}", cases.len());
    ensure!(wrong.is_empty(), "refused by the chart:\n{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_wrong_object_or_value_would_be_noticed() -> Result<()> {
    let Some(tools) = Tools::with([
        "crossplane",
        "crossplane-crds",
        "provider-helm-crds",
        "helm",
        "vcluster-chart",
        "vcluster-chart-0.33",
    ]) else {
        return Ok(());
    };
    let release = json!({
        "apiVersion": "helm.crossplane.io/v1beta1",
        "kind": "Release",
        "metadata": {"name": "dev"},
        "spec": {"forProvider": {"chart": {"name": "c", "versoin": "1"}, "namespace": "n", "values": {}}},
    });
    let wrong = Composed { case: "wrong".into(), object: release };
    let error =
        validate(&tools, &[tools.path("provider-helm-crds")?.to_owned()], &[wrong]).err().context("taken")?;
    assert!(error.to_string().contains("versoin"), "{error}");

    let charts = Charts::new(&tools)?;
    let all = charts.all.clone();
    assert!(all.len() >= 2, "{all:?}");
    for chart in all.values() {
        let values = json!({"controlPlane": {"statefulSet": {"initContainer": []}}}).to_string();
        let error = charts.template(&tools, chart, &values).err().context("taken")?.to_string();
        assert!(error.contains("initContainer"), "{error}");
    }
    Ok(())
}

/// What the function answered in one golden case.
struct Composed {
    case: String,
    object: Value,
}

impl Composed {
    fn kind(&self) -> String {
        format!("{} {}", self.object["apiVersion"], self.object["kind"]).replace('"', "")
    }

    fn is_built_in(&self) -> bool {
        self.object["apiVersion"].as_str().is_some_and(|version| BUILT_IN.contains(&version))
    }

    /// Whether this release is one of the vcluster, not of a helper's chart.
    fn is_vcluster(&self) -> bool {
        self.object["spec"]["forProvider"]["chart"]["name"] == "vcluster"
    }
}

/// Everything composed in the function's golden files.
fn composed() -> Result<Vec<Composed>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../function/tests/golden");
    let mut all = Vec::new();
    for flavour in folders(&golden)? {
        for case in folders(&flavour)? {
            let response = read(&case.join("response.yaml"))?;
            let name = case.strip_prefix(&golden)?.display().to_string();
            for resource in
                response["resources"].as_object().into_iter().flat_map(|resources| resources.values())
            {
                let object = resource["resource"].clone();
                ensure!(object["kind"].is_string(), "{name}: an object without a kind: {object}");
                all.push(Composed { case: name.clone(), object });
            }
        }
    }
    Ok(all)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut folders: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}

/// More definitions and schemas, if there are.
fn schemas() -> Result<Option<PathBuf>> {
    if let Some(folder) = std::env::var_os(SCHEMAS).filter(|folder| !folder.is_empty()) {
        let folder = PathBuf::from(folder);
        ensure!(folder.is_dir(), "{SCHEMAS} is {}, which is no folder", folder.display());
        return Ok(Some(folder));
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/schemas");
    Ok(beside.is_dir().then_some(beside))
}

/// `crossplane resource validate` over all of them. Returns the kinds without a definition; fails with all that is wrong.
fn validate(tools: &Tools, definitions: &[PathBuf], objects: &[Composed]) -> Result<BTreeSet<String>> {
    let home = tempfile::tempdir()?;
    // It would fetch core's definitions as an image; here they are, as if it had.
    let image = "core:v2";
    let cache = home.path().join("cache");
    std::fs::create_dir(&cache)?;
    std::os::unix::fs::symlink(tools.path("crossplane-crds")?, cache.join(image.replace(':', "@")))?;
    let resources = home.path().join("resources.yaml");
    // JSON is YAML.
    let documents: Vec<String> = objects.iter().map(|composed| composed.object.to_string()).collect();
    std::fs::write(&resources, documents.join("\n---\n"))?;
    let definitions: Vec<String> = definitions.iter().map(|folder| folder.display().to_string()).collect();
    let output = tools
        .command("crossplane")?
        .args(["resource", "validate", &definitions.join(",")])
        .arg(&resources)
        .args(["--output=json", "--crossplane-image", image, "--cache-dir"])
        .arg(&cache)
        .env("HOME", home.path())
        .output()
        .context("cannot start crossplane resource validate")?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&output.stderr)))?;
    let results = report["resources"].as_array().context("a report without resources")?;
    ensure!(results.len() == objects.len(), "{} results for {} objects", results.len(), objects.len());
    let (mut wrong, mut missing) = (Vec::new(), BTreeSet::new());
    // In the order in which they were given.
    for (result, composed) in results.iter().zip(objects) {
        ensure!(result["kind"] == composed.object["kind"], "results come in another order than objects");
        match result["status"].as_str() {
            Some("valid") => {}
            Some("missingSchema") => drop(missing.insert(composed.kind())),
            _ => wrong.push(format!("{}: {} {}", composed.case, composed.kind(), result["errors"])),
        }
    }
    if !wrong.is_empty() {
        bail!("not as defined:\n{}", wrong.join("\n"));
    }
    Ok(missing)
}

/// The charts by their versions: two whole ones, and of others what has the schema and nothing else.
struct Charts {
    all: BTreeMap<[u64; 3], PathBuf>,
    folder: TempDir,
}

impl Charts {
    fn new(tools: &Tools) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut all = BTreeMap::new();
        if let Some(schemas) = schemas()? {
            for entry in std::fs::read_dir(schemas.join("vcluster-chart"))? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let version =
                    name.strip_prefix("values.schema-v").and_then(|rest| rest.strip_suffix(".json"));
                if let Some(version) = version {
                    let chart = folder.path().join(version);
                    std::fs::create_dir(&chart)?;
                    let about = format!("apiVersion: v2\nname: vcluster\nversion: {version}\n");
                    std::fs::write(chart.join("Chart.yaml"), about)?;
                    std::fs::write(chart.join("values.schema.json"), std::fs::read(&path)?)?;
                    all.insert(numbers(version)?, chart);
                }
            }
        }
        for (version, tool) in [([0, 33, 1], "vcluster-chart-0.33"), ([0, 36, 1], "vcluster-chart")] {
            all.insert(version, tools.path(tool)?.to_owned());
        }
        Ok(Self { all, folder })
    }

    /// The newest that is not newer than this version, else the oldest.
    fn of(&self, version: &str) -> Result<Option<&PathBuf>> {
        let version = numbers(version)?;
        if version < OLDEST_SCHEMA {
            return Ok(None);
        }
        let older = self.all.range(..=version).next_back();
        Ok(older.or_else(|| self.all.first_key_value()).map(|(_, chart)| chart))
    }

    /// Renders the chart, which begins with its schema.
    fn template(&self, tools: &Tools, chart: &Path, values: &str) -> Result<()> {
        let file = self.folder.path().join("values.json");
        std::fs::write(&file, values)?;
        let mut helm: Command = tools.command("helm")?;
        helm.args(["template", "dev"]).arg(chart).arg("--values").arg(&file).env("HOME", self.folder.path());
        let output = helm.output().context("cannot start helm")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The numbers of a version; what comes after them is left out.
fn numbers(version: &str) -> Result<[u64; 3]> {
    let plain = version.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<u64> =
        plain.split('.').map(str::parse).collect::<Result<_, _>>().context("no version")?;
    numbers.try_into().map_err(|_| anyhow::anyhow!("{version} is no version"))
}
