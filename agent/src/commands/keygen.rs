//! `keygen`: a new key pair, or the one that a passphrase unwraps.

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;

use super::{Place, print};
use crate::args::Keygen;
use crate::error::{Exit, VerbError};
use crate::keyring;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, flags: Keygen) -> anyhow::Result<Exit> {
    let identities = if flags.passphrase { unwrapped(settings).await? } else { vec![Identity::generate()] };
    for identity in identities {
        print(identity.to_string().expose_secret())?;
        eprintln!("{}", identity.to_public());
    }
    Ok(Exit::Done)
}

async fn unwrapped(settings: &Settings) -> anyhow::Result<Vec<Identity>> {
    let passphrase = settings
        .passphrase()
        .ok_or_else(|| VerbError::Usage("--passphrase needs the passphrase in ENC_KEY".to_owned()))?;
    let place = Place::open(settings, None).await?;
    let identities = keyring::unwrapped(&place.store, &place.prefix, passphrase).await?;
    if identities.is_empty() {
        return Err(VerbError::Nothing(format!("{} keeps no identity in keys/", place.name)).into());
    }
    Ok(identities)
}
