//! The data types of section 1.5: integers, strings, binary data, variable byte integers.

use smallvec::SmallVec;

use super::DecodeError;
use crate::base::{
    PacketId,
    limits::{REMAINING_LENGTH_MAX, STRING_BYTES_MAX},
};

/// The bytes of a packet body that are not read yet. Running short is malformed:
/// the frame was complete.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(super) fn into_rest(self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes behind the last field.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("trailing bytes")) }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer in its fewest bytes (MQTT-1.5.5-1).
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let varint = Varint::read(self.rest)?.ok_or(CUT_SHORT)?;
        if !varint.minimal {
            return Err(DecodeError::Malformed("integer not in its fewest bytes"));
        }
        self.rest = &self.rest[varint.len..];
        Ok(varint.value)
    }

    /// Binary Data: a two-byte length and that many bytes.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// Well-formed UTF-8 (MQTT-1.5.4-1) that the caller checks for U+0000.
    pub(super) fn utf8(&mut self) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.binary()?).map_err(|_| DecodeError::Malformed("string is not UTF-8"))
    }

    /// A UTF-8 Encoded String (MQTT-1.5.4-1, MQTT-1.5.4-2).
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.utf8()?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::Malformed("string holds U+0000"));
        }
        Ok(text)
    }

    /// MQTT-2.2.1-3.
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::Protocol("packet identifier is 0"))
    }
}

/// A Variable Byte Integer as it stands on the wire (section 1.5.5).
pub(super) struct Varint {
    pub(super) value: u32,
    /// Bytes it takes.
    pub(super) len: usize,
    /// Whether no shorter encoding exists.
    pub(super) minimal: bool,
}

impl Varint {
    /// The integer at the start of `bytes`, `None` while its end is missing.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut value = 0;
        for (index, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let minimal = index == 0 || byte != 0;
                return Ok(Some(Self { value, len: index + 1, minimal }));
            }
        }
        if bytes.len() < VARINT_BYTES_MAX {
            return Ok(None);
        }
        Err(DecodeError::Malformed("integer of more than four bytes"))
    }
}

/// What encoded bytes are appended to.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// `value` is at most [`REMAINING_LENGTH_MAX`].
    fn put_varint(&mut self, value: usize) {
        debug_assert!(value <= REMAINING_LENGTH_MAX as usize);
        let mut rest = value;
        while rest > 0x7F {
            self.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.put_u8(rest as u8);
    }

    /// A string or binary data with its length; see [`field`].
    fn put_field(&mut self, bytes: &[u8]) {
        let bytes = field(bytes);
        self.put_u16(bytes.len() as u16);
        self.put(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<const N: usize> Sink for SmallVec<[u8; N]> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The bytes of one field. A longer one is a bug of the caller; it is cut, so
/// that its tail can never be read as packets.
pub(super) fn field(bytes: &[u8]) -> &[u8] {
    debug_assert!(bytes.len() <= STRING_BYTES_MAX);
    &bytes[..bytes.len().min(STRING_BYTES_MAX)]
}

/// Bytes that [`Sink::put_varint`] appends.
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Appends a packet whose length is known only once its body is written. Room
/// for a one-byte Remaining Length is kept; a longer body moves by up to 3 bytes.
pub(super) fn put_packet(out: &mut Vec<u8>, first: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[first, 0]);
    let start = out.len();
    body(out);
    let len = out.len() - start;
    let mut remaining_length = SmallVec::<[u8; 8]>::new();
    remaining_length.put_varint(len);
    match remaining_length[..] {
        [byte] => out[start - 1] = byte,
        _ => drop(out.splice(start - 1..start, remaining_length)),
    }
}

const VARINT_BYTES_MAX: usize = 4;
const CUT_SHORT: DecodeError = DecodeError::Malformed("packet ends inside a field");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_use_their_fewest_bytes() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            out.put_varint(value);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value), bytes.len());
            assert_eq!(Reader::new(bytes).varint(), Ok(value as u32));
            assert_eq!(Reader::new(&bytes[1..]).varint().is_ok(), bytes.len() > 1);
        }
    }

    #[test]
    fn integers_are_refused() {
        for bytes in [&[][..], &[0x80], &[0x80, 0x00], &[0xFF; 4], &[0xFF, 0xFF, 0xFF, 0x80, 0x01]]
        {
            let result = Reader::new(bytes).varint();
            assert!(matches!(result, Err(DecodeError::Malformed(_))), "{bytes:02X?}");
        }
    }

    #[test]
    fn strings_are_utf8_without_null() {
        for (bytes, expected) in [
            (&[0, 0][..], Some("")),
            (&[0, 1, b'a'], Some("a")),
            (&[0, 3, 0xEF, 0xBB, 0xBF], Some("\u{FEFF}")),
            (&[0, 1, 0], None),
            (&[0, 2, 0xC0, 0x80], None),
            (&[0, 3, 0xED, 0xA0, 0x80], None),
            (&[0, 1, 0xFF], None),
            (&[0, 2, b'a'], None),
            (&[0], None),
        ] {
            assert_eq!(Reader::new(bytes).string().ok(), expected, "{bytes:02X?}");
        }
    }

    #[test]
    fn long_bodies_get_a_longer_header() {
        for (len, header) in
            [(127, &[0x40, 0x7F][..]), (128, &[0x40, 0x80, 0x01]), (20_000, &[0x40, 0xA0, 0x9C, 1])]
        {
            let mut out = vec![0xEE];
            put_packet(&mut out, 0x40, |out| out.put(&vec![7; len]));
            assert_eq!(&out[1..=header.len()], header);
            assert_eq!(&out[1 + header.len()..], vec![7; len]);
        }
    }
}
