//! A **log segment**: the kine rows `(from, to]`, as SQL text that `sqlite3` applies.
//!
//! ```text
//! age( zstd( header │ BEGIN; │ body │ COMMIT; │ trailer ) )
//! ```
//! Header and trailer are comments. The body has one line per [row](crate::row), and **marks**, comments that say when
//! the rows below them were captured. Merged segments have the bodies of those they replace one after another, so
//! that they still tell what was captured when.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::chain::Chain;
use crate::clock::Moment;
use crate::envelope::{self, HEADER_LIMIT, HashingWriter, OpenError, ZSTD_LEVEL};
use crate::header::{Content, Header, Trailer};
use crate::key::{Identities, Recipients};
use crate::object_name::ObjectName;
use crate::revision::Revision;
use crate::row::Row;
use crate::signing::{Digest, Hasher, Signers, SigningKey};

const BEGIN: &str = "BEGIN;\n";
const COMMIT: &str = "COMMIT;\n";
const MARK: &str = "-- captured: ";

/// A longer line is not ours: Kubernetes refuses objects of more than a few megabytes, and hexadecimal doubles them.
const LINE_LIMIT: u64 = 256 << 20;

/// A mark as a line.
pub fn mark(captured: Moment) -> String {
    format!("{MARK}{captured}\n")
}

/// Writes a segment of `body` to `out`.
pub fn seal(
    header: &Header,
    body: &mut dyn Read,
    recipients: &Recipients,
    key: Option<&SigningKey>,
    out: impl Write,
) -> io::Result<()> {
    let zstd = zstd::Encoder::new(envelope::encrypt(recipients, out)?, ZSTD_LEVEL)?;
    let mut text = HashingWriter::new(zstd);
    text.write_all(header.encode().as_bytes())?;
    text.write_all(BEGIN.as_bytes())?;
    io::copy(body, &mut text)?;
    text.write_all(COMMIT.as_bytes())?;
    let (mut zstd, digest) = text.finish();
    zstd.write_all(Trailer::new(digest, key).encode().as_bytes())?;
    zstd.finish()?.finish()?.flush()
}

/// What a body says, in order. Steps are handed over one at a time, so their size costs nothing.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Step {
    /// The rows that follow were captured then.
    Captured(Moment),
    /// A row, and the chain after it.
    Row(Row, Chain),
}

/// Reads a segment and hands each step to `each`. What was handed over counts only if this returns `Ok`: the digest
/// and the signature come last.
pub fn read<E: From<OpenError>>(
    name: &ObjectName,
    object: impl Read,
    identities: &Identities,
    pinned: &Signers,
    each: &mut dyn FnMut(Step) -> Result<(), E>,
) -> Result<Header, E> {
    let zstd = zstd::Decoder::new(envelope::decrypt(identities, object)?).map_err(OpenError::from_read)?;
    let mut lines = Lines::new(BufReader::new(zstd));
    let header = read_header(&mut lines)?;
    envelope::check_name(name, &header)?;
    let (Content::Segment { from, to }, Some(parent)) = (header.content, header.parent) else {
        return Err(damaged("it is no segment with a parent").into());
    };
    let mut body = Body { reached: from, chain: parent, captured: None };
    loop {
        let line = lines.next()?;
        if line == COMMIT {
            break;
        }
        each(body.step(line, to)?)?;
    }
    if body.reached != to || body.captured != Some(header.captured) {
        let (reached, captured) =
            (body.reached, body.captured.map_or_else(|| "no time".to_owned(), |at| at.to_string()));
        let what = format!(
            "its rows end at revision {reached}, captured at {captured}, not at {to}, {}",
            header.captured
        );
        return Err(OpenError::Damaged(what).into());
    }
    let digest = lines.digest();
    let trailer = Trailer::decode(&lines.rest()?).map_err(OpenError::from)?;
    envelope::check(&header, &trailer, digest, pinned)?;
    Ok(header)
}

fn read_header<R: BufRead>(lines: &mut Lines<R>) -> Result<Header, OpenError> {
    let mut text = String::new();
    loop {
        let line = lines.next()?;
        if line == BEGIN {
            return Ok(Header::decode(&text)?);
        }
        text.push_str(line);
        if text.len() > HEADER_LIMIT as usize {
            return Err(damaged("a header without end"));
        }
    }
}

fn damaged(what: &str) -> OpenError {
    OpenError::Damaged(what.to_owned())
}

/// How far a body was read.
struct Body {
    reached: Revision,
    chain: Chain,
    captured: Option<Moment>,
}

impl Body {
    fn step(&mut self, line: &str, to: Revision) -> Result<Step, OpenError> {
        let text = line.strip_suffix('\n').ok_or_else(|| damaged("a line without end"))?;
        if let Some(moment) = text.strip_prefix(MARK) {
            let captured: Moment = moment.parse().map_err(|_| damaged("a mark without time"))?;
            if mark(captured) != line || self.captured.is_some_and(|before| before > captured) {
                return Err(damaged("a mark that this program does not write"));
            }
            self.captured = Some(captured);
            return Ok(Step::Captured(captured));
        }
        let row = Row::decode(text).ok_or_else(|| damaged("a line that is no row of kine's"))?;
        if row.revision <= self.reached || row.revision > to || self.captured.is_none() {
            return Err(OpenError::Damaged(format!("revision {} is out of order", row.revision)));
        }
        self.reached = row.revision;
        self.chain = self.chain.then(text);
        Ok(Step::Row(row, self.chain))
    }
}

/// Lines of text with the digest of all that were taken.
struct Lines<R> {
    input: R,
    line: Vec<u8>,
    hasher: Hasher,
}

impl<R: BufRead> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, line: Vec::new(), hasher: Hasher::default() }
    }

    /// The next line, with its end.
    fn next(&mut self) -> Result<&str, OpenError> {
        self.line.clear();
        let limited = &mut Read::by_ref(&mut self.input).take(LINE_LIMIT);
        limited.read_until(b'\n', &mut self.line).map_err(OpenError::from_read)?;
        if self.line.is_empty() {
            return Err(damaged("it ends early"));
        }
        self.hasher.update(&self.line);
        std::str::from_utf8(&self.line).map_err(|_| damaged("a line that is no text"))
    }

    fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// What is left, to its end.
    fn rest(mut self) -> Result<String, OpenError> {
        let mut rest = String::new();
        let mut limited = (&mut self.input).take(u64::from(HEADER_LIMIT));
        limited.read_to_string(&mut rest).map_err(OpenError::from_read)?;
        Ok(rest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::row::Cell;
    use crate::timeline::Timeline;

    fn row(id: i64) -> Row {
        let number = Cell::Integer;
        let cells = [
            number(id),
            Cell::Text(format!("/registry/pods/{id}").into_bytes()),
            number(1),
            number(0),
            number(0),
            number(0),
            number(0),
            Cell::Blob(vec![7; 100]),
        ];
        Row { revision: Revision::from_sql(id), cells }
    }

    struct Sealed {
        name: ObjectName,
        object: Vec<u8>,
        identities: Identities,
        signers: Signers,
    }

    fn header(captured: i64) -> Header {
        Header {
            content: Content::Segment { from: Revision::from(4), to: Revision::from(9) },
            timeline: Timeline::open(Moment::from_millis(5)),
            captured: Moment::from_millis(captured),
            parent: Some(Chain::begin("before")),
            owner: None,
            signer: None,
        }
    }

    fn sealed_as(header: &Header, body: &str) -> Sealed {
        let identity = age::x25519::Identity::generate();
        let recipients = Recipients::parse(&[identity.to_public().to_string()]).unwrap();
        let key = SigningKey::parse(&format!("{}A", "A".repeat(42))).unwrap();
        let mut object = Vec::new();
        seal(header, &mut body.as_bytes(), &recipients, Some(&key), &mut object).unwrap();
        let name = header.object_name();
        Sealed {
            name,
            object,
            identities: Identities::from(vec![identity]),
            signers: Signers::from(vec![key.signer()]),
        }
    }

    fn body() -> String {
        let at = |millis| mark(Moment::from_millis(millis));
        format!("{}{}\n{}{}\n", at(7), row(5).encode(), at(9), row(9).encode())
    }

    fn steps(sealed: &Sealed, object: &[u8]) -> Result<Vec<Step>, OpenError> {
        let mut steps = Vec::new();
        let keep = &mut |step| {
            steps.push(step);
            Ok(())
        };
        read(&sealed.name, object, &sealed.identities, &sealed.signers, keep).map(|_| steps)
    }

    #[test]
    fn what_was_sealed_is_read() {
        let sealed = sealed_as(&header(9), &body());
        let chain = Chain::begin("before").then(&row(5).encode());
        let expected = vec![
            Step::Captured(Moment::from_millis(7)),
            Step::Row(row(5), chain),
            Step::Captured(Moment::from_millis(9)),
            Step::Row(row(9), chain.then(&row(9).encode())),
        ];
        assert_eq!(steps(&sealed, &sealed.object).unwrap(), expected);
    }

    #[test]
    fn every_truncation_and_flip_is_found() {
        let sealed = sealed_as(&header(9), &body());
        for length in 0..sealed.object.len() {
            let mut flipped = sealed.object.clone();
            flipped[length] ^= 1;
            assert!(steps(&sealed, &sealed.object[..length]).is_err(), "cut at {length}");
            assert!(steps(&sealed, &flipped).is_err(), "flipped at {length}");
        }
    }

    #[test]
    fn bodies_that_do_not_keep_the_rules_are_refused() {
        let mark = |millis| mark(Moment::from_millis(millis));
        let line = |id| format!("{}\n", row(id).encode());
        for (what, body) in [
            ("no mark", line(9)),
            ("too early", mark(9) + &line(4) + &line(9)),
            ("out of order", mark(9) + &line(9) + &line(8)),
            ("twice", mark(9) + &line(9) + &line(9)),
            ("beyond", mark(9) + &line(10)),
            ("short", mark(9) + &line(8)),
            ("time runs back", mark(10) + &line(5) + &mark(9) + &line(9)),
            ("another time", mark(8) + &line(9)),
            ("other SQL", mark(9) + "DROP TABLE kine;\n" + &line(9)),
            ("a comment", mark(9) + "-- hello\n" + &line(9)),
            ("empty", String::new()),
        ] {
            let sealed = sealed_as(&header(9), &body);
            assert!(matches!(steps(&sealed, &sealed.object), Err(OpenError::Damaged(_))), "{what}");
        }
    }

    #[test]
    fn another_name_is_refused() {
        let mut sealed = sealed_as(&header(9), &body());
        sealed.name = header(8).object_name();
        assert!(matches!(steps(&sealed, &sealed.object), Err(OpenError::Swapped { .. })));
    }
}
