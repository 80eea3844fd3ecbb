//! The vcluster **chart**: its versions, and which of their settings cannot be with a backup.

mod check;
pub mod generation;

use crate::fatal::Fatal;

pub use check::{check_backup, distro};
pub use generation::Generation;

/// A chart version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    text: String,
    release: (u64, u64),
}

impl Version {
    /// Reads a version; `field` is what whoever chose it calls it.
    pub fn parse(field: &str, text: &str) -> Result<Self, Fatal> {
        let plain = text.trim().trim_start_matches('v');
        let core = plain.split(['-', '+']).next().unwrap_or_default();
        let numbers: Option<Vec<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
        let known = plain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
        match numbers.as_deref() {
            Some([major, minor, _patch]) if known => {
                Ok(Self { text: plain.to_owned(), release: (*major, *minor) })
            }
            _ => Err(Fatal::new(field, "it is no chart version", "name one exactly, such as 0.36.1")),
        }
    }

    /// As Helm takes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Where the chart's distro keeps the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distro {
    /// `/data/state.db`.
    K8s,
    /// `/data/server/db/state.db`.
    K3s,
}

impl Distro {
    /// What a restore needs beside the database, on the data volume.
    pub fn include(self) -> &'static str {
        match self {
            // The certificates' authorities and the key of the service accounts' tokens.
            Self::K8s => "/data/pki",
            // What k3s encrypts its own rows with.
            Self::K3s => "/data/server/token",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_people_write_them() {
        for (text, plain) in [
            ("0.36.1", "0.36.1"),
            ("v0.30.0", "0.30.0"),
            ("0.37.0-rc.1", "0.37.0-rc.1"),
            (" 0.36.1\n", "0.36.1"),
        ] {
            assert_eq!(Version::parse("f", text).unwrap().as_str(), plain);
        }
        for text in ["", "latest", "0.36", ">=0.30.0", "0.36.x", "0.36. 1"] {
            assert!(Version::parse("f", text).is_err(), "{text}");
        }
    }
}
