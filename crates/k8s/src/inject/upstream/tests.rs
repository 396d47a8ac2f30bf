use proptest::prelude::*;

use super::*;

fn own() -> TrustDomain {
    TrustDomain::new("example.org").expect("a name")
}

fn upstream(text: &str) -> Upstream {
    parse_upstreams(text, &own()).expect(text).remove(0)
}

#[test]
fn upstreams_in_every_form() {
    let plain = upstream("backend.shop:8443=spiffe://example.org/ns/shop/sa/backend");
    assert_eq!(
        (plain.local_port, plain.port, plain.tcp),
        (8443, 8443, false)
    );
    assert_eq!(plain.authority(), "backend.shop:8443");
    assert_eq!(
        plain.peers[0].as_str(),
        "spiffe://example.org/ns/shop/sa/backend"
    );

    let short = upstream("tcp://9090=DB.shop:5432=shop/db|shop/db-2|shop/db");
    assert_eq!(
        (short.local_port, short.port, short.tcp),
        (9090, 5432, true)
    );
    assert_eq!(short.host, Host::Name("db.shop".to_owned()));
    assert_eq!(short.peers.len(), 2);

    let address = upstream("81=[fd00::1]:80=spiffe://other.org/x");
    assert_eq!(address.authority(), "[fd00::1]:80");
    assert_eq!(address.network(), None);
    let network = upstream("[fd00::/8]:80=shop/b");
    assert_eq!(network.authority(), "[fd00::/8]:80");
    assert!(network.network().is_some());
    assert!(upstream("10.0.0.0/8:80=shop/b").network().is_some());
    let two = parse_upstreams("a:1=x/y,\n b:2=x/y", &own()).expect("two");
    assert_eq!(two.len(), 2);
}

#[test]
fn bad_upstreams_say_what_to_write() {
    for (text, told) in [
        ("", "is empty"),
        (" , ", "is empty"),
        ("backend.shop:8080", "does not say whom to expect"),
        ("backend.shop=shop/b", "has no port"),
        ("backend.shop:0=shop/b", "is no port"),
        ("backend.shop:+1=shop/b", "is no port"),
        ("x=backend.shop:80=shop/b", "is no port"),
        ("back end:80=shop/b", "does not say whom"),
        ("-backend:80=shop/b", "neither a DNS name nor an address"),
        ("a$(X):80=shop/b", "neither a DNS name nor an address"),
        ("[::g]:80=shop/b", "is no network"),
        ("[10.0.0.1]:80=shop/b", "no IPv6 address"),
        ("10.0.0.1/8:80=shop/b", "write 10.0.0.0/8"),
        ("b:80=spiffe://example.org", "names a trust domain"),
        ("b:80=shop/b/c", "write a SPIFFE ID"),
        ("b:80=spiffe://Example.org/x", "spiffe://Example.org/x"),
        ("b:80=shop/b, c:80=shop/c", "same local port 80"),
    ] {
        let problem = parse_upstreams(text, &own()).expect_err(text).to_string();
        assert!(problem.contains(told), "{text}: {problem}");
    }
    let many = "b:80=shop/b,".repeat(MAX_ITEMS + 1);
    assert!(parse_upstreams(&many, &own()).is_err());
}

#[test]
fn callers_in_every_form() {
    let parsed = parse_allow(
        "shop/frontend, ops/* spiffe://other.org/a/*,shop/frontend",
        &own(),
    )
    .expect("callers");
    let under = |trust_domain: &str, prefix: &str| Pattern::Under {
        trust_domain: TrustDomain::new(trust_domain).expect("a name"),
        prefix: prefix.to_owned(),
    };
    let exact = SpiffeId::parse("spiffe://example.org/ns/shop/sa/frontend").expect("an ID");
    assert_eq!(
        parsed,
        [
            Pattern::Exact(exact),
            under("example.org", "spiffe://example.org/ns/ops/sa/"),
            under("other.org", "spiffe://other.org/a/"),
        ]
    );
    assert_eq!(
        parse_allow("spiffe://example.org/*", &own()).expect("all"),
        [under("example.org", "spiffe://example.org/")]
    );
    for text in [
        "*",
        "",
        "/*",
        "a/b/*",
        "shop",
        "spiffe://example.org",
        "spiffe:///x",
        "spiffe://example.org/a*",
    ] {
        assert!(parse_allow(text, &own()).is_err(), "{text}");
    }
}

proptest! {
    /// Whatever stands there, nothing panics, and what is taken is well-formed.
    #[test]
    fn any_text_is_taken_or_refused(text in "[a-z0-9:=/|, .\\[\\]*-]{0,60}|.{0,60}") {
        for pattern in parse_allow(&text, &own()).unwrap_or_default() {
            prop_assert!(pattern.trust_domain().as_str().len() <= 255);
        }
        for upstream in parse_upstreams(&text, &own()).unwrap_or_default() {
            prop_assert!(upstream.port > 0 && upstream.local_port > 0 && !upstream.peers.is_empty());
        }
    }
}
