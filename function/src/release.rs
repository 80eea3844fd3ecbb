//! The **release**: the vcluster, by provider-helm.

use std::time::SystemTime;

use serde_json::{Value, json};
use vcluster_backup_proto::v1::Severity;

use crate::chart::{self, Distro, Generation, Version};
use crate::condition::{Condition, Kind, Reason, Status};
use crate::fatal::Fatal;
use crate::names::key;
use crate::object::{at, is_ready, text};
use crate::policy::check_reach;
use crate::reference::ProviderConfigKind;
use crate::report::Report;
use crate::response::Response;
use crate::restart;
use crate::sidecar::{self, Sidecar};
use crate::storage::{self, Access};
use crate::subject::{Subject, Wanted};
use crate::upgrade::{self, Upgrade};
use crate::values::Values;
use crate::xr::Flavour;

/// The name of the Helm release (provider-helm takes the object's own otherwise).
const EXTERNAL_NAME: &str = "crossplane.io/external-name";
/// Which values gave way to the function's own, so that it is told once.
const OVERRIDDEN: &str = "vcluster-backup.io/overridden-values";

/// What the vcluster is installed with, checked.
pub struct Release {
    version: Version,
    values: Values,
    distro: Distro,
    /// The restore that its pod is made anew for.
    restart: Option<String>,
    upgrade: Option<Upgrade>,
}

impl Release {
    /// Reads chart version and values; refuses what cannot work, and what the user may not set.
    pub fn of(subject: &Subject, report: &Report, now: SystemTime) -> Result<Self, Fatal> {
        let spec = &subject.xr.spec;
        let (field, version) = match &spec.version {
            Some(version) => ("spec.version", version),
            None => ("input.chart.version", &subject.input.chart.version),
        };
        let version = Version::parse(field, version)?;
        check_reach(&spec.values, &subject.input.policy.values)?;
        let values = Values::layered(&subject.input.chart.values, &spec.values);
        let distro = match subject.wanted() {
            Wanted::On => chart::check_backup(field, &version, &subject.input.chart, &values)?,
            Wanted::Kept | Wanted::Dropped => chart::distro(Generation::of(&version), &values),
        };
        let restored = report.restored_id.as_deref();
        check_restore(subject, &version, restored)?;
        let restart = restart::id(subject, restored);
        let upgrade = Upgrade::of(subject, &version, report, now);
        let release = Self { version, values, distro, restart, upgrade };
        let observed = subject.request.observed(key::CLUSTER);
        Ok(match observed.filter(|_| release.is_held()) {
            Some(observed) => release.held_at(observed),
            None => release,
        })
    }

    /// This one, with all as it is observed.
    fn held_at(self, observed: &Value) -> Self {
        let version = upgrade::running(observed).unwrap_or(self.version);
        let values = Values::observed(observed);
        let distro = chart::distro(Generation::of(&version), &values);
        Self { version, values, distro, ..self }
    }

    /// Whether chart and values stay as they are observed.
    fn is_held(&self) -> bool {
        self.upgrade.as_ref().is_some_and(Upgrade::waits)
    }

    /// The upgrade that is to come.
    pub fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.as_ref()
    }

    /// Where the database is.
    pub fn distro(&self) -> Distro {
        self.distro
    }

    /// The chart's version.
    pub fn version(&self) -> &str {
        self.version.as_str()
    }

    /// Whether the control plane is scaled to zero.
    pub fn is_asleep(&self) -> bool {
        Generation::of(&self.version).is_asleep(&self.values)
    }

    /// Composes it, with the sidecar while there is a backup.
    pub fn compose(
        mut self,
        subject: &Subject,
        access: &Access,
        health: &Condition,
        response: &mut Response,
    ) -> Result<(), Fatal> {
        let observed = subject.request.observed(key::CLUSTER);
        let waits =
            subject.wanted() == Wanted::On && observed.is_some_and(|release| must_wait(subject, release));
        let generation = Generation::of(&self.version);
        if subject.wanted() == Wanted::On && !waits && !self.is_held() {
            let sidecar = Sidecar {
                agent: &subject.input.agent,
                storage: &subject.input.storage,
                names: subject.names,
                access,
                distro: self.distro,
                generation,
                is_patched: subject.input.chart.sidecar_container,
                restart: self.restart.as_deref(),
            };
            sidecar.add_to(&mut self.values);
        }
        let told = observed.and_then(|release| text(release, &["metadata", "annotations", OVERRIDDEN]));
        let overridden = match told.filter(|_| self.is_held()) {
            Some(told) => told.to_owned(),
            None => self.values.overridden().join(", "),
        };
        if !overridden.is_empty() && told != Some(&overridden) {
            let message =
                format!("{overridden}: the backup needs this place for itself, what was there is not used");
            response.tell(Severity::Warning, Reason::ValueOverridden, message);
        }
        let upgrade = self.upgrade.take();
        let held = observed.filter(|_| upgrade.as_ref().is_some_and(Upgrade::waits));
        let mut object = self.object(subject, &overridden)?;
        if let Some(chart) = held.and_then(|release| at(release, &["spec", "forProvider", "chart"])) {
            object["spec"]["forProvider"]["chart"] = chart.clone();
        }
        response.compose(key::CLUSTER, &object, observed.is_some_and(is_ready));
        let mut condition = condition(subject, observed);
        if let Some(upgrade) = upgrade {
            upgrade.tell(&mut condition, health, response);
        }
        if subject.wanted() == Wanted::On && !generation.has_init_containers() {
            condition.message.push_str(" This chart runs nothing before its control plane: a lost volume is not restored by itself, which 0.19.0 or newer does.");
        }
        if waits {
            response.withhold();
            if condition.status == Status::True {
                condition.reason = Reason::AwaitingBackup;
                condition.message.push_str(" The backup joins it, which restarts the control plane, as soon as its keys, settings and storage are there.");
            }
        }
        response.set_condition(condition);
        Ok(())
    }

    fn object(self, subject: &Subject, overridden: &str) -> Result<Value, Fatal> {
        let names = subject.names;
        let settings = &subject.input.chart;
        let mut chart = json!({
            "repository": settings.repository,
            "name": settings.name,
            "version": self.version.as_str(),
        });
        if let Some(secret) = &settings.pull_secret_ref {
            let place = subject.locate("input.chart.pullSecretRef", secret)?;
            chart["pullSecretRef"] = match subject.xr.flavour {
                Flavour::ClusterScoped => json!({"name": place.name, "namespace": place.namespace}),
                Flavour::Namespaced if place.namespace == names.namespace => json!({"name": place.name}),
                Flavour::Namespaced => {
                    return Err(Fatal::new(
                        "input.chart.pullSecretRef.namespace",
                        format_args!(
                            "a namespaced Release reads no other namespace than its own, {}",
                            names.namespace
                        ),
                        "take it out, and put the Secret into each namespace that has a Vcluster",
                    ));
                }
            };
        }
        let reference = subject.provider_config(
            "input.helm.providerConfigRef",
            subject.input.helm.provider_config_ref.as_ref(),
            ProviderConfigKind::ClusterProviderConfig,
        )?;
        let mut metadata = subject.metadata(&names.release_object);
        let mut annotations = json!({EXTERNAL_NAME: names.release});
        if !overridden.is_empty() {
            annotations[OVERRIDDEN] = json!(overridden);
        }
        metadata.insert("annotations".into(), annotations);
        Ok(json!({
            "apiVersion": subject.api("helm"),
            "kind": "Release",
            "metadata": metadata,
            "spec": {
                "forProvider": {
                    "chart": chart,
                    // Said aloud: the namespaced provider does not default it to the object's own.
                    "namespace": names.namespace,
                    "values": self.values.into_json(),
                },
                "providerConfigRef": reference,
            },
        }))
    }
}

/// Refuses a restore that nothing would do.
fn check_restore(subject: &Subject, version: &Version, restored: Option<&str>) -> Result<(), Fatal> {
    let is_asked = subject.wanted() == Wanted::On && subject.pending_restore(restored).is_some();
    if !is_asked || Generation::of(version).has_init_containers() {
        return Ok(());
    }
    Err(Fatal::new(
        "spec.restore",
        format_args!(
            "chart {} runs nothing before its control plane, which a restore must",
            version.as_str()
        ),
        "name 0.19.0 or newer in spec.version, or restore by hand as the restore page says",
    ))
}

/// Whether the backup must wait until all that it mounts is there: a control plane that runs without would not come
/// back from the restart. One that is only being installed starts when it can.
fn must_wait(subject: &Subject, release: &Value) -> bool {
    let is_there = |key| subject.request.observed(key).is_some();
    let has_all = is_there(key::KEYS) && is_there(key::CONFIG) && storage::is_there(subject);
    !has_all && !sidecar::is_in(release)
}

fn condition(subject: &Subject, observed: Option<&Value>) -> Condition {
    let kind = Kind::ClusterReady;
    let object = &subject.names.release_object;
    let Some(release) = observed else {
        return Condition::no(kind, Reason::Installing, "The vcluster is being installed.");
    };
    if is_ready(release) {
        let message = format!("The kubeconfig is in Secret {}.", subject.names.kubeconfig());
        return Condition::yes(kind, Reason::Installed, message);
    }
    if text(release, &["status", "atProvider", "state"]) == Some("failed") {
        let message =
            format!("Helm could not install the vcluster: `kubectl describe release {object}` says why.");
        return Condition::no(kind, Reason::InstallFailed, message);
    }
    Condition::no(kind, Reason::Installing, "The vcluster is being installed.")
}
