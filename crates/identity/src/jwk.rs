//! Public keys as JSON Web Keys (RFC 7517, RFC 7518 §6) and back to SubjectPublicKeyInfo.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::der::{bits, padded, tlv, unsigned};

/// AlgorithmIdentifiers, DER: id-ecPublicKey with each curve, and rsaEncryption with NULL.
const EC_P256: &[u8] = &[
    0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1,
    7,
];
const EC_P384: &[u8] = &[
    0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22,
];
const EC_P521: &[u8] = &[
    0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x23,
];
const RSA: &[u8] = &[
    0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0,
];

/// The kinds of public keys an authority may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicKind {
    /// RSA, 2048 to 4096 bits.
    Rsa,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
}

const CURVES: [(PublicKind, &str, &[u8], usize); 3] = [
    (PublicKind::P256, "P-256", EC_P256, 32),
    (PublicKind::P384, "P-384", EC_P384, 48),
    (PublicKind::P521, "P-521", EC_P521, 66),
];

/// The bits of the key inside a SubjectPublicKeyInfo.
pub(crate) fn raw_public_key(spki: &[u8]) -> Option<&[u8]> {
    let (rest, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    // The key's bits end the SubjectPublicKeyInfo: borrow them from the input, not from the parsed copy.
    let length = parsed.subject_public_key.data.len();
    if !rest.is_empty() || parsed.subject_public_key.unused_bits != 0 {
        return None;
    }
    spki.get(spki.len().checked_sub(length)?..)
}

/// What kind of key a SubjectPublicKeyInfo holds; `None` when it is not sound, or of a kind or size not in use.
pub(crate) fn public_kind(spki: &[u8]) -> Option<PublicKind> {
    let raw = raw_public_key(spki)?;
    let curve = CURVES.iter().find(|(_, _, algorithm, _)| {
        spki.get(2..)
            .is_some_and(|rest| rest.starts_with(algorithm))
    });
    if let Some((kind, _, _, size)) = curve {
        // A JWK has both coordinates, so that a point without its second is none of ours.
        let whole = raw.len() == 1 + 2 * size;
        return (whole && sound(ecdsa(*kind), raw)).then_some(*kind);
    }
    let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    let PublicKey::RSA(key) = parsed.parsed().ok()? else {
        return None;
    };
    let modulus_bits = key.key_size();
    let usable = (2048..=4096).contains(&modulus_bits)
        && key.try_exponent().is_ok_and(|exponent| exponent >= 3);
    (usable && sound(&RSA_PKCS1_2048_8192_SHA256, raw)).then_some(PublicKind::Rsa)
}

/// aws-lc-rs checks a key (point on the curve, modulus) when it parses it.
fn sound(algorithm: &'static dyn VerificationAlgorithm, raw: &[u8]) -> bool {
    ParsedPublicKey::new(algorithm, raw).is_ok()
}

fn ecdsa(kind: PublicKind) -> &'static aws_lc_rs::signature::EcdsaVerificationAlgorithm {
    match kind {
        PublicKind::P384 => &ECDSA_P384_SHA384_FIXED,
        PublicKind::P521 => &ECDSA_P521_SHA512_FIXED,
        _ => &ECDSA_P256_SHA256_FIXED,
    }
}

/// The members of a JWK that tell the key: `kty` and the numbers. `None` for a key that is not sound.
pub(crate) fn to_jwk(spki: &[u8]) -> Option<Map<String, Value>> {
    let kind = public_kind(spki)?;
    let raw = raw_public_key(spki)?;
    let object = if kind == PublicKind::Rsa {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
        let PublicKey::RSA(key) = parsed.parsed().ok()? else {
            return None;
        };
        json!({"kty": "RSA", "n": number(key.modulus), "e": number(key.exponent)})
    } else {
        let (_, name, _, size) = CURVES.iter().find(|(curve, ..)| *curve == kind)?;
        let (x, y) = raw.get(1..)?.split_at_checked(*size)?;
        json!({"kty": "EC", "crv": name, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    };
    object.as_object().cloned()
}

/// The SubjectPublicKeyInfo of a JWK; `None` when it is not a sound key of a kind in use.
pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Option<Vec<u8>> {
    let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok();
    let spki = match jwk.get("kty")?.as_str()? {
        "RSA" => {
            let key = tlv(
                0x30,
                &[unsigned(&member("n")?), unsigned(&member("e")?)].concat(),
            );
            tlv(0x30, &[RSA.to_vec(), bits(&key)].concat())
        }
        "EC" => {
            let curve = jwk.get("crv")?.as_str()?;
            let (_, _, algorithm, size) = CURVES.iter().find(|(_, name, ..)| *name == curve)?;
            let point = [
                vec![4],
                padded(&member("x")?, *size)?,
                padded(&member("y")?, *size)?,
            ]
            .concat();
            tlv(0x30, &[algorithm.to_vec(), bits(&point)].concat())
        }
        _ => return None,
    };
    public_kind(&spki)?;
    Some(spki)
}

fn number(bytes: &[u8]) -> String {
    let significant: Vec<u8> = bytes
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    URL_SAFE_NO_PAD.encode(significant)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::key::{KeyType, PrivateKey};

    #[test]
    fn every_kind_goes_there_and_back() {
        for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let key = PrivateKey::generate(kind).unwrap();
            let jwk = to_jwk(key.public_key_spki()).unwrap();
            assert_eq!(from_jwk(&jwk).unwrap(), key.public_key_spki(), "{kind}");
        }
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let mut jwk = to_jwk(key.public_key_spki()).unwrap();
        jwk.insert("y".into(), json!(URL_SAFE_NO_PAD.encode([1; 32])));
        assert_eq!(from_jwk(&jwk), None);
    }

    #[test]
    fn weak_and_odd_rsa_keys_are_refused() {
        let rsa = |n: &[u8], e: &[u8]| {
            let jwk = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)});
            from_jwk(jwk.as_object().unwrap())
        };
        assert_eq!(rsa(&[0xff; 128], &[1, 0, 1]), None, "1024 bits");
        assert_eq!(rsa(&[0xff; 1024], &[1, 0, 1]), None, "8192 bits");
        assert_eq!(rsa(&[0xff; 256], &[1]), None, "e = 1");
        assert_eq!(rsa(&[], &[]), None);
        assert_eq!(from_jwk(json!({"kty": "AKP"}).as_object().unwrap()), None);
    }

    #[test]
    fn a_compressed_point_is_no_key() {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let raw = raw_public_key(key.public_key_spki()).unwrap();
        let compressed = [&[2 + (raw[64] & 1)], &raw[1..33]].concat();
        let spki = tlv(0x30, &[EC_P256.to_vec(), bits(&compressed)].concat());
        assert_eq!(public_kind(&spki), None);
        assert_eq!(to_jwk(&spki), None);
    }

    /// Keys are dear: all cases share one of each kind.
    static KEYS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
        [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048].map(|kind| {
            PrivateKey::generate(kind)
                .unwrap()
                .public_key_spki()
                .to_vec()
        })
    });

    proptest! {
        /// A JWK that was changed is refused, or that of another sound key, which is written as it was read.
        #[test]
        fn a_changed_jwk_is_refused_or_another(which in 0..3_usize, member in 0..4_usize, at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]?") {
            let mut jwk = to_jwk(&KEYS[which]).unwrap();
            let name = jwk.keys().nth(member % jwk.len()).unwrap().clone();
            let mut value = jwk[&name].as_str().unwrap().to_owned();
            let at = at.index(value.len());
            value.replace_range(at..=at, &to);
            jwk.insert(name, json!(value));
            if let Some(spki) = from_jwk(&jwk) {
                let again = to_jwk(&spki).unwrap();
                prop_assert_eq!(from_jwk(&again).unwrap(), spki);
            }
        }

        #[test]
        fn what_is_no_key_makes_nothing_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), x in "[A-Za-z0-9_=+/-]{0,50}") {
            prop_assert_eq!(public_kind(&bytes), None);
            prop_assert_eq!(to_jwk(&bytes), None);
            prop_assert_eq!(raw_public_key(&bytes), None);
            for jwk in [
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": x}),
                json!({"kty": "EC", "crv": x, "x": x, "y": x}),
                json!({"kty": "RSA", "n": x, "e": x}),
                json!({"kty": x}),
            ] {
                prop_assert_eq!(from_jwk(jwk.as_object().unwrap()), None);
            }
        }
    }
}
