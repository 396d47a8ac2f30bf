//! Public keys that may stand in a certificate.

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use thiserror::Error;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::{PublicKey as AnyKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
const MIN_EXPONENT: u64 = 65537;

/// SHA-1.
const KEY_ID_LEN: usize = SHA1_OUTPUT_LEN;

/// A whole SubjectPublicKeyInfo up to the point's coordinates: id-ecPublicKey, the curve, an uncompressed point.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7, 3, 0x42, 0, 4,
];
const P384: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22,
    3, 0x62, 0, 4,
];

/// rsaEncryption with NULL.
const RSA: &[u8] = &[
    0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0,
];

/// Why a public key may not stand in a certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Not a SubjectPublicKeyInfo.
    #[error("not a DER SubjectPublicKeyInfo")]
    Malformed,
    /// Another algorithm or curve.
    #[error("use ECDSA on P-256 or P-384 with an uncompressed point, or RSA")]
    Kind,
    /// Too short or long a modulus, or a bad exponent.
    #[error("an RSA key must have 2048 to 4096 bits and an odd public exponent of at least 65537")]
    WeakRsa,
    /// A point off its curve, or a broken modulus.
    #[error("the point is not on its curve, or the modulus is no RSA modulus")]
    Unsound,
}

/// A public key of a kind and strength that is signed for: ECDSA P-256 or P-384, RSA of 2048 to 4096 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    /// Where the BIT STRING's content begins in `spki`.
    bits_at: usize,
    kind: PublicKind,
    key_id: [u8; KEY_ID_LEN],
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
        let key = Self::unproven(spki)?;
        let algorithm: &'static dyn VerificationAlgorithm = match key.kind {
            PublicKind::P256 => &ECDSA_P256_SHA256_ASN1,
            PublicKind::P384 => &ECDSA_P384_SHA384_ASN1,
            PublicKind::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        };
        ParsedPublicKey::new(algorithm, key.bits()).map_err(|_| PublicKeyError::Unsound)?;
        Ok(key)
    }

    /// As [`PublicKey::from_spki`], but for whoever goes on to verify a signature with the key, which proves it sound.
    pub(crate) fn unproven(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let (kind, bits_at) = if ec(spki, P256) {
            (PublicKind::P256, P256.len() - 1)
        } else if ec(spki, P384) {
            (PublicKind::P384, P384.len() - 1)
        } else {
            (PublicKind::Rsa, rsa(spki)?)
        };
        let mut key_id = [0; KEY_ID_LEN];
        key_id.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &spki[bits_at..]).as_ref());
        Ok(Self {
            spki: spki.to_vec(),
            bits_at,
            kind,
            key_id,
        })
    }

    /// The SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) const fn kind(&self) -> PublicKind {
        self.kind
    }

    /// The BIT STRING's content.
    pub(crate) fn bits(&self) -> &[u8] {
        &self.spki[self.bits_at..]
    }

    /// The key identifier: SHA-1 of the key's bits (RFC 5280 §4.2.1.2, method 1). It names a key, it protects nothing.
    pub(crate) const fn key_id(&self) -> &[u8] {
        &self.key_id
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.kind)
    }
}

/// The prefix fixes every length, so one comparison and the total length are the whole parse.
fn ec(spki: &[u8], prefix: &[u8]) -> bool {
    spki.starts_with(prefix) && spki.len() == 2 + usize::from(prefix[1])
}

/// Checks an RSA key's numbers and tells where its bits begin.
fn rsa(spki: &[u8]) -> Result<usize, PublicKeyError> {
    let (rest, parsed) =
        SubjectPublicKeyInfo::from_der(spki).map_err(|_| PublicKeyError::Malformed)?;
    if !rest.is_empty() || parsed.subject_public_key.unused_bits != 0 {
        return Err(PublicKeyError::Malformed);
    }
    let Ok(AnyKey::RSA(key)) = parsed.parsed() else {
        return Err(PublicKeyError::Kind);
    };
    // RSASSA-PSS keys parse as RSA too; they are another kind.
    let header = &spki[..spki.len() - parsed.subject_public_key.data.len()];
    if !header.windows(RSA.len()).any(|window| window == RSA) {
        return Err(PublicKeyError::Kind);
    }
    if strong(&key) {
        Ok(header.len())
    } else {
        Err(PublicKeyError::WeakRsa)
    }
}

fn strong(key: &RSAPublicKey<'_>) -> bool {
    let modulus: &[u8] = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
    let bits = modulus.first().map_or(0, |first| {
        modulus.len() * 8 - first.leading_zeros() as usize
    });
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    RSA_BITS.contains(&bits)
        && odd(modulus)
        && odd(key.exponent)
        && key
            .try_exponent()
            .is_ok_and(|exponent| exponent >= MIN_EXPONENT)
}

#[cfg(test)]
mod tests;
