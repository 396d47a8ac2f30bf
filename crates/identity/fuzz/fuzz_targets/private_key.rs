#![no_main]
//! Keys on disk: neither any bytes nor a spoilt key make the reader panic, and a key that is read signs, is written, and
//! is read again.

use std::sync::LazyLock;

use identity::{KeyType, PrivateKey};
use libfuzzer_sys::fuzz_target;

static GOOD: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::generate(KeyType::EcP256).expect("a key"));

fn check(key: &PrivateKey) {
    assert!(key.sign(b"message").is_ok());
    assert_eq!(PrivateKey::from_pem(&key.to_pem()).as_ref(), Ok(key));
}

fuzz_target!(|input: &[u8]| {
    let pem = std::str::from_utf8(input).ok();
    if let Some(key) = pem.and_then(|pem| PrivateKey::from_pem(pem).ok()) {
        check(&key);
    }
    let mut spoilt = GOOD.as_pkcs8_der().to_vec();
    for edit in input.chunks_exact(2) {
        let at = usize::from(edit[0]) % spoilt.len();
        spoilt[at] ^= edit[1];
    }
    for der in [input, &spoilt] {
        if let Ok(key) = PrivateKey::from_pkcs8_der(der) {
            check(&key);
        }
    }
});
