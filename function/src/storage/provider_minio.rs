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
use crate::names::key;
use crate::object::at;
use crate::reference::ProviderConfigKind;
use crate::response::Response;
use crate::spec::DeletionPolicy;
use crate::subject::{Subject, Wanted};
use crate::xr::Flavour;

/// All but deleting (Crossplane's words for what namespaced resources have instead of `deletionPolicy`).
const ORPHAN: [&str; 4] = ["Observe", "Create", "Update", "LateInitialize"];

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
    let wanted = subject.wanted();
    let is_observed = |key| request.observed(key).is_some();
    let on = wanted == Wanted::On;
    let keep = |key| on || (wanted == Wanted::Kept && is_observed(key));

    if keep(key::BUCKET) || (wanted == Wanted::Dropped && needs_arming(subject)) {
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
    if keep(key::USER) && (user_can_be || is_observed(key::USER)) {
        response.compose(key::USER, &user(subject)?, request.is_ready(key::USER));
    }
    let steps = [
        (key::BUCKET, Reason::CreatingBucket, "Bucket"),
        (key::POLICY, Reason::CreatingPolicy, "Policy"),
        (key::USER, Reason::CreatingUser, "User"),
    ];
    Ok(steps.into_iter().find(|(key, ..)| !request.is_ready(key)).map_or(
        Step::Done(Reason::Provisioned, "Bucket, policy and user are there.".into()),
        |(_, reason, kind)| {
            Step::Coming(
                reason,
                format!(
                    "{kind} {} is not ready yet; if it stays so, `kubectl describe` it for what its provider says.",
                    subject.names.bucket
                ),
            )
        },
    ))
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
    managed(subject, "Policy", json!({"rawPolicy": least_privilege(&access.bucket)}))
}

/// What the agent needs, and no more: this bucket alone, and nothing of its settings.
fn least_privilege(bucket: &str) -> String {
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
                "Action": [
                    "s3:AbortMultipartUpload",
                    "s3:DeleteObject",
                    "s3:GetObject",
                    "s3:ListMultipartUploadParts",
                    "s3:PutObject",
                ],
                "Resource": [format!("arn:aws:s3:::{bucket}/*")],
            },
        ],
    })
    .to_string()
}

fn user(subject: &Subject) -> Result<Value, Fatal> {
    let name = &subject.names.bucket;
    let mut user = managed(subject, "User", json!({"userName": name, "policies": [name]}))?;
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
    let api_version = match subject.xr.flavour {
        Flavour::ClusterScoped => "minio.crossplane.io/v1",
        Flavour::Namespaced => "minio.m.crossplane.io/v1beta1",
    };
    let spec = Map::from_iter([
        ("forProvider".to_owned(), for_provider),
        // Said aloud: the webhook refuses an object without, default or not.
        ("providerConfigRef".to_owned(), reference),
    ]);
    Ok(json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": subject.metadata(&subject.names.bucket),
        "spec": spec,
    }))
}
