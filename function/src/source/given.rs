//! A source that is **given**: a bucket, and a Secret beside the claim with all keys to it. Never the platform's
//! keys, which may open more than this user should see.

use super::{Backup, Gap, S3Keys, signers};
use crate::condition::Reason;
use crate::credentials::IDENTITY;
use crate::credentials::identity::Identity;
use crate::fatal::Fatal;
use crate::names::required;
use crate::object::entry;
use crate::reference::LocalSecretRef;
use crate::request::Required;
use crate::response::Response;
use crate::subject::Subject;

/// Asks for the Secret, and reads it.
pub fn find(
    subject: &Subject,
    bucket: &str,
    prefix: Option<&str>,
    secret: &LocalSecretRef,
    response: &mut Response,
) -> Result<Backup, Gap> {
    let place = subject.locate_beside("spec.restore.from.secretRef", secret)?;
    response.require(required::SOURCE, "v1", "Secret", &place);
    let missing = |what: &str| {
        let message = format!("Secret {place} of spec.restore.from has no {what}; put it there.");
        Gap::Missing(Reason::SourceMissing, message)
    };
    let secret = match subject.request.required(required::SOURCE) {
        Required::Unresolved => return Err(Gap::Unresolved),
        Required::Missing => {
            let message = format!(
                "Secret {place} of spec.restore.from is not there; make it, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and {IDENTITY}."
            );
            return Err(Gap::Missing(Reason::SourceMissing, message));
        }
        Required::Found(secret) => secret,
    };
    let keys = S3Keys::of(secret).map_err(missing)?;
    if entry(secret, IDENTITY).is_none_or(|bytes| bytes.is_empty()) {
        return Err(missing(IDENTITY));
    }
    let refuse = |field: &str, cause: &str, way_out: &str| {
        Fatal::new(format_args!("spec.restore.from.secretRef: Secret {place}, key {field}"), cause, way_out)
            .shown_as(crate::condition::Kind::Restored, Reason::Refused)
    };
    let identities = Identity::read_all(secret, IDENTITY).map_err(|error| {
        refuse(IDENTITY, &error.to_string(), "put the identity there as it was saved, one a line")
    })?;
    let signers = match entry(secret, "signer").filter(|bytes| !bytes.is_empty()) {
        None => Vec::new(),
        Some(bytes) => std::str::from_utf8(&bytes).ok().and_then(signers).ok_or_else(|| {
            refuse(
                "signer",
                "it is no signer",
                "take it from status.backup.signer of that cluster, or leave it out",
            )
        })?,
    };
    let folder = prefix.map(|prefix| prefix.trim_matches('/').to_owned()).filter(|prefix| !prefix.is_empty());
    Ok(Backup { bucket: bucket.to_owned(), prefix: folder, identities, keys: Some(keys), signers })
}
