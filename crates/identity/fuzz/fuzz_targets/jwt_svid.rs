#![no_main]
//! Tokens: no text makes the reader panic, and none verifies without a key.

use std::time::UNIX_EPOCH;

use identity::{BundleSet, JwtSvid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = JwtSvid::parse_unverified(text);
    assert!(JwtSvid::verify(text, "a", &BundleSet::new(), UNIX_EPOCH).is_err());
});
