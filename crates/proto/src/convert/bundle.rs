//! Bundles and their authorities.

use std::time::Duration;

use bytes::Bytes;
use identity::{Bundle, Certificate, JwtAuthority, X509Authority};

use super::{Fault, FieldError, time, trust_domain, wire_time};
use crate::spire::api::types;

/// Reads a bundle. WIT keys are passed over.
///
/// # Errors
/// When a field is wrong.
pub fn bundle(wire: &types::Bundle) -> Result<Bundle, FieldError> {
    let refresh_hint = match u64::try_from(wire.refresh_hint) {
        Ok(0) => None,
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            return Err(FieldError::new(
                "refresh_hint",
                Fault::Time(wire.refresh_hint),
            ));
        }
    };
    Ok(Bundle {
        trust_domain: trust_domain("trust_domain", &wire.trust_domain)?,
        x509_authorities: x509_authorities("x509_authorities", &wire.x509_authorities)?,
        jwt_authorities: jwt_authorities("jwt_authorities", &wire.jwt_authorities)?,
        refresh_hint,
        sequence: wire.sequence_number,
    })
}

/// Reads CA certificates; one wire message may hold several in a row.
///
/// # Errors
/// The first that is none.
pub fn x509_authorities(
    field: &str,
    wire: &[types::X509Certificate],
) -> Result<Vec<X509Authority>, FieldError> {
    let mut authorities = Vec::with_capacity(wire.len());
    for (number, one) in wire.iter().enumerate() {
        let field = || format!("{field}[{number}].asn1");
        let run = Certificate::chain_from_der(&one.asn1)
            .map_err(|error| FieldError::new(field(), error))?;
        if run.is_empty() {
            return Err(FieldError::new(field(), Fault::Missing));
        }
        authorities.extend(run.into_iter().map(|certificate| X509Authority {
            certificate,
            tainted: one.tainted,
        }));
    }
    Ok(authorities)
}

/// Reads JWT keys.
///
/// # Errors
/// The first that is none.
pub fn jwt_authorities(
    field: &str,
    wire: &[types::JwtKey],
) -> Result<Vec<JwtAuthority>, FieldError> {
    wire.iter()
        .enumerate()
        .map(|(number, key)| {
            jwt_authority(key).map_err(|error| error.within(format_args!("{field}[{number}]")))
        })
        .collect()
}

/// Reads one JWT key.
///
/// # Errors
/// When its ID or the key is missing, or its time is none.
pub fn jwt_authority(wire: &types::JwtKey) -> Result<JwtAuthority, FieldError> {
    if wire.key_id.is_empty() {
        return Err(FieldError::missing("key_id"));
    }
    if wire.public_key.is_empty() {
        return Err(FieldError::missing("public_key"));
    }
    Ok(JwtAuthority {
        key_id: wire.key_id.clone(),
        public_key: wire.public_key.to_vec(),
        expires_at: time("expires_at", wire.expires_at)?,
        tainted: wire.tainted,
    })
}

impl From<&Bundle> for types::Bundle {
    fn from(bundle: &Bundle) -> Self {
        let hint = bundle.refresh_hint.unwrap_or_default();
        Self {
            trust_domain: bundle.trust_domain.as_str().to_owned(),
            x509_authorities: bundle.x509_authorities.iter().map(Into::into).collect(),
            jwt_authorities: bundle.jwt_authorities.iter().map(Into::into).collect(),
            refresh_hint: i64::try_from(hint.as_secs()).unwrap_or(i64::MAX),
            sequence_number: bundle.sequence,
            wit_authorities: Vec::new(),
        }
    }
}

impl From<&X509Authority> for types::X509Certificate {
    fn from(authority: &X509Authority) -> Self {
        Self {
            asn1: Bytes::copy_from_slice(authority.certificate.der()),
            tainted: authority.tainted,
        }
    }
}

impl From<&JwtAuthority> for types::JwtKey {
    fn from(authority: &JwtAuthority) -> Self {
        Self {
            public_key: Bytes::copy_from_slice(&authority.public_key),
            key_id: authority.key_id.clone(),
            expires_at: authority.expires_at.map_or(0, wire_time),
            tainted: authority.tainted,
        }
    }
}
