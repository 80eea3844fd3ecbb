//! What the agent tells the **host cluster**, on a real kube-apiserver, with no more rights than vcluster's own Role gives
//! its pod.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vcluster_backup_tests::agent;
use vcluster_backup_tests::api_server::ApiServer;
use vcluster_backup_tests::kine_shaped::{self, Load};
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::s3::{ACCESS_KEY, S3, SECRET_KEY};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster;

const NAMESPACE: &str = "vcluster-team-a-dev";
const POD: &str = "vc-dev";

/// Namespace and Role as the vcluster chart makes them, of which the agent needs ConfigMaps alone.
fn surroundings() -> [Value; 3] {
    let metadata = json!({"name": POD, "namespace": NAMESPACE});
    let role = "rbac.authorization.k8s.io";
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": role, "kind": "Role", "name": POD},
            "subjects": [{"apiGroup": role, "kind": "User", "name": POD}],
        }),
    ]
}

async fn until(what: &str, api: &ApiServer, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let begin = Instant::now();
    loop {
        let found = api.get("configmap", NAMESPACE, "dev-backup-status")?;
        if let Some(data) = found.as_ref().map(|object| &object["data"])
            && holds(data)
        {
            return Ok(data.clone());
        }
        ensure!(begin.elapsed() < Duration::from_secs(40), "not {what} within 40 s: {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_function_learns_how_the_agent_is_doing() -> Result<()> {
    let Some(tools) = Tools::with(["kine", "kube-apiserver", "kubectl"]) else { return Ok(()) };
    let api = ApiServer::start(&tools, &[POD]).await?;
    api.apply(&surroundings())?;
    let (s3, folder) = (S3::start("backups").await?, tempfile::tempdir()?);
    let database = folder.path().join("state.db");
    kine_shaped::create(&database, 50, 100)?;
    let command = |verb: &[&str]| -> Result<std::process::Command> {
        let mut command = agent::command(verb)?;
        command
            .env("ENDPOINT", s3.endpoint())
            .env("BUCKET_NAME", "backups")
            .env("ACCESS_KEY", ACCESS_KEY)
            .env("SECRET_KEY", SECRET_KEY)
            .env("BACKUP_FILE", &database)
            .env("VCB_OWNER", format!("{NAMESPACE}/dev/{}", vcluster::UID))
            .env("KUBECONFIG", api.kubeconfig(POD))
            .current_dir(folder.path());
        Ok(command)
    };

    // It replicates, and says so.
    let sidecar = Process::start("sidecar", &mut command(&["run", "--recipient", vcluster::RECIPIENT])?)?;
    let told = until("replicating", &api, |data| data["phase"] == "Replicating").await?;
    for field in ["lastSuccess", "revision", "restorableFrom", "sizeBytes"] {
        ensure!(told[field].as_str().is_some_and(|text| !text.is_empty()), "no {field} in {told}");
    }
    assert_eq!(told["revision"], "51");
    let load = Load::start(&database, 50, 100, false);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let rows = load.stop()?;
    ensure!(sidecar.stop(Duration::from_secs(10)).await?.success(), "the sidecar failed");

    // The volume is lost: the init container asks for the key, and goes on when it comes.
    std::fs::remove_file(&database)?;
    let mut init = Process::start("ensure", &mut command(&["ensure", "--identity-file", "key.txt"])?)?;
    until("awaiting the key", &api, |data| data["phase"] == "AwaitingKey").await?;
    std::fs::write(folder.path().join("key.txt"), vcluster::IDENTITY)?;
    ensure!(init.wait(Duration::from_secs(30)).await?.success(), "{}", init.log());
    until("restored", &api, |data| data["phase"] == "Restored").await?;
    let restored = kine_shaped::rows(&database)?;
    for (revision, row) in &rows {
        ensure!(restored.get(revision) == Some(row), "revision {revision} is missing");
    }

    // A restore that was asked for is told by its id, and the id stays.
    std::fs::write(folder.path().join("config.yaml"), "restore: {id: oops, latest: true}\n")?;
    let asked = ["ensure", "--identity-file", "key.txt", "--config", "config.yaml"];
    agent::finish(command(&asked)?).await?.ended(0)?;
    until("told", &api, |data| data["restoredId"] == "oops").await?;
    let sidecar = Process::start("sidecar", &mut command(&["run", "--recipient", vcluster::RECIPIENT])?)?;
    until("replicating again", &api, |data| data["phase"] == "Replicating" && data["restoredId"] == "oops")
        .await?;
    ensure!(sidecar.stop(Duration::from_secs(10)).await?.success(), "the sidecar failed");

    // Pins and the last drill are told too.
    agent::finish(command(&["verify", "--identity-file", "key.txt"])?).await?.ended(0)?;
    std::fs::write(folder.path().join("config.yaml"), "pins: []\n")?;
    let run = ["run", "--recipient", vcluster::RECIPIENT, "--config", "config.yaml"];
    let sidecar = Process::start("sidecar", &mut command(&run)?)?;
    let data = until("verified", &api, |data| data["lastVerifyResult"] == "ok").await?;
    ensure!(data["lastVerify"].as_str().is_some_and(|time| time.ends_with('Z')), "{data}");
    assert_eq!(data["pins"], "{}");
    let begin = Instant::now();
    std::fs::write(folder.path().join("config.yaml"), "pins: [{name: before-0.37.0}]\n")?;
    let data = until("pinned", &api, |data| data["pins"] != "{}").await?;
    println!("a pin is told {:.1} s after the file changed: {}", begin.elapsed().as_secs_f64(), data["pins"]);
    ensure!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    drop(sidecar);
    Ok(())
}

/// Without the right, or without an API server, the backup goes on all the same.
#[tokio::test]
async fn nothing_fails_with_the_telling() -> Result<()> {
    let Some(tools) = Tools::with(["kine", "kube-apiserver", "kubectl"]) else { return Ok(()) };
    let api = ApiServer::start(&tools, &["nobody"]).await?;
    let (s3, folder) = (S3::start("backups").await?, tempfile::tempdir()?);
    kine_shaped::create(&folder.path().join("state.db"), 50, 100)?;
    let mut command = agent::command(["run", "--database", "state.db", "--recipient", vcluster::RECIPIENT])?;
    command
        .args(["--bucket", "backups", "--endpoint", &s3.endpoint(), "--owner", "vcluster-team-a-dev/dev"])
        .env("ACCESS_KEY", ACCESS_KEY)
        .env("SECRET_KEY", SECRET_KEY)
        .env("KUBECONFIG", api.kubeconfig("nobody"))
        .current_dir(folder.path());
    let mut sidecar = Process::start("sidecar", &mut command)?;
    let log = sidecar.log_file();
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    sidecar
        .until("refused and replicating", Duration::from_secs(30), async || {
            told().contains("Role must allow") && told().contains("snapshot published")
        })
        .await?;
    sidecar.terminate()?;
    let status = sidecar.wait(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}");
    let forbidden = told().lines().filter(|line| line.contains("Role must allow")).count();
    assert_eq!(forbidden, 1, "told more than once");
    s3.keys("backups")?.first().context("nothing was shipped").map(drop)
}
