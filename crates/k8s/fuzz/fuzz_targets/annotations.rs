#![no_main]
//! Any value of `signet.dev/allow` and `signet.dev/upstreams`: no panic, and what is taken can be used as it is.

use std::collections::BTreeSet;

use identity::TrustDomain;
use k8s::inject::upstream::{Pattern, parse_allow, parse_upstreams};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let own = TrustDomain::new("example.org").unwrap();
    for pattern in parse_allow(text, &own).unwrap_or_default() {
        if let Pattern::Under {
            trust_domain,
            prefix,
        } = pattern
        {
            // A prefix without its slash would let `/ns/shop-evil` in for `/ns/shop`.
            assert!(prefix.ends_with('/'));
            assert!(prefix.starts_with(&format!("spiffe://{trust_domain}/")));
        }
    }
    let mut ports = BTreeSet::new();
    for upstream in parse_upstreams(text, &own).unwrap_or_default() {
        assert!(upstream.port > 0 && upstream.local_port > 0);
        assert!(ports.insert(upstream.local_port));
        assert!(!upstream.peers.is_empty());
        assert!(upstream.peers.iter().all(|peer| !peer.path().is_empty()));
        let host = upstream.host.with_port(upstream.port);
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/[]".contains(&byte);
        assert!(host.bytes().all(legal), "{host}");
    }
});
