//! The backup of another **Vcluster**, of the same namespace, or of one that shares it (`spec.backup.shareWith`).
//!
//! ```text
//!  the Vcluster ──► its spec ──► its names ──► its identities, from their Secrets or the master key
//!                                        └───► the keys to its bucket
//! ```
//!
//! Nobody learns by this what there is in a namespace that shares nothing with him.

use serde_json::{Value, json};

use super::{Backup, Gap, S3Keys, is_claims};
use crate::condition::{Kind, Reason};
use crate::credentials::identity::{Fingerprint, Identity};
use crate::credentials::{derived, stored};
use crate::fatal::Fatal;
use crate::input::storage::Provisioner;
use crate::names::{Names, Place, required};
use crate::object::{at, text};
use crate::request::Required;
use crate::response::Response;
use crate::spec::ROTATIONS;
use crate::status::Issued;
use crate::storage::Access;
use crate::subject::Subject;
use crate::xr::{Flavour, Xr, read_spec};

/// What a source is asked for as.
struct Reference {
    api_version: String,
    kind: String,
    /// Without a namespace if cluster-scoped.
    place: Place,
}

/// Asks for the Vcluster and for what its spec leads to, and reads it; `is_pending` unless the restore is done.
pub fn find(
    subject: &Subject,
    name: &str,
    namespace: Option<&str>,
    is_pending: bool,
    response: &mut Response,
) -> Result<Backup, Gap> {
    let own = subject.xr.namespace.as_deref();
    let reference = Reference::of(subject, name, namespace)?;
    response.require(required::SOURCE, &reference.api_version, &reference.kind, &reference.place);
    let found = subject.request.required(required::SOURCE);
    if !is_pending || matches!(found, Required::Unresolved) {
        return Err(Gap::Unresolved);
    }
    let is_foreign = namespace.is_some_and(|namespace| Some(namespace) != own);
    if is_foreign && !found.found().is_some_and(|source| shares_with(source, own)) {
        return Err(not_shared(own).into());
    }
    let title =
        if reference.place.namespace.is_empty() { name.to_owned() } else { reference.place.to_string() };
    let Some(object) = found.found() else {
        let message = format!("There is no {} {title}; correct spec.restore.from.", reference.kind);
        return Err(Gap::Missing(Reason::SourceMissing, message));
    };
    let missing = |what: String| Gap::Missing(Reason::SourceNotReady, format!("{title} {what}"));
    let xr = xr(subject, object, name, &reference.place)
        .map_err(|_| missing("is refused itself; `kubectl describe` it.".into()))?;
    let names = Names::of(&xr, subject.input)
        .map_err(|_| missing("is refused itself; `kubectl describe` it.".into()))?;
    let source = Subject { request: subject.request, input: subject.input, xr: &xr, names: &names };
    let access = Access::of(&source).map_err(|_| missing("has no bucket; `kubectl describe` it.".into()))?;

    // All are asked for before the first is judged, or they would be asked for one after the other.
    let issued = Issued::remembered(object);
    let count = source.rotations().max(issued.fingerprints.len()).min(ROTATIONS as usize + 1);
    for rotation in 0..count {
        let place = names.identity_of(rotation);
        response.require(&required::source_identity(rotation), "v1", "Secret", &place);
    }
    // The platform's own keys open every cluster's folder: none are handed over with them.
    let keys_secret = access.secret.filter(|_| subject.input.storage.provisioner != Provisioner::Existing);
    let keys_place = keys_secret.map(|name| Place { name, namespace: names.namespace.clone() });
    if let Some(place) = &keys_place {
        response.require(required::SOURCE_S3, "v1", "Secret", place);
    }

    let identities = identities(&source, &issued, count, &missing)?;
    let keys = match (keys_place, subject.request.required(required::SOURCE_S3)) {
        (None, _) => None,
        (_, Required::Unresolved) => return Err(Gap::Unresolved),
        (Some(place), Required::Found(secret))
            if is_of_user(secret, &names) || is_composed_for(secret, &xr) =>
        {
            let keys = S3Keys::of(secret);
            Some(keys.map_err(|field| missing(format!("has no {field} in Secret {place} yet.")))?)
        }
        (_, Required::Missing | Required::Found(_)) => {
            return Err(missing("has no keys to its bucket yet; it goes on when it has.".into()));
        }
    };
    let signers =
        identities.iter().map(|identity| Ok(identity.signing_key()?.1.clone())).collect::<Result<_, _>>();
    let signers =
        signers.map_err(|error: crate::credentials::identity::IdentityError| missing(error.to_string()))?;
    Ok(Backup { bucket: access.bucket, prefix: access.prefix, identities, keys, signers })
}

/// All identities that were issued, the newest first.
fn identities(
    source: &Subject,
    issued: &Issued,
    count: usize,
    missing: &dyn Fn(String) -> Gap,
) -> Result<Vec<Identity>, Gap> {
    let mut derived = derived(source, &source.xr.name, source.xr.namespace.as_deref(), count)?;
    derived.reverse();
    let mut all = Vec::new();
    for rotation in 0..count {
        let derived = derived.pop();
        let fingerprint = issued.fingerprint(rotation);
        let is_issued = |identity: &Identity| {
            fingerprint.is_none_or(|it| it == Fingerprint::of(identity.recipient()).to_string())
        };
        let place = source.names.identity_of(rotation);
        let found = match source.request.required(&required::source_identity(rotation)) {
            Required::Unresolved => return Err(Gap::Unresolved),
            Required::Found(secret) if is_composed_for(secret, source.xr) => stored(&place, secret).ok(),
            Required::Found(_) | Required::Missing => None,
        };
        match found.filter(is_issued).or(derived.filter(is_issued)) {
            Some(identity) => all.insert(0, identity),
            // Asked for there, and not made yet.
            None if rotation > 0 && fingerprint.is_none() => {}
            None => return Err(missing("has no identity yet, or lost it; it goes on when it has.".into())),
        }
    }
    Ok(all)
}

impl Reference {
    fn of(subject: &Subject, name: &str, namespace: Option<&str>) -> Result<Self, Fatal> {
        let xr = subject.request.composite();
        let own = subject.xr.namespace.as_deref();
        let namespace = namespace.or(own);
        if name == subject.xr.name && namespace == own {
            return Err(Fatal::new(
                "spec.restore.from.name",
                "this is the Vcluster itself",
                "take from out to restore its own backup",
            ));
        }
        let is_claimed = subject.xr.flavour == Flavour::ClusterScoped && own.is_some();
        let (object, path): (_, &[&str]) = if is_claimed { (xr, &["spec", "claimRef"]) } else { (xr, &[]) };
        let field = |field| text(object, &[path, &[field]].concat()).map(str::to_owned);
        let (Some(api_version), Some(kind)) = (field("apiVersion"), field("kind")) else {
            return Err(Fatal::new(
                "spec.claimRef",
                "it does not tell the claim's kind, and spec.restore.from names another claim",
                "wait until Crossplane has written it",
            )
            .shown_as(Kind::Restored, Reason::Refused));
        };
        if own.is_none() && namespace.is_some() {
            return Err(Fatal::new(
                "spec.restore.from.namespace",
                "a cluster-scoped XR that nobody claimed reads those of its own kind, which have none",
                "take it out",
            ));
        }
        let place = Place { name: name.to_owned(), namespace: namespace.unwrap_or_default().to_owned() };
        Ok(Self { api_version, kind, place })
    }
}

/// The same whether there is such a Vcluster or not.
fn not_shared(own: Option<&str>) -> Fatal {
    let own = own.unwrap_or_default();
    Fatal::new(
        "spec.restore.from",
        "no such Vcluster shares its backup with this namespace",
        format_args!(
            "ask its owner to add {own} to spec.backup.shareWith there, or correct name and namespace"
        ),
    )
    .shown_as(Kind::Restored, Reason::NotShared)
}

fn shares_with(source: &Value, own: Option<&str>) -> bool {
    let shared = at(source, &["spec", "backup", "shareWith"]).and_then(Value::as_array);
    own.is_some_and(|own| shared.is_some_and(|shared| shared.contains(&json!(own))))
}

/// The source as this function sees it: its own flavour, for all are installed by one Composition.
fn xr(subject: &Subject, object: &Value, name: &str, place: &Place) -> Result<Xr, Fatal> {
    let is_claim = subject.xr.flavour == Flavour::ClusterScoped && !place.namespace.is_empty();
    Ok(Xr {
        name: name.to_owned(),
        namespace: Some(place.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        flavour: subject.xr.flavour,
        // A claim's is not that of its XR.
        uid: text(object, &["metadata", "uid"]).filter(|_| !is_claim).map(str::to_owned),
        spec: read_spec(object)?,
    })
}

/// Whether a Secret is the source's own. Its place alone does not tell: two claims of one name may ask for one
/// namespace, and only one of them is installed there.
fn is_composed_for(secret: &Value, xr: &Xr) -> bool {
    match (&xr.uid, &xr.namespace) {
        (Some(uid), _) => controller(secret, "uid") == Some(uid),
        (None, Some(namespace)) => is_claims(secret, &xr.name, namespace),
        (None, None) => false,
    }
}

/// Whether a provider wrote it for the source's S3 user.
fn is_of_user(secret: &Value, names: &Names) -> bool {
    controller(secret, "kind") == Some("User") && controller(secret, "name") == Some(&names.bucket)
}

fn controller<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    let owners = at(object, &["metadata", "ownerReferences"])?.as_array()?;
    owners
        .iter()
        .find(|owner| owner.get("controller") == Some(&json!(true)))
        .and_then(|it| text(it, &[field]))
}
