//! The **chain**: a digest that every row moves on, so that two histories that differ in one row never meet again.
//!
//! It begins with the header of a timeline's first snapshot. Each segment names the chain before its first row as its
//! parent; a later snapshot names the chain at its revision. It runs over rows alone, not over objects: so segments can
//! be merged, and a restore can begin at a snapshot in the middle of one, and the chain is still verified end to end.

use std::fmt;
use std::str::FromStr;

use crate::revision::Revision;
use crate::signing::{Digest, Hasher};

/// The chain at one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain(Digest);

impl Chain {
    /// At the snapshot that a timeline begins with, given its header as text.
    pub fn begin(header: &str) -> Self {
        Self(Digest::of(header.as_bytes()))
    }

    /// After one more row, given as its line.
    #[must_use]
    pub fn then(self, line: &str) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(self.0.as_bytes());
        hasher.update(line.as_bytes());
        Self(hasher.finish())
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Chain {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The chain at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The row that came last.
    pub revision: Revision,
    /// The chain after it.
    pub chain: Chain,
}

impl Link {
    /// After one more row, given with its line.
    #[must_use]
    pub fn then(self, revision: Revision, line: &str) -> Self {
        Self { revision, chain: self.chain.then(line) }
    }
}
