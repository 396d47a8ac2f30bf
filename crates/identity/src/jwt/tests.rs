//! Rows J-* of JWT-SVID.md.

mod malformed;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::bundle::{Bundle, JwtAuthority};
use crate::key::{KeyType, PrivateKey};

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

struct World {
    key: PrivateKey,
    bundles: BundleSet,
}

fn world(kind: KeyType) -> World {
    let key = PrivateKey::generate(kind).unwrap();
    let mut bundle = Bundle::empty(TrustDomain::new("example.org").unwrap());
    bundle.jwt_authorities.push(JwtAuthority {
        key_id: "k".to_owned(),
        public_key: key.public_key_spki().to_vec(),
        expires_at: None,
        tainted: false,
    });
    World {
        key,
        bundles: [Arc::new(bundle)].into_iter().collect(),
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"sub": "spiffe://example.org/web", "aud": ["a", "b"], "exp": NOW + 300, "iat": NOW})
}

impl World {
    fn sign_text(&self, header: &str, payload: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = self.key.sign_jws(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    fn verify(&self, token: &str) -> Result<JwtSvid, JwtError> {
        JwtSvid::verify(token, "a", &self.bundles, now())
    }

    fn with_header(&self, header: &Value) -> Result<JwtSvid, JwtError> {
        self.verify(&self.sign(header, &claims()))
    }

    fn with_claim(&self, name: &str, value: Value) -> Result<JwtSvid, JwtError> {
        let mut changed = claims();
        changed[name] = value;
        self.verify(&self.sign(&header(), &changed))
    }

    fn without_claim(&self, name: &str) -> Result<JwtSvid, JwtError> {
        let mut changed = claims();
        changed.as_object_mut().unwrap().remove(name);
        self.verify(&self.sign(&header(), &changed))
    }
}

#[test]
fn conf_j_06_j_10_a_good_token_of_every_key_kind() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let world = world(kind);
        let svid = world
            .with_header(&json!({"alg": world.key.jws_alg(), "kid": "k"}))
            .unwrap();
        assert_eq!(svid.id.as_str(), "spiffe://example.org/web");
        assert_eq!(svid.audience, ["a", "b"]);
        assert_eq!(svid.expires_at, now() + Duration::from_secs(300));
    }
}

#[test]
fn conf_j_01_exactly_three_parts() {
    let world = world(KeyType::EcP256);
    let token = world.sign(&header(), &claims());
    for bad in [
        "",
        ".",
        "..",
        "a.b",
        &format!("{token}.x"),
        &format!(".{token}"),
        "{\"payload\":\"\"}",
    ] {
        assert!(world.verify(bad).is_err(), "{bad}");
    }
}

#[test]
fn conf_j_02_only_alg_kid_typ_in_the_header() {
    let world = world(KeyType::EcP256);
    for name in [
        "crit", "jwk", "jku", "x5c", "x5u", "b64", "cty", "zip", "iss",
    ] {
        let mut header = header();
        header[name] = json!(false);
        assert_eq!(world.with_header(&header), Err(JwtError::Header), "{name}");
    }
    let twice = world.sign_text(
        r#"{"alg":"ES256","alg":"ES256","kid":"k"}"#,
        &claims().to_string(),
    );
    assert_eq!(world.verify(&twice), Err(JwtError::Malformed));
}

#[test]
fn conf_j_03_only_the_nine_algorithms() {
    let world = world(KeyType::EcP256);
    let texts = [
        "none",
        "None",
        "nOnE",
        "",
        "HS256",
        "HS512",
        "EdDSA",
        "ES256K",
        "ML-DSA-65",
        "es256",
    ];
    let others = [json!(["ES256"]), json!(5), json!(null)];
    for alg in texts.iter().map(|alg| json!(alg)).chain(others) {
        assert_eq!(
            world.with_header(&json!({"alg": alg, "kid": "k"})),
            Err(JwtError::Algorithm),
            "{alg}"
        );
    }
    assert_eq!(
        world.with_header(&json!({"kid": "k"})),
        Err(JwtError::Algorithm)
    );
}

#[test]
fn conf_j_04_a_kid_is_required() {
    let world = world(KeyType::EcP256);
    assert_eq!(
        world.with_header(&json!({"alg": "ES256"})),
        Err(JwtError::KeyId)
    );
    for kid in [json!(5), json!(null), json!(""), json!("k".repeat(4096))] {
        assert_eq!(
            world.with_header(&json!({"alg": "ES256", "kid": kid})),
            Err(JwtError::KeyId)
        );
    }
    for kid in ["../../x", "other"] {
        let refused = world.with_header(&json!({"alg": "ES256", "kid": kid}));
        assert!(matches!(refused, Err(JwtError::UnknownKey(_))), "{kid}");
    }
}

#[test]
fn conf_j_05_typ_is_jwt_or_jose() {
    let world = world(KeyType::EcP256);
    for typ in ["JWT", "JOSE"] {
        assert!(
            world
                .with_header(&json!({"alg": "ES256", "kid": "k", "typ": typ}))
                .is_ok()
        );
    }
    for typ in [
        json!("wit+jwt"),
        json!("jwt"),
        json!("at+jwt"),
        json!(""),
        json!(null),
        json!(1),
    ] {
        let refused = world.with_header(&json!({"alg": "ES256", "kid": "k", "typ": typ}));
        assert_eq!(refused, Err(JwtError::Type), "{typ}");
    }
}

#[test]
fn conf_j_06_sub_is_a_spiffe_id_with_a_path() {
    let world = world(KeyType::EcP256);
    assert_eq!(world.without_claim("sub"), Err(JwtError::NoSubject));
    assert_eq!(
        world.with_claim("sub", json!("spiffe://example.org")),
        Err(JwtError::NoSubject)
    );
    for sub in [
        "",
        "web",
        "spiffe://EXAMPLE.org/web",
        "spiffe://example.org/web/",
    ] {
        assert!(
            matches!(
                world.with_claim("sub", json!(sub)),
                Err(JwtError::Subject(_))
            ),
            "{sub}"
        );
    }
    let twice = r#"{"sub":"spiffe://example.org/web","sub":"spiffe://example.org/x","aud":"a","exp":1900000000}"#;
    assert_eq!(
        world.verify(&world.sign_text(&header().to_string(), twice)),
        Err(JwtError::Malformed)
    );
}

#[test]
fn conf_j_07_aud() {
    let world = world(KeyType::EcP256);
    for good in [json!("a"), json!(["a"]), json!(["b", "a"])] {
        assert!(world.with_claim("aud", good).is_ok());
    }
    for bad in [
        json!([]),
        json!(""),
        json!([""]),
        json!({}),
        json!(5),
        json!(["a", 5]),
    ] {
        assert_eq!(
            world.with_claim("aud", bad.clone()),
            Err(JwtError::NoAudience),
            "{bad}"
        );
    }
    assert_eq!(world.without_claim("aud"), Err(JwtError::NoAudience));
    assert_eq!(
        world.with_claim("aud", json!(["other"])),
        Err(JwtError::Audience("a".to_owned()))
    );
}

#[test]
fn conf_j_09_exp_is_present_and_ahead() {
    let world = world(KeyType::EcP256);
    assert_eq!(world.without_claim("exp"), Err(JwtError::NoExpiry));
    for bad in [
        json!(null),
        json!("1900000000"),
        json!(-1),
        json!(1e300),
        json!(true),
    ] {
        assert_eq!(
            world.with_claim("exp", bad.clone()),
            Err(JwtError::NoExpiry),
            "{bad}"
        );
    }
    let overflow = r#"{"sub":"spiffe://example.org/web","aud":"a","exp":1e400}"#;
    assert!(
        world
            .verify(&world.sign_text(&header().to_string(), overflow))
            .is_err()
    );
    for past in [0, NOW - 60] {
        assert_eq!(
            world.with_claim("exp", json!(past)),
            Err(JwtError::Expired),
            "{past}"
        );
    }
    assert!(
        world.with_claim("exp", json!(NOW - 59)).is_ok(),
        "within the leeway"
    );
    assert!(world.with_claim("exp", json!(NOW as f64 + 0.5)).is_ok());
}

#[test]
fn conf_j_10_nbf_and_iat_may_be_a_minute_ahead() {
    let world = world(KeyType::EcP256);
    for name in ["nbf", "iat"] {
        assert!(world.with_claim(name, json!(NOW + 60)).is_ok());
        assert_eq!(
            world.with_claim(name, json!(NOW + 61)),
            Err(JwtError::NotYet),
            "{name}"
        );
        assert!(matches!(
            world.with_claim(name, json!("soon")),
            Err(JwtError::Time(_))
        ));
    }
}

#[test]
fn conf_j_13_j_14_only_the_subjects_own_bundle_counts() {
    let World { key, bundles } = world(KeyType::EcP256);
    let other = TrustDomain::new("other.org").unwrap();
    let foreign = World { key, bundles };
    let refused = foreign.with_claim("sub", json!("spiffe://other.org/web"));
    assert_eq!(refused, Err(JwtError::NoBundle(other.clone())));

    let mut bundles = foreign.bundles;
    bundles.insert(Arc::new(Bundle::empty(other.clone())));
    let foreign = World {
        key: foreign.key,
        bundles,
    };
    let refused = foreign.with_claim("sub", json!("spiffe://other.org/web"));
    assert_eq!(refused, Err(JwtError::UnknownKey(other)));
}

/// The keys of a bundle's other uses sign no JWT-SVID, whatever their `kid` is.
#[test]
fn conf_j_13_keys_of_another_use_count_for_nothing() {
    let World { key, .. } = world(KeyType::EcP256);
    for usage in ["x509-svid", "wit-svid", "sig", "JWT-SVID"] {
        let mut jwk = crate::jwk::to_jwk(key.public_key_spki()).unwrap();
        jwk.insert("use".into(), json!(usage));
        jwk.insert("kid".into(), json!("k"));
        let document = json!({"keys": [jwk]}).to_string();
        let td = TrustDomain::new("example.org").unwrap();
        let bundle = Bundle::from_spiffe_json(&td, document.as_bytes()).unwrap();
        let world = World {
            key: key.clone(),
            bundles: [Arc::new(bundle)].into_iter().collect(),
        };
        let refused = world.with_header(&header());
        assert_eq!(refused, Err(JwtError::UnknownKey(td)), "{usage}");
    }
}

#[test]
fn conf_j_15_alg_fits_the_key() {
    let world = world(KeyType::EcP256);
    for alg in ["RS256", "PS256", "ES384", "ES512"] {
        assert_eq!(
            world.with_header(&json!({"alg": alg, "kid": "k"})),
            Err(JwtError::KeyKind),
            "{alg}"
        );
    }
}

#[test]
fn conf_j_10_signatures() {
    let world = world(KeyType::EcP256);
    let token = world.sign(&header(), &claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let order = [0xff; 32];
    let der = world.key.sign(signed.as_bytes()).unwrap();
    let wrong: Vec<Vec<u8>> = vec![
        vec![],
        vec![0; 64],
        [order, order].concat(),
        der,
        raw[..63].to_vec(),
        [&raw[..], &[0]].concat(),
    ];
    for bytes in wrong {
        let refused = world.verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes)));
        assert_eq!(refused, Err(JwtError::Signature));
    }
    for text in [
        format!("{signature}="),
        format!("{signature} "),
        signature.replace(['-', '_'], "+") + "+",
    ] {
        assert!(world.verify(&format!("{signed}.{text}")).is_err());
    }
    let (other, _) = world
        .sign(&header(), &json!({}))
        .split_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert!(world.verify(&format!("{other}.x.{signature}")).is_err());
}

#[test]
fn large_and_deep_tokens_are_refused() {
    let world = world(KeyType::EcP256);
    assert_eq!(
        world.with_claim("x", json!("a".repeat(1 << 20))),
        Err(JwtError::TooLong)
    );
    let deep = format!("{{\"x\":{}", "[".repeat(10_000));
    assert_eq!(
        world.verify(&world.sign_text(&header().to_string(), &deep)),
        Err(JwtError::Malformed)
    );
    for payload in ["[]", "5", "\"x\"", "null", ""] {
        assert_eq!(
            world.verify(&world.sign_text(&header().to_string(), payload)),
            Err(JwtError::Malformed)
        );
    }
}

#[test]
fn tokens_never_print_themselves() {
    let world = world(KeyType::EcP256);
    let token = world.sign(&header(), &claims());
    let printed = format!("{:?}", world.verify(&token).unwrap());
    assert!(
        !printed.contains(token.split('.').next().unwrap()),
        "{printed}"
    );
}

proptest! {
    #[test]
    fn one_changed_byte_is_noticed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
        let world = world(KeyType::EcP256);
        let token = world.sign(&header(), &claims());
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        // The last character carries bits that base64 ignores unless they are set, which is refused.
        prop_assert!(changed == token || world.verify(&changed).is_err());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*", parts in proptest::collection::vec("[A-Za-z0-9_-]*", 0..5)) {
        let _ = JwtSvid::parse_unverified(&text);
        let _ = JwtSvid::parse_unverified(&parts.join("."));
    }
}
