//! The **handover**: while a restore needs them, the identities lie in a Secret that the init container mounts,
//! beside the keys to another cluster's bucket if it is from there. Whole or not at all.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::identity::{Identity, IdentityError};
use super::keyring::Keyring;
use super::refusal::broken;
use super::{IDENTITY, keep};
use crate::fatal::Fatal;
use crate::names::key;
use crate::object;
use crate::report::Report;
use crate::response::Response;
use crate::source::{SOURCE_ACCESS_KEY, SOURCE_SECRET_KEY, Source};
use crate::subject::Subject;

/// What was handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handover {
    /// What is sealed otherwise is in the pod's reach.
    pub is_open: bool,
    /// Though nobody asked for a restore: the agent decided on one.
    pub is_unasked: bool,
    /// What the restore that is asked for needs is known to be there.
    pub is_done: bool,
}

/// Composes the Secret, if there is anything to be in it.
pub fn compose(
    keyring: &Keyring,
    subject: &Subject,
    report: &Report,
    source: &Source,
    response: &mut Response,
) -> Result<Handover, Fatal> {
    let observed = subject.request.observed(key::RESTORE_KEY);
    if keyring.newest().is_none() || matches!(source, Source::Unresolved) {
        keep(subject, response, &[key::RESTORE_KEY]);
        return Ok(Handover { is_open: observed.is_some(), ..Handover::default() });
    }
    let is_asked = match source {
        Source::Missing(..) => false,
        _ => subject.pending_restore(report.restored_id.as_deref()).is_some(),
    };
    // A restore that the agent decided on itself; what was handed over stays until it says how it went.
    let is_open = is_asked || report.awaits_key() || (observed.is_some() && report.is_restoring());
    let own: Vec<&Identity> = if is_open {
        keyring.held().collect()
    } else if subject.keeps_identity_in_namespace() {
        keyring.stored().collect()
    } else {
        Vec::new()
    };
    let backup = if let (true, Source::Found(backup)) = (is_asked, source) { Some(backup) } else { None };
    if own.is_empty() || !(subject.has_namespace() || observed.is_some()) {
        return Ok(Handover::default());
    }
    let more = backup.map_or(&[][..], |backup| &backup.identities);
    let identities = lines(&own, more).map_err(|error| broken(subject, &error))?;
    let mut entries = vec![(IDENTITY, identities.as_bytes())];
    if let Some(keys) = backup.and_then(|backup| backup.keys.as_ref()) {
        entries.extend([(SOURCE_ACCESS_KEY, &keys.access[..]), (SOURCE_SECRET_KEY, &keys.secret[..])]);
    }
    let place = subject.names.restore_key();
    let secret = object::secret(&place.name, &place.namespace, entries);
    response.compose(key::RESTORE_KEY, &secret, observed.is_some());
    let is_done = observed.is_some_and(|observed| observed.get("data") == secret.get("data"));
    Ok(Handover { is_open, is_unasked: is_open && !is_asked, is_done })
}

/// One a line, the newest first, none twice.
pub(super) fn lines(own: &[&Identity], more: &[Identity]) -> Result<Zeroizing<String>, IdentityError> {
    let mut known = BTreeSet::new();
    let mut lines = Zeroizing::new(String::new());
    for identity in own.iter().copied().chain(more) {
        if !known.insert(identity.recipient()) {
            continue;
        }
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&identity.reveal()?);
    }
    Ok(lines)
}
