//! `decrypt`: one object in the clear, as `age -d | zstd -d` would print it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::path::Path;

use anyhow::Context as _;
use secrecy::SecretString;

use super::{Place, blocking, no_identity};
use crate::args::Decrypt;
use crate::envelope::{self, OpenError};
use crate::error::{Exit, VerbError};
use crate::key::{Identities, seed};
use crate::object_name::is_seed_object;
use crate::settings::Settings;
use crate::store::Store as _;

pub(super) async fn run(settings: &Settings, flags: Decrypt) -> anyhow::Result<Exit> {
    if flags.output.is_none() && io::stdout().is_terminal() {
        let problem = "a database would garble the terminal: give --output, or pipe stdout to a file";
        return Err(VerbError::Usage(problem.to_owned()).into());
    }
    let seed_format = is_seed_object(&flags.object);
    let local = Path::new(&flags.object);
    let place = if local.is_file() { None } else { Some(Place::open(settings, None).await?) };
    let input: Box<dyn Read + Send> = match &place {
        None => Box::new(File::open(local).with_context(|| format!("cannot open {}", local.display()))?),
        Some(place) => {
            let below = format!("{}{}", place.prefix.folder(), flags.object);
            let key = match place.store.head(&flags.object).await? {
                Some(_) => &flags.object,
                None => &below,
            };
            Box::new(place.store.get(key).await?)
        }
    };
    let key = key(settings, place.as_ref(), seed_format).await?;
    let name = flags.object.clone();
    blocking(move || {
        let mut output: Box<dyn Write> = match &flags.output {
            None => Box::new(io::stdout().lock()),
            Some(path) => {
                Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
            }
        };
        write_plain(input, key, &mut output).with_context(|| format!("cannot decrypt {name}"))
    })
    .await?;
    Ok(Exit::Done)
}

/// What opens the object.
enum Key {
    Age(Identities),
    Seed(SecretString),
}

async fn key(settings: &Settings, place: Option<&Place>, seed_format: bool) -> anyhow::Result<Key> {
    if seed_format {
        let passphrase = settings.passphrase().cloned();
        let missing =
            || VerbError::Usage("an object of the seed format needs the passphrase in ENC_KEY".to_owned());
        return Ok(Key::Seed(passphrase.ok_or_else(missing)?));
    }
    if let Some(path) = settings.identity_file() {
        return Ok(Key::Age(Identities::read(path)?));
    }
    let passphrase = settings.passphrase().ok_or_else(no_identity)?;
    // The passphrase opens an identity that only the bucket has.
    let place = match place {
        Some(place) => place.clone(),
        None => Place::open(settings, None).await?,
    };
    let identity = crate::keyring::unwrapped(&place.store, &place.prefix, passphrase).await?;
    Ok(Key::Age(Identities::from(identity.ok_or_else(no_identity)?)))
}

fn write_plain(mut input: Box<dyn Read + Send>, key: Key, output: &mut dyn Write) -> anyhow::Result<()> {
    match key {
        Key::Seed(passphrase) => {
            let mut sealed = Vec::new();
            input.read_to_end(&mut sealed)?;
            output.write_all(&seed::decrypt(sealed, &passphrase)?)?;
        }
        Key::Age(identities) => {
            let mut plain = BufReader::new(envelope::decrypt(&identities, input)?);
            let first = plain.fill_buf().map_err(OpenError::from_read)?;
            if is_zstd(first) {
                let mut decoder = zstd::Decoder::with_buffer(plain).map_err(OpenError::from_read)?;
                copy(&mut decoder, output)?;
            } else {
                copy(&mut plain, output)?;
            }
        }
    }
    output.flush().context("cannot write the output")
}

/// A zstd frame, or a skippable one (RFC 8878 §3.1).
fn is_zstd(first: &[u8]) -> bool {
    let Some(magic) = first.first_chunk::<4>() else { return false };
    let magic = u32::from_le_bytes(*magic);
    magic == 0xFD2F_B528 || magic & 0xFFFF_FFF0 == 0x184D_2A50
}

fn copy(from: &mut impl Read, to: &mut dyn Write) -> anyhow::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer).map_err(OpenError::from_read)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read]).context("cannot write the output")?,
        }
    }
}
