//! Writing DER: the little that certificates need.

use std::time::SystemTime;

use time::OffsetDateTime;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// `[number]`, primitive.
pub(crate) const fn context(number: u8) -> u8 {
    0x80 | number
}

/// `[number]`, constructed.
pub(crate) const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// Bytes being written.
#[derive(Default)]
pub(crate) struct Der(Vec<u8>);

impl Der {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Bytes that are DER already.
    pub(crate) fn raw(&mut self, der: &[u8]) {
        self.0.extend_from_slice(der);
    }

    pub(crate) fn put(&mut self, tag: u8, content: &[u8]) {
        self.nest(tag, |der| der.raw(content));
    }

    /// An element whose content `write` writes.
    pub(crate) fn nest(&mut self, tag: u8, write: impl FnOnce(&mut Self)) {
        self.0.extend_from_slice(&[tag, 0]);
        let start = self.0.len();
        write(self);
        let length = self.0.len() - start;
        let bytes = length.to_be_bytes();
        if length < 0x80 {
            self.0[start - 1] = bytes[bytes.len() - 1];
            return;
        }
        let significant = &bytes[(length.leading_zeros() / 8) as usize..];
        #[expect(clippy::cast_possible_truncation, reason = "a usize has few bytes")]
        let count = significant.len() as u8;
        self.0[start - 1] = 0x80 | count;
        self.0.splice(start..start, significant.iter().copied());
    }

    /// A positive INTEGER.
    pub(crate) fn unsigned(&mut self, value: u128) {
        let bytes = value.to_be_bytes();
        let zeros = (value.leading_zeros() / 8) as usize;
        let significant = &bytes[zeros.min(bytes.len() - 1)..];
        self.nest(INTEGER, |der| {
            if significant[0] & 0x80 != 0 {
                der.raw(&[0]);
            }
            der.raw(significant);
        });
    }

    /// A BIT STRING without unused bits.
    pub(crate) fn bits(&mut self, bytes: &[u8]) {
        self.nest(BIT_STRING, |der| {
            der.raw(&[0]);
            der.raw(bytes);
        });
    }

    /// A Time (RFC 5280 §4.1.2.5): UTCTime until 2049, GeneralizedTime after; whole seconds.
    pub(crate) fn time(&mut self, time: SystemTime) {
        let time = OffsetDateTime::from(time);
        let year = time.year().unsigned_abs();
        let tag = match year {
            1950..2050 => UTC_TIME,
            _ => GENERALIZED_TIME,
        };
        self.nest(tag, |der| {
            if tag == GENERALIZED_TIME {
                der.digits(year / 100);
            }
            der.digits(year % 100);
            for part in [
                time.month().into(),
                time.day(),
                time.hour(),
                time.minute(),
                time.second(),
            ] {
                der.digits(part.into());
            }
            der.raw(b"Z");
        });
    }

    /// The last two digits of a number.
    fn digits(&mut self, number: u32) {
        let digit = |number: u32| b'0' + u8::try_from(number % 10).unwrap_or(0);
        self.raw(&[digit(number / 10), digit(number)]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(write: impl FnOnce(&mut Der)) -> Vec<u8> {
        let mut der = Der::default();
        write(&mut der);
        der.into_bytes()
    }

    #[test]
    fn lengths_in_each_form() {
        assert_eq!(written(|der| der.put(4, &[7])), [4, 1, 7]);
        assert_eq!(
            written(|der| der.put(4, &[9; 0x80]))[..4],
            [4, 0x81, 0x80, 9]
        );
        assert_eq!(
            written(|der| der.put(4, &[9; 0x1234]))[..5],
            [4, 0x82, 0x12, 0x34, 9]
        );
    }

    #[test]
    fn integers_are_positive_and_shortest() {
        assert_eq!(written(|der| der.unsigned(0)), [2, 1, 0]);
        assert_eq!(written(|der| der.unsigned(0x7f)), [2, 1, 0x7f]);
        assert_eq!(written(|der| der.unsigned(0x80)), [2, 2, 0, 0x80]);
        let largest = written(|der| der.unsigned(u128::MAX));
        assert_eq!(largest[..3], [2, 17, 0]);
        assert_eq!(largest.len(), 19);
    }

    #[test]
    fn times_change_their_form_in_2050() {
        let at = |seconds| written(|der| der.time(UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(at(0), b"\x17\x0d700101000000Z");
        assert_eq!(at(2_524_607_999), b"\x17\x0d491231235959Z");
        assert_eq!(at(2_524_608_000), b"\x18\x0f20500101000000Z");
    }
}
