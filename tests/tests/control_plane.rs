//! A **control plane** (kube-apiserver on kine) that loses its disk, or its pod, in the middle of its users' work.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kube::api::{DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use vcluster_backup_tests::api_server::ApiServer;
use vcluster_backup_tests::record::Record;
use vcluster_backup_tests::site::Site;
use vcluster_backup_tests::tenant::{self, Tenant};
use vcluster_backup_tests::toolbox::Tools;

/// What a lost disk may cost at most.
const COST: Duration = Duration::from_secs(1);
/// What a watch is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

async fn site() -> Result<Option<Site>> {
    match Tools::with(["minio", "mc", "kine", "kube-apiserver", "kubectl"]) {
        Some(tools) => Site::start(tools).await.map(Some),
        None => Ok(None),
    }
}

/// Lets a tenant work until it has done so much.
async fn at_work(api: &ApiServer, writes: usize) -> Result<Tenant> {
    api.apply(&[tenant::definition()])?;
    let tenant = Tenant::start(api.client().await?).await?;
    let begin = Instant::now();
    while tenant.written() < writes {
        ensure!(begin.elapsed() < Duration::from_mins(2), "{} writes in two minutes", tenant.written());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(tenant)
}

/// So many writes more or less, as they come in a second: the moment at which it ends is another one each time.
fn any_of_a_second() -> usize {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    usize::try_from(now.subsec_millis()).unwrap_or(0) / 25
}

/// Every revision from now on is above all that the tenant ever saw. Returns a new one.
async fn goes_on_above(client: &kube::Client, record: &Record, name: &str) -> Result<u64> {
    let made = tenant::config_maps(client).create(&PostParams::default(), &tenant::config_map(name)).await?;
    let revision = tenant::revision(&made)?;
    ensure!(revision > record.newest(), "a new object is at {revision}, one was at {}", record.newest());
    Ok(revision)
}

/// What a watch of the ConfigMaps from this revision tells first of one of them: its event, or an error.
async fn watched(client: &kube::Client, from: u64, name: &str) -> Result<WatchEvent<DynamicObject>> {
    let config_maps = tenant::config_maps(client);
    let events = config_maps.watch(&WatchParams::default().timeout(60), &from.to_string()).await?;
    let mut events = events.boxed();
    let told = async {
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) if object.metadata.name.as_deref() != Some(name) => {}
                WatchEvent::Modified(_) | WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
                told => return Ok(told),
            }
        }
        anyhow::bail!("the watch from {from} ended without a word of {name}")
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .with_context(|| format!("the watch from {from} did not tell of {name}"))?
}

/// kine and the agent are killed while a tenant works, and the volume is lost. What was acknowledged more than a second
/// before is there again, and every client goes on.
#[tokio::test]
async fn a_lost_disk_costs_a_second() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let api = ApiServer::start_on(site.tools(), &site.database()).await?;
    let sidecar = site.sidecar(&[]).await?;
    let tenant = at_work(&api, 300 + any_of_a_second()).await?;
    let killed = Instant::now();
    sidecar.kill()?;
    let down = api.kill()?;
    let record = tenant.stop().await?;
    ensure!(record.unanswered.is_some(), "the tenant noticed nothing");
    site.lose_volume()?;

    println!("{}", site.ensure().await?);
    // Without its cache the server passes a watch on to kine: nothing that came since is left out.
    let api = down.start(site.tools(), &site.database(), &["--watch-cache=false"]).await?;
    let client = api.client().await?;
    let found = tenant::found(&client).await?;
    let lost = record.lost(&found);
    let oldest = lost.first().map_or(Duration::ZERO, |write| killed.saturating_duration_since(write.at));
    println!(
        "{} of {} acknowledged writes lost, the oldest {} ms before the kill",
        lost.len(),
        record.acknowledged.len(),
        oldest.as_millis()
    );
    let until = killed.checked_sub(COST).context("the clock has just begun")?;
    assert_eq!(record.wrong(until, &found), Vec::<String>::new());
    let (watch, after) =
        tokio::join!(watched(&client, record.newest(), "after"), goes_on_above(&client, &record, "after"));
    let after = after?;
    match watch? {
        WatchEvent::Added(object) => assert_eq!(tenant::revision(&object)?, after),
        other => anyhow::bail!("the watch tells {other:?}"),
    }

    // With its cache the server tells at once that the revision is gone, and a client lists and watches on from there:
    // a revision from before must not be taken for one that is still to come, or its watches would be silent.
    let api = api.kill()?.start(site.tools(), &site.database(), &[]).await?;
    let client = api.client().await?;
    let config_maps = tenant::config_maps(&client);
    match watched(&client, record.newest(), "again").await? {
        WatchEvent::Error(told) if told.code == 410 => {}
        other => anyhow::bail!("the watch tells {other:?}"),
    }
    let listed = config_maps.list(&ListParams::default()).await?.metadata.resource_version;
    let listed = listed.context("a list without a revision")?.parse()?;
    let (watch, again) =
        tokio::join!(watched(&client, listed, "again"), goes_on_above(&client, &record, "again"));
    ensure!(again? > after && matches!(watch?, WatchEvent::Added(_)), "the watch tells no object");
    Ok(())
}

/// All are told to stop at once while a tenant works, as a pod is, and the volume is lost: nothing at all is missing.
#[tokio::test]
async fn a_planned_stop_costs_nothing() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let api = ApiServer::start_on(site.tools(), &site.database()).await?;
    let sidecar = site.sidecar(&[]).await?;
    let tenant = at_work(&api, 200).await?;
    sidecar.terminate()?;
    api.terminate()?;
    let down = api.ended().await?;
    sidecar.ended().await?;
    let record = tenant.stop().await?;
    site.lose_volume()?;

    println!("{}", site.ensure().await?);
    let api = down.start(site.tools(), &site.database(), &[]).await?;
    let client = api.client().await?;
    let found = tenant::found(&client).await?;
    assert_eq!(record.wrong(Instant::now(), &found), Vec::<String>::new());
    goes_on_above(&client, &record, "after").await.map(drop)
}
