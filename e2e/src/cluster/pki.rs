//! The cluster's CA, what it signs, and the key of service account tokens.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::API_SERVICE;

/// What clients call the API server.
pub(super) const API_SERVER_NAMES: [&str; 6] = [
    "127.0.0.1",
    "localhost",
    API_SERVICE,
    "kubernetes",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// A certificate signed by the cluster's CA, and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The PKCS#8 key.
    pub key: String,
}

/// An [`Identity`] in files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// The PKCS#8 key, for its owner's eyes.
    pub key: PathBuf,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .field("key", &"<redacted>")
            .finish()
    }
}

impl Identity {
    /// Writes `{name}.crt` and `{name}.key`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<Files> {
        let files = Files {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        private(&files.certificate, &self.certificate)?;
        private(&files.key, &self.key)?;
        Ok(files)
    }
}

#[derive(Debug)]
pub(super) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    file: PathBuf,
}

impl Pki {
    /// Makes the keys, and writes `ca.crt`, `ca.key`, `sa.key` and `sa.pub` into `folder`.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        let file = folder.join("ca.crt");
        private(&file, &pem)?;
        private(&folder.join("ca.key"), &key.serialize_pem())?;
        let tokens = KeyPair::generate()?;
        private(&folder.join("sa.key"), &tokens.serialize_pem())?;
        private(&folder.join("sa.pub"), &tokens.public_key_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            file,
        })
    }

    /// A certificate for clients and servers: the user is its common name, the groups its organizations.
    pub(super) fn issue(&self, user: &str, groups: &[&str], names: &[&str]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        Ok(Identity {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn ca_file(&self) -> &Path {
        &self.file
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("create {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}
