//! Private keys: made, read, and used to sign. The one place where keys are generated.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
};
use rcgen::{CertificateParams, DistinguishedName, SanType, SignatureAlgorithm};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::der::ecdsa_fixed;
use crate::id::SpiffeId;
use crate::jwk::raw_public_key;

const PEM_LINE: usize = 64;

/// Why a key cannot be made, read or used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// An unknown key type.
    #[error("key type {0:?} is unknown; use ec-p256, ec-p384, rsa-2048 or rsa-4096")]
    UnknownType(String),
    /// Not a key we can use.
    #[error("not an unencrypted PKCS#8 private key of type ec-p256, ec-p384, rsa-2048 or rsa-4096")]
    Unreadable,
    /// The generator failed.
    #[error("generating a {0} key failed")]
    Generate(KeyType),
    /// Signing failed.
    #[error("signing with a {0} key failed")]
    Sign(KeyType),
    /// The CSR could not be built.
    #[error("building the certificate signing request failed: {0}")]
    Csr(String),
}

/// The kinds of keys in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
}

impl KeyType {
    /// SPIRE's name of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyType {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        [Self::EcP256, Self::EcP384, Self::Rsa2048, Self::Rsa4096]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| KeyError::UnknownType(text.to_owned()))
    }
}

/// A private key. Its bytes are wiped when the last clone goes; `Debug` shows only its type.
#[derive(Clone)]
pub struct PrivateKey(Arc<Inner>);

struct Inner {
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
    /// The BIT STRING's content of `spki`.
    public: Vec<u8>,
    kind: KeyType,
    signer: Signer,
}

enum Signer {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(kind: KeyType) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Generate(kind);
        let signer = match kind {
            KeyType::EcP256 | KeyType::EcP384 => {
                Signer::Ecdsa(EcdsaKeyPair::generate(curve(kind)).map_err(failed)?)
            }
            KeyType::Rsa2048 => {
                Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?)
            }
            KeyType::Rsa4096 => {
                Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?)
            }
        };
        let pkcs8 = match &signer {
            Signer::Ecdsa(key) => key.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Signer::Rsa(key) => AsDer::<Pkcs8V1Der<'_>>::as_der(key)
                .map_err(failed)?
                .as_ref()
                .to_vec(),
        };
        Self::assemble(kind, signer, pkcs8).ok_or(KeyError::Generate(kind))
    }

    /// Reads an unencrypted PKCS#8 key, DER.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn from_pkcs8_der(pkcs8: &[u8]) -> Result<Self, KeyError> {
        for kind in [KeyType::EcP256, KeyType::EcP384] {
            if let Ok(key) = EcdsaKeyPair::from_pkcs8(curve(kind), pkcs8) {
                return Self::assemble(kind, Signer::Ecdsa(key), pkcs8.to_vec())
                    .ok_or(KeyError::Unreadable);
            }
        }
        let key = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::Unreadable)?;
        let kind = match key.public_modulus_len() {
            256 => KeyType::Rsa2048,
            512 => KeyType::Rsa4096,
            _ => return Err(KeyError::Unreadable),
        };
        Self::assemble(kind, Signer::Rsa(key), pkcs8.to_vec()).ok_or(KeyError::Unreadable)
    }

    /// Reads the first `PRIVATE KEY` block of a PEM text.
    ///
    /// # Errors
    /// When there is none, or as [`PrivateKey::from_pkcs8_der`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Unreadable)?;
        Self::from_pkcs8_der(der.secret_pkcs8_der())
    }

    fn assemble(kind: KeyType, signer: Signer, pkcs8: Vec<u8>) -> Option<Self> {
        let pkcs8 = Zeroizing::new(pkcs8);
        let spki: Vec<u8> = match &signer {
            Signer::Ecdsa(key) => AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key())
                .ok()?
                .as_ref()
                .to_vec(),
            Signer::Rsa(key) => AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key())
                .ok()?
                .as_ref()
                .to_vec(),
        };
        let public = raw_public_key(&spki)?.to_vec();
        Some(Self(Arc::new(Inner {
            pkcs8,
            spki,
            public,
            kind,
            signer,
        })))
    }

    /// PKCS#8, DER, unencrypted.
    #[must_use]
    pub fn as_pkcs8_der(&self) -> &[u8] {
        &self.0.pkcs8
    }

    /// PKCS#8, PEM, unencrypted.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(crate::x509::pem(
            "PRIVATE KEY",
            self.as_pkcs8_der(),
            PEM_LINE,
        ))
    }

    /// The kind of key.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.0.kind
    }

    /// The public key: SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn public_key_spki(&self) -> &[u8] {
        &self.0.spki
    }

    /// Signs as X.509 wants it: ECDSA in ASN.1 with the curve's SHA-2, RSA PKCS#1 v1.5 with SHA-256.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Sign(self.0.kind);
        let random = SystemRandom::new();
        match &self.0.signer {
            Signer::Ecdsa(key) => Ok(key
                .sign(&random, message)
                .map_err(failed)?
                .as_ref()
                .to_vec()),
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
    }

    /// Signs as JOSE wants it: ECDSA as r and s side by side, RSA as in [`PrivateKey::sign`].
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign_jws(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.sign(message)?;
        let size = match self.0.kind {
            KeyType::EcP256 => 32,
            KeyType::EcP384 => 48,
            KeyType::Rsa2048 | KeyType::Rsa4096 => return Ok(signature),
        };
        ecdsa_fixed(&signature, size).ok_or(KeyError::Sign(self.0.kind))
    }

    /// The JOSE name of what [`PrivateKey::sign_jws`] does.
    #[must_use]
    pub fn jws_alg(&self) -> &'static str {
        match self.0.kind {
            KeyType::EcP256 => "ES256",
            KeyType::EcP384 => "ES384",
            KeyType::Rsa2048 | KeyType::Rsa4096 => "RS256",
        }
    }

    /// A certificate signing request (PKCS#10, DER) for this key, with an empty subject.
    ///
    /// # Errors
    /// When a DNS name is not ASCII, or signing fails.
    pub fn csr(&self, id: Option<&SpiffeId>, dns_names: &[String]) -> Result<Vec<u8>, KeyError> {
        let failed = |error: rcgen::Error| KeyError::Csr(error.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(id) = id {
            params
                .subject_alt_names
                .push(SanType::URI(id.as_str().try_into().map_err(failed)?));
        }
        for name in dns_names {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
        }
        Ok(params
            .serialize_request(self)
            .map_err(failed)?
            .der()
            .to_vec())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, <redacted>)", self.0.kind)
    }
}

/// Two keys are equal when their public keys are.
impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.spki == other.0.spki
    }
}

impl Eq for PrivateKey {}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.kind {
            KeyType::EcP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyType::EcP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyType::Rsa2048 | KeyType::Rsa4096 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Self::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

const fn curve(kind: KeyType) -> &'static EcdsaSigningAlgorithm {
    match kind {
        KeyType::EcP384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => &ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

#[cfg(test)]
mod tests;
