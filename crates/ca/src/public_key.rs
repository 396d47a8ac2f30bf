//! Public keys that may stand in a certificate.

use std::fmt;

use thiserror::Error;

/// Why a public key may not stand in a certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Not a SubjectPublicKeyInfo.
    #[error("not a DER SubjectPublicKeyInfo")]
    Malformed,
    /// Another algorithm or curve.
    #[error("the key is of another kind than ECDSA P-256, ECDSA P-384 and RSA")]
    Kind,
    /// Too short or long a modulus, or a bad exponent.
    #[error("the RSA key must have 2048 to 4096 bits and an odd public exponent of at least 65537")]
    WeakRsa,
    /// A point off its curve, or a broken modulus.
    #[error("the key is not a sound key of its kind")]
    Unsound,
}

/// A public key of a kind and strength that is signed for: ECDSA P-256 or P-384, RSA of 2048 to 4096 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    kind: PublicKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicKind {
    P256,
    P384,
    Rsa,
}

impl PublicKey {
    /// Takes a SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// When the key is not sound, or not of a kind in use.
    pub fn from_spki(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let _ = spki;
        todo!()
    }

    /// The SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.kind)
    }
}
