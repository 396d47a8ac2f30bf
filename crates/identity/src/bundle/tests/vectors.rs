//! Documents that are odd in one place.

use base64::engine::general_purpose::URL_SAFE;

use super::*;

fn read_text(text: &str) -> Result<Bundle, BundleError> {
    Bundle::from_spiffe_json(&td(), text.as_bytes())
}

/// What `x5c` holds, made from a CA whose base64 has each of the characters that differ.
fn x5c_as(encode: impl Fn(&[u8]) -> String) -> Value {
    loop {
        let ca = certificate(true);
        let plain = STANDARD.encode(ca.der());
        if plain.contains('+') && plain.contains('/') {
            let mut key = jwk::to_jwk(ca.spki()).unwrap();
            key.insert("use".into(), json!("x509-svid"));
            key.insert("x5c".into(), json!([encode(ca.der())]));
            return Value::Object(key);
        }
    }
}

#[test]
fn conf_x_18_a_kid_beside_x5c_is_read_over() {
    let key = with(x509_key(), "kid", json!("k"));
    assert_eq!(counts(&json!({"keys": [key]})), (1, 0));
}

#[test]
fn conf_x_19_x5c_is_base64_of_the_standard_alphabet() {
    let lines = |der: &[u8]| {
        let encoded = STANDARD.encode(der);
        let (head, tail) = encoded.split_at(64);
        format!("{head}\n{tail}")
    };
    assert_eq!(
        counts(&json!({"keys": [x5c_as(|der| STANDARD.encode(der))]})),
        (1, 0)
    );
    for bad in [
        x5c_as(|der| URL_SAFE.encode(der)),
        x5c_as(lines),
        x5c_as(|der| format!(" {}", STANDARD.encode(der))),
        x5c_as(|der| STANDARD.encode(der) + "="),
    ] {
        let refused = read(&json!({"keys": [bad]}));
        assert!(
            matches!(refused, Err(BundleError::Key { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn conf_x_19_the_key_is_the_certificates() {
    let (one, other) = (x509_key(), x509_key());
    for bad in [
        with(one.clone(), "x5c", other["x5c"].clone()),
        with(one.clone(), "x", other["x"].clone()),
        with(one.clone(), "y", Value::Null),
        with(one.clone(), "crv", json!("P-384")),
        with(one, "kty", json!("RSA")),
    ] {
        let refused = read(&json!({"keys": [bad]}));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("not the one of the certificate"), "{text}");
    }
}

/// A bundle knows no time: what has expired counts for nothing when a peer is verified (`conf_x_14_time`).
#[test]
fn conf_x_05_an_expired_ca_and_one_that_calls_itself_otherwise_are_read() {
    let ca = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        change(&mut params);
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let mut key = jwk::to_jwk(key.public_key_spki()).unwrap();
        key.insert("use".into(), json!("x509-svid"));
        key.insert("x5c".into(), json!([STANDARD.encode(der)]));
        json!({"keys": [key]})
    };
    let named = |uri: &str| {
        let uri = rcgen::SanType::URI(uri.try_into().unwrap());
        ca(&|params| params.subject_alt_names = vec![uri.clone()])
    };
    let expired = ca(&|params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    for document in [
        expired,
        named("spiffe://other.org"),
        // The form of the standard's own example, though it is no SPIFFE ID (§10.9).
        named("spiffe://example.org/"),
    ] {
        assert_eq!(counts(&document), (1, 0));
    }
}

#[test]
fn conf_j_13_one_kid_under_two_uses_is_the_jwt_keys() {
    for other in ["wit-svid", "x509-svid", "jwt-svid ", "JWT-SVID"] {
        let (jwt, wit) = (jwt_key("k"), with(jwt_key("k"), "use", json!(other)));
        for keys in [[jwt.clone(), wit.clone()], [wit, jwt.clone()]] {
            let bundle = read(&json!({"keys": keys})).unwrap();
            let spki = jwk::from_jwk(jwt.as_object().unwrap()).unwrap();
            let keys: Vec<&[u8]> = bundle
                .jwt_authorities
                .iter()
                .map(|one| one.public_key.as_slice())
                .collect();
            assert_eq!(keys, [spki], "{other}");
        }
    }
}

#[test]
fn conf_b_02_b_03_numbers_at_their_ends() {
    let sequence =
        |number: &str| read_text(&format!(r#"{{"keys":[],"spiffe_sequence":{number}}}"#));
    for (text, number) in [
        ("9007199254740993", (1 << 53) + 1),
        ("9223372036854775807", (1 << 63) - 1),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(sequence(text).unwrap().sequence, number);
    }
    for bad in ["18446744073709551616", "1e3", "-0.0", "01", "+1", "0x1"] {
        assert!(sequence(bad).is_err(), "{bad}");
    }
    let hint = |number: &str| {
        read_text(&format!(r#"{{"keys":[],"spiffe_refresh_hint":{number}}}"#))
            .map(|bundle| bundle.refresh_hint)
    };
    let longest = Duration::from_secs((1 << 63) - 1);
    assert_eq!(hint("9223372036854775807").unwrap(), Some(longest));
    for bad in ["9223372036854775808", "18446744073709551615", "1e300"] {
        assert!(hint(bad).is_err(), "{bad}");
    }
}

#[test]
fn conf_b_05_keys_of_other_kinds_and_sizes() {
    let rsa = |bytes: usize, e: &str| {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let n = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        json!({"kty": "RSA", "use": "jwt-svid", "kid": "r", "n": n, "e": e})
    };
    // Of a known kind and broken: the document is refused, as SPIRE refuses it.
    for bad in [
        rsa(128, "AQAB"),
        rsa(256, "AQ"),
        rsa(256, ""),
        rsa(0, "AQAB"),
    ] {
        assert!(read(&json!({"keys": [bad]})).is_err());
    }
    let curve = with(jwt_key("k"), "crv", json!("secp256k1"));
    assert!(read(&json!({"keys": [curve]})).is_err());
}

#[test]
fn conf_b_09_a_bundle_map_names_each_trust_domain_once() {
    let read = |text: &str| BundleSet::from_spiffe_json(text.as_bytes());
    assert_eq!(read(r#"{"trust_domains":{}}"#).unwrap(), BundleSet::new());
    let two = [
        sample(),
        Bundle::empty(TrustDomain::new("other.org").unwrap()),
    ];
    let set: BundleSet = two
        .map(|mut bundle| {
            bundle.refresh_hint = None;
            Arc::new(bundle)
        })
        .into_iter()
        .collect();
    let json = set.to_spiffe_json();
    assert_eq!(read(&json).unwrap(), set);
    assert_eq!(json.matches("other.org").count(), 1);
    let empty = r#"{"keys":[]}"#;
    for bad in [
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"trust_domains":null}"#.to_owned(),
        r#"{"trust_domains":[]}"#.to_owned(),
        r#"{"trust_domains":{"td":{}}}"#.to_owned(),
        r#"{"trust_domains":{"td":[]}}"#.to_owned(),
        format!(r#"{{"trust_domains":{{"td":{empty},"td":{empty}}}}}"#),
        format!(r#"{{"trust_domains":{{"td":{empty},"t\\u0064":{empty}}}}}"#),
        format!(r#"{{"trust_domains":{{"TD":{empty}}}}}"#),
        format!(r#"{{"trust_domains":{{"":{empty}}}}}"#),
        format!(r#"{{"trust_domains":{{}},"trust_domains":{{"td":{empty}}}}}"#),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
    assert!(BundleSet::from_spiffe_json(&vec![b' '; (16 << 20) + 1]).is_err());
}

#[test]
fn conf_b_10_a_bundle_map_has_no_refresh_hints() {
    let set: BundleSet = [Arc::new(sample())].into_iter().collect();
    assert!(!set.to_spiffe_json().contains("refresh_hint"));
    for hint in ["5", "-1", "\"soon\""] {
        let text =
            format!(r#"{{"trust_domains":{{"td":{{"keys":[],"spiffe_refresh_hint":{hint}}}}}}}"#);
        let read = BundleSet::from_spiffe_json(text.as_bytes()).unwrap();
        assert_eq!(read.iter().next().unwrap().refresh_hint, None, "{hint}");
    }
}
