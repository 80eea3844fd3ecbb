//! The **seed format**: objects of the Go program that this one replaces, `nonce(12) ‖ AES-256-GCM` under
//! SHA-256 of the passphrase. Read only: its key has no salt and no cost.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret as _, SecretString};

/// Why a seed object was refused.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Shorter than a nonce and a tag.
    #[error("is cut short: {0} bytes cannot hold an object of the seed format")]
    Short(usize),
    /// GCM cannot tell a wrong key from changed bytes.
    #[error("does not open with ENC_KEY: wrong passphrase, or the object is damaged")]
    WrongKey,
}

/// Decrypts a whole object in place; the plaintext is a prefix of the buffer that is returned.
pub fn decrypt(mut object: Vec<u8>, passphrase: &SecretString) -> Result<Vec<u8>, SeedError> {
    if object.len() < NONCE_LEN + AES_256_GCM.tag_len() {
        return Err(SeedError::Short(object.len()));
    }
    let key = digest(&SHA256, passphrase.expose_secret().as_bytes());
    let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| SeedError::WrongKey)?;
    let nonce = Nonce::try_assume_unique_for_key(&object[..NONCE_LEN]).map_err(|_| SeedError::WrongKey)?;
    let plain = LessSafeKey::new(key)
        .open_within(nonce, Aad::empty(), &mut object, NONCE_LEN..)
        .map_err(|_| SeedError::WrongKey)?
        .len();
    object.truncate(plain);
    Ok(object)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As the Go program seals, with a nonce that counts.
    fn sealed(plain: &[u8], passphrase: &str) -> Vec<u8> {
        let key = UnboundKey::new(&AES_256_GCM, digest(&SHA256, passphrase.as_bytes()).as_ref()).unwrap();
        let nonce: [u8; NONCE_LEN] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let mut body = plain.to_vec();
        LessSafeKey::new(key)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut body)
            .unwrap();
        [nonce.to_vec(), body].concat()
    }

    #[test]
    fn opens_with_the_right_passphrase_only() {
        let object = sealed(b"SQLite format 3", "12345");
        assert_eq!(decrypt(object.clone(), &"12345".into()).unwrap(), b"SQLite format 3");
        assert!(matches!(decrypt(object.clone(), &"1234".into()), Err(SeedError::WrongKey)));
        assert!(matches!(decrypt(object[..27].to_vec(), &"12345".into()), Err(SeedError::Short(27))));
    }
}
