//! A **site**: a bucket in a MinIO, a data volume beside it, and the agent's settings for both.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::agent::{self, Finished};
use crate::minio::Minio;
use crate::sidecar::Sidecar;
use crate::toolbox::Tools;
use crate::vcluster;

/// The bucket.
pub const BUCKET: &str = "backups";
/// The identity's file, in the folder where the agent runs.
pub const IDENTITY_FILE: &str = "key.txt";
/// The volume that kine's database is on.
const VOLUME: &str = "data";

/// A running MinIO with an empty bucket, and an empty volume. Needs the tools `minio` and `mc`.
pub struct Site {
    tools: Tools,
    folder: TempDir,
    minio: Minio,
}

impl Site {
    /// Starts it.
    pub async fn start(tools: Tools) -> Result<Self> {
        let minio = Minio::start(&tools).await?;
        minio.make_bucket(BUCKET).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join(IDENTITY_FILE), vcluster::IDENTITY)?;
        std::fs::create_dir(folder.path().join(VOLUME))?;
        Ok(Self { tools, folder, minio })
    }

    /// What the test asked for.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The S3 server.
    pub fn minio(&self) -> &Minio {
        &self.minio
    }

    /// A file in the folder where the agent runs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// kine's database.
    pub fn database(&self) -> PathBuf {
        self.path(VOLUME).join("state.db")
    }

    /// The volume is lost, and a new one is mounted in its place.
    pub fn lose_volume(&self) -> Result<()> {
        let volume = self.path(VOLUME);
        std::fs::remove_dir_all(&volume).context("cannot delete the volume")?;
        std::fs::create_dir(&volume).context("cannot make a new volume")
    }

    /// A command of the agent with the pod's settings.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = agent::command(args)?;
        command
            .env("ENDPOINT", self.minio.endpoint())
            .env("BUCKET_NAME", BUCKET)
            .env("ACCESS_KEY", &self.minio.root().access_key)
            .env("SECRET_KEY", &self.minio.root().secret_key)
            .env("BACKUP_FILE", self.database())
            .current_dir(self.folder.path());
        Ok(command)
    }

    /// Runs a verb to its end, which must be a good one.
    pub async fn run(&self, args: &[&str]) -> Result<Finished> {
        agent::finish(self.command(args)?).await?.ended(0)
    }

    /// The init container: decides what kine starts on, and returns its sentence.
    pub async fn ensure(&self) -> Result<String> {
        let decided = self.run(&["ensure", "--identity-file", IDENTITY_FILE]).await?;
        Ok(decided.text().trim().to_owned())
    }

    /// The sidecar, once it is ready, with more flags than the pod's own.
    pub async fn sidecar(&self, flags: &[&str]) -> Result<Sidecar> {
        let run = ["run", "--recipient", vcluster::RECIPIENT];
        Sidecar::start(self.command(&[&run, flags].concat())?).await
    }
}
