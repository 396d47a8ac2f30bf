//! Certificates that are wrong in one place, made by hand.

use super::*;

/// A leaf's DER, whose SANs are these extensions.
fn leaf_with(ca: &Ca, sans: Vec<CustomExtension>) -> Vec<u8> {
    let mut params = leaf_params();
    params.subject_alt_names.clear();
    params.custom_extensions = sans;
    for extension in &mut params.custom_extensions {
        extension.set_criticality(true);
    }
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let signed = params.signed_by(&key, &ca.issuer).unwrap();
    signed.der().to_vec()
}

fn verify(der: &[u8], ca: &Ca) -> Result<SpiffeId, X509Error> {
    let leaf = Certificate::from_der(der)?;
    verify_x509_svid(&[leaf], &bundles(&[("example.org", ca)]), now())
}

#[test]
fn conf_x_16_uris_that_are_no_spiffe_ids() {
    let ca = ca("example.org");
    let good: &[u8] = b"spiffe://example.org/web";
    assert!(verify(&leaf_with(&ca, vec![san(&[good])]), &ca).is_ok());
    let long = format!("spiffe://example.org/{}", "a".repeat(4096));
    for uri in [
        &b"spiffe://example.org/web\0"[..],
        b"spiffe://example.org\0.evil.org/web",
        b"\0spiffe://example.org/web",
        long.as_bytes(),
        b"",
    ] {
        let refused = verify(&leaf_with(&ca, vec![san(&[uri])]), &ca);
        assert!(matches!(refused, Err(X509Error::Id(_))), "{refused:?}");
    }
    let refused = |uri: &[u8]| verify(&leaf_with(&ca, vec![san(&[uri])]), &ca);
    let accented = refused("spiffe://example.org/\u{e9}".as_bytes());
    assert!(matches!(accented, Err(X509Error::Id(_))), "{accented:?}");
    let no_text = refused(b"spiffe://example.org/\xff");
    assert!(
        matches!(no_text, Err(X509Error::Malformed(_))),
        "{no_text:?}"
    );
}

/// A URI that cannot be read is one nevertheless.
#[test]
fn conf_x_17_an_unreadable_uri_beside_a_good_one() {
    let ca = ca("example.org");
    let good: &[u8] = b"spiffe://example.org/web";
    let verify = |uris: [&[u8]; 2]| verify(&leaf_with(&ca, vec![san(&uris)]), &ca);
    let (accented, no_text) = (&b"\xc3\xa9"[..], &b"https://example.org/\xff"[..]);
    for uris in [[good, accented], [accented, good]] {
        assert_eq!(verify(uris), Err(X509Error::UriCount(2)));
    }
    for uris in [[good, no_text], [no_text, good]] {
        let refused = verify(uris);
        assert!(
            matches!(refused, Err(X509Error::Malformed(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn conf_x_17_the_san_extension_stands_once() {
    let ca = ca("example.org");
    let one = || san(&[b"spiffe://example.org/web"]);
    for twice in [
        vec![one(), one()],
        vec![one(), san(&[b"spiffe://example.org/db"])],
        vec![one(), san(&[])],
    ] {
        let refused = verify(&leaf_with(&ca, twice), &ca);
        assert!(
            matches!(refused, Err(X509Error::Malformed(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn an_extension_that_stands_twice_is_refused() {
    let ca = ca("example.org");
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let mut params = leaf_params();
    let usage = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80]);
    params.custom_extensions = vec![usage];
    let signed = params.signed_by(&key, &ca.issuer).unwrap();
    assert!(Certificate::from_der(signed.der()).is_err());
}

/// A chain over an intermediate whose URIs are these.
fn over(root: &Ca, uris: &[&str]) -> Vec<Certificate> {
    let mut params = ca_params("example.org");
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "intermediate");
    params.subject_alt_names = uris.iter().map(|one| uri(one)).collect();
    let intermediate = ca_from(params, Some(root));
    let (certificate, _) = leaf(&intermediate, |_| {});
    vec![certificate, intermediate.certificate]
}

#[test]
fn conf_x_05_an_intermediate_issues_in_its_own_trust_domain() {
    let root = ca("example.org");
    let ours = bundles(&[("example.org", &root)]);
    // Without an ID, with the trust domain's, and with the form of the standard's own example (§10.9).
    let forms: [&[&str]; 3] = [&[], &["spiffe://example.org"], &["spiffe://example.org/"]];
    for uris in forms {
        let verdict = verify_x509_svid(&over(&root, uris), &ours, now());
        assert!(verdict.is_ok(), "{uris:?}: {verdict:?}");
    }
    let foreign = verify_x509_svid(&over(&root, &["spiffe://other.org"]), &ours, now());
    let expected = X509Error::ForeignIntermediate {
        number: 1,
        theirs: TrustDomain::new("other.org").unwrap(),
        ours: TrustDomain::new("example.org").unwrap(),
    };
    assert_eq!(foreign, Err(expected));
}

/// What a bundle is of decides, not what its certificates call themselves.
#[test]
fn conf_x_23_a_root_counts_for_the_bundle_it_stands_in() {
    let named_other = ca("other.org");
    let ours = bundles(&[("example.org", &named_other)]);
    let (own, _) = leaf(&named_other, |_| {});
    assert!(verify_x509_svid(&[own], &ours, now()).is_ok());
    let (foreign, _) = leaf(&named_other, |leaf| {
        leaf.subject_alt_names = vec![uri("spiffe://other.org/web")];
    });
    assert!(matches!(
        verify_x509_svid(&[foreign], &ours, now()),
        Err(X509Error::NoBundle(_))
    ));
    let mut params = ca_params("example.org");
    params.subject_alt_names = vec![uri("spiffe://example.org/")];
    let slashed = ca_from(params, None);
    let (own, _) = leaf(&slashed, |_| {});
    assert!(verify_x509_svid(&[own], &bundles(&[("example.org", &slashed)]), now()).is_ok());
}

/// One key, two trust domains: the CA of one issues nothing of the other.
#[test]
fn conf_x_23_one_key_under_two_trust_domains() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let [ours, theirs] = ["example.org", "other.org"].map(|name| {
        let params = ca_params(name);
        let signed = params.self_signed(&key).unwrap();
        Ca {
            certificate: Certificate::from_der(signed.der()).unwrap(),
            issuer: Issuer::new(params, key.clone()),
        }
    });
    let both = bundles(&[("example.org", &ours), ("other.org", &theirs)]);
    let (own, _) = leaf(&ours, |_| {});
    assert!(verify_x509_svid(&[own], &both, now()).is_ok());
    let (forged, _) = leaf(&theirs, |_| {});
    assert!(matches!(
        verify_x509_svid(std::slice::from_ref(&forged), &both, now()),
        Err(X509Error::Path { .. })
    ));
    // Nor with that CA in the chain, be it as an intermediate that the common key signed.
    let cross = ca_params("other.org");
    let cross = cross.signed_by(&key, &ours.issuer).unwrap();
    let cross = Certificate::from_der(cross.der()).unwrap();
    assert!(matches!(
        verify_x509_svid(&[forged, cross], &both, now()),
        Err(X509Error::ForeignIntermediate { .. })
    ));
}
