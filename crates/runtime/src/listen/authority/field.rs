//! One header block, field by field.

use super::{Broken, length_within};

pub(super) const NAME: &[u8] = b":authority";
pub(super) const NAME_IN_HUFFMAN_CODE: &[u8] = b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f";
/// `:authority` in HPACK's static table.
const NAME_INDEX: u8 = 1;

/// Where in HPACK's representations (RFC 7541, section 6) the next byte stands.
#[derive(Clone, Debug, Default)]
pub(super) enum Field {
    #[default]
    Start,
    /// The rest of a number that matters only by its end; then a value follows, or the next field.
    Number {
        seen: u8,
        value_follows: bool,
    },
    NameLength,
    NameLengthRest {
        huffman: bool,
        number: Number,
    },
    Name {
        left: u32,
        huffman: bool,
        seen: usize,
        matches: bool,
    },
    ValueLength {
        authority: bool,
    },
    ValueLengthRest {
        rewrite: bool,
        number: Number,
    },
    Value {
        left: u32,
        rewrite: bool,
    },
}

impl Field {
    pub(super) fn walk(&mut self, mut bytes: &mut [u8]) -> Result<(), Broken> {
        while let Some(byte) = bytes.first().copied() {
            let mut taken = 1;
            *self = match std::mem::take(self) {
                Self::Start => Self::starting(byte),
                Self::Number {
                    seen,
                    value_follows,
                } => match (byte & 0x80 != 0, seen) {
                    (true, 4..) => return Err(Broken),
                    (true, _) => Self::Number {
                        seen: seen + 1,
                        value_follows,
                    },
                    (false, _) => Self::after_number(value_follows),
                },
                Self::NameLength => {
                    let huffman = byte & 0x80 != 0;
                    match byte & 0x7f {
                        0x7f => Self::NameLengthRest {
                            huffman,
                            number: Number::after(0x7f),
                        },
                        length => Self::name(u32::from(length), huffman),
                    }
                }
                Self::NameLengthRest { huffman, number } => match number.add(byte)? {
                    Step::More(number) => Self::NameLengthRest { huffman, number },
                    Step::Done(length) => Self::name(length, huffman),
                },
                Self::Name {
                    left,
                    huffman,
                    seen,
                    matches,
                } => {
                    taken = length_within(bytes, left);
                    let expected = if huffman { NAME_IN_HUFFMAN_CODE } else { NAME };
                    let matches =
                        matches && expected.get(seen..seen + taken) == Some(&bytes[..taken]);
                    match left - u32::try_from(taken).map_err(|_| Broken)? {
                        0 => Self::ValueLength {
                            authority: matches && seen + taken == expected.len(),
                        },
                        left => Self::Name {
                            left,
                            huffman,
                            seen: seen + taken,
                            matches,
                        },
                    }
                }
                Self::ValueLength { authority } => {
                    let rewrite = authority && byte & 0x80 == 0;
                    match byte & 0x7f {
                        0x7f => Self::ValueLengthRest {
                            rewrite,
                            number: Number::after(0x7f),
                        },
                        length => Self::value(u32::from(length), rewrite),
                    }
                }
                Self::ValueLengthRest { rewrite, number } => match number.add(byte)? {
                    Step::More(number) => Self::ValueLengthRest { rewrite, number },
                    Step::Done(length) => Self::value(length, rewrite),
                },
                Self::Value { left, rewrite } => {
                    taken = length_within(bytes, left);
                    if rewrite {
                        replace(&mut bytes[..taken]);
                    }
                    Self::value(left - u32::try_from(taken).map_err(|_| Broken)?, rewrite)
                }
            };
            bytes = &mut bytes[taken..];
        }
        Ok(())
    }

    fn starting(byte: u8) -> Self {
        let (prefix, value_follows) = match byte {
            0x80.. => (0x7f, false),
            0x40.. => (0x3f, true),
            0x20.. => (0x1f, false),
            _ => (0x0f, true),
        };
        match byte & prefix {
            0 if value_follows => Self::NameLength,
            index if index == prefix => Self::Number {
                seen: 0,
                value_follows,
            },
            index if value_follows => Self::ValueLength {
                authority: index == NAME_INDEX,
            },
            _ => Self::Start,
        }
    }

    fn after_number(value_follows: bool) -> Self {
        if value_follows {
            Self::ValueLength { authority: false }
        } else {
            Self::Start
        }
    }

    fn name(length: u32, huffman: bool) -> Self {
        match length {
            0 => Self::ValueLength { authority: false },
            left => Self::Name {
                left,
                huffman,
                seen: 0,
                matches: true,
            },
        }
    }

    fn value(left: u32, rewrite: bool) -> Self {
        match left {
            0 => Self::Start,
            left => Self::Value { left, rewrite },
        }
    }
}

/// HPACK's number after a full prefix (RFC 7541, section 5.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    value: u32,
    shift: u32,
}

enum Step {
    More(Number),
    Done(u32),
}

impl Number {
    fn after(prefix: u32) -> Self {
        Self {
            value: prefix,
            shift: 0,
        }
    }

    fn add(self, byte: u8) -> Result<Step, Broken> {
        // No header that may pass needs more than 28 bits.
        if self.shift > 21 {
            return Err(Broken);
        }
        let value = self.value + (u32::from(byte & 0x7f) << self.shift);
        Ok(if byte & 0x80 == 0 {
            Step::Done(value)
        } else {
            Step::More(Self {
                value,
                shift: self.shift + 7,
            })
        })
    }
}

fn replace(value: &mut [u8]) {
    for byte in value {
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')) {
            *byte = b'-';
        }
    }
}
