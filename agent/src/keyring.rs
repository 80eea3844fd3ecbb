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
        let identity = if known.is_empty() {
            wrap_new(store, prefix, passphrase).await?
        } else {
            unwrap_any(store, &known, passphrase).await?
        };
        named.push(identity.to_public().to_string());
    }
    Ok(Recipients::parse(&named)?)
}

/// The identity that `passphrase` opens; `None` if the bucket keeps none.
pub async fn unwrapped<S: Store>(
    store: &S,
    prefix: &Prefix,
    passphrase: &SecretString,
) -> Result<Option<Identity>, KeyringError> {
    let known = wrapped(store, prefix).await?;
    if known.is_empty() { Ok(None) } else { unwrap_any(store, &known, passphrase).await.map(Some) }
}

/// What opens objects: the identities at hand, else the one that `passphrase` opens.
pub async fn identities<S: Store>(
    store: &S,
    prefix: &Prefix,
    at_hand: Option<Identities>,
    passphrase: Option<&SecretString>,
) -> Result<Option<Identities>, KeyringError> {
    match (at_hand, passphrase) {
        (Some(identities), _) => Ok(Some(identities)),
        (None, Some(passphrase)) => Ok(unwrapped(store, prefix, passphrase).await?.map(Identities::from)),
        (None, None) => Ok(None),
    }
}

async fn wrapped<S: Store>(store: &S, prefix: &Prefix) -> Result<Vec<(String, Stored)>, StoreError> {
    let listed = store.list(&format!("{}keys/", prefix.folder())).await?;
    Ok(Catalogue::new(prefix, &listed).wrapped_identities)
}

/// The first identity that opens: after a change of passphrase the bucket keeps the old ones too.
async fn unwrap_any<S: Store>(
    store: &S,
    known: &[(String, Stored)],
    passphrase: &SecretString,
) -> Result<Identity, KeyringError> {
    let mut refusal = None;
    for (recipient, stored) in known {
        let mut object = store.get(&stored.key).await?;
        let (recipient, key, passphrase) = (recipient.clone(), stored.key.clone(), passphrase.clone());
        let opened = blocking(move || {
            let mut bytes = Vec::new();
            // What is no wrapped identity is not read to its end.
            object
                .by_ref()
                .take(1 << 16)
                .read_to_end(&mut bytes)
                .map_err(|source| KeyError::Read { path: key.clone(), source })?;
            passphrase::unwrap(&key, &recipient, &bytes, &passphrase)
        })
        .await;
        match opened {
            Ok(identity) => return Ok(identity),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or(KeyError::NoRecipient).into())
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
