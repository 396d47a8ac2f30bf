//! Rows ID-* of SPIFFE-ID.md.

use proptest::prelude::*;

use super::*;

const REFUSED: &[&str] = &[
    "",
    "s",
    "spiffe",
    "spiffe:",
    "spiffe:/td/a",
    "spiffe:td",
    "http://td/a",
    "spiffe://",
    "spiffe:///",
    "spiffe:///a",
    "spiffe://td/",
    "spiffe://td//",
    "spiffe://td//a",
    "spiffe://td/a/",
    "spiffe://td/.",
    "spiffe://td/..",
    "spiffe://td/./a",
    "spiffe://td/a/../b",
    "spiffe://td/a?",
    "spiffe://td/a?q=1",
    "spiffe://td/a#",
    "spiffe://td#x",
    "spiffe://u@td/a",
    "spiffe://u:p@td/a",
    "spiffe://td:80/a",
    "spiffe://td:/a",
    "spiffe://[::1]/a",
    "spiffe://t%64/a",
    "spiffe://td/%61",
    "spiffe://td/%2e%2e/a",
    "spiffe://td/%2f",
    "spiffe://td/a b",
    "spiffe://td/a\n",
    "spiffe://td/a\0",
    " spiffe://td/a",
    "spiffe://td/\u{e9}",
    "spiffe://td/e\u{301}",
    "spiffe://t\u{501}/a",
    "spiffe://td/a;b",
    "spiffe://td/a:b",
    "spiffe://td/a@b",
    "spiffe://td/a~b",
    "spiffe://td/a+b",
    "spiffe://td/a,b",
    "spiffe://td/{a}",
    "spiffe://td\\a",
    "SPIFFE://td/a",
    "spiffe://TD/a",
    "Spiffe://td/a",
];

const ACCEPTED: &[(&str, &str, &str)] = &[
    ("spiffe://td", "td", ""),
    ("spiffe://td/a", "td", "/a"),
    ("spiffe://td/...", "td", "/..."),
    ("spiffe://1.2.3.4/a", "1.2.3.4", "/a"),
    ("spiffe://a_b-c.d/e_F-.9", "a_b-c.d", "/e_F-.9"),
    ("spiffe://td/.a/..b", "td", "/.a/..b"),
    (
        "spiffe://example.org/ns/x/sa/y",
        "example.org",
        "/ns/x/sa/y",
    ),
    ("spiffe://_/x", "_", "/x"),
    ("spiffe://../x", "..", "/x"),
    ("spiffe://-/x", "-", "/x"),
    ("spiffe://a..b/x", "a..b", "/x"),
];

#[test]
fn conf_id_every_vector_to_refuse() {
    for text in REFUSED {
        assert!(SpiffeId::parse(text).is_err(), "{text:?} must be refused");
    }
}

#[test]
fn conf_id_08_every_vector_to_accept() {
    for (text, trust_domain, path) in ACCEPTED {
        let id = SpiffeId::parse(text).unwrap();
        assert_eq!(
            (id.trust_domain().as_str(), id.path(), id.as_str()),
            (*trust_domain, *path, *text)
        );
    }
}

#[test]
fn conf_id_01_the_scheme_is_spiffe() {
    assert_eq!(SpiffeId::parse("http://td/a"), Err(IdError::Scheme));
}

#[test]
fn conf_id_02_the_trust_domain_is_not_empty() {
    assert_eq!(
        SpiffeId::parse("spiffe:///a"),
        Err(IdError::EmptyTrustDomain)
    );
    assert_eq!(TrustDomain::new(""), Err(IdError::EmptyTrustDomain));
}

#[test]
fn conf_id_03_no_query_and_no_fragment() {
    assert_eq!(SpiffeId::parse("spiffe://td/a?"), Err(IdError::PathByte));
    assert_eq!(SpiffeId::parse("spiffe://td/a#"), Err(IdError::PathByte));
}

#[test]
fn conf_id_04_no_userinfo_and_no_port() {
    for text in ["spiffe://u@td/a", "spiffe://td:80/a", "spiffe://td:/a"] {
        assert_eq!(
            SpiffeId::parse(text),
            Err(IdError::TrustDomainByte),
            "{text}"
        );
    }
}

#[test]
fn conf_id_05_id_16_only_lower_case_is_accepted_and_emitted() {
    assert_eq!(
        SpiffeId::parse("spiffe://TD/a"),
        Err(IdError::TrustDomainByte)
    );
    assert_eq!(SpiffeId::parse("SPIFFE://td/a"), Err(IdError::Scheme));
    assert_ne!(
        SpiffeId::parse("spiffe://td/a"),
        SpiffeId::parse("spiffe://td/A")
    );
}

#[test]
fn conf_id_06_id_07_every_byte_in_the_trust_domain() {
    for byte in 0..=u8::MAX {
        let text = format!("spiffe://t{}d/a", char::from(byte));
        let legal = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        // A slash ends the trust domain.
        assert_eq!(
            SpiffeId::parse(&text).is_ok(),
            legal || byte == b'/',
            "byte {byte:#x}"
        );
    }
}

#[test]
fn conf_id_09_id_12_every_byte_in_the_path() {
    for byte in 0..=u8::MAX {
        let text = format!("spiffe://td/a{}b", char::from(byte));
        let legal = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
        assert_eq!(SpiffeId::parse(&text).is_ok(), legal, "byte {byte:#x}");
    }
}

#[test]
fn conf_id_10_no_empty_or_dot_segments() {
    assert_eq!(
        SpiffeId::parse("spiffe://td//a"),
        Err(IdError::EmptySegment)
    );
    assert_eq!(
        SpiffeId::parse("spiffe://td/a/./b"),
        Err(IdError::DotSegment)
    );
    assert_eq!(
        SpiffeId::parse("spiffe://td/a/.."),
        Err(IdError::DotSegment)
    );
}

#[test]
fn conf_id_11_no_trailing_slash() {
    assert_eq!(SpiffeId::parse("spiffe://td/"), Err(IdError::TrailingSlash));
    assert_eq!(
        SpiffeId::parse("spiffe://td/a/"),
        Err(IdError::TrailingSlash)
    );
}

#[test]
fn conf_id_13_id_14_exactly_2048_bytes() {
    let td = TrustDomain::new("td").unwrap();
    let longest = "/".to_owned() + &"a".repeat(MAX_ID_LEN - "spiffe://td/".len());
    let id = SpiffeId::new(&td, &longest).unwrap();
    assert_eq!(id.as_str().len(), MAX_ID_LEN);
    assert_eq!(SpiffeId::parse(id.as_str()).unwrap(), id);
    assert_eq!(SpiffeId::new(&td, &(longest + "a")), Err(IdError::TooLong));
    assert_eq!(SpiffeId::parse(&format!("{id}a")), Err(IdError::TooLong));
}

#[test]
fn conf_id_15_a_trust_domain_has_at_most_255_bytes() {
    assert!(SpiffeId::parse(&format!("spiffe://{}/x", "a".repeat(255))).is_ok());
    assert_eq!(
        TrustDomain::new(&"a".repeat(256)),
        Err(IdError::TrustDomainTooLong)
    );
}

#[test]
fn conf_id_18_a_trust_domains_own_id_has_no_path() {
    let td = TrustDomain::parse("spiffe://example.org").unwrap();
    assert_eq!(td.id().as_str(), "spiffe://example.org");
    assert_eq!(td.id().path(), "");
    assert_eq!(SpiffeId::parse(td.id().as_str()).unwrap(), td.id());
    assert!(TrustDomain::parse("spiffe://example.org/a").is_err());
}

proptest! {
    #[test]
    fn conf_id_21_what_is_parsed_is_what_is_printed(text in "spiffe://[a-z0-9._-]{1,20}(/[A-Za-z0-9._-]{1,8}){0,5}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(&SpiffeId::new(id.trust_domain(), id.path()).unwrap(), &id);
            prop_assert_eq!(&id.to_string().parse::<SpiffeId>().unwrap(), &id);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*") {
        let _ = SpiffeId::parse(&text);
        let _ = SpiffeId::parse(&format!("spiffe://{text}"));
        let _ = TrustDomain::parse(&text);
    }
}
