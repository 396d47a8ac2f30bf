//! JWT authorities: a key with an ID, and minting JWT-SVIDs with it (JWT-SVID.md).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{KeyError, PrivateKey, SpiffeId, hex};
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroizing;

const KEY_ID_LEN: usize = 32;
const LETTERS_AND_DIGITS: &[u8; 62] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The end of the year 9999, in seconds: the latest time that validators take.
const LAST_SECOND: u64 = 253_402_300_799;

/// Why a token is not minted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtError {
    /// No audience, or an empty one.
    #[error("a JWT-SVID needs at least one audience, and none of them empty")]
    Audience,
    /// The ID of a trust domain.
    #[error("the SPIFFE ID {0} has no path, as a JWT-SVID's subject must")]
    RootPath(SpiffeId),
    /// Past its end.
    #[error("the JWT authority has expired")]
    Expired,
    /// A TTL that gives no validity.
    #[error("a TTL of {0:?} gives no validity; use at least one second")]
    Ttl(Duration),
    /// A clock before 1970.
    #[error("the clock is before 1970")]
    Clock,
    /// The system has no randomness.
    #[error("the system gave no random bytes")]
    Random,
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a JWT-SVID is made of.
#[derive(Clone, Debug)]
pub struct JwtSpec<'a> {
    /// Whose it is: `sub`.
    pub id: &'a SpiffeId,
    /// For whom it is: `aud`.
    pub audience: &'a [String],
    /// How long it is valid; less when the authority expires before.
    pub ttl: Duration,
    /// `iss`, where the server is configured to say it.
    pub issuer: Option<&'a str>,
    /// Whether it carries a random `jti`.
    pub include_jti: bool,
}

/// A minted token.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedJwt {
    /// The token itself, a secret.
    pub token: Zeroizing<String>,
    /// `iat`, in whole seconds.
    pub issued_at: SystemTime,
    /// `exp`, in whole seconds.
    pub expires_at: SystemTime,
}

/// A JWT signing key with its ID.
#[derive(Clone)]
pub struct JwtAuthority {
    key_id: String,
    key: PrivateKey,
    not_after: SystemTime,
    /// The header and the dot behind it, ready.
    header: String,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a [String],
    exp: u64,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    sub: &'a str,
}

impl JwtAuthority {
    /// Joins a key, its ID (`kid`), and until when it may sign.
    #[must_use]
    pub fn new(key_id: String, key: PrivateKey, not_after: SystemTime) -> Self {
        let header = Header {
            alg: key.jws_alg(),
            kid: &key_id,
            typ: "JWT",
        };
        let mut header = URL_SAFE_NO_PAD.encode(json(&header));
        header.push('.');
        Self {
            header,
            key_id,
            key,
            not_after,
        }
    }

    /// A fresh key ID: 32 random letters and digits.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random_key_id() -> Result<String, JwtError> {
        let mut id = String::with_capacity(KEY_ID_LEN);
        while id.len() < KEY_ID_LEN {
            let mut bytes = [0; KEY_ID_LEN];
            rand::fill(&mut bytes).map_err(|_| JwtError::Random)?;
            // Six bits each; what is beyond the 62 is drawn again, so that all are as likely.
            let drawn = bytes
                .iter()
                .filter_map(|byte| LETTERS_AND_DIGITS.get(usize::from(byte & 0x3f)));
            id.extend(drawn.take(KEY_ID_LEN - id.len()).copied().map(char::from));
        }
        Ok(id)
    }

    /// The key's ID, `kid`.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Until when it may sign.
    #[must_use]
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The public half, as it stands in a bundle.
    #[must_use]
    pub fn public(&self) -> identity::JwtAuthority {
        identity::JwtAuthority {
            key_id: self.key_id.clone(),
            public_key: self.key.public_key_spki().to_vec(),
            expires_at: Some(self.not_after),
            tainted: false,
        }
    }

    /// Mints a token, valid until `now` and the TTL, or until the authority expires.
    ///
    /// # Errors
    /// When it would break a rule of JWT-SVID.md, or the key fails.
    pub fn sign(&self, spec: &JwtSpec<'_>, now: SystemTime) -> Result<IssuedJwt, JwtError> {
        if spec.id.path().is_empty() {
            return Err(JwtError::RootPath(spec.id.clone()));
        }
        if spec.audience.is_empty() || spec.audience.iter().any(String::is_empty) {
            return Err(JwtError::Audience);
        }
        let (iat, exp) = self.validity(now, spec.ttl)?;
        let claims = Claims {
            aud: spec.audience,
            exp,
            iat,
            iss: spec.issuer,
            jti: spec.include_jti.then(random_jti).transpose()?,
            sub: spec.id.as_str(),
        };
        let claims = json(&claims);
        // The longest signature, RSA-4096, takes 683 characters.
        let mut token = Zeroizing::new(String::with_capacity(
            self.header.len() + claims.len() * 4 / 3 + 700,
        ));
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign_jws(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(IssuedJwt {
            token,
            issued_at: UNIX_EPOCH + Duration::from_secs(iat),
            expires_at: UNIX_EPOCH + Duration::from_secs(exp),
        })
    }

    /// `iat` and `exp`, in whole seconds.
    fn validity(&self, now: SystemTime, ttl: Duration) -> Result<(u64, u64), JwtError> {
        let since_epoch =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).map_err(|_| JwtError::Clock);
        let (now, end) = (since_epoch(now)?, since_epoch(self.not_after)?);
        if ttl < Duration::from_secs(1) {
            return Err(JwtError::Ttl(ttl));
        }
        if now >= end {
            return Err(JwtError::Expired);
        }
        let exp = now.checked_add(ttl).map_or(end, |time| time.min(end));
        Ok((now.as_secs(), exp.as_secs().min(LAST_SECOND)))
    }
}

impl fmt::Debug for JwtAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthority")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IssuedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedJwt")
            .field("token", &"<redacted>")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A `jti`: 128 random bits, hex.
fn random_jti() -> Result<String, JwtError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| JwtError::Random)?;
    Ok(hex(&bytes))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers must serialize")
}

#[cfg(test)]
mod tests;
