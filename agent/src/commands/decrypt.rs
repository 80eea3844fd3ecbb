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
use crate::restore::placement;
use crate::settings::Settings;
use crate::store::{ObjectReader, Store as _, StoreError};

pub(super) async fn run(settings: &Settings, flags: Decrypt) -> anyhow::Result<Exit> {
    if flags.output.is_none() && io::stdout().is_terminal() {
        let problem = "a database would garble the terminal: give --output, or pipe stdout to a file";
        return Err(VerbError::Usage(problem.to_owned()).into());
    }
    if let Some(path) = flags.output.as_ref().filter(|path| path.exists()) {
        return Err(VerbError::Occupied(path.display().to_string()).into());
    }
    if !settings.pinned_signers().is_empty() {
        let problem = "decrypt checks no signature: restore does, with the same --signer";
        return Err(VerbError::Usage(problem.to_owned()).into());
    }
    let seed_format = is_seed_object(&flags.object);
    let local = Path::new(&flags.object);
    let place = if local.is_file() { None } else { Some(Place::open(settings, None).await?) };
    let input: Box<dyn Read + Send> = match &place {
        None => Box::new(File::open(local).with_context(|| format!("cannot open {}", local.display()))?),
        Some(place) => Box::new(fetch(place, &flags.object).await?),
    };
    let key = key(settings, place.as_ref(), seed_format).await?;
    let name = flags.object.clone();
    blocking(move || {
        let problem = || format!("cannot decrypt {name}");
        let Some(path) = &flags.output else {
            return write_plain(input, key, &mut io::stdout().lock()).with_context(problem);
        };
        // In its place only when it is whole, and for its owner's eyes.
        let mut scratch = placement::scratch_beside(path)?;
        write_plain(input, key, &mut scratch).with_context(problem)?;
        scratch.persist_noclobber(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    })
    .await?;
    Ok(Exit::Done)
}

/// An object by its name below the prefix, or by its full key.
async fn fetch(place: &Place, object: &str) -> Result<ObjectReader, StoreError> {
    let below = format!("{}{object}", place.prefix.folder());
    match place.store.get(&below).await {
        Err(StoreError::NotFound(_)) if below != object => place.store.get(object).await,
        found => found,
    }
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
    let identities = crate::keyring::unwrapped(&place.store, &place.prefix, passphrase).await?;
    if identities.is_empty() { Err(no_identity()) } else { Ok(Key::Age(Identities::from(identities))) }
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
    finish(output.flush())
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
            read => match to.write_all(&buffer[..read]) {
                // Whoever reads has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => finish(written)?,
            },
        }
    }
}

fn finish(written: io::Result<()>) -> anyhow::Result<()> {
    written.context("cannot write the output")
}
