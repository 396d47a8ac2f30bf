#![no_main]
//! CA journals: no bytes make the reader panic; what is read is written and read again, the same; what is due is found.

use std::time::{Duration, UNIX_EPOCH};

use ca::{Kind, Rotation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(rotation) = Rotation::from_journal(json, |_, _| true) else {
        return;
    };
    let written = rotation.to_journal();
    let again =
        Rotation::from_journal(&written, |_, _| true).expect("what we write must be readable");
    assert_eq!(again.to_journal(), written);
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let due = rotation.due(now);
    assert_eq!(again.due(now), due);
    let _ = (
        rotation.next_due(),
        rotation.active(Kind::X509),
        rotation.active(Kind::Jwt),
    );
});
