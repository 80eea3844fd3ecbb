//! **MinIO** in a temp folder, with an S3 client and its own administration through `mc`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation};
use tempfile::TempDir;

use crate::metrics::Metrics;
use crate::port;
use crate::process::Process;
use crate::toolbox::Tools;

/// An access key and its secret.
#[derive(Clone)]
pub struct Credentials {
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
}

impl Credentials {
    /// Both parts.
    pub fn new(access_key: &str, secret_key: &str) -> Self {
        Self { access_key: access_key.to_owned(), secret_key: secret_key.to_owned() }
    }
}

/// A running MinIO. Needs the tools `minio` and `mc`.
pub struct Minio {
    process: Process,
    port: u16,
    mc: std::path::PathBuf,
    folder: TempDir,
    root: Credentials,
}

/// Its only region.
pub const REGION: &str = "us-east-1";
/// How `mc` knows it.
const ALIAS: &str = "vcb";

impl Minio {
    /// Starts it empty and waits until it answers.
    pub async fn start(tools: &Tools) -> Result<Self> {
        Self::start_at(tools, port::free()?, tempfile::tempdir()?).await
    }

    async fn start_at(tools: &Tools, port: u16, folder: TempDir) -> Result<Self> {
        let root = Credentials::new("root-of-tests", "secret-of-tests");
        let mut command = tools.command("minio")?;
        command
            .arg("server")
            .arg(folder.path().join("data"))
            .arg(format!("--address=127.0.0.1:{port}"))
            .arg(format!("--console-address=127.0.0.1:{}", port::free()?))
            .env("MINIO_ROOT_USER", &root.access_key)
            .env("MINIO_ROOT_PASSWORD", &root.secret_key)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_PROMETHEUS_AUTH_TYPE", "public")
            .env("HOME", folder.path());
        let process = Process::start("minio", &mut command)?;
        let mut minio = Self { process, port, mc: tools.path("mc")?.to_owned(), folder, root };
        let client = minio.client(&minio.root.clone());
        minio
            .process
            .until("answering", Duration::from_mins(1), async || client.list_buckets().send().await.is_ok())
            .await?;
        Ok(minio)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Who may do everything.
    pub fn root(&self) -> &Credentials {
        &self.root
    }

    /// SIGKILL; what was stored stays until the answer is dropped, and comes back with [`Stopped::start`].
    pub fn kill(self) -> Result<Stopped> {
        self.process.kill()?;
        Ok(Stopped { port: self.port, folder: self.folder })
    }

    /// An S3 client with these credentials. It does not try again: a test sees every refusal.
    pub fn client(&self, credentials: &Credentials) -> aws_sdk_s3::Client {
        let Credentials { access_key, secret_key } = credentials;
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(aws_sdk_s3::config::Credentials::new(
                access_key, secret_key, None, None, "test",
            ))
            .region(Region::new(REGION))
            .endpoint_url(self.endpoint())
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// Its metrics as they are now.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.port, "/minio/metrics/v3/api/requests").await
    }

    /// Makes a bucket; its name has three characters at least.
    pub async fn make_bucket(&self, name: &str) -> Result<()> {
        let made = self.client(&self.root).create_bucket().bucket(name).send().await;
        made.map(drop).with_context(|| format!("cannot make the bucket {name}"))
    }

    /// All keys of a bucket that begin with `prefix`, sorted, with their sizes.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, i64)>> {
        let client = self.client(&self.root);
        let mut pages = client.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            for object in page.with_context(|| format!("cannot list {bucket}"))?.contents() {
                keys.push((object.key().unwrap_or_default().to_owned(), object.size().unwrap_or_default()));
            }
        }
        Ok(keys)
    }

    /// The content of an object.
    pub async fn read(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        let answer = self.client(&self.root).get_object().bucket(bucket).key(key).send().await;
        let body = answer.with_context(|| format!("cannot read {bucket}/{key}"))?.body;
        Ok(body.collect().await?.to_vec())
    }

    /// Stores an object, over whatever is there.
    pub async fn write(&self, bucket: &str, key: &str, content: Vec<u8>) -> Result<()> {
        let put =
            self.client(&self.root).put_object().bucket(bucket).key(key).body(content.into()).send().await;
        put.map(drop).with_context(|| format!("cannot write {bucket}/{key}"))
    }

    /// Makes a user.
    pub fn add_user(&self, user: &Credentials) -> Result<()> {
        self.admin(&["user", "add", ALIAS, &user.access_key, &user.secret_key])
    }

    /// From now on the user is refused, as after the rotation of a key.
    pub fn disable_user(&self, user: &Credentials) -> Result<()> {
        self.admin(&["user", "disable", ALIAS, &user.access_key])
    }

    /// Makes a policy out of its JSON and gives it to the user.
    pub fn grant(&self, user: &Credentials, policy: &str, json: &str) -> Result<()> {
        let file = self.folder.path().join(format!("{policy}.json"));
        std::fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
        self.admin(&["policy", "create", ALIAS, policy, &file.to_string_lossy()])?;
        self.admin(&["policy", "attach", ALIAS, policy, "--user", &user.access_key])
    }

    fn admin(&self, args: &[&str]) -> Result<()> {
        let Credentials { access_key, secret_key } = &self.root;
        let output = Command::new(&self.mc)
            .arg("admin")
            .args(args)
            .env(
                format!("MC_HOST_{ALIAS}"),
                format!("http://{access_key}:{secret_key}@127.0.0.1:{}", self.port),
            )
            .env("MC_CONFIG_DIR", self.folder.path().join("mc"))
            .output()
            .context("cannot start mc")?;
        let written = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mc admin {}: {}\n{written}", args[..2].join(" "), output.status);
        Ok(())
    }
}

/// What a killed MinIO left.
pub struct Stopped {
    port: u16,
    folder: TempDir,
}

impl Stopped {
    /// Starts it again, at the same address over the same data.
    pub async fn start(self, tools: &Tools) -> Result<Minio> {
        Minio::start_at(tools, self.port, self.folder).await
    }
}
