//! **Prune** by the platform: where agents append only, somebody else deletes what retention no longer keeps, with
//! keys that no vcluster's pod can reach.

use zeroize::Zeroizing;

use crate::condition::{Condition, Kind, Reason};
use crate::cron_job::CronJob;
use crate::fatal::Fatal;
use crate::input::storage::Prune;
use crate::names::{Place, key, required};
use crate::object;
use crate::request::Required;
use crate::response::Response;
use crate::storage::{self, Access, Certificate, Entries};
use crate::subject::Subject;

/// Asks for the keys; refused where the job and they would be within the pod's reach.
pub fn require(subject: &Subject, response: &mut Response) -> Result<(), Fatal> {
    let Some(prune) = &subject.input.storage.protection.prune else { return Ok(()) };
    if subject.keeps_identity_in_namespace() {
        return Err(Fatal::new(
            "input.storage.protection.prune",
            "the job and its keys would lie in the vcluster's own namespace, where its pod reads every Secret",
            "take it out and run `vcluster-backup prune` as the platform elsewhere, or use the cluster-scoped definition of Vcluster with encryption.identity: Sealed",
        )
        .shown_as(Kind::StorageReady, Reason::Refused));
    }
    response.require(required::PRUNE, "v1", "Secret", &place(subject, prune)?);
    Ok(())
}

fn place(subject: &Subject, prune: &Prune) -> Result<Place, Fatal> {
    subject.locate("input.storage.protection.prune.secretRef", &prune.secret_ref)
}

/// Composes it, if the platform wants it and its keys are there.
pub fn compose(subject: &Subject, access: &Access, response: &mut Response) -> Result<(), Fatal> {
    let Some(prune) = &subject.input.storage.protection.prune else { return Ok(()) };
    let given = place(subject, prune)?;
    let place = subject.names.beside_identity("prune");
    let is_beside = given.namespace == place.namespace;
    let mut secrets = Vec::new();
    if is_beside {
        secrets.push(given.name.clone());
    }
    let is_observed = |key| subject.request.observed(key).is_some();
    match entries(subject, is_beside) {
        Some(entries) if entries.is_empty() => {}
        Some(entries) => {
            let entries = entries.iter().map(|(name, value)| (*name, value.as_slice()));
            let secret = object::secret(&place.name, &place.namespace, entries);
            response.compose(key::PRUNE_KEYS, &secret, is_observed(key::PRUNE_KEYS));
            secrets.push(place.name.clone());
        }
        None => {
            if !matches!(subject.request.required(required::PRUNE), Required::Unresolved) {
                response.withhold();
                let message = format!(
                    "The platform's Secret {given}, which prunes this backup, or that of storage.caSecretRef lacks a key; ask the platform to put AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and ca.crt there."
                );
                response.set_condition(Condition::no(
                    Kind::StorageReady,
                    Reason::AwaitingStorageSecret,
                    message,
                ));
            }
            let there = subject.request.observed(key::PRUNE_KEYS);
            if let Some(there) = there {
                let secret = object::kept("Secret", &place.name, &place.namespace, there);
                response.compose(key::PRUNE_KEYS, &secret, true);
                secrets.push(place.name.clone());
            }
            if !is_observed(key::PRUNE) {
                return Ok(());
            }
        }
    }
    let cron_job = CronJob {
        place: &place,
        schedule: &prune.schedule,
        args: args(subject),
        secrets,
        input: subject.input,
        access: &Access { role_arn: None, ..access.clone() },
        account: None,
    };
    response.compose(key::PRUNE, &cron_job.object(), is_observed(key::PRUNE));
    Ok(())
}

/// What of the platform's is not beside the job; none while it is not there.
fn entries(subject: &Subject, is_beside: bool) -> Option<Entries> {
    let mut entries = storage::s3_keys(subject.request.required(required::PRUNE).found()?)?;
    if is_beside {
        entries.clear();
    }
    match storage::certificate(subject) {
        Certificate::System => {}
        Certificate::Own(text) => entries.push(("ca.crt", Zeroizing::new(text.into_bytes()))),
        Certificate::Missing => return None,
    }
    Some(entries)
}

/// The same retention as the agent's.
fn args(subject: &Subject) -> Vec<String> {
    let retention = &subject.xr.spec.backup.retention;
    vec![
        "prune".into(),
        format!("--pitr-window={}", retention.pitr_window),
        format!("--keep-last={}", retention.last),
        format!("--keep-hourly={}", retention.hourly),
        format!("--keep-daily={}", retention.daily),
        format!("--keep-weekly={}", retention.weekly),
        format!("--keep-monthly={}", retention.monthly),
    ]
}
