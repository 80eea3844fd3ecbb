//! **Storage**: where the backup goes, by whoever provides it.

pub mod existing;
pub mod provider_minio;

use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::input::storage::Provisioner;
use crate::names::required;
use crate::object::entry;
use crate::request::Required;
use crate::response::Response;
use crate::subject::{Subject, Wanted};

/// The way to the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The bucket.
    pub bucket: String,
    /// Folder in it.
    pub prefix: Option<String>,
    /// The Secret with the S3 credentials, beside the vcluster; none where the pod proves who it is.
    pub secret: Option<String>,
    /// The role that the vcluster's service account is to have in the cloud (web identity).
    pub role_arn: Option<String>,
}

impl Access {
    /// The way to the bucket by the platform's provisioner.
    pub fn of(subject: &Subject) -> Result<Self, Fatal> {
        match (subject.input.storage.provisioner, &subject.input.storage.existing) {
            (Provisioner::Existing, Some(settings)) => existing::access(subject, settings),
            _ => Ok(provider_minio::access(subject)),
        }
    }
}

/// How far storage is.
pub enum Step {
    /// All there.
    Done(Reason, String),
    /// This is still to come.
    Coming(Reason, String),
}

/// Composes storage and tells how far it is.
pub fn compose(subject: &Subject, access: &Access, response: &mut Response) -> Result<(), Fatal> {
    let step = match subject.input.storage.provisioner {
        Provisioner::Existing if subject.wanted() != Wanted::Dropped => existing::step(subject, access)?,
        // What was made by this one is dropped by it too, whoever provides storage now.
        _ => provider_minio::compose(subject, &provider_minio::access(subject), response)?,
    };
    if subject.wanted() != Wanted::On {
        let message = "Backup is switched off; bucket and credentials that were made stay until deletionPolicy is Delete.";
        response.set_condition(Condition::no(Kind::StorageReady, Reason::Disabled, message));
        return Ok(());
    }
    match step {
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
