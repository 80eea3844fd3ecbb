//! A real **kube-apiserver** on kine, with one administrator and as many plain users as a test names. No controllers and
//! no kubelet: objects stay as they are written.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kine::Kine;
use crate::port;
use crate::process::Process;
use crate::toolbox::Tools;

const ADMINISTRATOR: &str = "admin";

/// A running API server. Needs the tools `kine`, `kube-apiserver` and `kubectl`.
pub struct ApiServer {
    folder: TempDir,
    kubectl: PathBuf,
    port: u16,
    process: Process,
    // Ended after the server, which writes to it.
    _kine: Kine,
}

impl ApiServer {
    /// Starts it and waits until it is ready. A user's token is its name.
    pub async fn start(tools: &Tools, users: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kine = Kine::start(tools, &folder.path().join("state.db"), None).await?;
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(folder.path().join("sa.key"), key.serialize_pem())?;
        std::fs::write(folder.path().join("sa.pub"), key.public_key_pem())?;
        let administrator = format!("{ADMINISTRATOR},{ADMINISTRATOR},{ADMINISTRATOR},system:masters\n");
        let tokens: String =
            users.iter().map(|user| [*user; 3].join(",") + "\n").chain([administrator]).collect();
        std::fs::write(folder.path().join("tokens.csv"), tokens)?;
        let port = port::free()?;
        let mut command = tools.command("kube-apiserver")?;
        command
            .args([
                "--bind-address=127.0.0.1",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
            ])
            .args([
                "--disable-admission-plugins=ServiceAccount",
                "--cert-dir=certs",
                "--token-auth-file=tokens.csv",
            ])
            .args([
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-key-file=sa.pub",
            ])
            .arg("--service-account-signing-key-file=sa.key")
            .arg(format!("--etcd-servers={}", kine.endpoint()))
            .arg(format!("--secure-port={port}"))
            .current_dir(folder.path());
        let process = Process::start("kube-apiserver", &mut command)?;
        let kubectl = tools.path("kubectl")?.to_owned();
        let mut server = Self { folder, kubectl, port, process, _kine: kine };
        for user in users.iter().chain([&ADMINISTRATOR]) {
            server.write_kubeconfig(user)?;
        }
        let (kubectl, kubeconfig) = (server.kubectl.clone(), server.kubeconfig(ADMINISTRATOR));
        server
            .process
            .until("ready", Duration::from_mins(1), async || {
                let ready = Command::new(&kubectl)
                    .arg("--kubeconfig")
                    .arg(&kubeconfig)
                    .args(["get", "--raw", "/readyz"])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                ready.is_ok_and(|status| status.success())
            })
            .await?;
        Ok(server)
    }

    /// The file by which a user gets in.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.kubeconfig"))
    }

    /// Creates or changes objects, as the administrator.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let path = self.folder.path().join("objects.json");
        // JSON is YAML.
        let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(&path, documents.join("\n---\n"))?;
        self.kubectl(&["apply", "-f", &path.to_string_lossy()]).map(drop)
    }

    /// An object, as the administrator sees it; none if it is not there.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found =
            self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found"])?;
        if found.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&found)?)) }
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.kubeconfig(ADMINISTRATOR))
            .args(args)
            .output()
            .context("cannot start kubectl")?;
        ensure!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn write_kubeconfig(&self, user: &str) -> Result<()> {
        let server = format!("https://127.0.0.1:{}", self.port);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "u", "user": {"token": user}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        write(&self.kubeconfig(user), &config)
    }
}

fn write(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, value.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
