//! Storage by the **s3-register** chart: a Helm release whose job makes bucket, user and policy, all of one name, with
//! the server's administrator's credentials.
//!
//! ```text
//!  Secret of the administrator ──set──► Release ──job──► bucket, policy, user
//!                                          └──► Secret <release>: the user's keys ──► Secret <name>-backup
//! ```
//!
//! What there is to know of the chart (mcsps/helm-charts s3-register 0.0.2):
//! - Each rendering draws another secret key, and its job cannot be changed: the release is never upgraded, so nothing
//!   in its values may change while it lives. Keys that a cluster has stay its own, whatever the chart's Secret says.
//! - Uninstalling removes the bucket with all that is in it: unless that is asked for the release outlives its object.
//! - Helm keeps `set` values in its own Secret: the release lies where no vcluster's pod reads.
//! - `mc admin user add` gives a user that there is another secret: nobody but the function chooses its name.
//! - The policy has no `s3:DeleteObject`: the agent appends only.

use serde_json::{Map, Value, json};

use super::{Access, Entries, Step, s3_keys};
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::input::storage::S3Register;
use crate::names::{Place, key, required};
use crate::object::{at, entry, text};
use crate::reference::ProviderConfigKind;
use crate::response::Response;
use crate::spec::DeletionPolicy;
use crate::subject::{Subject, Wanted};
use crate::xr::Flavour;

/// The way to the bucket; refused where the chart cannot be had safely.
pub fn access(subject: &Subject) -> Result<Access, Fatal> {
    let refuse = |field: &str, cause: &str, way_out: &str| {
        Err(Fatal::new(field, cause, way_out).shown_as(Kind::StorageReady, Reason::Refused))
    };
    if subject.xr.flavour == Flavour::Namespaced {
        return refuse(
            "input.storage.provisioner",
            "S3Register keeps the administrator's credentials in a Secret of its release, and a namespaced XR has no place for it that the vcluster's pod cannot read",
            "use ProviderMinio or Existing, or the cluster-scoped definition of Vcluster",
        );
    }
    if subject.xr.spec.backup.bucket.as_ref().is_some_and(|asked| *asked != subject.names.bucket) {
        return refuse(
            "spec.backup.bucket",
            "the s3-register chart calls bucket and user by one name, and would give a user of that name another key",
            "take it out",
        );
    }
    Ok(Access {
        bucket: subject.names.bucket.clone(),
        prefix: None,
        secret: Some(subject.names.keys().name),
        role_arn: None,
    })
}

/// The Secret that the chart makes; it is called as its release.
pub fn place(subject: &Subject) -> Place {
    Place { name: subject.names.register(), namespace: subject.input.encryption.key_namespace.clone() }
}

/// Composes the release, and says how far it is.
pub fn compose(subject: &Subject, access: &Access, response: &mut Response) -> Result<Step, Fatal> {
    let observed = subject.request.observed(key::REGISTER);
    if subject.wanted() == Wanted::On || observed.is_some() {
        response.compose(key::REGISTER, &release(subject)?, subject.request.is_ready(key::REGISTER));
    }
    let name = &subject.names.bucket;
    let place = place(subject);
    if observed.is_some_and(|release| text(release, &["status", "atProvider", "state"]) == Some("failed")) {
        let message =
            format!("Helm could not install Release {name}: `kubectl describe release {name}` says why.");
        return Ok(Step::Coming(Reason::RegistrationFailed, message));
    }
    if !subject.request.is_ready(key::REGISTER) {
        let message = format!(
            "Release {name} registers bucket and user; if it stays so, `kubectl describe release {name}` says why."
        );
        return Ok(Step::Coming(Reason::Registering, message));
    }
    if credentials(subject).is_err() {
        let message = format!("Secret {place} with the user's keys is being looked for.");
        return Ok(Step::Coming(Reason::Registering, message));
    }
    Ok(Step::Done(
        Reason::Registered,
        format!(
            "Bucket {} is registered; if captures do not arrive, look at Job {}-create in namespace {}.",
            access.bucket, place.name, place.namespace
        ),
    ))
}

/// Composes the release once more if it would still spare the bucket: nobody is asked while it goes.
pub fn drop(subject: &Subject, response: &mut Response) -> Result<(), Fatal> {
    let Some(observed) = subject.request.observed(key::REGISTER) else { return Ok(()) };
    if at(observed, &["spec", "deletionPolicy"]) == Some(&json!("Delete")) {
        return Ok(());
    }
    if subject.input.storage.s3_register.is_none() {
        return Err(Fatal::new(
            "input.storage.s3Register",
            format_args!(
                "Release {} is to be deleted with its bucket and the chart's settings are gone",
                subject.names.bucket
            ),
            "put them back until it is gone",
        )
        .shown_as(Kind::StorageReady, Reason::Refused));
    }
    response.compose(key::REGISTER, &release(subject)?, subject.request.is_ready(key::REGISTER));
    Ok(())
}

/// The user's keys: those that the sidecar has, else those that the chart's Secret was made with.
pub fn credentials(subject: &Subject) -> Result<Entries, String> {
    let issued = subject.request.observed(key::KEYS).and_then(s3_keys);
    let registered = || {
        let secret = subject.request.required(required::REGISTERED).found()?;
        Some(vec![
            ("AWS_ACCESS_KEY_ID", entry(secret, "s3accesskey")?),
            ("AWS_SECRET_ACCESS_KEY", entry(secret, "s3secretkey")?),
        ])
    };
    issued.or_else(registered).ok_or_else(|| {
        format!("Secret {} with the S3 user's keys is being made by the release.", place(subject))
    })
}

fn release(subject: &Subject) -> Result<Value, Fatal> {
    let settings = subject.input.storage.s3_register.as_ref().ok_or_else(|| {
        Fatal::new("input.storage.s3Register", "provisioner S3Register needs it", "name adminSecretRef")
    })?;
    let place = place(subject);
    let admin = subject.locate("input.storage.s3Register.adminSecretRef", &settings.admin_secret_ref)?;
    let set = |value: &str, field: &str| {
        let reference = json!({"name": admin.name, "namespace": admin.namespace, "key": field});
        json!({"name": value, "valueFrom": {"secretKeyRef": reference}})
    };
    let reference = subject.provider_config(
        "input.helm.providerConfigRef",
        subject.input.helm.provider_config_ref.as_ref(),
        ProviderConfigKind::ClusterProviderConfig,
    )?;
    let mut metadata = subject.metadata(&subject.names.bucket);
    metadata.insert("annotations".into(), json!({"crossplane.io/external-name": place.name}));
    let deletes = subject.xr.spec.backup.deletion_policy == DeletionPolicy::Delete;
    Ok(json!({
        "apiVersion": subject.api("helm"),
        "kind": "Release",
        "metadata": metadata,
        "spec": {
            "deletionPolicy": if deletes { "Delete" } else { "Orphan" },
            "forProvider": {
                "chart": chart(subject, settings)?,
                "namespace": place.namespace,
                "skipCreateNamespace": true,
                "values": values(subject, settings),
                "set": [
                    set("s3.adminuser", "AWS_ACCESS_KEY_ID"),
                    set("s3.adminpassword", "AWS_SECRET_ACCESS_KEY"),
                ],
            },
            "providerConfigRef": reference,
        },
    }))
}

fn chart(subject: &Subject, settings: &S3Register) -> Result<Value, Fatal> {
    let mut chart = json!({
        "repository": settings.chart.repository,
        "name": settings.chart.name,
        "version": settings.chart.version,
    });
    if let Some(secret) = &settings.chart.pull_secret_ref {
        let place = subject.locate("input.storage.s3Register.chart.pullSecretRef", secret)?;
        chart["pullSecretRef"] = json!({"name": place.name, "namespace": place.namespace});
    }
    Ok(chart)
}

/// The platform's values, and the two that the function decides.
fn values(subject: &Subject, settings: &S3Register) -> Map<String, Value> {
    let mut values = settings.chart.values.clone();
    values.insert("clustername".into(), json!(subject.names.bucket));
    let s3 = values.entry("s3").or_insert_with(|| json!({}));
    if !s3.is_object() {
        *s3 = json!({});
    }
    s3["url"] = json!(subject.input.storage.endpoint);
    values
}
