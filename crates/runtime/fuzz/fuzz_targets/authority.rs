//! The `:authority` walk: no input panics it, pieces of any size give what the whole gives, and no length changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::listen::Authority;

fuzz_target!(|input: (Vec<u8>, Vec<u8>, bool)| {
    let (garbage, sizes, after_preface) = input;
    let mut stream = Vec::new();
    if after_preface {
        stream.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }
    stream.extend(garbage);

    let mut whole = stream.clone();
    Authority::default().rewrite(&mut whole);
    assert_eq!(whole.len(), stream.len());

    let mut authority = Authority::default();
    let mut rest = stream.as_mut_slice();
    let mut sizes = sizes.into_iter().cycle();
    while !rest.is_empty() {
        let size = usize::from(sizes.next().unwrap_or(1)).clamp(1, rest.len());
        let (piece, after) = rest.split_at_mut(size);
        authority.rewrite(piece);
        rest = after;
    }
    assert_eq!(stream, whole);
});
