//! The **store**: a bucket, and the few calls that the agent needs of it. Nothing of versioning, locks,
//! tags or server-side encryption is asked, so that any S3 will do.

mod body;
mod connection;
mod s3;
mod unverified;
mod upload;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::catalogue::Listed;
use crate::metrics::Code;

pub use body::{ObjectReader, PartSender, PartWriter, Parts, parts};
pub use s3::S3Store;

/// Facts about an object that LIST does not tell and that need no key: kept as S3 user metadata.
pub type Metadata = BTreeMap<String, String>;

/// Where the bucket is and how to get in.
#[derive(Clone)]
pub struct StoreSettings {
    /// URL of the server; `None` is AWS itself.
    pub endpoint: Option<String>,
    /// Region name that requests are signed for.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// How to prove who we are.
    pub credentials: CredentialSource,
    /// Do not check the server's certificate.
    pub insecure: bool,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Where the bucket's name goes in the URL.
    pub addressing: Addressing,
}

/// How requests are signed.
#[derive(Clone)]
pub enum CredentialSource {
    /// Key pair given by flag or environment.
    Static {
        /// The public half.
        access_key: String,
        /// The secret half.
        secret_key: SecretString,
    },
    /// Key pair in files, read again when the store refuses what they held.
    Files {
        /// The public half.
        access_key: PathBuf,
        /// The secret half.
        secret_key: PathBuf,
    },
    /// Environment, profile, web identity, container and instance credentials, in the SDKs' order.
    Standard,
}

/// Where the bucket's name goes in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// `https://host/bucket/key`: every server of one's own.
    Path,
    /// `https://bucket.host/key`: AWS.
    Virtual,
    /// Virtual for AWS, path for all else.
    #[default]
    Auto,
}

/// What a call to the store failed of. Each names the object or bucket and the way out.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No bucket of this name.
    #[error("there is no bucket {bucket} at {endpoint}: create it, or correct --bucket (BUCKET_NAME)")]
    NoBucket {
        /// The bucket.
        bucket: String,
        /// The server.
        endpoint: String,
    },
    /// The store does not take these credentials for this call.
    #[error("{endpoint} refused to {operation} {object} ({code}): {}", refusal_hint(.code))]
    Refused {
        /// The verb.
        operation: &'static str,
        /// Bucket or key.
        object: String,
        /// The server.
        endpoint: String,
        /// S3's error code.
        code: String,
    },
    /// No answer.
    #[error(
        "cannot reach {endpoint} to {operation} {object} ({cause}): check --endpoint, the network and the server's certificate"
    )]
    Unreachable {
        /// The verb.
        operation: &'static str,
        /// Bucket or key.
        object: String,
        /// The server.
        endpoint: String,
        /// The innermost cause.
        cause: String,
    },
    /// No such object.
    #[error("there is no object {0} in the bucket: `vcluster-backup list` shows what is there")]
    NotFound(String),
    /// Another writer was first.
    #[error(
        "object {0} is there already, written by another agent: two must not back up the same database; stop one, or give each its own --prefix"
    )]
    Exists(String),
    /// Nothing to sign with.
    #[error(
        "no S3 credentials were found: give --access-key-file and --secret-key-file, ACCESS_KEY and SECRET_KEY, or the standard AWS_* variables"
    )]
    NoCredentials,
    /// A credential file could not be read.
    #[error("cannot read the S3 credentials in {path}: check the mounted Secret")]
    CredentialFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The endpoint or CA file makes no sense.
    #[error("{0}")]
    Settings(String),
    /// The producer of the bytes gave up; nothing was published.
    #[error("the upload of {0} was given up, nothing was published")]
    Abandoned(String),
    /// Any other answer.
    #[error("{endpoint} failed to {operation} {object} ({code} {message}): the server's own log says more")]
    Failed {
        /// The verb.
        operation: &'static str,
        /// Bucket or key.
        object: String,
        /// The server.
        endpoint: String,
        /// S3's error code or HTTP status.
        code: String,
        /// S3's words.
        message: String,
    },
}

fn refusal_hint(code: &str) -> &'static str {
    match code {
        "InvalidAccessKeyId" => "the access key is not known there; check --access-key or its file",
        "SignatureDoesNotMatch" => "the secret key is wrong, or --region is not the server's",
        "RequestTimeTooSkewed" => "this machine's clock is wrong",
        "ExpiredToken" => "the session token has expired",
        _ => "the credentials lack the right; the policy must allow it on this bucket and prefix",
    }
}

impl StoreError {
    /// Whether the same call may succeed later without anyone changing a setting.
    pub fn is_retryable(&self) -> bool {
        // A refusal too: keys are rotated, policies repaired, and a sidecar outlives both.
        matches!(
            self,
            Self::Unreachable { .. } | Self::Failed { .. } | Self::Refused { .. } | Self::NoBucket { .. }
        )
    }

    /// The metric's label.
    fn code(&self) -> Code {
        match self {
            Self::Refused { .. } | Self::NoCredentials | Self::CredentialFile { .. } => Code::refused,
            Self::NotFound(_) | Self::NoBucket { .. } => Code::not_found,
            Self::Exists(_) => Code::conflict,
            Self::Unreachable { .. } => Code::unreachable,
            Self::Settings(_) | Self::Abandoned(_) | Self::Failed { .. } => Code::error,
        }
    }
}

/// A bucket.
pub trait Store: Send + Sync + 'static {
    /// All objects whose key begins with `prefix`, in key order; those behind `after` if it is given.
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;

    /// An object's metadata; `None` if there is no such object.
    fn head(&self, key: &str) -> impl Future<Output = Result<Option<Metadata>, StoreError>> + Send;

    /// Begins to fetch an object. The reader is for blocking code and goes on by itself after a broken
    /// connection.
    fn get(&self, key: &str) -> impl Future<Output = Result<ObjectReader, StoreError>> + Send;

    /// Publishes a new object; fails with [`StoreError::Exists`] if another writer was first, where the store
    /// can tell. Nothing is published unless all parts arrived.
    fn put_new(
        &self,
        key: &str,
        metadata: &Metadata,
        parts: Parts,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes an object; it need not be there.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}
