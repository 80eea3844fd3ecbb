//! **Pruning** a bucket in a real MinIO, beside a sidecar that ships and merges; and a sidecar that may delete nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vcluster_backup_tests::kine::Kine;
use vcluster_backup_tests::minio::Credentials;
use vcluster_backup_tests::restored;
use vcluster_backup_tests::sidecar::Sidecar;
use vcluster_backup_tests::site::{BUCKET, Site};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster;
use vcluster_backup_tests::writer::{Load, Writer};

/// Little is kept, and a snapshot is taken every other second.
const RULES: [&str; 6] = [
    "--pitr-window=8s",
    "--keep-last=2",
    "--keep-hourly=1",
    "--keep-daily=0",
    "--keep-weekly=0",
    "--keep-monthly=0",
];
const RHYTHM: [&str; 2] = ["--sync-interval=300ms", "--snapshot-interval=2s"];
/// As in [`RULES`].
const WINDOW: Duration = Duration::from_secs(8);

async fn bytes(site: &Site) -> Result<i64> {
    Ok(site.minio().list(BUCKET, "").await?.iter().map(|(_, size)| size).sum())
}

async fn deletes(sidecar: &Sidecar) -> Result<f64> {
    Ok(sidecar.metrics().await?.sum("vcluster_backup_s3_requests_total", &[("op", "delete")]))
}

#[tokio::test]
async fn a_bucket_stays_small_beside_a_busy_sidecar() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let sidecar = site.sidecar(&[&RULES[..], &RHYTHM[..]].concat()).await?;
    let writer = Writer::start(&kine, Load { rate: 50, ..Load::default() }).await?;
    // Several windows, in which the sidecar prunes by itself and an operator by hand.
    let mut most = 0;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pruned = site.run(&[&["prune", "--json"][..], &RULES[..]].concat()).await?.json()?;
        ensure!(pruned["failed"] == json!([]), "{pruned}");
        most = most.max(pruned["objects"].as_array().map_or(0, Vec::len));
    }
    ensure!(deletes(&sidecar).await? > 0.0, "the sidecar pruned nothing by itself");
    sidecar.terminate()?;
    let history = writer.stop().await?;
    ensure!(history.unanswered.is_none(), "a write failed beside the agent: {:?}", history.unanswered);
    ensure!(kine.stop().await?.success(), "kine failed");
    sidecar.ended().await?;
    let last = site.run(&[&["prune", "--json"][..], &RULES[..]].concat()).await?.json()?;
    let kept = |kind: &str| -> Result<Vec<Value>> {
        let objects = last["objects"].as_array().context("no objects")?.iter();
        let kept = objects.filter(|object| object["action"] == "keep");
        Ok(kept
            .filter(|object| object["key"].as_str().is_some_and(|key| key.contains(kind)))
            .cloned()
            .collect())
    };
    let (snapshots, segments) = (kept("/snapshot/")?, kept("/log/")?);
    println!(
        "{} snapshots and {} segments of {} revisions are kept, {} bytes; {most} objects at most",
        snapshots.len(),
        segments.len(),
        history.newest(),
        bytes(&site).await?
    );
    ensure!(snapshots.len() <= 14, "{} snapshots in a window of 8 s", snapshots.len());
    // Twice the window, at three segments a second, and what the second snapshot before it needs.
    ensure!(segments.len() <= 60, "{} segments in a window of 8 s", segments.len());
    let again = site.run(&[&["prune"][..], &RULES[..]].concat()).await?;
    ensure!(again.stderr.contains("nothing to prune"), "{}", again.stderr);
    // Every revision of the window.
    let from = revision_of(segments.first().context("no segment is kept")?)?;
    let step = usize::try_from((history.newest() - from) / 10 + 1)?;
    let revisions: Vec<i64> = (from..=history.newest()).step_by(step).chain([history.newest()]).collect();
    restored::every_one(&site, &history, &revisions).await
}

/// The last row of a segment, as its name tells it.
fn revision_of(segment: &Value) -> Result<i64> {
    let key = segment["key"].as_str().context("no key")?;
    Ok(key.rsplit('/').next().and_then(|name| name.split('-').nth(1)).context("no revision")?.parse()?)
}

/// Under a policy without `s3:DeleteObject` the sidecar works on and asks for no deletion.
#[tokio::test]
async fn an_append_only_sidecar_deletes_nothing() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let user = Credentials::new("append-only", "secret-of-this-user");
    site.minio().add_user(&user)?;
    let objects = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"];
    let buckets = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"];
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": buckets, "Resource": [format!("arn:aws:s3:::{BUCKET}")]},
        {"Effect": "Allow", "Action": objects, "Resource": [format!("arn:aws:s3:::{BUCKET}/*")]},
    ]});
    site.minio().grant(&user, "append-only", &policy.to_string())?;
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let run = ["run", "--recipient", vcluster::RECIPIENT, "--append-only"];
    let mut command = site.command(&[&run[..], &RULES[..], &RHYTHM[..]].concat())?;
    command.env("ACCESS_KEY", &user.access_key).env("SECRET_KEY", &user.secret_key);
    let sidecar = Sidecar::start(command).await?;
    let writer = Writer::start(&kine, Load { rate: 20, ..Load::default() }).await?;
    // Until the first minute was merged.
    let merged = async || -> Result<f64> {
        let metrics = sidecar.metrics().await?;
        Ok(metrics.sum("vcluster_backup_uploads_total", &[("kind", "merged"), ("result", "ok")]))
    };
    let begin = std::time::Instant::now();
    while merged().await? < 1.0 {
        ensure!(begin.elapsed() < Duration::from_mins(3), "nothing was merged");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What was merged is needed whole while any of it may be in the window.
    tokio::time::sleep(WINDOW + Duration::from_secs(4)).await;
    let metrics = sidecar.metrics().await?;
    ensure!(deletes(&sidecar).await? == 0.0, "it asked for a deletion");
    ensure!(
        metrics.sum("vcluster_backup_s3_requests_total", &[("code", "refused")]) == 0.0,
        "it was refused"
    );
    sidecar.terminate()?;
    let history = writer.stop().await?;
    ensure!(kine.stop().await?.success(), "kine failed");
    sidecar.ended().await?;
    let (first, last) = restored::range(&site).await?;
    restored::every_one(&site, &history, &[first, i64::midpoint(first, last), last]).await?;

    // Its user may not prune; the platform may.
    let prune = [&["prune"][..], &RULES[..]].concat();
    let mut command = site.command(&prune)?;
    command.env("ACCESS_KEY", &user.access_key).env("SECRET_KEY", &user.secret_key);
    let refused = vcluster_backup_tests::agent::finish(command).await?.ended(1)?;
    ensure!(refused.stderr.contains("AppendOnly"), "{}", refused.stderr);
    let before = bytes(&site).await?;
    site.run(&prune).await?;
    let after = bytes(&site).await?;
    println!("{before} bytes, {after} after the platform pruned");
    ensure!(after < before, "{before} bytes, then {after}");
    restored::every_one(&site, &history, &[last]).await
}
