//! **Credentials**: the keys of a backup, made once and never again.
//!
//! ```text
//!  origin ──► keyring ──┬──► keys       the sidecar's Secret: recipients, signing key
//!  saved  ──┘           ├──► handover   while a restore needs them: the identities
//!                       └──► escrow     who else reads the backup
//! ```
//!
//! A new identity is composed alone: a response that is applied by half must not leave recipients without it.

pub mod escrow;
pub mod handover;
pub mod identity;
pub mod keyring;
mod keys;
mod origin;
mod refusal;
pub mod saved;

use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use crate::condition::{Condition, Kind, Reason, Status};
use crate::drill;
use crate::fatal::Fatal;
use crate::names::{key, required};
use crate::object;
use crate::report::Report;
use crate::request::Required;
use crate::response::Response;
use crate::source::Source;
use crate::spec::ROTATIONS;
use crate::status::Issued;
use crate::subject::{Subject, Wanted};
use handover::Handover;
use identity::Identity;
use keyring::Keyring;
pub use origin::{derived, stored};
use refusal::broken;

/// Name, and key, of the pipeline step's credentials.
const MASTER_KEY: &str = "master-key";
/// The entry with the identity, in every Secret that has one.
pub const IDENTITY: &str = "age-identity";
const RECIPIENT: &str = "age-recipient";

/// The keys of one backup.
pub struct Credentials {
    keyring: Keyring,
}

impl Credentials {
    /// Finds the identities, or draws one that was never issued.
    pub fn resolve(subject: &Subject, random: &dyn SecureRandom) -> Result<Self, Fatal> {
        let keyring = Keyring::resolve(subject, random)?;
        Ok(Self { keyring })
    }

    /// Composes the Secrets, sets their conditions, and returns what may be known of the keys.
    pub fn compose(
        &self,
        subject: &Subject,
        report: &Report,
        source: &Source,
        response: &mut Response,
    ) -> Result<(Issued, Handover), Fatal> {
        let keyring = &self.keyring;
        let own: Vec<_> = keyring.held().map(Identity::recipient).collect();
        response.set_condition(escrow::escrow(subject.input, &subject.xr.spec, &own, keyring.has_master)?);
        let handover = handover::compose(keyring, subject, report, source, response)?;
        response.set_condition(self.sealed(subject, handover));
        let coming = keyring.compose(subject, response)?;
        if coming.is_some() {
            response.withhold();
        }
        let (condition, issued) = if let Some(newest) = keyring.newest() {
            let condition = keys::compose(keyring, newest, subject, response)?;
            let condition = match coming {
                Some(coming) if condition.status == Status::True => coming,
                _ => condition,
            };
            (condition, keyring.issued(subject)?)
        } else {
            keep(subject, response, &[key::KEYS]);
            let resolving = || {
                Condition::unknown(Kind::CredentialsReady, Reason::Resolving, "Secrets are being looked for.")
            };
            (coming.unwrap_or_else(resolving), Issued::remembered(subject.request.composite()))
        };
        if condition.status != Status::True {
            response.withhold();
        }
        response.set_condition(condition);
        Ok((issued, handover))
    }

    /// All identities that are kept, one a line, the newest first.
    pub fn identities(&self, subject: &Subject) -> Result<Option<Zeroizing<String>>, Fatal> {
        let all: Vec<&Identity> = self.keyring.held().collect();
        if all.is_empty() {
            return Ok(None);
        }
        handover::lines(&all, &[]).map(Some).map_err(|error| broken(subject, &error))
    }

    /// Whether the vcluster's pod can read an identity where it is stored.
    pub fn is_in_namespace(&self, subject: &Subject) -> bool {
        subject.keeps_identity_in_namespace() && !self.keyring.is_derived()
    }

    fn sealed(&self, subject: &Subject, handover: Handover) -> Condition {
        let kind = Kind::KeySealed;
        let places = self.keyring.places(subject);
        if self.is_in_namespace(subject) {
            let message = format!(
                "The identity is in Secret {places}, which the vcluster's pod can read; give the function a master-key to keep it out of its reach."
            );
            return Condition::no(kind, Reason::InNamespace, message);
        }
        if handover.is_open {
            let place = subject.names.restore_key();
            let message = if handover.is_unasked {
                format!(
                    "The agent restores without having been asked, because the volume is empty or as autoRestore says, and needs the identity: it is in Secret {place} until the restore is done."
                )
            } else {
                format!("A restore needs the identity: it is in Secret {place} until the restore is done.")
            };
            return Condition::no(kind, Reason::OpenForRestore, message);
        }
        if self.keyring.is_derived() {
            let place = drill::keeps_derived(subject);
            let message =
                format!("The identity is derived from the master key when needed, and stored {place}.");
            return Condition::yes(kind, Reason::Derived, message);
        }
        Condition::yes(kind, Reason::KeptApart, format!("The identity is kept in Secret {places}."))
    }
}

fn awaiting_namespace(namespace: &str) -> Condition {
    let message = format!("Namespace {namespace} is being made by the release.");
    Condition::no(Kind::CredentialsReady, Reason::AwaitingNamespace, message)
}

/// Asks for the identities' Secrets: the same for the same spec and status.
pub fn require(subject: &Subject, response: &mut Response) -> Result<(), Fatal> {
    let known = Issued::remembered(subject.request.composite()).fingerprints.len();
    for rotation in 0..subject.rotations().max(known).min(ROTATIONS as usize + 1) {
        let place = subject.names.identity_of(rotation);
        response.require(&required::identity(rotation), "v1", "Secret", &place);
    }
    if let Some(place) = saved::place(subject)? {
        response.require(required::SAVED, "v1", "Secret", &place);
    }
    Ok(())
}

/// With the backup switched off: what there is stays, or goes.
pub fn compose_off(subject: &Subject, response: &mut Response) -> Issued {
    for kind in [Kind::CredentialsReady, Kind::KeySealed, Kind::KeyEscrowed] {
        response.set_condition(Condition::unknown(kind, Reason::Disabled, "Backup is switched off."));
    }
    let issued = Issued::remembered(subject.request.composite());
    let identities: Vec<String> = (0..=ROTATIONS as usize).map(key::identity).collect();
    if subject.wanted() == Wanted::Kept {
        let identities = identities.iter().map(String::as_str);
        let all: Vec<&str> = identities.chain([key::KEYS, key::CONFIG]).collect();
        keep(subject, response, &all);
        return issued;
    }
    // Forgotten only when they are gone: until then they must not be taken for never issued.
    let is_gone = |rotation| {
        let required = subject.request.required(&required::identity(rotation));
        matches!(required, Required::Missing)
    };
    let count = subject.rotations().max(issued.fingerprints.len());
    if (0..count).all(is_gone) { Issued::default() } else { issued }
}

/// Composes what is observed as it is: what is left out is deleted.
pub fn keep(subject: &Subject, response: &mut Response, keys: &[&str]) {
    for key in keys {
        let identity = (0..=ROTATIONS as usize).find(|rotation| key::identity(*rotation) == **key);
        let (kind, place) = match (*key, identity) {
            (_, Some(rotation)) => ("Secret", subject.names.identity_of(rotation)),
            (key::RESTORE_KEY, _) => ("Secret", subject.names.restore_key()),
            (key::CONFIG, _) => ("ConfigMap", subject.names.config()),
            _ => ("Secret", subject.names.keys()),
        };
        if let Some(observed) = subject.request.observed(key) {
            response.compose(key, &object::kept(kind, &place.name, &place.namespace, observed), true);
        }
    }
}
