//! The **history** of what was written, as the writer saw it: what a backup must hold.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::latency::Latency;

/// One acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The revision that kine gave it.
    pub revision: i64,
    /// The key.
    pub key: String,
    /// The value; none if the key was deleted.
    pub value: Option<Vec<u8>>,
    /// From the request to the acknowledgement.
    pub took: Duration,
}

/// A write that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What came in place of the acknowledgement.
    pub error: String,
    /// From the request to that.
    pub took: Duration,
}

/// A key as kine lists it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that made it.
    pub create_revision: i64,
    /// The revision of this value.
    pub mod_revision: i64,
}

/// All that a writer wrote, in order.
#[derive(Debug, Default)]
pub struct History {
    /// What kine acknowledged.
    pub acknowledged: Vec<Write>,
    /// The last write, if it failed: it may or may not be in the database.
    pub unanswered: Option<Failure>,
}

impl History {
    /// The newest acknowledged revision; 0 if there is none.
    pub fn newest(&self) -> i64 {
        self.acknowledged.last().map_or(0, |write| write.revision)
    }

    /// How long the writes took, the failed one too; none if there are none.
    pub fn latency(&self) -> Option<Latency> {
        let failed = self.unanswered.iter().map(|failure| failure.took);
        Latency::of(self.acknowledged.iter().map(|write| write.took).chain(failed))
    }

    /// Every key that was alive at `revision`.
    pub fn state_at(&self, revision: i64) -> BTreeMap<String, Entry> {
        let mut state: BTreeMap<String, Entry> = BTreeMap::new();
        for write in self.acknowledged.iter().take_while(|write| write.revision <= revision) {
            match &write.value {
                Some(value) => {
                    let create_revision =
                        state.get(&write.key).map_or(write.revision, |entry| entry.create_revision);
                    let entry = Entry { value: value.clone(), create_revision, mod_revision: write.revision };
                    state.insert(write.key.clone(), entry);
                }
                None => {
                    state.remove(&write.key);
                }
            }
        }
        state
    }

    /// What is wrong with `found`, the keys of a database that should be as of `revision`; empty if nothing is.
    pub fn differences(&self, revision: i64, found: &BTreeMap<String, Entry>) -> Vec<String> {
        let expected = self.state_at(revision);
        let mut wrong = Vec::new();
        for (key, entry) in &expected {
            match found.get(key) {
                None => wrong.push(format!("{key}@{} is missing", entry.mod_revision)),
                Some(other) if other == entry => {}
                Some(other) if other.value != entry.value => wrong.push(format!(
                    "{key}: another value, that of revision {} in place of {}",
                    other.mod_revision, entry.mod_revision
                )),
                Some(other) => wrong.push(format!(
                    "{key}: created {}, changed {}; expected created {}, changed {}",
                    other.create_revision, other.mod_revision, entry.create_revision, entry.mod_revision
                )),
            }
        }
        for (key, entry) in found.iter().filter(|(key, _)| !expected.contains_key(*key)) {
            wrong.push(format!("{key}@{} should not be there", entry.mod_revision));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let write = |revision, key: &str, value: Option<&str>| Write {
            revision,
            key: key.to_owned(),
            value: value.map(|text| text.as_bytes().to_vec()),
            took: Duration::from_millis(1),
        };
        History {
            acknowledged: vec![
                write(2, "a", Some("1")),
                write(3, "b", Some("1")),
                write(4, "a", Some("2")),
                write(5, "b", None),
                write(6, "b", Some("3")),
            ],
            unanswered: None,
        }
    }

    #[test]
    fn a_state_is_what_was_alive_then() {
        let state = history().state_at(4);
        assert_eq!(state["a"].value, b"2");
        assert_eq!((state["a"].create_revision, state["a"].mod_revision), (2, 4));
        assert!(!history().state_at(5).contains_key("b"));
        assert_eq!(history().state_at(6)["b"].create_revision, 6);
        assert!(history().state_at(1).is_empty());
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let history = history();
        let right = history.state_at(6);
        assert_eq!(history.differences(6, &right), Vec::<String>::new());
        let mut wrong = right.clone();
        wrong.remove("a");
        wrong.insert("c".into(), right["b"].clone());
        wrong.entry("b".into()).and_modify(|entry| entry.create_revision = 3);
        let told = history.differences(6, &wrong).join("\n");
        assert!(told.contains("a@4 is missing"), "{told}");
        assert!(told.contains("b: created 3, changed 6; expected created 6"), "{told}");
        assert!(told.contains("c@6 should not be there"), "{told}");
        assert!(history.differences(3, &right).join("\n").contains("a: another value"));
    }
}
