//! A **host cluster** with all that a Vcluster needs of it, as plain processes: no container, no kubelet, no registry.
//!
//! ```text
//!  claim ─► kube-apiserver ◄── crossplane core ──mTLS──► function
//!           (on kine)     ◄── provider-helm ──► chart server (the vcluster chart)
//! ```
//!
//! Objects are all that there is: pods are never started, and what is not composed any more goes, but nothing goes with
//! its owner (that is kube-controller-manager's). About 650 MB in all; ready in some 15 s.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api_server::ApiServer;
use crate::certificates::Authority;
use crate::chart_server::ChartServer;
use crate::core::{self, Core};
use crate::crossplane;
use crate::function::Function;
use crate::provider_helm::ProviderHelm;
use crate::toolbox::Tools;

/// What it is made of.
pub const TOOLS: [&str; 9] = [
    "kine",
    "kube-apiserver",
    "kubectl",
    "crossplane-core",
    "crossplane-crds",
    "provider-helm",
    "provider-helm-crds",
    "helm",
    "vcluster-chart",
];
/// Folder of core's certificate.
const CLIENT: &str = "client";
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Nothing that is waited for takes that long, unless it never comes.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running one. What is started last ends first.
pub struct HostCluster {
    provider: ProviderHelm,
    core: Core,
    function: Function,
    charts: ChartServer,
    api: ApiServer,
    certificates: TempDir,
}

impl HostCluster {
    /// Starts it all, with no definition of ours yet. `charts` are the versions of the vcluster chart in its repository.
    pub async fn start(tools: &Tools, charts: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new()?;
        let server = authority.write_server(&folder.path().join("server"))?;
        let client = authority.write_client(&folder.path().join(CLIENT))?;
        let api = ApiServer::start(tools, &[]).await?;
        let charts = ChartServer::start(tools, charts).await?;
        let function = Function::start_with_certificates(&server).await?;
        core::install(tools, &api).await?;
        let core = Core::start(tools, &api, &client).await?;
        let provider = ProviderHelm::start(tools, &api).await?;
        Ok(Self { provider, core, function, charts, api, certificates: folder })
    }

    /// Installs definition and composition of a flavour, its Input changed by the test, and waits until XRs are composed.
    pub async fn install(&self, flavour: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let folder = crossplane::compositions().join(flavour);
        let mut composition = crossplane::read(&folder.join("composition.yaml"))?;
        let step = composition.pointer_mut("/spec/pipeline/0").context("the composition has no step")?;
        let name = step["functionRef"]["name"].as_str().context("the step names no function")?.to_owned();
        step["input"]["chart"]["repository"] = json!(self.charts.repository());
        change(step);
        core::install_function(&self.api, &name, self.function.port())?;
        self.api.apply(&[crossplane::read(&folder.join("xrd.yaml"))?, composition])?;
        self.until("the composition is in force", async || {
            let revisions = self.api.kubectl(&["get", "compositionrevisions,xrd", "-o", "json"])?;
            let objects: Value = serde_json::from_str(&revisions)?;
            let objects = objects["items"].as_array().cloned().unwrap_or_default();
            let is_ready = |object: &Value| match object["kind"].as_str() {
                Some("CompositionRevision") => has(object, "ValidPipeline", "True"),
                _ => has(object, "Established", "True") && !has(object, "Offered", "False"),
            };
            Ok((objects.len() > 1 && objects.iter().all(is_ready)).then_some(()))
        })
        .await
    }

    /// Applies what is in a file, as a user does.
    pub fn apply_file(&self, path: &Path) -> Result<()> {
        self.api.kubectl(&["apply", "-f", &path.to_string_lossy()]).map(drop)
    }

    /// Core ends and starts anew, knowing nothing of what it did.
    pub async fn restart_core(&mut self, tools: &Tools) -> Result<()> {
        self.core.terminate()?;
        self.core = Core::start(tools, &self.api, &self.certificates.path().join(CLIENT)).await?;
        Ok(())
    }

    /// Waits until `look` finds what it looks for. Fails with what our function and both others wrote last.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        let begin = Instant::now();
        loop {
            let found = look().await;
            if let Ok(Some(found)) = found {
                return Ok(found);
            }
            if begin.elapsed() > PATIENCE {
                let logs = [
                    ("core", self.core.process()),
                    ("provider-helm", self.provider.process()),
                    ("function", self.function.process()),
                ];
                let logs = logs.map(|(name, process)| format!("--- {name}\n{}", process.tail()));
                let error = found.err().map_or_else(String::new, |error| format!(" ({error:#})"));
                bail!("not within {PATIENCE:?}: {what}{error}\n{}", logs.join("\n"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until an object is there and is as it should be.
    pub async fn until_object(
        &self,
        what: &str,
        (kind, namespace, name): (&str, &str, &str),
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = None;
        let found = self.until(what, async || {
            last = self.api.get(kind, namespace, name)?;
            Ok(last.clone().filter(|object| is_so(object)))
        });
        let found = found.await;
        found.with_context(|| format!("{kind} {namespace}/{name} is {}", last.unwrap_or_default()))
    }

    /// The API server.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The function.
    pub fn function(&self) -> &Function {
        &self.function
    }
}

/// Whether an object has a condition in this state.
pub fn has(object: &Value, condition: &str, status: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == condition && one["status"] == status))
}
