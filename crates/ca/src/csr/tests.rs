use identity::{KeyType, PrivateKey, SpiffeId};
use proptest::prelude::*;

use super::*;
use crate::der::{BIT_STRING, Der, SEQUENCE};

fn request(kind: KeyType) -> (PrivateKey, Vec<u8>) {
    let key = PrivateKey::generate(kind).unwrap();
    let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
    let csr = key.csr(Some(&id), &["web.example.org".to_owned()]).unwrap();
    (key, csr)
}

#[test]
fn every_kind_of_key_may_ask() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let (key, der) = request(kind);
        assert_eq!(parse(&der).unwrap().spki(), key.public_key_spki(), "{kind}");
    }
}

#[test]
fn names_are_read_only_where_they_are_asked_for() {
    let (key, _) = request(KeyType::EcP256);
    let mut wishes = rcgen::CertificateParams::new(vec!["web.example.org".to_owned()]).unwrap();
    wishes.subject_alt_names.push(rcgen::SanType::URI(
        "spiffe://example.org/web".try_into().unwrap(),
    ));
    wishes.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in [
        (rcgen::DnType::OrganizationName, "Shop"),
        (rcgen::DnType::LocalityName, "left out"),
        (rcgen::DnType::CommonName, "web"),
    ] {
        wishes.distinguished_name.push(kind, value);
    }
    let der = wishes.serialize_request(&key).unwrap();
    let named = parse_named(der.der()).unwrap();
    assert_eq!(named.public_key.spki(), key.public_key_spki());
    assert_eq!(named.uris, ["spiffe://example.org/web"]);
    assert_eq!(named.dns_names, ["web.example.org"]);
    assert_eq!(
        named.subject.iter().collect::<Vec<_>>(),
        [
            (Attribute::Organization, "Shop"),
            (Attribute::CommonName, "web")
        ]
    );
}

#[test]
fn as_19_a_request_signed_by_another_key_is_refused() {
    let (_, mut der) = request(KeyType::EcP256);
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(parse(&der), Err(CsrError::Signature));
    assert_eq!(parse_named(&der), Err(CsrError::Signature));
}

#[test]
fn as_19_a_changed_name_breaks_the_signature() {
    let (_, mut der) = request(KeyType::EcP256);
    let at = der.windows(4).position(|bytes| bytes == b"/web").unwrap();
    der[at + 1] = b'd';
    assert_eq!(parse(&der), Err(CsrError::Signature));
}

#[test]
fn as_19_other_signature_algorithms_are_refused() {
    let (_, der) = request(KeyType::EcP256);
    let ecdsa_sha256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let at = der
        .windows(8)
        .rposition(|bytes| bytes == ecdsa_sha256)
        .unwrap();
    for (last_two, what) in [([3, 1], "SHA-224"), ([1, 1], "SHA-1"), ([3, 9], "unknown")] {
        let mut der = der.clone();
        der[at + 6..at + 8].copy_from_slice(&last_two);
        assert_eq!(parse(&der), Err(CsrError::Algorithm), "{what}");
    }
}

#[test]
fn as_19_sizes_are_bounded_before_anything_is_parsed() {
    assert_eq!(
        parse(&vec![0; MAX_CSR_LEN + 1]),
        Err(CsrError::TooLarge(MAX_CSR_LEN + 1))
    );
}

#[test]
fn what_is_no_request_is_refused() {
    let (_, der) = request(KeyType::EcP256);
    let mut longer = der.clone();
    longer.push(0);
    let mut wrong_version = der.clone();
    // The version stands behind the headers of the two sequences.
    let at = der.windows(3).position(|bytes| bytes == [2, 1, 0]).unwrap();
    wrong_version[at + 2] = 1;
    for bytes in [
        &b""[..],
        b"garbage",
        &der[..der.len() - 1],
        &longer,
        &wrong_version,
    ] {
        assert_eq!(parse(bytes), Err(CsrError::Malformed));
    }
}

#[test]
fn as_19_nesting_does_not_exhaust_the_stack() {
    let mut der = vec![BIT_STRING, 0];
    for _ in 0..4_000 {
        let mut outer = Der::default();
        outer.put(SEQUENCE, &der);
        der = outer.into_bytes();
    }
    der.truncate(MAX_CSR_LEN);
    assert!(parse(&der).is_err());
    assert!(parse_named(&der).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        let _ = parse_named(&bytes);
    }

    #[test]
    fn no_change_of_what_is_signed_goes_unnoticed(at in any::<proptest::sample::Index>(), to in any::<u8>()) {
        let (_, der) = request(KeyType::EcP256);
        let signed = read(&der).unwrap().certification_request_info.raw.to_vec();
        let start = der.windows(signed.len()).position(|bytes| bytes == signed).unwrap();
        let at = start + at.index(signed.len());
        let mut changed = der.clone();
        changed[at] = to;
        prop_assert!(changed == der || parse(&changed).is_err(), "byte {}", at);
    }
}
