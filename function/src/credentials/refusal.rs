//! **Refusals** of this module: why there are no keys, and what to do.

use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::subject::Subject;

use super::IDENTITY;
use super::identity::IdentityError;

/// One was issued, and its Secret is gone.
pub fn missing(subject: &Subject) -> Fatal {
    refuse(
        format_args!("Secret {}", subject.names.identity),
        "the identity that this backup was begun with is gone, and a new one could not read it",
        "put the Secret back (key age-identity), or pass the master-key that it was derived from",
        Reason::IdentityMissing,
    )
}

/// Its Secret holds another one.
pub fn changed(subject: &Subject) -> Fatal {
    refuse(
        format_args!("Secret {}, key {IDENTITY}", subject.names.identity),
        "this is another identity than the backup was begun with (status.backup.fingerprint)",
        "put the first one back",
        Reason::IdentityChanged,
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

/// No refusal: there is nowhere to put them yet.
pub fn awaiting_namespace(namespace: &str) -> Condition {
    let message = format!("Namespace {namespace} is being made by the release.");
    Condition::no(Kind::CredentialsReady, Reason::AwaitingNamespace, message)
}
