//! `x509pop`: the node holds the key of a certificate that a known CA issued.
//!
//! The agent sends its chain, the server a nonce; the agent adds one of its own and signs SHA-256 over both. All that is read
//! before the CA is known to vouch for it is bounded: the number of certificates, their size, the size of their keys.

mod chain;
mod proof;

use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Bundle, BundleSet, Certificate, Selector, SpiffeId, TrustDomain, verify_x509_svid};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::template::Template;
use super::{Attested, AttestorError};
use crate::config::{self, X509popMode};
use crate::rpc::RpcError;
use chain::{Leaf, Roots};
pub(super) use proof::Challenge;

pub(super) const NAME: &str = "x509pop";

/// The largest payload, in bytes: a few certificates with large keys.
const MAX_PAYLOAD_LEN: usize = 128 << 10;

/// What a template may name.
const FIELDS: &[&str] = &[
    "PluginName",
    "TrustDomain",
    "Fingerprint",
    "SerialNumberHex",
    "Subject.CommonName",
    "SVIDPathTrimmed",
    "URISanSelectors.",
];

/// The attestor, set up.
pub(super) struct X509pop {
    trust_domain: TrustDomain,
    trust: Trust,
    template: Template,
    max_intermediates: usize,
    max_rsa_key_size: usize,
}

/// Whose certificates are taken.
enum Trust {
    /// Those of these CAs.
    External(Roots),
    /// X.509-SVIDs of our own trust domain below this path, which ends in `/`.
    Own(String),
}

/// The agent's first message.
#[derive(Deserialize)]
struct Payload {
    certificates: Vec<String>,
}

impl X509pop {
    pub(super) fn build(
        config: &config::X509pop,
        trust_domain: &TrustDomain,
    ) -> Result<Self, AttestorError> {
        let (trust, default) = match &config.mode {
            X509popMode::ExternalPki => (
                Trust::External(read_roots(config)?),
                "/{{ .PluginName }}/{{ .Fingerprint }}",
            ),
            X509popMode::Spiffe { svid_prefix } => (
                Trust::Own(format!("{}/", svid_prefix.trim_end_matches('/'))),
                "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}",
            ),
        };
        let template = config.agent_path_template.as_deref().unwrap_or(default);
        if !template.starts_with('/') {
            return Err(AttestorError::Template(format!(
                "{template:?} does not start with `/`"
            )));
        }
        Ok(Self {
            trust_domain: trust_domain.clone(),
            trust,
            template: Template::parse(template, FIELDS).map_err(AttestorError::Template)?,
            max_intermediates: config.max_intermediates,
            max_rsa_key_size: config.max_rsa_key_size,
        })
    }

    /// Checks the agent's chain and makes the challenge for it. `bundle` is the server's own.
    ///
    /// # Errors
    /// When the payload is malformed, or the chain is not trusted.
    pub(super) fn challenge(
        &self,
        payload: &[u8],
        bundle: &Bundle,
        now: SystemTime,
    ) -> Result<(Vec<u8>, Challenge), RpcError> {
        let certificates = self.certificates(payload)?;
        let (leaf, intermediates) = certificates
            .split_first()
            .ok_or_else(|| malformed("no certificate to attest"))?;
        let (fingerprints, trimmed) = match &self.trust {
            Trust::External(roots) => (
                roots.verify(leaf, intermediates, now).map_err(denied)?,
                None,
            ),
            Trust::Own(prefix) => self.verify_svid(&certificates, prefix, bundle, now)?,
        };
        let leaf = Leaf::read(leaf, &self.trust_domain).map_err(malformed)?;
        let attested = self.attested(&leaf, &fingerprints, trimmed.as_deref())?;
        Challenge::make(leaf.key, attested)
    }

    fn certificates(&self, payload: &[u8]) -> Result<Vec<CertificateDer<'static>>, RpcError> {
        if payload.len() > MAX_PAYLOAD_LEN {
            return Err(malformed(format!("more than {MAX_PAYLOAD_LEN} bytes")));
        }
        let payload: Payload = serde_json::from_slice(payload)
            .map_err(|error| malformed(format!("failed to unmarshal data: {error}")))?;
        if payload.certificates.len() > self.max_intermediates + 1 {
            return Err(malformed(format!(
                "{} certificates; at most {} intermediates are taken",
                payload.certificates.len(),
                self.max_intermediates
            )));
        }
        let decode = |text: &String| {
            let der = STANDARD
                .decode(text)
                .map_err(|error| malformed(format!("certificate: {error}")))?;
            chain::check_key_size(&der, self.max_rsa_key_size).map_err(malformed)?;
            Ok(CertificateDer::from(der))
        };
        payload.certificates.iter().map(decode).collect()
    }

    /// In the mode `spiffe`: the fingerprints of the chain's intermediates, and the SVID's path below the prefix.
    fn verify_svid(
        &self,
        certificates: &[CertificateDer<'_>],
        prefix: &str,
        bundle: &Bundle,
        now: SystemTime,
    ) -> Result<(Vec<String>, Option<String>), RpcError> {
        let chain: Vec<Certificate> = certificates
            .iter()
            .map(|der| Certificate::from_der(der))
            .collect::<Result<_, _>>()
            .map_err(malformed)?;
        let bundles = BundleSet::from_iter([std::sync::Arc::new(bundle.clone())]);
        let id = verify_x509_svid(&chain, &bundles, now).map_err(denied)?;
        if !id.is_member_of(&self.trust_domain) {
            return Err(denied(format!("{id} is not of our trust domain")));
        }
        let trimmed = id
            .path()
            .strip_prefix(prefix)
            .ok_or_else(|| denied(format!("{id} is not below {prefix}")))?;
        let fingerprints = certificates[1..]
            .iter()
            .map(|der| fingerprint(der))
            .collect();
        Ok((fingerprints, Some(trimmed.to_owned())))
    }

    fn attested(
        &self,
        leaf: &Leaf,
        cas: &[String],
        trimmed: Option<&str>,
    ) -> Result<Attested, RpcError> {
        let value = |field: &str| match field {
            "PluginName" => Some(NAME.to_owned()),
            "TrustDomain" => Some(self.trust_domain.to_string()),
            "Fingerprint" => Some(leaf.fingerprint.clone()),
            "SerialNumberHex" => Some(leaf.serial_hex.clone()),
            // A name is one segment of the path: with a slash it could become another agent.
            "Subject.CommonName" => leaf.common_name.clone().filter(|name| !name.contains('/')),
            "SVIDPathTrimmed" => trimmed.map(str::to_owned),
            _ => leaf
                .sans
                .get(field.strip_prefix("URISanSelectors.")?)
                .cloned(),
        };
        let path = self.template.render(value).map_err(|field| {
            denied(format!(
                "the certificate gives no {field} for the agent's ID"
            ))
        })?;
        let id = SpiffeId::new(&self.trust_domain, &format!("/spire/agent{path}"))
            .map_err(|error| denied(format!("the agent's ID /spire/agent{path}: {error}")))?;
        let values = selector_values(leaf, cas);
        // What cannot be a selector, for a control character, is left out.
        let selectors = values
            .iter()
            .filter_map(|value| Selector::new(NAME, value).ok())
            .collect();
        Ok(Attested {
            id,
            selectors,
            can_reattest: true,
        })
    }
}

fn selector_values(leaf: &Leaf, cas: &[String]) -> Vec<String> {
    let mut values = vec![format!("serialnumber:{}", leaf.serial_hex)];
    values.extend(
        leaf.common_name
            .iter()
            .map(|name| format!("subject:cn:{name}")),
    );
    values.extend(cas.iter().map(|ca| format!("ca:fingerprint:{ca}")));
    let sans: &BTreeMap<_, _> = &leaf.sans;
    values.extend(sans.iter().map(|(key, value)| format!("san:{key}:{value}")));
    values
}

fn read_roots(config: &config::X509pop) -> Result<Roots, AttestorError> {
    let mut certificates = Vec::new();
    for path in &config.ca_bundle_paths {
        let bad = |reason: String| AttestorError::BadCa {
            path: path.clone(),
            reason,
        };
        let pem = fs::read(path).map_err(|source| AttestorError::ReadCa {
            path: path.clone(),
            source,
        })?;
        let before = certificates.len();
        for der in CertificateDer::pem_slice_iter(&pem) {
            certificates.push(der.map_err(|error| bad(error.to_string()))?);
        }
        if certificates.len() == before {
            return Err(bad("holds no PEM certificate".to_owned()));
        }
        Roots::new(&certificates[before..]).map_err(bad)?;
    }
    Ok(Roots::new(&certificates).unwrap_or_default())
}

/// SHA-1, as SPIRE's agent IDs and selectors have it: a name, no proof.
fn fingerprint(der: &[u8]) -> String {
    identity::hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref())
}

fn malformed(reason: impl std::fmt::Display) -> RpcError {
    RpcError::InvalidArgument(format!("nodeattestor({NAME}): malformed payload: {reason}"))
}

fn denied(reason: impl std::fmt::Display) -> RpcError {
    RpcError::PermissionDenied(format!(
        "nodeattestor({NAME}): certificate verification failed: {reason}"
    ))
}

#[cfg(test)]
mod tests;
