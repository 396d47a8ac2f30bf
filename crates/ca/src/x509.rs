//! X.509 authorities: a CA certificate, its key, and signing with it.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use identity::{
    Certificate, EntryError, KeyError, PrivateKey, SpiffeId, TrustDomain, X509Error, check_dns_name,
};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::certificate::{Fields, Usage, close};
use crate::der::Der;
use crate::lint::{LintError, Linter};
use crate::public_key::{PublicKey, PublicKeyError};
use crate::subject::{Attribute, Subject};

/// Other clocks may lag this much behind ours: certificates are valid from `now` less this.
pub const BACKDATE: Duration = Duration::from_secs(10);

/// The end of the year 9999, in seconds: no certificate can be valid longer.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

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
    /// The authority's own key is of a kind not in use.
    #[error("the authority's key: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// Past its end.
    #[error("the authority has expired")]
    Expired,
    /// Before its beginning.
    #[error("the authority is not valid yet; is the clock right?")]
    NotYet,
    /// The public key is the authority's own.
    #[error("the key to certify is the authority's own")]
    OwnKey,
    /// A TTL that gives no validity.
    #[error("a TTL of {0:?} gives no validity; use at least one second")]
    Ttl(Duration),
    /// A time outside of what a certificate can hold.
    #[error("the validity does not lie between the years 1970 and 9999")]
    Time,
    /// A name that is none.
    #[error(transparent)]
    DnsName(#[from] EntryError),
    /// The system has no randomness.
    #[error("the system gave no random bytes")]
    Random,
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
    /// The subject; the serial number is added to it, which keeps the subjects of two CAs apart.
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
    /// DNS SANs; the first is also the common name, unless it is too long for one.
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
    /// From when on it is valid, in whole seconds.
    pub not_before: SystemTime,
    /// Until when it is valid, in whole seconds.
    pub not_after: SystemTime,
}

/// A CA certificate with its key.
#[derive(Clone)]
pub struct X509Authority {
    certificate: Certificate,
    key: PrivateKey,
    /// The certificate's subject, DER: the issuer of whatever is signed.
    name: Vec<u8>,
    key_id: Vec<u8>,
    authority_id: String,
    linter: Linter,
}

impl X509Authority {
    /// Joins a CA certificate and its key.
    ///
    /// # Errors
    /// When the certificate may not sign, or the key is another's.
    pub fn new(certificate: Certificate, key: PrivateKey) -> Result<Self, X509AuthorityError> {
        if certificate.spki() != key.public_key_spki() {
            return Err(X509AuthorityError::KeyMismatch);
        }
        let (Some(key_id), Some(authority_id), true) = (
            certificate.subject_key_id(),
            certificate.subject_key_id_hex(),
            certificate.is_ca(),
        ) else {
            return Err(X509AuthorityError::NotCa);
        };
        let (_, parsed) = X509Certificate::from_der(certificate.der())
            .map_err(|error| X509Error::Malformed(error.to_string()))?;
        Ok(Self {
            name: parsed.subject().as_raw().to_vec(),
            key_id: key_id.to_vec(),
            authority_id,
            linter: Linter::new()?,
            key,
            certificate,
        })
    }

    /// Makes a self-signed authority that is valid from `now` less 10 seconds until `now` and the TTL.
    ///
    /// # Errors
    /// When the validity is none, or the key fails.
    pub fn self_signed(
        key: PrivateKey,
        spec: &CaSpec<'_>,
        now: SystemTime,
    ) -> Result<Self, X509AuthorityError> {
        let (not_before, not_after) = validity(now, spec.ttl, None)?;
        let serial = random_serial()?;
        let public_key = PublicKey::from_spki(key.public_key_spki())?;
        let subject = spec.subject.clone();
        let name = name(&subject.with(Attribute::SerialNumber, serial.to_string()));
        let uri = spec.trust_domain.id();
        let fields = Fields {
            serial,
            signer: key.key_type(),
            issuer: &name,
            issuer_key_id: public_key.key_id(),
            not_before,
            not_after,
            subject: &name,
            public_key: &public_key,
            usage: Usage::Ca,
            dns_names: &[],
            uri: uri.as_str(),
        };
        let to_be_signed = fields.to_be_signed();
        Linter::new()?.ca(&to_be_signed, &fields)?;
        let der = close(&to_be_signed, fields.signer, &key.sign(&to_be_signed)?);
        Self::new(Certificate::from_der(&der)?, key)
    }

    /// The CA certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The authority's ID: the subject key identifier in lower-case hex.
    #[must_use]
    pub fn authority_id(&self) -> &str {
        &self.authority_id
    }

    /// Until when it may sign.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.certificate.not_after()
    }

    /// Signs a leaf, valid from `now` less 10 seconds, but not before the authority, until `now` and the TTL, or until the authority expires.
    ///
    /// # Errors
    /// When the leaf would break a rule; then nothing was signed. Or when the key fails.
    pub fn sign(
        &self,
        spec: &LeafSpec<'_>,
        now: SystemTime,
    ) -> Result<IssuedX509, X509AuthorityError> {
        if spec.public_key.spki() == self.key.public_key_spki() {
            return Err(X509AuthorityError::OwnKey);
        }
        for name in spec.dns_names {
            check_dns_name(name)?;
        }
        let (not_before, not_after) = validity(now, spec.ttl, Some(self.not_after()))?;
        // The authority may be younger than a leaf is backdated, or the clock was set back.
        let not_before = not_before.max(self.certificate.not_before());
        if not_before >= not_after {
            return Err(X509AuthorityError::NotYet);
        }
        let fields = Fields {
            serial: random_serial()?,
            signer: self.key.key_type(),
            issuer: &self.name,
            issuer_key_id: &self.key_id,
            not_before,
            not_after,
            subject: &leaf_name(spec),
            public_key: spec.public_key,
            usage: Usage::Leaf,
            dns_names: spec.dns_names,
            uri: spec.id.as_str(),
        };
        let to_be_signed = fields.to_be_signed();
        self.linter.leaf(&to_be_signed, &fields, self.not_after())?;
        let signature = self.key.sign(&to_be_signed)?;
        Ok(IssuedX509 {
            der: close(&to_be_signed, fields.signer, &signature),
            serial: fields.serial,
            not_before,
            not_after,
        })
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
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// From `now` less [`BACKDATE`] until `now` and `ttl` or until `end`, in whole seconds.
fn validity(
    now: SystemTime,
    ttl: Duration,
    end: Option<SystemTime>,
) -> Result<(SystemTime, SystemTime), X509AuthorityError> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| X509AuthorityError::Time)?;
    let end = end.map_or(Ok(LAST_SECOND), |end| {
        end.duration_since(UNIX_EPOCH)
            .map_err(|_| X509AuthorityError::Time)
    })?;
    if ttl < Duration::from_secs(1) {
        return Err(X509AuthorityError::Ttl(ttl));
    }
    if now >= end {
        return Err(X509AuthorityError::Expired);
    }
    let second = |time: Duration| UNIX_EPOCH + Duration::from_secs(time.as_secs());
    let not_after = now.checked_add(ttl).map_or(end, |time| time.min(end));
    Ok((
        second(now.saturating_sub(BACKDATE)),
        second(not_after.min(LAST_SECOND)),
    ))
}

/// From 1 to 2^128 - 1.
fn random_serial() -> Result<u128, X509AuthorityError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| X509AuthorityError::Random)?;
    Ok(u128::from_be_bytes(bytes).max(1))
}

fn leaf_name(spec: &LeafSpec<'_>) -> Cow<'static, [u8]> {
    /// [`Subject::leaf`], which most leaves have.
    static LEAF: LazyLock<Vec<u8>> = LazyLock::new(|| name(&Subject::leaf()));
    match (spec.subject, spec.dns_names.first()) {
        (Some(subject), _) => name(subject).into(),
        (None, Some(first)) => name(&Subject::leaf().with(Attribute::CommonName, first)).into(),
        (None, None) => LEAF.as_slice().into(),
    }
}

fn name(subject: &Subject) -> Vec<u8> {
    let mut der = Der::default();
    subject.write(&mut der);
    der.into_bytes()
}

#[cfg(test)]
mod tests;
