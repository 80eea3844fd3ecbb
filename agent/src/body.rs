//! The **body** of a segment, in a scratch file that has no name and vanishes with the process. It is what was captured,
//! before it is sealed; the replicator keeps bodies for a while, because it holds no key to read its own segments, and
//! merges them from here.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};

use crate::chain::Link;
use crate::clock::Moment;
use crate::revision::Revision;
use crate::row::Row;
use crate::scratch;
use crate::segment;
use crate::signing::Digest;
use crate::timeline::Timeline;

/// zstd's fastest: bodies are read once or a few times, from a disk beside.
const ZSTD_LEVEL: i32 = 1;

/// Captured rows.
#[derive(Debug)]
pub struct Body {
    /// Their history.
    pub timeline: Timeline,
    /// The link of the chain before the first.
    pub parent: Link,
    /// The link after the last.
    pub end: Link,
    /// The digest of the last.
    pub tip: Digest,
    /// When the last was captured.
    pub captured: Moment,
    /// Bytes in the scratch file.
    pub bytes: u64,
    file: File,
}

impl Body {
    /// The body's lines.
    pub fn reader(&self) -> io::Result<impl Read + use<>> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        zstd::Decoder::new(file)
    }

    /// Bodies that follow each other, as one.
    pub fn join(bodies: &[&Self]) -> io::Result<Option<Self>> {
        let [first, .., last] = bodies else { return Ok(None) };
        let mut joined = scratch::unnamed()?;
        for body in bodies {
            let mut file = &body.file;
            file.rewind()?;
            // Frames of zstd one after another are read as one.
            io::copy(&mut file, &mut joined)?;
        }
        Ok(Some(Self {
            timeline: first.timeline,
            parent: first.parent,
            end: last.end,
            tip: last.tip,
            captured: last.captured,
            bytes: bodies.iter().map(|body| body.bytes).sum(),
            file: joined,
        }))
    }
}

/// A body in the making.
pub struct BodyWriter {
    timeline: Timeline,
    parent: Link,
    end: Link,
    tip: Option<Digest>,
    captured: Moment,
    file: zstd::Encoder<'static, File>,
}

impl BodyWriter {
    /// Begins after `parent`.
    pub fn new(timeline: Timeline, parent: Link) -> io::Result<Self> {
        let file = zstd::Encoder::new(scratch::unnamed()?, ZSTD_LEVEL)?;
        let captured = Moment::from_millis(0);
        Ok(Self { timeline, parent, end: parent, tip: None, captured, file })
    }

    /// Adds rows that were captured at one moment.
    pub fn push(&mut self, rows: &[Row], captured: Moment) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.captured = captured;
        self.file.write_all(segment::mark(captured).as_bytes())?;
        for row in rows {
            let line = row.encode();
            self.end = self.end.then(row.revision, &line);
            self.tip = Some(Digest::of(line.as_bytes()));
            self.file.write_all(line.as_bytes())?;
            self.file.write_all(b"\n")?;
        }
        Ok(())
    }

    /// The revision of the last row.
    pub fn reached(&self) -> Revision {
        self.end.revision
    }

    /// The body; `None` if it has no rows.
    pub fn finish(self) -> io::Result<Option<Body>> {
        let Self { timeline, parent, end, tip, captured, file } = self;
        let file = file.finish()?;
        let bytes = file.metadata()?.len();
        Ok(tip.map(|tip| Body { timeline, parent, end, tip, captured, bytes, file }))
    }
}
