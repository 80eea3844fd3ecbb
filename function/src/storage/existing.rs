//! Storage that **exists**: a shared bucket and credentials of the platform; each cluster has its folder.

use zeroize::Zeroizing;

use super::{Access, Step};
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::input::storage::Existing;
use crate::names::{key, required};
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

/// There is nothing to wait for; refused while there is a bucket of this XR's own, which would be deleted by not
/// being composed.
pub fn step(subject: &Subject, access: &Access) -> Result<Step, Fatal> {
    if subject.request.observed(key::BUCKET).is_some() {
        return Err(Fatal::new(
            "input.storage.provisioner",
            format_args!(
                "the backups so far are in Bucket {}, which ProviderMinio made and which would go with it",
                subject.names.bucket
            ),
            "set it back to ProviderMinio; to use Existing make a new cluster, or drop this one's backups first (spec.backup.enabled: false, deletionPolicy: Delete)",
        )
        .shown_as(Kind::StorageReady, Reason::Refused));
    }
    Ok(Step::Done(Reason::Given, format!("The platform gives bucket {}.", access.bucket)))
}

/// Keys of a Secret and their bytes.
pub type Entries = Vec<(&'static str, Zeroizing<Vec<u8>>)>;

/// The platform's S3 credentials, as entries of the Secret that the sidecar gets; none with another provisioner.
/// An error is what to tell while they are not there.
pub fn credentials(subject: &Subject) -> Result<Entries, String> {
    let Some(existing) = subject.input.storage.existing.as_ref().filter(|_| subject.uses_existing()) else {
        return Ok(Vec::new());
    };
    let secret = subject.request.required(required::STORAGE).found();
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        .into_iter()
        .map(|field| {
            let value = secret.and_then(|secret| entry(secret, field)).ok_or_else(|| {
                let name = &existing.secret_ref.name;
                format!("The platform's Secret {name} has no {field} yet; ask the platform to put it there.")
            })?;
            Ok((field, value))
        })
        .collect()
}
