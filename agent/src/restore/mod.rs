//! **Restore**: a plan computed from the catalogue, a database assembled and checked beside the target, and
//! its placement.

pub mod assembly;
pub mod placement;
pub mod plan;

use std::str::FromStr;

/// When `ensure` restores without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoRestore {
    /// There is no database.
    Empty,
    /// The database fails its check.
    Damaged,
    /// The database is older than the backup.
    Behind,
}

impl FromStr for AutoRestore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "empty" => Ok(Self::Empty),
            "damaged" => Ok(Self::Damaged),
            "behind" => Ok(Self::Behind),
            _ => Err(format!("'{text}' is not a case: use empty, damaged or behind")),
        }
    }
}
