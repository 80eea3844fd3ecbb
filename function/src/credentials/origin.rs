//! The **origin** of one identity: where it is found, and where it comes from if it is not.
//!
//! ```text
//!  master-key given ───────────► derived when needed, stored nowhere
//!  Secret not looked for yet ──► nothing that depends on it
//!  Secret found ───────────────► used; its fingerprint goes into the status
//!  none, and none was issued ──► the user's saved one, else a new one
//!  none, but one was issued ───► the user's saved one if it is that one, else fatal: another could not
//!                                read what is in the bucket
//!  that of another XR ─────────► as if not looked for: a deleted cluster's goes with it
//! ```

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::identity::{Fingerprint, Identity, IdentityError};
use super::refusal::{self, changed, missing, refuse};
use super::saved::Saved;
use super::{IDENTITY, MASTER_KEY};
use crate::condition::Reason;
use crate::fatal::Fatal;
use crate::input::Keeping;
use crate::names::{Place, key, required};
use crate::object::{self, entry};
use crate::request::Required;
use crate::spec::ROTATIONS;
use crate::status::Issued;
use crate::subject::Subject;
use crate::xr::Flavour;

/// Where an identity is.
pub enum Origin {
    /// Crossplane has not looked yet.
    Unresolved,
    /// Its place is taken, by another XR or by what is being deleted.
    Taken,
    /// There is none yet, and nowhere to put one.
    Homeless,
    /// There is none yet, and the Secret that the user names is not there.
    Awaited,
    /// There is none yet: it is drawn when those before it are kept.
    Next,
    /// Drawn just now.
    Drawn(Identity),
    /// The user's saved one, to be kept.
    Saved(Identity),
    /// In its Secret, which is composed as it is.
    Stored(Identity, Value),
    /// Derived from the master key.
    Derived(Identity),
}

impl Origin {
    /// The identity, if it cannot get lost any more.
    pub fn held(&self) -> Option<&Identity> {
        match self {
            Self::Stored(identity, _) | Self::Derived(identity) => Some(identity),
            _ => None,
        }
    }
}

/// All that tells of identities: what is found, and what is known to have been issued.
pub struct Traces<'a> {
    subject: &'a Subject<'a>,
    issued: Issued,
    /// By rotation number; none without a master key.
    derived: Vec<Identity>,
    found: Vec<Option<(Identity, &'a Value)>>,
    /// Whom the sidecar encrypts to, if it has been told: the first line of its recipients.
    in_use: Option<Zeroizing<Vec<u8>>>,
}

impl<'a> Traces<'a> {
    /// Gathers them; refuses if fewer are asked for than there are.
    pub fn of(subject: &'a Subject) -> Result<Self, Fatal> {
        let issued = Issued::remembered(subject.request.composite());
        let observed = |rotation: &usize| subject.request.observed(&key::identity(*rotation)).is_some();
        let highest = (0..=ROTATIONS as usize).rev().find(observed).map_or(0, |rotation| rotation + 1);
        let known = highest.max(issued.fingerprints.len());
        if known > subject.rotations() {
            return Err(refusal::lowered(known));
        }
        let derived =
            derived(subject, &subject.xr.name, subject.xr.namespace.as_deref(), subject.rotations())?;
        let keeps_sealed = subject.input.encryption.identity == Keeping::Sealed;
        if subject.xr.flavour == Flavour::Namespaced && keeps_sealed && derived.is_empty() {
            return Err(refusal::cannot_seal());
        }
        let first_line = |keys| {
            let recipients = entry(keys, "recipients").unwrap_or_default();
            Zeroizing::new(recipients.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec())
        };
        let in_use = subject.request.observed(key::KEYS).map(first_line);
        let mut traces = Self { subject, issued, derived, found: Vec::new(), in_use };
        traces.found =
            (0..subject.rotations()).map(|rotation| traces.find(rotation)).collect::<Result<_, _>>()?;
        Ok(traces)
    }

    /// Whether a master key is in force.
    pub fn has_master(&self) -> bool {
        !self.derived.is_empty()
    }

    /// What the master key derives for a rotation.
    pub fn derived(&self, rotation: usize) -> Option<&Identity> {
        self.derived.get(rotation)
    }

    /// Whether there was ever an identity of a rotation: the status says so, it or a later one is there, or there
    /// are recipients of one that is not.
    pub fn was_issued(&self, rotation: usize) -> bool {
        self.issued.fingerprint(rotation).is_some()
            || (rotation..self.found.len())
                .any(|later| self.subject.request.observed(&key::identity(later)).is_some())
            || self.found[rotation + 1..].iter().any(Option::is_some)
            || self.in_use().is_some_and(|recipient| !self.is_known(recipient))
    }

    /// Where the identity of a rotation is.
    pub fn origin(&self, rotation: usize, saved: &Saved) -> Result<Origin, Fatal> {
        let subject = self.subject;
        let place = subject.names.identity_of(rotation);
        let required = subject.request.required(&required::identity(rotation));
        let derived = self.derived(rotation);
        if let Some(derived) = derived.filter(|derived| self.is_issued(rotation, derived)) {
            return Ok(Origin::Derived(derived.clone()));
        }
        if let Some((identity, secret)) = &self.found[rotation] {
            if self.issued.fingerprint(rotation).is_some() && !self.is_issued(rotation, identity) {
                return Err(changed(&place));
            }
            return Ok(Origin::Stored(identity.clone(), again(&place, secret)));
        }
        if matches!(required, Required::Found(_)) {
            return Ok(Origin::Taken);
        }
        let was_issued = self.was_issued(rotation);
        if let Some(derived) = derived.filter(|_| !was_issued) {
            // What was not looked for yet makes no difference to a key that is stored nowhere.
            let is_in_use = self.in_use() == Some(derived.recipient().to_string().as_bytes());
            if is_in_use
                || matches!(saved, Saved::None)
                || (rotation > 0 && saved.of_rotation(rotation).is_none())
            {
                return Ok(Origin::Derived(derived.clone()));
            }
        }
        match (required, saved) {
            (Required::Unresolved, _) | (_, Saved::Unresolved) => Ok(Origin::Unresolved),
            (_, Saved::None) if was_issued => Err(missing(&place)),
            (_, Saved::Found(_, secret)) if was_issued => {
                let back = saved.issued(self.issued.fingerprint(rotation), self.in_use());
                back.cloned().map(Origin::Saved).ok_or_else(|| refusal::another(secret))
            }
            // The first is waited for; what a later one would have been is known only when it is there.
            (_, Saved::Missing) if was_issued || rotation == 0 => Ok(Origin::Awaited),
            (_, saved) => match saved.of_rotation(rotation) {
                _ if is_homeless(subject) => Ok(Origin::Homeless),
                Some(identity) => Ok(Origin::Saved(identity.clone())),
                None => Ok(Origin::Next),
            },
        }
    }

    fn in_use(&self) -> Option<&[u8]> {
        self.in_use.as_deref().map(Vec::as_slice)
    }

    fn is_issued(&self, rotation: usize, identity: &Identity) -> bool {
        self.issued.fingerprint(rotation) == Some(Fingerprint::of(identity.recipient()).to_string().as_str())
    }

    fn is_known(&self, recipient: &[u8]) -> bool {
        let found = self.found.iter().flatten().map(|(identity, _)| identity);
        found.chain(&self.derived).any(|known| known.recipient().to_string().as_bytes() == recipient)
    }

    /// What is in a rotation's Secret, if that is this XR's and needed.
    fn find(&self, rotation: usize) -> Result<Option<(Identity, &'a Value)>, Fatal> {
        let subject = self.subject;
        let Required::Found(secret) = subject.request.required(&required::identity(rotation)) else {
            return Ok(None);
        };
        let is_derived = self.derived(rotation).is_some_and(|derived| self.is_issued(rotation, derived));
        if is_derived || !object::is_free_for(secret, subject.xr.uid.as_deref()) {
            return Ok(None);
        }
        Ok(Some((stored(&subject.names.identity_of(rotation), secret)?, secret)))
    }
}

/// What the master key derives for a cluster, by rotation number; nothing without one.
pub fn derived(
    subject: &Subject,
    name: &str,
    namespace: Option<&str>,
    rotations: usize,
) -> Result<Vec<Identity>, Fatal> {
    let Some(data) = subject.request.credentials(MASTER_KEY) else { return Ok(Vec::new()) };
    // Credentials without the key are a mistake: taken for none, they would leave every identity in a Secret.
    let key = data.get(MASTER_KEY).map(Vec::as_slice).unwrap_or_default();
    let rotations = 0..u32::try_from(rotations).unwrap_or_default();
    let all = rotations.map(|rotation| Identity::derive(key, namespace.unwrap_or_default(), name, rotation));
    all.collect::<Result<_, _>>().map_err(|error| {
        let way_out =
            "put 32 random bytes or more into key master-key of the Secret, such as `openssl rand -base64 48` gives";
        refuse("credentials.master-key", error, way_out, Reason::IdentityInvalid)
    })
}

/// The identity in a Secret of this function's.
pub fn stored(place: &Place, secret: &Value) -> Result<Identity, Fatal> {
    let text = entry(secret, IDENTITY).unwrap_or_default();
    let parsed = std::str::from_utf8(&text).map_err(|_| IdentityError::Malformed).and_then(Identity::parse);
    parsed.map_err(|error| {
        let field = format!("Secret {place}, key {IDENTITY}");
        refuse(field, error, "put the identity back from where it is escrowed", Reason::IdentityInvalid)
    })
}

/// The Secret as it was found: its own data, whatever else is in it.
fn again(place: &Place, found: &Value) -> Value {
    let mut secret = object::kept("Secret", &place.name, &place.namespace, found);
    secret["immutable"] = json!(true);
    secret
}

/// Whether there is no namespace yet to keep an identity in.
fn is_homeless(subject: &Subject) -> bool {
    subject.names.identity.namespace == subject.names.namespace && !subject.has_namespace()
}
