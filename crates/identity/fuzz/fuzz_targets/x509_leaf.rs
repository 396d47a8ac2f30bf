#![no_main]
//! Certificates: no bytes make the reader or the verifier panic.

use std::time::UNIX_EPOCH;

use identity::{BundleSet, Certificate, verify_x509_svid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    if let Ok(chain) = Certificate::chain_from_der(der) {
        assert!(verify_x509_svid(&chain, &BundleSet::new(), UNIX_EPOCH).is_err());
    }
});
