//! A **saved** identity: the user's own, in a Secret beside the claim, to go on with instead of a new one, or to
//! bring back one whose Secret is gone.

use super::IDENTITY;
use super::identity::{Fingerprint, Identity};
use super::refusal::{self, refuse};
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::names::{Place, required};
use crate::request::Required;
use crate::subject::Subject;

/// What the user has saved.
pub enum Saved {
    /// Nothing, or nothing that is to be used.
    None,
    /// Crossplane has not looked yet.
    Unresolved,
    /// The Secret is not there yet.
    Missing,
    /// One or more, as a restore's Secret has them: the newest first.
    Found(Vec<Identity>, Place),
}

impl Saved {
    /// Reads what `spec.backup.identitySecretRef` names.
    pub fn of(subject: &Subject) -> Result<Self, Fatal> {
        let Some(place) = place(subject)? else { return Ok(Self::None) };
        let secret = match subject.request.required(required::SAVED) {
            Required::Unresolved => return Ok(Self::Unresolved),
            Required::Missing => return Ok(Self::Missing),
            Required::Found(secret) => secret,
        };
        match Identity::read_all(secret, IDENTITY) {
            Ok(all) if all.len() > subject.rotations() => Err(refusal::too_many(&place, all.len())),
            Ok(all) => Ok(Self::Found(all, place)),
            Err(error) => {
                let field = format!("spec.backup.identitySecretRef: Secret {place}, key {IDENTITY}");
                let way_out = "put the identity there as it was saved, one a line, the newest first";
                Err(refuse(field, error, way_out, Reason::IdentityInvalid))
            }
        }
    }

    /// The one of a rotation.
    pub fn of_rotation(&self, rotation: usize) -> Option<&Identity> {
        let Self::Found(all, _) = self else { return None };
        all.iter().rev().nth(rotation)
    }

    /// The one that was issued, by its fingerprint or by the recipient that is in use.
    pub fn issued(&self, fingerprint: Option<&str>, in_use: Option<&[u8]>) -> Option<&Identity> {
        let Self::Found(all, _) = self else { return None };
        all.iter().find(|identity| match fingerprint {
            Some(fingerprint) => Fingerprint::of(identity.recipient()).to_string() == fingerprint,
            None => in_use == Some(identity.recipient().to_string().as_bytes()),
        })
    }

    /// Refuses one that is none of `held`, where its rotation has another.
    pub fn check(&self, held: &[Option<&Identity>]) -> Result<(), Fatal> {
        let Self::Found(all, place) = self else { return Ok(()) };
        let is_known = |saved: &Identity| held.iter().flatten().any(|it| it.recipient() == saved.recipient());
        let has_other = |rotation: usize| held.get(rotation).is_some_and(Option::is_some);
        let strange =
            all.iter().rev().enumerate().any(|(rotation, saved)| !is_known(saved) && has_other(rotation));
        if strange { Err(refusal::another(place)) } else { Ok(()) }
    }
}

/// Where the Secret is, if one is named.
pub fn place(subject: &Subject) -> Result<Option<Place>, Fatal> {
    let secret = subject.xr.spec.backup.identity_secret_ref.as_ref();
    let place =
        secret.map(|secret| subject.locate_beside("spec.backup.identitySecretRef", secret)).transpose();
    place.map_err(|fatal| fatal.shown_as(Kind::CredentialsReady, Reason::Refused))
}
