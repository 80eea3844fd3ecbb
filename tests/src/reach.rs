//! The **reach** of a vcluster's pod: what its service account can read on the host cluster, by the Role that its chart
//! gives it.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api_server::ApiServer;

/// How every age identity begins.
const IDENTITY: &str = "AGE-SECRET-KEY-1";

/// What the pod of one vcluster is to the API server.
pub struct Reach<'a> {
    api: &'a ApiServer,
    namespace: &'a str,
    account: String,
}

impl<'a> Reach<'a> {
    /// That of the vcluster `name`, installed in `namespace`.
    pub fn of(api: &'a ApiServer, namespace: &'a str, name: &str) -> Self {
        Self { api, namespace, account: format!("system:serviceaccount:{namespace}:vc-{name}") }
    }

    /// What kubectl prints for the pod.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.api.kubectl(&[&["--as", &self.account], args].concat())
    }

    /// The Secrets and ConfigMaps of its namespace in which it finds an identity.
    pub fn identities(&self) -> Result<Vec<String>> {
        let listed = self.kubectl(&["get", "secrets,configmaps", "-n", self.namespace, "-o", "json"])?;
        let listed: Value = serde_json::from_str(&listed)?;
        let objects = listed["items"].as_array().context("no list")?;
        ensure!(objects.iter().any(|object| object["kind"] == "Secret"), "the pod sees no Secret at all");
        let holds = |object: &&Value| {
            let whole = object.to_string();
            let data = object["data"].as_object().into_iter().flatten();
            let decoded = data.filter_map(|(_, value)| STANDARD.decode(value.as_str()?).ok());
            let mut texts = decoded.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            whole.contains(IDENTITY) || texts.any(|text| text.contains(IDENTITY))
        };
        Ok(objects
            .iter()
            .filter(holds)
            .map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]))
            .collect())
    }

    /// Fails if the pod may read this: an object, or all of a kind.
    pub fn cannot_read(&self, (kind, namespace, name): (&str, &str, Option<&str>)) -> Result<()> {
        let get: Vec<&str> = ["get", kind, "-n", namespace].into_iter().chain(name).collect();
        let refused = self.kubectl(&get).err().with_context(|| format!("the pod reads: {get:?}"))?;
        ensure!(refused.to_string().contains("Forbidden"), "{refused}");
        Ok(())
    }
}
