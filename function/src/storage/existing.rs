//! Storage that **exists**: a shared bucket and credentials of the platform; each cluster has its folder.

use super::{Access, Entries, S3_KEYS, Step};
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::input::storage::Existing;
use crate::names::required;
use crate::object::entry;
use crate::subject::Subject;

/// The way to the bucket.
pub fn access(subject: &Subject, existing: &Existing) -> Result<Access, Fatal> {
    let asked = subject.xr.spec.backup.bucket.as_ref();
    if asked.is_some_and(|asked| *asked != existing.bucket) {
        // The credentials are the platform's: they may open more than this user should see.
        return Err(Fatal::new(
            "spec.backup.bucket",
            "the platform gives the bucket (storage.provisioner: Existing)",
            "take it out",
        )
        .shown_as(Kind::StorageReady, Reason::Refused));
    }
    let above = existing.prefix.trim_matches('/');
    let prefix = match above {
        "" => subject.names.prefix.clone(),
        above => format!("{above}/{}", subject.names.prefix),
    };
    Ok(Access {
        bucket: existing.bucket.clone(),
        prefix: Some(prefix),
        secret: Some(subject.names.keys().name),
        role_arn: None,
    })
}

/// There is nothing to wait for.
pub fn step(access: &Access) -> Step {
    Step::Done(Reason::Given, format!("The platform gives bucket {}.", access.bucket))
}

/// The platform's S3 credentials.
pub fn credentials(subject: &Subject) -> Result<Entries, String> {
    let existing = subject.input.storage.existing.as_ref();
    let name = existing.and_then(|existing| existing.secret_ref.as_ref()).map(|secret| secret.name.as_str());
    let secret = subject.request.required(required::STORAGE).found();
    S3_KEYS
        .into_iter()
        .map(|field| {
            let value = secret.and_then(|secret| entry(secret, field)).ok_or_else(|| {
                let name = name.unwrap_or_default();
                format!("The platform's Secret {name} has no {field} yet; ask the platform to put it there.")
            })?;
            Ok((field, value))
        })
        .collect()
}
