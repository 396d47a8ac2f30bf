//! Nonces: a part of the stream's own, then a number that grows.

/// Makes and reads the nonces of one stream.
#[derive(Debug)]
pub(super) struct Nonces {
    stream: u64,
    pub(super) last: u64,
    /// Whether the client has answered the last one.
    pub(super) answered: bool,
}

impl Nonces {
    pub(super) const fn new(stream: u64) -> Self {
        Self {
            stream,
            last: 0,
            answered: false,
        }
    }

    pub(super) fn next(&mut self) -> (u64, String) {
        self.last += 1;
        self.answered = false;
        (self.last, format!("{:016x}-{}", self.stream, self.last))
    }

    /// The number in a nonce of this stream.
    pub(super) fn read(&self, nonce: &str) -> Option<u64> {
        let (stream, number) = nonce.split_once('-')?;
        let number = number.parse().ok().filter(|number| *number <= self.last)?;
        (u64::from_str_radix(stream, 16) == Ok(self.stream)).then_some(number)
    }
}
