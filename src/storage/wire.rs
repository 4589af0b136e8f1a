//! What record bodies are made of: variable-length integers, texts, bytes, flags.
//!
//! Reading proves all that it returns, and allocates nothing.

use super::RecordError;
use crate::base::{Output, limits::STRING_BYTES_MAX};

/// What is not read yet of a body.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Refuses bytes behind the last field.
    pub(super) const fn finish(self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError("bytes behind its end")) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        let (&first, rest) = self.rest.split_first().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(first)
    }

    /// Seven bits a byte, the lowest first, the top bit set on all but the last.
    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(TOO_LARGE)
    }

    /// A number that fits into a smaller type.
    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, RecordError> {
        T::try_from(self.u64()?).map_err(|_| TOO_LARGE)
    }

    /// How many elements follow, of at least `bytes_min` bytes each: so many can be there.
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<usize, RecordError> {
        let count: usize = self.number()?;
        if count > self.rest.len() / bytes_min { Err(CUT_SHORT) } else { Ok(count) }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let len = self.number()?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A text that MQTT could carry.
    pub(super) fn text(&mut self) -> Result<&'a str, RecordError> {
        let bytes = self.bytes()?;
        if bytes.len() > STRING_BYTES_MAX {
            return Err(RecordError("text of more than 65,535 bytes"));
        }
        str::from_utf8(bytes).map_err(|_| RecordError("text is not UTF-8"))
    }

    /// A byte of flags, all of them known.
    pub(super) fn flags(&mut self, known: u8) -> Result<u8, RecordError> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(RecordError("unknown flag")) }
    }

    /// Bytes behind a fixed layout: 8 of a number, the lowest first.
    pub(super) fn fixed_u64(&mut self) -> Result<u64, RecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*taken))
    }
}

/// See [`Reader`].
pub(super) trait Put {
    fn put_u8(&mut self, value: u8);

    fn put_raw(&mut self, bytes: &[u8]);

    fn put_u64(&mut self, value: impl Into<u64>) {
        let mut rest = value.into();
        while rest > 0x7F {
            self.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.put_u8(rest as u8);
    }

    fn put_count(&mut self, count: usize) {
        self.put_u64(count as u64);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.put_raw(bytes);
    }
}

impl Put for Output {
    fn put_u8(&mut self, value: u8) {
        self.tail().push(value);
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        self.tail().extend_from_slice(bytes);
    }
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

const CUT_SHORT: RecordError = RecordError("ends before its last field");
const TOO_LARGE: RecordError = RecordError("number too large");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_few_bytes_as_they_need() {
        for (value, len) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (u64::MAX >> 1, 9),
            (u64::MAX, 10),
        ] {
            let mut bytes = Vec::new();
            bytes.put_u64(value);
            assert_eq!(bytes.len(), len, "{value}");
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.u64(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
            assert!(Reader::new(&bytes[..len - 1]).u64().is_err());
        }
        assert_eq!(Reader::new(&[0xFF; 10]).u64(), Err(TOO_LARGE));
        assert_eq!(Reader::new(&[0x80; 20]).u64(), Err(TOO_LARGE));
        assert_eq!(Reader::new(&[0x80, 0x80, 0x04]).number::<u16>(), Err(TOO_LARGE));
    }
}
