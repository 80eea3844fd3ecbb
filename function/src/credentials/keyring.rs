//! The **keyring**: all identities of a backup, by rotation number. The newest is written to; the earlier ones go
//! on reading what was written to them, so none is ever lost.

use ring::rand::SecureRandom;
use serde_json::{Value, json};
use vcluster_backup_proto::v1::Severity;

use super::identity::{Fingerprint, Identity};
use super::origin::{Origin, Traces};
use super::refusal::broken;
use super::saved::Saved;
use super::{IDENTITY, RECIPIENT, awaiting_namespace, keep};
use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::names::{Place, key};
use crate::object;
use crate::recipient::Recipient;
use crate::response::Response;
use crate::status::Issued;
use crate::subject::Subject;

/// All identities of a backup.
pub struct Keyring {
    /// By rotation number.
    origins: Vec<Origin>,
    /// Whether all that were ever issued are at hand.
    is_settled: bool,
    /// What the master key derives, where another identity is in force.
    pub escrow: Option<Recipient>,
    /// Whether a master key is in force.
    pub has_master: bool,
}

impl Keyring {
    /// Finds the identities, and draws the first that was never issued: one at a time, when those before it are
    /// kept.
    pub fn resolve(subject: &Subject, random: &dyn SecureRandom) -> Result<Self, Fatal> {
        let traces = Traces::of(subject)?;
        let saved = Saved::of(subject)?;
        let mut origins: Vec<Origin> = Vec::new();
        for rotation in 0..subject.rotations() {
            let before_it = origins.iter().all(|origin| origin.held().is_some());
            origins.push(match traces.origin(rotation, &saved)? {
                Origin::Next if before_it => {
                    Origin::Drawn(Identity::draw(random).map_err(|error| broken(subject, &error))?)
                }
                Origin::Saved(_) | Origin::Derived(_) if !before_it && !traces.was_issued(rotation) => {
                    Origin::Next
                }
                origin => origin,
            });
        }
        let known: Vec<Option<&Identity>> = origins
            .iter()
            .map(|origin| if let Origin::Saved(identity) = origin { Some(identity) } else { origin.held() })
            .collect();
        saved.check(&known)?;
        let is_settled = origins.iter().enumerate().all(|(rotation, origin)| match origin {
            Origin::Unresolved => false,
            origin => origin.held().is_some() || !traces.was_issued(rotation),
        });
        let newest = origins.iter().enumerate().rev().find(|(_, origin)| origin.held().is_some());
        let escrow = match newest {
            Some((rotation, Origin::Stored(..))) => traces.derived(rotation).map(|it| it.recipient().clone()),
            _ => None,
        };
        Ok(Self { is_settled, escrow, has_master: traces.has_master(), origins })
    }

    /// The identities that cannot get lost any more, the newest first.
    pub fn held(&self) -> impl Iterator<Item = &Identity> {
        self.origins.iter().rev().filter_map(Origin::held)
    }

    /// Those of them that are in a Secret.
    pub fn stored(&self) -> impl Iterator<Item = &Identity> {
        let stored = |origin: &Origin| matches!(origin, Origin::Stored(..));
        self.origins.iter().rev().filter(move |origin| stored(origin)).filter_map(Origin::held)
    }

    /// The identity to write to; none while it is not known which that is.
    pub fn newest(&self) -> Option<&Identity> {
        self.held().next().filter(|_| self.is_settled)
    }

    /// Whether all of them follow from the master key.
    pub fn is_derived(&self) -> bool {
        self.origins.iter().all(|origin| matches!(origin, Origin::Derived(_)))
    }

    /// The Secrets of those that do not; the first one's while none is known.
    pub fn places(&self, subject: &Subject) -> String {
        let origins = self.origins.iter().enumerate();
        let stored = origins.filter(|(_, origin)| matches!(origin, Origin::Stored(..)));
        let places: Vec<String> =
            stored.map(|(rotation, _)| subject.names.identity_of(rotation).to_string()).collect();
        if places.is_empty() { subject.names.identity.to_string() } else { places.join(" and ") }
    }

    /// What identifies them.
    pub fn issued(&self, subject: &Subject) -> Result<Issued, Fatal> {
        let mut issued = Issued::default();
        for identity in self.origins.iter().filter_map(Origin::held) {
            let (_, signer) = identity.signing_key().map_err(|error| broken(subject, &error))?;
            issued.recipient = Some(identity.recipient().to_string());
            issued.fingerprints.push(Fingerprint::of(identity.recipient()).to_string());
            issued.signers.push(signer.clone());
        }
        Ok(issued)
    }

    /// Composes their Secrets; returns what is still to come.
    pub fn compose(&self, subject: &Subject, response: &mut Response) -> Result<Option<Condition>, Fatal> {
        let mut first = None;
        for (rotation, origin) in self.origins.iter().enumerate() {
            let key = key::identity(rotation);
            let place = subject.names.identity_of(rotation);
            match origin {
                Origin::Derived(_) => {}
                Origin::Stored(_, secret) => {
                    response.compose(&key, secret, subject.request.observed(&key).is_some());
                }
                Origin::Drawn(identity) | Origin::Saved(identity) => {
                    response.compose(&key, &secret(subject, &place, identity)?, false);
                    let message = self.coming(origin, &place).message;
                    response.tell(Severity::Normal, Reason::IdentityIssued, message);
                }
                _ => keep(subject, response, &[&key]),
            }
            if first.is_none() && origin.held().is_none() {
                first = Some(self.coming(origin, &place));
            }
        }
        Ok(first)
    }

    fn coming(&self, origin: &Origin, place: &Place) -> Condition {
        let kind = Kind::CredentialsReady;
        match origin {
            Origin::Taken => {
                let message = format!(
                    "Secret {place} belongs to another Vcluster or is being deleted; if it does not go away by itself, look at its ownerReferences and finalizers."
                );
                Condition::no(kind, Reason::IdentityTaken, message)
            }
            Origin::Homeless => awaiting_namespace(&place.namespace),
            Origin::Awaited => {
                let message = "The Secret of spec.backup.identitySecretRef is not there; put the saved identity into it (key age-identity), or take the field out.";
                Condition::no(kind, Reason::AwaitingIdentity, message)
            }
            Origin::Drawn(_) | Origin::Saved(_) | Origin::Next if self.newest().is_some() => {
                let message = format!(
                    "A new identity goes into Secret {place}; until it is kept the backup goes on with the one before."
                );
                Condition::yes(kind, Reason::Rotating, message)
            }
            Origin::Drawn(_) => {
                let message =
                    format!("A new identity was made; the backup begins when it is kept in Secret {place}.");
                Condition::no(kind, Reason::IdentityIssued, message)
            }
            Origin::Saved(_) => {
                let message = format!(
                    "The saved identity is taken; the backup goes on when it is kept in Secret {place}."
                );
                Condition::no(kind, Reason::IdentityIssued, message)
            }
            _ => {
                let message = format!("Secret {place} is being looked for.");
                Condition::unknown(kind, Reason::Resolving, message)
            }
        }
    }
}

fn secret(subject: &Subject, place: &Place, identity: &Identity) -> Result<Value, Fatal> {
    let text = identity.reveal().map_err(|error| broken(subject, &error))?;
    let recipient = identity.recipient().to_string();
    let entries = [(IDENTITY, text.as_bytes()), (RECIPIENT, recipient.as_bytes())];
    let mut secret = object::secret(&place.name, &place.namespace, entries);
    // A second, differing draw from a stale reading is refused by the API server, not written over the first.
    secret["immutable"] = json!(true);
    Ok(secret)
}
