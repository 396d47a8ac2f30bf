//! Makes the `:authority` of gRPC's C-core clients one that HTTP libraries take.
//!
//! Over a unix socket, C-core (Python, C++, Ruby, PHP, Envoy's `google_grpc`) sends the percent-encoded socket path as `:authority`. No URI
//! authority may hold a `%`, so h2 resets each such stream. Nothing reads the authority on a unix socket; hence we replace, in the bytes from
//! the client, every character of the value other than `A-Za-z0-9-._~` with `-`.
//!
//! The length stays the same, so frame lengths and the sizes in both HPACK tables do too, and a value that entered the dynamic table comes
//! back in its new form. Values in Huffman code are left alone: C-core never sends them. Every request may carry the value anew, so every
//! header block of a connection is walked, at about a nanosecond a byte (a C-core client's first request takes a quarter of a microsecond, its
//! later ones 25 ns); payloads are skipped by their length. When the bytes are not HTTP/2, or break its rules, the walk
//! ends for good and everything passes as it is: the HTTP library has its own answer to that.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NAME: &[u8] = b":authority";
const NAME_IN_HUFFMAN_CODE: &[u8] = b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f";
/// `:authority` in HPACK's static table.
const NAME_INDEX: u8 = 1;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A stream whose read side goes through [`Authority`].
#[derive(Debug)]
pub struct Shim<S> {
    stream: S,
    authority: Authority,
}

impl<S> Shim<S> {
    /// Wraps a stream of which nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            authority: Authority::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Shim<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.authority.rewrite(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Shim<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Walks the bytes of one HTTP/2 client, in pieces of any size, and rewrites its authorities in place.
#[derive(Clone, Debug, Default)]
pub struct Authority {
    at: Frame,
    /// Bytes of the frame's payload still to come, padding included.
    left: u32,
    padding: u8,
    flags: u8,
    /// A header block has begun and not ended.
    in_block: bool,
    field: Field,
}

/// Where in HTTP/2's framing (RFC 9113, section 4.1 and 6.2) the next byte stands.
#[derive(Clone, Debug)]
enum Frame {
    Preface(usize),
    Head([u8; 9], usize),
    PadLength,
    Priority(u8),
    Block,
    Skip,
    /// Not HTTP/2 as we know it: pass everything.
    Blind,
}

impl Default for Frame {
    fn default() -> Self {
        Self::Preface(0)
    }
}

/// Not HTTP/2, or against its rules.
struct Broken;

impl Authority {
    /// Rewrites the next bytes from the client.
    pub fn rewrite(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() && !matches!(self.at, Frame::Blind) {
            match self.step(bytes) {
                Ok(taken) => bytes = &mut bytes[taken..],
                Err(Broken) => self.at = Frame::Blind,
            }
        }
    }

    /// Takes one or more bytes; says how many.
    fn step(&mut self, bytes: &mut [u8]) -> Result<usize, Broken> {
        match &mut self.at {
            Frame::Preface(seen) => {
                if bytes[0] != PREFACE[*seen] {
                    return Err(Broken);
                }
                *seen += 1;
                if *seen == PREFACE.len() {
                    self.at = Frame::Head([0; 9], 0);
                }
                Ok(1)
            }
            Frame::Head(head, seen) => {
                let taken = bytes.len().min(head.len() - *seen);
                head[*seen..*seen + taken].copy_from_slice(&bytes[..taken]);
                *seen += taken;
                if *seen == head.len() {
                    let head = *head;
                    self.frame(head)?;
                }
                Ok(taken)
            }
            Frame::PadLength => {
                self.padding = bytes[0];
                self.take(1)?;
                self.after_pad_length()?;
                Ok(1)
            }
            Frame::Priority(left) => {
                *left -= 1;
                let done = *left == 0;
                self.take(1)?;
                if done {
                    self.fragment()?;
                }
                Ok(1)
            }
            Frame::Block => {
                let fragment = self.left - u32::from(self.padding);
                let taken = length_within(bytes, fragment);
                self.field.walk(&mut bytes[..taken])?;
                self.take(taken)?;
                if self.left == u32::from(self.padding) {
                    self.end_of_fragment()?;
                }
                Ok(taken)
            }
            Frame::Skip => {
                let taken = length_within(bytes, self.left);
                self.take(taken)?;
                if self.left == 0 {
                    self.at = Frame::Head([0; 9], 0);
                }
                Ok(taken)
            }
            Frame::Blind => Ok(bytes.len()),
        }
    }

    /// Begins the payload of the frame with this head.
    fn frame(&mut self, head: [u8; 9]) -> Result<(), Broken> {
        let [l0, l1, l2, kind, flags, ..] = head;
        self.left = u32::from_be_bytes([0, l0, l1, l2]);
        self.padding = 0;
        self.flags = flags;
        match (kind, self.in_block) {
            (HEADERS, false) => {
                self.in_block = true;
                if flags & PADDED == 0 {
                    self.after_pad_length()
                } else {
                    self.at = Frame::PadLength;
                    self.has(1)
                }
            }
            (CONTINUATION, true) => {
                self.flags &= END_HEADERS;
                self.fragment()
            }
            (CONTINUATION, false) | (_, true) => Err(Broken),
            (_, false) => {
                self.at = if self.left == 0 {
                    Frame::Head([0; 9], 0)
                } else {
                    Frame::Skip
                };
                Ok(())
            }
        }
    }

    fn after_pad_length(&mut self) -> Result<(), Broken> {
        if self.flags & PRIORITY == 0 {
            return self.fragment();
        }
        self.at = Frame::Priority(5);
        self.has(5)
    }

    /// Begins the part of the payload that belongs to the header block.
    fn fragment(&mut self) -> Result<(), Broken> {
        self.has(u32::from(self.padding))?;
        self.at = Frame::Block;
        if self.left == u32::from(self.padding) {
            self.end_of_fragment()?;
        }
        Ok(())
    }

    fn end_of_fragment(&mut self) -> Result<(), Broken> {
        if self.flags & END_HEADERS != 0 {
            self.in_block = false;
            if !matches!(self.field, Field::Start) {
                return Err(Broken);
            }
        }
        self.at = if self.left == 0 {
            Frame::Head([0; 9], 0)
        } else {
            Frame::Skip
        };
        Ok(())
    }

    fn has(&self, length: u32) -> Result<(), Broken> {
        if self.left < length {
            Err(Broken)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, length: usize) -> Result<(), Broken> {
        let length = u32::try_from(length).map_err(|_| Broken)?;
        self.left = self.left.checked_sub(length).ok_or(Broken)?;
        Ok(())
    }
}

/// Where in HPACK's representations (RFC 7541, section 6) the next byte stands.
#[derive(Clone, Debug, Default)]
enum Field {
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
    fn walk(&mut self, mut bytes: &mut [u8]) -> Result<(), Broken> {
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
struct Number {
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

fn length_within(bytes: &[u8], limit: u32) -> usize {
    usize::try_from(limit).map_or(bytes.len(), |limit| limit.min(bytes.len()))
}

#[cfg(test)]
mod tests;
