#![no_main]
//! IDs and selectors: what is accepted is printed as it was read.

use identity::{EntryId, Selector, SpiffeId, TrustDomain, check_dns_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert_eq!(SpiffeId::new(id.trust_domain(), id.path()), Ok(id));
    }
    if let Ok(selector) = Selector::parse(text) {
        assert_eq!(selector.to_string(), text);
    }
    let _ = (
        TrustDomain::parse(text),
        EntryId::new(text),
        check_dns_name(text),
    );
});
