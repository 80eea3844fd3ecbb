//! **Faults** on the way to a real MinIO cost time and nothing else: no revision is lost, none comes back wrong, and
//! nobody has to restart anything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use vcluster_backup_tests::dice::Dice;
use vcluster_backup_tests::fault::Fault;
use vcluster_backup_tests::fault_proxy::{FaultProxy, Rule, WAYS};
use vcluster_backup_tests::history::History;
use vcluster_backup_tests::kine::Kine;
use vcluster_backup_tests::lag;
use vcluster_backup_tests::minio::Credentials;
use vcluster_backup_tests::restored::{self, Restored};
use vcluster_backup_tests::sidecar::Sidecar;
use vcluster_backup_tests::site::{BUCKET, Site};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster;
use vcluster_backup_tests::writer::{Load, Writer};

/// After the longest pause of the agent (30 s) a store that is back is noticed; and then there is work to do.
const CAUGHT_UP: Duration = Duration::from_secs(45);

/// kine and the agent with a proxy between it and MinIO.
struct Bench {
    site: Site,
    proxy: FaultProxy,
    kine: Kine,
    dice: Dice,
}

impl Bench {
    /// `None` if a tool is missing.
    async fn new(name: &str) -> Result<Option<Self>> {
        let Some(tools) = Tools::with(["minio", "mc", "kine"]) else { return Ok(None) };
        let site = Site::start(tools).await?;
        let dice = Dice::of_the_moment(name);
        let proxy = FaultProxy::start(&site.minio().endpoint(), dice.clone()).await?;
        let kine = Kine::start(site.tools(), &site.database(), None).await?;
        Ok(Some(Self { site, proxy, kine, dice }))
    }

    fn command(&self) -> Result<std::process::Command> {
        let endpoint = self.proxy.endpoint();
        self.site.command(&[
            "run",
            "--recipient",
            vcluster::RECIPIENT,
            "--sync-interval",
            "200ms",
            "--endpoint",
            &endpoint,
        ])
    }

    /// The pod is stopped as planned, which loses nothing: `count` revisions of all that there ever were, both ends
    /// and the newest point come back exactly, without a hole in the segments' names.
    async fn nothing_is_lost(mut self, sidecar: Sidecar, writer: Writer, count: usize) -> Result<History> {
        sidecar.terminate()?;
        let history = writer.stop().await?;
        ensure!(history.unanswered.is_none(), "a write failed beside the agent: {:?}", history.unanswered);
        ensure!(self.kine.stop().await?.success(), "kine failed");
        sidecar.ended().await?;
        let (first, last) = restored::range(&self.site).await?;
        ensure!(last == history.newest(), "the bucket ends at {last}, kine at {}", history.newest());
        let revisions = self.dice.revisions(first, last, count);
        restored::every_one(&self.site, &history, &revisions).await?;
        Restored::point(&self.site, "restored.db", &["--latest"]).await?.is_exactly(&history, last)?;
        let segments = without_a_hole(&self.site, first, last).await?;
        println!("{} revisions of {first} to {last} are exact; {segments} segments", revisions.len());
        Ok(history)
    }
}

/// Segments hold every revision from the first to the last, and were captured in their order. Returns how many there are.
async fn without_a_hole(site: &Site, first: i64, last: i64) -> Result<usize> {
    let keys = site.minio().list(BUCKET, "").await?;
    let (mut covered, mut captured, mut count) = (first, 0, 0);
    for (key, _) in keys.iter().filter(|(key, _)| key.contains("/log/")) {
        let name = key.rsplit('/').next().unwrap_or_default();
        let numbers: Vec<i64> = name.split(['-', '.']).map_while(|part| part.parse().ok()).collect();
        let [from, to, millis] = numbers[..] else { anyhow::bail!("{key} is no segment's name") };
        count += 1;
        if to <= covered {
            continue;
        }
        ensure!(from <= covered, "nothing holds the revisions from {covered} to {from}: {keys:#?}");
        ensure!(millis >= captured, "{key} was captured before the one that it follows");
        (covered, captured) = (to, millis);
    }
    ensure!(covered == last, "the segments end at {covered}, the bucket's range at {last}");
    Ok(count)
}

#[tokio::test]
async fn a_network_that_fails_at_random_loses_nothing() -> Result<()> {
    let Some(bench) = Bench::new("random faults").await? else { return Ok(()) };
    bench.proxy.set(Rule::Mix(40));
    let sidecar = Sidecar::start(bench.command()?).await?;
    let writer = Writer::start(&bench.kine, Load::default()).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    bench.proxy.set(Rule::Pass);
    let met = bench.proxy.met();
    for way in WAYS {
        println!("{:>4} {way:?}", met.iter().filter(|fault| **fault == way).count());
    }
    ensure!(met.len() >= 5, "only {} requests failed", met.len());
    bench.nothing_is_lost(sidecar, writer, 20).await.map(drop)
}

#[tokio::test]
async fn a_store_that_was_away_gets_everything_in_order() -> Result<()> {
    let Some(bench) = Bench::new("store away").await? else { return Ok(()) };
    let sidecar = Sidecar::start(bench.command()?).await?;
    // About 2 MB a second, so that what would be kept in memory would be seen there.
    let load = Load { value_bytes: 20_000, ..Load::default() };
    let writer = Writer::start(&bench.kine, load).await?;
    lag::until_shipped(&sidecar, 200, CAUGHT_UP).await?;
    let before = lag::seconds(&sidecar).await?;
    let (usual, _) = sidecar.process().memory()?;

    bench.proxy.set(Rule::All(Fault::Drop));
    let begin = Instant::now();
    let mut told = Vec::new();
    while begin.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        told.push(lag::seconds(&sidecar).await?);
    }
    bench.proxy.set(Rule::Pass);
    let newest = writer.newest();
    lag::until_shipped(&sidecar, newest, CAUGHT_UP).await?;
    let caught_up = begin.elapsed().as_secs_f64() - 10.0;
    let (_, most) = sidecar.process().memory()?;
    println!(
        "lag before {before:.1} s, while away {told:.1?}; caught up {caught_up:.1} s after it was back, at most {} MiB resident, {} before",
        most >> 20,
        usual >> 20
    );
    ensure!(before < 3.0, "the lag is {before} s while all is well");
    let highest = told.iter().copied().fold(0.0, f64::max);
    ensure!(highest > 4.0, "10 s away, and the lag that was told is {told:?}");
    // More than 40 MiB of SQL text wait by then; what is held of them does not depend on how much it is.
    ensure!(most < usual + (24 << 20), "{} MiB resident, {} before", most >> 20, usual >> 20);
    // What is left is what was written since the last look.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = lag::seconds(&sidecar).await?;
    ensure!(after < 3.0, "the lag is {after} s after all was shipped");
    bench.nothing_is_lost(sidecar, writer, 10).await.map(drop)
}

/// The old key is refused before the new one is there, which is the harder order.
#[tokio::test]
async fn keys_are_rotated_without_a_restart() -> Result<()> {
    let Some(bench) = Bench::new("rotated keys").await? else { return Ok(()) };
    let policy = format!(
        r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": ["s3:*"],
        "Resource": ["arn:aws:s3:::{BUCKET}", "arn:aws:s3:::{BUCKET}/*"]}}]}}"#
    );
    let users = ["first", "second"].map(|name| Credentials::new(name, &format!("secret-of-{name}")));
    for user in &users {
        bench.site.minio().add_user(user)?;
        bench.site.minio().grant(user, &format!("policy-of-{}", user.access_key), &policy)?;
    }
    let mount = |user: &Credentials| -> Result<()> {
        std::fs::write(bench.site.path("access-key"), &user.access_key)?;
        Ok(std::fs::write(bench.site.path("secret-key"), format!("{}\n", user.secret_key))?)
    };
    mount(&users[0])?;
    let mut command = bench.command()?;
    command
        .args(["--access-key-file", "access-key", "--secret-key-file", "secret-key"])
        .env_remove("ACCESS_KEY")
        .env_remove("SECRET_KEY");
    let sidecar = Sidecar::start(command).await?;
    let writer = Writer::start(&bench.kine, Load::default()).await?;
    lag::until_shipped(&sidecar, 200, CAUGHT_UP).await?;

    bench.site.minio().disable_user(&users[0])?;
    let refused = async || -> Result<f64> {
        Ok(sidecar.metrics().await?.sum("vcluster_backup_s3_requests_total", &[("code", "refused")]))
    };
    let begin = Instant::now();
    while refused().await? < 1.0 {
        ensure!(begin.elapsed() < CAUGHT_UP, "a disabled user was not refused:\n{}", sidecar.process().log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    mount(&users[1])?;
    lag::until_shipped(&sidecar, writer.newest(), CAUGHT_UP).await?;
    println!("{} requests were refused, {:.1} s in all", refused().await?, begin.elapsed().as_secs_f64());
    bench.nothing_is_lost(sidecar, writer, 5).await.map(drop)
}

#[tokio::test]
async fn a_clock_that_is_wrong_for_a_while_loses_nothing() -> Result<()> {
    let Some(bench) = Bench::new("clock skew").await? else { return Ok(()) };
    let sidecar = Sidecar::start(bench.command()?).await?;
    let writer = Writer::start(&bench.kine, Load::default()).await?;
    lag::until_shipped(&sidecar, 200, CAUGHT_UP).await?;
    bench.proxy.set(Rule::All(Fault::Refuse("RequestTimeTooSkewed")));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let told = sidecar.process().log();
    let line = told.lines().rfind(|line| line.contains("RequestTimeTooSkewed"));
    println!("{}", line.context("the log does not tell why nothing was shipped")?);
    ensure!(lag::seconds(&sidecar).await? > 1.0, "nothing was shipped for 5 s, and no lag is told");
    bench.proxy.set(Rule::Pass);
    lag::until_shipped(&sidecar, writer.newest(), CAUGHT_UP).await?;
    bench.nothing_is_lost(sidecar, writer, 5).await.map(drop)
}
