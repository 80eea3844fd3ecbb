//! The **release**: the vcluster, by provider-helm.

use serde_json::{Value, json};
use vcluster_backup_proto::v1::Severity;

use crate::chart::{self, Version};
use crate::condition::{Condition, Kind, Reason, Status};
use crate::fatal::Fatal;
use crate::names::key;
use crate::object::{is_ready, text};
use crate::policy::check_reach;
use crate::reference::ProviderConfigKind;
use crate::response::Response;
use crate::sidecar::{self, Sidecar};
use crate::storage::Access;
use crate::subject::{Subject, Wanted};
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
    distro: chart::Distro,
}

impl Release {
    /// Reads chart version and values; refuses what cannot work, and what the user may not set.
    pub fn of(subject: &Subject) -> Result<Self, Fatal> {
        let spec = &subject.xr.spec;
        let (field, version) = match &spec.version {
            Some(version) => ("spec.version", version),
            None => ("input.chart.version", &subject.input.chart.version),
        };
        let version = Version::parse(field, version)?;
        chart::check_layout(field, &version, &spec.values)?;
        check_reach(&spec.values, &subject.input.policy.values)?;
        let values = Values::layered(&subject.input.chart.values, &spec.values);
        let distro = match subject.wanted() {
            Wanted::On => chart::check_backup(field, &version, &values)?,
            Wanted::Kept | Wanted::Dropped => chart::Distro::K8s,
        };
        Ok(Self { version, values, distro })
    }

    /// The chart's version.
    pub fn version(&self) -> &str {
        self.version.as_str()
    }

    /// Where the database is.
    pub fn distro(&self) -> chart::Distro {
        self.distro
    }

    /// Whether the control plane is scaled to zero.
    pub fn is_asleep(&self) -> bool {
        let replicas = ["controlPlane", "statefulSet", "highAvailability", "replicas"];
        self.values.at(&replicas).and_then(Value::as_f64) == Some(0.0)
    }

    /// Composes it, with the sidecar while there is a backup.
    pub fn compose(
        mut self,
        subject: &Subject,
        access: &Access,
        identity_secret: &str,
        response: &mut Response,
    ) -> Result<(), Fatal> {
        let observed = subject.request.observed(key::CLUSTER);
        let waits =
            subject.wanted() == Wanted::On && observed.is_some_and(|release| must_wait(subject, release));
        if subject.wanted() == Wanted::On && !waits {
            let sidecar = Sidecar {
                agent: &subject.input.agent,
                storage: &subject.input.storage,
                names: subject.names,
                access,
                identity_secret,
                distro: self.distro,
            };
            sidecar.add_to(&mut self.values);
        }
        let overridden = self.values.overridden().join(", ");
        let told = observed.and_then(|release| text(release, &["metadata", "annotations", OVERRIDDEN]));
        if !overridden.is_empty() && told != Some(&overridden) {
            let message =
                format!("{overridden}: the backup needs this place for itself, what was there is not used");
            response.tell(Severity::Warning, Reason::ValueOverridden, message);
        }
        response.compose(key::CLUSTER, &self.object(subject, &overridden)?, observed.is_some_and(is_ready));
        let mut condition = condition(subject, observed);
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
        let api_version = match subject.xr.flavour {
            Flavour::ClusterScoped => "helm.crossplane.io/v1beta1",
            Flavour::Namespaced => "helm.m.crossplane.io/v1beta1",
        };
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
            "apiVersion": api_version,
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

/// Whether the backup must wait until all that it mounts is there: a control plane that runs without would not come
/// back from the restart. One that is only being installed starts when it can.
fn must_wait(subject: &Subject, release: &Value) -> bool {
    let is_there = |key| subject.request.observed(key).is_some();
    let has_storage = subject.uses_existing() || subject.request.is_ready(key::USER);
    let has_all = is_there(key::KEYS) && is_there(key::CONFIG) && has_storage;
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
