use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::TrustDomain;
use proto::workload::{X509svid, X509svidResponse};

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// An SVID as the wire has it; the leaf stands in for its own authority.
fn wire(id: &str) -> X509svid {
    let id = SpiffeId::parse(id).unwrap();
    let svid = testkit::forge(&id, now());
    let mut authorities = Bundle::empty(id.trust_domain().clone());
    let authority = X509Authority::new(svid.leaf().clone());
    authorities.x509_authorities.push(authority);
    proto::convert::workload_x509_svid(&svid, &authorities, "web")
}

fn check(change: impl FnOnce(&mut X509svidResponse), expected: &str) {
    let mut answer = X509svidResponse {
        svids: vec![wire("spiffe://example.org/web")],
        ..X509svidResponse::default()
    };
    change(&mut answer);
    let refused = context(answer).expect_err(expected).to_string();
    assert!(refused.contains(expected), "{refused}");
}

#[test]
fn a_message_gives_identities_and_bundles_by_trust_domain() {
    let own = wire("spiffe://example.org/web");
    let foreign = wire("spiffe://other.example/x").bundle;
    let mut answer = X509svidResponse {
        svids: vec![own, wire("spiffe://example.org/admin")],
        ..X509svidResponse::default()
    };
    let federated = &mut answer.federated_bundles;
    federated.insert("spiffe://other.example".to_owned(), foreign.clone());
    federated.insert("third.example".to_owned(), foreign.clone());
    // A message cannot put authorities into the own domain by the back door.
    federated.insert("example.org".to_owned(), foreign);
    let context = context(answer).unwrap();
    assert_eq!(context.default_svid().svid.id().path(), "/web");
    assert_eq!(context.default_svid().hint, "web");
    assert_eq!(context.svids.len(), 2);
    let domains: Vec<_> = context
        .bundles
        .iter()
        .map(|one| &one.trust_domain)
        .collect();
    assert_eq!(domains.len(), 3, "{domains:?}");
    let example = TrustDomain::new("example.org").unwrap();
    let id = |one: &Certificate| one.spiffe_id().cloned();
    let authorities = &context.bundles.get(&example).unwrap().x509_authorities;
    let of_own = |one: &X509Authority| id(&one.certificate).unwrap().is_member_of(&example);
    assert!(authorities.iter().all(of_own));
}

#[test]
fn what_breaks_a_rule_is_refused() {
    check(|answer| answer.svids.clear(), "no SVID");
    check(|answer| answer.svids[0].spiffe_id = "web".into(), "SVID 0");
    check(
        |answer| answer.svids[0].spiffe_id = "spiffe://example.org/other".into(),
        "is for spiffe://example.org/web",
    );
    check(
        |answer| answer.svids[0].x509_svid_key = wire("spiffe://example.org/web").x509_svid_key,
        "does not belong",
    );
    check(
        |answer| answer.svids[0].x509_svid = b"\x30\x82".as_slice().into(),
        "not an X.509 certificate",
    );
    check(|answer| answer.svids[0].bundle.clear(), "no certificate");
    check(
        |answer| {
            let bundles = &mut answer.federated_bundles;
            bundles.insert("other.example".to_owned(), b"x".as_slice().into());
        },
        "other.example",
    );
}
