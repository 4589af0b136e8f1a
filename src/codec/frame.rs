//! Where one packet ends and the next begins: the fixed header (section 2.1).

use std::fmt;

use super::{DecodeError, wire::Varint};

/// One whole packet in a receive buffer, its content unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Packet type (high four bits) and flags.
    pub first: u8,
    /// Everything behind the fixed header.
    pub body: &'a [u8],
    /// Bytes of the whole packet, fixed header included.
    pub len: usize,
    /// Whether Remaining Length is in its fewest bytes (MQTT-1.5.5-1).
    pub minimal: bool,
}

impl Frame<'_> {
    /// The packet type, `None` for the reserved value 0.
    pub fn packet_type(&self) -> Option<PacketType> {
        PacketType::from_bits(self.first >> 4)
    }
}

/// The packet at the start of `bytes`, `None` while it is incomplete.
///
/// Errors come as early as the header shows them: a reserved type, a length of
/// more than four bytes, more than `packet_bytes_max` bytes for the whole packet.
pub fn next_frame(bytes: &[u8], packet_bytes_max: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    if first >> 4 == 0 {
        return Err(DecodeError::Malformed("reserved packet type"));
    }
    let Some(remaining) = Varint::read(rest)? else { return Ok(None) };
    let start = 1 + remaining.len;
    let len = start + remaining.value as usize;
    if len > packet_bytes_max as usize {
        return Err(DecodeError::PacketTooLarge);
    }
    let body = bytes.get(start..len);
    Ok(body.map(|body| Frame { first, body, len, minimal: remaining.minimal }))
}

/// Bytes of the whole packet that starts here, known once its fixed header is
/// complete, so that a receiver can reserve what is still to come. `None` before
/// that, and for a header that [`next_frame`] refuses.
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let remaining = Varint::read(bytes.get(1..)?).ok()??;
    Some(1 + remaining.len + remaining.value as usize)
}

/// Control packet type (section 2.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the standard's and Display prints them as there.
pub enum PacketType {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    /// The type for its four wire bits; `None` for 0 and for more than 15.
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The flags that every packet of this type has (MQTT-2.1.3-1); those of
    /// PUBLISH vary and come on top.
    pub(super) const fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0x2,
            _ => 0,
        }
    }

    /// The first byte of a packet with its fixed flags.
    pub(super) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_one_by_one() {
        let bytes = [0x40, 2, 0, 1, 0xC0, 0, 0x40, 2, 0];
        let first = next_frame(&bytes, 100).unwrap().unwrap();
        assert_eq!((first.packet_type(), first.body), (Some(PacketType::PubAck), &[0, 1][..]));
        let second = next_frame(&bytes[first.len..], 100).unwrap().unwrap();
        assert_eq!((second.packet_type(), second.len), (Some(PacketType::PingReq), 2));
        let rest = &bytes[first.len + second.len..];
        assert_eq!(next_frame(rest, 100), Ok(None));
        assert_eq!(frame_len(rest), Some(4));
    }

    #[test]
    fn headers_fail_as_early_as_they_can() {
        let too_long = Err(DecodeError::Malformed("integer of more than four bytes"));
        for (bytes, expected) in [
            (&[][..], Ok(None)),
            (&[0x30], Ok(None)),
            (&[0x30, 0x80, 0x80, 0x80], Ok(None)),
            (&[0x30, 0x80, 0x80, 0x80, 0x80], too_long),
            (&[0x00], Err(DecodeError::Malformed("reserved packet type"))),
            (&[0x30, 0x63], Err(DecodeError::PacketTooLarge)),
            (&[0x30, 0x62], Ok(None)),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], Err(DecodeError::PacketTooLarge)),
        ] {
            assert_eq!(next_frame(bytes, 100), expected, "{bytes:02X?}");
        }
        assert_eq!(frame_len(&[0x30, 0x80]), None);
        assert_eq!(frame_len(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), Some(268_435_460));
    }

    #[test]
    fn a_length_in_more_bytes_than_needed_is_marked() {
        let frame = next_frame(&[0xC0, 0x80, 0x00], 100).unwrap().unwrap();
        assert_eq!((frame.minimal, frame.len), (false, 3));
    }
}
