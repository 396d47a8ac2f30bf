use std::sync::Arc;

use identity::{Bundle, BundleSet, JwtSvid, KeyType, TrustDomain};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_800_000_000_750)
}

fn second(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn authority(kind: KeyType) -> JwtAuthority {
    JwtAuthority::new(
        JwtAuthority::random_key_id().unwrap(),
        PrivateKey::generate(kind).unwrap(),
        now() + Duration::from_secs(3600),
    )
}

fn bundles(authority: &JwtAuthority) -> BundleSet {
    let mut bundle = Bundle::empty(TrustDomain::new("example.org").unwrap());
    bundle.jwt_authorities.push(authority.public());
    [Arc::new(bundle)].into_iter().collect()
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

fn spec<'a>(id: &'a SpiffeId, audience: &'a [String]) -> JwtSpec<'a> {
    JwtSpec {
        id,
        audience,
        ttl: Duration::from_secs(300),
        issuer: None,
        include_jti: false,
    }
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn conf_id_19_j_02_j_03_j_04_j_05_j_06_j_07_j_08_j_09_header_and_claims() {
    let (authority, id) = (authority(KeyType::EcP256), id());
    let audience = ["db".to_owned()];
    let issued = authority.sign(&spec(&id, &audience), now()).unwrap();
    assert_eq!(
        part(&issued.token, 0),
        serde_json::json!({"alg": "ES256", "kid": authority.key_id(), "typ": "JWT"})
    );
    assert_eq!(
        part(&issued.token, 1),
        serde_json::json!({
            "sub": "spiffe://example.org/web",
            "aud": ["db"],
            "iat": 1_800_000_000,
            "exp": 1_800_000_300,
        })
    );
    assert_eq!(issued.issued_at, second(1_800_000_000));
    assert_eq!(issued.expires_at, second(1_800_000_300));
}

#[test]
fn issuer_and_jti_stand_there_when_asked_for() {
    let (authority, id) = (authority(KeyType::EcP256), id());
    let audience = ["db".to_owned()];
    let spec = JwtSpec {
        issuer: Some("https://oidc.example.org"),
        include_jti: true,
        ..spec(&id, &audience)
    };
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..2 {
        let issued = authority.sign(&spec, now()).unwrap();
        let claims = part(&issued.token, 1);
        assert_eq!(claims["iss"], "https://oidc.example.org");
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[0].len(), 32);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn every_kind_of_key_mints_what_verifies() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let (authority, id) = (authority(kind), id());
        let audience = ["db".to_owned()];
        let issued = authority.sign(&spec(&id, &audience), now()).unwrap();
        let svid = JwtSvid::verify(&issued.token, "db", &bundles(&authority), now()).unwrap();
        assert_eq!(svid.id, id, "{kind}");
    }
}

#[test]
fn a_token_never_outlives_its_authority() {
    let (authority, id) = (authority(KeyType::EcP256), id());
    let audience = ["db".to_owned()];
    let spec = spec(&id, &audience);
    let late = authority.not_after() - Duration::from_secs(60);
    let issued = authority.sign(&spec, late).unwrap();
    assert_eq!(issued.expires_at, second(1_800_003_600));
    let over = authority.sign(&spec, authority.not_after());
    assert_eq!(over, Err(JwtError::Expired));
}

#[test]
fn what_breaks_a_rule_is_not_minted() {
    let (authority, id) = (authority(KeyType::EcP256), id());
    let sign = |spec: JwtSpec<'_>| authority.sign(&spec, now()).unwrap_err();
    assert_eq!(sign(spec(&id, &[])), JwtError::Audience, "J-07");
    assert_eq!(
        sign(spec(&id, &[String::new()])),
        JwtError::Audience,
        "J-07"
    );
    let audience = ["db".to_owned()];
    let root = id.trust_domain().id();
    assert_eq!(
        sign(spec(&root, &audience)),
        JwtError::RootPath(root.clone())
    );
    let ttl = Duration::from_millis(1);
    let short = JwtSpec {
        ttl,
        ..spec(&id, &audience)
    };
    assert_eq!(sign(short), JwtError::Ttl(ttl));
}

#[test]
fn s_4_tokens_never_print_themselves() {
    let (authority, id) = (authority(KeyType::EcP256), id());
    let audience = ["db".to_owned()];
    let issued = authority.sign(&spec(&id, &audience), now()).unwrap();
    assert!(!format!("{issued:?}").contains("eyJ"));
}

#[test]
fn key_ids_are_32_random_letters_and_digits() {
    let (one, other) = (
        JwtAuthority::random_key_id().unwrap(),
        JwtAuthority::random_key_id().unwrap(),
    );
    assert_ne!(one, other);
    assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}

proptest! {
    #[test]
    fn whatever_is_minted_verifies_for_each_of_its_audiences(
        audience in proptest::collection::vec("\\PC{1,40}", 1..4),
        ttl in 1_u64..10_000_000,
    ) {
        let (authority, id) = (authority(KeyType::EcP256), id());
        let spec = JwtSpec { ttl: Duration::from_secs(ttl), ..spec(&id, &audience) };
        let issued = authority.sign(&spec, now()).unwrap();
        for one in &audience {
            let svid = JwtSvid::verify(&issued.token, one, &bundles(&authority), now()).unwrap();
            prop_assert_eq!(svid.expires_at, issued.expires_at);
            prop_assert_eq!(&svid.audience, &audience);
        }
    }
}
