//! **Protection**: what the release lives on stays while it is there. Crossplane deletes what an XR composed in any
//! order, and anybody with the right may delete an object by hand; a `Usage` makes its webhook refuse that.
//!
//! ```text
//!  on:       Usage of the object, by the release ─► XR deleted: first the release (with its last captures), then these
//!  off:      Usage of the object, for a reason   ─► what was backed up stays
//!  dropped:  … by ─► for a reason ─► no Usage ─► no object, each in a call of its own
//! ```
//!
//! The last line is Crossplane's: a composed Usage that is being deleted waits for the object that it is `by`, so one by
//! the release would outlive the backup; and what a Usage is of cannot be collected, which would stop every
//! reconcile before anything is applied (crossplane internal/controller/protection/usage/reconciler.go).
//!
//! Which kind: a `Usage` is `of` a namespaced object in its own namespace, `by` one there or a cluster-scoped one; a
//! `ClusterUsage` knows cluster-scoped objects alone. Objects here are never needed across two namespaces.

use serde_json::{Value, json};

use crate::names::{Place, key};
use crate::object::{self, at};
use crate::response::Response;
use crate::spec::{DeletionPolicy, ROTATIONS};
use crate::subject::{Subject, Wanted};
use crate::xr::Flavour;

/// An object that is protected.
struct Protected {
    /// The key that it is composed under.
    key: String,
    api_version: &'static str,
    kind: &'static str,
    name: String,
    /// None for what is cluster-scoped.
    namespace: Option<String>,
}

impl Protected {
    fn usage_key(&self) -> String {
        format!("{}{}", key::PROTECTION, self.key)
    }

    fn usage<'a>(&self, subject: &'a Subject) -> Option<&'a Value> {
        subject.request.observed(&self.usage_key())
    }

    /// Whether a Usage is there that waits for the release.
    fn is_by_release(&self, subject: &Subject) -> bool {
        self.usage(subject).is_some_and(|usage| at(usage, &["spec", "by"]).is_some_and(|by| !by.is_null()))
    }

    fn object(&self, subject: &Subject, by_release: bool) -> Value {
        let kind = if self.namespace.is_some() { "Usage" } else { "ClusterUsage" };
        let name = match self.kind {
            "Secret" => self.name.clone(),
            kind => format!("{}-{}", self.name, kind.to_lowercase()),
        };
        let mut metadata = json!({"name": name});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        let of = json!({
            "apiVersion": self.api_version,
            "kind": self.kind,
            "resourceRef": {"name": self.name},
        });
        let mut spec = json!({
            "of": of,
            "reason": "The backup needs it; spec.backup.enabled: false with deletionPolicy: Delete drops both.",
            "replayDeletion": true,
        });
        if by_release {
            spec["by"] = json!({
                "apiVersion": subject.api("helm"),
                "kind": "Release",
                "resourceRef": {"name": subject.names.release_object},
            });
        }
        json!({
            "apiVersion": "protection.crossplane.io/v1beta1",
            "kind": kind,
            "metadata": metadata,
            "spec": spec,
        })
    }
}

/// All that can be protected, whether it is there or not.
fn all(subject: &Subject) -> Vec<Protected> {
    let names = subject.names;
    let secret = |key: &str, place: Place| Protected {
        key: key.to_owned(),
        api_version: "v1",
        kind: "Secret",
        name: place.name,
        namespace: Some(place.namespace),
    };
    let managed = |key: &str, group: &str, kind: &'static str| Protected {
        key: key.to_owned(),
        api_version: subject.api(group),
        kind,
        name: names.bucket.clone(),
        namespace: subject.xr.namespace.clone().filter(|_| subject.xr.flavour == Flavour::Namespaced),
    };
    let mut all = vec![
        secret(key::IDENTITY, names.identity.clone()),
        secret(key::KEYS, names.keys()),
        managed(key::BUCKET, "minio", "Bucket"),
        managed(key::POLICY, "minio", "Policy"),
        managed(key::USER, "minio", "User"),
        managed(key::REGISTER, "helm", "Release"),
    ];
    // The identities that came later (spec.backup.rotateKeys).
    let later = 1..=ROTATIONS as usize;
    all.extend(later.map(|rotation| secret(&key::identity(rotation), names.identity_of(rotation))));
    all
}

/// Whether some object is protected still.
pub fn is_in_force(subject: &Subject) -> bool {
    all(subject).iter().any(|protected| protected.usage(subject).is_some())
}

/// Whether the object of a key is protected still: it must stay composed, or nothing is applied any more.
pub fn holds(subject: &Subject, key: &str) -> bool {
    subject.request.observed(&format!("{}{key}", key::PROTECTION)).is_some()
}

/// Composes the Usages, after all else.
pub fn compose(subject: &Subject, response: &mut Response) {
    let backup = &subject.xr.spec.backup;
    let is_dropping = !backup.enabled && backup.deletion_policy == DeletionPolicy::Delete;
    let has_release = subject.request.observed(key::CLUSTER).is_some();
    for protected in all(subject) {
        let key = &protected.key;
        let observed = subject.request.observed(key);
        let is_held = protected.usage(subject).is_some();
        let is_composed = response.composes(key);
        // What is no longer composed must stay until nothing protects it; managed resources see to it themselves.
        let left = observed.filter(|_| is_held && !is_composed && protected.kind == "Secret");
        if let (Some(there), Some(namespace)) = (left, &protected.namespace) {
            response.compose(key, &object::kept("Secret", &protected.name, namespace, there), true);
        }
        let leaves =
            is_dropping || !is_composed || (key == key::USER && subject.input.storage.role_arn().is_some());
        let by_release = subject.wanted() == Wanted::On && !leaves;
        let is_wanted =
            if leaves { protected.is_by_release(subject) } else { observed.is_some() && has_release };
        if is_wanted {
            // Never waited for: it protects, and nothing else depends on it.
            response.compose(&protected.usage_key(), &protected.object(subject, by_release), true);
        }
    }
}
