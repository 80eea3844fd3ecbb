//! **Signatures**: who wrote an object. age recipients are public, so encryption alone lets anyone who can
//! write to the bucket forge a backup; the Ed25519 key in the sidecar's Secret is what they lack.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

/// Why a signing key or signer could not be read. Never shows the text itself.
#[derive(Debug, thiserror::Error)]
pub enum KeyFormatError {
    /// Not base64url of 32 bytes.
    #[error(
        "the signing key is not 32 bytes in base64url: take `signing-key` of the backup's Secret as it is"
    )]
    SigningKey,
    /// Not base64url of 32 bytes.
    #[error(
        "the signer is not a public key of 32 bytes in base64url: take it from the cluster's status.backup.signer"
    )]
    Signer,
}

/// The secret half: signs what the agent captures.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads base64url of the 32-byte seed.
    pub fn parse(text: &str) -> Result<Self, KeyFormatError> {
        let seed = Zeroizing::new(
            URL_SAFE_NO_PAD
                .decode(text.trim().trim_end_matches('='))
                .map_err(|_| KeyFormatError::SigningKey)?,
        );
        Ed25519KeyPair::from_seed_unchecked(&seed).map(Self).map_err(|_| KeyFormatError::SigningKey)
    }

    /// The public half.
    pub fn signer(&self) -> Signer {
        let mut key = [0u8; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        Signer(key)
    }

    /// Signs a digest.
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.0.sign(&digest.0).as_ref().to_vec())
    }
}

/// The public half: says whose an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer([u8; 32]);

impl Signer {
    /// Whether `signature` is this signer's, of `digest`.
    pub fn verifies(&self, digest: &Digest, signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(&digest.0, &signature.0).is_ok()
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Signer {
    type Err = KeyFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key =
            URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).map_err(|_| KeyFormatError::Signer)?;
        key.try_into().map(Self).map_err(|_| KeyFormatError::Signer)
    }
}

/// Those whose word counts: several where a signing key was replaced. None means that nobody was named.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Signers(Vec<Signer>);

impl Signers {
    /// Whether nobody was named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `signature` is one of theirs, of `digest`.
    pub fn verify(&self, digest: &Digest, signature: &Signature) -> bool {
        self.0.iter().any(|signer| signer.verifies(digest, signature))
    }
}

impl From<Vec<Signer>> for Signers {
    fn from(signers: Vec<Signer>) -> Self {
        Self(signers)
    }
}

impl fmt::Display for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(" or "))
    }
}

impl FromStr for Signers {
    type Err = KeyFormatError;

    /// Separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<String> for Signers {
    type Error = KeyFormatError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// An Ed25519 signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for Signature {
    type Err = base64::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        URL_SAFE_NO_PAD.decode(text).map(Self)
    }
}

/// SHA-256 of an object's content before its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digest = [0u8; 32];
        hex::decode_to_slice(text, &mut digest)?;
        Ok(Self(digest))
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        let mut digest = [0u8; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_bound_to_its_key_and_digest() {
        let key = SigningKey::parse(&URL_SAFE_NO_PAD.encode([7u8; 32])).unwrap();
        let other = SigningKey::parse(&URL_SAFE_NO_PAD.encode([8u8; 32])).unwrap();
        let digest = Digest::of(b"state");
        let signature: Signature = key.sign(&digest).to_string().parse().unwrap();
        let signer: Signer = key.signer().to_string().parse().unwrap();
        assert!(signer.verifies(&digest, &signature));
        assert!(!signer.verifies(&Digest::of(b"other"), &signature));
        assert!(!other.signer().verifies(&digest, &signature));
    }

    #[test]
    fn the_word_of_any_signer_that_was_named_counts() {
        let [old, new, foreign] =
            [1u8, 2, 3].map(|seed| SigningKey::parse(&URL_SAFE_NO_PAD.encode([seed; 32])).unwrap());
        let digest = Digest::of(b"state");
        let named: Signers = format!("{}, {}", old.signer(), new.signer()).parse().unwrap();
        assert!(named.verify(&digest, &old.sign(&digest)) && named.verify(&digest, &new.sign(&digest)));
        assert!(!named.verify(&digest, &foreign.sign(&digest)));
        assert!("".parse::<Signers>().is_err() && Signers::default().is_empty());
    }

    #[test]
    fn a_bad_key_is_refused_without_being_shown() {
        let Err(error) = SigningKey::parse("not-a-key-but-secret") else { panic!("accepted") };
        assert!(!error.to_string().contains("secret\""), "{error}");
        assert!(SigningKey::parse("").is_err());
    }
}
