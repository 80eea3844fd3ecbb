//! **One pass** over one request: what is asked for, what there is, what is to be. Pure: clock and randomness
//! are passed in, and the same request has the same answer, byte for byte, but for a new identity.

use std::time::SystemTime;

use ring::rand::SecureRandom;
use vcluster_backup_proto::v1::{RunFunctionRequest, RunFunctionResponse};

use crate::condition::{Condition, Kind, Reason};
use crate::config::config_map;
use crate::credentials::{self, Credentials};
use crate::fatal::Fatal;
use crate::input::Input;
use crate::names::{Names, key, required};
use crate::rancher;
use crate::release::Release;
use crate::report::Report;
use crate::request::{Request, Required};
use crate::response::Response;
use crate::status::{self, Facts};
use crate::storage::{self, Access, Certificate};
use crate::subject::{Subject, Wanted};
use crate::xr::Xr;

/// Answers one request. A mistake of platform or user is a fatal result, never an error of the call.
pub fn run(request: RunFunctionRequest, now: SystemTime, random: &dyn SecureRandom) -> RunFunctionResponse {
    let mut response = Response::to(&request);
    if let Err(fatal) = answer(&Request::from(request), now, random, &mut response) {
        response.refuse(&fatal);
    }
    response.finish()
}

fn answer(
    request: &Request,
    now: SystemTime,
    random: &dyn SecureRandom,
    response: &mut Response,
) -> Result<(), Fatal> {
    let input = Input::parse(request.input())?;
    if let Some(ttl) = &input.ttl {
        response.set_ttl(ttl.length());
    }
    let xr = Xr::parse(request.composite())?;
    let names = Names::of(&xr, &input)?;
    let subject = Subject { request, input: &input, xr: &xr, names: &names };
    require(&subject, response)?;

    let fetched = request.required(required::REPORT);
    let report = Report::of(fetched.found());
    let mut health = report.health(now, xr.spec.backup.stale_after.length());
    if subject.wanted() != Wanted::On {
        let message = "Backup is switched off: nothing is captured. Set spec.backup.enabled to true.";
        health = Condition::no(Kind::BackupHealthy, Reason::Disabled, message);
    }
    // A refusal may come before Crossplane has fetched the report (up to v2.3): what was known then stays.
    if !matches!(fetched, Required::Unresolved) || subject.wanted() != Wanted::On {
        response.set_condition(health.clone());
    }

    let release = Release::of(&subject)?;
    if release.is_asleep() && subject.wanted() == Wanted::On {
        let message = "The vcluster is scaled to zero; nothing changes.";
        health = Condition::unknown(Kind::BackupHealthy, Reason::Asleep, message);
        response.set_condition(health.clone());
    }
    let access = Access::of(&subject)?;
    storage::compose(&subject, &access, response)?;

    let version = release.version().to_owned();
    let distro = release.distro();
    let issued = if subject.wanted() == Wanted::On {
        let credentials = Credentials::resolve(&subject, random)?;
        let issued = credentials.compose(&subject, &report, response)?;
        let is_issued = issued.fingerprint.is_some();
        compose_config(&subject, &report, is_issued, response);
        release.compose(&subject, &access, &credentials.identity_secret(&subject), response)?;
        issued
    } else {
        release.compose(&subject, &access, "", response)?;
        credentials::compose_off(&subject, response)
    };
    response.set_condition(health.clone());
    tell_restore(&subject, &report, response);
    let bucket = match subject.wanted() {
        Wanted::On => Some(access.bucket.as_str()),
        Wanted::Kept => subject.remembered("bucket"),
        Wanted::Dropped => None,
    };
    let facts = Facts { report: &report, health: &health, version: &version, bucket, issued: &issued };
    let mut status = status::status(&subject, &facts);
    if let Some(rancher) = rancher::compose(&subject, &report, distro, response)? {
        status.insert("rancher".into(), rancher);
    }
    response.set_status(status);
    Ok(())
}

/// Asks for what must be read live: the same for the same spec, or Crossplane would go on asking.
fn require(subject: &Subject, response: &mut Response) -> Result<(), Fatal> {
    response.require(required::IDENTITY, "v1", "Secret", &subject.names.identity);
    response.require(required::REPORT, "v1", "ConfigMap", &subject.names.report());
    let storage = &subject.input.storage;
    if let Some(existing) = storage.existing.as_ref().filter(|_| subject.uses_existing()) {
        let place = subject.locate("input.storage.existing.secretRef", &existing.secret_ref)?;
        response.require(required::STORAGE, "v1", "Secret", &place);
    }
    if let Some(certificate) = &storage.ca_secret_ref {
        let place = subject.locate("input.storage.caSecretRef", certificate)?;
        response.require(required::CERTIFICATE, "v1", "Secret", &place);
    }
    Ok(())
}

/// The ConfigMap follows the keys: the agent starts when it has both.
fn compose_config(subject: &Subject, report: &Report, is_issued: bool, response: &mut Response) {
    let observed = subject.request.observed(key::CONFIG).is_some();
    let certificate = match storage::certificate(subject) {
        Certificate::System => None,
        Certificate::Own(certificate) => Some(certificate),
        Certificate::Missing => {
            credentials::keep(subject, response, &[key::CONFIG]);
            response.withhold();
            response.set_condition(Condition::no(
                Kind::StorageReady,
                Reason::CertificateMissing,
                "The Secret of storage.caSecretRef has no ca.crt yet; ask the platform to put it there.",
            ));
            return;
        }
    };
    if observed || (is_issued && subject.has_namespace()) {
        let place = subject.names.config();
        let restore = subject.pending_restore(report.restored_id.as_deref());
        let config = config_map(&place, &subject.xr.spec, restore, certificate.as_deref());
        response.compose(key::CONFIG, &config, observed);
    } else {
        response.withhold();
    }
}

fn tell_restore(subject: &Subject, report: &Report, response: &mut Response) {
    let Some(restore) = &subject.xr.spec.restore else { return };
    response.set_condition(if subject.pending_restore(report.restored_id.as_deref()).is_some() {
        Condition::no(
            Kind::Restored,
            Reason::Pending,
            format!("Restore {} is done when the control plane starts next.", restore.id),
        )
    } else {
        Condition::yes(
            Kind::Restored,
            Reason::Done,
            format!(
                "Restore {} is done; take spec.restore out, or ask for another under a new id.",
                restore.id
            ),
        )
    });
}
