//! Rows B-* of SPIFFE_Trust_Domain_and_Bundle.md, and X-18…X-21.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose};
use serde_json::{Value, json};

mod properties;
mod vectors;

use super::*;
use crate::jwk;
use crate::key::{KeyType, PrivateKey};

fn td() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn read(document: &Value) -> Result<Bundle, BundleError> {
    Bundle::from_spiffe_json(&td(), document.to_string().as_bytes())
}

fn counts(document: &Value) -> (usize, usize) {
    let bundle = read(document).unwrap();
    (bundle.x509_authorities.len(), bundle.jwt_authorities.len())
}

fn certificate(is_ca: bool) -> Certificate {
    let mut params = CertificateParams::default();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    }
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap()
}

fn x509_key() -> Value {
    let ca = certificate(true);
    let mut key = jwk::to_jwk(ca.spki()).unwrap();
    key.insert("use".into(), json!("x509-svid"));
    key.insert("x5c".into(), json!([STANDARD.encode(ca.der())]));
    Value::Object(key)
}

fn jwt_key(kid: &str) -> Value {
    let mut key = jwk::to_jwk(
        PrivateKey::generate(KeyType::EcP256)
            .unwrap()
            .public_key_spki(),
    )
    .unwrap();
    key.insert("use".into(), json!("jwt-svid"));
    key.insert("kid".into(), json!(kid));
    Value::Object(key)
}

fn with(mut key: Value, member: &str, value: Value) -> Value {
    key[member] = value;
    key
}

fn sample() -> Bundle {
    let key = |kid: &str| JwtAuthority {
        key_id: kid.to_owned(),
        public_key: PrivateKey::generate(KeyType::EcP256)
            .unwrap()
            .public_key_spki()
            .to_vec(),
        expires_at: None,
        tainted: false,
    };
    Bundle {
        trust_domain: td(),
        x509_authorities: vec![X509Authority::new(certificate(true))],
        jwt_authorities: vec![key("a"), key("b")],
        refresh_hint: Some(Duration::from_secs(300)),
        sequence: (1 << 53) + 1,
    }
}

#[test]
fn conf_b_01_b_02_b_03_what_is_written_is_read() {
    let bundle = sample();
    let json = bundle.to_spiffe_json();
    assert_eq!(
        Bundle::from_spiffe_json(&td(), json.as_bytes()).unwrap(),
        bundle
    );
    let highest = json!({"keys": [], "spiffe_sequence": i64::MAX, "other": {}});
    assert_eq!(read(&highest).unwrap().sequence, i64::MAX.unsigned_abs());
}

#[test]
fn conf_b_02_b_03_sequence_and_hint_are_whole_numbers() {
    for bad in [json!(-1), json!(1.5), json!("1"), json!(1e30), json!(null)] {
        assert!(read(&json!({"keys": [], "spiffe_sequence": bad})).is_err());
        assert!(read(&json!({"keys": [], "spiffe_refresh_hint": bad})).is_err());
    }
    assert_eq!(
        read(&json!({"keys": [], "spiffe_refresh_hint": 0}))
            .unwrap()
            .refresh_hint,
        Some(Duration::ZERO)
    );
}

#[test]
fn conf_b_04_keys_is_an_array() {
    for bad in [
        json!({}),
        json!({"keys": null}),
        json!({"keys": {}}),
        json!({"keys": [5]}),
        json!([]),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
}

#[test]
fn conf_b_05_b_08_unknown_kinds_and_uses_are_skipped() {
    let strange = [
        with(x509_key(), "use", json!("X509-SVID")),
        with(x509_key(), "use", json!("wit-svid")),
        with(jwt_key("k"), "kty", json!("AKP")),
        with(jwt_key("k"), "use", Value::Null),
    ];
    for key in strange {
        assert_eq!(counts(&json!({"keys": [key, jwt_key("good")]})), (0, 1));
    }
}

#[test]
fn conf_b_06_an_empty_bundle_trusts_nobody() {
    assert_eq!(counts(&json!({"keys": []})), (0, 0));
}

#[test]
fn conf_b_07_x_18_x_19_the_narrow_form_is_written() {
    let document: Value = serde_json::from_str(&sample().to_spiffe_json()).unwrap();
    for key in document["keys"].as_array().unwrap() {
        let mut names: Vec<&str> = key
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        if key["use"] == "x509-svid" {
            assert_eq!(names, ["crv", "kty", "use", "x", "x5c", "y"]);
            assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
        } else {
            assert_eq!(names, ["crv", "kid", "kty", "use", "x", "y"]);
        }
    }
}

#[test]
fn conf_b_12_members_stand_once() {
    for twice in [
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kty":"EC","kty":"EC"}]}"#,
    ] {
        assert!(
            matches!(
                Bundle::from_spiffe_json(&td(), twice.as_bytes()),
                Err(BundleError::Json(_))
            ),
            "{twice}"
        );
    }
}

#[test]
fn conf_x_20_x_21_x5c() {
    for nothing in [Value::Null, json!([])] {
        assert_eq!(
            counts(&json!({"keys": [with(x509_key(), "x5c", nothing)]})),
            (0, 0)
        );
    }
    let (first, second) = (x509_key(), x509_key());
    let both = json!([first["x5c"][0], second["x5c"][0]]);
    assert_eq!(
        counts(&json!({"keys": [with(first.clone(), "x5c", both)]})),
        (1, 0)
    );
    let leaf = STANDARD.encode(certificate(false).der());
    for bad in [json!(["!"]), json!([5]), json!(["AAAA"]), json!([leaf])] {
        assert!(matches!(
            read(&json!({"keys": [with(first.clone(), "x5c", bad)]})),
            Err(BundleError::Key { .. })
        ));
    }
    assert_eq!(
        counts(&json!({"keys": [first.clone(), first]})),
        (1, 0),
        "the same CA twice is one authority"
    );
}

#[test]
fn conf_j_12_jwt_keys_have_a_kid_of_their_own() {
    for bad in [Value::Null, json!(""), json!(5)] {
        assert!(read(&json!({"keys": [with(jwt_key("k"), "kid", bad)]})).is_err());
    }
    assert!(read(&json!({"keys": [jwt_key("k"), jwt_key("k")]})).is_err());
    let off_curve = with(jwt_key("k"), "x", jwt_key("k")["y"].clone());
    assert!(read(&json!({"keys": [off_curve]})).is_err());
}

#[test]
fn conf_p_13_the_jwks_holds_jwt_keys_alone_in_a_stable_order() {
    let mut bundle = sample();
    let jwks = bundle.to_jwks();
    bundle.jwt_authorities.reverse();
    assert_eq!(bundle.to_jwks(), jwks);
    let document: Value = serde_json::from_str(&jwks).unwrap();
    assert_eq!(document["keys"].as_array().unwrap().len(), 2);
    assert!(
        document["keys"]
            .as_array()
            .unwrap()
            .iter()
            .all(|key| key["use"] == "jwt-svid")
    );
}

#[test]
fn odd_documents_are_refused_without_a_panic() {
    let large = vec![b' '; (1 << 20) + 1];
    let deep = "[".repeat(100_000);
    let utf16: Vec<u8> = "{\"keys\":[]}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for bytes in [
        &b""[..],
        b"x",
        b"\xef\xbb\xbf{\"keys\":[]}",
        b"{\"keys\":[]} x",
        &large,
        deep.as_bytes(),
        &utf16,
    ] {
        assert!(Bundle::from_spiffe_json(&td(), bytes).is_err());
    }
}

#[test]
fn pem_bundles() {
    let bundle = sample();
    let read = Bundle::from_pem(&td(), &bundle.to_pem()).unwrap();
    assert_eq!(read.x509_authorities, bundle.x509_authorities);
    assert!(matches!(
        Bundle::from_pem(&td(), "nothing"),
        Err(BundleError::NoCertificates)
    ));
    assert_eq!(
        bundle.x509_der(),
        bundle.x509_authorities[0].certificate.der()
    );
}
