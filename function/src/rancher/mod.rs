//! Registration in **Rancher**, by provider-kubernetes, one step when the one before has come to something:
//!
//! ```text
//!  Object Cluster ──clusterName──► Object ClusterRegistrationToken ──manifestUrl──► Secret ─┐
//!  (in Rancher)                    (in Rancher, observed only)                              ├─► Object Job
//!                                                                      vcluster is ready ───┘   (in the host)
//! ```
//!
//! The backup asks nothing of it, and once a cluster was registered its XR stays ready whatever becomes of Rancher.

pub mod chart;
pub mod cluster;
pub mod import;

use serde_json::{Value, json};

use crate::chart::Distro;
use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::input::Rancher as Platform;
use crate::names::{Place, key};
use crate::object::{self, at, is_ready, text};
use crate::reference::{ProviderConfigKind, ProviderConfigRef};
use crate::report::Report;
use crate::response::Response;
use crate::subject::Subject;
use crate::xr::Flavour;
use import::Import;

/// The one token that Rancher makes for a cluster.
const TOKEN: &str = "default-token";
/// The other cluster that an Object is for.
enum Where {
    /// Rancher's own.
    Rancher,
    /// The one that the vcluster is in.
    Host,
}

/// Composes what is due, tells how far it is, and gives what the XR's status shows of it.
pub fn compose(
    subject: &Subject,
    report: &Report,
    distro: Distro,
    response: &mut Response,
) -> Result<Option<Value>, Fatal> {
    if !subject.xr.spec.rancher.enabled {
        let is_there = |key| subject.request.observed(key).is_some();
        if is_there(key::RANCHER_CLUSTER) || is_there(key::RANCHER_RELEASE) {
            let message = "Registration is switched off: the cluster is being taken out of Rancher.";
            response.set_condition(Condition::no(Kind::ClusterRegistered, Reason::Disabled, message));
        }
        return Ok(None);
    }
    let Some(platform) = &subject.input.rancher else {
        return Err(Fatal::new(
            "spec.rancher.enabled",
            "the platform has set up no Rancher (input.rancher)",
            "set it to false, or ask the platform to set up Rancher",
        )
        .shown_as(Kind::ClusterRegistered, Reason::Refused));
    };
    check_way(subject, platform)?;
    let mut registration = Registration { subject, platform, settled: was_registered(subject), response };
    let (condition, cluster_id) = match &platform.chart {
        Some(chart) => (registration.by_chart(chart, distro)?, None),
        None => registration.by_objects(report)?,
    };
    let settled = registration.settled || condition.reason == Reason::Registered;
    if !settled {
        response.withhold();
    }
    response.set_condition(condition);
    let mut status = json!({"registered": settled});
    if let Some(id) = cluster_id {
        status["clusterId"] = json!(id);
    }
    Ok(Some(status))
}

/// Whether this XR's cluster has been in Rancher before.
fn was_registered(subject: &Subject) -> bool {
    at(subject.request.composite(), &["status", "rancher", "registered"]) == Some(&json!(true))
}

/// One cluster must not be registered in two ways: dropping the first would delete what the second makes.
fn check_way(subject: &Subject, platform: &Platform) -> Result<(), Fatal> {
    let (other, way) = match platform.chart {
        Some(_) => (key::RANCHER_CLUSTER, "provider-kubernetes"),
        None => (key::RANCHER_RELEASE, "the rancher-cluster chart"),
    };
    if subject.request.observed(other).is_none() {
        return Ok(());
    }
    Err(Fatal::new(
        "input.rancher.chart",
        format_args!("this cluster has been registered by {way}"),
        "set spec.rancher.enabled to false first, and to true again when the cluster is gone from Rancher",
    )
    .shown_as(Kind::ClusterRegistered, Reason::Refused))
}

struct Registration<'a> {
    subject: &'a Subject<'a>,
    platform: &'a Platform,
    settled: bool,
    response: &'a mut Response,
}

impl Registration<'_> {
    /// The three Objects. How far it is, and Rancher's name for the cluster.
    fn by_objects(&mut self, report: &Report) -> Result<(Condition, Option<String>), Fatal> {
        let subject = self.subject;
        let name = cluster::object_name(subject);
        let observed = subject.request.observed(key::RANCHER_CLUSTER);
        let manifest = cluster::manifest(subject, &self.platform.namespace, observed);
        let in_rancher = text(&manifest, &["metadata", "name"]).unwrap_or_default().to_owned();
        let is_registered = "has(object.status) && has(object.status.ready) && object.status.ready";
        let object = self.object(&name, &manifest, &Where::Rancher, is_registered)?;
        self.add(key::RANCHER_CLUSTER, &object, observed.is_some_and(is_ready));

        let coming = |reason, message: String| Condition::no(Kind::ClusterRegistered, reason, message);
        let why = format!("if it stays so, `kubectl describe object {name}` for what its provider says.");
        let Some(observed) = observed else {
            let message = format!("Rancher is being asked for cluster {in_rancher}.");
            return Ok((coming(Reason::Registering, message), None));
        };
        let Some(id) = cluster::id(observed) else {
            let message = format!("Rancher has no id for cluster {in_rancher} yet; {why}");
            return Ok((coming(Reason::AwaitingClusterId, message), None));
        };
        let has_all = self.import(report, &name, &id)?;
        let condition = match (cluster::is_connected(observed), has_all) {
            (true, _) => {
                let message = format!("Rancher knows the cluster as {in_rancher} ({id}).");
                Condition::yes(Kind::ClusterRegistered, Reason::Registered, message)
            }
            (false, Some(step)) => step,
            (false, None) if self.settled => coming(
                Reason::Disconnected,
                format!(
                    "Rancher has lost sight of {in_rancher} ({id}); look at deployment cattle-cluster-agent in namespace cattle-system of the vcluster."
                ),
            ),
            (false, None) => coming(
                Reason::Importing,
                format!(
                    "Rancher's agent is in the vcluster; {in_rancher} ({id}) is registered when it has connected."
                ),
            ),
        };
        Ok((condition, Some(id)))
    }

    /// What brings Rancher's agent into the vcluster; the step that is still to come, if one is.
    fn import(&mut self, report: &Report, name: &str, id: &str) -> Result<Option<Condition>, Fatal> {
        let subject = self.subject;
        let coming =
            |reason, message: String| Ok(Some(Condition::no(Kind::ClusterRegistered, reason, message)));
        let manifest = json!({
            "apiVersion": "management.cattle.io/v3",
            "kind": "ClusterRegistrationToken",
            "metadata": {"name": TOKEN, "namespace": id},
        });
        let has_token = "has(object.status) && has(object.status.manifestUrl)";
        let token = subject.request.observed(key::RANCHER_TOKEN);
        let name_of_token = format!("{name}-token");
        let mut object = self.object(&name_of_token, &manifest, &Where::Rancher, has_token)?;
        object["spec"]["managementPolicies"] = json!(["Observe"]);
        self.add(key::RANCHER_TOKEN, &object, token.is_some_and(is_ready));

        let place = Place {
            name: format!("{}-rancher-import", subject.names.release),
            namespace: subject.names.namespace.clone(),
        };
        let there = subject.request.observed(key::RANCHER_IMPORT_KEY);
        // Only what was read of this very cluster: the Object may be a moment behind.
        let url = token.filter(|token| import::is_of(token, id)).and_then(import::manifest_url);
        match (&url, there) {
            (Some(url), _) if subject.has_namespace() => {
                let secret = import::secret(&place, url);
                self.add(key::RANCHER_IMPORT_KEY, &secret, there.is_some());
            }
            (None, Some(there)) => {
                let kept = object::kept("Secret", &place.name, &place.namespace, there);
                self.add(key::RANCHER_IMPORT_KEY, &kept, true);
            }
            _ => {}
        }

        let restored = report.restored_id.as_deref().or_else(|| done_before(subject));
        let import = Import {
            image: &self.platform.image,
            release: &subject.names.release,
            namespace: &subject.names.namespace,
            secret: &place.name,
            id,
            restored,
        };
        let key = format!("{}-{}", key::RANCHER_IMPORT, import.digest());
        let observed = subject.request.observed(&key);
        let is_up = subject.request.is_ready(key::CLUSTER);
        if observed.is_some() || (there.is_some() && is_up) {
            let is_done = "has(object.status) && has(object.status.conditions) && object.status.conditions.exists(c, c.type == 'Complete' && c.status == 'True')";
            let name = format!("{name}-import-{}", import.digest());
            let object = self.object(&name, &import.job(), &Where::Host, is_done)?;
            self.add(&key, &object, observed.is_some_and(is_ready));
        }
        if url.is_none() && there.is_none() {
            let message = format!(
                "Rancher has no registration token for {id} yet; if it stays so, `kubectl describe object {name_of_token}` for what its provider says."
            );
            return coming(Reason::AwaitingToken, message);
        }
        match observed {
            Some(observed) if is_ready(observed) => Ok(None),
            Some(observed) if import::has_failed(observed) => coming(
                Reason::ImportFailed,
                format!(
                    "Rancher's agent could not be brought into the vcluster: Job {} in namespace {} says why. Delete the Job, and it is tried again.",
                    import.name(),
                    import.namespace
                ),
            ),
            None if !is_up => coming(
                Reason::AwaitingCluster,
                "Rancher's agent is brought into the vcluster when that is installed.".into(),
            ),
            _ => coming(Reason::Importing, "Rancher's agent is being brought into the vcluster.".into()),
        }
    }

    /// Composes it. What was registered once is no reason to be unready any more.
    fn add(&mut self, key: &str, object: &Value, ready: bool) {
        self.response.compose(key, object, ready || self.settled);
    }

    /// An object of another cluster, by provider-kubernetes.
    fn object(&self, name: &str, manifest: &Value, place: &Where, ready_if: &str) -> Result<Value, Fatal> {
        let (field, asked): (_, Option<&ProviderConfigRef>) = match place {
            Where::Rancher => ("input.rancher.providerConfigRef", self.platform.provider_config_ref.as_ref()),
            Where::Host => {
                ("input.rancher.hostProviderConfigRef", self.platform.host_provider_config_ref.as_ref())
            }
        };
        let reference =
            self.subject.provider_config(field, asked, ProviderConfigKind::ClusterProviderConfig)?;
        let api_version = match self.subject.xr.flavour {
            Flavour::ClusterScoped => "kubernetes.crossplane.io/v1alpha2",
            Flavour::Namespaced => "kubernetes.m.crossplane.io/v1alpha1",
        };
        Ok(json!({
            "apiVersion": api_version,
            "kind": "Object",
            "metadata": self.subject.metadata(name),
            "spec": {
                "forProvider": {"manifest": manifest},
                "readiness": {"policy": "DeriveFromCelQuery", "celQuery": ready_if},
                "providerConfigRef": reference,
            },
        }))
    }
}

/// The restore that is remembered as done when the agent does not say.
fn done_before<'a>(subject: &'a Subject) -> Option<&'a str> {
    let restore = subject.remembered_restore()?;
    text(restore, &["phase"]).filter(|phase| *phase == "Done")?;
    text(restore, &["id"])
}
