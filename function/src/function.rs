//! **One pass** over one request: what is asked for, what there is, what is to be. Pure: clock and randomness
//! are passed in, and the same request has the same answer, byte for byte, but for a new identity.

use std::time::SystemTime;

use ring::rand::SecureRandom;
use serde_json::Value;
use vcluster_backup_proto::v1::{RunFunctionRequest, RunFunctionResponse};

use crate::condition::{Condition, Kind, Reason, Status};
use crate::config::{Orders, config_map};
use crate::connection;
use crate::credentials::handover::Handover;
use crate::credentials::{self, Credentials};
use crate::drill::{self, Outcome};
use crate::fatal::Fatal;
use crate::input::Input;
use crate::names::{Names, key, required};
use crate::progress::Progress;
use crate::protection;
use crate::prune;
use crate::rancher;
use crate::release::Release;
use crate::report::Report;
use crate::request::{Request, Required};
use crate::response::Response;
use crate::source::Source;
use crate::status::{self, Facts};
use crate::storage::{self, Access, Certificate};
use crate::subject::{Subject, Wanted};
use crate::upgrade::Upgrade;
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
    connection::publish(&subject, response);

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

    let source = Source::resolve(&subject, &report, response)?;
    let release = Release::of(&subject, &report, now)?;
    if release.is_asleep() && subject.wanted() == Wanted::On {
        let message = "The vcluster is scaled to zero; nothing changes.";
        health = Condition::unknown(Kind::BackupHealthy, Reason::Asleep, message);
        response.set_condition(health.clone());
    }
    let access = Access::of(&subject)?;
    storage::compose(&subject, &access, response)?;

    let version = release.version().to_owned();
    let distro = release.distro();
    let upgrade = release.upgrade().cloned();
    let issued = if subject.wanted() == Wanted::On {
        let credentials = Credentials::resolve(&subject, random)?;
        let (issued, handover) = credentials.compose(&subject, &report, &source, response)?;
        let orders = Orders {
            include: distro.include(),
            is_append_only: input.storage.is_append_only(),
            restore: None,
            signers: issued.signers.iter().rev().cloned().collect(),
            upgrade: upgrade.clone(),
        };
        let restore = order(&subject, &report, &source, handover);
        compose_config(&subject, orders, restore, response);
        release.compose(&subject, &access, &health, response)?;
        drill::compose(&subject, &credentials, &access, &issued, response)?;
        prune::compose(&subject, &access, response)?;
        issued
    } else {
        release.compose(&subject, &access, &health, response)?;
        credentials::compose_off(&subject, response)
    };
    protection::compose(&subject, response);
    response.set_condition(health.clone());
    let outcome = Outcome::of(&subject, &report, now);
    if let Some(condition) = drill::condition(&subject, &outcome, now) {
        response.set_condition(condition);
    }
    let progress = Progress::of(&subject, &report, &source);
    if let Some(condition) = progress.condition() {
        if condition.status != Status::True {
            response.withhold();
        }
        response.set_condition(condition.clone());
    }
    let bucket = match subject.wanted() {
        Wanted::On => Some(access.bucket.as_str()),
        Wanted::Kept => subject.remembered("bucket"),
        Wanted::Dropped => None,
    };
    let facts = Facts {
        report: &report,
        health: &health,
        version: &version,
        upgrade: upgrade.as_ref().map(Upgrade::status),
        bucket,
        issued: &issued,
        progress: &progress,
        last_verify: outcome.last(),
    };
    let mut status = status::status(&subject, &facts);
    if let Some(rancher) = rancher::compose(&subject, &report, distro, response)? {
        status.insert("rancher".into(), rancher);
    }
    response.set_status(status);
    Ok(())
}

/// Asks for what must be read live: the same for the same spec, or Crossplane would go on asking.
fn require(subject: &Subject, response: &mut Response) -> Result<(), Fatal> {
    credentials::require(subject, response)?;
    response.require(required::REPORT, "v1", "ConfigMap", &subject.names.report());
    storage::require(subject, response)?;
    drill::require(subject, response);
    prune::require(subject, response)
}

/// What the agent is told of a restore.
enum Order {
    /// This, or nothing.
    Known(Option<Value>),
    /// What it was told before.
    Unchanged,
}

/// A restore from elsewhere is asked for when all that it takes is handed over, and a new cluster is told nothing
/// before: it would start empty.
fn order(subject: &Subject, report: &Report, source: &Source, handover: Handover) -> Order {
    let Some(restore) = subject.pending_restore(report.restored_id.as_deref()) else {
        return Order::Known(None);
    };
    let mut config = restore.config();
    match source {
        Source::Own => Order::Known(Some(config)),
        Source::Found(backup) if handover.is_done => {
            config["from"] = backup.config();
            Order::Known(Some(config))
        }
        Source::Missing(..) if subject.request.observed(key::CONFIG).is_some() => Order::Known(None),
        Source::Found(_) | Source::Missing(..) | Source::Unresolved => Order::Unchanged,
    }
}

/// The ConfigMap follows the keys: the agent starts when it has both.
fn compose_config(subject: &Subject, orders: Orders, restore: Order, response: &mut Response) {
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
    let Order::Known(restore) = restore else {
        credentials::keep(subject, response, &[key::CONFIG]);
        response.withhold();
        return;
    };
    let is_issued = !orders.signers.is_empty();
    if observed || (is_issued && subject.has_namespace()) {
        let orders = Orders { restore, ..orders };
        let place = subject.names.config();
        let config = config_map(&place, &subject.xr.spec, &orders, certificate.as_deref());
        response.compose(key::CONFIG, &config, observed);
    } else {
        response.withhold();
    }
}
