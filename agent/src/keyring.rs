//! The **keyring**: who objects are encrypted to, and what opens them, gathered from settings and bucket.
//!
//! In passphrase mode the identity lives in the bucket's `keys/`, wrapped; it is made at the first use.

use age::x25519::Identity;
use bytes::Bytes;
use secrecy::SecretString;
use std::io::Read as _;

use crate::capture::blocking;
use crate::catalogue::{Catalogue, Stored};
use crate::key::{Identities, KeyError, Recipients, passphrase};
use crate::object_name::{ObjectName, Prefix};
use crate::store::{Metadata, Parts, Store, StoreError};

/// Why keys could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A key is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everyone that objects are encrypted to: `named`, and in passphrase mode the owner of the wrapped identity.
pub async fn recipients<S: Store>(
    store: &S,
    prefix: &Prefix,
    mut named: Vec<String>,
    passphrase: Option<&SecretString>,
) -> Result<Recipients, KeyringError> {
    if let Some(passphrase) = passphrase {
        let known = wrapped(store, prefix).await?;
        let identities = if known.is_empty() {
            vec![wrap_new(store, prefix, passphrase).await?]
        } else {
            unwrap_all(store, &known, passphrase).await?
        };
        named.extend(identities.iter().map(|identity| identity.to_public().to_string()));
    }
    Ok(Recipients::parse(&named)?)
}

/// The identities that `passphrase` opens; none if the bucket keeps none.
pub async fn unwrapped<S: Store>(
    store: &S,
    prefix: &Prefix,
    passphrase: &SecretString,
) -> Result<Vec<Identity>, KeyringError> {
    let known = wrapped(store, prefix).await?;
    if known.is_empty() { Ok(Vec::new()) } else { unwrap_all(store, &known, passphrase).await }
}

/// What opens objects: the identities at hand, else those that `passphrase` opens.
pub async fn identities<S: Store>(
    store: &S,
    prefix: &Prefix,
    at_hand: Option<Identities>,
    passphrase: Option<&SecretString>,
) -> Result<Option<Identities>, KeyringError> {
    match (at_hand, passphrase) {
        (Some(identities), _) => Ok(Some(identities)),
        (None, Some(passphrase)) => {
            let identities = unwrapped(store, prefix, passphrase).await?;
            Ok((!identities.is_empty()).then(|| Identities::from(identities)))
        }
        (None, None) => Ok(None),
    }
}

async fn wrapped<S: Store>(store: &S, prefix: &Prefix) -> Result<Vec<(String, Stored)>, StoreError> {
    let listed = store.list(&format!("{}keys/", prefix.folder()), None).await?;
    Ok(Catalogue::new(prefix, &listed).wrapped_identities)
}

/// Every identity that opens, at least one: after a change of passphrase the bucket keeps the old ones too, and two
/// agents that start at once may each have made one.
async fn unwrap_all<S: Store>(
    store: &S,
    known: &[(String, Stored)],
    passphrase: &SecretString,
) -> Result<Vec<Identity>, KeyringError> {
    let (mut identities, mut refusal) = (Vec::new(), KeyError::NoRecipient);
    for (recipient, stored) in known {
        let object = store.get(&stored.key).await?;
        let (recipient, key, passphrase) = (recipient.clone(), stored.key.clone(), passphrase.clone());
        let opened = blocking(move || {
            let mut bytes = Vec::new();
            // What is no wrapped identity is not read to its end.
            object.take(1 << 16).read_to_end(&mut bytes).map_err(|error| StoreError::Unreachable {
                operation: "read",
                object: key.clone(),
                endpoint: "the bucket".to_owned(),
                cause: error.to_string(),
            })?;
            Ok::<_, StoreError>(passphrase::unwrap(&key, &recipient, &bytes, &passphrase))
        })
        .await?;
        match opened {
            Ok(identity) => identities.push(identity),
            Err(error) => refusal = error,
        }
    }
    if identities.is_empty() { Err(refusal.into()) } else { Ok(identities) }
}

async fn wrap_new<S: Store>(
    store: &S,
    prefix: &Prefix,
    passphrase: &SecretString,
) -> Result<Identity, KeyringError> {
    let identity = Identity::generate();
    let key = prefix.key(&ObjectName::WrappedIdentity { recipient: identity.to_public().to_string() });
    let (identity, wrapped) = {
        let passphrase = passphrase.clone();
        blocking(move || {
            let wrapped = passphrase::wrap(&identity, &passphrase);
            (identity, wrapped)
        })
        .await
    };
    let wrapped = wrapped.map_err(|source| KeyError::Read { path: key.clone(), source })?;
    store.put_new(&key, &Metadata::new(), Parts::whole(Bytes::from(wrapped))).await?;
    tracing::info!(object = key, "a new identity was made and wrapped by the passphrase");
    Ok(identity)
}
