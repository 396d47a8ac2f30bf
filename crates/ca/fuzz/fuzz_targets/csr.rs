#![no_main]
//! Certificate signing requests: no bytes make the reader panic, both readers agree on the key, and what they take is
//! taken again as a key on its own.

use ca::PublicKey;
use ca::csr::{parse, parse_named};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    match (parse(der), parse_named(der)) {
        (Ok(key), named) => {
            assert_eq!(PublicKey::from_spki(key.spki()).as_ref(), Ok(&key));
            assert!(named.is_err() || named.is_ok_and(|named| named.public_key == key));
        }
        (Err(error), named) => assert_eq!(named.err(), Some(error)),
    }
});
