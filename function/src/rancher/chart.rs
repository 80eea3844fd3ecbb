//! Registration by the **`rancher-cluster` chart**, as it was before: a hook that talks to Rancher's API with a token
//! and runs kubectl in the vcluster's own container. It finds its kubeconfig only where the k3s distro has it.

use serde_json::{Value, json};

use super::{Registration, cluster};
use crate::chart::Distro;
use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::input::RancherChart;
use crate::names::key;
use crate::object::{is_ready, text};
use crate::reference::ProviderConfigKind;
use crate::xr::Flavour;

/// The name of the Helm release (provider-helm takes the object's own otherwise).
const EXTERNAL_NAME: &str = "crossplane.io/external-name";
/// What the chart calls the Secret with the token.
const TOKEN: &str = "apitoken";

impl Registration<'_> {
    /// The Release. How far it is.
    pub(super) fn by_chart(&mut self, chart: &RancherChart, distro: Distro) -> Result<Condition, Fatal> {
        let subject = self.subject;
        if distro != Distro::K3s {
            return Err(Fatal::new(
                "spec.rancher.enabled",
                "the platform registers by the rancher-cluster chart (input.rancher.chart), which needs a vcluster of the k3s distro",
                "name a version up to 0.32 with spec.values.controlPlane.distro.k3s.enabled: true, or ask the platform to take input.rancher.chart out",
            )
            .shown_as(Kind::ClusterRegistered, Reason::Refused));
        }
        let observed = subject.request.observed(key::RANCHER_RELEASE);
        // What it made it must delete again.
        let made =
            observed.and_then(|release| text(release, &["spec", "forProvider", "values", "clustername"]));
        let in_rancher = made.map_or_else(|| cluster::name(subject), str::to_owned);
        let object = self.release(chart, &in_rancher)?;
        let coming = |reason, message: &str| Condition::no(Kind::ClusterRegistered, reason, message);
        // Its hook waits for the vcluster a few minutes, and never runs again.
        if observed.is_none() && !subject.request.is_ready(key::CLUSTER) {
            return Ok(coming(
                Reason::AwaitingCluster,
                "Rancher's agent is brought into the vcluster when that is installed.",
            ));
        }
        self.add(key::RANCHER_RELEASE, &object, observed.is_some_and(is_ready));
        Ok(match observed {
            Some(release) if is_ready(release) => Condition::yes(
                Kind::ClusterRegistered,
                Reason::Registered,
                format!("Rancher knows the cluster as {in_rancher}."),
            ),
            Some(release) if text(release, &["status", "atProvider", "state"]) == Some("failed") => coming(
                Reason::ImportFailed,
                "The rancher-cluster chart could not register the cluster: `kubectl describe release` of it says why.",
            ),
            _ => coming(Reason::Importing, "Rancher's agent is being brought into the vcluster."),
        })
    }

    fn release(&self, chart: &RancherChart, in_rancher: &str) -> Result<Value, Fatal> {
        let subject = self.subject;
        let field = "input.rancher.chart.tokenSecretRef";
        let token = subject.locate(field, &chart.token_secret_ref)?;
        let refuse = |field: &str, cause: &str, way_out: &str| {
            Err(Fatal::new(field, cause, way_out).shown_as(Kind::ClusterRegistered, Reason::Refused))
        };
        if token.name != TOKEN {
            return refuse(
                &format!("{field}.name"),
                "the rancher-cluster chart reads no other Secret than apitoken",
                "call it apitoken, with the token under APITOKEN",
            );
        }
        if token.namespace == subject.names.namespace {
            return refuse(
                &format!("{field}.namespace"),
                "the vcluster's pod could read Rancher's token there",
                "keep the Secret in a namespace of the platform",
            );
        }
        let reference = subject.provider_config(
            "input.helm.providerConfigRef",
            subject.input.helm.provider_config_ref.as_ref(),
            ProviderConfigKind::ClusterProviderConfig,
        )?;
        let name = cluster::object_name(subject);
        let mut metadata = subject.metadata(&name);
        metadata.insert("annotations".into(), json!({EXTERNAL_NAME: name}));
        Ok(json!({
            "apiVersion": match subject.xr.flavour {
                Flavour::ClusterScoped => "helm.crossplane.io/v1beta1",
                Flavour::Namespaced => "helm.m.crossplane.io/v1beta1",
            },
            "kind": "Release",
            "metadata": metadata,
            "spec": {
                "forProvider": {
                    "chart": {
                        "repository": chart.repository,
                        "name": chart.name,
                        "version": chart.version.trim_start_matches('v'),
                    },
                    // Where the token is.
                    "namespace": token.namespace,
                    // Its hooks are all of it.
                    "wait": true,
                    "values": {
                        "rancher": {"url": chart.url},
                        "clustername": in_rancher,
                        "vclusterReleaseName": subject.names.release,
                        "targetnamespace": subject.names.namespace,
                    },
                },
                "providerConfigRef": reference,
            },
        }))
    }
}
