//! **Bodies**: bytes between blocking code (SQLite, zstd, age) and asynchronous code (HTTP), a few parts at a
//! time, so that no object is ever whole in memory.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::envelope::TransportError;
use crate::signing::{Digest, Hasher};

/// Parts of one object on their way to the store. A closed channel is the end; a `None` says that the
/// producer failed and nothing may be published.
pub struct Parts(mpsc::Receiver<Option<Bytes>>);

/// The producer's end.
pub struct PartSender(mpsc::Sender<Option<Bytes>>);

/// A channel between [`PartWriter`] and store. The writer takes its place in it before it fills a part, so two parts
/// are in memory: one in the making, one under way.
pub fn parts() -> (PartSender, Parts) {
    let (sender, receiver) = mpsc::channel(1);
    (PartSender(sender), Parts(receiver))
}

/// The producer failed.
pub struct Abandoned;

impl Parts {
    /// Parts that are in memory already.
    pub fn whole(bytes: Bytes) -> Self {
        let (sender, receiver) = mpsc::channel(1);
        // An empty channel of capacity one takes one item.
        let _ = sender.try_send(Some(bytes));
        Self(receiver)
    }

    /// The next part, never empty; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Abandoned> {
        loop {
            match self.0.recv().await {
                Some(Some(part)) if part.is_empty() => {}
                Some(Some(part)) => return Ok(Some(part)),
                Some(None) => return Err(Abandoned),
                None => return Ok(None),
            }
        }
    }
}

/// Cuts what is written into parts of equal size; for the runtime's blocking threads. Dropped without [`PartWriter::finish`], it abandons the
/// upload.
pub struct PartWriter {
    sender: Option<mpsc::Sender<Option<Bytes>>>,
    place: Option<mpsc::OwnedPermit<Option<Bytes>>>,
    part: BytesMut,
    part_size: usize,
    written: u64,
    hasher: Hasher,
}

impl PartWriter {
    /// S3 takes parts of at least 5 MiB, but for the last, and 10,000 of them.
    pub const SMALLEST_PART: usize = 5 << 20;

    /// A writer for about `expected` bytes.
    pub fn new(sender: PartSender, expected: u64) -> Self {
        let fitting = usize::try_from(expected / 9_000).unwrap_or(usize::MAX);
        let part_size = fitting.max(Self::SMALLEST_PART);
        Self {
            sender: Some(sender.0),
            place: None,
            part: BytesMut::new(),
            part_size,
            written: 0,
            hasher: Hasher::default(),
        }
    }

    /// Sends what is left and ends the object; returns how many bytes it has, and their digest.
    pub fn finish(mut self) -> (u64, Digest) {
        self.send();
        self.sender = None;
        (self.written, self.hasher.clone().finish())
    }

    /// Waits until the store has taken the part before.
    fn take_place(&mut self) -> io::Result<()> {
        let sender = self.sender.clone().ok_or_else(gone)?;
        let place = Handle::current().block_on(sender.reserve_owned()).map_err(|_| gone())?;
        self.place = Some(place);
        self.part = BytesMut::with_capacity(self.part_size);
        Ok(())
    }

    fn send(&mut self) {
        if let Some(place) = self.place.take() {
            let part = std::mem::take(&mut self.part).freeze();
            place.send(Some(part));
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended early")
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.place.is_none() {
            self.take_place()?;
        }
        let taken = bytes.len().min(self.part_size - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        self.hasher.update(&bytes[..taken]);
        self.written += taken as u64;
        if self.part.len() == self.part_size {
            self.send();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            // The place that was taken for a part is given back first. The upload may have failed, and then nobody
            // listens.
            self.place = None;
            let _ = sender.blocking_send(None);
        }
    }
}

/// An object on its way from the store, for blocking code.
pub struct ObjectReader {
    size: u64,
    chunks: mpsc::Receiver<Result<Bytes, super::StoreError>>,
    chunk: Bytes,
}

impl ObjectReader {
    /// A reader of the chunks that the sender sends.
    pub fn new(size: u64, chunks: mpsc::Receiver<Result<Bytes, super::StoreError>>) -> Self {
        Self { size, chunks, chunk: Bytes::new() }
    }

    /// How many bytes the object has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(io::Error::other(TransportError(Box::new(error)))),
            }
        }
        let taken = buffer.len().min(self.chunk.len());
        buffer[..taken].copy_from_slice(&self.chunk.split_to(taken));
        Ok(taken)
    }
}
