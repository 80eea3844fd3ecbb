//! **Crossplane core** as a plain process: no image, no pod, no package manager.
//!
//! - `PACKAGE_RUNTIME=External` keeps it from starting packages, so nobody but us says where a function is.
//! - A function is a `FunctionRevision` that is paused, so that no image is looked for, with its endpoint in the status.
//! - Webhooks are off: they would need certificates that the API server trusts. `Usage`s are therefore not enforced.
//! - Nothing collects garbage: that is kube-controller-manager's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::api_server::ApiServer;
use crate::certificates::SERVER_NAME;
use crate::metrics;
use crate::port;
use crate::process::Process;
use crate::toolbox::Tools;

/// Where Crossplane keeps its own.
pub const NAMESPACE: &str = "crossplane-system";

/// A running core.
pub struct Core {
    process: Process,
    // Its cache.
    _folder: TempDir,
}

impl Core {
    /// Starts it; `client` is the folder with its certificate. Needs the tool `crossplane-core`.
    pub async fn start(tools: &Tools, api: &ApiServer, client: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (metrics, health) = (port::free()?, port::free()?);
        let mut command = tools.command("crossplane-core")?;
        command
            .args(["core", "start", "--debug", "--poll-interval=30s"])
            .arg(format!("--metrics-port={metrics}"))
            .arg(format!("--health-probe-port={health}"))
            .arg("--xpkg-cache-dir")
            .arg(folder.path())
            .arg("--tls-client-certs-dir")
            .arg(client)
            .env("PACKAGE_RUNTIME", "External")
            .env("ENABLE_WEBHOOKS", "false")
            .env("POD_NAMESPACE", NAMESPACE)
            .env("KUBECONFIG", api.kubeconfig(crate::api_server::ADMINISTRATOR));
        let mut process = Process::start("crossplane core", &mut command)?;
        process
            .until("ready", Duration::from_mins(1), async || {
                metrics::page(health, "/readyz").await.is_ok_and(|(status, _)| status == 200)
            })
            .await?;
        Ok(Self { process, _folder: folder })
    }

    /// SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        self.process.terminate()
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Installs the definitions. Needs the tool `crossplane-crds`.
pub async fn install(tools: &Tools, api: &ApiServer) -> Result<()> {
    api.define(tools.path("crossplane-crds")?).await?;
    api.apply(&[namespace(NAMESPACE)])
}

/// Makes a function known that serves on this port of the loopback.
pub fn install_function(api: &ApiServer, name: &str, port: u16) -> Result<()> {
    let revision = format!("{name}-1");
    api.apply(&[json!({
        "apiVersion": "pkg.crossplane.io/v1",
        "kind": "FunctionRevision",
        "metadata": {
            "name": revision,
            "labels": {"pkg.crossplane.io/package": name},
            "annotations": {"crossplane.io/paused": "true"},
        },
        "spec": {"desiredState": "Active", "image": "example.org/function:v0", "revision": 1},
    })])?;
    let endpoint = format!("dns:///{SERVER_NAME}:{port}");
    let status = json!({"status": {"endpoint": endpoint, "capabilities": ["composition"]}});
    let patch = ["patch", "functionrevision", &revision, "--subresource=status", "--type=merge", "-p"];
    api.kubectl(&[&patch[..], &[&status.to_string()]].concat()).map(drop).context("no endpoint was set")
}

/// A namespace.
pub fn namespace(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}
