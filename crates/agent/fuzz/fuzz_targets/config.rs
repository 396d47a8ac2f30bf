#![no_main]
//! agent.conf: no text panics the reader, and what is refused is refused with a reason.

use agent::{Config, Overrides};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = Config::parse(text, None, Overrides::default()) {
        assert!(!problems.to_string().is_empty());
    }
});
