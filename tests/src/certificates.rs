//! **Certificates** of Crossplane's shape: one authority, the function's server certificate and core's client certificate,
//! each in a folder as their Secrets are mounted.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The name that clients on this machine find in the function's certificate.
pub const SERVER_NAME: &str = "localhost";

/// An authority that both sides trust.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut params = params(&[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Its own certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Puts a certificate of the function, with its key and the authority's certificate, into `folder`.
    pub fn write_server(&self, folder: &Path) -> Result<PathBuf> {
        self.write(folder, SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same of core, as the function's client.
    pub fn write_client(&self, folder: &Path) -> Result<PathBuf> {
        self.write(folder, "crossplane.crossplane-system", ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn write(&self, folder: &Path, name: &str, usage: ExtendedKeyUsagePurpose) -> Result<PathBuf> {
        let mut params = params(&[name])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        std::fs::create_dir_all(folder)?;
        // The key last but one, what is looked at first last: a reader in between finds a pair that does not match,
        // keeps what it had, and looks again.
        for (file, content) in
            [("ca.crt", self.certificate.clone()), ("tls.key", key.serialize_pem()), ("tls.crt", certificate)]
        {
            std::fs::write(folder.join(file), content).with_context(|| format!("cannot write {file}"))?;
        }
        Ok(folder.to_owned())
    }
}

/// Crossplane gives CA and leaves one subject and one serial number (internal/initializer/tls.go).
fn params(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.serial_number = Some(2022.into());
    for (kind, value) in [
        (DnType::CountryName, "Earth"),
        (DnType::StateOrProvinceName, "Earth"),
        (DnType::LocalityName, "Earth"),
        (DnType::OrganizationName, "Crossplane"),
        (DnType::CommonName, "Crossplane"),
    ] {
        params.distinguished_name.push(kind, value);
    }
    Ok(params)
}
