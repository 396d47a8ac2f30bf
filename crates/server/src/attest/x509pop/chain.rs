//! Certificates of an external PKI: no SPIFFE rules, but a path to a known CA.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use identity::TrustDomain;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    anchor_from_trusted_cert,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use super::fingerprint;
use crate::attest::x509pop::proof::Key;

/// The CAs, each with its fingerprint.
#[derive(Default)]
pub(super) struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    fingerprints: Vec<String>,
}

impl Roots {
    pub(super) fn new(certificates: &[CertificateDer<'_>]) -> Result<Self, String> {
        let mut roots = Self::default();
        for der in certificates {
            let anchor = anchor_from_trusted_cert(der)
                .map_err(|error| format!("a CA certificate: {error}"))?;
            roots.anchors.push(anchor.to_owned());
            roots.fingerprints.push(fingerprint(der));
        }
        Ok(roots)
    }

    /// Finds a path to a CA; tells the fingerprints of the certificates on it, without the leaf.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Vec<String>, String> {
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let path = leaf
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                intermediates,
                now,
                AnyUsage,
                None,
                None,
            )
            .map_err(|error| error.to_string())?;
        let mut fingerprints: Vec<String> = path
            .intermediate_certificates()
            .map(|certificate| fingerprint(&certificate.der()))
            .collect();
        let anchors = self.anchors.iter().zip(&self.fingerprints);
        let used = anchors.filter(|(anchor, _)| *anchor == path.anchor());
        fingerprints.extend(used.map(|(_, fingerprint)| fingerprint.clone()));
        Ok(fingerprints)
    }
}

/// The certificate was issued for some purpose; holding its key is all that counts.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// What counts of the agent's own certificate.
pub(super) struct Leaf {
    pub(super) key: Key,
    pub(super) fingerprint: String,
    pub(super) serial_hex: String,
    pub(super) common_name: Option<String>,
    /// What URI SANs of the form `x509pop://<trust domain>/<key>/<value>` say.
    pub(super) sans: BTreeMap<String, String>,
}

impl Leaf {
    pub(super) fn read(
        der: &CertificateDer<'_>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let usage = certificate.key_usage().map_err(|error| error.to_string())?;
        if !usage.is_some_and(|usage| usage.value.digital_signature()) {
            return Err("the certificate is not intended for digital signature use".to_owned());
        }
        let serial = certificate.raw_serial();
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        let names = certificate.subject().iter_common_name();
        let common_name = names.last().and_then(|name| name.as_str().ok());
        Ok(Self {
            key: Key::read(certificate.public_key())?,
            fingerprint: fingerprint(der),
            serial_hex: identity::hex(&serial[zeros..]),
            common_name: common_name
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            sans: sans(&certificate, trust_domain)?,
        })
    }
}

fn sans(
    certificate: &X509Certificate<'_>,
    trust_domain: &TrustDomain,
) -> Result<BTreeMap<String, String>, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names = names
        .into_iter()
        .flat_map(|names| &names.value.general_names);
    let prefix = format!("x509pop://{trust_domain}/");
    let pairs = names.filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(&prefix)?.split_once('/'),
        _ => None,
    });
    Ok(pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// Refuses a certificate with a dear key before anybody reckons with it.
pub(super) fn check_key_size(der: &[u8], max_rsa_bits: usize) -> Result<(), String> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("bytes after the certificate".to_owned());
    }
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() > max_rsa_bits => Err(format!(
            "an RSA key of {} bits; at most {max_rsa_bits} are taken",
            key.key_size()
        )),
        Ok(PublicKey::RSA(_) | PublicKey::EC(_)) => Ok(()),
        _ => Err("the certificate's key is neither RSA nor ECDSA".to_owned()),
    }
}
