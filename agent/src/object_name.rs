//! The **name** of an object in the bucket: kind, range and time, so that LIST alone is the catalogue.
//!
//! ```text
//! <prefix>/<timeline>/snapshot/<revision>-<unix ms>.db.zst.age
//! <prefix>/<timeline>/log/<from>-<to>-<unix ms>.sql.zst.age
//! <prefix>/<timeline>/pin/<name>/<revision>-<unix ms>
//! <prefix>/<timeline>/files/<unix ms>.tar.zst.age
//! <prefix>/<timeline>/verify/<unix ms>-<revision>-<ok|failed>
//! <prefix>/keys/<recipient>.age
//! <prefix>/keys/<public key>.signer
//! backup_<time>.db.enc                      the seed format, at the bucket's root
//! ```
//! Every name has exactly one spelling: what does not round-trip is not ours and is left alone.

use std::fmt;

use crate::clock::Moment;
use crate::pin::PinName;
use crate::revision::Revision;
use crate::timeline::Timeline;

/// What an object is, read off its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectName {
    /// A complete database at one revision.
    Snapshot {
        /// Its history.
        timeline: Timeline,
        /// The newest revision in it.
        revision: Revision,
        /// When it was captured.
        captured: Moment,
    },
    /// The rows `(from, to]`.
    Segment {
        /// Its history.
        timeline: Timeline,
        /// The revision before the first row.
        from: Revision,
        /// The last row.
        to: Revision,
        /// When the last row was captured.
        captured: Moment,
    },
    /// A named restore point.
    Pin {
        /// Its history.
        timeline: Timeline,
        /// The name a person gave it.
        name: PinName,
        /// The pinned revision.
        revision: Revision,
        /// When it was captured.
        captured: Moment,
    },
    /// Files beside the database.
    Files {
        /// Its history.
        timeline: Timeline,
        /// When they were captured.
        captured: Moment,
    },
    /// What a verification came to.
    Verification {
        /// Its history.
        timeline: Timeline,
        /// When it was done.
        at: Moment,
        /// The revision that was to be restored.
        revision: Revision,
        /// Whether nothing was found to be wrong.
        passed: bool,
    },
    /// An identity wrapped by a passphrase.
    WrappedIdentity {
        /// The recipient that the identity belongs to.
        recipient: String,
    },
    /// The public key that signs this prefix's objects.
    Signer {
        /// Base64url of the Ed25519 public key.
        public: String,
    },
}

impl ObjectName {
    /// Reads a key below `prefix`; `None` for what this program did not write.
    pub fn parse(prefix: &Prefix, key: &str) -> Option<Self> {
        let name = Self::parse_relative(prefix.strip(key)?)?;
        (prefix.key(&name) == key).then_some(name)
    }

    fn parse_relative(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["keys", file] => {
                if let Some(recipient) = file.strip_suffix(".age") {
                    return Some(Self::WrappedIdentity { recipient: recipient.to_owned() });
                }
                file.strip_suffix(".signer").map(|public| Self::Signer { public: public.to_owned() })
            }
            [timeline, "snapshot", file] => {
                let (revision, captured) = file.strip_suffix(".db.zst.age")?.split_once('-')?;
                Some(Self::Snapshot {
                    timeline: timeline.parse().ok()?,
                    revision: revision.parse().ok()?,
                    captured: millis(captured)?,
                })
            }
            [timeline, "log", file] => {
                let mut fields = file.strip_suffix(".sql.zst.age")?.split('-');
                let name = Self::Segment {
                    timeline: timeline.parse().ok()?,
                    from: fields.next()?.parse().ok()?,
                    to: fields.next()?.parse().ok()?,
                    captured: millis(fields.next()?)?,
                };
                fields.next().is_none().then_some(name)
            }
            [timeline, "pin", name, file] => {
                let (revision, captured) = file.split_once('-')?;
                Some(Self::Pin {
                    timeline: timeline.parse().ok()?,
                    name: name.parse().ok()?,
                    revision: revision.parse().ok()?,
                    captured: millis(captured)?,
                })
            }
            [timeline, "files", file] => Some(Self::Files {
                timeline: timeline.parse().ok()?,
                captured: millis(file.strip_suffix(".tar.zst.age")?)?,
            }),
            [timeline, "verify", file] => {
                let mut fields = file.split('-');
                let name = Self::Verification {
                    timeline: timeline.parse().ok()?,
                    at: millis(fields.next()?)?,
                    revision: fields.next()?.parse().ok()?,
                    passed: fields.next()? == PASSED,
                };
                fields.next().is_none().then_some(name)
            }
            _ => None,
        }
    }
}

/// How the name of a verification ends.
const PASSED: &str = "ok";
const FAILED: &str = "failed";

fn millis(text: &str) -> Option<Moment> {
    text.parse().ok().map(Moment::from_millis)
}

impl ObjectName {
    /// The history that it belongs to; `None` for what belongs to all.
    pub fn timeline(&self) -> Option<Timeline> {
        match *self {
            Self::Snapshot { timeline, .. }
            | Self::Segment { timeline, .. }
            | Self::Pin { timeline, .. }
            | Self::Files { timeline, .. }
            | Self::Verification { timeline, .. } => Some(timeline),
            Self::WrappedIdentity { .. } | Self::Signer { .. } => None,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { timeline, revision, captured } => {
                write!(f, "{timeline}/snapshot/{revision:020}-{}.db.zst.age", captured.millis())
            }
            Self::Segment { timeline, from, to, captured } => {
                write!(f, "{timeline}/log/{from:020}-{to:020}-{}.sql.zst.age", captured.millis())
            }
            Self::Pin { timeline, name, revision, captured } => {
                write!(f, "{timeline}/pin/{name}/{revision}-{}", captured.millis())
            }
            Self::Files { timeline, captured } => {
                write!(f, "{timeline}/files/{}.tar.zst.age", captured.millis())
            }
            Self::Verification { timeline, at, revision, passed } => {
                let result = if *passed { PASSED } else { FAILED };
                write!(f, "{timeline}/verify/{}-{revision:020}-{result}", at.millis())
            }
            Self::WrappedIdentity { recipient } => write!(f, "keys/{recipient}.age"),
            Self::Signer { public } => write!(f, "keys/{public}.signer"),
        }
    }
}

/// Whether `key` is an object of the Go program that this one replaces: `backup_<time>.db.enc`.
pub fn is_seed_object(key: &str) -> bool {
    key.rsplit('/').next().is_some_and(|name| name.starts_with("backup_") && name.ends_with(".db.enc"))
}

/// The part of every key before the timeline; empty, or without slashes at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefix(String);

impl Prefix {
    /// Takes a prefix as a person writes it, with or without slashes at its ends.
    pub fn new(text: &str) -> Self {
        Self(text.trim_matches('/').to_owned())
    }

    /// The full key of an object.
    pub fn key(&self, name: &ObjectName) -> String {
        format!("{}{name}", self.folder())
    }

    /// The prefix with its slash, as LIST wants it; empty for the whole bucket.
    pub fn folder(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("{}/", self.0) }
    }

    fn strip<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.0.is_empty() {
            return Some(key);
        }
        key.strip_prefix(&self.0)?.strip_prefix('/')
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timeline() -> impl Strategy<Value = Timeline> {
        (0i64..1 << 45).prop_map(|ms| Timeline::open(Moment::from_millis(ms)))
    }

    fn name() -> impl Strategy<Value = ObjectName> {
        let revision = (0u64..i64::MAX as u64).prop_map(Revision::from);
        let captured = (0i64..i64::MAX).prop_map(Moment::from_millis);
        prop_oneof![
            (timeline(), revision.clone(), captured.clone()).prop_map(|(timeline, revision, captured)| {
                ObjectName::Snapshot { timeline, revision, captured }
            }),
            (timeline(), revision.clone(), revision.clone(), captured.clone()).prop_map(
                |(timeline, from, to, captured)| ObjectName::Segment { timeline, from, to, captured }
            ),
            (timeline(), "[a-z][a-z0-9.-]{0,40}[a-z]", revision.clone(), captured.clone()).prop_map(
                |(timeline, name, revision, captured)| ObjectName::Pin {
                    timeline,
                    name: name.parse().unwrap(),
                    revision,
                    captured
                }
            ),
            (timeline(), captured.clone())
                .prop_map(|(timeline, captured)| ObjectName::Files { timeline, captured }),
            (timeline(), captured, revision, any::<bool>()).prop_map(|(timeline, at, revision, passed)| {
                ObjectName::Verification { timeline, at, revision, passed }
            }),
            "age1[a-z0-9]{58}".prop_map(|recipient| ObjectName::WrappedIdentity { recipient }),
        ]
    }

    proptest! {
        #[test]
        fn every_name_round_trips(name in name(), prefix in "(|[a-z]{1,8}(/[a-z]{1,8})?)") {
            let prefix = Prefix::new(&prefix);
            prop_assert_eq!(ObjectName::parse(&prefix, &prefix.key(&name)), Some(name));
        }

        #[test]
        fn what_parses_has_one_spelling(key in "[0-9A-Za-z/._-]{0,120}") {
            if let Some(name) = ObjectName::parse(&Prefix::default(), &key) {
                prop_assert_eq!(name.to_string(), key);
            }
        }
    }

    #[test]
    fn foreign_keys_are_left_alone() {
        let timeline = Timeline::open(Moment::from_millis(0));
        for key in [
            "readme.txt".to_owned(),
            format!("{timeline}/snapshot/1-2.db.zst.age"),
            format!("{timeline}/snapshot/{:020}-2.db.zst.age.part", 1),
            format!("{timeline}/log/{:020}-{:020}-7-7.sql.zst.age", 1, 2),
            format!("{timeline}/verify/7-{:020}-fine", 1),
            format!("{timeline}/verify/7-1-ok"),
            format!("{timeline}/verify/7-{:020}-ok-ok", 1),
            format!("{}/snapshot/{:020}-2.db.zst.age", timeline.to_string().to_lowercase(), 1),
        ] {
            assert_eq!(ObjectName::parse(&Prefix::default(), &key), None, "{key}");
        }
    }
}
