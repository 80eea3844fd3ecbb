//! Storage by **provider-minio**: a bucket, a policy for it alone, and a user bound to the policy.
//!
//! ```text
//!  Bucket ──ready──────┐
//!  Policy ──ready──────┴──► User ──► Secret <name>-backup-s3
//! ```
//!
//! The provider's webhook refuses a user whose policy is not there yet, and such a refusal stops the whole
//! composition; so the user waits for its policy (vshn/provider-minio operator/user/webhook.go).

use serde_json::{Map, Value, json};

use super::{Access, Step};
use crate::condition::Reason;
use crate::fatal::Fatal;
use crate::names::{key, short_digest};
use crate::object::{at, text};
use crate::protection;
use crate::reference::ProviderConfigKind;
use crate::response::Response;
use crate::spec::{Adopt, DeletionPolicy};
use crate::subject::{Subject, Wanted};
use crate::xr::Flavour;

/// All but deleting (Crossplane's words for what namespaced resources have instead of `deletionPolicy`).
const ORPHAN: [&str; 4] = ["Observe", "Create", "Update", "LateInitialize"];

/// The annotations by which the provider knows what it has made; with them it takes what is there for its own
/// (vshn/provider-minio and rossigee/provider-minio, operator/{bucket/connector,policy/create}.go).
fn claims(flavour: Flavour, kind: &str) -> Option<Value> {
    match (kind, flavour) {
        ("Bucket", Flavour::ClusterScoped) => Some(json!({"minio.crossplane.io/lock": "claimed"})),
        ("Bucket", Flavour::Namespaced) => Some(json!({"minio.m.crossplane.io/lock": "claimed"})),
        ("Policy", _) => Some(json!({"minio.crossplane.io/policy-created": "claimed"})),
        _ => None,
    }
}

/// The way to the bucket.
pub fn access(subject: &Subject) -> Access {
    let asked = subject.xr.spec.backup.bucket.clone();
    Access {
        bucket: asked.unwrap_or_else(|| subject.names.bucket.clone()),
        prefix: None,
        secret: Some(subject.names.user_keys().name),
        role_arn: None,
    }
}

/// Composes what is wanted, and says which step is still to come.
pub fn compose(subject: &Subject, access: &Access, response: &mut Response) -> Result<Step, Fatal> {
    let request = subject.request;
    let is_observed = |key| request.observed(key).is_some();
    let on = subject.wanted() == Wanted::On;
    let keep = |key| on || is_observed(key);

    if keep(key::BUCKET) {
        response.compose(key::BUCKET, &bucket(subject, access)?, request.is_ready(key::BUCKET));
    }
    // A bucket of this name may be somebody else's, by the user's choice or because `a`/`b-c` and `a-b`/`c` make
    // one name. The provider makes only what is not there yet (operator/{bucket/observe,policy/create}.go), so one
    // that became ready is this XR's own: no user before it, and no policy for a bucket that a user chose.
    let owns_bucket = request.is_ready(key::BUCKET);
    let is_own_choice = subject.xr.spec.backup.bucket.is_some();
    if keep(key::POLICY) && (owns_bucket || !is_own_choice || is_observed(key::POLICY)) {
        response.compose(key::POLICY, &policy(subject, access)?, request.is_ready(key::POLICY));
    }
    let user_can_be = owns_bucket && request.is_ready(key::POLICY) && subject.has_namespace();
    let needs_user = subject.input.storage.role_arn().is_none();
    let is_wanted = (needs_user && keep(key::USER)) || protection::holds(subject, key::USER);
    if is_wanted && (user_can_be || is_observed(key::USER)) {
        response.compose(key::USER, &user(subject)?, request.is_ready(key::USER));
    }
    let steps = [
        (key::BUCKET, Reason::CreatingBucket, "Bucket"),
        (key::POLICY, Reason::CreatingPolicy, "Policy"),
        (key::USER, Reason::CreatingUser, "User"),
    ];
    let coming =
        steps.into_iter().find(|(key, ..)| !request.is_ready(key) && (needs_user || *key != key::USER));
    let name = &subject.names.bucket;
    Ok(match coming {
        Some((_, reason, kind)) => {
            let mut message = format!(
                "{kind} {name} is not ready yet; if it stays so, `kubectl describe` it for what its provider says."
            );
            if asks_to_adopt(subject) && !adopts(subject) && kind != "User" {
                message.push_str(" One that is there is not taken over, for another namespace and name could have it too: the platform may hand it over (install, \"A control plane built anew\").");
            }
            Step::Coming(reason, message)
        }
        None if needs_user => Step::Done(Reason::Provisioned, "Bucket, policy and user are there.".into()),
        None => Step::Done(
            Reason::Provisioned,
            format!("Bucket and policy are there; role {} must have policy {name}.", role(subject)),
        ),
    })
}

fn role<'a>(subject: &'a Subject) -> &'a str {
    subject.input.storage.role_arn().unwrap_or_default()
}

/// Composes the bucket once more if it would still be spared: it must have been told before it goes, for nobody is
/// asked while it does.
pub fn drop(subject: &Subject, response: &mut Response) -> Result<(), Fatal> {
    if needs_arming(subject) {
        let bucket = bucket(subject, &access(subject))?;
        response.compose(key::BUCKET, &bucket, subject.request.is_ready(key::BUCKET));
    }
    Ok(())
}

/// Whether the user says that what is there of this name was this cluster's.
fn asks_to_adopt(subject: &Subject) -> bool {
    let backup = &subject.xr.spec.backup;
    backup.auto_restore.adopt == Adopt::SameName && backup.bucket.is_none()
}

/// Whether it may be taken over: the name says, too, that it was nobody else's.
fn adopts(subject: &Subject) -> bool {
    asks_to_adopt(subject) && subject.names.is_bucket_unique
}

/// The user's name. One that is there cannot be taken over, for nobody knows its secret: a cluster that takes over
/// its predecessor's bucket has a user of its own.
fn user_name(subject: &Subject) -> String {
    let plain = &subject.names.bucket;
    if let Some(user) = subject.request.observed(key::USER) {
        return text(user, &["spec", "forProvider", "userName"]).unwrap_or(plain).to_owned();
    }
    let uid = subject.xr.uid.as_deref().filter(|_| asks_to_adopt(subject));
    uid.map_or_else(|| plain.clone(), |uid| format!("{plain}-{}", short_digest(uid)))
}

/// Whether a bucket that is to be deleted would still be spared: it must have been told before it goes, for
/// nobody is asked while it does.
fn needs_arming(subject: &Subject) -> bool {
    let Some(observed) = subject.request.observed(key::BUCKET) else { return false };
    let deletes = match subject.xr.flavour {
        Flavour::ClusterScoped => at(observed, &["spec", "deletionPolicy"]) == Some(&json!("Delete")),
        Flavour::Namespaced => at(observed, &["spec", "managementPolicies"]) == Some(&json!(["*"])),
    };
    let empties = at(observed, &["spec", "forProvider", "bucketDeletionPolicy"]) == Some(&json!("DeleteAll"));
    !(deletes && empties)
}

fn bucket(subject: &Subject, access: &Access) -> Result<Value, Fatal> {
    let deletes = subject.xr.spec.backup.deletion_policy == DeletionPolicy::Delete;
    let mut bucket = managed(
        subject,
        "Bucket",
        json!({
            "bucketName": access.bucket,
            "region": subject.input.storage.region(),
            "bucketDeletionPolicy": if deletes { "DeleteAll" } else { "DeleteIfEmpty" },
        }),
    )?;
    match subject.xr.flavour {
        Flavour::ClusterScoped => {
            bucket["spec"]["deletionPolicy"] = json!(if deletes { "Delete" } else { "Orphan" });
        }
        Flavour::Namespaced if deletes => bucket["spec"]["managementPolicies"] = json!(["*"]),
        Flavour::Namespaced => bucket["spec"]["managementPolicies"] = json!(ORPHAN),
    }
    Ok(bucket)
}

fn policy(subject: &Subject, access: &Access) -> Result<Value, Fatal> {
    let policy = least_privilege(&access.bucket, subject.input.storage.is_append_only());
    managed(subject, "Policy", json!({"rawPolicy": policy}))
}

/// What the agent needs, and no more: this bucket alone, and nothing of its settings.
fn least_privilege(bucket: &str, is_append_only: bool) -> String {
    let mut actions = vec!["s3:AbortMultipartUpload"];
    if !is_append_only {
        actions.push("s3:DeleteObject");
    }
    actions.extend(["s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"]);
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": [format!("arn:aws:s3:::{bucket}")],
            },
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": [format!("arn:aws:s3:::{bucket}/*")],
            },
        ],
    })
    .to_string()
}

fn user(subject: &Subject) -> Result<Value, Fatal> {
    let name = &subject.names.bucket;
    let mut user = managed(subject, "User", json!({"userName": user_name(subject), "policies": [name]}))?;
    let keys = subject.names.user_keys();
    user["spec"]["writeConnectionSecretToRef"] = match subject.xr.flavour {
        Flavour::ClusterScoped => json!({"name": keys.name, "namespace": keys.namespace}),
        Flavour::Namespaced => json!({"name": keys.name}),
    };
    Ok(user)
}

fn managed(subject: &Subject, kind: &str, for_provider: Value) -> Result<Value, Fatal> {
    let settings = &subject.input.storage.provider_minio;
    // The provider reads the reference's name alone; there is one kind of configuration, cluster-scoped.
    let reference = subject.provider_config(
        "input.storage.providerMinio.providerConfigRef",
        settings.provider_config_ref.as_ref(),
        ProviderConfigKind::ProviderConfig,
    )?;
    let spec = Map::from_iter([
        ("forProvider".to_owned(), for_provider),
        // Said aloud: the webhook refuses an object without, default or not.
        ("providerConfigRef".to_owned(), reference),
    ]);
    let mut metadata = subject.metadata(&subject.names.bucket);
    if let Some(claims) = claims(subject.xr.flavour, kind).filter(|_| adopts(subject)) {
        metadata.insert("annotations".into(), claims);
    }
    Ok(json!({
        "apiVersion": subject.api("minio"),
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }))
}
