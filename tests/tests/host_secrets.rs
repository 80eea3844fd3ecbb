//! **Token and certificates** come back with a restore: the files on the volume, and the Secrets of the host namespace that
//! vcluster prefers to them, on a real kube-apiserver with the rights that the chart's Role gives.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use vcluster_backup_tests::agent::{self, Finished};
use vcluster_backup_tests::api_server::ApiServer;
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::s3::{ACCESS_KEY, S3, SECRET_KEY};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster::{self, base64, secret_text};

const NAMESPACE: &str = "vcluster-team-a-dev";
/// With the Role of the chart (the same from 0.15 to 0.36); one that may look at Secrets alone; one without rights.
const POD: &str = "vc-dev";
const READER: &str = "reader";
const NOBODY: &str = "nobody";

/// A vcluster of one distro: where its database and its files are, relative to its volume.
struct Distro {
    database: &'static str,
    include: &'static str,
    files: &'static [&'static str],
}

const K8S: Distro = Distro {
    database: "state.db",
    include: "pki",
    files: &["pki/ca.crt", "pki/ca.key", "pki/sa.key", "pki/sa.pub", "pki/admin.conf", "pki/etcd/ca.key"],
};
const K3S: Distro =
    Distro { database: "server/db/state.db", include: "server/token", files: &["server/token"] };

struct Site<'a> {
    api: &'a ApiServer,
    s3: S3,
    volume: TempDir,
    distro: &'a Distro,
}

impl<'a> Site<'a> {
    /// A vcluster `dev` with a backup of database and files.
    async fn backed_up(api: &'a ApiServer, distro: &'a Distro) -> Result<Self> {
        let site = Self { api, s3: S3::start("backups").await?, volume: tempfile::tempdir()?, distro };
        std::fs::create_dir_all(site.database().parent().context("a path without folder")?)?;
        kine_shaped::create(&site.database(), 10, 100)?;
        for name in distro.files {
            let path = site.volume.path().join(name);
            std::fs::create_dir_all(path.parent().context("a path without folder")?)?;
            std::fs::write(path, content(name))?;
        }
        std::fs::write(site.volume.path().join("key.txt"), vcluster::IDENTITY)?;
        let mut run = site.command("run", "dev", POD)?;
        let sidecar = Process::start("sidecar", run.args(["--recipient", vcluster::RECIPIENT]))?;
        let begin = std::time::Instant::now();
        while !site.s3.keys("backups")?.iter().any(|key| key.contains("/files/")) {
            ensure!(begin.elapsed() < Duration::from_secs(30), "no files shipped: {}", sidecar.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ensure!(sidecar.stop(Duration::from_secs(10)).await?.success(), "the sidecar failed");
        Ok(site)
    }

    fn database(&self) -> PathBuf {
        self.volume.path().join(self.distro.database)
    }

    fn command(&self, verb: &str, release: &str, user: &str) -> Result<Command> {
        let mut command = agent::command([verb])?;
        command
            .env("ENDPOINT", self.s3.endpoint())
            .env("BUCKET_NAME", "backups")
            .env("ACCESS_KEY", ACCESS_KEY)
            .env("SECRET_KEY", SECRET_KEY)
            .env("BACKUP_FILE", self.database())
            .env("VCB_OWNER", format!("{NAMESPACE}/{release}/{}", vcluster::UID))
            .env("KUBECONFIG", self.api.kubeconfig(user))
            .arg("--include")
            .arg(self.volume.path().join(self.distro.include))
            .current_dir(self.volume.path());
        Ok(command)
    }

    /// The volume is lost, and `ensure` of a release runs with a user's rights.
    async fn lost_and_ensured(&self, release: &str, user: &str) -> Result<Finished> {
        for gone in [self.database(), self.volume.path().join(self.distro.include)] {
            let _ = std::fs::remove_dir_all(&gone);
            let _ = std::fs::remove_file(&gone);
        }
        // By id: a release of another name may restore it, too.
        std::fs::write(
            self.volume.path().join("config.yaml"),
            format!("restore: {{id: {release}, latest: true}}\n"),
        )?;
        let _ = std::fs::remove_file(format!("{}.restored", self.database().display()));
        let mut command = self.command("ensure", release, user)?;
        command.args(["--identity-file", "key.txt", "--config", "config.yaml"]);
        let finished = agent::finish(command).await?;
        for name in self.distro.files {
            let told = format!("{}{}", finished.text(), finished.stderr);
            ensure!(!told.contains(&content(name)), "the content of {name} was told: {told}");
        }
        Ok(finished)
    }

    fn restored(&self) -> Result<()> {
        ensure!(kine_shaped::rows(&self.database())?.len() >= 10, "rows are missing");
        for name in self.distro.files {
            let path = self.volume.path().join(name);
            ensure!(std::fs::read_to_string(&path)? == content(name), "{} is another", path.display());
        }
        Ok(())
    }
}

fn content(name: &str) -> String {
    if name == "server/token" { "K10c0ffee::server:s3cret-word\n".to_owned() } else { format!("is {name}") }
}

fn role(user: &str, rules: &Value) -> [Value; 2] {
    let metadata = json!({"name": user, "namespace": NAMESPACE});
    let group = "rbac.authorization.k8s.io";
    [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }),
    ]
}

async fn server(tools: &Tools) -> Result<ApiServer> {
    let api = ApiServer::start(tools, &[POD, READER, NOBODY]).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let charts = json!([{
        "apiGroups": [""],
        "resources": ["configmaps", "secrets", "services", "pods", "pods/attach", "pods/portforward", "pods/exec",
            "persistentvolumeclaims"],
        "verbs": ["create", "delete", "patch", "update", "get", "list", "watch"],
    }]);
    let readers = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let mut objects = vec![namespace];
    objects.extend(role(POD, &charts));
    objects.extend(role(READER, &readers));
    api.apply(&objects)?;
    Ok(api)
}

fn secret(api: &ApiServer, name: &str) -> Result<Value> {
    api.get("secret", NAMESPACE, name)?.with_context(|| format!("no Secret {name}"))
}

fn foreign(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kept": "yes"}},
    })
}

#[tokio::test]
async fn the_certificates_of_the_k8s_distro_come_back() -> Result<()> {
    let Some(tools) = Tools::with(["kine", "kube-apiserver", "kubectl"]) else { return Ok(()) };
    let api = server(&tools).await?;
    let site = Site::backed_up(&api, &K8S).await?;

    // The namespace was lost: the Secret is made as vcluster makes it.
    let told = site.lost_and_ensured("dev", POD).await?.ended(0)?.text();
    ensure!(told.contains("dev-certs was made of them"), "{told}");
    site.restored()?;
    let made = secret(&api, "dev-certs")?;
    let keys: Vec<&String> = made["data"].as_object().context("no data")?.keys().collect();
    assert_eq!(keys, ["admin.conf", "ca.crt", "ca.key", "etcd-ca.key", "sa.key", "sa.pub"]);
    assert_eq!(secret_text(&made, "etcd-ca.key")?, content("pki/etcd/ca.key"));
    assert_eq!(made["type"], "Opaque");
    assert_eq!(made["metadata"]["labels"], json!({"app": "vcluster", "vcluster-name": "dev"}));

    // Equal: untouched.
    let told = site.lost_and_ensured("dev", POD).await?.ended(0)?.text();
    ensure!(!told.contains("dev-certs"), "{told}");
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&secret(&api, "dev-certs")?), version(&made));

    // A clone into a cluster that had made its own: replaced, and nothing of the other PKI is left among it.
    let other = json!({"ca.key": base64("b"), "sa.key": base64("b"), "apiserver.key": base64("b"), "mine": base64("b")});
    api.apply(&[foreign("clone-certs", &other)])?;
    let told = site.lost_and_ensured("clone", POD).await?.ended(0)?.text();
    ensure!(told.contains("clone-certs held others and was made to match"), "{told}");
    let replaced = secret(&api, "clone-certs")?;
    let keys: Vec<&String> = replaced["data"].as_object().context("no data")?.keys().collect();
    assert_eq!(keys, ["admin.conf", "ca.crt", "ca.key", "etcd-ca.key", "mine", "sa.key", "sa.pub"]);
    assert_eq!(secret_text(&replaced, "ca.key")?, content("pki/ca.key"));
    assert_eq!(replaced["metadata"]["labels"]["kept"], "yes");

    // Refused, and nothing there to bury the files: vcluster makes it itself.
    let told = site.lost_and_ensured("poor", READER).await?.ended(0)?;
    ensure!(told.text().contains("poor-certs is missing and could not be made (403 Forbidden)"), "{told:?}");
    ensure!(told.stderr.contains("could not be made"), "{told:?}");
    site.restored()?;

    // Refused, with another's there or perhaps there: starting would bury what was restored.
    api.apply(&[foreign("poor-certs", &other)])?;
    for (user, step) in [(READER, "changed"), (NOBODY, "looked at")] {
        let told = site.lost_and_ensured("poor", user).await?.ended(1)?.stderr;
        ensure!(told.contains(&format!("poor-certs cannot be {step} (403 Forbidden)")), "{told}");
        ensure!(!site.database().exists(), "kine would start");
    }
    // With the rights the next start does it all.
    site.lost_and_ensured("poor", POD).await?.ended(0)?;
    site.restored()?;
    assert_eq!(secret_text(&secret(&api, "poor-certs")?, "sa.key")?, content("pki/sa.key"));
    Ok(())
}

#[tokio::test]
async fn the_token_of_the_k3s_distro_comes_back() -> Result<()> {
    let Some(tools) = Tools::with(["kine", "kube-apiserver", "kubectl"]) else { return Ok(()) };
    let api = server(&tools).await?;
    let site = Site::backed_up(&api, &K3S).await?;

    let told = site.lost_and_ensured("dev", POD).await?.ended(0)?.text();
    ensure!(told.contains("vc-k3s-dev was made of them"), "{told}");
    site.restored()?;
    let made = secret(&api, "vc-k3s-dev")?;
    assert_eq!(made["data"], json!({"token": base64("s3cret-word")}));

    // As vcluster writes it from the file, when it finds no Secret: equal, too.
    api.apply(&[foreign("vc-k3s-old", &json!({"token": base64(&content("server/token"))}))])?;
    let told = site.lost_and_ensured("old", POD).await?.ended(0)?.text();
    ensure!(!told.contains("vc-k3s-old"), "{told}");

    // What vcluster had drawn for the new cluster does not open the old database.
    api.apply(&[foreign("vc-k3s-new", &json!({"token": base64("drawn")}))])?;
    site.lost_and_ensured("new", POD).await?.ended(0)?;
    assert_eq!(secret_text(&secret(&api, "vc-k3s-new")?, "token")?, "s3cret-word");
    site.restored()
}

/// Nothing is asked of the API when no such files come back.
#[tokio::test]
async fn other_files_make_no_secrets() -> Result<()> {
    let Some(tools) = Tools::with(["kine", "kube-apiserver", "kubectl"]) else { return Ok(()) };
    let api = server(&tools).await?;
    let other = Distro { database: "state.db", include: "notes", files: &["notes/ca.key"] };
    let site = Site::backed_up(&api, &other).await?;
    site.lost_and_ensured("dev", NOBODY).await?.ended(0)?;
    site.restored()?;
    ensure!(api.get("secret", NAMESPACE, "dev-certs")?.is_none(), "a Secret of nothing");
    ensure!(Path::new(&site.database()).exists(), "no database");
    Ok(())
}
