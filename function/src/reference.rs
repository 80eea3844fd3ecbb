//! **References** of the platform to its objects.

use serde::Deserialize;

use crate::check;
use crate::fatal::Fatal;

/// A provider's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfigRef {
    /// `ProviderConfig` or `ClusterProviderConfig`; namespaced providers only.
    pub kind: Option<ProviderConfigKind>,
    /// Name.
    pub name: String,
}

/// Which kind of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub enum ProviderConfigKind {
    ProviderConfig,
    ClusterProviderConfig,
}

/// A Secret of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Name.
    pub name: String,
    /// Namespace; a namespaced XR's own if not named.
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSecretRef {
    /// Name.
    pub name: String,
}
