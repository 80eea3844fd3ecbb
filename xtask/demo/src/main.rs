//! The main job, told as a story: a claimed virtual cluster with its backup, from the claim to the restore, with no
//! server and no cluster. Run it with `cargo xtask demo`, which builds the programs first.

#![forbid(unsafe_code)]

mod cluster;
mod story;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use function_vcluster_backup::names::key;
use serde_json::{Value, json};
use vcluster_backup_tests::crossplane::{compositions, read};
use vcluster_backup_tests::function::Function;
use vcluster_backup_tests::kine_shaped::{self, Load, Row};
use vcluster_backup_tests::pod::Pod;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::s3::S3;
use vcluster_backup_tests::{agent, vcluster};

use cluster::{Cluster, Reconciled};
use story::{Lasting, Story, seen};

/// Writes a second: a busy control plane.
const RATE: u32 = 200;
/// How long the control plane lives before its disk is lost.
const LIFE: Duration = Duration::from_secs(6);

#[tokio::main]
async fn main() -> ExitCode {
    match tell().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tell() -> Result<()> {
    let mut story = Story::begin("A virtual cluster is claimed, lives, loses its disk, and comes back.");
    let folder = tempfile::tempdir().context("cannot make a folder for the demo")?;

    story.step("The platform: an S3 server in this process, and the composition function.");
    let xr = claimed()?;
    let function = Function::start().await?;
    let mut input = composition_input()?;
    // The bucket has the name that the function will give it.
    let bucket = bucket_of(&xr)?;
    let s3 = S3::start(&bucket).await?;
    input["storage"]["endpoint"] = json!(s3.endpoint());
    seen(&format!("function on 127.0.0.1:{}, S3 on {}", function.port(), s3.endpoint()));

    story.step("A user claims a Vcluster with backup; the function composes it, call by call.");
    let mut cluster = Cluster::new(function.port(), xr, input).await?;
    let reconciled = settle(&mut cluster).await?;
    for condition in ["CredentialsReady", "KeySealed", "StorageReady", "ClusterReady"] {
        Cluster::expect(&reconciled, condition)?;
        seen(&format!("{condition} is True"));
    }
    ensure!(
        cluster.composed(key::BUCKET)?["metadata"]["name"] == bucket.as_str(),
        "another bucket was composed"
    );

    story.step(&format!("The pod: kine-shaped load of {RATE} writes a second, and the rendered sidecar."));
    let pod = Pod::new(&folder.path().join("pod"), cluster.composed(key::CLUSTER)?)?;
    mount(&pod, &cluster)?;
    let mut init = pod.command("initContainers", "vcluster-backup-ensure")?;
    seen(&sentence(&finish(&mut init)?));
    kine_shaped::create(&pod.database(), 2000, 1500)?;
    let before = kine_shaped::rows(&pod.database())?;
    let mut sidecar = Process::start("sidecar", &mut pod.command("sidecarContainers", "vcluster-backup")?)?;
    let load = Load::start(&pod.database(), RATE, 1500, true);
    let mut written = live(&s3, &bucket, &load, &mut sidecar).await?;
    written.extend(before);

    story.step("Disaster: kine and sidecar are killed, the volume is gone.");
    sidecar.kill()?;
    let slowest = load.slowest();
    drop(load);
    std::fs::remove_dir_all(pod.data()).context("cannot delete the volume")?;
    std::fs::create_dir_all(pod.data())?;
    let captured = newest_revision(&s3, &bucket, &cluster).await?;
    seen(&format!("the bucket holds everything up to revision {captured}"));

    story.step("The pod starts again: the rendered init container finds an empty volume.");
    let (restoring, restored_in) = bring_back(&pod, &mut cluster).await?;
    seen(&restoring);

    story.step("Proof: every row up to that revision is there, and SQLite finds the file sound.");
    let rows = prove(&pod, &written, captured)?;
    seen(&format!("{rows} rows compared: revision, key and value equal; integrity_check ok"));

    let uploaded = objects(&s3, &bucket)?;
    story.end(&[
        ("calls of the function", cluster.calls.to_string()),
        ("rows restored and compared", rows.to_string()),
        ("rows lost: written in the last second", written.range(captured + 1..).count().to_string()),
        ("objects in the bucket", uploaded.len().to_string()),
        ("bytes in the bucket", uploaded.iter().sum::<u64>().to_string()),
        ("slowest write with the agent beside it", format!("{:.1} ms", slowest.as_secs_f64() * 1000.0)),
        ("time to restore", format!("{:.2} s", restored_in.as_secs_f64())),
    ]);
    Ok(())
}

/// The XR that Crossplane makes of the shipped example claim, with snapshots often enough to be watched.
fn claimed() -> Result<Value> {
    let mut xr = vcluster::example("claim", "minimal")?;
    xr["spec"]["backup"] = json!({"enabled": true, "snapshotInterval": "3s"});
    Ok(xr)
}

fn composition_input() -> Result<Value> {
    let composition = read(&compositions().join("claim/composition.yaml"))?;
    composition.pointer("/spec/pipeline/0/input").cloned().context("the composition has no input")
}

fn bucket_of(xr: &Value) -> Result<String> {
    let claim = &xr["spec"]["claimRef"];
    let text = |field: &str| claim[field].as_str().with_context(|| format!("the claim has no {field}"));
    Ok(format!("vcb-{}-{}", text("namespace")?, text("name")?))
}

/// Reconciles until nothing changes any more.
async fn settle(cluster: &mut Cluster) -> Result<Reconciled> {
    let mut before = Vec::new();
    for _ in 0..8 {
        let reconciled = cluster.reconcile().await?;
        let now = cluster.inventory();
        for line in now.iter().filter(|line| !before.contains(*line)) {
            seen(&format!("call {}: {line}", cluster.calls));
        }
        if now == before && reconciled.ready {
            return Ok(reconciled);
        }
        before = now;
    }
    anyhow::bail!("the XR is not ready after 8 reconciles: {}", before.join(", "))
}

/// What a kubelet mounts.
fn mount(pod: &Pod, cluster: &Cluster) -> Result<()> {
    for object in cluster.mountable() {
        pod.mount(object)?;
    }
    Ok(())
}

/// Lets the control plane live for a while; returns what it acknowledged.
async fn live(s3: &S3, bucket: &str, load: &Load, sidecar: &mut Process) -> Result<BTreeMap<i64, Row>> {
    let lasting = Lasting::begin("the first snapshot");
    let count = |folder| s3.keys(bucket).map(|keys| keys.iter().filter(|key| key.contains(folder)).count());
    let (snapshots, segments) = (|| count("/snapshot/"), || count("/log/"));
    sidecar
        .until("the first snapshot", Duration::from_secs(30), async || {
            snapshots().is_ok_and(|count| count > 0)
        })
        .await?;
    let begin = Instant::now();
    while begin.elapsed() < LIFE {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let written = load.acknowledged().len();
        lasting.now(format!("{written} writes, {} snapshots, {} log segments", snapshots()?, segments()?));
    }
    drop(lasting);
    let written = load.acknowledged();
    let (snapshots, segments) = (snapshots()?, segments()?);
    let acknowledged = written.len();
    seen(&format!(
        "{acknowledged} writes acknowledged; {snapshots} snapshots, {segments} log segments in the bucket"
    ));
    ensure!(written.len() > 100, "the load wrote {} rows alone", written.len());
    Ok(written)
}

/// Runs the rendered init container. It says that it waits for the identity, which the function hands over for as long
/// as that takes.
async fn bring_back(pod: &Pod, cluster: &mut Cluster) -> Result<(String, Duration)> {
    let mut init = pod.command("initContainers", "vcluster-backup-ensure")?;
    let mut ensure = Process::start("ensure", &mut init)?;
    let log = ensure.log_file();
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    ensure
        .until("asking for the key", Duration::from_secs(30), async || told().contains("AwaitingKey"))
        .await?;
    seen("it holds no key and waits for one: phase AwaitingKey");
    // In a cluster the agent writes this ConfigMap itself.
    let keys = cluster.composed(key::KEYS)?["metadata"].clone();
    let name = keys["name"].as_str().context("no name")?;
    cluster.put(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": format!("{name}-status"), "namespace": keys["namespace"]},
        "data": {"phase": "AwaitingKey"},
    }));
    cluster.reconcile().await?;
    cluster.composed(key::RESTORE_KEY).context("the function did not hand over the identity")?;
    seen("the function hands it over in a Secret that lives as long as the restore");
    let begin = Instant::now();
    mount(pod, cluster)?;
    let status = ensure.wait(Duration::from_mins(1)).await?;
    let took = begin.elapsed();
    ensure!(status.success(), "the init container ended with {status}:\n{}", told());
    let last = told().lines().last().unwrap_or_default().to_owned();
    Ok((last, took))
}

/// Every acknowledged write up to the captured revision that compaction has left is there, and nothing else.
fn prove(pod: &Pod, written: &BTreeMap<i64, Row>, captured: i64) -> Result<usize> {
    let verdict = kine_shaped::integrity(&pod.database())?;
    ensure!(verdict == "ok", "integrity_check: {verdict}");
    let found = kine_shaped::rows(&pod.database())?;
    // The newest value of each key: compaction drops older ones.
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for (revision, (key, _)) in written.range(..=captured) {
        newest.insert(key, *revision);
    }
    for (key, revision) in &newest {
        ensure!(
            found.get(revision) == written.get(revision),
            "{key} at revision {revision} is missing or another"
        );
    }
    for (revision, row) in &found {
        let known = written.get(revision) == Some(row);
        ensure!(known && *revision <= captured, "revision {revision} was never written so");
    }
    Ok(found.len())
}

async fn newest_revision(s3: &S3, bucket: &str, cluster: &Cluster) -> Result<i64> {
    let mut list = agent::command(["list", "--json", "--bucket", bucket, "--endpoint", &s3.endpoint()])?;
    let secret = |key: &str| -> Result<String> {
        let connection = cluster.mountable().find(|object| object["data"].get(key).is_some());
        vcluster::secret_text(connection.with_context(|| format!("no Secret with {key}"))?, key)
    };
    list.env("ACCESS_KEY", secret("AWS_ACCESS_KEY_ID")?).env("SECRET_KEY", secret("AWS_SECRET_ACCESS_KEY")?);
    let listed = agent::finish(list).await?.ended(0)?.json()?;
    let timelines = listed["timelines"].as_array().context("no timelines")?;
    let newest =
        timelines.iter().filter_map(|timeline| timeline["restorable"]["to"]["revision"].as_i64()).max();
    newest.context("the bucket holds no snapshot")
}

fn objects(s3: &S3, bucket: &str) -> Result<Vec<u64>> {
    let size = |key: &String| Ok(std::fs::metadata(s3.object(bucket, key))?.len());
    s3.keys(bucket)?.iter().map(size).collect()
}

fn finish(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot start the container's program")?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(told)
}

fn sentence(told: &str) -> String {
    format!("init container: {}", told.trim())
}
