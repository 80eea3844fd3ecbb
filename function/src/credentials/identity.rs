//! An **identity**: the secret age key of one cluster, and what follows from it. Drawing one is the only
//! randomness of this crate.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::SecureRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::object::entry;
use crate::recipient::Recipient;

/// Bytes of an X25519 secret key, and of an Ed25519 seed.
const SEED: usize = 32;
/// The least that a master key may be: as much as what is derived from it.
pub const MASTER_KEY: usize = 32;
/// Human-readable part of an identity (the age specification, C2SP/age).
const HRP: Hrp = Hrp::parse_unchecked("age-secret-key-");

type Seed = Zeroizing<[u8; SEED]>;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not an age identity. It is not shown.
    #[error("it holds no age identity, which begins with AGE-SECRET-KEY-1")]
    Malformed,
    /// A key too short to derive others from.
    #[error("it is shorter than {MASTER_KEY} bytes")]
    WeakMasterKey,
    /// Something that cannot fail with keys of the right length did.
    #[error("the key could not be derived")]
    Derivation,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// A secret age key; wiped when dropped, and without a printed form.
#[derive(Clone)]
pub struct Identity {
    seed: Seed,
    recipient: Recipient,
    /// Derived once, when first asked for: it costs as much as reading the identity.
    signing: OnceLock<(Zeroizing<String>, String)>,
}

impl Identity {
    /// Draws a new one.
    pub fn draw(random: &dyn SecureRandom) -> Result<Self, IdentityError> {
        let mut seed = Seed::default();
        random.fill(seed.as_mut()).map_err(|_| IdentityError::Random)?;
        Self::from_seed(seed)
    }

    /// The identity of a cluster under a master key: HKDF-SHA256, salt `vcluster-backup`, info
    /// `identity v1`, namespace, name and rotation counter, separated by zero bytes.
    pub fn derive(master: &[u8], namespace: &str, name: &str, rotation: u32) -> Result<Self, IdentityError> {
        let master = master.trim_ascii_end();
        if master.len() < MASTER_KEY {
            return Err(IdentityError::WeakMasterKey);
        }
        let info = ["identity v1", namespace, name, &rotation.to_string()].join("\0");
        Self::from_seed(expand(b"vcluster-backup", master, info.as_bytes())?)
    }

    /// Reads an identity as age writes it.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let text = text.trim();
        let decoded = CheckedHrpstring::new::<Bech32>(text).map_err(|_| IdentityError::Malformed)?;
        if decoded.hrp() != HRP {
            return Err(IdentityError::Malformed);
        }
        let mut seed = Seed::default();
        let mut bytes = decoded.byte_iter();
        for byte in seed.iter_mut() {
            *byte = bytes.next().ok_or(IdentityError::Malformed)?;
        }
        if bytes.next().is_some() {
            return Err(IdentityError::Malformed);
        }
        Self::from_seed(seed)
    }

    /// Reads a file of identities, one a line; age's programs write comments into theirs.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, IdentityError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let all = lines.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() { Err(IdentityError::Malformed) } else { Ok(all) }
    }

    /// Those of a Secret, where the user keeps them.
    pub fn read_all(secret: &Value, key: &str) -> Result<Vec<Self>, IdentityError> {
        let bytes = entry(secret, key).unwrap_or_default();
        std::str::from_utf8(&bytes).map_err(|_| IdentityError::Malformed).and_then(Self::parse_all)
    }

    fn from_seed(seed: Seed) -> Result<Self, IdentityError> {
        let text = encode(&seed)?;
        let age: age::x25519::Identity = text.parse().map_err(|_| IdentityError::Malformed)?;
        Ok(Self { recipient: age.to_public().into(), seed, signing: OnceLock::new() })
    }

    /// As age writes it.
    pub fn reveal(&self) -> Result<Zeroizing<String>, IdentityError> {
        encode(&self.seed)
    }

    /// The public half.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The key that signs this cluster's objects, and its public half; both base64url without padding. It
    /// follows from the identity (HKDF-SHA256, no salt, info `vcluster-backup signing-key v1`), so that
    /// there is one thing to draw and to keep.
    pub fn signing_key(&self) -> Result<&(Zeroizing<String>, String), IdentityError> {
        if let Some(signing) = self.signing.get() {
            return Ok(signing);
        }
        let seed = expand(b"", self.seed.as_ref(), b"vcluster-backup signing-key v1")?;
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| IdentityError::Derivation)?;
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(&seed[..]));
        let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        Ok(self.signing.get_or_init(|| (secret, public)))
    }
}

/// What a recipient is remembered by: SHA-256 of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a recipient.
    pub fn of(recipient: &Recipient) -> Self {
        Self(hex::encode(digest(&SHA256, recipient.to_string().as_bytes())))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

fn encode(seed: &Seed) -> Result<Zeroizing<String>, IdentityError> {
    bech32::encode_upper::<Bech32>(HRP, seed.as_ref())
        .map(Zeroizing::new)
        .map_err(|_| IdentityError::Malformed)
}

struct SeedLength;

impl KeyType for SeedLength {
    fn len(&self) -> usize {
        SEED
    }
}

fn expand(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Seed, IdentityError> {
    let mut seed = Seed::default();
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], SeedLength)
        .and_then(|key| key.fill(seed.as_mut()))
        .map_err(|_| IdentityError::Derivation)?;
    Ok(seed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    const MASTER: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn age_reads_what_is_written_and_agrees_on_the_recipient() {
        let identity = Identity::derive(MASTER, "team-a", "dev", 0).unwrap();
        let text = identity.reveal().unwrap();
        assert!(text.starts_with("AGE-SECRET-KEY-1"));
        let age: age::x25519::Identity = text.parse().unwrap();
        assert_eq!(age.to_string().expose_secret(), text.as_str());
        assert_eq!(age.to_public().to_string(), identity.recipient().to_string());
        let read = Identity::parse(&format!("{}\n", *text)).unwrap();
        assert_eq!(read.recipient(), identity.recipient());
        assert_eq!(read.signing_key().unwrap(), identity.signing_key().unwrap());
    }

    #[test]
    fn a_file_of_several_is_read_as_age_writes_it() {
        let text = |rotation| Identity::derive(MASTER, "a", "b", rotation).unwrap().reveal().unwrap();
        let file = format!("# created: today\n# public key: age1x\n{}\n\n  {}\n", *text(1), *text(0));
        let all = Identity::parse_all(&file).unwrap();
        assert_eq!(all.iter().map(|one| one.reveal().unwrap()).collect::<Vec<_>>(), [text(1), text(0)]);
        assert!(Identity::parse_all("# none\n").is_err());
        assert!(Identity::parse_all(&format!("{}\nhunter2", *text(0))).is_err());
    }

    #[test]
    fn a_derived_identity_is_a_published_formula() {
        // HKDF by hand, from RFC 5869: what a disaster recovery does without this program.
        use ring::hmac::{HMAC_SHA256, Key, sign};
        let extracted = sign(&Key::new(HMAC_SHA256, b"vcluster-backup"), MASTER);
        let expanded = sign(&Key::new(HMAC_SHA256, extracted.as_ref()), b"identity v1\0team-a\0dev\x000\x01");
        let identity = Identity::derive(MASTER, "team-a", "dev", 0).unwrap();
        assert_eq!(&identity.seed[..], expanded.as_ref());
        let with_newline = Identity::derive(&[MASTER, b"\n"].concat(), "team-a", "dev", 0).unwrap();
        assert_eq!(with_newline.recipient(), identity.recipient());
    }

    #[test]
    fn every_cluster_and_rotation_has_its_own() {
        let of = |namespace, name, rotation| {
            Identity::derive(MASTER, namespace, name, rotation).unwrap().recipient
        };
        let all = [of("a", "b", 0), of("a", "b", 1), of("b", "a", 0), of("", "a", 0), of("ab", "", 0)];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one));
        }
    }

    #[test]
    fn what_is_no_identity_is_refused_and_not_shown() {
        let text = Identity::derive(MASTER, "a", "b", 0).unwrap().reveal().unwrap();
        let other = text.replacen('Q', "P", 1).replacen('7', "8", 1).replacen('Z', "X", 1);
        for text in [
            "",
            "secret",
            "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
            &other,
            &text[..60],
        ] {
            let Err(error) = Identity::parse(text) else { panic!("accepted") };
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
        assert!(matches!(Identity::derive(b"short\n", "a", "b", 0), Err(IdentityError::WeakMasterKey)));
    }
}
