//! Trust bundles (SPIFFE_Trust_Domain_and_Bundle.md): a trust domain's authorities, and their encodings.

mod spiffe;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;

use crate::id::{IdError, TrustDomain};
use crate::x509::{Certificate, X509Error};

/// Why a bundle cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Too large a document.
    #[error("the bundle has {0} bytes; at most {1} are read")]
    TooLarge(usize, usize),
    /// No JSON, or a member twice.
    #[error("the bundle is no JSON document: {0}")]
    Json(#[from] serde_json::Error),
    /// Another shape.
    #[error("the bundle is no JWK set: {0}")]
    Shape(&'static str),
    /// A bundle map with a name that is no trust domain's.
    #[error("the bundle map's {name:?} is no trust domain: {source}")]
    TrustDomain {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: IdError,
    },
    /// An authority that is none.
    #[error("key {number} of the bundle: {reason}")]
    Key {
        /// Which of `keys`, from 0.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Not PEM.
    #[error("the bundle is no PEM text: {0}")]
    Pem(String),
    /// A PEM bundle without certificates.
    #[error("the PEM text holds no certificate")]
    NoCertificates,
    /// A bad certificate in a PEM bundle.
    #[error("certificate {number} of the bundle: {source}")]
    Certificate {
        /// Which one, from 0.
        number: usize,
        /// What is wrong with it.
        source: X509Error,
    },
}

/// One CA certificate of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Authority {
    /// The certificate, self-signed as a rule.
    pub certificate: Certificate,
    /// Whether SVIDs under it are to be replaced.
    pub tainted: bool,
}

impl X509Authority {
    /// An authority in good standing.
    #[must_use]
    pub const fn new(certificate: Certificate) -> Self {
        Self {
            certificate,
            tainted: false,
        }
    }

    /// The authority's ID: its subject key identifier, lower-case hex; empty for a foreign CA without one.
    #[must_use]
    pub fn authority_id(&self) -> String {
        self.certificate.subject_key_id_hex().unwrap_or_default()
    }
}

/// One JWT signing key of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthority {
    /// The key ID, `kid`; never empty.
    pub key_id: String,
    /// The public key: SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
    /// Until when it may sign, where known.
    pub expires_at: Option<SystemTime>,
    /// Whether SVIDs under it are to be replaced.
    pub tainted: bool,
}

/// A trust domain's bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Whose it is.
    pub trust_domain: TrustDomain,
    /// Its CA certificates.
    pub x509_authorities: Vec<X509Authority>,
    /// Its JWT signing keys.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// How often a consumer should ask for a newer one.
    pub refresh_hint: Option<Duration>,
    /// Grows with every change.
    pub sequence: u64,
}

impl Bundle {
    /// An empty bundle, which trusts nobody.
    #[must_use]
    pub const fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            refresh_hint: None,
            sequence: 0,
        }
    }

    /// Reads a SPIFFE bundle: a JWK set with `spiffe_sequence` and `spiffe_refresh_hint`. Keys of an unknown `kty` or
    /// `use` are skipped, as the standard wants (§4.1.3).
    ///
    /// # Errors
    /// When it is none, is larger than 1 MiB, or holds a broken key of a known kind.
    pub fn from_spiffe_json(trust_domain: &TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        spiffe::read(trust_domain, json)
    }

    /// Writes a SPIFFE bundle: equal bundles give equal bytes.
    #[must_use]
    pub fn to_spiffe_json(&self) -> String {
        spiffe::write(self)
    }

    /// The JWT keys alone as a JWK set, sorted by key ID: equal sets give equal bytes.
    #[must_use]
    pub fn to_jwks(&self) -> String {
        spiffe::write_jwks(self)
    }

    /// Reads CA certificates from PEM.
    ///
    /// # Errors
    /// When there is none, or one is broken.
    pub fn from_pem(trust_domain: &TrustDomain, pem: &str) -> Result<Self, BundleError> {
        let mut bundle = Self::empty(trust_domain.clone());
        for (number, der) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let der = der.map_err(|error| BundleError::Pem(error.to_string()))?;
            let certificate = Certificate::from_der(&der)
                .map_err(|source| BundleError::Certificate { number, source })?;
            bundle
                .x509_authorities
                .push(X509Authority::new(certificate));
        }
        if bundle.x509_authorities.is_empty() {
            return Err(BundleError::NoCertificates);
        }
        Ok(bundle)
    }

    /// The CA certificates as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.x509_authorities
            .iter()
            .map(|authority| authority.certificate.to_pem())
            .collect()
    }

    /// The CA certificates as one run of DER.
    #[must_use]
    pub fn x509_der(&self) -> Vec<u8> {
        self.x509_authorities
            .iter()
            .flat_map(|authority| authority.certificate.der())
            .copied()
            .collect()
    }

    /// The JWT key of this ID.
    #[must_use]
    pub fn jwt_authority(&self, key_id: &str) -> Option<&JwtAuthority> {
        self.jwt_authorities
            .iter()
            .find(|authority| authority.key_id == key_id)
    }
}

/// Bundles by trust domain. Never merges two domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleSet(BTreeMap<TrustDomain, Arc<Bundle>>);

impl BundleSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a bundle map: several trust domains' bundles in one document (§5). It says nothing of when to ask again.
    ///
    /// # Errors
    /// When it is none, names a trust domain twice, is larger than 16 MiB, or holds a broken bundle.
    pub fn from_spiffe_json(json: &[u8]) -> Result<Self, BundleError> {
        spiffe::read_map(json)
    }

    /// Writes a bundle map: equal sets give equal bytes.
    #[must_use]
    pub fn to_spiffe_json(&self) -> String {
        spiffe::write_map(self)
    }

    /// Puts a bundle in, in place of the domain's former one.
    pub fn insert(&mut self, bundle: Arc<Bundle>) {
        self.0.insert(bundle.trust_domain.clone(), bundle);
    }

    /// Takes a domain's bundle out.
    pub fn remove(&mut self, trust_domain: &TrustDomain) -> Option<Arc<Bundle>> {
        self.0.remove(trust_domain)
    }

    /// The bundle of a trust domain.
    #[must_use]
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.0.get(trust_domain)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.0.values()
    }
}

impl FromIterator<Arc<Bundle>> for BundleSet {
    fn from_iter<I: IntoIterator<Item = Arc<Bundle>>>(bundles: I) -> Self {
        Self(
            bundles
                .into_iter()
                .map(|bundle| (bundle.trust_domain.clone(), bundle))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests;
