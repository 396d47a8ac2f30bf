use identity::{KeyType, PrivateKey};

use super::*;
use crate::der::{Der, SEQUENCE};

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let number = |der: &mut Der, bytes: &[u8]| {
        der.nest(crate::der::INTEGER, |der| {
            if bytes.first().is_some_and(|first| first & 0x80 != 0) {
                der.raw(&[0]);
            }
            der.raw(bytes);
        });
    };
    let mut key = Der::default();
    key.nest(SEQUENCE, |der| {
        number(der, modulus);
        number(der, exponent);
    });
    let mut der = Der::default();
    der.nest(SEQUENCE, |der| {
        der.raw(RSA);
        der.bits(&key.into_bytes());
    });
    der.into_bytes()
}

#[test]
fn every_kind_of_key_that_is_made_here_is_taken() {
    for (kind, public) in [
        (KeyType::EcP256, PublicKind::P256),
        (KeyType::EcP384, PublicKind::P384),
        (KeyType::Rsa2048, PublicKind::Rsa),
    ] {
        let key = PrivateKey::generate(kind).unwrap();
        let taken = PublicKey::from_spki(key.public_key_spki()).unwrap();
        assert_eq!(taken.kind(), public);
        assert_eq!(taken.spki(), key.public_key_spki());
        assert_eq!(taken.bits(), rcgen::PublicKeyData::der_bytes(&key));
    }
}

#[test]
fn as_19_weak_and_odd_rsa_keys_are_refused() {
    let weak = [
        (vec![0xff; 128], vec![1, 0, 1], "1024 bits"),
        (vec![0xff; 64], vec![1, 0, 1], "512 bits"),
        (vec![0xff; 255], vec![1, 0, 1], "2040 bits"),
        (vec![0xff; 2048], vec![1, 0, 1], "16384 bits"),
        (vec![0xff; 256], vec![1], "e = 1"),
        (vec![0xff; 256], vec![3], "e = 3"),
        (vec![0xff; 256], vec![1, 0, 2], "even e"),
        (vec![0xfe; 256], vec![1, 0, 1], "even modulus"),
        (vec![0xff; 256], vec![0x7f; 40], "huge e"),
    ];
    for (modulus, exponent, what) in weak {
        assert_eq!(
            PublicKey::from_spki(&rsa_spki(&modulus, &exponent)),
            Err(PublicKeyError::WeakRsa),
            "{what}"
        );
    }
}

#[test]
fn as_19_points_off_the_curve_are_refused() {
    for kind in [KeyType::EcP256, KeyType::EcP384] {
        let mut spki = PrivateKey::generate(kind)
            .unwrap()
            .public_key_spki()
            .to_vec();
        let last = spki.len() - 1;
        spki[last] ^= 1;
        assert_eq!(PublicKey::from_spki(&spki), Err(PublicKeyError::Unsound));
        spki.push(0);
        assert!(PublicKey::from_spki(&spki).is_err(), "a byte behind");
    }
}

#[test]
fn as_19_other_kinds_of_keys_are_refused() {
    let prefixed = |algorithm: &[u8], bits: &[u8]| {
        let mut der = Der::default();
        der.nest(SEQUENCE, |der| {
            der.raw(algorithm);
            der.bits(bits);
        });
        der.into_bytes()
    };
    let ed25519 = prefixed(&[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], &[7; 32]);
    assert_eq!(PublicKey::from_spki(&ed25519), Err(PublicKeyError::Kind));
    let p192 = prefixed(
        &[
            0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
            0x3d, 3, 1, 1,
        ],
        &[&[4][..], &[7; 48]].concat(),
    );
    assert_eq!(PublicKey::from_spki(&p192), Err(PublicKeyError::Kind));
    // RSASSA-PSS: an RSA key under another algorithm.
    let pss = prefixed(
        &[
            0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10, 5, 0,
        ],
        &[0x30, 3, 2, 1, 3],
    );
    assert!(PublicKey::from_spki(&pss).is_err());
    for junk in [&b""[..], b"garbage", &[0x30, 0x80], &[0x30, 0]] {
        assert_eq!(PublicKey::from_spki(junk), Err(PublicKeyError::Malformed));
    }
}
