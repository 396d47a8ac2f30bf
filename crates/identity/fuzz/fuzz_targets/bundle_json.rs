#![no_main]
//! Bundles: what is read can be written and read again, the same.

use identity::{Bundle, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let trust_domain = TrustDomain::new("td").expect("td must be a trust domain");
    if let Ok(bundle) = Bundle::from_spiffe_json(&trust_domain, json) {
        let written = bundle.to_spiffe_json();
        let again = Bundle::from_spiffe_json(&trust_domain, written.as_bytes())
            .expect("what we write must be readable");
        assert_eq!(again.to_spiffe_json().len(), written.len());
    }
});
