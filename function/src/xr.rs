//! The **XR**: whose vcluster it is, and which flavour of Crossplane it lives in.

use serde_json::{Value, json};

use crate::check;
use crate::fatal::Fatal;
use crate::object::text;
use crate::spec::Spec;
use crate::typed;

/// Which providers can work for an XR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The XR belongs to no namespace: cluster-scoped providers.
    ClusterScoped,
    /// The XR has a namespace: the namespaced providers (`.m.`), for it may compose nothing else.
    Namespaced,
}

/// An XR, as observed.
#[derive(Debug, Clone)]
pub struct Xr {
    /// Base name: the claim's, else the XR's.
    pub name: String,
    /// Base namespace: the claim's, else the XR's; none for a cluster-scoped XR without claim.
    pub namespace: Option<String>,
    /// Which providers can work.
    pub flavour: Flavour,
    /// Its uid; none where nothing is stored, as in `crossplane render`.
    pub uid: Option<String>,
    /// What the user asks for.
    pub spec: Spec,
}

/// Fields of the spec that are Crossplane's own: `crossplane`, and in XRs that can be claimed all the others.
const MACHINERY: [&str; 13] = [
    "crossplane",
    "claimRef",
    "compositionRef",
    "compositionSelector",
    "compositionRevisionRef",
    "compositionRevisionSelector",
    "compositionUpdatePolicy",
    "resourceRef",
    "resourceRefs",
    "writeConnectionSecretToRef",
    "publishConnectionDetailsTo",
    "environmentConfigRefs",
    "compositeDeletePolicy",
];

impl Xr {
    /// Reads and checks an observed XR.
    pub fn parse(object: &Value) -> Result<Self, Fatal> {
        let own_name = text(object, &["metadata", "name"])
            .ok_or_else(|| Fatal::new("metadata.name", "the observed XR has none", "give it a name"))?;
        let own_namespace = text(object, &["metadata", "namespace"]);
        let flavour = if own_namespace.is_some() { Flavour::Namespaced } else { Flavour::ClusterScoped };
        let claim = |field| {
            let label = format!("crossplane.io/claim-{field}");
            text(object, &["spec", "claimRef", field])
                .or_else(|| text(object, &["metadata", "labels", &label]))
        };
        let (name, namespace) = match (claim("name"), claim("namespace")) {
            (Some(name), Some(namespace)) if own_namespace.is_none() => (name, Some(namespace)),
            _ => (own_name, own_namespace),
        };
        if let Some(namespace) = namespace {
            check::label("metadata.namespace", namespace)?;
        }
        Ok(Self {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            flavour,
            uid: text(object, &["metadata", "uid"]).map(str::to_owned),
            spec: read_spec(object)?,
        })
    }
}

/// Reads and checks the spec of an XR, or of a claim.
pub fn read_spec(object: &Value) -> Result<Spec, Fatal> {
    let mut spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    if let Value::Object(fields) = &mut spec {
        fields.retain(|field, _| !MACHINERY.contains(&field.as_str()));
    }
    let spec: Spec = typed::parse(&spec, "spec")?;
    spec.check()?;
    Ok(spec)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn crossplanes_own_fields_are_none_of_ours() {
        let mut spec = Map::from_iter(MACHINERY.map(|field| (field.to_owned(), json!({}))));
        spec.insert("version".into(), json!("0.30.0"));
        let xr = Xr::parse(&json!({"metadata": {"name": "dev"}, "spec": spec})).unwrap();
        assert_eq!(xr.spec.version.as_deref(), Some("0.30.0"));
        assert!(xr.spec.backup.enabled);
    }

    #[test]
    fn a_claim_gives_its_name() {
        let labels = json!({"crossplane.io/claim-name": "dev", "crossplane.io/claim-namespace": "team-a"});
        let claim_ref = json!({"claimRef": {"name": "dev", "namespace": "team-a"}});
        for xr in [
            json!({"metadata": {"name": "dev-x7k2p", "labels": labels}}),
            json!({"metadata": {"name": "dev-x7k2p"}, "spec": claim_ref}),
        ] {
            let xr = Xr::parse(&xr).unwrap();
            assert_eq!((xr.name.as_str(), xr.namespace.as_deref()), ("dev", Some("team-a")));
            assert_eq!(xr.flavour, Flavour::ClusterScoped);
        }
        // Who may write labels of a namespaced XR must not be able to take another's name.
        let xr =
            json!({"metadata": {"name": "mine", "namespace": "team-b", "labels": labels}, "spec": claim_ref});
        let xr = Xr::parse(&xr).unwrap();
        assert_eq!((xr.name.as_str(), xr.namespace.as_deref()), ("mine", Some("team-b")));
        assert_eq!(xr.flavour, Flavour::Namespaced);
    }
}
