//! The **envelope** of every object: a standard age file, so that `age -d -i key.txt OBJECT | zstd -d` reads
//! it without this program.

use std::io::{self, BufRead, Read, Write};

use age::stream::{StreamReader, StreamWriter};

use crate::header::{Header, HeaderError, Trailer};
use crate::key::{Identities, Recipients};
use crate::object_name::ObjectName;
use crate::signing::{Digest, Hasher, Signers};

/// zstd's default level: on kine's values it takes a sixth of the time of age's work behind a slow disk, and
/// higher levels save little on protobuf.
pub const ZSTD_LEVEL: i32 = 3;

/// A header or trailer of more bytes than this is not ours.
pub const HEADER_LIMIT: u32 = 64 * 1024;

/// Why an object could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Bytes could not be fetched or written; the object itself may be fine.
    #[error("cannot be read to its end")]
    Io(#[source] io::Error),
    /// Encrypted to other recipients.
    #[error(
        "is not encrypted to any identity at hand: give the one whose recipient wrote it (--identity-file, several in one file are all tried, or ENC_KEY)"
    )]
    WrongIdentity,
    /// Cut short, changed or overwritten.
    #[error("is damaged or was tampered with: {0}")]
    Damaged(String),
    /// Header and name disagree: the object was moved or swapped.
    #[error("was swapped: its name says {name}, its header says {header}")]
    Swapped {
        /// What the name promises.
        name: String,
        /// What the header says.
        header: String,
    },
    /// No signature, or another signer's.
    #[error(
        "is not signed by {signers}: it was forged, or written under another signing key (--signer may name several)"
    )]
    NotSigned {
        /// The pinned signers.
        signers: Signers,
    },
    /// A newer format.
    #[error(transparent)]
    Header(HeaderError),
}

impl From<HeaderError> for OpenError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Damaged(what) => Self::Damaged(what),
            newer @ HeaderError::Newer(_) => Self::Header(newer),
        }
    }
}

/// Marks an `io::Error` of the transport, so that it is told apart from damage that age or zstd find.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

impl OpenError {
    /// Sorts an error of the layered readers: the transport's own are passed on, the rest is damage.
    pub fn from_read(error: io::Error) -> Self {
        let transport = error.get_ref().is_some_and(
            <dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<TransportError>,
        );
        let local = error.raw_os_error().is_some();
        if transport || local { Self::Io(error) } else { Self::Damaged(error.to_string()) }
    }
}

/// Begins an age file to `recipients`.
pub fn encrypt<W: Write>(recipients: &Recipients, out: W) -> Result<StreamWriter<W>, io::Error> {
    age::Encryptor::with_recipients(recipients.iter()).map_err(io::Error::other)?.wrap_output(out)
}

/// Opens an age file.
pub fn decrypt<R: Read>(identities: &Identities, input: R) -> Result<StreamReader<R>, OpenError> {
    let opened = age::Decryptor::new(input).and_then(|file| file.decrypt(identities.iter()));
    opened.map_err(|error| match error {
        age::DecryptError::NoMatchingKeys | age::DecryptError::KeyDecryptionFailed => {
            OpenError::WrongIdentity
        }
        age::DecryptError::Io(error) => OpenError::from_read(error),
        other => OpenError::Damaged(other.to_string()),
    })
}

/// Passes bytes on and takes their digest.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashingWriter<W> {
    /// Starts with no bytes seen.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// The writer below and the digest of all that passed.
    pub fn finish(self) -> (W, Digest) {
        (self.inner, self.hasher.finish())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes bytes on and takes the digest of those *consumed*, so that what a decoder has only looked ahead at
/// (the trailer) stays out of it.
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: BufRead> HashingReader<R> {
    /// Starts with no bytes seen.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// The digest of all consumed so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

impl<R: BufRead> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for HashingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // `amount` bytes are buffered, so this is no I/O and cannot fail.
        if let Ok(buffered) = self.inner.fill_buf() {
            self.hasher.update(&buffered[..amount.min(buffered.len())]);
        }
        self.inner.consume(amount);
    }
}

/// Holds a header against the name of its object: one that was moved or swapped is refused.
pub fn check_name(name: &ObjectName, header: &Header) -> Result<(), OpenError> {
    let told = header.object_name();
    if told == *name {
        return Ok(());
    }
    Err(OpenError::Swapped { name: name.to_string(), header: told.to_string() })
}

/// Holds a trailer against what was read and against the pinned signers, if there are any.
pub fn check(header: &Header, trailer: &Trailer, digest: Digest, pinned: &Signers) -> Result<(), OpenError> {
    if trailer.digest != digest {
        return Err(OpenError::Damaged("its digest is not that of its content".to_owned()));
    }
    if !pinned.is_empty() {
        let signed = trailer.signature.as_ref().is_some_and(|signature| pinned.verify(&digest, signature));
        if !signed {
            return Err(OpenError::NotSigned { signers: pinned.clone() });
        }
    } else if let Some(signer) = &header.signer
        && !trailer.signature.as_ref().is_some_and(|signature| signer.verifies(&digest, signature))
    {
        return Err(OpenError::Damaged("its signature is not that of the signer it names".to_owned()));
    }
    Ok(())
}
