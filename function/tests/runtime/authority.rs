//! An **authority** of Crossplane's shape, and the Secrets it fills.
//!
//! Crossplane gives CA and leaves one subject, one issuer and one serial number (internal/initializer), which
//! is unusual enough to be tried.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// A name that the function's Service has.
const SERVICE: &str = "function-vcluster-backup.crossplane-system.svc";

/// Kind and file format of keys.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// ECDSA in PKCS#8; needs no tool.
    Ec,
    /// ECDSA in SEC1, as `openssl ec` writes it.
    EcSec1,
    /// RSA-2048 in PKCS#8.
    Rsa,
    /// RSA-2048 in PKCS#1: Crossplane's own.
    RsaPkcs1,
}

/// A certificate and its key, as PEM.
pub struct Leaf {
    certificate: String,
    key: String,
}

impl Leaf {
    /// This certificate beside another one's key.
    pub fn with_key_of(&self, other: &Self) -> Self {
        Self { certificate: self.certificate.clone(), key: other.key.clone() }
    }
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    keys: Keys,
}

impl Authority {
    pub fn new(keys: Keys) -> Self {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let (key, _) = keys.generate();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate, keys }
    }

    pub fn server(&self) -> Leaf {
        self.leaf(&[SERVICE], ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self) -> Leaf {
        self.leaf(&["crossplane.crossplane-system"], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Leaf {
        let mut params = params(names);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        let (pair, key) = self.keys.generate();
        Leaf { certificate: params.signed_by(&pair, &self.issuer).unwrap().pem(), key }
    }

    /// How a client of this authority connects, showing `client`'s certificate if there is one.
    pub fn connects(&self, client: Option<&Leaf>) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new()
            .domain_name(SERVICE)
            .ca_certificate(Certificate::from_pem(&self.certificate));
        match client {
            Some(leaf) => tls.identity(Identity::from_pem(&leaf.certificate, &leaf.key)),
            None => tls,
        }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
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
    params
}

impl Keys {
    /// Whether they can be made here.
    pub fn available(self) -> bool {
        matches!(self, Self::Ec) || Command::new("openssl").arg("version").output().is_ok()
    }

    /// A key, to sign with and as the file that a Secret would hold.
    fn generate(self) -> (KeyPair, String) {
        let pair = match self {
            Self::Ec | Self::EcSec1 => KeyPair::generate().unwrap(),
            // ring makes no RSA keys.
            Self::Rsa | Self::RsaPkcs1 => {
                let pem = openssl(
                    &["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                    "",
                );
                KeyPair::from_pem(&pem).unwrap()
            }
        };
        let pkcs8 = pair.serialize_pem();
        let (file, label) = match self {
            Self::Ec | Self::Rsa => (pkcs8, "PRIVATE KEY"),
            Self::EcSec1 => (openssl(&["ec"], &pkcs8), "EC PRIVATE KEY"),
            Self::RsaPkcs1 => (openssl(&["rsa", "-traditional"], &pkcs8), "RSA PRIVATE KEY"),
        };
        assert!(file.starts_with(&format!("-----BEGIN {label}-----")), "not the format to be tried");
        (pair, file)
    }
}

fn openssl(args: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A Secret in a folder, swapped whole as the kubelet does it: the files are links into `..data`, which is a
/// link to the folder of the moment.
pub struct Mount {
    dir: TempDir,
    generation: u32,
}

impl Mount {
    pub fn new(ca: &Authority, leaf: &Leaf) -> Self {
        let mut mount = Self { dir: TempDir::new().unwrap(), generation: 0 };
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), mount.path().join(name)).unwrap();
        }
        mount.swap(ca, leaf);
        mount
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn swap(&mut self, ca: &Authority, leaf: &Leaf) {
        self.swap_files(&[
            ("ca.crt", &ca.certificate),
            ("tls.crt", &leaf.certificate),
            ("tls.key", &leaf.key),
        ]);
    }

    pub fn swap_files(&mut self, files: &[(&str, &str)]) {
        self.generation += 1;
        let now = format!("..{}", self.generation);
        fs::create_dir(self.path().join(&now)).unwrap();
        for (name, content) in files {
            fs::write(self.path().join(&now).join(name), content).unwrap();
        }
        symlink(&now, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
    }
}
