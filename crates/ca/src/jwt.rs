//! JWT authorities: a key with an ID, and minting JWT-SVIDs with it (JWT-SVID.md).

use std::fmt;
use std::time::{Duration, SystemTime};

use identity::{KeyError, PrivateKey, SpiffeId};
use thiserror::Error;
use zeroize::Zeroizing;

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
    /// A TTL of less than a second, or beyond the year 9999.
    #[error("a TTL of {0:?} gives no validity")]
    Ttl(Duration),
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
}

impl JwtAuthority {
    /// Joins a key, its ID (`kid`), and until when it may sign.
    #[must_use]
    pub const fn new(key_id: String, key: PrivateKey, not_after: SystemTime) -> Self {
        Self {
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
        todo!()
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
        let _ = (spec, now);
        todo!()
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
