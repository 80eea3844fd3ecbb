//! A **snapshot**: one complete database in one object. An archive of files has the same frame.
//!
//! ```text
//! age( skippable frame: header │ zstd frame: the SQLite file │ skippable frame: trailer )
//! ```
//! `zstd -d` passes over skippable frames (RFC 8878 §3.1.2), so what it prints is the database.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::envelope::{self, HEADER_LIMIT, HashingReader, HashingWriter, OpenError, ZSTD_LEVEL};
use crate::header::{Header, Trailer};
use crate::key::{Identities, Recipients};
use crate::object_name::ObjectName;
use crate::signing::{Signers, SigningKey};

/// First of the sixteen magic numbers that RFC 8878 sets aside for skippable frames.
const SKIPPABLE: u32 = 0x184D_2A50;

/// Writes a snapshot of `database` to `out`; returns its trailer, whose digest the next segment names as its
/// parent.
pub fn seal(
    header: &Header,
    mut database: impl Read,
    recipients: &Recipients,
    key: Option<&SigningKey>,
    out: impl Write,
) -> io::Result<Trailer> {
    let mut hashing = HashingWriter::new(envelope::encrypt(recipients, out)?);
    write_skippable(&mut hashing, &header.encode())?;
    let mut zstd = zstd::Encoder::new(hashing, ZSTD_LEVEL)?;
    io::copy(&mut database, &mut zstd)?;
    let (mut age, digest) = zstd.finish()?.finish();
    let trailer = Trailer::new(digest, key);
    write_skippable(&mut age, &trailer.encode())?;
    age.finish()?.flush()?;
    Ok(trailer)
}

/// Reads a snapshot into `database`. What was written counts only if this returns `Ok`: the digest and the
/// signature come last.
pub fn open(
    name: &ObjectName,
    object: impl Read,
    identities: &Identities,
    pinned: &Signers,
    database: &mut impl Write,
) -> Result<(Header, Trailer), OpenError> {
    let mut body = HashingReader::new(BufReader::new(envelope::decrypt(identities, object)?));
    let header = Header::decode(&read_skippable(&mut body)?)?;
    envelope::check_name(name, &header)?;
    let mut zstd = zstd::Decoder::with_buffer(&mut body).map_err(OpenError::from_read)?.single_frame();
    copy(&mut zstd, database)?;
    drop(zstd);
    let digest = body.digest();
    let trailer = Trailer::decode(&read_skippable(&mut body)?)?;
    if !body.fill_buf().map_err(OpenError::from_read)?.is_empty() {
        return Err(OpenError::Damaged("it goes on after its trailer".to_owned()));
    }
    envelope::check(&header, &trailer, digest, pinned)?;
    Ok((header, trailer))
}

/// `io::copy` that tells which side failed: a full disk is not a damaged object.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), OpenError> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer).map_err(OpenError::from_read)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read]).map_err(OpenError::Io)?,
        }
    }
}

fn write_skippable(out: &mut impl Write, text: &str) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    out.write_all(&SKIPPABLE.to_le_bytes())?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn read_skippable(input: &mut impl Read) -> Result<String, OpenError> {
    let mut word = [0; 4];
    let mut next = |input: &mut dyn Read| match input.read_exact(&mut word) {
        Ok(()) => Ok(u32::from_le_bytes(word)),
        Err(error) => Err(OpenError::from_read(error)),
    };
    if next(input)? != SKIPPABLE {
        return Err(OpenError::Damaged("no header where one should be".to_owned()));
    }
    let length = next(input)?;
    if length > HEADER_LIMIT {
        return Err(OpenError::Damaged(format!("a header of {length} bytes")));
    }
    let mut text = vec![0; length as usize];
    input.read_exact(&mut text).map_err(OpenError::from_read)?;
    String::from_utf8(text).map_err(|_| OpenError::Damaged("a header that is no text".to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::header::{Content, DatabaseKind};
    use crate::revision::Revision;
    use crate::timeline::Timeline;

    struct Sealed {
        name: ObjectName,
        object: Vec<u8>,
        identities: Identities,
        signers: Signers,
    }

    fn key(seed: char) -> SigningKey {
        // 43 characters of base64url are 32 bytes.
        SigningKey::parse(&seed.to_string().repeat(42).chars().chain(['A']).collect::<String>()).unwrap()
    }

    fn sealed(content: &[u8], signing: Option<&SigningKey>) -> Sealed {
        let identity = age::x25519::Identity::generate();
        let recipients = Recipients::parse(&[identity.to_public().to_string()]).unwrap();
        let timeline = Timeline::open(Moment::from_millis(5));
        let (revision, captured) = (Revision::from(7), Moment::from_millis(9));
        let header = Header {
            content: Content::Snapshot { revision, database: DatabaseKind::Kine },
            timeline,
            captured,
            parent: None,
            owner: None,
            signer: signing.map(SigningKey::signer),
        };
        let mut object = Vec::new();
        seal(&header, content, &recipients, signing, &mut object).unwrap();
        Sealed {
            name: ObjectName::Snapshot { timeline, revision, captured },
            object,
            identities: Identities::from(vec![identity]),
            signers: Signers::from(vec![key('A').signer()]),
        }
    }

    fn reopen(sealed: &Sealed, object: &[u8], pinned: &Signers) -> Result<Vec<u8>, OpenError> {
        let mut database = Vec::new();
        open(&sealed.name, object, &sealed.identities, pinned, &mut database).map(|_| database)
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let content = vec![42; 300_000];
        let sealed = sealed(&content, Some(&key('A')));
        assert_eq!(reopen(&sealed, &sealed.object, &sealed.signers).unwrap(), content);
        assert_eq!(reopen(&sealed, &sealed.object, &Signers::default()).unwrap(), content);
    }

    #[test]
    fn every_truncation_is_found() {
        let sealed = sealed(&[1; 5000], None);
        for length in 0..sealed.object.len() {
            assert!(
                matches!(
                    reopen(&sealed, &sealed.object[..length], &Signers::default()),
                    Err(OpenError::Damaged(_))
                ),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let sealed = sealed(&[1; 500], None);
        for place in 0..sealed.object.len() {
            let mut object = sealed.object.clone();
            object[place] ^= 1;
            assert!(reopen(&sealed, &object, &Signers::default()).is_err(), "flipped at {place}");
        }
    }

    #[test]
    fn unsigned_and_foreign_signatures_are_refused_when_a_signer_is_pinned() {
        for signing in [None, Some(key('B'))] {
            let sealed = sealed(b"state", signing.as_ref());
            assert!(matches!(
                reopen(&sealed, &sealed.object, &sealed.signers),
                Err(OpenError::NotSigned { .. })
            ));
        }
    }

    #[test]
    fn another_name_or_identity_is_refused() {
        let mut sealed = sealed(b"state", None);
        let ObjectName::Snapshot { timeline, captured, .. } = sealed.name else { unreachable!() };
        sealed.name = ObjectName::Snapshot { timeline, revision: Revision::from(8), captured };
        assert!(matches!(
            reopen(&sealed, &sealed.object, &Signers::default()),
            Err(OpenError::Swapped { .. })
        ));
        sealed.identities = Identities::from(vec![age::x25519::Identity::generate()]);
        assert!(matches!(
            reopen(&sealed, &sealed.object, &Signers::default()),
            Err(OpenError::WrongIdentity)
        ));
    }
}
