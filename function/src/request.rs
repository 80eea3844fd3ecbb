//! The **request**: what Crossplane says, in JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vcluster_backup_proto::v1::{RunFunctionRequest, credentials::Source};

use crate::object;

/// A request.
pub struct Request {
    input: Option<Value>,
    composite: Value,
    observed: BTreeMap<String, Value>,
    required: BTreeMap<String, Vec<Value>>,
    credentials: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// The answer to a requirement.
#[derive(Debug, Clone, Copy)]
pub enum Required<'a> {
    /// Crossplane has not looked yet.
    Unresolved,
    /// There is none.
    Missing,
    /// There it is.
    Found(&'a Value),
}

impl<'a> Required<'a> {
    /// The object, if it was found.
    pub fn found(self) -> Option<&'a Value> {
        match self {
            Self::Found(object) => Some(object),
            Self::Unresolved | Self::Missing => None,
        }
    }
}

impl From<RunFunctionRequest> for Request {
    fn from(request: RunFunctionRequest) -> Self {
        let observed = request.observed.unwrap_or_default();
        let decode =
            |resource: Option<prost_types::Struct>| resource.map_or_else(|| json!({}), object::into_json);
        let credentials = request.credentials.into_iter().filter_map(|(name, credentials)| {
            let Source::CredentialData(data) = credentials.source?;
            Some((name, data.data))
        });
        let required = request.required_resources.into_iter().map(|(name, resources)| {
            (name, resources.items.into_iter().map(|item| decode(item.resource)).collect())
        });
        Self {
            input: request.input.map(object::into_json),
            composite: decode(observed.composite.and_then(|composite| composite.resource)),
            observed: observed
                .resources
                .into_iter()
                .map(|(key, item)| (key, decode(item.resource)))
                .collect(),
            required: required.collect(),
            credentials: credentials.collect(),
        }
    }
}

impl Request {
    /// The function's Input.
    pub fn input(&self) -> Option<&Value> {
        self.input.as_ref()
    }

    /// The observed XR.
    pub fn composite(&self) -> &Value {
        &self.composite
    }

    /// An observed composed resource. Crossplane may be a moment behind.
    pub fn observed(&self, key: &str) -> Option<&Value> {
        self.observed.get(key)
    }

    /// Whether a composed resource is observed, and ready.
    pub fn is_ready(&self, key: &str) -> bool {
        self.observed(key).is_some_and(object::is_ready)
    }

    /// A required resource: read live, whatever is observed.
    pub fn required(&self, key: &str) -> Required<'_> {
        match self.required.get(key) {
            None => Required::Unresolved,
            Some(items) => items.first().map_or(Required::Missing, Required::Found),
        }
    }

    /// The pipeline step's credentials of a name.
    pub fn credentials(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.credentials.get(name)
    }
}
