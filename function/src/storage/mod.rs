//! **Storage**: where the backup goes, by whoever provides it.

pub mod existing;
pub mod provider_minio;
pub mod s3_register;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::input::storage::Provisioner;
use crate::names::{key, required};
use crate::object::entry;
use crate::request::Required;
use crate::response::Response;
use crate::subject::{Subject, Wanted};

/// Keys of a Secret and their bytes.
pub type Entries = Vec<(&'static str, Zeroizing<Vec<u8>>)>;

/// What S3 keys are called in Secrets.
pub const S3_KEYS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// The way to the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The bucket.
    pub bucket: String,
    /// Folder in it.
    pub prefix: Option<String>,
    /// The Secret with the S3 credentials, beside the vcluster; none where the pod proves who it is.
    pub secret: Option<String>,
    /// The role that the vcluster's service account takes (web identity).
    pub role_arn: Option<String>,
}

impl Access {
    /// The way to the bucket by the platform's provisioner.
    pub fn of(subject: &Subject) -> Result<Self, Fatal> {
        let storage = &subject.input.storage;
        let mut access = match (storage.provisioner, &storage.existing) {
            (Provisioner::Existing, Some(settings)) => existing::access(subject, settings)?,
            (Provisioner::S3Register, _) => s3_register::access(subject)?,
            _ => provider_minio::access(subject),
        };
        if let Some(role) = storage.role_arn() {
            access.secret = None;
            access.role_arn = Some(role.to_owned());
        }
        Ok(access)
    }
}

/// How far storage is.
pub enum Step {
    /// All there.
    Done(Reason, String),
    /// This is still to come.
    Coming(Reason, String),
}

/// Asks for what the provisioner's Secrets hold.
pub fn require(subject: &Subject, response: &mut Response) -> Result<(), Fatal> {
    let storage = &subject.input.storage;
    match (storage.provisioner, storage.existing.as_ref().and_then(|existing| existing.secret_ref.as_ref())) {
        (Provisioner::Existing, Some(secret)) if storage.role_arn().is_none() => {
            let place = subject.locate("input.storage.existing.secretRef", secret)?;
            response.require(required::STORAGE, "v1", "Secret", &place);
        }
        (Provisioner::S3Register, _) => {
            response.require(required::REGISTERED, "v1", "Secret", &s3_register::place(subject));
        }
        _ => {}
    }
    if let Some(certificate) = &storage.ca_secret_ref {
        let place = subject.locate("input.storage.caSecretRef", certificate)?;
        response.require(required::CERTIFICATE, "v1", "Secret", &place);
    }
    Ok(())
}

/// Composes storage and tells how far it is.
pub fn compose(subject: &Subject, access: &Access, response: &mut Response) -> Result<(), Fatal> {
    if subject.wanted() == Wanted::Dropped {
        // What was made by one is dropped by it too, whoever provides storage now.
        provider_minio::drop(subject, response)?;
        s3_register::drop(subject, response)?;
    } else {
        check_unchanged(subject)?;
    }
    if subject.wanted() != Wanted::On {
        if subject.wanted() == Wanted::Kept {
            step(subject, access, response)?;
        }
        let message = "Backup is switched off; bucket and credentials that were made stay until deletionPolicy is Delete.";
        response.set_condition(Condition::no(Kind::StorageReady, Reason::Disabled, message));
        return Ok(());
    }
    match step(subject, access, response)? {
        Step::Done(reason, message) => {
            response.set_condition(Condition::yes(Kind::StorageReady, reason, message));
        }
        Step::Coming(reason, message) => {
            response.withhold();
            response.set_condition(Condition::no(Kind::StorageReady, reason, message));
        }
    }
    Ok(())
}

fn step(subject: &Subject, access: &Access, response: &mut Response) -> Result<Step, Fatal> {
    match subject.input.storage.provisioner {
        Provisioner::Existing => Ok(existing::step(access)),
        Provisioner::ProviderMinio => provider_minio::compose(subject, access, response),
        Provisioner::S3Register => s3_register::compose(subject, access, response),
    }
}

/// Refuses another provisioner while there is what the one before made: it would be deleted by not being composed.
fn check_unchanged(subject: &Subject) -> Result<(), Fatal> {
    let now = subject.input.storage.provisioner;
    let made = [
        (Provisioner::ProviderMinio, key::BUCKET, "Bucket"),
        (Provisioner::S3Register, key::REGISTER, "Release"),
    ];
    let Some((before, _, kind)) = made
        .into_iter()
        .find(|(provisioner, key, _)| *provisioner != now && subject.request.observed(key).is_some())
    else {
        return Ok(());
    };
    Err(Fatal::new(
        "input.storage.provisioner",
        format_args!(
            "the backups so far are in {kind} {}, which {before:?} made and which would go with it",
            subject.names.bucket
        ),
        format_args!("set it back to {before:?}; to use {now:?} make a new cluster, or drop this one's backups first (spec.backup.enabled: false, deletionPolicy: Delete)"),
    )
    .shown_as(Kind::StorageReady, Reason::Refused))
}

/// Whether all is there that the vcluster's pod mounts, or is let in by.
pub fn is_there(subject: &Subject) -> bool {
    let is_ready = |key| subject.request.is_ready(key);
    match subject.input.storage.provisioner {
        Provisioner::Existing => true,
        Provisioner::ProviderMinio if subject.input.storage.role_arn().is_some() => {
            is_ready(key::BUCKET) && is_ready(key::POLICY)
        }
        Provisioner::ProviderMinio => is_ready(key::USER),
        Provisioner::S3Register => is_ready(key::REGISTER),
    }
}

/// The S3 credentials that go into the Secret that the sidecar gets; none where they have a Secret of their own, or
/// there are none. An error is what to tell while they are not there.
pub fn credentials(subject: &Subject) -> Result<Entries, String> {
    match subject.input.storage.provisioner {
        _ if subject.input.storage.role_arn().is_some() => Ok(Vec::new()),
        Provisioner::ProviderMinio => Ok(Vec::new()),
        Provisioner::Existing => existing::credentials(subject),
        Provisioner::S3Register => s3_register::credentials(subject),
    }
}

/// Both S3 keys of a Secret, if it has them.
pub fn s3_keys(secret: &Value) -> Option<Entries> {
    S3_KEYS.into_iter().map(|name| Some((name, entry(secret, name)?))).collect()
}

/// What the S3 server's certificate is checked against.
pub enum Certificate {
    /// The system's certificates.
    System,
    /// This one too.
    Own(String),
    /// The platform's Secret does not tell yet.
    Missing,
}

/// Reads the certificate.
pub fn certificate(subject: &Subject) -> Certificate {
    if subject.input.storage.ca_secret_ref.is_none() {
        return Certificate::System;
    }
    let Required::Found(secret) = subject.request.required(required::CERTIFICATE) else {
        return Certificate::Missing;
    };
    entry(secret, "ca.crt")
        .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
        .map_or(Certificate::Missing, Certificate::Own)
}
