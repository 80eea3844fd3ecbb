//! The **record** of a tenant's work: what the API server acknowledged, when, and what of it may be missing after a
//! disaster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

/// One acknowledged write.
#[derive(Debug, Clone)]
pub struct Written {
    /// `Kind/name`.
    pub object: String,
    /// Its resourceVersion; 0 of a deletion, whose own is not told.
    pub revision: u64,
    /// All but its metadata, as the server answered; none if it was deleted.
    pub content: Option<Value>,
    /// When the answer was here.
    pub at: Instant,
}

/// The write that had no answer: it may or may not have been done.
#[derive(Debug)]
pub struct Attempt {
    /// `Kind/name`.
    pub object: String,
    /// Whether it was a deletion.
    pub deletes: bool,
    /// What came in place of the answer.
    pub error: String,
}

/// An object as it is found later.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its resourceVersion.
    pub revision: u64,
    /// All but its metadata.
    pub content: Value,
}

/// All that a tenant wrote, in order.
#[derive(Debug, Default)]
pub struct Record {
    /// What was acknowledged.
    pub acknowledged: Vec<Written>,
    /// The last write, if it had no answer.
    pub unanswered: Option<Attempt>,
}

impl Record {
    /// The newest revision that the tenant saw.
    pub fn newest(&self) -> u64 {
        self.acknowledged.iter().map(|write| write.revision).max().unwrap_or(0)
    }

    /// What is wrong with `found` if everything that was acknowledged until then must be in it, and of what came later
    /// any beginning may be. Empty if nothing is wrong.
    pub fn wrong(&self, until: Instant, found: &BTreeMap<String, Found>) -> Vec<String> {
        let mut states: BTreeMap<&str, Vec<&Written>> = BTreeMap::new();
        for write in &self.acknowledged {
            states.entry(&write.object).or_default().push(write);
        }
        let names: BTreeSet<&str> = found.keys().map(String::as_str).chain(states.keys().copied()).collect();
        let mut wrong = Vec::new();
        for name in names {
            let writes = states.get(name).map_or(&[][..], Vec::as_slice);
            let settled = writes.iter().rposition(|write| write.at <= until);
            if !self.may_be(&writes[settled.unwrap_or(0)..], settled.is_none(), name, found.get(name)) {
                let least = settled.map_or_else(|| "not at all".to_owned(), |place| told(writes[place]));
                let is = found.get(name).map_or_else(|| "absent".to_owned(), |is| is.revision.to_string());
                wrong.push(format!("{name} should be {least} or later, is {is}"));
            }
        }
        wrong
    }

    /// How many of the writes are newer than what is found: what the disaster cost.
    pub fn lost(&self, found: &BTreeMap<String, Found>) -> Vec<&Written> {
        let newest = found.values().map(|found| found.revision).max().unwrap_or(0);
        self.acknowledged.iter().filter(|write| write.revision > newest).collect()
    }

    fn may_be(&self, states: &[&Written], or_none: bool, name: &str, found: Option<&Found>) -> bool {
        let attempt = self.unanswered.as_ref().filter(|attempt| attempt.object == name);
        match found {
            Some(found) => {
                let known = |write: &&Written| {
                    write.revision == found.revision && write.content.as_ref() == Some(&found.content)
                };
                // What the attempt would have written has a revision that was never told.
                let attempted = attempt.is_some_and(|attempt| !attempt.deletes)
                    && self.acknowledged.iter().all(|write| write.revision < found.revision);
                states.iter().any(known) || attempted
            }
            None => {
                or_none
                    || states.iter().any(|write| write.content.is_none())
                    || attempt.is_some_and(|attempt| attempt.deletes)
            }
        }
    }
}

fn told(write: &Written) -> String {
    if write.content.is_none() { "deleted".to_owned() } else { format!("at {}", write.revision) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// a is made at second 0 and changed at 2 and 4; b is made at 1 and deleted at 3; c has no answer.
    fn record(begin: Instant) -> Record {
        let write = |second, object: &str, revision, content: Option<i32>| Written {
            object: object.to_owned(),
            revision,
            content: content.map(|number| json!(number)),
            at: begin + Duration::from_secs(second),
        };
        Record {
            acknowledged: vec![
                write(0, "a", 10, Some(1)),
                write(1, "b", 11, Some(1)),
                write(2, "a", 12, Some(2)),
                write(3, "b", 0, None),
                write(4, "a", 14, Some(3)),
            ],
            unanswered: Some(Attempt { object: "c".into(), deletes: false, error: "gone".into() }),
        }
    }

    fn found(objects: &[(&str, u64, i32)]) -> BTreeMap<String, Found> {
        let one = |(name, revision, number): &(&str, u64, i32)| {
            ((*name).to_owned(), Found { revision: *revision, content: json!(number) })
        };
        objects.iter().map(one).collect()
    }

    #[test]
    fn what_is_newer_may_be_there_or_not() {
        let begin = Instant::now();
        let record = record(begin);
        let wrong = |second, objects: &[(&str, u64, i32)]| {
            record.wrong(begin + Duration::from_secs(second), &found(objects)).join("\n")
        };
        assert_eq!(wrong(2, &[("a", 12, 2), ("b", 11, 1)]), "");
        assert_eq!(wrong(2, &[("a", 14, 3)]), "");
        assert_eq!(wrong(9, &[("a", 14, 3), ("c", 15, 9)]), "");
        assert_eq!(wrong(2, &[("a", 10, 1), ("b", 11, 1)]), "a should be at 12 or later, is 10");
        assert_eq!(wrong(2, &[("b", 11, 1)]), "a should be at 12 or later, is absent");
        assert_eq!(wrong(9, &[("a", 14, 3), ("b", 11, 1)]), "b should be deleted or later, is 11");
        assert_eq!(wrong(2, &[("a", 12, 3), ("b", 11, 1)]), "a should be at 12 or later, is 12");
        assert_eq!(wrong(2, &[("a", 14, 3), ("d", 13, 1)]), "d should be not at all or later, is 13");
        assert_eq!(record.newest(), 14);
        assert_eq!(record.lost(&found(&[("a", 12, 2)])).len(), 1);
    }
}
