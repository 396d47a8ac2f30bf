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

mod field;

use super::tap::{Tap, Tapped};
use field::Field;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A stream whose read side goes through [`Authority`].
pub type Shim<S> = Tapped<S, Authority>;

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

impl Tap for Authority {
    fn read(&mut self, bytes: &mut [u8]) {
        self.rewrite(bytes);
    }
}

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

fn length_within(bytes: &[u8], limit: u32) -> usize {
    usize::try_from(limit).map_or(bytes.len(), |limit| limit.min(bytes.len()))
}

#[cfg(test)]
mod tests;
