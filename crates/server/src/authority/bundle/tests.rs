use std::time::UNIX_EPOCH;

use ca::{CaSpec, Subject};
use identity::{KeyType, PrivateKey};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn at(hours: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000) + HOUR * hours
}

fn bundle(x509_ends: &[u32], jwt_ends: &[u32]) -> Bundle {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let mut bundle = Bundle::empty(trust_domain.clone());
    for end in x509_ends {
        let spec = CaSpec {
            trust_domain: &trust_domain,
            subject: Subject::ca(),
            ttl: HOUR * *end,
        };
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let authority = ca::X509Authority::self_signed(key, &spec, at(0)).unwrap();
        let certificate = authority.certificate().clone();
        add(&mut bundle, Public::X509(X509Authority::new(certificate)));
    }
    for end in jwt_ends {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let authority = ca::JwtAuthority::new(format!("key-{end}"), key, at(*end));
        add(&mut bundle, Public::Jwt(authority.public()));
    }
    bundle
}

fn pruned(mut bundle: Bundle, now: SystemTime) -> (usize, usize) {
    prune(&mut bundle, now);
    (bundle.x509_authorities.len(), bundle.jwt_authorities.len())
}

#[test]
fn authorities_go_a_day_after_their_end() {
    let bundle = bundle(&[10, 30, 60], &[10, 60]);
    assert_eq!(prune_at(&bundle), Some(at(34)));
    let just_before = at(34) - Duration::from_secs(1);
    assert_eq!(pruned(bundle.clone(), just_before), (3, 2));
    assert_eq!(pruned(bundle.clone(), at(34)), (2, 1));
    assert_eq!(pruned(bundle, at(54)), (1, 1));
}

#[test]
fn the_last_x509_authority_stays_however_old() {
    let bundle = bundle(&[10, 10], &[]);
    assert_eq!(
        prune_at(&bundle),
        None,
        "nothing would go, so nothing is due"
    );
    assert_eq!(pruned(bundle, at(10_000)), (2, 0));
}

#[test]
fn foreign_jwt_keys_without_an_end_stay() {
    let mut bundle = bundle(&[10], &[20]);
    bundle.jwt_authorities[0].expires_at = None;
    assert_eq!(prune_at(&bundle), None);
    assert_eq!(pruned(bundle, at(10_000)), (1, 1));
}

#[test]
fn an_authority_stands_there_once() {
    let mut bundle = bundle(&[10], &[10]);
    let again = (
        bundle.x509_authorities[0].clone(),
        bundle.jwt_authorities[0].clone(),
    );
    add(&mut bundle, Public::X509(again.0));
    add(&mut bundle, Public::Jwt(again.1));
    assert_eq!(pruned(bundle, at(0)), (1, 1));
}
