//! X.509 authorities: a CA certificate, its key, and signing with it.

use std::fmt;
use std::time::{Duration, SystemTime};

use identity::{Certificate, KeyError, PrivateKey, SpiffeId, TrustDomain, X509Error};
use thiserror::Error;

use crate::lint::LintError;
use crate::public_key::PublicKey;
use crate::subject::Subject;

/// Clocks may lag this much behind ours: certificates are valid from `now` less this.
pub const BACKDATE: Duration = Duration::from_secs(10);

/// Why a certificate is not signed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum X509AuthorityError {
    /// The authority's certificate is unusable.
    #[error("the authority's certificate is unusable: {0}")]
    Certificate(#[from] X509Error),
    /// The certificate is no CA's.
    #[error("the authority's certificate is no CA certificate with a subject key identifier")]
    NotCa,
    /// Key and certificate do not fit.
    #[error("the authority's key does not belong to its certificate")]
    KeyMismatch,
    /// Past its end.
    #[error("the authority has expired")]
    Expired,
    /// The public key is the authority's own.
    #[error("the key to certify is the authority's own")]
    OwnKey,
    /// A TTL of zero or beyond the year 9999.
    #[error("a TTL of {0:?} gives no validity")]
    Ttl(Duration),
    /// A name that cannot be encoded.
    #[error("the certificate cannot be built: {0}")]
    Build(String),
    /// The linter's objection.
    #[error("refused before signing: {0}")]
    Lint(#[from] LintError),
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a self-signed CA certificate is made of.
#[derive(Clone, Debug)]
pub struct CaSpec<'a> {
    /// The trust domain, whose ID is the certificate's URI SAN.
    pub trust_domain: &'a TrustDomain,
    /// The subject; the serial number is added to it.
    pub subject: Subject,
    /// How long it is valid.
    pub ttl: Duration,
}

/// What a leaf is made of. Its names come from an entry, never from a request.
#[derive(Clone, Debug)]
pub struct LeafSpec<'a> {
    /// Whose it is.
    pub id: &'a SpiffeId,
    /// The key to certify.
    pub public_key: &'a PublicKey,
    /// DNS SANs; the first is also the common name.
    pub dns_names: &'a [String],
    /// How long it is valid; less when the authority expires before.
    pub ttl: Duration,
    /// The subject in place of `C=US, O=SPIRE`.
    pub subject: Option<&'a Subject>,
}

/// A signed leaf.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedX509 {
    /// The leaf, DER.
    pub der: Vec<u8>,
    /// Its serial number.
    pub serial: u128,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// A CA certificate with its key.
#[derive(Clone)]
pub struct X509Authority {
    certificate: Certificate,
    key: PrivateKey,
}

impl X509Authority {
    /// Joins a CA certificate and its key.
    ///
    /// # Errors
    /// When the certificate may not sign, or the key is another's.
    pub fn new(certificate: Certificate, key: PrivateKey) -> Result<Self, X509AuthorityError> {
        Ok(Self { certificate, key })
    }

    /// Makes a self-signed authority that is valid from `now` less 10 seconds until `now` and the TTL.
    ///
    /// # Errors
    /// When the subject cannot be encoded, or the key fails.
    pub fn self_signed(
        key: PrivateKey,
        spec: &CaSpec<'_>,
        now: SystemTime,
    ) -> Result<Self, X509AuthorityError> {
        let _ = (key, spec, now);
        todo!()
    }

    /// The CA certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The authority's ID: the subject key identifier in lower-case hex.
    #[must_use]
    pub fn authority_id(&self) -> &str {
        todo!()
    }

    /// Until when it may sign.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.certificate.not_after()
    }

    /// Signs a leaf, valid from `now` less 10 seconds until `now` and the TTL, or until the authority expires.
    ///
    /// # Errors
    /// When the leaf would break a rule; then nothing was signed. Or when the key fails.
    pub fn sign(
        &self,
        spec: &LeafSpec<'_>,
        now: SystemTime,
    ) -> Result<IssuedX509, X509AuthorityError> {
        let _ = (spec, now, &self.key);
        todo!()
    }
}

impl fmt::Debug for X509Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Authority")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl IssuedX509 {
    /// The serial number, decimal, as agents are known by it.
    #[must_use]
    pub fn serial_decimal(&self) -> String {
        self.serial.to_string()
    }
}

impl fmt::Debug for IssuedX509 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedX509")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}
