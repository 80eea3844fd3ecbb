//! **Credentials**: the keys of a backup, made once and never again.
//!
//! ```text
//!  master-key given ───────────► derived when needed, stored nowhere
//!  Secret not looked for yet ──► nothing that depends on it
//!  Secret found ───────────────► used; its fingerprint goes into the status
//!  none, and none was issued ──► a new one, alone: a response that is applied by half must not leave
//!                                recipients without their identity
//!  none, but one was issued ───► fatal: a new one could not read what is in the bucket
//!  that of another XR ─────────► as if not looked for: a deleted cluster's goes with it
//! ```

pub mod escrow;
pub mod identity;
mod refusal;

use ring::rand::SecureRandom;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::Severity;
use zeroize::Zeroizing;

use crate::condition::{Condition, Kind, Reason, Status};
use crate::drill;
use crate::fatal::Fatal;
use crate::input::Keeping;
use crate::names::{key, required};
use crate::object::{self, entry};
use crate::recipient::Recipient;
use crate::report::Report;
use crate::request::Required;
use crate::response::Response;
use crate::status::Issued;
use crate::storage;
use crate::subject::{Subject, Wanted};
use crate::xr::Flavour;
use identity::{Fingerprint, Identity, IdentityError};
use refusal::{awaiting_namespace, broken, changed, missing, refuse};

/// Name, and key, of the pipeline step's credentials.
const MASTER_KEY: &str = "master-key";
/// Entry of a Secret with identities, one a line.
pub const IDENTITY: &str = "age-identity";
const RECIPIENT: &str = "age-recipient";

/// Where the identity is.
enum Origin {
    /// Crossplane has not looked yet.
    Unresolved,
    /// Its place is taken, by another XR or by what is being deleted.
    Taken,
    /// There is none yet, and nowhere to put one.
    Homeless,
    /// Drawn just now.
    Drawn(Identity),
    /// In its Secret, which is composed as it is.
    Stored(Identity, Value),
    /// Derived from the master key.
    Derived(Identity),
}

/// The keys of one backup.
pub struct Credentials {
    origin: Origin,
    /// What the master key derives, where an older identity is in force.
    escrow: Option<Recipient>,
    has_master: bool,
}

impl Credentials {
    /// Finds the identity, or draws one if none was ever issued.
    pub fn resolve(subject: &Subject, random: &dyn SecureRandom) -> Result<Self, Fatal> {
        let master = master(subject)?;
        let has_master = master.is_some();
        let keeps_sealed = subject.input.encryption.identity == Keeping::Sealed;
        if subject.xr.flavour == Flavour::Namespaced && keeps_sealed && !has_master {
            return Err(refusal::cannot_seal());
        }
        let issued = subject.remembered("fingerprint");
        let is_issued =
            |identity: &Identity| issued == Some(Fingerprint::of(identity.recipient()).to_string().as_str());
        let origin = match (subject.request.required(required::IDENTITY), master) {
            (_, Some(master)) if is_issued(&master) => Origin::Derived(master),
            (Required::Found(secret), _) if !object::is_free_for(secret, subject.xr.uid.as_deref()) => {
                Origin::Taken
            }
            (Required::Found(secret), master) => {
                let found = stored(subject, secret)?;
                if issued.is_some() && !is_issued(&found) {
                    return Err(changed(subject));
                }
                let escrow = master.map(|master| master.recipient().clone());
                return Ok(Self {
                    origin: Origin::Stored(found, again(subject, secret)),
                    escrow,
                    has_master,
                });
            }
            // What was not looked for yet makes no difference to a key that is stored nowhere.
            (Required::Missing | Required::Unresolved, Some(master))
                if issued.is_none() && !contradicts(subject, &master) =>
            {
                Origin::Derived(master)
            }
            (Required::Unresolved, _) => Origin::Unresolved,
            (Required::Missing, None) if !was_issued(subject) => draw(subject, random)?,
            (Required::Missing, _) => return Err(missing(subject)),
        };
        Ok(Self { origin, escrow: None, has_master })
    }

    /// The Secret that the init container looks for the identity in.
    pub fn identity_secret(&self, subject: &Subject) -> String {
        if self.is_in_namespace(subject) {
            subject.names.identity.name.clone()
        } else {
            subject.names.restore_key().name
        }
    }

    /// All identities that are known, one a line.
    pub fn identities(&self, subject: &Subject) -> Result<Option<Zeroizing<String>>, Fatal> {
        self.identity().map(Identity::reveal).transpose().map_err(|error| broken(subject, &error))
    }

    /// Whether the vcluster's pod can read the identity where it is stored.
    pub fn is_in_namespace(&self, subject: &Subject) -> bool {
        subject.keeps_identity_in_namespace() && !matches!(self.origin, Origin::Derived(_))
    }

    fn identity(&self) -> Option<&Identity> {
        match &self.origin {
            Origin::Stored(identity, _) | Origin::Derived(identity) => Some(identity),
            Origin::Unresolved | Origin::Taken | Origin::Homeless | Origin::Drawn(_) => None,
        }
    }

    /// Composes the Secrets, sets their conditions, and returns what may be known of the keys.
    pub fn compose(
        &self,
        subject: &Subject,
        report: &Report,
        response: &mut Response,
    ) -> Result<Issued, Fatal> {
        let own = self.identity().map(Identity::recipient);
        response.set_condition(escrow::escrow(subject.input, &subject.xr.spec, own, self.has_master)?);
        let opened = self.compose_restore_key(subject, report, response)?;
        response.set_condition(self.sealed(subject, opened));
        let (condition, issued) = match self.compose_identity(subject, response)? {
            Ok(identity) => (compose_keys(self, identity, subject, response)?, issued(subject, identity)?),
            Err(waiting) => (waiting, Issued::remembered(subject)),
        };
        if condition.status != Status::True {
            response.withhold();
        }
        response.set_condition(condition);
        Ok(issued)
    }

    /// Composes the identity's Secret; returns the identity, or what it waits for.
    fn compose_identity(
        &self,
        subject: &Subject,
        response: &mut Response,
    ) -> Result<Result<&Identity, Condition>, Fatal> {
        let kind = Kind::CredentialsReady;
        let place = &subject.names.identity;
        Ok(match &self.origin {
            Origin::Unresolved => {
                keep(subject, response, &[key::IDENTITY, key::KEYS]);
                let message = format!("Secret {place} is being looked for.");
                Err(Condition::unknown(kind, Reason::Resolving, message))
            }
            Origin::Taken => {
                keep(subject, response, &[key::IDENTITY, key::KEYS]);
                let message = format!(
                    "Secret {place} belongs to another Vcluster or is being deleted; if it does not go away by itself, look at its ownerReferences and finalizers."
                );
                Err(Condition::no(kind, Reason::IdentityTaken, message))
            }
            Origin::Homeless => Err(awaiting_namespace(&place.namespace)),
            Origin::Drawn(identity) => {
                response.compose(key::IDENTITY, &identity_secret(subject, identity)?, false);
                let message =
                    format!("A new identity was made; the backup begins when it is kept in Secret {place}.");
                response.tell(Severity::Normal, Reason::IdentityIssued, message.clone());
                Err(Condition::no(kind, Reason::IdentityIssued, message))
            }
            Origin::Stored(identity, secret) => {
                let is_observed = subject.request.observed(key::IDENTITY).is_some();
                response.compose(key::IDENTITY, secret, is_observed);
                Ok(identity)
            }
            Origin::Derived(identity) => Ok(identity),
        })
    }

    /// One a line: the cluster's own, the master key's, the platform's, the user's; none twice.
    fn recipients(&self, subject: &Subject, identity: &Identity) -> String {
        let all = [Some(identity.recipient()), self.escrow.as_ref()]
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

    /// While a restore needs it the identity lies where the init container can mount it.
    fn compose_restore_key(
        &self,
        subject: &Subject,
        report: &Report,
        response: &mut Response,
    ) -> Result<bool, Fatal> {
        let is_observed = subject.request.observed(key::RESTORE_KEY).is_some();
        let Some(identity) = self.identity() else {
            keep(subject, response, &[key::RESTORE_KEY]);
            return Ok(is_observed);
        };
        let asked = subject.pending_restore(report.restored_id.as_deref()).is_some() || report.awaits_key();
        if self.is_in_namespace(subject) || !asked || !(subject.has_namespace() || is_observed) {
            return Ok(false);
        }
        let text = identity.reveal().map_err(|error| broken(subject, &error))?;
        let place = subject.names.restore_key();
        let secret = object::secret(&place.name, &place.namespace, [(IDENTITY, text.as_bytes())]);
        response.compose(key::RESTORE_KEY, &secret, is_observed);
        Ok(true)
    }

    fn sealed(&self, subject: &Subject, opened: bool) -> Condition {
        let kind = Kind::KeySealed;
        if self.is_in_namespace(subject) {
            let message = format!(
                "The identity is in Secret {}, which the vcluster's pod can read; give the function a master-key to keep it out of its reach.",
                subject.names.identity
            );
            return Condition::no(kind, Reason::InNamespace, message);
        }
        if opened {
            let message = format!(
                "A restore needs the identity: it is in Secret {} until the restore is done.",
                subject.names.restore_key()
            );
            return Condition::no(kind, Reason::OpenForRestore, message);
        }
        if let Origin::Derived(_) = self.origin {
            let place = drill::keeps_derived(subject);
            let message =
                format!("The identity is derived from the master key when needed, and stored {place}.");
            return Condition::yes(kind, Reason::Derived, message);
        }
        let message = format!("The identity is kept in Secret {}.", subject.names.identity);
        Condition::yes(kind, Reason::KeptApart, message)
    }
}

/// Composes the Secret that the sidecar gets.
fn compose_keys(
    credentials: &Credentials,
    identity: &Identity,
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
    let recipients = credentials.recipients(subject, identity);
    let (signing_key, _) = identity.signing_key().map_err(|error| broken(subject, &error))?;
    let mut entries = vec![("recipients", recipients.as_bytes()), ("signing-key", signing_key.as_bytes())];
    entries.extend(s3.iter().map(|(key, value)| (*key, value.as_slice())));
    response.compose(key::KEYS, &object::secret(&place.name, &place.namespace, entries), is_observed);
    Ok(if is_observed {
        Condition::yes(kind, Reason::Issued, "The keys of the backup are in place.")
    } else {
        Condition::no(kind, Reason::Applying, format!("Secret {place} is being made."))
    })
}

fn issued(subject: &Subject, identity: &Identity) -> Result<Issued, Fatal> {
    let (_, signer) = identity.signing_key().map_err(|error| broken(subject, &error))?;
    Ok(Issued {
        recipient: Some(identity.recipient().to_string()),
        fingerprint: Some(Fingerprint::of(identity.recipient()).to_string()),
        signer: Some(signer),
    })
}

/// With the backup switched off: what there is stays, or goes.
pub fn compose_off(subject: &Subject, response: &mut Response) -> Issued {
    for kind in [Kind::CredentialsReady, Kind::KeySealed, Kind::KeyEscrowed] {
        response.set_condition(Condition::unknown(kind, Reason::Disabled, "Backup is switched off."));
    }
    if subject.wanted() == Wanted::Kept {
        keep(subject, response, &[key::IDENTITY, key::KEYS, key::CONFIG]);
        return Issued::remembered(subject);
    }
    // Forgotten only when it is gone: until then it must not be taken for never issued.
    match subject.request.required(required::IDENTITY) {
        Required::Missing => Issued::default(),
        Required::Found(_) | Required::Unresolved => Issued::remembered(subject),
    }
}

/// Composes what is observed as it is: what is left out is deleted.
pub fn keep(subject: &Subject, response: &mut Response, keys: &[&str]) {
    for key in keys {
        let (kind, place) = match *key {
            key::IDENTITY => ("Secret", subject.names.identity.clone()),
            key::RESTORE_KEY => ("Secret", subject.names.restore_key()),
            key::CONFIG => ("ConfigMap", subject.names.config()),
            _ => ("Secret", subject.names.keys()),
        };
        if let Some(observed) = subject.request.observed(key) {
            response.compose(key, &object::kept(kind, &place.name, &place.namespace, observed), true);
        }
    }
}

fn draw(subject: &Subject, random: &dyn SecureRandom) -> Result<Origin, Fatal> {
    let in_release_namespace = subject.names.identity.namespace == subject.names.namespace;
    if in_release_namespace && !subject.has_namespace() {
        return Ok(Origin::Homeless);
    }
    Identity::draw(random).map(Origin::Drawn).map_err(|error| broken(subject, &error))
}

/// The identity that the master key derives, if there is a master key.
fn master(subject: &Subject) -> Result<Option<Identity>, Fatal> {
    let Some(data) = subject.request.credentials(MASTER_KEY) else { return Ok(None) };
    let namespace = subject.xr.namespace.as_deref().unwrap_or_default();
    // Credentials without the key are a mistake: taken for none, they would leave every identity in a Secret.
    let key = data.get(MASTER_KEY).map(Vec::as_slice).unwrap_or_default();
    Identity::derive(key, namespace, &subject.xr.name, 0).map(Some).map_err(|error| {
        let way_out =
            "put 32 random bytes or more into key master-key of the Secret, such as `openssl rand -base64 48` gives";
        refuse("credentials.master-key", error, way_out, Reason::IdentityInvalid)
    })
}

fn stored(subject: &Subject, secret: &Value) -> Result<Identity, Fatal> {
    let text = entry(secret, IDENTITY).unwrap_or_default();
    let parsed = std::str::from_utf8(&text).map_err(|_| IdentityError::Malformed).and_then(Identity::parse);
    parsed.map_err(|error| {
        let field = format!("Secret {}, key {IDENTITY}", subject.names.identity);
        refuse(field, error, "put the identity back from where it is escrowed", Reason::IdentityInvalid)
    })
}

/// The Secret as it was found: its own data, whatever else is in it.
fn again(subject: &Subject, found: &Value) -> Value {
    let place = &subject.names.identity;
    let mut secret = object::kept("Secret", &place.name, &place.namespace, found);
    secret["immutable"] = json!(true);
    secret
}

fn identity_secret(subject: &Subject, identity: &Identity) -> Result<Value, Fatal> {
    let text = identity.reveal().map_err(|error| broken(subject, &error))?;
    let recipient = identity.recipient().to_string();
    let place = &subject.names.identity;
    let entries = [(IDENTITY, text.as_bytes()), (RECIPIENT, recipient.as_bytes())];
    let mut secret = object::secret(&place.name, &place.namespace, entries);
    // A second, differing draw from a stale reading is refused by the API server, not written over the first.
    secret["immutable"] = json!(true);
    Ok(secret)
}

/// Whether there is, or are recipients of, another identity than the one that is derived.
fn contradicts(subject: &Subject, derived: &Identity) -> bool {
    let own = subject.request.observed(key::KEYS).map(|keys| entry(keys, "recipients").unwrap_or_default());
    let derived = derived.recipient().to_string();
    subject.request.observed(key::IDENTITY).is_some()
        || own.is_some_and(|own| own.split(|byte| *byte == b'\n').next() != Some(derived.as_bytes()))
}

/// Whether an identity was ever issued: the status says so, or there are recipients that belong to one.
fn was_issued(subject: &Subject) -> bool {
    let observed = |key| subject.request.observed(key).is_some();
    subject.remembered("fingerprint").is_some() || observed(key::IDENTITY) || observed(key::KEYS)
}
