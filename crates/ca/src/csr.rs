//! Certificate signing requests (PKCS#10, RFC 2986).
//!
//! [`parse`] hands out the public key alone, so that no name of a request can reach a certificate whose names come from
//! an entry. [`parse_named`] also reads the names, for the methods that mint whatever an administrator asks.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

use crate::public_key::{PublicKey, PublicKeyError, PublicKind};
use crate::subject::{Attribute, Subject};

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
    /// An algorithm not in use, or not the key's.
    #[error(
        "the CSR must be signed by ECDSA or RSA PKCS#1 v1.5, as its key is, with SHA-256, SHA-384 or SHA-512"
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
    check(&read(der)?)
}

/// As [`parse`], with the names that the request asks for.
///
/// # Errors
/// As [`parse`]; also when the names cannot be read.
pub fn parse_named(der: &[u8]) -> Result<NamedCsr, CsrError> {
    let request = read(der)?;
    let mut named = NamedCsr {
        public_key: check(&request)?,
        uris: Vec::new(),
        dns_names: Vec::new(),
        subject: subject(&request)?,
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => named.uris.push((*uri).to_owned()),
                        GeneralName::DNSName(name) => named.dns_names.push((*name).to_owned()),
                        _ => {}
                    }
                }
            }
            ParsedExtension::ParseError { .. } => return Err(CsrError::Names("extensions")),
            _ => {}
        }
    }
    Ok(named)
}

fn read(der: &[u8]) -> Result<X509CertificationRequest<'_>, CsrError> {
    if der.len() > MAX_CSR_LEN {
        return Err(CsrError::TooLarge(der.len()));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    let version = request.certification_request_info.version;
    if !rest.is_empty() || version != X509Version::V1 || request.signature_value.unused_bits != 0 {
        return Err(CsrError::Malformed);
    }
    Ok(request)
}

fn check(request: &X509CertificationRequest<'_>) -> Result<PublicKey, CsrError> {
    let info = &request.certification_request_info;
    let key = PublicKey::unproven(info.subject_pki.raw)?;
    let algorithm = request.signature_algorithm.algorithm.as_bytes();
    let algorithm = algorithm_of(key.kind(), algorithm).ok_or(CsrError::Algorithm)?;
    UnparsedPublicKey::new(algorithm, key.bits())
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| CsrError::Signature)?;
    Ok(key)
}

/// By the key's kind and the signature's object identifier: ecdsa-with-SHA* (RFC 5758 §3.2), sha*WithRSAEncryption
/// (RFC 8017 §A.2.4). SHA-1 and MD5 are not among them.
fn algorithm_of(kind: PublicKind, oid: &[u8]) -> Option<&'static dyn VerificationAlgorithm> {
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    let (last, family) = oid.split_last()?;
    Some(match (kind, family, last) {
        (PublicKind::P256, ECDSA, 2) => &ECDSA_P256_SHA256_ASN1,
        (PublicKind::P256, ECDSA, 3) => &ECDSA_P256_SHA384_ASN1,
        (PublicKind::P256, ECDSA, 4) => &ECDSA_P256_SHA512_ASN1,
        (PublicKind::P384, ECDSA, 2) => &ECDSA_P384_SHA256_ASN1,
        (PublicKind::P384, ECDSA, 3) => &ECDSA_P384_SHA384_ASN1,
        (PublicKind::P384, ECDSA, 4) => &ECDSA_P384_SHA512_ASN1,
        (PublicKind::Rsa, RSA, 11) => &RSA_PKCS1_2048_8192_SHA256,
        (PublicKind::Rsa, RSA, 12) => &RSA_PKCS1_2048_8192_SHA384,
        (PublicKind::Rsa, RSA, 13) => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

fn subject(request: &X509CertificationRequest<'_>) -> Result<Subject, CsrError> {
    let attributes = request.certification_request_info.subject.iter_attributes();
    attributes
        .filter_map(|attribute| {
            Some((
                Attribute::from_oid(attribute.attr_type().as_bytes())?,
                attribute,
            ))
        })
        .try_fold(Subject::empty(), |subject, (kind, attribute)| {
            let value = attribute.as_str().map_err(|_| CsrError::Names("subject"))?;
            Ok(subject.with(kind, value))
        })
}

#[cfg(test)]
mod tests;
