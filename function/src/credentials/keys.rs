//! The sidecar's **keys**: whom to encrypt to and what to sign with, in the Secret that it gets. No identity.

use vcluster_backup_proto::v1::Severity;

use super::identity::{Fingerprint, Identity};
use super::keyring::Keyring;
use super::refusal::broken;
use super::{awaiting_namespace, keep};
use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::names::key;
use crate::object;
use crate::response::Response;
use crate::storage;
use crate::subject::Subject;

/// Composes the Secret that the sidecar gets, for the identity that is written to.
pub fn compose(
    keyring: &Keyring,
    newest: &Identity,
    subject: &Subject,
    response: &mut Response,
) -> Result<Condition, Fatal> {
    let kind = Kind::CredentialsReady;
    let place = subject.names.keys();
    let is_observed = subject.request.observed(key::KEYS).is_some();
    if !subject.has_namespace() && !is_observed {
        return Ok(awaiting_namespace(&place.namespace));
    }
    let s3 = match storage::credentials(subject) {
        Ok(s3) => s3,
        Err(message) => {
            keep(subject, response, &[key::KEYS]);
            return Ok(Condition::no(kind, Reason::AwaitingStorageSecret, message));
        }
    };
    let recipients = recipients(keyring, newest, subject);
    let (signing_key, _) = newest.signing_key().map_err(|error| broken(subject, &error))?;
    let mut entries = vec![("recipients", recipients.as_bytes()), ("signing-key", signing_key.as_bytes())];
    entries.extend(s3.iter().map(|(key, value)| (*key, value.as_slice())));
    response.compose(key::KEYS, &object::secret(&place.name, &place.namespace, entries), is_observed);
    tell_rotation(newest, subject, response);
    Ok(if is_observed {
        Condition::yes(kind, Reason::Issued, "The keys of the backup are in place.")
    } else {
        Condition::no(kind, Reason::Applying, format!("Secret {place} is being made."))
    })
}

/// One a line: the cluster's newest, the master key's, the platform's, the user's; none twice.
fn recipients(keyring: &Keyring, newest: &Identity, subject: &Subject) -> String {
    let all = [Some(newest.recipient()), keyring.escrow.as_ref()]
        .into_iter()
        .flatten()
        .chain(&subject.input.encryption.recipients)
        .chain(&subject.xr.spec.backup.recipients);
    let mut lines: Vec<String> = Vec::new();
    for line in all.map(|recipient| format!("{recipient}\n")) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

/// Once: the status remembers the identity that was written to before.
fn tell_rotation(newest: &Identity, subject: &Subject, response: &mut Response) {
    let fingerprint = Fingerprint::of(newest.recipient()).to_string();
    if subject.remembered("fingerprint").is_some_and(|before| before != fingerprint) {
        let message = "The keys were changed: from now on backups are encrypted to the new identity, and signed by it from the agent's next start on; those before stay readable by the old one, which is kept.";
        response.tell(Severity::Normal, Reason::KeysRotated, message);
    }
}
