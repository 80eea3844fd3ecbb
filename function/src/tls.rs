//! **Certificates**: who we are, and which clients may call.
//!
//! Crossplane mounts a Secret with `tls.crt`, `tls.key` and `ca.crt` and renews it in place. Every handshake
//! looks whether the files have changed: three small reads are nothing beside a handshake, connections are
//! few and long, and no timer has to agree with the kubelet's. A set that is broken, or half swapped, leaves
//! the one before in force.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const CA: &str = "ca.crt";

/// Certificates that cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error(
        "cannot read {path}: mount the Secret that Crossplane makes for the function, with tls.crt, tls.key and \
         ca.crt, and name its folder by --tls-certs-dir"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file has no PEM block of the kind that belongs there.
    #[error("{path} holds no {wanted}: it must be a PEM file")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// Why; no content.
        #[source]
        source: pem::Error,
    },
    /// A CA certificate that is none.
    #[error(
        "{path} holds a certificate that cannot be a CA: put the CA that signs Crossplane's client there"
    )]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No client could ever be verified.
    #[error("{path} cannot verify clients: put the CA that signs Crossplane's client there")]
    Verifier {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// Certificate and key cannot be used together.
    #[error("tls.crt and tls.key in {dir} do not belong together, or their kind is not supported")]
    Pair {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// A folder with certificates, and what was last read from it.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
    // A blocking mutex, held while three small files are read: handshakes are few, and two that find the
    // files changed need the change read once.
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    /// The newest set that could be served.
    config: Arc<ServerConfig>,
    /// What was seen last, served or not, so that a broken set is told once.
    seen: Seen,
}

/// What a look at the folder gave: a digest, so that no copy of the key is kept, or why there was none.
#[derive(Debug, PartialEq)]
enum Seen {
    Content([u8; SHA256_OUTPUT_LEN]),
    Unreadable(PathBuf),
}

impl Certificates {
    /// Reads the folder; what it holds must be good to start with.
    pub fn open(dir: &Path) -> Result<Self, CertificateError> {
        let files = Files::read(dir)?;
        let last = Last { config: Arc::new(files.config()?), seen: Seen::Content(files.digest()) };
        Ok(Self { dir: dir.to_owned(), last: Mutex::new(last) })
    }

    /// What to serve the next connection with: the folder's content, or the last that was good.
    pub fn current(&self) -> Arc<ServerConfig> {
        // What is behind the lock is replaced whole, so a panic elsewhere cannot have left it half done.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Files::read(&self.dir);
        let seen = match &read {
            Ok(files) => Seen::Content(files.digest()),
            Err(CertificateError::Read { path, .. }) => Seen::Unreadable(path.clone()),
            Err(_) => Seen::Unreadable(self.dir.clone()),
        };
        if seen != last.seen {
            last.seen = seen;
            match read.and_then(|files| files.config()) {
                Ok(config) => {
                    last.config = Arc::new(config);
                    tracing::info!(dir = %self.dir.display(), "certificates have changed, serving the new ones");
                }
                Err(error) => {
                    let cause = error.source().map(ToString::to_string);
                    tracing::warn!(%error, cause, "certificates have changed and are broken, serving the last good");
                }
            }
        }
        Arc::clone(&last.config)
    }
}

/// The three files as they are.
struct Files<'a> {
    dir: &'a Path,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    ca: Vec<u8>,
}

impl<'a> Files<'a> {
    fn read(dir: &'a Path) -> Result<Self, CertificateError> {
        let read = |name| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| CertificateError::Read { path, source })
        };
        Ok(Self { dir, certificate: read(CERTIFICATE)?, key: Zeroizing::new(read(KEY)?), ca: read(CA)? })
    }

    fn digest(&self) -> [u8; SHA256_OUTPUT_LEN] {
        let mut context = Context::new(&SHA256);
        for file in [&self.certificate, &*self.key, &self.ca] {
            // The length keeps bytes from moving unseen between files.
            context.update(&(file.len() as u64).to_be_bytes());
            context.update(file);
        }
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Every client must show a certificate of the CA; HTTP/2 alone is offered, which gRPC clients insist on.
    fn config(&self) -> Result<ServerConfig, CertificateError> {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca, &self.dir.join(CA))? {
            roots.add(root).map_err(|source| CertificateError::Ca { path: self.dir.join(CA), source })?;
        }
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|source| CertificateError::Verifier { path: self.dir.join(CA), source })?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| CertificateError::Pem {
            path: self.dir.join(KEY),
            wanted: "private key",
            source,
        })?;
        let pair = |source| CertificateError::Pair { dir: self.dir.to_owned(), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates(&self.certificate, &self.dir.join(CERTIFICATE))?, key)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// All certificates of a file; at least one.
fn certificates(file: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |source| CertificateError::Pem { path: path.to_owned(), wanted: "certificate", source };
    let all = CertificateDer::pem_slice_iter(file).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if all.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(all) }
}
