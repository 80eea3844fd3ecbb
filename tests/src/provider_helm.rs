//! **provider-helm** as a plain process: installs the composed `Release`s into the cluster that they live in.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api_server::{ADMINISTRATOR, ApiServer};
use crate::core::NAMESPACE;
use crate::process::Process;
use crate::toolbox::Tools;
use crate::vcluster::base64;

/// A running provider.
pub struct ProviderHelm {
    process: Process,
    // Its home, and the charts that it has fetched.
    _folder: TempDir,
}

impl ProviderHelm {
    /// Installs the definitions, a configuration `default` for Releases of either scope, and starts it. Needs the tools
    /// `provider-helm` and `provider-helm-crds`.
    pub async fn start(tools: &Tools, api: &ApiServer) -> Result<Self> {
        api.define(tools.path("provider-helm-crds")?).await?;
        let kubeconfig = std::fs::read_to_string(api.kubeconfig(ADMINISTRATOR)).context("no kubeconfig")?;
        api.apply(&[
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "kubeconfig", "namespace": NAMESPACE},
                "data": {"kubeconfig": base64(&kubeconfig)},
            }),
            configuration("helm.crossplane.io", "ProviderConfig"),
            configuration("helm.m.crossplane.io", "ClusterProviderConfig"),
        ])?;
        let folder = tempfile::tempdir()?;
        let mut command = tools.command("provider-helm")?;
        command
            .args(["--debug", "--poll=10s"])
            .env("KUBECONFIG", api.kubeconfig(ADMINISTRATOR))
            .env("HOME", folder.path())
            .current_dir(folder.path());
        // It has no port that tells when it is ready; who waits for a Release waits for it too.
        Ok(Self { process: Process::start("provider-helm", &mut command)?, _folder: folder })
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn configuration(group: &str, kind: &str) -> Value {
    json!({
        "apiVersion": format!("{group}/v1beta1"),
        "kind": kind,
        "metadata": {"name": "default"},
        "spec": {
            "credentials": {
                "source": "Secret",
                "secretRef": {"namespace": NAMESPACE, "name": "kubeconfig", "key": "kubeconfig"},
            },
        },
    })
}
