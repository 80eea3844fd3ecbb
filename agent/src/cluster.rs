//! The **cluster**: the host's ConfigMap `<release>-backup-status`, in which the agent tells the composition function how
//! it is doing, and the way to the Secrets beside it. vcluster's own Role lets its pod write both in its namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Config};
use serde_json::json;

use crate::header::Owner;

/// Who owns the fields (server-side apply).
pub(crate) const MANAGER: &str = "vcluster-backup";

/// Telling is a courtesy: a slow API server must not hold up anything.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing could be told.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No way to the API server.
    #[error(
        "cannot find the host cluster's API server: check the pod's service account token, or KUBECONFIG"
    )]
    NoWay(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refused.
    #[error(
        "cannot write ConfigMap {namespace}/{name}: the pod's Role must allow create and patch of ConfigMaps"
    )]
    Refused {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// The host cluster, as this agent's pod may use it.
#[derive(Clone)]
pub struct Cluster {
    config_maps: Api<ConfigMap>,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) release: String,
    name: String,
}

impl Cluster {
    /// The cluster that this process runs in, or that `KUBECONFIG` names (`by_file`); the release is the owner's.
    pub async fn connect(owner: &Owner, by_file: bool) -> Result<Self, ClusterError> {
        let mut config = if by_file {
            Config::infer().await.map_err(|error| ClusterError::NoWay(error.into()))?
        } else {
            Config::incluster().map_err(|error| ClusterError::NoWay(error.into()))?
        };
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        config.write_timeout = Some(TIMEOUT);
        let client = Client::try_from(config).map_err(|error| ClusterError::NoWay(error.into()))?;
        let namespace = owner.namespace().to_owned();
        let name = format!("{}-backup-status", owner.release());
        let release = owner.release().to_owned();
        let config_maps = Api::namespaced(client.clone(), &namespace);
        Ok(Self { config_maps, client, namespace, release, name })
    }

    /// Tells all of `data`; what was told before and is not in it is gone.
    pub async fn tell(&self, data: &BTreeMap<&'static str, String>) -> Result<(), ClusterError> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name},
            "data": data,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let told = self.config_maps.patch(&self.name, &parameters, &Patch::Apply(&object)).await;
        told.map(drop).map_err(|source| ClusterError::Refused {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            source: Box::new(source),
        })
    }
}
