//! X.509 certificates and X.509-SVIDs (X509-SVID.md).

mod certificate;
mod verify;

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

pub use certificate::Certificate;
pub use verify::{check_leaf, verify_x509_svid};

use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::key::PrivateKey;

/// Why a certificate or a chain is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum X509Error {
    /// Not DER.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// Bytes behind the certificate.
    #[error("{0} bytes follow the certificate")]
    TrailingBytes(usize),
    /// No certificates at all.
    #[error("the chain is empty")]
    EmptyChain,
    /// No URI SAN, or several (§2).
    #[error("the certificate holds {0} URI SANs; an X.509-SVID holds exactly one")]
    UriCount(usize),
    /// The URI is no SPIFFE ID.
    #[error("the URI SAN is no SPIFFE ID: {0}")]
    Id(#[from] IdError),
    /// A leaf's ID without a path (§3.1).
    #[error("the SPIFFE ID {0} has no path, as a leaf's must")]
    RootPath(SpiffeId),
    /// Empty subject and SAN not critical (§3.1).
    #[error("the subject is empty, so the SAN extension must be critical")]
    SanNotCritical,
    /// A CA certificate where a leaf is due (§5.2).
    #[error("a CA certificate cannot authenticate a peer")]
    LeafIsCa,
    /// No BasicConstraints on the leaf.
    #[error("the leaf has no BasicConstraints extension")]
    NoBasicConstraints,
    /// KeyUsage missing or not critical (§4.3).
    #[error("the certificate has no critical KeyUsage extension")]
    NoKeyUsage,
    /// digitalSignature missing on a leaf (§4.3).
    #[error("the leaf's KeyUsage lacks digitalSignature")]
    NoDigitalSignature,
    /// A leaf may sign certificates or CRLs (§4.3, §5.2).
    #[error("the leaf's KeyUsage holds keyCertSign or cRLSign")]
    LeafMaySign,
    /// Extended key usage incomplete (§4.4).
    #[error("the leaf's ExtKeyUsage must hold both serverAuth and clientAuth")]
    ExtKeyUsage,
    /// Key and certificate do not fit.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// No bundle for the leaf's trust domain.
    #[error("no bundle for the trust domain {0}")]
    NoBundle(TrustDomain),
    /// A bundle without usable X.509 authorities.
    #[error("the bundle of {0} has no valid X.509 authority")]
    NoAuthority(TrustDomain),
    /// A CA in the chain that may not sign.
    #[error("certificate {0} of the chain is no CA certificate that may sign")]
    Intermediate(usize),
    /// A CA of another trust domain in the chain (§3.2).
    #[error(
        "certificate {number} of the chain is a CA of {theirs}, which issues no identities of {ours}"
    )]
    ForeignIntermediate {
        /// Which one, from 1.
        number: usize,
        /// The CA's trust domain.
        theirs: TrustDomain,
        /// The leaf's.
        ours: TrustDomain,
    },
    /// Path validation failed (§5.1).
    #[error("the chain does not lead to an authority of {trust_domain}: {reason}")]
    Path {
        /// The leaf's trust domain.
        trust_domain: TrustDomain,
        /// What the path validation said.
        reason: String,
    },
    /// The time is before 1970.
    #[error("the clock is before 1970")]
    Clock,
}

/// An X.509-SVID: a chain whose leaf keeps the rules of a leaf, and the leaf's private key.
#[derive(Clone, PartialEq, Eq)]
pub struct X509Svid {
    id: SpiffeId,
    chain: Vec<Certificate>,
    key: PrivateKey,
}

impl X509Svid {
    /// Joins a chain, leaf first, and the leaf's key.
    ///
    /// # Errors
    /// When the leaf breaks a rule of X509-SVID.md, or the key is another's.
    pub fn new(chain: Vec<Certificate>, key: PrivateKey) -> Result<Self, X509Error> {
        let leaf = chain.first().ok_or(X509Error::EmptyChain)?;
        let id = check_leaf(leaf)?.clone();
        if leaf.spki() != key.public_key_spki() {
            return Err(X509Error::KeyMismatch);
        }
        Ok(Self { id, chain, key })
    }

    /// The identity.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The chain, leaf first, without the root; never empty.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The leaf.
    #[must_use]
    pub fn leaf(&self) -> &Certificate {
        &self.chain[0]
    }

    /// The leaf's key.
    #[must_use]
    pub const fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// From when on it is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.leaf().not_before()
    }

    /// Until when it is valid: the leaf's NotAfter.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.leaf().not_after()
    }

    /// The chain as one run of DER certificates, leaf first.
    #[must_use]
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain
            .iter()
            .flat_map(|certificate| certificate.der())
            .copied()
            .collect()
    }

    /// The chain as PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(Certificate::to_pem).collect()
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", &self.id)
            .field("serial", &self.leaf().serial_decimal())
            .finish_non_exhaustive()
    }
}

/// One PEM block with lines of `width` characters.
pub(crate) fn pem(label: &str, der: &[u8], width: usize) -> String {
    let encoded = STANDARD.encode(der);
    let mut out = String::with_capacity(encoded.len() + encoded.len() / width + 64);
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(width.min(rest.len()));
        out.push_str(line);
        out.push('\n');
        rest = next;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

#[cfg(test)]
mod tests;
