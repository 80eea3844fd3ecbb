//! **Passphrase mode** (`ENC_KEY`): a generated identity, wrapped once by the passphrase into `keys/`, as
//! repositories of other backup programs keep theirs, so that scrypt runs once a start and not once an object.

use std::io::{Read as _, Write as _};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use secrecy::SecretString;

use super::KeyError;

/// scrypt's N = 2^17: 128 MiB and about half a second, the most that a sidecar's memory limit bears.
const WORK_FACTOR: u8 = 17;

/// Wraps an identity: an age file that `age -d` opens with the passphrase.
pub fn wrap(identity: &Identity, passphrase: &SecretString) -> std::io::Result<Vec<u8>> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
    recipient.set_work_factor(WORK_FACTOR);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        .map_err(std::io::Error::other)?;
    let mut file = encryptor.wrap_output(Vec::new())?;
    writeln!(file, "{}", identity.to_string().expose_secret())?;
    file.finish()
}

/// Unwraps an identity and holds it against the recipient in the object's name: whoever can write to the
/// bucket cannot slip in a recipient of theirs.
pub fn unwrap(
    object: &str,
    recipient: &str,
    wrapped: &[u8],
    passphrase: &SecretString,
) -> Result<Identity, KeyError> {
    let tampered = || KeyError::Tampered { object: object.to_owned() };
    let mut scrypt = age::scrypt::Identity::new(passphrase.clone());
    scrypt.set_max_work_factor(WORK_FACTOR + 3);
    let file = age::Decryptor::new(wrapped).map_err(|_| tampered())?;
    let mut reader =
        file.decrypt(std::iter::once(&scrypt as &dyn age::Identity)).map_err(|error| match error {
            age::DecryptError::DecryptionFailed
            | age::DecryptError::KeyDecryptionFailed
            | age::DecryptError::NoMatchingKeys => KeyError::WrongPassphrase { object: object.to_owned() },
            _ => tampered(),
        })?;
    let mut text = zeroize::Zeroizing::new(String::new());
    reader.read_to_string(&mut text).map_err(|_| tampered())?;
    let identity: Identity = text.trim().parse().map_err(|_| tampered())?;
    if identity.to_public().to_string() == recipient { Ok(identity) } else { Err(tampered()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_identity_opens_with_its_passphrase_under_its_own_name_only() {
        let identity = Identity::generate();
        let recipient = identity.to_public().to_string();
        let wrapped = wrap(&identity, &"correct horse".into()).unwrap();
        let opened = unwrap("k", &recipient, &wrapped, &"correct horse".into()).unwrap();
        assert_eq!(opened.to_public().to_string(), recipient);
        assert!(matches!(
            unwrap("k", &recipient, &wrapped, &"wrong".into()),
            Err(KeyError::WrongPassphrase { .. })
        ));
        let other = Identity::generate().to_public().to_string();
        assert!(matches!(
            unwrap("k", &other, &wrapped, &"correct horse".into()),
            Err(KeyError::Tampered { .. })
        ));
    }
}
