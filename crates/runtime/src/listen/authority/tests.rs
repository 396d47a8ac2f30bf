use http::uri::Authority as UriAuthority;
use proptest::prelude::*;

use super::field::{NAME, NAME_IN_HUFFMAN_CODE};
use super::*;

/// The first bytes of grpcio 1.85 (C-core) on a unix socket: preface, SETTINGS, WINDOW_UPDATE, HEADERS whose every field is a literal
/// with incremental indexing and a plain name.
fn recorded() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(
        0x4,
        0,
        &[
            0, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 4, 0, 0x3f, 0xff, 0xff,
        ],
    ));
    bytes.extend(frame(0x8, 0, &[0, 0x3f, 0, 0]));
    let block = [
        literal(b":path", b"/SpiffeWorkloadAPI/FetchX509SVID"),
        literal(b":authority", b"tmp%2Fspire%2Dagent%2Fapi.sock"),
        vec![0x83, 0x86],
        literal(b"content-type", b"application/grpc"),
        literal(b"te", b"trailers"),
        literal(
            b"user-agent",
            b"grpc-python/1.85.1 grpc-c/52.0.0 (linux; chttp2)",
        ),
        literal(b"workload.spiffe.io", b"true"),
        literal(b"x-path", b"100%2F"),
    ];
    bytes.extend(frame(HEADERS, END_HEADERS, &block.concat()));
    bytes.extend(frame(0x0, 0x1, b"\0\0\0\0\0%2F:authority"));
    bytes
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    frame.extend(payload);
    frame
}

/// A literal with incremental indexing and a new name (RFC 7541, section 6.2.1).
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0x40], string(name), string(value)].concat()
}

/// A string without Huffman code (RFC 7541, section 5.2).
fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length = text.len();
    if length < 0x7f {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(0x7f);
        length -= 0x7f;
        while length >= 0x80 {
            bytes.push(u8::try_from(length % 0x80).unwrap() | 0x80);
            length /= 0x80;
        }
        bytes.push(u8::try_from(length).unwrap());
    }
    bytes.extend(text);
    bytes
}

fn rewritten(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    Authority::default().rewrite(&mut bytes);
    bytes
}

fn in_pieces(bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut authority = Authority::default();
    let mut rest = bytes.as_mut_slice();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
        let (piece, after) = rest.split_at_mut(size);
        authority.rewrite(piece);
        rest = after;
    }
    bytes
}

/// The stream that carries one header block, whole.
fn with_block(block: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(HEADERS, END_HEADERS, block)].concat()
}

/// What becomes of a header block.
fn block(block: &[u8]) -> Vec<u8> {
    rewritten(&with_block(block)).split_off(PREFACE.len() + 9)
}

#[test]
fn c_cores_first_request_is_made_acceptable_and_nothing_else_changes() {
    let before = recorded();
    let after = rewritten(&before);
    let text = String::from_utf8_lossy(&after);
    assert!(text.contains("tmp-2Fspire-2Dagent-2Fapi.sock"), "{text}");
    assert!(
        text.contains("100%2F") && text.contains("%2F:authority"),
        "{text}"
    );
    let changed = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    assert_eq!(changed.count(), 3);
}

#[test]
fn every_form_of_the_name() {
    let value = string(b"a%2Fb");
    let expected = string(b"a-2Fb");
    let check = |head: &[u8]| {
        let given = [head, &value, &[0x82]].concat();
        assert_eq!(
            block(&given),
            [head, &expected, &[0x82]].concat(),
            "{head:02x?}"
        );
    };
    for first in [0x41, 0x01, 0x11] {
        check(&[first]);
    }
    for first in [0x40, 0x00, 0x10] {
        check(&[&[first], string(NAME).as_slice()].concat());
        check(&[&[first, 0x88], NAME_IN_HUFFMAN_CODE].concat());
    }
}

#[test]
fn other_fields_stay() {
    let value = string(b"a%2Fb");
    for head in [
        vec![0x44],       // :path
        vec![0x7f, 0x02], // a name of the dynamic table
        [&[0x40], string(b":authoritx").as_slice()].concat(),
        [&[0x40], string(b":authorit").as_slice()].concat(),
        [&[0x40], string(b":authority1").as_slice()].concat(),
        [&[0x3f, 0xe1, 0x1f, 0x42], b"".as_slice()].concat(), // a new table size, then :method
        vec![0xff, 0x80, 0x01, 0x0f, 0x10], // indexed beyond the static table, then one without indexing
    ] {
        let given = [head, value.clone()].concat();
        assert_eq!(block(&given), given);
    }
}

#[test]
fn values_in_huffman_code_stay() {
    let given = [&[0x41, 0x83], b"%%%".as_slice()].concat();
    assert_eq!(block(&given), given);
}

#[test]
fn long_values_and_empty_ones() {
    let long = b"%2F".repeat(100);
    let given = [
        literal(NAME, &long),
        literal(NAME, b""),
        literal(NAME, b"%"),
    ]
    .concat();
    let expected = [
        literal(NAME, &b"-2F".repeat(100)),
        literal(NAME, b""),
        literal(NAME, b"-"),
    ]
    .concat();
    assert_eq!(block(&given), expected);
}

#[test]
fn padding_priority_and_continuation() {
    let fields = [vec![0x82], literal(NAME, b"a%2Fb"), literal(b"x", b"y")].concat();
    let expected = [vec![0x82], literal(NAME, b"a-2Fb"), literal(b"x", b"y")].concat();
    for cut in 0..=fields.len() {
        let stream = |fields: &[u8]| {
            let (first, second) = fields.split_at(cut);
            let padded = [&[3, 0x80, 0, 0, 0, 16], first, b"%%%"].concat();
            [
                PREFACE.to_vec(),
                frame(HEADERS, PADDED | PRIORITY, &padded),
                frame(CONTINUATION, 0, b""),
                frame(CONTINUATION, END_HEADERS, second),
                frame(HEADERS, END_HEADERS, fields),
                frame(HEADERS, END_HEADERS, b""),
                frame(0x6, 0, b"%%%%%%%%"),
            ]
            .concat()
        };
        assert_eq!(
            rewritten(&stream(&fields)),
            stream(&expected),
            "cut at {cut}"
        );
    }
}

#[test]
fn what_is_no_http2_passes_as_it_is() {
    let request = with_block(&literal(NAME, b"a%2Fb"));
    let check = |prefix: &[u8]| {
        let given = [prefix, &request[PREFACE.len()..]].concat();
        assert_eq!(rewritten(&given), given);
    };
    check(b"GET /%2F HTTP/1.1\r\n\r\n");
    check(&PREFACE[..PREFACE.len() - 1]);
    check(&[PREFACE, &frame(CONTINUATION, 0, b"")].concat());
    check(&[PREFACE, &frame(HEADERS, PADDED, &[9, 0])].concat());
    check(&[PREFACE, &frame(HEADERS, PADDED, b"")].concat());
    check(&[PREFACE, &frame(HEADERS, PRIORITY, &[0; 4])].concat());
    check(&[PREFACE, &frame(HEADERS, 0, b""), &frame(0x0, 0, b"")].concat());
    check(&[PREFACE, &frame(HEADERS, END_HEADERS, &[0x40])].concat());
    check(
        &[
            PREFACE,
            &frame(
                HEADERS,
                END_HEADERS,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            ),
        ]
        .concat(),
    );
    check(
        &[
            PREFACE,
            &frame(
                HEADERS,
                END_HEADERS,
                &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff],
            ),
        ]
        .concat(),
    );
}

proptest! {
    #[test]
    fn any_pieces_give_the_same(
        values in proptest::collection::vec("[ -~]{0,300}", 1..4),
        sizes in proptest::collection::vec(1_usize..40, 0..200),
        padding in 0_u8..20,
        cut in any::<prop::sample::Index>(),
    ) {
        let fields: Vec<u8> = values.iter().flat_map(|value| literal(NAME, value.as_bytes())).collect();
        let (first, second) = fields.split_at(cut.index(fields.len()));
        let padded = [&[padding], first, &vec![b'%'; usize::from(padding)]].concat();
        let stream = [
            recorded(),
            frame(HEADERS, PADDED, &padded),
            frame(CONTINUATION, END_HEADERS, second),
            with_block(&fields)[PREFACE.len()..].to_vec(),
        ]
        .concat();
        let whole = rewritten(&stream);
        prop_assert_eq!(in_pieces(&stream, sizes.into_iter()), &whole[..]);
        prop_assert_eq!(whole.len(), stream.len());
        for value in values {
            let after = block(&literal(NAME, value.as_bytes()));
            let text = &after[after.len() - value.len()..];
            prop_assert!(value.is_empty() || UriAuthority::try_from(text).is_ok(), "{:?}", value);
        }
    }

    #[test]
    fn garbage_keeps_its_length_and_its_answer_in_pieces(
        garbage: Vec<u8>,
        in_header: bool,
        sizes in proptest::collection::vec(1_usize..9, 0..50),
    ) {
        let stream = if in_header { with_block(&garbage) } else { [PREFACE, &garbage].concat() };
        let whole = rewritten(&stream);
        prop_assert_eq!(in_pieces(&stream, sizes.into_iter()), whole);
    }
}
