//! A Kubernetes **revision**: the `id` of a kine row, and the `resourceVersion` that clients see.

use std::fmt;
use std::str::FromStr;

/// One revision of a control plane. Revision 0 is before the first row.
///
/// kine numbers its rows with `INTEGER PRIMARY KEY AUTOINCREMENT`, so a revision is never used twice and
/// never exceeds `i64::MAX`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// Before the first row.
    pub const ZERO: Self = Self(0);

    /// The revision as SQLite stores it.
    pub fn to_sql(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// A row's `id`; negative ids, which kine never writes, count as zero.
    pub fn from_sql(id: i64) -> Self {
        Self(u64::try_from(id).unwrap_or(0))
    }

    /// The plain number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The revision `steps` later.
    #[must_use]
    pub fn plus(self, steps: u64) -> Self {
        Self(self.0.saturating_add(steps))
    }
}

/// Text that is no revision.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a revision: it is a whole number, as resourceVersion shows it")]
pub struct NotARevision(String);

impl From<u64> for Revision {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` semantics of the number, so that names can ask for 20 digits.
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Revision {
    type Err = NotARevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(number) if i64::try_from(number).is_ok() => Ok(Self(number)),
            _ => Err(NotARevision(text.to_owned())),
        }
    }
}
