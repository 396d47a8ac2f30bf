//! The SPIFFE bundle format: a JWK set (§4).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Bundle, BundleError, BundleSet, JwtAuthority, X509Authority};
use crate::id::TrustDomain;
use crate::x509::Certificate;
use crate::{json as strict, jwk};

/// The largest document read, in bytes.
const MAX_DOCUMENT_LEN: usize = 1 << 20;

/// The largest bundle map read, in bytes.
const MAX_MAP_LEN: usize = 16 << 20;

const REFRESH_HINT: &str = "spiffe_refresh_hint";

const X509_USE: &str = "x509-svid";
const JWT_USE: &str = "jwt-svid";

pub(super) fn read(trust_domain: &TrustDomain, bytes: &[u8]) -> Result<Bundle, BundleError> {
    if bytes.len() > MAX_DOCUMENT_LEN {
        return Err(BundleError::TooLarge(bytes.len(), MAX_DOCUMENT_LEN));
    }
    read_document(trust_domain, strict::parse(bytes)?)
}

/// Reads a bundle map (§5): a bundle for each trust domain. What a bundle in it says of refreshing counts for nothing.
pub(super) fn read_map(bytes: &[u8]) -> Result<BundleSet, BundleError> {
    if bytes.len() > MAX_MAP_LEN {
        return Err(BundleError::TooLarge(bytes.len(), MAX_MAP_LEN));
    }
    let mut map = strict::parse(bytes)?;
    let Some(Value::Object(domains)) = map.get_mut("trust_domains").map(Value::take) else {
        return Err(BundleError::Shape(
            "its member `trust_domains` is missing or not an object",
        ));
    };
    let mut bundles = BundleSet::new();
    for (name, mut document) in domains {
        let trust_domain =
            TrustDomain::new(&name).map_err(|source| BundleError::TrustDomain { name, source })?;
        if let Some(document) = document.as_object_mut() {
            document.remove(REFRESH_HINT);
        }
        bundles.insert(read_document(&trust_domain, document)?.into());
    }
    Ok(bundles)
}

/// Writes a bundle map.
pub(super) fn write_map(bundles: &BundleSet) -> String {
    let domains: Map<String, Value> = bundles
        .iter()
        .map(|bundle| {
            let mut document = document(bundle);
            document.remove(REFRESH_HINT);
            (bundle.trust_domain.to_string(), Value::Object(document))
        })
        .collect();
    json!({"trust_domains": domains}).to_string()
}

fn read_document(trust_domain: &TrustDomain, document: Value) -> Result<Bundle, BundleError> {
    let Value::Object(document) = document else {
        return Err(BundleError::Shape("it is not an object"));
    };
    let keys = document.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or(BundleError::Shape(
        "its member `keys` is missing or not an array",
    ))?;
    let mut bundle = Bundle::empty(trust_domain.clone());
    bundle.sequence = number(&document, "spiffe_sequence")?.unwrap_or(0);
    bundle.refresh_hint = number(&document, REFRESH_HINT)?
        .map(|seconds| {
            // What the other encodings of a bundle hold.
            let fits = i64::try_from(seconds).is_ok();
            fits.then_some(Duration::from_secs(seconds))
        })
        .map(|hint| {
            hint.ok_or(BundleError::Shape(
                "spiffe_refresh_hint is beyond 2^63 - 1 s",
            ))
        })
        .transpose()?;
    for (number, key) in keys.iter().enumerate() {
        let key = key
            .as_object()
            .ok_or(BundleError::Shape("one of its `keys` is not an object"))?;
        take(&mut bundle, key).map_err(|reason| BundleError::Key { number, reason })?;
    }
    Ok(bundle)
}

fn number(document: &Map<String, Value>, name: &str) -> Result<Option<u64>, BundleError> {
    let Some(value) = document.get(name) else {
        return Ok(None);
    };
    value.as_u64().map(Some).ok_or(BundleError::Shape(
        "spiffe_sequence and spiffe_refresh_hint are whole numbers from 0",
    ))
}

/// Adds one key; one that the standard tells a consumer to ignore adds nothing.
fn take(bundle: &mut Bundle, key: &Map<String, Value>) -> Result<(), String> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    if !matches!(text("kty"), Some("RSA" | "EC")) {
        return Ok(());
    }
    match text("use") {
        Some(X509_USE) => {
            // Missing or empty: ignored; of several values, the first (X509-SVID.md §6.2).
            let Some(first) = key
                .get("x5c")
                .and_then(Value::as_array)
                .and_then(|values| values.first())
            else {
                return Ok(());
            };
            let encoded = first
                .as_str()
                .ok_or("x5c holds something other than text")?;
            let der = STANDARD
                .decode(encoded)
                .map_err(|error| format!("x5c is not base64: {error}"))?;
            let certificate = Certificate::from_der(&der).map_err(|error| error.to_string())?;
            if !certificate.is_ca() {
                return Err("x5c holds a certificate that is no CA".to_owned());
            }
            check_key(key, &certificate)?;
            if bundle
                .x509_authorities
                .iter()
                .all(|known| known.certificate != certificate)
            {
                bundle
                    .x509_authorities
                    .push(X509Authority::new(certificate));
            }
        }
        Some(JWT_USE) => {
            let key_id = text("kid")
                .filter(|kid| !kid.is_empty())
                .ok_or("a jwt-svid key needs a `kid`")?;
            let public_key =
                jwk::from_jwk(key).ok_or("not a sound RSA (2048 to 4096 bits) or EC key")?;
            if bundle.jwt_authority(key_id).is_some() {
                return Err(format!("kid {key_id:?} stands twice"));
            }
            bundle.jwt_authorities.push(JwtAuthority {
                key_id: key_id.to_owned(),
                public_key,
                expires_at: None,
                tainted: false,
            });
        }
        _ => {}
    }
    Ok(())
}

/// The key of a JWK is that of its first certificate (RFC 7517 §4.7).
fn check_key(key: &Map<String, Value>, certificate: &Certificate) -> Result<(), String> {
    let certified = jwk::to_jwk(certificate.spki())
        .ok_or("the certificate in x5c has no sound RSA (2048 to 4096 bits) or EC key")?;
    let told = jwk::from_jwk(key).and_then(|spki| jwk::to_jwk(&spki));
    if told.as_ref() == Some(&certified) {
        return Ok(());
    }
    Err("its key is not the one of the certificate in x5c".to_owned())
}

pub(super) fn write(bundle: &Bundle) -> String {
    Value::Object(document(bundle)).to_string()
}

fn document(bundle: &Bundle) -> Map<String, Value> {
    let x509 = bundle.x509_authorities.iter().filter_map(|authority| {
        let mut key = jwk::to_jwk(authority.certificate.spki())?;
        key.insert("use".to_owned(), X509_USE.into());
        key.insert(
            "x5c".to_owned(),
            json!([STANDARD.encode(authority.certificate.der())]),
        );
        Some(Value::Object(key))
    });
    let mut document = Map::new();
    document.insert("keys".to_owned(), x509.chain(jwt_keys(bundle)).collect());
    document.insert("spiffe_sequence".to_owned(), bundle.sequence.into());
    if let Some(hint) = bundle.refresh_hint {
        document.insert(REFRESH_HINT.to_owned(), hint.as_secs().into());
    }
    document
}

pub(super) fn write_jwks(bundle: &Bundle) -> String {
    json!({"keys": jwt_keys(bundle).collect::<Vec<_>>()}).to_string()
}

fn jwt_keys(bundle: &Bundle) -> impl Iterator<Item = Value> {
    let mut authorities: Vec<&JwtAuthority> = bundle.jwt_authorities.iter().collect();
    authorities.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    authorities.into_iter().filter_map(|authority| {
        let mut key = jwk::to_jwk(&authority.public_key)?;
        key.insert("use".to_owned(), JWT_USE.into());
        key.insert("kid".to_owned(), authority.key_id.clone().into());
        Some(Value::Object(key))
    })
}
