//! The challenge and its answer: who holds the key signs both nonces.

use aws_lc_rs::rand;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::NAME;
use crate::attest::{Attested, pss};
use crate::rpc::RpcError;

const NONCE_LEN: usize = 32;

/// The largest answer, in bytes: a signature by the largest key, and nonces.
const MAX_RESPONSE_LEN: usize = 16 << 10;

/// The public key of the agent's certificate.
pub(super) enum Key {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    Ec {
        algorithm: &'static dyn VerificationAlgorithm,
        point: Vec<u8>,
    },
}

impl Key {
    pub(super) fn read(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, String> {
        match spki.parsed().map_err(|error| error.to_string())? {
            PublicKey::RSA(key) => Ok(Self::Rsa {
                modulus: key.modulus.to_vec(),
                exponent: key.exponent.to_vec(),
            }),
            PublicKey::EC(point) => {
                let curve = spki
                    .algorithm
                    .parameters
                    .as_ref()
                    .and_then(|curve| curve.as_oid().ok());
                let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
                let algorithm: &'static dyn VerificationAlgorithm = match curve.as_str() {
                    "1.2.840.10045.3.1.7" => &ECDSA_P256_SHA256_ASN1,
                    "1.3.132.0.34" => &ECDSA_P384_SHA256_ASN1,
                    "1.3.132.0.35" => &ECDSA_P521_SHA256_ASN1,
                    _ => {
                        return Err(
                            "the certificate's ECDSA key is not on P-256, P-384 or P-521"
                                .to_owned(),
                        );
                    }
                };
                Ok(Self::Ec {
                    algorithm,
                    point: point.data().to_vec(),
                })
            }
            _ => Err("the certificate's key is neither RSA nor ECDSA".to_owned()),
        }
    }
}

#[derive(Serialize)]
struct WireChallenge {
    rsa_signature: Option<WireNonce>,
    ecdsa_signature: Option<WireNonce>,
}

#[derive(Serialize)]
struct WireNonce {
    nonce: String,
}

#[derive(Deserialize)]
struct WireResponse {
    rsa_signature: Option<RsaResponse>,
    ecdsa_signature: Option<EcdsaResponse>,
}

#[derive(Deserialize)]
struct RsaResponse {
    nonce: String,
    signature: String,
}

#[derive(Deserialize)]
struct EcdsaResponse {
    nonce: String,
    r: String,
    s: String,
}

/// A challenge that has been sent.
pub(in crate::attest) struct Challenge {
    key: Key,
    nonce: [u8; NONCE_LEN],
    attested: Attested,
}

impl Challenge {
    /// Makes a challenge to the holder of `key`, as it is sent.
    pub(super) fn make(key: Key, attested: Attested) -> Result<(Vec<u8>, Self), RpcError> {
        let mut nonce = [0; NONCE_LEN];
        let failed = |error: &str| RpcError::internal("failed to generate challenge", error);
        rand::fill(&mut nonce).map_err(|_| failed("no random numbers"))?;
        let wire = WireNonce {
            nonce: STANDARD.encode(nonce),
        };
        let (rsa_signature, ecdsa_signature) = match &key {
            Key::Rsa { .. } => (Some(wire), None),
            Key::Ec { .. } => (None, Some(wire)),
        };
        let wire = WireChallenge {
            rsa_signature,
            ecdsa_signature,
        };
        let wire = serde_json::to_vec(&wire).map_err(|error| failed(&error.to_string()))?;
        let challenge = Self {
            key,
            nonce,
            attested,
        };
        Ok((wire, challenge))
    }

    /// Checks the answer.
    ///
    /// # Errors
    /// When it is malformed, or not signed by the key.
    pub(in crate::attest) fn verify(self, response: &[u8]) -> Result<Attested, RpcError> {
        if response.len() > MAX_RESPONSE_LEN {
            return Err(malformed("it is too long"));
        }
        let response: WireResponse = serde_json::from_slice(response).map_err(malformed)?;
        let verified = match (&self.key, response.rsa_signature, response.ecdsa_signature) {
            (Key::Rsa { modulus, exponent }, Some(answer), _) => {
                let message = self.message(&answer.nonce)?;
                let signature = decode(&answer.signature)?;
                pss::verifies(modulus, exponent, &message, &signature)
            }
            (Key::Ec { algorithm, point }, _, Some(answer)) => {
                let message = self.message(&answer.nonce)?;
                let signature = der_signature(&decode(&answer.r)?, &decode(&answer.s)?);
                UnparsedPublicKey::new(*algorithm, point)
                    .verify(&message, &signature)
                    .is_ok()
            }
            _ => return Err(malformed("it holds no signature of the key's kind")),
        };
        if !verified {
            return Err(RpcError::PermissionDenied(format!(
                "nodeattestor({NAME}): challenge response verification failed"
            )));
        }
        Ok(self.attested)
    }

    /// What is signed: the server's nonce, then the agent's.
    fn message(&self, nonce: &str) -> Result<Vec<u8>, RpcError> {
        let nonce = decode(nonce)?;
        if nonce.len() != NONCE_LEN {
            return Err(malformed(format!(
                "its nonce has {} bytes instead of {NONCE_LEN}",
                nonce.len()
            )));
        }
        Ok([&self.nonce[..], &nonce].concat())
    }
}

/// `SEQUENCE { r INTEGER, s INTEGER }` from big-endian numbers.
fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let content = [der_integer(r), der_integer(s)].concat();
    der(0x30, &content)
}

fn der_integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    // Positive, and never empty.
    let sign: &[u8] = match number.first() {
        Some(first) if *first < 0x80 => &[],
        _ => &[0],
    };
    der(2, &[sign, number].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short @ ..0x80) => out.push(short),
        Ok(long) => out.extend([0x81, long]),
        Err(_) => {
            out.push(0x82);
            out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend(content);
    out
}

fn decode(text: &str) -> Result<Vec<u8>, RpcError> {
    STANDARD.decode(text).map_err(malformed)
}

fn malformed(reason: impl std::fmt::Display) -> RpcError {
    RpcError::InvalidArgument(format!(
        "nodeattestor({NAME}): malformed challenge response: {reason}"
    ))
}
