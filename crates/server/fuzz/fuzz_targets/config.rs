#![no_main]
//! server.conf: no text panics the reader, and what is refused is refused with a reason.

use libfuzzer_sys::fuzz_target;
use server::{Config, Overrides};

fuzz_target!(|text: &str| {
    if let Err(problems) = Config::parse(text, None, Overrides::default()) {
        assert!(!problems.to_string().is_empty());
    }
});
