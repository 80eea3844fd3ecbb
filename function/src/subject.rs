//! The **subject** of one pass: the request, read and checked, and what the other modules ask of it.

use serde_json::{Map, Value, json};

use crate::fatal::Fatal;
use crate::input::{Input, Keeping};
use crate::names::{Names, Place, key};
use crate::object::{at, text};
use crate::protection;
use crate::reference::{LocalSecretRef, ProviderConfigKind, ProviderConfigRef, SecretRef};
use crate::request::Request;
use crate::restore::Restore;
use crate::spec::DeletionPolicy;
use crate::xr::{Flavour, Xr};

/// What is to become of the backup's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// There is a backup.
    On,
    /// It is switched off; what there is stays.
    Kept,
    /// It is switched off and to be deleted.
    Dropped,
}

/// The subject.
pub struct Subject<'a> {
    /// What Crossplane says.
    pub request: &'a Request,
    /// What the platform decides.
    pub input: &'a Input,
    /// What the user asks for.
    pub xr: &'a Xr,
    /// What all is called.
    pub names: &'a Names,
}

impl Subject<'_> {
    /// What is to become of the backup's resources.
    pub fn wanted(&self) -> Wanted {
        match (self.xr.spec.backup.enabled, self.xr.spec.backup.deletion_policy) {
            (true, _) => Wanted::On,
            (false, DeletionPolicy::Retain) => Wanted::Kept,
            // What protects it goes first.
            (false, DeletionPolicy::Delete) if protection::is_in_force(self) => Wanted::Kept,
            (false, DeletionPolicy::Delete) => Wanted::Dropped,
        }
    }

    /// Whether the release's namespace can be composed into. provider-helm makes it for a claim; an apply into
    /// a namespace that is not there stops the whole composition, the release included.
    pub fn has_namespace(&self) -> bool {
        self.xr.flavour == Flavour::Namespaced
            || self
                .request
                .observed(key::CLUSTER)
                .is_none_or(|release| text(release, &["status", "atProvider", "state"]).is_some())
    }

    /// Whether the identity, if it is stored, is where the vcluster's pod can read it.
    pub fn keeps_identity_in_namespace(&self) -> bool {
        self.xr.flavour == Flavour::Namespaced || self.input.encryption.identity == Keeping::InNamespace
    }

    /// How many identities there are to be: the first, and one for each time that it was changed.
    pub fn rotations(&self) -> usize {
        self.xr.spec.backup.rotate_keys as usize + 1
    }

    /// A field of the XR's `status.backup`, as it was last written.
    pub fn remembered(&self, field: &str) -> Option<&str> {
        text(self.request.composite(), &["status", "backup", field])
    }

    /// The restore that was last written to the XR's status.
    pub fn remembered_restore(&self) -> Option<&Value> {
        at(self.request.composite(), &["status", "restore"])
    }

    /// The restore that is asked for and not known to be done, given the id that the agent reports.
    pub fn pending_restore(&self, restored: Option<&str>) -> Option<&Restore> {
        let restore = self.xr.spec.restore.as_ref()?;
        (restored != Some(&restore.id) && !self.has_restored(&restore.id)).then_some(restore)
    }

    /// Whether the XR's status says that a restore is done.
    pub fn has_restored(&self, id: &str) -> bool {
        let done = self.remembered_restore().filter(|status| text(status, &["phase"]) == Some("Done"));
        done.is_some_and(|status| text(status, &["id"]) == Some(id))
    }

    /// Where a Secret of the user's is: beside the claim or XR.
    pub fn locate_beside(&self, field: &str, secret: &LocalSecretRef) -> Result<Place, Fatal> {
        let namespace = self.xr.namespace.clone().ok_or_else(|| {
            Fatal::new(
                field,
                "it is a Secret beside the claim, and a cluster-scoped XR that nobody claimed has no namespace",
                "take it out, or claim the XR",
            )
        })?;
        Ok(Place { name: secret.name.clone(), namespace })
    }

    /// Where a Secret of the platform is.
    pub fn locate(&self, field: &str, secret: &SecretRef) -> Result<Place, Fatal> {
        let own = self.xr.namespace.as_ref().filter(|_| self.xr.flavour == Flavour::Namespaced);
        let namespace = secret.namespace.as_ref().or(own).ok_or_else(|| {
            Fatal::new(
                format_args!("{field}.namespace"),
                "a cluster-scoped XR has none of its own",
                "name it",
            )
        })?;
        Ok(Place { name: secret.name.clone(), namespace: namespace.clone() })
    }

    /// The API version of a provider's managed resources, `helm` or `minio`, for this flavour.
    pub fn api(&self, group: &str) -> &'static str {
        match (self.xr.flavour, group) {
            (Flavour::ClusterScoped, "helm") => "helm.crossplane.io/v1beta1",
            (Flavour::Namespaced, "helm") => "helm.m.crossplane.io/v1beta1",
            (Flavour::ClusterScoped, _) => "minio.crossplane.io/v1",
            (Flavour::Namespaced, _) => "minio.m.crossplane.io/v1beta1",
        }
    }

    /// Metadata of a managed resource of either flavour.
    pub fn metadata(&self, name: &str) -> Map<String, Value> {
        let mut metadata = Map::from_iter([("name".to_owned(), json!(name))]);
        if let (Flavour::Namespaced, Some(namespace)) = (self.xr.flavour, &self.xr.namespace) {
            metadata.insert("namespace".into(), json!(namespace));
        }
        metadata
    }

    /// A reference to a provider's configuration, as this flavour writes it.
    pub fn provider_config(
        &self,
        field: &str,
        asked: Option<&ProviderConfigRef>,
        default: ProviderConfigKind,
    ) -> Result<Value, Fatal> {
        let name = asked.map_or("default", |asked| asked.name.as_str());
        let kind = asked.and_then(|asked| asked.kind);
        match (self.xr.flavour, kind) {
            (Flavour::Namespaced, kind) => {
                Ok(json!({"kind": format!("{:?}", kind.unwrap_or(default)), "name": name}))
            }
            (Flavour::ClusterScoped, Some(ProviderConfigKind::ClusterProviderConfig)) => Err(Fatal::new(
                format_args!("{field}.kind"),
                "the cluster-scoped providers of a cluster-scoped XR have no ClusterProviderConfig",
                "take kind out, or use the namespaced definition of Vcluster",
            )),
            (Flavour::ClusterScoped, _) => Ok(json!({"name": name})),
        }
    }
}
