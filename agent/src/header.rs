//! The **header** and **trailer** of an object: what it claims to be, and the proof of it.
//!
//! Both are lines of SQL comments, so that a log segment stays a file that `sqlite3` reads; a snapshot
//! carries the same lines in zstd skippable frames, which `zstd -d` passes over.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::chain::Chain;
use crate::clock::Moment;
use crate::object_name::ObjectName;
use crate::revision::Revision;
use crate::signing::{Digest, Signature, Signer, SigningKey};
use crate::timeline::Timeline;

/// The format that this program writes; readers refuse a newer one.
const FORMAT: &str = "1";

/// What kind of database an object comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// kine's table: an append-only log with revisions.
    Kine,
    /// Any other SQLite file.
    Generic,
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A complete database at `revision`.
    Snapshot {
        /// The newest revision in it; zero for a generic database, which has none.
        revision: Revision,
        /// What wrote the database.
        database: DatabaseKind,
    },
    /// The kine rows `(from, to]`.
    Segment {
        /// The revision before the first row.
        from: Revision,
        /// The last row.
        to: Revision,
    },
    /// An archive of the files beside the database.
    Files,
}

/// An object's first lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub content: Content,
    /// The history that it belongs to.
    pub timeline: Timeline,
    /// When its newest row was captured.
    pub captured: Moment,
    /// The chain before a segment's first row, or at a snapshot's revision; `None` where a chain begins, and for files.
    pub parent: Option<Chain>,
    /// Who wrote it: release namespace, name and XR uid.
    pub owner: Option<Owner>,
    /// Whose signature the trailer bears.
    pub signer: Option<Signer>,
}

/// The cluster that a backup belongs to: `<release namespace>/<name>[/<XR uid>]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Owner {
    /// Release namespace and name; the same after the cluster was deleted and claimed again.
    pub name: String,
    /// The XR's uid; another one after the cluster was deleted and claimed again.
    pub uid: Option<String>,
}

impl Owner {
    /// The release's namespace.
    pub fn namespace(&self) -> &str {
        self.name.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Whether `other` is the same cluster: the same name, and the same uid where both tell one.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_uid = self.uid.is_none() || other.uid.is_none() || self.uid == other.uid;
        self.name == other.name && same_uid
    }

    /// The release's name.
    pub fn release(&self) -> &str {
        self.name.split_once('/').map_or("", |(_, release)| release)
    }
}

impl FromStr for Owner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic());
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(plain) {
            return Err(NotAnOwner(text.to_owned()));
        }
        Ok(Self {
            name: format!("{}/{}", parts[0], parts[1]),
            uid: parts.get(2).map(|uid| (*uid).to_owned()),
        })
    }
}

impl TryFrom<String> for Owner {
    type Error = NotAnOwner;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.uid {
            Some(uid) => write!(f, "{}/{uid}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Text that names no owner.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not an owner: write it as NAMESPACE/NAME or NAMESPACE/NAME/UID")]
pub struct NotAnOwner(String);

/// Why a header or trailer was refused.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not written by this program, or damaged.
    #[error("its header is damaged: {0}")]
    Damaged(String),
    /// Written by a newer program.
    #[error("it has format {0}, this program reads format {FORMAT}: use a newer vcluster-backup")]
    Newer(String),
}

impl Header {
    /// The name of the object that it heads.
    pub fn object_name(&self) -> ObjectName {
        let (timeline, captured) = (self.timeline, self.captured);
        match self.content {
            Content::Snapshot { revision, .. } => ObjectName::Snapshot { timeline, revision, captured },
            Content::Segment { from, to } => ObjectName::Segment { timeline, from, to, captured },
            Content::Files => ObjectName::Files { timeline, captured },
        }
    }

    /// The header as lines.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "-- {name}: {value}");
        };
        match self.content {
            Content::Snapshot { revision, database } => {
                line("vcluster-backup", &format!("snapshot {FORMAT}"));
                line("timeline", &self.timeline.to_string());
                line("revision", &revision.to_string());
                line("database", if database == DatabaseKind::Kine { "kine" } else { "generic" });
            }
            Content::Segment { from, to } => {
                line("vcluster-backup", &format!("segment {FORMAT}"));
                line("timeline", &self.timeline.to_string());
                line("from", &from.to_string());
                line("to", &to.to_string());
            }
            Content::Files => {
                line("vcluster-backup", &format!("files {FORMAT}"));
                line("timeline", &self.timeline.to_string());
            }
        }
        line("captured", &self.captured.to_string());
        if let Some(parent) = &self.parent {
            line("parent", &parent.to_string());
        }
        if let Some(owner) = &self.owner {
            line("owner", &owner.to_string());
        }
        if let Some(signer) = &self.signer {
            line("signer", &signer.to_string());
        }
        text
    }

    /// Reads a header back; strict, what would not be written again byte for byte is refused.
    pub fn decode(text: &str) -> Result<Self, HeaderError> {
        let mut lines = Lines(text);
        let (kind, format) = lines
            .field("vcluster-backup")
            .and_then(|first| first.split_once(' '))
            .ok_or_else(|| damaged("it does not begin with '-- vcluster-backup: '"))?;
        if format != FORMAT {
            return Err(HeaderError::Newer(format.to_owned()));
        }
        let timeline = lines.parse("timeline")?;
        let content = match kind {
            "snapshot" => Content::Snapshot {
                revision: lines.parse("revision")?,
                database: match lines.field("database") {
                    Some("kine") => DatabaseKind::Kine,
                    Some("generic") => DatabaseKind::Generic,
                    other => return Err(damaged(&format!("unknown database {other:?}"))),
                },
            },
            "segment" => Content::Segment { from: lines.parse("from")?, to: lines.parse("to")? },
            "files" => Content::Files,
            other => return Err(damaged(&format!("unknown kind {other:?}"))),
        };
        let header = Self {
            content,
            timeline,
            captured: lines.parse("captured")?,
            parent: lines.parse_optional("parent")?,
            owner: lines.parse_optional("owner")?,
            signer: lines.parse_optional("signer")?,
        };
        if header.encode() != text {
            return Err(damaged("it has lines that this program does not write"));
        }
        Ok(header)
    }
}

/// An object's last lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// SHA-256 of all before it.
    pub digest: Digest,
    /// The signer's word on the digest.
    pub signature: Option<Signature>,
}

impl Trailer {
    /// The trailer of what `digest` was taken of.
    pub fn new(digest: Digest, key: Option<&SigningKey>) -> Self {
        Self { digest, signature: key.map(|key| key.sign(&digest)) }
    }

    /// The trailer as lines.
    pub fn encode(&self) -> String {
        let mut text = format!("-- sha256: {}\n", self.digest);
        if let Some(signature) = &self.signature {
            let _ = writeln!(text, "-- signature: {signature}");
        }
        text
    }

    /// Reads a trailer back, strictly.
    pub fn decode(text: &str) -> Result<Self, HeaderError> {
        let mut lines = Lines(text);
        let trailer = Self { digest: lines.parse("sha256")?, signature: lines.parse_optional("signature")? };
        if trailer.encode() != text {
            return Err(damaged("its trailer has lines that this program does not write"));
        }
        Ok(trailer)
    }
}

fn damaged(what: &str) -> HeaderError {
    HeaderError::Damaged(what.to_owned())
}

/// The lines of a header, taken one by one.
struct Lines<'t>(&'t str);

impl<'t> Lines<'t> {
    /// The next line's value, if it has this name.
    fn field(&mut self, name: &str) -> Option<&'t str> {
        let (line, rest) = self.0.split_once('\n')?;
        let value = line.strip_prefix("-- ")?.strip_prefix(name)?.strip_prefix(": ")?;
        self.0 = rest;
        Some(value)
    }

    fn parse<T: FromStr>(&mut self, name: &str) -> Result<T, HeaderError> {
        self.parse_optional(name)?.ok_or_else(|| damaged(&format!("no '{name}'")))
    }

    fn parse_optional<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, HeaderError> {
        self.field(name)
            .map(|value| value.parse().map_err(|_| damaged(&format!("'{name}' cannot be read"))))
            .transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header(content: Content) -> Header {
        Header {
            content,
            timeline: Timeline::open(Moment::from_millis(1_790_000_000_000)),
            captured: Moment::from_millis(1_790_000_000_123),
            parent: Some(Digest::of(b"before").to_string().parse().unwrap()),
            owner: Some("team-a/prod/9c0f".parse().unwrap()),
            signer: None,
        }
    }

    #[test]
    fn headers_round_trip() {
        for content in [
            Content::Snapshot { revision: Revision::from(9), database: DatabaseKind::Kine },
            Content::Snapshot { revision: Revision::from(2), database: DatabaseKind::Generic },
            Content::Segment { from: Revision::from(9), to: Revision::from(12) },
            Content::Files,
        ] {
            let header = header(content);
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = header(Content::Segment { from: Revision::ZERO, to: Revision::from(1) }).encode();
        for changed in [
            text.replace("-- to: 1\n", "-- to: 01\n"),
            text.replace("-- to: 1\n", ""),
            format!("{text}-- extra: 1\n"),
            text.replace(": segment 1", ": segment 2"),
            text.replace(": segment 1", ": pin 1"),
            text.trim_end().to_owned(),
        ] {
            assert!(Header::decode(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn an_owner_is_two_or_three_words() {
        for text in ["a/b", "a/b/c"] {
            assert_eq!(text.parse::<Owner>().unwrap().to_string(), text);
        }
        for text in ["", "a", "a/", "/b", "a/b/c/d", "a/b c", "a/b\n-- x: y"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
