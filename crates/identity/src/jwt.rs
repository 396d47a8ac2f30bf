//! JWT-SVIDs (JWT-SVID.md): read and validated. Minting is `ca`'s.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::bundle::BundleSet;
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::json;
use crate::jwk::{PublicKind, public_kind, raw_public_key};

/// How far two clocks may differ: a token counts as valid this long after `exp` and before `nbf` or `iat`.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// The longest token read, in bytes.
const MAX_TOKEN_LEN: usize = 64 << 10;

const MAX_KEY_ID_LEN: usize = 1024;

/// The latest time a claim may name, in seconds: the year 9999, as X.509 has it.
const MAX_TIME: u64 = 253_402_300_799;

/// Why a token is refused. No variant holds a part of the token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtError {
    /// Not a compact JWS.
    #[error("the token is no JWT: expected three base64url parts parted by dots")]
    Malformed,
    /// Too long.
    #[error("the token is longer than {MAX_TOKEN_LEN} bytes")]
    TooLong,
    /// A header member beside alg, kid and typ.
    #[error("the token's header may hold only alg, kid and typ")]
    Header,
    /// An algorithm outside the standard.
    #[error(
        "the token's alg is none of RS256, RS384, RS512, ES256, ES384, ES512, PS256, PS384, PS512"
    )]
    Algorithm,
    /// A wrong type.
    #[error("the token's typ is neither JWT nor JOSE")]
    Type,
    /// No key ID.
    #[error("the token's kid is missing")]
    KeyId,
    /// No SPIFFE ID.
    #[error("the token's sub is no SPIFFE ID: {0}")]
    Subject(#[from] IdError),
    /// Sub missing or a trust domain's ID.
    #[error("the token's sub is missing or has no path")]
    NoSubject,
    /// No audience.
    #[error("the token's aud is missing, empty or no text")]
    NoAudience,
    /// Another audience.
    #[error("the token is for another audience, not {0:?}")]
    Audience(String),
    /// No expiry.
    #[error("the token's exp is missing or no time")]
    NoExpiry,
    /// A time claim that is none.
    #[error("the token's {0} is no time")]
    Time(&'static str),
    /// Expired.
    #[error("the token has expired")]
    Expired,
    /// Not valid yet.
    #[error("the token is not valid yet")]
    NotYet,
    /// No bundle.
    #[error("no bundle for the trust domain {0}")]
    NoBundle(TrustDomain),
    /// A key that is not in the bundle.
    #[error("the bundle of {0} has no JWT key of the token's kid")]
    UnknownKey(TrustDomain),
    /// A key of another kind than alg says.
    #[error("the token's alg does not fit its key")]
    KeyKind,
    /// A wrong signature.
    #[error("the token's signature is wrong")]
    Signature,
}

/// A JWT-SVID.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSvid {
    /// Whose it is: `sub`.
    pub id: SpiffeId,
    /// For whom it is: `aud`; never empty.
    pub audience: Vec<String>,
    /// Until when it is valid: `exp`.
    pub expires_at: SystemTime,
    /// When it was made: `iat`, where it says so.
    pub issued_at: Option<SystemTime>,
    /// The authority that signed it: `kid`.
    pub key_id: String,
    /// All claims.
    pub claims: Map<String, Value>,
    token: Zeroizing<String>,
}

impl JwtSvid {
    /// The token itself, a secret.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Reads a token without checking signature, audience or time. For tokens from a trusted source only.
    ///
    /// # Errors
    /// When its form breaks a rule of JWT-SVID.md.
    pub fn parse_unverified(token: &str) -> Result<Self, JwtError> {
        Ok(Parts::split(token)?.svid)
    }

    /// Validates a token for `audience` (JWT-SVID.md §4): by a JWT key of the bundle of the subject's trust domain.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn verify(
        token: &str,
        audience: &str,
        bundles: &BundleSet,
        now: SystemTime,
    ) -> Result<Self, JwtError> {
        let Parts {
            svid,
            algorithm,
            signed,
            signature,
            not_before,
        } = Parts::split(token)?;
        let trust_domain = svid.id.trust_domain();
        let bundle = bundles
            .get(trust_domain)
            .ok_or_else(|| JwtError::NoBundle(trust_domain.clone()))?;
        let unknown = || JwtError::UnknownKey(trust_domain.clone());
        let key = &bundle
            .jwt_authority(&svid.key_id)
            .ok_or_else(unknown)?
            .public_key;
        if public_kind(key) != Some(algorithm.kind) {
            return Err(JwtError::KeyKind);
        }
        let raw = raw_public_key(key).ok_or(JwtError::KeyKind)?;
        UnparsedPublicKey::new(algorithm.check, raw)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| JwtError::Signature)?;
        if !svid.audience.iter().any(|one| one == audience) {
            return Err(JwtError::Audience(audience.to_owned()));
        }
        if now >= svid.expires_at + LEEWAY {
            return Err(JwtError::Expired);
        }
        let early = |time: Option<SystemTime>| time.is_some_and(|time| time > now + LEEWAY);
        if early(not_before) || early(svid.issued_at) {
            return Err(JwtError::NotYet);
        }
        Ok(svid)
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("id", &self.id)
            .field("audience", &self.audience)
            .field("expires_at", &self.expires_at)
            .field("token", &"<redacted>")
            .finish_non_exhaustive()
    }
}

struct Parts<'a> {
    svid: JwtSvid,
    algorithm: &'static Algorithm,
    signed: &'a str,
    signature: Vec<u8>,
    not_before: Option<SystemTime>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(JwtError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let (algorithm, key_id) = read_header(&object(header)?)?;
        let claims = object(payload)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| JwtError::Malformed)?;
        let not_before = time(&claims, "nbf")?;
        let svid = read_claims(claims, key_id, token)?;
        Ok(Self {
            svid,
            algorithm,
            signed,
            signature,
            not_before,
        })
    }
}

fn object(part: &str) -> Result<Map<String, Value>, JwtError> {
    // A fourth part shows as a dot in the second, which base64url refuses.
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwtError::Malformed)?;
    match json::parse(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(JwtError::Malformed),
    }
}

fn read_header(header: &Map<String, Value>) -> Result<(&'static Algorithm, String), JwtError> {
    if header
        .keys()
        .any(|name| !matches!(name.as_str(), "alg" | "kid" | "typ"))
    {
        return Err(JwtError::Header);
    }
    let name = header
        .get("alg")
        .and_then(Value::as_str)
        .ok_or(JwtError::Algorithm)?;
    let algorithm = ALGORITHMS
        .iter()
        .find(|algorithm| algorithm.name == name)
        .ok_or(JwtError::Algorithm)?;
    if header
        .get("typ")
        .is_some_and(|typ| !matches!(typ.as_str(), Some("JWT" | "JOSE")))
    {
        return Err(JwtError::Type);
    }
    let key_id = header
        .get("kid")
        .and_then(Value::as_str)
        .ok_or(JwtError::KeyId)?;
    if key_id.is_empty() || key_id.len() > MAX_KEY_ID_LEN {
        return Err(JwtError::KeyId);
    }
    Ok((algorithm, key_id.to_owned()))
}

fn read_claims(
    claims: Map<String, Value>,
    key_id: String,
    token: &str,
) -> Result<JwtSvid, JwtError> {
    let subject = claims
        .get("sub")
        .and_then(Value::as_str)
        .ok_or(JwtError::NoSubject)?;
    let id = SpiffeId::parse(subject)?;
    if id.path().is_empty() {
        return Err(JwtError::NoSubject);
    }
    let audience = audience(claims.get("aud")).ok_or(JwtError::NoAudience)?;
    let expires_at = time(&claims, "exp")
        .map_err(|_| JwtError::NoExpiry)?
        .ok_or(JwtError::NoExpiry)?;
    let issued_at = time(&claims, "iat")?;
    let token = Zeroizing::new(token.to_owned());
    Ok(JwtSvid {
        id,
        audience,
        expires_at,
        issued_at,
        key_id,
        claims,
        token,
    })
}

fn audience(claim: Option<&Value>) -> Option<Vec<String>> {
    let values = match claim? {
        Value::String(one) => vec![one.clone()],
        Value::Array(several) => several
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()?,
        _ => return None,
    };
    (!values.is_empty() && values.iter().all(|one| !one.is_empty())).then_some(values)
}

/// A NumericDate (RFC 7519 §2); fractions of seconds are cut off.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, JwtError> {
    let Some(claim) = claims.get(name) else {
        return Ok(None);
    };
    let whole = |seconds: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded just before"
        )]
        let seconds = (0.0..=MAX_TIME as f64)
            .contains(&seconds)
            .then_some(seconds as u64);
        seconds
    };
    let seconds = claim
        .as_u64()
        .or_else(|| claim.as_f64().and_then(whole))
        .filter(|seconds| *seconds <= MAX_TIME);
    let seconds = seconds.ok_or(JwtError::Time(name))?;
    Ok(Some(UNIX_EPOCH + Duration::from_secs(seconds)))
}

struct Algorithm {
    name: &'static str,
    kind: PublicKind,
    check: &'static dyn VerificationAlgorithm,
}

/// The algorithms of JWT-SVID.md §2.1, each with the kind of key it goes with.
static ALGORITHMS: [Algorithm; 9] = [
    Algorithm {
        name: "ES256",
        kind: PublicKind::P256,
        check: &ECDSA_P256_SHA256_FIXED,
    },
    Algorithm {
        name: "ES384",
        kind: PublicKind::P384,
        check: &ECDSA_P384_SHA384_FIXED,
    },
    Algorithm {
        name: "ES512",
        kind: PublicKind::P521,
        check: &ECDSA_P521_SHA512_FIXED,
    },
    Algorithm {
        name: "RS256",
        kind: PublicKind::Rsa,
        check: &RSA_PKCS1_2048_8192_SHA256,
    },
    Algorithm {
        name: "RS384",
        kind: PublicKind::Rsa,
        check: &RSA_PKCS1_2048_8192_SHA384,
    },
    Algorithm {
        name: "RS512",
        kind: PublicKind::Rsa,
        check: &RSA_PKCS1_2048_8192_SHA512,
    },
    Algorithm {
        name: "PS256",
        kind: PublicKind::Rsa,
        check: &RSA_PSS_2048_8192_SHA256,
    },
    Algorithm {
        name: "PS384",
        kind: PublicKind::Rsa,
        check: &RSA_PSS_2048_8192_SHA384,
    },
    Algorithm {
        name: "PS512",
        kind: PublicKind::Rsa,
        check: &RSA_PSS_2048_8192_SHA512,
    },
];

#[cfg(test)]
mod tests;
