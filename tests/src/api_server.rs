//! A real **kube-apiserver** on kine, with one administrator and as many plain users as a test names. No controllers and
//! no kubelet: objects stay as they are written.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kine::Kine;
use crate::port;
use crate::process::Process;
use crate::toolbox::Tools;

/// The user who may do everything.
pub const ADMINISTRATOR: &str = "admin";

/// A running API server. Needs the tools `kine`, `kube-apiserver` and `kubectl`.
pub struct ApiServer {
    home: Home,
    process: Process,
    // Ended after the server, which writes to it.
    kine: Kine,
}

/// What stays while it is down: keys, certificates, users, address.
struct Home {
    folder: TempDir,
    kubectl: PathBuf,
    port: u16,
}

/// One that is down.
pub struct Stopped(Home);

impl ApiServer {
    /// Starts it on a new database and waits until it is ready. A user's token is its name.
    pub async fn start(tools: &Tools, users: &[&str]) -> Result<Self> {
        let down = Stopped(Home::new(tools, users)?);
        let database = down.0.folder.path().join("state.db");
        down.start(tools, &database, &[]).await
    }

    /// The same on this database, with no plain users.
    pub async fn start_on(tools: &Tools, database: &Path) -> Result<Self> {
        Stopped(Home::new(tools, &[])?).start(tools, database, &[]).await
    }

    /// SIGKILL, to kine first.
    pub fn kill(self) -> Result<Stopped> {
        self.kine.kill()?;
        self.process.kill()?;
        Ok(Stopped(self.home))
    }

    /// SIGTERM to both at once, as to the processes of a pod.
    pub fn terminate(&self) -> Result<()> {
        self.kine.process().terminate()?;
        self.process.terminate()
    }

    /// Waits until kine has closed the database after a [`Self::terminate`]. The server, which waits for its store in
    /// vain, is killed then.
    pub async fn ended(self) -> Result<Stopped> {
        let status = self.kine.ended().await?;
        ensure!(status.success(), "kine ended with {status}");
        self.process.kill()?;
        Ok(Stopped(self.home))
    }

    /// Its kine.
    pub fn kine(&self) -> &Kine {
        &self.kine
    }

    /// A client of the administrator.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(ADMINISTRATOR))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// The file by which a user gets in.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.home.kubeconfig(user)
    }

    /// Creates or changes objects, as the administrator.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let path = self.home.folder.path().join("objects.json");
        // JSON is YAML.
        let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(&path, documents.join("\n---\n"))?;
        self.kubectl(&["apply", "-f", &path.to_string_lossy()]).map(drop)
    }

    /// Installs the definitions in a folder, and waits until they are served.
    pub async fn define(&self, folder: &Path) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "-f", &folder.to_string_lossy()])?;
        let begin = Instant::now();
        // kubectl gives up at once on one that has no conditions yet.
        while let Err(error) = self.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]) {
            ensure!(begin.elapsed() < Duration::from_mins(1), "{error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// An object, as the administrator sees it; none if it is not there.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found =
            self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found"])?;
        if found.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&found)?)) }
    }

    /// What kubectl prints for the administrator.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.home.kubectl().args(args).output().context("cannot start kubectl")?;
        ensure!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Home {
    fn new(tools: &Tools, users: &[&str]) -> Result<Self> {
        let kubectl = tools.path("kubectl")?.to_owned();
        let home = Self { folder: tempfile::tempdir()?, kubectl, port: port::free()? };
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(home.folder.path().join("sa.key"), key.serialize_pem())?;
        std::fs::write(home.folder.path().join("sa.pub"), key.public_key_pem())?;
        let administrator = format!("{ADMINISTRATOR},{ADMINISTRATOR},{ADMINISTRATOR},system:masters\n");
        let tokens: String =
            users.iter().map(|user| [*user; 3].join(",") + "\n").chain([administrator]).collect();
        std::fs::write(home.folder.path().join("tokens.csv"), tokens)?;
        for user in users.iter().chain([&ADMINISTRATOR]) {
            home.write_kubeconfig(user)?;
        }
        Ok(home)
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.kubeconfig"))
    }

    /// kubectl of the administrator.
    fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig(ADMINISTRATOR));
        command
    }

    fn is_ready(&self) -> bool {
        let ready = self
            .kubectl()
            .args(["get", "--raw", "/readyz"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ready.is_ok_and(|status| status.success())
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

impl Stopped {
    /// Starts it on a database and waits until it is ready. All that clients know of it is as before.
    pub async fn start(self, tools: &Tools, database: &Path, flags: &[&str]) -> Result<ApiServer> {
        let Self(home) = self;
        let kine = Kine::start(tools, database, None).await?;
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
            .arg(format!("--secure-port={}", home.port))
            .args(flags)
            .current_dir(home.folder.path());
        let mut process = Process::start("kube-apiserver", &mut command)?;
        process.until("ready", Duration::from_mins(2), async || home.is_ready()).await?;
        Ok(ApiServer { home, process, kine })
    }
}

fn write(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, value.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
