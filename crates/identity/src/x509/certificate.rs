//! One certificate, parsed once.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;

use super::{X509Error, pem};
use crate::hex;
use crate::id::{IdError, SpiffeId};

const PEM_LINE: usize = 64;

/// A URI among the names of a SAN extension (RFC 5280 §4.2.1.6).
const URI_TAG: Tag = Tag(6);

/// A certificate: its DER bytes and what Signet needs to know of it. Cheap to clone; equal when the bytes are.
#[derive(Clone)]
pub struct Certificate(Arc<Parsed>);

pub(super) struct Parsed {
    pub(super) der: Box<[u8]>,
    pub(super) uris: Vec<Result<SpiffeId, IdError>>,
    pub(super) dns_names: Vec<String>,
    pub(super) san_critical: bool,
    pub(super) subject_empty: bool,
    pub(super) serial: Vec<u8>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) subject_key_id: Option<Vec<u8>>,
    pub(super) authority_key_id: Option<Vec<u8>>,
    pub(super) spki: Box<[u8]>,
    pub(super) basic_constraints: Option<bool>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) ext_key_usage: Option<ExtKeyUsage>,
}

#[derive(Clone, Copy)]
pub(super) struct KeyUsage {
    pub(super) critical: bool,
    pub(super) digital_signature: bool,
    pub(super) key_cert_sign: bool,
    pub(super) crl_sign: bool,
}

#[derive(Clone, Copy)]
pub(super) struct ExtKeyUsage {
    pub(super) server: bool,
    pub(super) client: bool,
}

impl Certificate {
    /// Parses one certificate.
    ///
    /// # Errors
    /// When the bytes are not exactly one DER certificate, or it holds an extension twice.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let malformed = |error: &dyn fmt::Display| X509Error::Malformed(error.to_string());
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(X509Error::TrailingBytes(rest.len()));
        }
        if repeats(parsed.extensions()) {
            return Err(malformed(&"an extension stands twice"));
        }
        let mut out = Parsed {
            der: der.into(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            san_critical: false,
            subject_empty: parsed.subject().iter().next().is_none(),
            serial: parsed.raw_serial().to_vec(),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            subject_key_id: None,
            authority_key_id: None,
            spki: parsed.public_key().raw.into(),
            basic_constraints: None,
            key_usage: None,
            ext_key_usage: None,
        };
        for extension in parsed.extensions() {
            out.take(extension.parsed_extension(), extension.critical)?;
        }
        Ok(Self(Arc::new(out)))
    }

    /// Parses a run of DER certificates, as the Workload API carries them.
    ///
    /// # Errors
    /// As [`Certificate::from_der`], for each.
    pub fn chain_from_der(mut der: &[u8]) -> Result<Vec<Self>, X509Error> {
        let mut chain = Vec::new();
        while !der.is_empty() {
            let (rest, _) = X509Certificate::from_der(der)
                .map_err(|error| X509Error::Malformed(error.to_string()))?;
            let (one, next) = der.split_at(der.len() - rest.len());
            chain.push(Self::from_der(one)?);
            der = next;
        }
        Ok(chain)
    }

    /// The DER bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The certificate as one PEM block.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("CERTIFICATE", self.der(), PEM_LINE)
    }

    /// The SPIFFE ID, when there is exactly one URI SAN and it is one.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        match self.0.uris.as_slice() {
            [Ok(id)] => Some(id),
            _ => None,
        }
    }

    /// The DNS SANs.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.0.dns_names
    }

    /// The serial number, where it has at most 128 bits.
    #[must_use]
    pub fn serial(&self) -> Option<u128> {
        let zeros = self.0.serial.iter().take_while(|byte| **byte == 0).count();
        let significant = &self.0.serial[zeros..];
        let mut bytes = [0; size_of::<u128>()];
        let start = bytes.len().checked_sub(significant.len())?;
        bytes[start..].copy_from_slice(significant);
        Some(u128::from_be_bytes(bytes))
    }

    /// The serial number, decimal.
    #[must_use]
    pub fn serial_decimal(&self) -> String {
        decimal(&self.0.serial)
    }

    /// From when on it is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// Until when it is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The subject, in the order it stands. Read anew each time: few ask, and every certificate that is issued is parsed.
    #[must_use]
    pub fn subject(&self) -> String {
        X509Certificate::from_der(self.der()).map_or_else(
            |_| String::new(),
            |(_, parsed)| parsed.subject().to_string(),
        )
    }

    /// The subject key identifier, lower-case hex: an authority's ID.
    #[must_use]
    pub fn subject_key_id_hex(&self) -> Option<String> {
        self.0.subject_key_id.as_deref().map(hex)
    }

    /// The subject key identifier.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.0.subject_key_id.as_deref()
    }

    /// The authority key identifier: the subject key identifier of the issuer.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.0.authority_key_id.as_deref()
    }

    /// Whether BasicConstraints make it a CA.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.0.basic_constraints == Some(true)
    }

    /// The public key: SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.0.spki
    }

    pub(super) fn parsed(&self) -> &Parsed {
        &self.0
    }
}

impl Parsed {
    fn take(&mut self, extension: &ParsedExtension<'_>, critical: bool) -> Result<(), X509Error> {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                self.san_critical = critical;
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uris.push(SpiffeId::parse(uri)),
                        GeneralName::DNSName(dns) => self.dns_names.push((*dns).to_owned()),
                        // Left out, it would let a second URI stand beside the one that is read.
                        GeneralName::Invalid(URI_TAG, _) => {
                            let text = "a URI SAN is no text";
                            return Err(X509Error::Malformed(text.to_owned()));
                        }
                        _ => {}
                    }
                }
            }
            ParsedExtension::BasicConstraints(constraints) => {
                self.basic_constraints = Some(constraints.ca)
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage {
                    critical,
                    digital_signature: usage.digital_signature(),
                    key_cert_sign: usage.key_cert_sign(),
                    crl_sign: usage.crl_sign(),
                });
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.ext_key_usage = Some(ExtKeyUsage {
                    server: usage.server_auth,
                    client: usage.client_auth,
                });
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::ParseError { error } => {
                return Err(X509Error::Malformed(error.to_string()));
            }
            _ => {}
        }
        Ok(())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("uris", &self.0.uris)
            .field("subject", &self.subject())
            .field("serial", &self.serial_decimal())
            .finish_non_exhaustive()
    }
}

/// Whether an extension stands twice.
fn repeats(extensions: &[X509Extension<'_>]) -> bool {
    // A map is for those with many; to compare a few is faster.
    const FEW: usize = 16;
    if extensions.len() > FEW {
        let mut seen = HashSet::with_capacity(extensions.len());
        return !extensions.iter().all(|one| seen.insert(one.oid.as_bytes()));
    }
    let earlier = |at: usize| extensions.iter().take(at);
    extensions
        .iter()
        .enumerate()
        .any(|(at, one)| earlier(at).any(|other| other.oid == one.oid))
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

/// Big-endian bytes as a decimal number, by repeated division: serials have at most a few dozen digits.
fn decimal(bytes: &[u8]) -> String {
    let mut digits: Vec<u8> = vec![0];
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            let value = u32::from(*digit) * 256 + carry;
            *digit = u8::try_from(value % 10).unwrap_or(0);
            carry = value / 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).unwrap_or(0));
            carry /= 10;
        }
    }
    digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0' + digit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_in_decimal() {
        assert_eq!(decimal(&[]), "0");
        assert_eq!(decimal(&[0, 255]), "255");
        assert_eq!(decimal(&[1, 0]), "256");
        assert_eq!(decimal(&u128::MAX.to_be_bytes()), u128::MAX.to_string());
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(Certificate::from_der(b"").is_err());
        assert!(Certificate::from_der(&[0x30, 0x82, 0xff, 0xff]).is_err());
        assert_eq!(Certificate::chain_from_der(b""), Ok(Vec::new()));
        assert!(Certificate::chain_from_der(b"x").is_err());
    }
}
