//! Rows X-* of X509-SVID.md: a good leaf, and one fault at a time.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
};

mod properties;
mod vectors;

use super::*;
use crate::bundle::{Bundle, BundleSet, X509Authority};
use crate::der::tlv;
use crate::key::{KeyType, PrivateKey};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, PrivateKey>,
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn base(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + DAY).into();
    params.subject_alt_names = uris.iter().map(|one| uri(one)).collect();
    params
}

fn ca_params(trust_domain: &str) -> CertificateParams {
    let mut params = base(&[&format!("spiffe://{trust_domain}")]);
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn ca_from(params: CertificateParams, parent: Option<&Ca>) -> Ca {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let signed = match parent {
        None => params.self_signed(&key),
        Some(parent) => params.signed_by(&key, &parent.issuer),
    };
    Ca {
        certificate: Certificate::from_der(signed.unwrap().der()).unwrap(),
        issuer: Issuer::new(params, key),
    }
}

fn ca(trust_domain: &str) -> Ca {
    ca_from(ca_params(trust_domain), None)
}

fn leaf_params() -> CertificateParams {
    let mut params = base(&["spiffe://example.org/web"]);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn leaf(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> (Certificate, PrivateKey) {
    let mut params = leaf_params();
    change(&mut params);
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let signed = params.signed_by(&key, &ca.issuer).unwrap();
    (Certificate::from_der(signed.der()).unwrap(), key)
}

fn bundles(cas: &[(&str, &Ca)]) -> BundleSet {
    let bundle = |(name, ca): &(&str, &Ca)| {
        let mut bundle = Bundle::empty(TrustDomain::new(name).unwrap());
        bundle
            .x509_authorities
            .push(X509Authority::new(ca.certificate.clone()));
        Arc::new(bundle)
    };
    cas.iter().map(bundle).collect()
}

/// A SAN extension of these URIs, whatever their bytes are; not critical.
fn san(uris: &[&[u8]]) -> CustomExtension {
    let names: Vec<u8> = uris.iter().flat_map(|uri| tlv(0x86, uri)).collect();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], tlv(0x30, &names))
}

#[track_caller]
fn refused(change: impl FnOnce(&mut CertificateParams)) -> X509Error {
    let ca = ca("example.org");
    let (certificate, _) = leaf(&ca, change);
    verify_x509_svid(&[certificate], &bundles(&[("example.org", &ca)]), now()).unwrap_err()
}

#[test]
fn conf_x_14_a_good_leaf_alone_and_below_an_intermediate() {
    let root = ca("example.org");
    let (certificate, key) = leaf(&root, |_| {});
    let bundles = bundles(&[("example.org", &root)]);
    let id = verify_x509_svid(std::slice::from_ref(&certificate), &bundles, now()).unwrap();
    assert_eq!(id.as_str(), "spiffe://example.org/web");
    let svid = X509Svid::new(vec![certificate], key).unwrap();
    assert_eq!((svid.id(), svid.expires_at()), (&id, now() + DAY));
    assert_eq!(
        Certificate::chain_from_der(&svid.chain_der()).unwrap(),
        svid.chain()
    );

    let mut params = ca_params("example.org");
    params
        .distinguished_name
        .push(DnType::CommonName, "intermediate");
    let intermediate = ca_from(params, Some(&root));
    let (certificate, _) = leaf(&intermediate, |_| {});
    assert!(
        verify_x509_svid(
            &[certificate.clone(), intermediate.certificate],
            &bundles,
            now()
        )
        .is_ok()
    );
    assert!(verify_x509_svid(&[certificate], &bundles, now()).is_err());
}

#[test]
fn conf_x_01_x_17_exactly_one_uri() {
    for uris in [
        vec![],
        vec!["spiffe://example.org/a", "https://x"],
        vec!["spiffe://example.org/a", "spiffe://example.org/b"],
    ] {
        let count = uris.len();
        let error = refused(|leaf| {
            // An empty SAN would be left out; a DNS name keeps the extension.
            leaf.subject_alt_names = uris.into_iter().map(uri).collect();
            leaf.subject_alt_names
                .push(SanType::DnsName("x".try_into().unwrap()));
        });
        assert_eq!(error, X509Error::UriCount(count));
    }
}

#[test]
fn conf_x_02_dns_names_may_stand_beside() {
    let ca = ca("example.org");
    let (certificate, _) = leaf(&ca, |leaf| {
        leaf.subject_alt_names
            .push(SanType::DnsName("web".try_into().unwrap()))
    });
    assert_eq!(certificate.dns_names(), ["web"]);
    assert!(verify_x509_svid(&[certificate], &bundles(&[("example.org", &ca)]), now()).is_ok());
}

#[test]
fn conf_x_03_x_16_the_id_is_a_spiffe_id_with_a_path() {
    let with = |text: &'static str| refused(|leaf| leaf.subject_alt_names = vec![uri(text)]);
    assert!(matches!(
        with("spiffe://example.org"),
        X509Error::RootPath(_)
    ));
    assert!(matches!(with("https://example.org/web"), X509Error::Id(_)));
    assert!(matches!(with("SPIFFE://Example.ORG/w"), X509Error::Id(_)));
    assert!(matches!(with("spiffe://example.org/w/"), X509Error::Id(_)));
}

#[test]
fn conf_x_04_an_empty_subject_wants_a_critical_san() {
    let with = |critical: bool, subject: bool| {
        let mut extension = san(&[b"spiffe://example.org/web"]);
        extension.set_criticality(critical);
        let ca = ca("example.org");
        let (certificate, _) = leaf(&ca, |leaf| {
            leaf.subject_alt_names.clear();
            leaf.custom_extensions = vec![extension];
            if subject {
                let name = &mut leaf.distinguished_name;
                name.push(DnType::OrganizationName, "web");
            }
        });
        assert_eq!(certificate.parsed().san_critical, critical);
        verify_x509_svid(&[certificate], &bundles(&[("example.org", &ca)]), now())
    };
    assert_eq!(with(false, false), Err(X509Error::SanNotCritical));
    assert!(with(true, false).is_ok());
    assert!(
        with(false, true).is_ok(),
        "the subject may be named instead"
    );
}

#[test]
fn conf_x_07_x_08_x_15_a_ca_is_no_leaf() {
    let error = refused(|leaf| {
        leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        leaf.key_usages.push(KeyUsagePurpose::KeyCertSign);
    });
    assert_eq!(error, X509Error::LeafIsCa);
    assert_eq!(
        refused(|leaf| leaf.is_ca = IsCa::NoCa),
        X509Error::NoBasicConstraints
    );
}

#[test]
fn conf_x_10_x_12_x_15_key_usage() {
    assert_eq!(
        refused(|leaf| leaf.key_usages.clear()),
        X509Error::NoKeyUsage
    );
    assert_eq!(
        refused(|leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        X509Error::NoDigitalSignature
    );
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        assert_eq!(
            refused(|leaf| leaf.key_usages.push(usage)),
            X509Error::LeafMaySign
        );
    }
    let not_critical = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80]);
    let error = refused(|leaf| {
        leaf.key_usages.clear();
        leaf.custom_extensions.push(not_critical);
    });
    assert_eq!(error, X509Error::NoKeyUsage);
}

#[test]
fn conf_x_13_extended_key_usage_holds_both_or_is_absent() {
    for one in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        assert_eq!(
            refused(|leaf| leaf.extended_key_usages = vec![one]),
            X509Error::ExtKeyUsage
        );
    }
    let ca = ca("example.org");
    let (certificate, _) = leaf(&ca, |leaf| leaf.extended_key_usages.clear());
    assert!(verify_x509_svid(&[certificate], &bundles(&[("example.org", &ca)]), now()).is_ok());
}

#[test]
fn conf_x_14_time() {
    let expired = refused(|leaf| leaf.not_after = (now() - Duration::from_secs(1)).into());
    let early = refused(|leaf| leaf.not_before = (now() + Duration::from_secs(1)).into());
    assert!(matches!(
        (expired, early),
        (X509Error::Path { .. }, X509Error::Path { .. })
    ));

    let mut params = ca_params("example.org");
    params.not_after = (now() - Duration::from_secs(1)).into();
    let old = ca_from(params, None);
    let (certificate, _) = leaf(&old, |_| {});
    let refused = verify_x509_svid(&[certificate], &bundles(&[("example.org", &old)]), now());
    assert!(
        matches!(refused, Err(X509Error::NoAuthority(_))),
        "an expired root counts for nothing"
    );
}

#[test]
fn conf_x_14_intermediates_must_be_cas_that_may_sign() {
    let root = ca("example.org");
    for fault in 0..2 {
        let mut params = ca_params("example.org");
        params
            .distinguished_name
            .push(DnType::CommonName, "intermediate");
        if fault == 0 {
            params.is_ca = IsCa::ExplicitNoCa;
        } else {
            params.key_usages = vec![KeyUsagePurpose::CrlSign];
        }
        let intermediate = ca_from(params, Some(&root));
        let (certificate, _) = leaf(&intermediate, |_| {});
        let refused = verify_x509_svid(
            &[certificate, intermediate.certificate],
            &bundles(&[("example.org", &root)]),
            now(),
        );
        assert_eq!(refused, Err(X509Error::Intermediate(1)));
    }
}

#[test]
fn conf_x_14_path_length() {
    // An anchor's own constraints are not part of path validation (RFC 5280 §6.1); an intermediate's are.
    let root = ca("example.org");
    let below = |name: &str, constraints: BasicConstraints, parent: &Ca| {
        let mut params = ca_params("example.org");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(constraints);
        ca_from(params, Some(parent))
    };
    for (length, allowed) in [(0, false), (1, true)] {
        let upper = below("upper", BasicConstraints::Constrained(length), &root);
        let lower = below("lower", BasicConstraints::Unconstrained, &upper);
        let (certificate, _) = leaf(&lower, |_| {});
        let chain = [certificate, lower.certificate, upper.certificate];
        let verdict = verify_x509_svid(&chain, &bundles(&[("example.org", &root)]), now());
        assert_eq!(
            verdict.is_ok(),
            allowed,
            "path length {length}: {verdict:?}"
        );
    }
}

#[test]
fn conf_x_22_x_23_only_the_leafs_own_trust_domain_counts() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let both = bundles(&[("example.org", &ours), ("other.org", &theirs)]);
    // Their CA forges one of our IDs.
    let (forged, _) = leaf(&theirs, |_| {});
    assert!(matches!(
        verify_x509_svid(std::slice::from_ref(&forged), &both, now()),
        Err(X509Error::Path { .. })
    ));
    let without = bundles(&[("other.org", &theirs)]);
    assert!(matches!(
        verify_x509_svid(std::slice::from_ref(&forged), &without, now()),
        Err(X509Error::NoBundle(_))
    ));
    let empty = [Arc::new(Bundle::empty(
        TrustDomain::new("example.org").unwrap(),
    ))]
    .into_iter()
    .collect();
    assert!(matches!(
        verify_x509_svid(&[forged], &empty, now()),
        Err(X509Error::NoAuthority(_))
    ));
}

#[test]
fn s_01_self_signed_and_foreign_leaves_are_refused() {
    let ours = ca("example.org");
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let own = Certificate::from_der(leaf_params().self_signed(&key).unwrap().der()).unwrap();
    assert!(matches!(
        verify_x509_svid(&[own], &bundles(&[("example.org", &ours)]), now()),
        Err(X509Error::Path { .. })
    ));
    assert_eq!(
        verify_x509_svid(&[], &bundles(&[("example.org", &ours)]), now()),
        Err(X509Error::EmptyChain)
    );
}

#[test]
fn key_and_leaf_belong_together() {
    let ca = ca("example.org");
    let (certificate, _) = leaf(&ca, |_| {});
    let other = PrivateKey::generate(KeyType::EcP256).unwrap();
    assert_eq!(
        X509Svid::new(vec![certificate], other),
        Err(X509Error::KeyMismatch)
    );
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    assert_eq!(X509Svid::new(Vec::new(), key), Err(X509Error::EmptyChain));
}

#[test]
fn pem_of_certificates_goes_there_and_back() {
    let ca = ca("example.org");
    let td = TrustDomain::new("example.org").unwrap();
    let bundle = Bundle::from_pem(&td, &ca.certificate.to_pem()).unwrap();
    assert_eq!(bundle.x509_authorities[0].certificate, ca.certificate);
}
