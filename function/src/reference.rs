//! **References** of the platform to its objects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check;
use crate::fatal::Fatal;
use crate::schema;

/// A provider's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfigRef {
    /// Its kind; namespaced providers only.
    pub kind: Option<ProviderConfigKind>,
    /// Its name.
    #[schemars(with = "schema::ObjectName")]
    pub name: String,
}

/// Which kind of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ProviderConfigKind {
    ProviderConfig,
    ClusterProviderConfig,
}

/// A Secret of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(with = "schema::ObjectName")]
    pub name: String,
    /// Its namespace; a namespaced composite's own if left out.
    #[schemars(with = "Option<schema::Label>")]
    pub namespace: Option<String>,
}

impl SecretRef {
    /// Checks the names; `field` is what the reference is called.
    pub fn check(&self, field: &str) -> Result<(), Fatal> {
        check::subdomain(&format!("{field}.name"), &self.name)?;
        self.namespace
            .as_deref()
            .map_or(Ok(()), |namespace| check::label(&format!("{field}.namespace"), namespace))
    }
}

/// A Secret beside the claim or XR: it names no namespace, for the function's rights are not the user's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalSecretRef {
    /// Name of the Secret.
    #[schemars(with = "schema::ObjectName")]
    pub name: String,
}
