//! **Verify** and clones on a real kine and a real MinIO: the drill, its record, what the sidecar tells of it, and a restore
//! from another user's bucket.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vcluster_backup_tests::agent;
use vcluster_backup_tests::history::History;
use vcluster_backup_tests::kine::Kine;
use vcluster_backup_tests::minio::Credentials;
use vcluster_backup_tests::restored::Restored;
use vcluster_backup_tests::sidecar::Sidecar;
use vcluster_backup_tests::site::{BUCKET, IDENTITY_FILE, Site};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster;
use vcluster_backup_tests::writer::{Load, Writer};

const OWNER: &str = "vcluster-team-a-old/old/uid-0";

/// A site with some seconds of history in its bucket.
async fn with_history(tools: Tools) -> Result<(Site, History)> {
    let site = Site::start(tools).await?;
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let sidecar = site.sidecar(&["--sync-interval", "200ms", "--owner", OWNER]).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    sidecar.terminate()?;
    let history = writer.stop().await?;
    ensure!(kine.stop().await?.success(), "kine failed");
    sidecar.ended().await?;
    Ok((site, history))
}

#[tokio::test]
async fn a_drill_passes_is_recorded_and_told() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let (site, history) = with_history(tools).await?;
    std::fs::create_dir(site.path("scratch"))?;
    for flags in [&["--identity-file", IDENTITY_FILE][..], &["--identity-file", IDENTITY_FILE, "--quick"]] {
        let mut command = site.command(&[&["verify", "--json"], flags].concat())?;
        command.env("TMPDIR", site.path("scratch"));
        let found = agent::finish(command).await?.ended(0)?.json()?;
        println!("{flags:?}: {found}");
        ensure!(found["result"] == "ok" && found["point"]["revision"] == history.newest(), "{found}");
        ensure!(found["objects"].as_u64().is_some_and(|objects| objects > 5), "{found}");
        let record = found["record"].as_str().context("no record")?;
        let told = String::from_utf8(site.minio().read(BUCKET, record).await?)?;
        ensure!(record.ends_with("-ok") && told.contains(&history.newest().to_string()), "{record}: {told}");
    }
    ensure!(std::fs::read_dir(site.path("scratch"))?.next().is_none(), "a scratch file is left");

    // The sidecar tells of it.
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let sidecar = site.sidecar(&["--owner", OWNER, "--snapshot-interval", "2s"]).await?;
    let metrics = sidecar.metrics().await?;
    let passed = |passed: f64| (passed - 1.0).abs() < 1e-9;
    ensure!(passed(metrics.sum("vcluster_backup_last_verify_ok", &[])), "{metrics:?}");
    ensure!(metrics.sum("vcluster_backup_last_verify_timestamp_seconds", &[]) > 1e9, "{metrics:?}");

    // An object goes bad: the next drill says which, and the sidecar says so with its next snapshot.
    let objects = site.minio().list(BUCKET, "").await?;
    let bad =
        objects.into_iter().map(|(key, _)| key).find(|key| key.contains("/log/")).context("no segment")?;
    let mut bytes = site.minio().read(BUCKET, &bad).await?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    site.minio().write(BUCKET, &bad, bytes).await?;
    // Before any snapshot that was taken after the history.
    let revision = (history.newest() - 1).to_string();
    for (more, code) in [(&["--quick"][..], 3), (&[], 3)] {
        let verify = ["verify", "--revision", &revision, "--identity-file", IDENTITY_FILE];
        let failed = agent::finish(site.command(&[&verify[..], more].concat())?).await?.ended(code)?;
        println!("{}", failed.stderr);
        ensure!(failed.stderr.contains(&bad) && failed.text().starts_with("failed: "), "{failed:?}");
    }
    let writer = Writer::start(&kine, Load::default()).await?;
    let begin = Instant::now();
    while passed(sidecar.metrics().await?.sum("vcluster_backup_last_verify_ok", &[])) {
        ensure!(begin.elapsed() < Duration::from_secs(20), "the failure is not told");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("told {:.1} s after the drill", begin.elapsed().as_secs_f64());
    writer.stop().await?;
    sidecar.terminate()?;
    kine.stop().await?;
    sidecar.ended().await
}

/// May read one bucket, or do as it likes in it.
fn policy(bucket: &str, actions: &[&str]) -> String {
    let resources = [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")];
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": resources});
    json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}

/// Another cluster, with a bucket, a user and an identity of its own, becomes what this one was.
#[tokio::test]
async fn a_clone_reads_with_the_keys_of_the_source_and_writes_with_its_own() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(()) };
    let (site, history) = with_history(tools).await?;
    site.minio().make_bucket("clones").await?;
    let [own, reader] = ["clone", "reader"]
        .map(|name| Credentials::new(&format!("{name}-key"), &format!("{name}-secret-key")));
    for (user, name, json) in [
        (&own, "own", policy("clones", &["s3:*"])),
        (&reader, "read", policy(BUCKET, &["s3:ListBucket", "s3:GetObject"])),
    ] {
        site.minio().add_user(user)?;
        site.minio().grant(user, name, &json)?;
    }
    // The new cluster's own identity first: it opens nothing of the source.
    let keygen = agent::run(["keygen"]).await?.ended(0)?;
    std::fs::write(site.path("both.txt"), format!("{}{}\n", keygen.text(), vcluster::IDENTITY))?;
    std::fs::write(site.path("source-access-key-id"), &reader.access_key)?;
    std::fs::write(site.path("source-secret-access-key"), &reader.secret_key)?;
    site.lose_volume()?;
    let command = |args: &[&str]| -> Result<std::process::Command> {
        let mut command = site.command(args)?;
        command
            .env("BUCKET_NAME", "clones")
            .env("ACCESS_KEY", &own.access_key)
            .env("SECRET_KEY", &own.secret_key)
            .env("VCB_OWNER", "vcluster-team-a-new/new/uid-1");
        Ok(command)
    };
    let ask = |files: &str| {
        let from = format!("bucket: {BUCKET}, owner: {OWNER}{files}");
        std::fs::write(
            site.path("config.yaml"),
            format!("restore: {{id: clone, latest: true, from: {{{from}}}}}\n"),
        )
    };
    let ensure = ["ensure", "--config", "config.yaml", "--identity-file", "both.txt"];
    ask("")?;
    let refused = agent::finish(command(&ensure)?).await?.ended(1)?;
    ensure!(refused.stderr.contains("refused to list"), "{}", refused.stderr);
    ask(", accessKeyFile: source-access-key-id, secretKeyFile: source-secret-access-key")?;
    let decided = agent::finish(command(&ensure)?).await?.ended(0)?;
    println!("{}", decided.text());
    Restored::read(&site.database())?.is_exactly(&history, history.newest())?;

    // kine goes on from it, and its backup begins a timeline in its own bucket.
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let before = site.minio().list(BUCKET, "").await?;
    let sidecar = Sidecar::start(command(&["run", "--recipient", keygen.stderr.trim()])?).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    sidecar.terminate()?;
    let gone_on = writer.stop().await?;
    kine.stop().await?;
    sidecar.ended().await?;
    let first = gone_on.acknowledged.first().context("nothing was written")?.revision;
    ensure!(first > history.newest() + 1000, "it goes on at {first}, behind {}", history.newest());
    ensure!(site.minio().list(BUCKET, "").await? == before, "it wrote to the source");
    let verify = ["verify", "--json", "--identity-file", "both.txt"];
    let found = agent::finish(command(&verify)?).await?.ended(0)?.json()?;
    ensure!(found["point"]["revision"].as_i64() >= Some(gone_on.newest()), "{found}");
    Ok(())
}
