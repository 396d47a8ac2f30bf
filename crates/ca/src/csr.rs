//! Certificate signing requests (PKCS#10, RFC 2986).
//!
//! [`parse`] hands out the public key alone, so that no name of a request can reach a certificate whose names come from
//! an entry. [`parse_named`] also reads the names, for the methods that mint whatever an administrator asks.

use thiserror::Error;

use crate::public_key::{PublicKey, PublicKeyError};
use crate::subject::Subject;

/// The longest request read, in bytes.
pub const MAX_CSR_LEN: usize = 16 << 10;

/// Why a request is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CsrError {
    /// Too long.
    #[error("the CSR has {0} bytes; at most {MAX_CSR_LEN} are read")]
    TooLarge(usize),
    /// Not a request.
    #[error("not a DER PKCS#10 certificate signing request")]
    Malformed,
    /// The key is refused.
    #[error("the CSR's key is refused: {0}")]
    Key(#[from] PublicKeyError),
    /// An algorithm not in use.
    #[error(
        "the CSR's signature algorithm is none of ECDSA and RSA PKCS#1 with SHA-256, SHA-384 or SHA-512"
    )]
    Algorithm,
    /// The signature is another's.
    #[error("the CSR's signature does not fit its key")]
    Signature,
    /// Names that cannot be read.
    #[error("the CSR's {0} cannot be read")]
    Names(&'static str),
}

/// A request with the names it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCsr {
    /// The key to certify.
    pub public_key: PublicKey,
    /// The URI SANs.
    pub uris: Vec<String>,
    /// The DNS SANs.
    pub dns_names: Vec<String>,
    /// The subject, of which only the attributes in use are kept.
    pub subject: Subject,
}

/// Takes the public key out of a request, after checking the request's signature and the key's strength.
///
/// # Errors
/// When it is no request, is not signed by its own key, or the key is not of a kind in use.
pub fn parse(der: &[u8]) -> Result<PublicKey, CsrError> {
    let _ = der;
    todo!()
}

/// As [`parse`], with the names that the request asks for.
///
/// # Errors
/// As [`parse`]; also when the names cannot be read.
pub fn parse_named(der: &[u8]) -> Result<NamedCsr, CsrError> {
    let _ = der;
    todo!()
}
