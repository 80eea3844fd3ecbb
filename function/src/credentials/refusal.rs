//! **Refusals** of this module: why there are no keys, and what to do.

use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::names::Place;
use crate::subject::Subject;

use super::IDENTITY;
use super::identity::IdentityError;

/// One was issued, and its Secret is gone.
pub fn missing(place: &Place) -> Fatal {
    refuse(
        format_args!("Secret {place}"),
        "the identity that this backup was begun with is gone, and a new one could not read it",
        "name a saved one in spec.backup.identitySecretRef (its key: age-identity), put the Secret back with its labels and annotations, or pass the master-key that it was derived from",
        Reason::IdentityMissing,
    )
}

/// Its Secret holds another one.
pub fn changed(place: &Place) -> Fatal {
    refuse(
        format_args!("Secret {place}, key {IDENTITY}"),
        "this is another identity than the backup was begun with (status.backup.fingerprint)",
        "put the first one back",
        Reason::IdentityChanged,
    )
}

/// The user's saved one is another than what was issued.
pub fn another(place: &Place) -> Fatal {
    refuse(
        format_args!("spec.backup.identitySecretRef: Secret {place}"),
        "this is another identity than the backup was begun with (status.backup.fingerprint)",
        "name the Secret of that one, or take the field out; to change to a new identity raise spec.backup.rotateKeys",
        Reason::IdentityChanged,
    )
}

/// The user's Secret holds more than there are rotations.
pub fn too_many(place: &Place, count: usize) -> Fatal {
    refuse(
        format_args!("spec.backup.identitySecretRef: Secret {place}"),
        format_args!("it holds {count} identities, which are those of {} rotations", count - 1),
        format_args!("set spec.backup.rotateKeys to {} or more", count - 1),
        Reason::IdentityChanged,
    )
}

/// Fewer are asked for than were issued.
pub fn lowered(issued: usize) -> Fatal {
    let last = issued - 1;
    refuse(
        "spec.backup.rotateKeys",
        format_args!("identity {last} was issued, and what it alone reads would be lost"),
        format_args!("set it back to {last}, or raise it for a new one"),
        Reason::Refused,
    )
}

/// Something failed that does not depend on anybody.
pub fn broken(subject: &Subject, error: &IdentityError) -> Fatal {
    let field = format!("Secret {}", subject.names.identity);
    refuse(field, error, "it is tried again", Reason::IdentityInvalid)
}

/// Any other refusal that is about keys.
pub fn refuse(
    field: impl std::fmt::Display,
    cause: impl std::fmt::Display,
    way_out: impl std::fmt::Display,
    reason: Reason,
) -> Fatal {
    Fatal::new(field, cause, way_out).shown_as(Kind::CredentialsReady, reason)
}

/// A namespaced XR has nowhere to seal an identity away.
pub fn cannot_seal() -> Fatal {
    Fatal::new(
        "input.encryption.identity",
        "a namespaced XR cannot keep a Secret out of its own namespace, where the vcluster's pod reads every Secret",
        "pass credentials master-key to the function, or set it to InNamespace to accept that",
    )
    .shown_as(Kind::KeySealed, Reason::Refused)
}
