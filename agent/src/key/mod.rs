//! **Keys**: recipients (public, what the sidecar has) and identities (secret, what a restore needs).

pub mod passphrase;
pub mod seed;

use std::path::Path;

use age::x25519::{Identity, Recipient};
use zeroize::Zeroizing;

/// Why a key could not be used. Never shows the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not an age recipient.
    #[error(
        "'{0}' is not an age recipient: it begins with age1 and is what `vcluster-backup keygen` prints to stderr"
    )]
    Recipient(String),
    /// Nothing to encrypt to.
    #[error("no recipient is given: name one with --recipient, --recipients-file or ENC_KEY")]
    NoRecipient,
    /// A file with no identity in it.
    #[error("{0} holds no age identity: it needs a line that begins with AGE-SECRET-KEY-1")]
    NoIdentity(String),
    /// A key file could not be read.
    #[error("cannot read {path}: check the path and its rights")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The passphrase does not open the identity that the bucket keeps.
    #[error("ENC_KEY does not open {object}: it is not the passphrase that this backup was begun with")]
    WrongPassphrase {
        /// The wrapped identity.
        object: String,
    },
    /// The wrapped identity is not the one its name promises.
    #[error("{object} is damaged or was tampered with: it is not the identity of the recipient in its name")]
    Tampered {
        /// The wrapped identity.
        object: String,
    },
}

/// The public keys that every object is encrypted to.
#[derive(Clone, Default)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Reads recipients; at least one.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, KeyError> {
        let mut recipients = Self::default();
        for text in texts {
            recipients.add(text.as_ref())?;
        }
        if recipients.0.is_empty() { Err(KeyError::NoRecipient) } else { Ok(recipients) }
    }

    fn add(&mut self, text: &str) -> Result<(), KeyError> {
        let recipient: Recipient = text.trim().parse().map_err(|_| KeyError::Recipient(shown(text)))?;
        if !self.0.iter().any(|known| known.to_string() == recipient.to_string()) {
            self.0.push(recipient);
        }
        Ok(())
    }

    /// As age wants them.
    pub fn iter(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.0.iter().map(|recipient| recipient as &dyn age::Recipient)
    }
}

/// The recipients in a file: one a line, `#` begins a comment.
pub fn read_recipients(path: &Path) -> Result<Vec<String>, KeyError> {
    Ok(lines(&read(path)?).map(str::to_owned).collect())
}

/// The secret keys at hand.
pub struct Identities(Vec<Identity>);

impl From<Vec<Identity>> for Identities {
    fn from(identities: Vec<Identity>) -> Self {
        Self(identities)
    }
}

impl Identities {
    /// Reads an identity file as `age-keygen` writes it: one a line, `#` begins a comment.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = read(path)?;
        let identities: Vec<Identity> = lines(&text).filter_map(|line| line.parse().ok()).collect();
        if identities.is_empty() {
            return Err(KeyError::NoIdentity(path.display().to_string()));
        }
        Ok(Self(identities))
    }

    /// As age wants them.
    pub fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| identity as &dyn age::Identity)
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| KeyError::Read { path: path.display().to_string(), source })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What of a refused recipient may be shown: a secret key typed in the wrong place must not reach a log.
fn shown(text: &str) -> String {
    if text.trim_start().to_ascii_uppercase().starts_with("AGE-SECRET-KEY") {
        "AGE-SECRET-KEY-1… (an identity, keep it secret)".to_owned()
    } else {
        text.chars().take(80).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_secret_given_as_recipient_is_not_shown() {
        let secret = Identity::generate().to_string().expose_secret().to_owned();
        let Err(error) = Recipients::parse(&[&secret]) else { panic!("accepted") };
        assert!(!error.to_string().contains(&secret[16..]), "{error}");
    }

    /// A key that was replaced opens what was written before.
    #[test]
    fn every_identity_of_a_file_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (Identity::generate(), Identity::generate());
        let path = folder.path().join("key.txt");
        let [old_text, new_text] = [&old, &new].map(|key| key.to_string().expose_secret().to_owned());
        std::fs::write(&path, format!("# the first\n{old_text}\n\n  {new_text}\n# the end\n")).unwrap();
        let identities = Identities::read(&path).unwrap();
        assert_eq!(identities.iter().count(), 2);
        for key in [old, new] {
            let recipients = Recipients::parse(&[key.to_public().to_string()]).unwrap();
            let mut sealed = Vec::new();
            crate::envelope::encrypt(&recipients, &mut sealed).unwrap().finish().unwrap();
            assert!(crate::envelope::decrypt(&identities, &sealed[..]).is_ok());
        }
    }

    #[test]
    fn files_may_hold_comments_and_doubles() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::generate();
        let path = folder.path().join("key.txt");
        std::fs::write(&path, format!("# public key\n\n{}\n", identity.to_string().expose_secret())).unwrap();
        assert_eq!(Identities::read(&path).unwrap().iter().count(), 1);
        let public = identity.to_public().to_string();
        std::fs::write(&path, format!("{public}\n# again\n{public}\n")).unwrap();
        let recipients = Recipients::parse(&read_recipients(&path).unwrap()).unwrap();
        assert_eq!(recipients.iter().count(), 1);
        assert!(matches!(Identities::read(&path), Err(KeyError::NoIdentity(_))));
    }
}
