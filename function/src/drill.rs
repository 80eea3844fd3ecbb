//! The **drill**: a restore that is tried out on a schedule, and what came of it. A backup that nobody has restored is
//! a hope.
//!
//! ```text
//!  identities, S3 keys ──► Secret …-backup-verify ──► CronJob …-backup-verify ──► record in the bucket
//!                                                         │ status                      │ seen by the agent
//!                                                         └────► BackupVerified ◄── ConfigMap <name>-backup-status
//! ```
//!
//! It lies where the identity is, out of the reach of the vcluster's pod.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::condition::{Condition, Kind, Reason};
use crate::credentials::{Credentials, IDENTITY};
use crate::cron_job::{self, CronJob};
use crate::fatal::Fatal;
use crate::input::storage::Provisioner;
use crate::names::{Place, key, required};
use crate::object::{self, at, text};
use crate::report::Report;
use crate::response::Response;
use crate::span::Span;
use crate::spec::{Verify, VerifyMode};
use crate::status::Issued;
use crate::storage::{self, Access, Certificate, Entries};
use crate::subject::{Subject, Wanted};

/// How old the last success may be, unless the user says: a week and a day.
const MAX_AGE: Duration = Duration::from_hours(192);

/// Asks for the S3 keys that the drill takes along.
pub fn require(subject: &Subject, response: &mut Response) {
    if subject.xr.spec.backup.verify.is_some() && has_user(subject) {
        response.require(required::USER_KEYS, "v1", "Secret", &subject.names.user_keys());
    }
}

/// Whether the S3 keys are a user's that provider-minio made.
fn has_user(subject: &Subject) -> bool {
    let storage = &subject.input.storage;
    storage.provisioner == Provisioner::ProviderMinio && storage.role_arn().is_none()
}

/// Composes it, if it is asked for and there are keys.
pub fn compose(
    subject: &Subject,
    credentials: &Credentials,
    access: &Access,
    issued: &Issued,
    response: &mut Response,
) -> Result<(), Fatal> {
    let Some(verify) = &subject.xr.spec.backup.verify else { return Ok(()) };
    let is_full = verify.mode == VerifyMode::Full;
    if is_full && subject.keeps_identity_in_namespace() && !credentials.is_in_namespace(subject) {
        return Err(Fatal::new(
            "spec.backup.verify.mode",
            "a whole restore needs the identity, which the master key keeps out of this namespace, and a drill could have it nowhere else",
            "take Quick, which needs none, or run `vcluster-backup verify` elsewhere with the identity",
        )
        .shown_as(Kind::BackupVerified, Reason::Refused));
    }
    let place = subject.names.beside_identity("verify");
    let is_observed = |key| subject.request.observed(key).is_some();
    let is_homeless = place.namespace == subject.names.namespace && !subject.has_namespace();
    if issued.signers.is_empty() || is_homeless {
        return Ok(());
    }
    let account = access.role_arn.as_ref().map(|_| place.name.as_str());
    let identity = if is_full { credentials.identities(subject)? } else { None };
    match entries(subject, identity).filter(|entries| has_identity(entries) == is_full) {
        Some(entries) => {
            let entries = entries.iter().map(|(name, value)| (*name, value.as_slice()));
            let secret = object::secret(&place.name, &place.namespace, entries);
            response.compose(key::VERIFY_KEYS, &secret, is_observed(key::VERIFY_KEYS));
        }
        None => match subject.request.observed(key::VERIFY_KEYS) {
            Some(there) => {
                let secret = object::kept("Secret", &place.name, &place.namespace, there);
                response.compose(key::VERIFY_KEYS, &secret, true);
            }
            None => return Ok(()),
        },
    }
    if let Some(role) = &access.role_arn {
        response.compose(
            key::VERIFY_ACCOUNT,
            &service_account(&place, role),
            is_observed(key::VERIFY_ACCOUNT),
        );
    }
    let cron_job = CronJob {
        place: &place,
        schedule: &verify.schedule,
        args: args(verify, &issued.signers),
        secrets: vec![place.name.clone()],
        input: subject.input,
        access,
        account,
    };
    response.compose(key::VERIFY, &cron_job.object(), is_observed(key::VERIFY));
    Ok(())
}

/// Where an identity that is derived is stored, for `KeySealed`.
pub fn keeps_derived(subject: &Subject) -> String {
    match &subject.xr.spec.backup.verify {
        Some(verify) if verify.mode == VerifyMode::Full => {
            format!("for the drill in Secret {}", subject.names.beside_identity("verify"))
        }
        _ => "nowhere".into(),
    }
}

fn args(verify: &Verify, signers: &[String]) -> Vec<String> {
    let mut args = vec!["verify".to_owned()];
    match verify.mode {
        VerifyMode::Quick => args.push("--quick".into()),
        VerifyMode::Full => args.push(format!("--identity-file={}", cron_job::file(IDENTITY))),
    }
    // Each identity signs with a key of its own; after a change objects of all are there.
    args.push(format!("--signer={}", signers.join(",")));
    args
}

fn has_identity(entries: &Entries) -> bool {
    entries.iter().any(|(name, _)| *name == IDENTITY)
}

/// What the drill takes along; none while some of it is not there.
fn entries(subject: &Subject, identity: Option<Zeroizing<String>>) -> Option<Entries> {
    let mut entries = if has_user(subject) {
        storage::s3_keys(subject.request.required(required::USER_KEYS).found()?)?
    } else {
        storage::credentials(subject).ok()?
    };
    match storage::certificate(subject) {
        Certificate::System => {}
        Certificate::Own(text) => entries.push(("ca.crt", Zeroizing::new(text.into_bytes()))),
        Certificate::Missing => return None,
    }
    entries.extend(identity.map(|text| (IDENTITY, Zeroizing::new(text.as_bytes().to_vec()))));
    Some(entries)
}

fn service_account(place: &Place, role: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": place.name,
            "namespace": place.namespace,
            "annotations": {"eks.amazonaws.com/role-arn": role},
        },
        "automountServiceAccountToken": false,
    })
}

/// What is known of drills.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    success: Option<Timestamp>,
    failure: Option<Timestamp>,
    /// Why the last one failed, in its own words.
    why: Option<String>,
    /// Since when one could have been.
    since: Option<Timestamp>,
}

impl Outcome {
    /// From the CronJob and the agent's report, whichever is newer. The pod writes the report: what it says of the
    /// future is not taken.
    pub fn of(subject: &Subject, report: &Report, now: SystemTime) -> Self {
        let observed = subject.request.observed(key::VERIFY);
        let time = |path: &[&str]| observed.and_then(|job| text(job, path)?.parse::<Timestamp>().ok());
        let mut success = time(&["status", "lastSuccessfulTime"]);
        let is_running = observed
            .and_then(|job| at(job, &["status", "active"])?.as_array())
            .is_some_and(|active| !active.is_empty());
        // A run that is over and was no success failed: the CronJob does not say so itself.
        let mut failure =
            time(&["status", "lastScheduleTime"]).filter(|start| !is_running && Some(*start) > success);
        let mut why = None;
        let reported = report.last_verify.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
        if let Some(reported) =
            reported.filter(|time| SystemTime::try_from(*time).is_ok_and(|time| time <= now))
        {
            match report.verify_failure() {
                Some(words) if Some(reported) > failure => {
                    failure = Some(reported);
                    why = Some(words.to_owned());
                }
                None => success = success.max(Some(reported)),
                Some(_) => {}
            }
        }
        Self { success, failure, why, since: time(&["metadata", "creationTimestamp"]) }
    }

    /// When one was last over.
    pub fn last(&self) -> Option<String> {
        self.success.max(self.failure).map(|time| time.to_string())
    }

    fn condition(&self, now: SystemTime, max_age: Duration) -> Condition {
        let kind = Kind::BackupVerified;
        let is_old = |time: Timestamp| {
            let age = SystemTime::try_from(time).ok().and_then(|time| now.duration_since(time).ok());
            age.is_some_and(|age| age > max_age)
        };
        if self.failure > self.success {
            let words = self.why.as_ref().map(|why| format!(" It says: {why}")).unwrap_or_default();
            let message =
                format!("The last drill failed; look at the pods of CronJob …-backup-verify.{words}");
            return Condition::no(kind, Reason::Failed, message);
        }
        match (self.success, self.since) {
            (Some(success), _) if !is_old(success) => {
                Condition::yes(kind, Reason::Verified, "A restore was tried out, and it was whole.")
            }
            (None, since) if !since.is_some_and(is_old) => Condition::unknown(
                kind,
                Reason::NotYetVerified,
                "No restore was tried out yet; the drill runs as scheduled.",
            ),
            _ => Condition::no(
                kind,
                Reason::Overdue,
                "The last restore that was tried out is older than maxAge; look whether CronJob …-backup-verify runs.",
            ),
        }
    }
}

/// Condition `BackupVerified`; none where no drill is asked for.
pub fn condition(subject: &Subject, outcome: &Outcome, now: SystemTime) -> Option<Condition> {
    let verify = subject.xr.spec.backup.verify.as_ref()?;
    if subject.wanted() != Wanted::On {
        return Some(Condition::unknown(Kind::BackupVerified, Reason::Disabled, "Backup is switched off."));
    }
    let max_age = verify.max_age.as_ref().map_or(MAX_AGE, Span::length);
    let mut condition = outcome.condition(now, max_age);
    let place = subject.names.beside_identity("verify");
    condition.message = condition.message.replace("…-backup-verify", &place.to_string());
    Some(condition)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::condition::Status;

    #[test]
    fn the_newest_word_counts() {
        let time = |text: &str| format!("2026-11-{text}:00:00Z").parse::<Timestamp>().unwrap();
        let now = SystemTime::try_from(time("22T12")).unwrap();
        for (success, failure, since, status, reason) in [
            (None, None, None, Status::Unknown, Reason::NotYetVerified),
            (None, None, Some("22T00"), Status::Unknown, Reason::NotYetVerified),
            (None, None, Some("14T11"), Status::False, Reason::Overdue),
            (None, Some("22T03"), None, Status::False, Reason::Failed),
            (Some("22T03"), None, None, Status::True, Reason::Verified),
            (Some("22T03"), Some("21T03"), None, Status::True, Reason::Verified),
            (Some("21T03"), Some("22T03"), None, Status::False, Reason::Failed),
            (Some("14T11"), None, None, Status::False, Reason::Overdue),
        ] {
            let outcome = Outcome {
                success: success.map(time),
                failure: failure.map(time),
                why: None,
                since: since.map(time),
            };
            let told = outcome.condition(now, MAX_AGE);
            assert_eq!((told.status, told.reason), (status, reason), "{outcome:?}");
        }
    }
}
