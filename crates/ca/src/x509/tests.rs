use std::sync::Arc;

use identity::{Bundle, BundleSet, KeyType, X509Authority as Root, check_leaf, verify_x509_svid};
use proptest::prelude::*;
use x509_parser::extensions::ParsedExtension;

use super::*;
use crate::csr;

const NOW: SystemTime = UNIX_EPOCH;

fn now() -> SystemTime {
    NOW + Duration::from_secs(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn authority(kind: KeyType) -> X509Authority {
    let spec = CaSpec {
        trust_domain: &trust_domain(),
        subject: Subject::ca(),
        ttl: Duration::from_secs(24 * 3600),
    };
    X509Authority::self_signed(PrivateKey::generate(kind).unwrap(), &spec, now()).unwrap()
}

fn public_key(kind: KeyType) -> PublicKey {
    PublicKey::from_spki(PrivateKey::generate(kind).unwrap().public_key_spki()).unwrap()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::new(&trust_domain(), path).unwrap()
}

fn bundles(authority: &X509Authority) -> BundleSet {
    let mut bundle = Bundle::empty(trust_domain());
    bundle
        .x509_authorities
        .push(Root::new(authority.certificate().clone()));
    [Arc::new(bundle)].into_iter().collect()
}

fn spec<'a>(id: &'a SpiffeId, public_key: &'a PublicKey) -> LeafSpec<'a> {
    LeafSpec {
        id,
        public_key,
        dns_names: &[],
        ttl: Duration::from_secs(3600),
        subject: None,
    }
}

/// Each extension: its object identifier and whether it is critical, in order.
fn extensions(der: &[u8]) -> Vec<(String, bool)> {
    let (_, parsed) = X509Certificate::from_der(der).unwrap();
    parsed
        .extensions()
        .iter()
        .map(|extension| (extension.oid.to_id_string(), extension.critical))
        .collect()
}

#[test]
fn x_leaf_profile() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    let (id, names) = (id("/web"), ["web.example.org".to_owned(), "web".to_owned()]);
    let spec = LeafSpec {
        dns_names: &names,
        ..spec(&id, &key)
    };
    let issued = authority.sign(&spec, now()).unwrap();
    let leaf = Certificate::from_der(&issued.der).unwrap();

    assert_eq!(check_leaf(&leaf), Ok(&id));
    assert_eq!(leaf.subject(), "C=US, O=SPIRE, CN=web.example.org");
    assert_eq!(leaf.dns_names(), names);
    assert_eq!(leaf.spki(), key.spki());
    assert_eq!(leaf.subject_key_id(), Some(key.key_id()));
    assert_eq!(
        leaf.authority_key_id(),
        authority.certificate().subject_key_id()
    );
    assert_eq!(leaf.not_before(), now() - BACKDATE);
    assert_eq!(leaf.not_after(), now() + spec.ttl);
    assert_eq!(
        (issued.not_before, issued.not_after),
        (leaf.not_before(), leaf.not_after())
    );
    assert_eq!(leaf.serial_decimal(), issued.serial_decimal());
    let expected = [
        ("2.5.29.15", true),  // KeyUsage
        ("2.5.29.37", false), // ExtKeyUsage
        ("2.5.29.19", true),  // BasicConstraints
        ("2.5.29.14", false), // SubjectKeyIdentifier
        ("2.5.29.35", false), // AuthorityKeyIdentifier
        ("2.5.29.17", false), // SubjectAltName
    ];
    assert_eq!(
        extensions(&issued.der),
        expected.map(|(oid, critical)| (oid.to_owned(), critical))
    );
    let (_, parsed) = X509Certificate::from_der(&issued.der).unwrap();
    let usage = parsed.key_usage().unwrap().unwrap().value;
    assert_eq!(
        usage.flags, 0b1_0101,
        "digitalSignature, keyEncipherment, keyAgreement"
    );
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any && usage.other.is_empty());
}

#[test]
fn conf_id_17_id_18_x_05_x_06_x_08_x_09_x_10_x_11_ca_profile() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let authority = authority(kind);
        let ca = authority.certificate();
        assert!(ca.is_ca());
        assert_eq!(ca.spiffe_id(), Some(&trust_domain().id()));
        assert_eq!(
            ca.subject(),
            format!("C=US, O=SPIFFE, serialNumber={}", ca.serial_decimal())
        );
        assert_eq!(ca.authority_key_id(), ca.subject_key_id());
        assert_eq!(ca.not_before(), now() - BACKDATE);
        assert_eq!(ca.not_after(), now() + Duration::from_secs(24 * 3600));
        assert_eq!(
            Some(authority.authority_id().to_owned()),
            ca.subject_key_id_hex()
        );
        let (_, parsed) = X509Certificate::from_der(ca.der()).unwrap();
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 0b110_0000, "keyCertSign, cRLSign");
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.path_len_constraint.is_none());
        // Many validators refuse them.
        assert!(parsed.name_constraints().unwrap().is_none());
        assert_eq!(ca.spiffe_id().map(|id| id.path()), Some(""));
    }
}

/// The ID and the key stand in the part that is signed, and a change of either is noticed.
#[test]
fn conf_id_19_id_and_key_are_signed() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    let id = id("/web");
    let issued = authority.sign(&spec(&id, &key), now()).unwrap();
    let leaf = Certificate::from_der(&issued.der).unwrap();
    let (_, parsed) = X509Certificate::from_der(&issued.der).unwrap();
    let signed: &[u8] = parsed.tbs_certificate.as_ref();
    for part in [id.as_str().as_bytes(), leaf.spki()] {
        let within = |bytes: &[u8]| bytes.windows(part.len()).position(|window| window == part);
        assert!(within(signed).is_some());
        let last = within(&issued.der).unwrap() + part.len() - 1;
        let mut changed = issued.der.clone();
        changed[last] ^= 1;
        let verdict = Certificate::from_der(&changed)
            .and_then(|leaf| verify_x509_svid(&[leaf], &bundles(&authority), now()));
        assert!(verdict.is_err(), "{verdict:?}");
    }
}

#[test]
fn every_kind_of_authority_signs_every_kind_of_key() {
    let id = id("/web");
    for ca in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let authority = authority(ca);
        for leaf in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let key = public_key(leaf);
            let issued = authority.sign(&spec(&id, &key), now()).unwrap();
            let chain = [Certificate::from_der(&issued.der).unwrap()];
            assert_eq!(
                verify_x509_svid(&chain, &bundles(&authority), now()),
                Ok(id.clone()),
                "{leaf} under {ca}"
            );
        }
    }
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    let id = id("/web");
    let spec = spec(&id, &key);
    let end = authority.not_after();
    let issued = authority
        .sign(&spec, end - Duration::from_secs(60))
        .unwrap();
    assert_eq!(issued.not_after, end);
    let late = authority.sign(&spec, end);
    assert_eq!(late, Err(X509AuthorityError::Expired));
}

/// The clock was set back, or the authority has just been made: a leaf never begins before its authority.
#[test]
fn a_leaf_never_begins_before_its_authority() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    let id = id("/web");
    let mut spec = spec(&id, &key);
    let begin = authority.certificate().not_before();
    for back in [1, 5, 11, 60] {
        let issued = authority.sign(&spec, now() - Duration::from_secs(back));
        assert_eq!(issued.unwrap().not_before, begin, "{back} s back");
    }
    spec.ttl = Duration::from_secs(60);
    let early = authority.sign(&spec, now() - Duration::from_secs(70));
    assert_eq!(early, Err(X509AuthorityError::NotYet));
}

#[test]
fn as_29_ttls_and_clocks_at_their_limits() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    let id = id("/web");
    let with = |ttl, now| {
        authority.sign(
            &LeafSpec {
                ttl,
                ..spec(&id, &key)
            },
            now,
        )
    };
    let huge = with(Duration::MAX, now()).unwrap();
    assert_eq!(huge.not_after, authority.not_after());
    for ttl in [Duration::ZERO, Duration::from_millis(999)] {
        assert_eq!(with(ttl, now()), Err(X509AuthorityError::Ttl(ttl)));
    }
    let early = with(Duration::from_secs(1), UNIX_EPOCH - Duration::from_secs(1));
    assert_eq!(early, Err(X509AuthorityError::Time));
    let eternal = CaSpec {
        trust_domain: &trust_domain(),
        subject: Subject::ca(),
        ttl: Duration::MAX,
    };
    let eternal = X509Authority::self_signed(
        PrivateKey::generate(KeyType::EcP256).unwrap(),
        &eternal,
        now(),
    );
    assert_eq!(eternal.unwrap().not_after(), UNIX_EPOCH + LAST_SECOND);
}

#[test]
fn x_04_an_empty_subject_makes_the_names_critical() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    let id = id("/web");
    let spec = LeafSpec {
        subject: Some(&Subject::empty()),
        ..spec(&id, &key)
    };
    let issued = authority.sign(&spec, now()).unwrap();
    assert!(extensions(&issued.der).contains(&("2.5.29.17".to_owned(), true)));
    assert!(check_leaf(&Certificate::from_der(&issued.der).unwrap()).is_ok());
}

#[test]
fn s_5_only_entry_data_reaches_a_certificate() {
    let (authority, key) = (
        authority(KeyType::EcP256),
        PrivateKey::generate(KeyType::EcP256).unwrap(),
    );
    let mut wishes = rcgen::CertificateParams::new(vec!["evil.example.org".to_owned()]).unwrap();
    wishes.distinguished_name = rcgen::DistinguishedName::new();
    wishes.distinguished_name.push(
        rcgen::DnType::CommonName,
        "spiffe://example.org/spire/server",
    );
    wishes.subject_alt_names.extend([
        rcgen::SanType::URI("spiffe://example.org/spire/server".try_into().unwrap()),
        rcgen::SanType::Rfc822Name("root@example.org".try_into().unwrap()),
        rcgen::SanType::IpAddress([127, 0, 0, 1].into()),
    ]);
    wishes.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    wishes.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
    // BasicConstraints CA:TRUE, and name constraints that permit nothing.
    for (oid, content) in [
        ([2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]),
        ([2, 5, 29, 30], vec![0x30, 0]),
    ] {
        let extension = rcgen::CustomExtension::from_oid_content(&oid, content);
        wishes.custom_extensions.push(extension);
    }
    let request = wishes.serialize_request(&key).unwrap();
    let public_key = csr::parse(request.der()).unwrap();
    let id = id("/web");

    let issued = authority.sign(&spec(&id, &public_key), now()).unwrap();

    let leaf = Certificate::from_der(&issued.der).unwrap();
    assert_eq!(check_leaf(&leaf), Ok(&id));
    assert_eq!(leaf.subject(), "C=US, O=SPIRE");
    assert_eq!(extensions(&issued.der).len(), 6);
    let (_, parsed) = X509Certificate::from_der(&issued.der).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names.len(), 1, "the entry's ID alone");
    assert!(!parsed.extensions().iter().any(|extension| matches!(
        extension.parsed_extension(),
        ParsedExtension::NameConstraints(_)
    )));
}

#[test]
fn as_19_the_authoritys_own_key_is_never_certified() {
    let authority = authority(KeyType::EcP256);
    let own = PublicKey::from_spki(authority.certificate().spki()).unwrap();
    let id = id("/web");
    let refused = authority.sign(&spec(&id, &own), now());
    assert_eq!(refused, Err(X509AuthorityError::OwnKey));
}

#[test]
fn nothing_that_breaks_a_rule_is_signed() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    // a leaf without a path would be the trust domain itself.
    let root = trust_domain().id();
    let refused = authority.sign(&spec(&root, &key), now());
    assert!(matches!(
        refused,
        Err(X509AuthorityError::Lint(LintError::Rule(
            X509Error::RootPath(_)
        )))
    ));
    for name in ["", "a b", "web\0", "*", "a.*.b", "Zürich", "-a"] {
        let (id, names) = (id("/web"), [name.to_owned()]);
        let spec = LeafSpec {
            dns_names: &names,
            ..spec(&id, &key)
        };
        let refused = authority.sign(&spec, now());
        assert!(
            matches!(refused, Err(X509AuthorityError::DnsName(_))),
            "{name:?}: {refused:?}"
        );
    }
}

#[test]
fn an_authority_needs_its_own_key_and_a_ca_certificate() {
    let (one, other) = (authority(KeyType::EcP256), authority(KeyType::EcP256));
    let mixed = X509Authority::new(one.certificate().clone(), other.key);
    assert_eq!(mixed.err(), Some(X509AuthorityError::KeyMismatch));
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let (id, public_key) = (
        id("/web"),
        PublicKey::from_spki(key.public_key_spki()).unwrap(),
    );
    let leaf = one.sign(&spec(&id, &public_key), now()).unwrap();
    let leaf = X509Authority::new(Certificate::from_der(&leaf.der).unwrap(), key);
    assert_eq!(leaf.err(), Some(X509AuthorityError::NotCa));
}

#[test]
fn serials_are_random() {
    let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
    let id = id("/web");
    let serials: std::collections::BTreeSet<_> = (0..64)
        .map(|_| authority.sign(&spec(&id, &key), now()).unwrap().serial)
        .collect();
    assert_eq!(serials.len(), 64);
    let widest = serials.last().unwrap();
    assert!(128 - widest.leading_zeros() > 100, "128 random bits");
}

proptest! {
    #[test]
    fn whatever_is_issued_keeps_the_rules_and_verifies(
        path in "(/[a-zA-Z0-9._-]{0,20}[a-zA-Z0-9_-]){1,8}",
        dns_names in proptest::collection::btree_set("[a-z0-9](-?[a-z0-9]){0,20}(\\.[a-z0-9](-?[a-z0-9]){0,20}){0,4}", 0..5),
        ttl in 1_u64..100_000_000,
        age in 0_u64..86_399,
    ) {
        let (authority, key) = (authority(KeyType::EcP256), public_key(KeyType::EcP256));
        let (id, now) = (id(&path), now() + Duration::from_secs(age));
        let dns_names: Vec<String> = dns_names.into_iter().collect();
        let spec = LeafSpec {
            dns_names: &dns_names,
            ttl: Duration::from_secs(ttl),
            ..spec(&id, &key)
        };
        let issued = authority.sign(&spec, now).unwrap();
        let leaf = Certificate::from_der(&issued.der).unwrap();
        prop_assert_eq!(check_leaf(&leaf), Ok(&id));
        prop_assert_eq!(leaf.dns_names(), &dns_names);
        prop_assert!(leaf.not_after() <= authority.not_after());
        for moment in [now, leaf.not_after()] {
            prop_assert_eq!(
                verify_x509_svid(std::slice::from_ref(&leaf), &bundles(&authority), moment),
                Ok(id.clone())
            );
        }
        let over = leaf.not_after() + Duration::from_secs(1);
        prop_assert!(verify_x509_svid(&[leaf], &bundles(&authority), over).is_err());
    }
}
