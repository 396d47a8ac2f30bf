use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use identity::JwtAuthority;
use serde_json::json;

use super::*;
use crate::fixtures::{noon, trust_domain};

const MINUTE: Duration = Duration::from_mins(1);

fn token(path: &str, from: SystemTime, life: Duration) -> JwtSvid {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_secs()
    };
    let claims = json!({
        "sub": format!("spiffe://example.org{path}"),
        "aud": ["a"],
        "iat": seconds(from),
        "exp": seconds(from + life),
    });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
    let text = format!("{}.{}.c2ln", part(header), part(claims));
    JwtSvid::parse_unverified(&text).unwrap()
}

fn key(entry: &str, audience: &[&str]) -> JwtKey {
    let audience: Vec<String> = audience.iter().map(ToString::to_string).collect();
    JwtKey::new(&EntryId::new(entry).unwrap(), &audience)
}

#[test]
fn a_token_is_fresh_for_half_of_its_life_and_valid_to_its_end() {
    let mut cache = JwtCache::new(10);
    let svid = token("/web", noon(), 10 * MINUTE);
    cache.store(key("web", &["a"]), svid.clone(), noon() + MINUTE);
    let mut at = |minutes| cache.look_up(&key("web", &["a"]), noon() + minutes * MINUTE);
    assert_eq!(at(4), Held::Fresh(svid.clone()));
    assert_eq!(at(5), Held::Stale(svid.clone()));
    assert_eq!(at(9), Held::Stale(svid));
    assert_eq!(at(10), Held::Nothing);
}

#[test]
fn the_order_of_audiences_means_nothing() {
    assert_eq!(key("web", &["a", "b"]), key("web", &["b", "a", "b"]));
    assert_ne!(key("web", &["a"]), key("web", &["a", "b"]));
    assert_ne!(key("web", &["a"]), key("db", &["a"]));
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut cache = JwtCache::new(2);
    for name in ["a", "b"] {
        cache.store(key(name, &["a"]), token("/x", noon(), MINUTE), noon());
    }
    assert_ne!(cache.look_up(&key("a", &["a"]), noon()), Held::Nothing);
    cache.store(key("c", &["a"]), token("/x", noon(), MINUTE), noon());
    assert_eq!(cache.len(), 2);
    assert_eq!(cache.look_up(&key("b", &["a"]), noon()), Held::Nothing);
    assert_ne!(cache.look_up(&key("a", &["a"]), noon()), Held::Nothing);
}

#[test]
fn tokens_of_gone_entries_and_tainted_keys_are_dropped() {
    let mut bundle = Bundle::empty(trust_domain());
    bundle.jwt_authorities.push(JwtAuthority {
        key_id: "k1".to_owned(),
        public_key: Vec::new(),
        expires_at: None,
        tainted: false,
    });
    let mut cache = JwtCache::new(10);
    for name in ["a", "b"] {
        cache.store(key(name, &["a"]), token("/x", noon(), MINUTE), noon());
    }
    let tainted = cache.retain(|entry, _| entry.as_str() == "a", &bundle, noon());
    assert_eq!((cache.len(), tainted), (1, 0));
    bundle.jwt_authorities[0].tainted = true;
    assert_eq!(cache.retain(|_, _| true, &bundle, noon()), 1, "tainted");
    assert!(cache.is_empty());
}
