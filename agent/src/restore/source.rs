//! The **source** of a restore that is not of the agent's own backup: a clone of another cluster, or what an earlier one left.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::header::Owner;
use crate::object_name::Prefix;
use crate::signing::Signers;
use crate::store::{CredentialSource, StoreSettings};

/// Another place on the same S3 server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Its bucket.
    pub bucket: String,
    /// The folder in it.
    #[serde(default)]
    pub prefix: String,
    /// File with the access key; the agent's own credentials without it.
    #[serde(default)]
    pub access_key_file: Option<PathBuf>,
    /// File with the secret key.
    #[serde(default)]
    pub secret_key_file: Option<PathBuf>,
    /// Whose signature the objects must bear, separated by commas; without it unsigned ones are taken too.
    #[serde(default)]
    pub signer: Signers,
    /// Whose backup it must be.
    #[serde(default)]
    pub owner: Option<Owner>,
}

impl Source {
    /// What is wrong with it, in words.
    pub fn problem(&self) -> Option<&'static str> {
        if self.bucket.is_empty() {
            return Some("restore.from.bucket is empty: name the bucket to restore from");
        }
        (self.access_key_file.is_some() != self.secret_key_file.is_some())
            .then_some("restore.from.accessKeyFile and secretKeyFile go together: one of them is missing")
    }

    /// The files that its credentials are in.
    pub fn credential_files(&self) -> Vec<&Path> {
        self.access_key_file.iter().chain(&self.secret_key_file).map(PathBuf::as_path).collect()
    }

    /// The folder in its bucket.
    pub fn prefix(&self) -> Prefix {
        Prefix::new(&self.prefix)
    }

    /// The way there: that of the agent's own bucket, with another bucket and other credentials.
    pub fn store(&self, own: StoreSettings) -> StoreSettings {
        let credentials = match (&self.access_key_file, &self.secret_key_file) {
            (Some(access_key), Some(secret_key)) => {
                CredentialSource::Files { access_key: access_key.clone(), secret_key: secret_key.clone() }
            }
            _ => own.credentials,
        };
        StoreSettings { bucket: self.bucket.clone(), credentials, ..own }
    }
}
