#![no_main]
//! The injector's and the controller's YAML: no text panics a reader, and what is refused is refused with a reason.

use k8s::{controller, injector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let refused = [
        injector::config::read(text, None).err(),
        controller::config::read(text, None).err(),
    ];
    for problems in refused.into_iter().flatten() {
        assert!(!problems.to_string().is_empty());
    }
});
