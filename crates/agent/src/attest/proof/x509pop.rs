//! `x509pop`: the node owns the key of a certificate that the server's operator trusts.

use std::path::{Path, PathBuf};

use aws_lc_rs::{
    encoding::AsDer,
    rand::{SecureRandom, SystemRandom},
    rsa::KeyPair as RsaKeyPair,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PSS_SHA256},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{ProofError, X509POP};
use crate::config::X509PopFiles;

/// Both sides' nonces have this length.
const NONCE_LEN: usize = 32;

/// Half of an ECDSA signature on P-256.
const SCALAR_LEN: usize = 32;

/// A certificate chain and the key of its leaf.
pub struct X509Pop {
    chain: Vec<CertificateDer<'static>>,
    key: Key,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

#[derive(Deserialize)]
struct Challenge {
    rsa_signature: Option<Nonce>,
    ecdsa_signature: Option<Nonce>,
}

#[derive(Deserialize)]
struct Nonce {
    nonce: String,
}

impl X509Pop {
    /// Reads certificate, intermediates and key.
    ///
    /// # Errors
    /// When a file is missing, holds something else, or the key is not the certificate's.
    pub(super) fn load(files: &X509PopFiles) -> Result<Self, ProofError> {
        let mut chain = read_chain(&files.certificate_path)?;
        if let Some(path) = &files.intermediates_path {
            chain.extend(read_chain(path)?);
        }
        let path = &files.private_key_path;
        let key = read_key(path)?;
        let leaf = identity::Certificate::from_der(&chain[0])
            .map_err(|error| content(&files.certificate_path, &error.to_string()))?;
        if key.spki() != leaf.spki() {
            let certificate = files.certificate_path.display();
            let reason = format!("the key is not that of the first certificate in {certificate}");
            return Err(content(path, &reason));
        }
        Ok(Self { chain, key })
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        let certificates: Vec<String> = self.chain.iter().map(|der| STANDARD.encode(der)).collect();
        json!({ "certificates": certificates })
            .to_string()
            .into_bytes()
    }

    pub(super) fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, ProofError> {
        let odd = |reason: &str| ProofError::Challenge(X509POP, reason.to_owned());
        let challenge: Challenge =
            serde_json::from_slice(challenge).map_err(|error| odd(&error.to_string()))?;
        let wanted = match (
            &self.key,
            challenge.rsa_signature,
            challenge.ecdsa_signature,
        ) {
            (Key::Rsa(_), Some(nonce), _) | (Key::Ecdsa(_), _, Some(nonce)) => nonce,
            _ => return Err(odd("it is for another kind of key")),
        };
        let theirs = STANDARD
            .decode(wanted.nonce)
            .map_err(|_| odd("its nonce is no base64"))?;
        if theirs.len() != NONCE_LEN {
            return Err(odd("its nonce has not 32 bytes"));
        }
        // A nonce of our own, so that the server cannot have us sign a message of its choice.
        let mut ours = [0; NONCE_LEN];
        let random = SystemRandom::new();
        random.fill(&mut ours).map_err(|_| ProofError::Sign)?;
        let message = [theirs, ours.to_vec()].concat();
        let answer = match &self.key {
            Key::Ecdsa(key) => {
                let signature = key.sign(&random, &message).map_err(|_| ProofError::Sign)?;
                let (r, s) = signature.as_ref().split_at(SCALAR_LEN);
                let (r, s) = (STANDARD.encode(r), STANDARD.encode(s));
                json!({ "ecdsa_signature": { "nonce": STANDARD.encode(ours), "r": r, "s": s } })
            }
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &random, &message, &mut signature)
                    .map_err(|_| ProofError::Sign)?;
                let signature = STANDARD.encode(signature);
                json!({ "rsa_signature": { "nonce": STANDARD.encode(ours), "signature": signature } })
            }
        };
        Ok(answer.to_string().into_bytes())
    }
}

impl Key {
    fn spki(&self) -> Vec<u8> {
        let spki = match self {
            Self::Ecdsa(key) => key.public_key().as_der(),
            Self::Rsa(key) => key.public_key().as_der(),
        };
        spki.map(|der| der.as_ref().to_vec()).unwrap_or_default()
    }
}

impl std::fmt::Debug for X509Pop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("X509Pop(<redacted>)")
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProofError> {
    let pem = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, &format!("not PEM certificates: {error}")))?;
    if chain.is_empty() {
        return Err(content(path, "holds no certificate; PEM is expected"));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<Key, ProofError> {
    let expected =
        "holds no key that can be used; an unencrypted PEM key is expected, ECDSA on P-256 or RSA";
    let unusable = || content(path, expected);
    match PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| unusable())? {
        PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            der.secret_sec1_der(),
        )
        .map(Key::Ecdsa)
        .map_err(|_| unusable()),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
            .map(Key::Rsa)
            .map_err(|_| unusable()),
        PrivateKeyDer::Pkcs8(der) => {
            let der = der.secret_pkcs8_der();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                .map(Key::Ecdsa)
                .or_else(|_| RsaKeyPair::from_pkcs8(der).map(Key::Rsa))
                .map_err(|_| unusable())
        }
        _ => Err(unusable()),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, ProofError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| ProofError::File {
            path: path.to_owned(),
            source,
        })
}

fn content(path: &Path, reason: &str) -> ProofError {
    ProofError::Content {
        path: PathBuf::from(path),
        reason: reason.to_owned(),
    }
}
