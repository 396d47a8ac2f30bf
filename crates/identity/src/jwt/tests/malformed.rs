//! Malformed tokens in bulk: each is signed by the right key wherever that can be, so that nothing but its fault is wrong.

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

use super::*;

/// The order of P-256's group (SEC 2 §2.4.2).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

struct Bulk {
    world: World,
    seen: usize,
}

impl Bulk {
    fn new() -> Self {
        let world = world(KeyType::EcP256);
        assert!(world.verify(&world.sign(&header(), &claims())).is_ok());
        Self { world, seen: 0 }
    }

    #[track_caller]
    fn refused(&mut self, token: &str, why: &str) {
        self.seen += 1;
        assert!(self.world.verify(token).is_err(), "{why}: {token}");
    }

    /// Signs the two parts as they are.
    fn seal(&self, signed: &str) -> String {
        let signature = self.world.key.sign_jws(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Both parts in turn, each in every wrong form of `forms`.
    fn each_part(&mut self, why: &str, forms: impl Fn(&str) -> Vec<String>) {
        let good = [header().to_string(), claims().to_string()];
        for part in 0..2 {
            for wrong in forms(&good[part]) {
                let mut parts = good.clone().map(|text| URL_SAFE_NO_PAD.encode(text));
                parts[part] = wrong;
                let token = self.seal(&parts.join("."));
                self.refused(&token, why);
            }
        }
    }
}

#[test]
fn conf_j_01_parts_in_wrong_numbers_and_orders() {
    let mut bulk = Bulk::new();
    let token = bulk.world.sign(&header(), &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let choices = [parts[0], parts[1], parts[2], ""];
    for length in 0..=4_u32 {
        for number in 0..4_usize.pow(length) {
            let chosen = (0..length).map(|at| choices[number / 4_usize.pow(at) % 4]);
            let text = chosen.collect::<Vec<_>>().join(".");
            if text != token {
                bulk.refused(&text, "parts");
            }
        }
    }
    for separator in ["..", ",", " ", "\n", "%2e", "\u{3002}", ".\0"] {
        bulk.refused(&parts.join(separator), "separator");
    }
    assert!(bulk.seen > 300, "{}", bulk.seen);
}

#[test]
fn conf_j_01_parts_that_are_no_base64url() {
    let mut bulk = Bulk::new();
    // Text whose base64 differs between the alphabets.
    let odd = |text: &str| text.replacen('{', "{\"~~~\":\"???\",", 1);
    bulk.each_part("encoding", |text| {
        let plain = URL_SAFE_NO_PAD.encode(text);
        let mut forms = vec![
            String::new(),
            text.to_owned(),
            format!("{plain}="),
            format!("{plain}=="),
            format!("={plain}"),
            STANDARD_NO_PAD.encode(odd(text)),
            STANDARD.encode(odd(text)),
        ];
        // Of these texts, all the same to JSON, one at least is padded.
        let spaced = [" ", "  "].map(|end| URL_SAFE.encode(format!("{text}{end}")));
        forms.extend(spaced.into_iter().filter(|form| form.ends_with('=')));
        for at in [0, 1, plain.len() / 2, plain.len()] {
            for noise in [" ", "\n", "\r\n", "\t", "\0", "+", "/", "\u{e9}", "%3D"] {
                let mut noisy = plain.clone();
                noisy.insert_str(at, noise);
                forms.push(noisy);
            }
        }
        forms
    });
    assert!(bulk.seen > 80, "{}", bulk.seen);
}

/// A last character whose unused bits are set is another text for the same bytes.
#[test]
fn conf_j_01_no_token_has_two_texts() {
    let mut bulk = Bulk::new();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let token = bulk.world.sign(&header(), &claims());
    for last in alphabet.chars().filter(|last| !token.ends_with(*last)) {
        let changed = format!("{}{last}", &token[..token.len() - 1]);
        bulk.refused(&changed, "last character");
    }
    assert_eq!(bulk.seen, 63);
}

#[test]
fn conf_j_01_parts_that_are_no_json_objects() {
    let mut bulk = Bulk::new();
    bulk.each_part("JSON", |text| {
        let inner = &text[1..text.len() - 1];
        let texts = [
            "[]".to_owned(),
            "null".to_owned(),
            "5".to_owned(),
            "\"{}\"".to_owned(),
            "{".to_owned(),
            format!("[{text}]"),
            format!("{text}{text}"),
            format!("{text},"),
            format!("{text}\0"),
            format!("\u{feff}{text}"),
            format!("{{{inner},}}"),
            format!("{{,{inner}}}"),
            format!("{{{inner}"),
            format!("{{{inner},{inner}}}"),
            format!("{{/**/{inner}}}"),
            format!("{{{inner}}}//"),
            format!("{{{}}}", inner.replace('"', "'")),
            format!("{{{inner},\"x\":NaN}}"),
            format!("{{{inner},\"x\":Infinity}}"),
            format!("{{{inner},\"x\":01}}"),
            format!("{{{inner},\"x\":1e999}}"),
            format!("{{{inner},\"x\":\"\n\"}}"),
            format!("{{{inner},\"x\":\"\\ud800\"}}"),
            format!("{{{inner},\"x\":\"\\x41\"}}"),
            format!("{{{inner},\"x\":{}}}", "[".repeat(200)),
            format!("{{{inner},\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200)),
        ];
        let encoded = texts.iter().map(|text| URL_SAFE_NO_PAD.encode(text));
        let wide = text.encode_utf16().flat_map(u16::to_le_bytes);
        let latin = [text.as_bytes(), &[0xe9]].concat();
        let bytes = [wide.collect(), latin, vec![0xff; 10]];
        let bytes = bytes.map(|bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes));
        encoded.chain(bytes).collect()
    });
    assert!(bulk.seen > 55, "{}", bulk.seen);
}

#[test]
fn conf_j_02_j_05_headers_with_more_or_other_members() {
    let mut bulk = Bulk::new();
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(""),
        json!("JWT"),
        json!([]),
        json!(["exp"]),
        json!({}),
    ];
    let names =
        "crit jwk jku x5c x5u x5t x5t#S256 b64 cty zip enc iss sub aud exp epk p2c ALG Kid TYP";
    for name in names.split(' ').chain(["", " alg", "alg\0", "\u{430}lg"]) {
        for value in &values {
            let mut header = header();
            header[name] = value.clone();
            let token = bulk.world.sign(&header, &claims());
            bulk.refused(&token, name);
        }
    }
    for name in ["alg", "kid", "typ"] {
        for value in values
            .iter()
            .filter(|value| **value != json!("JWT") || name != "typ")
        {
            let mut header = header();
            header[name] = value.clone();
            let token = bulk.world.sign(&header, &claims());
            bulk.refused(&token, name);
        }
    }
    assert!(bulk.seen > 200, "{}", bulk.seen);
}

#[test]
fn conf_j_06_j_07_j_09_claims_of_other_types() {
    let mut bulk = Bulk::new();
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(-1),
        json!(""),
        json!("x"),
        json!(" "),
        json!([]),
        json!([[]]),
        json!([null]),
        json!(["a", null]),
        json!({}),
        json!({"a": "a"}),
        json!(1e300),
    ];
    for name in ["sub", "aud", "exp", "nbf", "iat"] {
        for value in &values {
            let mut claims = claims();
            claims[name] = value.clone();
            let token = bulk.world.sign(&header(), &claims);
            bulk.refused(&token, name);
        }
    }
    assert_eq!(bulk.seen, 5 * values.len());
}

#[test]
fn conf_j_10_signatures_that_are_none() {
    let mut bulk = Bulk::new();
    let token = bulk.world.sign(&header(), &claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signed = signed.to_owned();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut wrong = Vec::new();
    for length in (0..raw.len()).chain(raw.len() + 1..200) {
        let bytes: Vec<u8> = raw.iter().copied().cycle().take(length).collect();
        wrong.push(bytes);
    }
    for bit in 0..raw.len() * 8 {
        let mut flipped = raw.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        wrong.push(flipped);
    }
    let (r, s) = raw.split_at(32);
    let mut one = [0; 32];
    one[31] = 1;
    let numbers = [[0; 32], one, ORDER, [0xff; 32], r.try_into().unwrap()];
    for number in numbers {
        wrong.push([&number[..], &number].concat());
        wrong.push([&number[..], s].concat());
        wrong.push([r, &number].concat());
    }
    wrong.retain(|bytes| *bytes != raw);
    let der = bulk.world.key.sign(signed.as_bytes()).unwrap();
    wrong.extend([[s, r].concat(), der, [&[0], &raw[..]].concat()]);
    for bytes in wrong {
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
        bulk.refused(&token, "signature");
    }
    assert!(bulk.seen > 700, "{}", bulk.seen);
}

/// Every algorithm with a key of every kind, signed as the key signs: only the one that fits is taken.
#[test]
fn conf_j_15_every_algorithm_with_every_kind_of_key() {
    let algorithms = "RS256 RS384 RS512 ES256 ES384 ES512 PS256 PS384 PS512";
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let world = world(kind);
        for algorithm in algorithms.split(' ') {
            let verdict = world.with_header(&json!({"alg": algorithm, "kid": "k"}));
            let fits = algorithm == world.key.jws_alg();
            assert_eq!(
                verdict.is_ok(),
                fits,
                "{algorithm} with {kind}: {verdict:?}"
            );
        }
    }
}

/// The public key is no secret: a MAC made with it must not pass for a signature.
#[test]
fn conf_j_03_a_mac_by_the_public_key() {
    use aws_lc_rs::hmac;

    let mut bulk = Bulk::new();
    let spki = bulk.world.key.public_key_spki().to_vec();
    let pem = crate::x509::pem("PUBLIC KEY", &spki, 64);
    for secret in [spki.as_slice(), pem.as_bytes(), pem.trim().as_bytes(), b""] {
        for (name, algorithm) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA512),
            ("ES256", hmac::HMAC_SHA256),
        ] {
            let header = json!({"alg": name, "kid": "k"}).to_string();
            let parts = [header, claims().to_string()].map(|text| URL_SAFE_NO_PAD.encode(text));
            let signed = parts.join(".");
            let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
            bulk.refused(&token, name);
        }
    }
    assert_eq!(bulk.seen, 16);
}
