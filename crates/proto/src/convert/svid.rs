//! X.509-SVIDs and JWT-SVIDs.

use bytes::Bytes;
use identity::{Bundle, Certificate, JwtSvid, PrivateKey, SpiffeId, X509Svid};
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Number};

use super::{Fault, FieldError, spiffe_id, wire_time};
use crate::spire::api::types;
use crate::workload;

/// An X.509-SVID as a server sends it: the chain alone, leaf first.
#[must_use]
pub fn wire_x509_svid(id: &SpiffeId, chain: &[Certificate], hint: &str) -> types::X509svid {
    types::X509svid {
        cert_chain: chain
            .iter()
            .map(|certificate| Bytes::copy_from_slice(certificate.der()))
            .collect(),
        id: Some(id.into()),
        expires_at: chain.first().map_or(0, |leaf| wire_time(leaf.not_after())),
        hint: hint.to_owned(),
    }
}

/// Reads the chain of an X.509-SVID, leaf first; never empty.
///
/// # Errors
/// When it is empty, or a certificate is none.
pub fn x509_chain(wire: &types::X509svid) -> Result<Vec<Certificate>, FieldError> {
    if wire.cert_chain.is_empty() {
        return Err(FieldError::missing("cert_chain"));
    }
    wire.cert_chain
        .iter()
        .enumerate()
        .map(|(number, der)| {
            Certificate::from_der(der)
                .map_err(|error| FieldError::new(format!("cert_chain[{number}]"), error))
        })
        .collect()
}

/// Joins an X.509-SVID from a server with the key it was asked for.
///
/// # Errors
/// When the chain breaks a rule of X509-SVID.md, is for another key, or for another ID than the message says.
pub fn x509_svid(wire: &types::X509svid, key: PrivateKey) -> Result<X509Svid, FieldError> {
    let said = spiffe_id("id", wire.id.as_ref())?;
    let svid = X509Svid::new(x509_chain(wire)?, key)
        .map_err(|error| FieldError::new("cert_chain", error))?;
    same("id", &said, svid.id())?;
    Ok(svid)
}

/// An X.509-SVID as the Workload API sends it: chain, key, and the bundle of its trust domain.
#[must_use]
pub fn workload_x509_svid(svid: &X509Svid, bundle: &Bundle, hint: &str) -> workload::X509svid {
    workload::X509svid {
        spiffe_id: svid.id().as_str().to_owned(),
        x509_svid: svid.chain_der().into(),
        x509_svid_key: Bytes::copy_from_slice(svid.key().as_pkcs8_der()),
        bundle: bundle.x509_der().into(),
        hint: hint.to_owned(),
    }
}

/// Reads a JWT-SVID from a server, without checking its signature: the server is the one that signs.
///
/// # Errors
/// When the token breaks a rule of JWT-SVID.md, or is for another ID than the message says.
pub fn jwt_svid(wire: &types::Jwtsvid) -> Result<JwtSvid, FieldError> {
    let said = spiffe_id("id", wire.id.as_ref())?;
    let svid =
        JwtSvid::parse_unverified(&wire.token).map_err(|error| FieldError::new("token", error))?;
    same("id", &said, &svid.id)?;
    Ok(svid)
}

impl From<&JwtSvid> for types::Jwtsvid {
    fn from(svid: &JwtSvid) -> Self {
        Self {
            token: svid.token().to_owned(),
            id: Some((&svid.id).into()),
            expires_at: wire_time(svid.expires_at),
            issued_at: svid.issued_at.map_or(0, wire_time),
            hint: String::new(),
        }
    }
}

/// A token's claims as ValidateJWTSVID sends them. Numbers become doubles, for which the wire has the only room.
#[must_use]
pub fn wire_claims(claims: &Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: claims
            .iter()
            .map(|(name, value)| (name.clone(), wire_value(value)))
            .collect(),
    }
}

/// Reads claims. A number without a fraction becomes an integer again.
#[must_use]
pub fn claims(wire: &Struct) -> Map<String, serde_json::Value> {
    wire.fields
        .iter()
        .map(|(name, value)| (name.clone(), json_value(value)))
        .collect()
}

fn wire_value(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(value) => Kind::StringValue(value.clone()),
        serde_json::Value::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(wire_value).collect(),
        }),
        serde_json::Value::Object(members) => Kind::StructValue(wire_claims(members)),
    };
    Value { kind: Some(kind) }
}

fn json_value(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(value)) => number(*value),
        Some(Kind::StringValue(value)) => value.as_str().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(json_value).collect(),
        Some(Kind::StructValue(members)) => claims(members).into(),
    }
}

/// The integers that a double holds exactly are integers; what JSON cannot say is null.
fn number(value: f64) -> serde_json::Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
        return (value as i64).into();
    }
    Number::from_f64(value).map_or(serde_json::Value::Null, Into::into)
}

fn same(field: &str, said: &SpiffeId, is: &SpiffeId) -> Result<(), FieldError> {
    if said == is {
        return Ok(());
    }
    let (said, is) = (said.to_string(), is.to_string());
    Err(FieldError::new(field, Fault::Mismatch { said, is }))
}
