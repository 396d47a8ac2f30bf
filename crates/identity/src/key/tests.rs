use std::sync::LazyLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use proptest::prelude::*;

use super::*;

#[test]
fn every_kind_survives_both_encodings() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = PrivateKey::generate(kind).unwrap();
        assert_eq!(key.key_type(), kind);
        assert_eq!(PrivateKey::from_pkcs8_der(key.as_pkcs8_der()).unwrap(), key);
        assert_eq!(PrivateKey::from_pem(&key.to_pem()).unwrap(), key);
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
}

#[test]
fn keys_never_print_themselves() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(ec-p256, <redacted>)");
}

#[test]
fn what_is_no_key_is_refused() {
    for bytes in [&b""[..], b"garbage", &[0x30, 0x80]] {
        assert_eq!(PrivateKey::from_pkcs8_der(bytes), Err(KeyError::Unreadable));
    }
    assert_eq!(PrivateKey::from_pem("no pem"), Err(KeyError::Unreadable));
    assert!("ed25519".parse::<KeyType>().is_err());
}

#[test]
fn a_csr_verifies_and_names_what_was_asked() {
    let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = PrivateKey::generate(kind).unwrap();
        let der = key.csr(Some(&id), &["web.example.org".to_owned()]).unwrap();
        let csr = rcgen::CertificateSigningRequestParams::from_der(&der.into()).unwrap();
        assert_eq!(csr.params.subject_alt_names.len(), 2);
        assert_eq!(
            rcgen::PublicKeyData::der_bytes(&csr.public_key),
            key.0.public
        );
    }
}

#[test]
fn jws_signatures_have_their_fixed_length() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    for _ in 0..50 {
        assert_eq!(key.sign_jws(b"m").unwrap().len(), 64);
    }
    assert_eq!(
        PrivateKey::generate(KeyType::EcP384)
            .unwrap()
            .sign_jws(b"m")
            .unwrap()
            .len(),
        96
    );
}

/// Keys are dear: all cases share one of each kind.
static KEYS: LazyLock<[PrivateKey; 3]> = LazyLock::new(|| {
    [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048]
        .map(|kind| PrivateKey::generate(kind).unwrap())
});

/// How X.509 and how JOSE check a signature.
fn checks(kind: KeyType) -> [&'static dyn VerificationAlgorithm; 2] {
    match kind {
        KeyType::EcP256 => [&ECDSA_P256_SHA256_ASN1, &ECDSA_P256_SHA256_FIXED],
        KeyType::EcP384 => [&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA384_FIXED],
        _ => [&RSA_PKCS1_2048_8192_SHA256; 2],
    }
}

proptest! {
    #[test]
    fn a_signature_is_good_for_its_message_and_its_key(
        which in 0..3_usize,
        message in prop::collection::vec(any::<u8>(), 0..200),
        other in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
    ) {
        let key = &KEYS[which];
        let signatures = [key.sign(&message).unwrap(), key.sign_jws(&message).unwrap()];
        for (check, signature) in checks(key.key_type()).into_iter().zip(signatures) {
            let public = UnparsedPublicKey::new(check, &key.0.public);
            prop_assert!(public.verify(&message, &signature).is_ok());
            prop_assert_eq!(public.verify(&other, &signature).is_ok(), other == message);
            let mut changed = signature.clone();
            let at = at.index(changed.len());
            changed[at] ^= 1;
            prop_assert!(public.verify(&message, &changed).is_err());
        }
    }

    /// A key that was changed is refused, or another key: it never passes for the one it was.
    #[test]
    fn a_changed_key_is_refused_or_another(which in 0..3_usize, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let key = &KEYS[which];
        let mut pkcs8 = key.as_pkcs8_der().to_vec();
        let at = at.index(pkcs8.len());
        pkcs8[at] = to;
        if let Ok(read) = PrivateKey::from_pkcs8_der(&pkcs8) {
            let signature = read.sign(b"message").unwrap();
            let [check, _] = checks(read.key_type());
            let public = UnparsedPublicKey::new(check, &read.0.public);
            prop_assert!(public.verify(b"message", &signature).is_ok());
        }
    }

    #[test]
    fn what_is_no_key_makes_nothing_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
        prop_assert_eq!(PrivateKey::from_pkcs8_der(&bytes), Err(KeyError::Unreadable));
        prop_assert_eq!(PrivateKey::from_pem(&text), Err(KeyError::Unreadable));
        let pem = crate::x509::pem("PRIVATE KEY", &bytes, PEM_LINE);
        prop_assert_eq!(PrivateKey::from_pem(&pem), Err(KeyError::Unreadable));
    }

    /// A CSR names what it was asked to, and is signed by its key.
    #[test]
    fn a_csr_names_what_was_asked(which in 0..3_usize, path in "(/[A-Za-z0-9._-]{1,8}x){1,4}", names in prop::collection::vec("[a-z]{1,8}(\\.[a-z]{1,8}){0,2}", 0..4)) {
        let key = &KEYS[which];
        let id = SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
        let der = key.csr(Some(&id), &names).unwrap();
        let csr = rcgen::CertificateSigningRequestParams::from_der(&der.into()).unwrap();
        let expected: Vec<SanType> = std::iter::once(SanType::URI(id.as_str().try_into().unwrap()))
            .chain(names.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap())))
            .collect();
        prop_assert_eq!(csr.params.subject_alt_names, expected);
    }
}
