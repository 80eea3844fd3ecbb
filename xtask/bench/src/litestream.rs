//! **litestream**, the peer, beside the same kine and in front of the same MinIO, as its own documentation configures it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vcluster_backup_tests::minio::REGION;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::site::Site;

const BUCKET: &str = "litestream";
const CONFIG: &str = "litestream.yml";

/// A running litestream.
pub struct Litestream {
    process: Process,
}

impl Litestream {
    /// Starts it and waits until its first snapshot is in the bucket, and has been shipped a second time: everything goes
    /// from level 0 to level 1 after 30 s, which is no part of a steady state.
    pub async fn start(site: &Site, settled: bool) -> Result<Self> {
        site.minio().make_bucket(BUCKET).await?;
        let root = site.minio().root();
        // JSON is YAML. All that is not here is litestream's default; a sync a second is.
        let config = json!({"dbs": [{"path": site.database(), "replica": {
            "type": "s3",
            "bucket": BUCKET,
            "path": "state",
            "endpoint": site.minio().endpoint(),
            "region": REGION,
            "force-path-style": true,
            "access-key-id": root.access_key,
            "secret-access-key": root.secret_key,
        }}]});
        std::fs::write(site.path(CONFIG), config.to_string())?;
        let mut process = Process::start("litestream", command(site)?.arg("replicate"))?;
        let log = process.log_file();
        let told = |what: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(what);
        let last = if settled { "compaction complete" } else { "snapshot complete" };
        process
            .until("shipped once", Duration::from_mins(3), async || told("snapshot complete") && told(last))
            .await?;
        Ok(Self { process })
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(self) -> Result<()> {
        let status = self.process.stop(Duration::from_secs(30)).await?;
        ensure!(status.success(), "litestream ended with {status}");
        Ok(())
    }
}

/// Restores the newest state into a new file.
pub fn restore(site: &Site, output: &Path) -> Result<()> {
    let database = site.database();
    let ended = command(site)?
        .arg("restore")
        .arg("-o")
        .arg(output)
        .arg(database)
        .output()
        .context("cannot start litestream")?;
    ensure!(
        ended.status.success(),
        "litestream restore: {}\n{}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}

fn command(site: &Site) -> Result<Command> {
    let mut command = site.tools().command("litestream")?;
    // With a bundle of certificates set, litestream 0.5 refuses to start (its S3 client takes none).
    command.env("LITESTREAM_CONFIG", site.path(CONFIG)).env_remove("AWS_CA_BUNDLE");
    Ok(command)
}
