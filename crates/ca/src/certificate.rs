//! What leaves and CA certificates hold, byte for byte (X509-SVID.md §2 to §4, RFC 5280 §4).
//!
//! A certificate is built in two steps: [`Fields::to_be_signed`] writes what is signed, [`close`] joins it with a
//! signature. Between the two stands the linter.

use std::time::SystemTime;

use identity::KeyType;

use crate::der::{BOOLEAN, Der, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE, context, explicit};
use crate::public_key::PublicKey;

/// Everything in a certificate but its signature.
pub(crate) struct Fields<'a> {
    pub(crate) serial: u128,
    /// The issuer's kind of key.
    pub(crate) signer: KeyType,
    /// The issuer's Name, DER.
    pub(crate) issuer: &'a [u8],
    /// The issuer's key identifier.
    pub(crate) issuer_key_id: &'a [u8],
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// The subject's Name, DER.
    pub(crate) subject: &'a [u8],
    pub(crate) public_key: &'a PublicKey,
    pub(crate) usage: Usage,
    pub(crate) dns_names: &'a [String],
    /// The URI SAN.
    pub(crate) uri: &'a str,
}

/// What the key is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Leaf,
    Ca,
}

const VERSION_3: &[u8] = &[INTEGER, 1, 2];
/// An empty Name.
const NO_NAME: &[u8] = &[SEQUENCE, 0];

/// id-ce (2.5.29).
const fn id_ce(last: u8) -> [u8; 3] {
    [0x55, 0x1d, last]
}

const SUBJECT_KEY_ID: [u8; 3] = id_ce(14);
const KEY_USAGE: [u8; 3] = id_ce(15);
const SUBJECT_ALT_NAME: [u8; 3] = id_ce(17);
const BASIC_CONSTRAINTS: [u8; 3] = id_ce(19);
const AUTHORITY_KEY_ID: [u8; 3] = id_ce(35);
const EXT_KEY_USAGE: [u8; 3] = id_ce(37);

/// digitalSignature, keyEncipherment, keyAgreement.
const LEAF_KEY_USAGE: &[u8] = &[3, 2, 3, 0b1010_1000];
/// keyCertSign, cRLSign.
const CA_KEY_USAGE: &[u8] = &[3, 2, 1, 0b0000_0110];
/// id-kp-serverAuth and id-kp-clientAuth.
const SERVER_AND_CLIENT: &[u8] = &[
    0x30, 0x14, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2,
];
const NO_CA: &[u8] = &[SEQUENCE, 0];
const CA: &[u8] = &[SEQUENCE, 3, BOOLEAN, 1, 0xff];

impl Fields<'_> {
    /// The TBSCertificate, DER.
    pub(crate) fn to_be_signed(&self) -> Vec<u8> {
        let mut der = Der::with_capacity(512);
        der.nest(SEQUENCE, |der| {
            der.nest(explicit(0), |der| der.raw(VERSION_3));
            der.unsigned(self.serial);
            der.raw(signature_algorithm(self.signer));
            der.raw(self.issuer);
            der.nest(SEQUENCE, |der| {
                der.time(self.not_before);
                der.time(self.not_after);
            });
            der.raw(self.subject);
            der.raw(self.public_key.spki());
            der.nest(explicit(3), |der| {
                der.nest(SEQUENCE, |der| self.extensions(der));
            });
        });
        der.into_bytes()
    }

    fn extensions(&self, der: &mut Der) {
        let (key_usage, constraints) = match self.usage {
            Usage::Leaf => (LEAF_KEY_USAGE, NO_CA),
            Usage::Ca => (CA_KEY_USAGE, CA),
        };
        extension(der, KEY_USAGE, true, |der| der.raw(key_usage));
        if self.usage == Usage::Leaf {
            extension(der, EXT_KEY_USAGE, false, |der| der.raw(SERVER_AND_CLIENT));
        }
        extension(der, BASIC_CONSTRAINTS, true, |der| der.raw(constraints));
        extension(der, SUBJECT_KEY_ID, false, |der| {
            der.put(OCTET_STRING, self.public_key.key_id());
        });
        extension(der, AUTHORITY_KEY_ID, false, |der| {
            der.nest(SEQUENCE, |der| der.put(context(0), self.issuer_key_id));
        });
        // Without a subject, the names here are all there is (RFC 5280 §4.2.1.6).
        let critical = self.subject == NO_NAME;
        extension(der, SUBJECT_ALT_NAME, critical, |der| {
            der.nest(SEQUENCE, |der| {
                for name in self.dns_names {
                    der.put(context(2), name.as_bytes());
                }
                der.put(context(6), self.uri.as_bytes());
            });
        });
    }
}

fn extension(der: &mut Der, oid: [u8; 3], critical: bool, write: impl FnOnce(&mut Der)) {
    der.nest(SEQUENCE, |der| {
        der.put(OBJECT_ID, &oid);
        if critical {
            der.put(BOOLEAN, &[0xff]);
        }
        der.nest(OCTET_STRING, write);
    });
}

/// Joins what is signed with a signature into a certificate.
pub(crate) fn close(to_be_signed: &[u8], signer: KeyType, signature: &[u8]) -> Vec<u8> {
    let mut der = Der::with_capacity(to_be_signed.len() + signature.len() + 32);
    der.nest(SEQUENCE, |der| {
        der.raw(to_be_signed);
        der.raw(signature_algorithm(signer));
        der.bits(signature);
    });
    der.into_bytes()
}

/// The AlgorithmIdentifier of what [`identity::PrivateKey::sign`] does (RFC 5758 §3.2, RFC 8017 §A.2.4).
const fn signature_algorithm(signer: KeyType) -> &'static [u8] {
    match signer {
        KeyType::EcP256 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        KeyType::EcP384 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
        KeyType::Rsa2048 | KeyType::Rsa4096 => &[
            0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0,
        ],
    }
}
