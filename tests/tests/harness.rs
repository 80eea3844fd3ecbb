//! The harness against the real components: what the other tests rely on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use vcluster_backup_tests::kine::{Compaction, Kine};
use vcluster_backup_tests::minio::{Credentials, Minio};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::writer::{self, Load, Writer};

/// Enough for a few hundred writes.
const WRITTEN: i64 = 300;

async fn written(writer: &Writer, revision: i64) -> Result<()> {
    tokio::time::timeout(Duration::from_mins(1), async {
        while writer.newest() < revision {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .with_context(|| format!("the writer is at revision {}, not at {revision}", writer.newest()))
}

#[tokio::test]
async fn kine_holds_every_acknowledged_write() -> Result<()> {
    let Some(tools) = Tools::with(["kine"]) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("state.db");
    let kine = Kine::start(&tools, &database, None).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, WRITTEN).await?;
    let history = writer.stop().await?;
    assert_eq!(history.unanswered, None);
    assert!(history.acknowledged.iter().any(|write| write.value.is_none()), "nothing was deleted");

    let (revision, found) = kine.client().await?.list(writer::PREFIX).await?;
    assert_eq!(revision, history.newest());
    assert_eq!(history.differences(revision, &found), Vec::<String>::new());
    assert!(!history.differences(revision - 1, &found).is_empty(), "the comparison sees no difference");

    // The same after a planned restart.
    assert!(kine.stop().await?.success());
    let kine = Kine::start(&tools, &database, None).await?;
    let (revision, found) = kine.client().await?.list(writer::PREFIX).await?;
    assert_eq!(history.differences(revision, &found), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_killed_kine_keeps_what_it_acknowledged() -> Result<()> {
    let Some(tools) = Tools::with(["kine"]) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("state.db");
    let kine = Kine::start(&tools, &database, None).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    written(&writer, WRITTEN).await?;
    kine.kill()?;
    let noticed = async {
        while !writer.is_over() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), noticed).await.context("the writer did not notice")?;
    let history = writer.stop().await?;
    assert!(history.unanswered.is_some());

    let kine = Kine::start(&tools, &database, None).await?;
    let (revision, found) = kine.client().await?.list(writer::PREFIX).await?;
    // The write under way when it died may be there too.
    assert!(
        revision == history.newest() || revision == history.newest() + 1,
        "{revision}, {}",
        history.newest()
    );
    let wrong = history.differences(history.newest(), &found);
    assert!(wrong.len() <= usize::from(revision > history.newest()), "{wrong:?}");
    Ok(())
}

#[tokio::test]
async fn kine_compares_and_swaps_and_compacts() -> Result<()> {
    let Some(tools) = Tools::with(["kine"]) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let compaction = Compaction { interval: Duration::from_secs(1), retain: 10 };
    let kine = Kine::start(&tools, &folder.path().join("state.db"), Some(compaction)).await?;
    let mut client = kine.client().await?;
    let created = client.create("/registry/configmaps/default/a", b"1").await?;
    assert!(client.create("/registry/configmaps/default/a", b"2").await.is_err(), "made twice");
    let updated = client.update("/registry/configmaps/default/a", b"2", created).await?;
    assert!(
        client.update("/registry/configmaps/default/a", b"3", created).await.is_err(),
        "changed at an old revision"
    );
    assert!(
        client.delete("/registry/configmaps/default/a", created).await.is_err(),
        "deleted at an old revision"
    );
    let deleted = client.delete("/registry/configmaps/default/a", updated).await?;
    assert!(created < updated && updated < deleted);
    let (_, found) = client.list(writer::PREFIX).await?;
    assert!(found.is_empty());

    // Compaction shows in the log of the process; a thousand keys take more than one page to list.
    let writer = Writer::start(&kine, Load { rate: 1000, ..Load::default() }).await?;
    written(&writer, 2500).await?;
    let history = writer.stop().await?;
    let (revision, found) = client.list(writer::PREFIX).await?;
    assert!(found.len() > 500, "{} keys are one page", found.len());
    assert_eq!(history.differences(revision, &found), Vec::<String>::new());
    assert!(kine.process().log().contains("COMPACT"), "kine did not compact:\n{}", kine.process().log());
    Ok(())
}

#[tokio::test]
async fn minio_stores_and_refuses() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc"]) else { return Ok(()) };
    let minio = Minio::start(&tools).await?;
    minio.make_bucket("backups").await?;
    minio.write("backups", "a/1", b"one".to_vec()).await?;
    assert_eq!(minio.list("backups", "a/").await?, [("a/1".to_owned(), 3)]);
    assert_eq!(minio.read("backups", "a/1").await?, b"one");

    // The one conditional write that the agent publishes with.
    let root = minio.client(minio.root());
    let put = |key: &str| {
        root.put_object().bucket("backups").key(key).if_none_match("*").body(vec![1].into()).send()
    };
    let refused = put("a/1").await.err().context("an object was overwritten")?;
    assert_eq!(refused.raw_response().map(|answer| answer.status().as_u16()), Some(412));
    put("a/2").await?;

    let stranger = Credentials::new("stranger", "secret-of-stranger");
    assert!(minio.client(&stranger).list_objects_v2().bucket("backups").send().await.is_err());
    minio.add_user(&stranger)?;
    assert!(minio.client(&stranger).list_objects_v2().bucket("backups").send().await.is_err());
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::backups/a/*"]}]}"#;
    minio.grant(&stranger, "read-a", policy)?;
    let stranger = minio.client(&stranger);
    stranger.get_object().bucket("backups").key("a/1").send().await?;
    assert!(stranger.put_object().bucket("backups").key("a/3").body(vec![].into()).send().await.is_err());

    // A store that goes and comes back has what it had.
    let minio = minio.kill()?.start(&tools).await?;
    assert_eq!(minio.list("backups", "").await?.len(), 2);
    Ok(())
}
