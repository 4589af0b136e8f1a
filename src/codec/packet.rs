//! Any packet: which decoder and encoder it belongs to, and the fixed header flags.

use super::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, Frame, PacketType, Publish, SubAck,
    Subscribe, UnsubAck, Unsubscribe, Version, decode_connect, encode_publish,
};

/// A decoded packet; borrows from the receive buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The names are the standard's; each content documents itself.
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// Who sent a packet, as far as the rules differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    /// A client: what only servers may send is a protocol error.
    Client,
    /// A client or a server.
    Either,
}

/// Decodes any packet, of a client or of a server. A CONNECT decodes as the
/// version that it names.
pub fn decode<'a>(version: Version, frame: &Frame<'a>) -> Result<Packet<'a>, DecodeError> {
    decode_from(Sender::Either, version, frame)
}

/// As [`decode`], and refuses what only a server may send: whole packets, reason
/// codes and properties.
pub fn decode_from_client<'a>(
    version: Version,
    frame: &Frame<'a>,
) -> Result<Packet<'a>, DecodeError> {
    decode_from(Sender::Client, version, frame)
}

/// Decodes a PUBLISH of a client, which `frame` is, without the room that a [`Packet`] keeps for any other.
#[inline] // Measured, see Publish::decode.
pub fn decode_publish<'a>(version: Version, frame: &Frame<'a>) -> Result<Publish<'a>, DecodeError> {
    check_length(version, frame)?;
    Publish::decode(version, frame.first, frame.body, Sender::Client)
}

/// The same for a PUBACK, PUBREC, PUBREL or PUBCOMP.
#[inline]
pub fn decode_ack<'a>(
    version: Version,
    kind: PacketType,
    frame: &Frame<'a>,
) -> Result<Ack<'a>, DecodeError> {
    check_length(version, frame)?;
    check_flags(version, kind, frame.first & 0x0F)?;
    Ack::decode(version, kind, frame.body)
}

impl Packet<'_> {
    /// Which packet this is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet. What `version` cannot express is left out; a CONNECT
    /// takes the form of its own version. Strings and binary fields are at most
    /// 65,535 bytes and the packet fits
    /// [`crate::base::limits::REMAINING_LENGTH_MAX`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let kind = self.packet_type();
        match self {
            Self::Connect(connect) => connect.encode(out),
            Self::ConnAck(connack) => connack.encode(version, out),
            Self::Publish(publish) => _ = encode_publish(version, publish, out),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                ack.encode(version, kind, out);
            }
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(suback) => suback.encode(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(unsuback) => unsuback.encode(version, out),
            Self::PingReq | Self::PingResp => out.extend_from_slice(&[kind.first_byte(), 0]),
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(version, out),
        }
    }
}

fn decode_from<'a>(
    sender: Sender,
    version: Version,
    frame: &Frame<'a>,
) -> Result<Packet<'a>, DecodeError> {
    let kind = frame.packet_type().ok_or(DecodeError::Malformed("reserved packet type"))?;
    if sender == Sender::Client && is_from_server(kind) {
        return Err(DecodeError::Protocol("packet that only a server sends"));
    }
    check_length(version, frame)?;
    if kind != PacketType::Publish {
        check_flags(version, kind, frame.first & 0x0F)?;
    }
    let body = frame.body;
    Ok(match kind {
        PacketType::Connect => Packet::Connect(decode_connect(frame)?),
        PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(version, body)?),
        PacketType::Publish => {
            Packet::Publish(Publish::decode(version, frame.first, body, sender)?)
        }
        PacketType::PubAck => Packet::PubAck(Ack::decode(version, kind, body)?),
        PacketType::PubRec => Packet::PubRec(Ack::decode(version, kind, body)?),
        PacketType::PubRel => Packet::PubRel(Ack::decode(version, kind, body)?),
        PacketType::PubComp => Packet::PubComp(Ack::decode(version, kind, body)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(version, body)?),
        PacketType::SubAck => Packet::SubAck(SubAck::decode(version, body)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(version, body)?),
        PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(version, body)?),
        PacketType::PingReq if body.is_empty() => Packet::PingReq,
        PacketType::PingResp if body.is_empty() => Packet::PingResp,
        PacketType::PingReq | PacketType::PingResp => {
            return Err(DecodeError::Malformed("trailing bytes"));
        }
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(version, body, sender)?),
        PacketType::Auth => Packet::Auth(Auth::decode(version, body, sender)?),
    })
}

/// MQTT-1.5.5-1.
fn check_length(version: Version, frame: &Frame<'_>) -> Result<(), DecodeError> {
    if !frame.minimal && version == Version::V5 {
        return Err(DecodeError::Malformed("Remaining Length not in its fewest bytes"));
    }
    Ok(())
}

fn is_from_server(kind: PacketType) -> bool {
    use PacketType::{ConnAck, PingResp, SubAck, UnsubAck};
    matches!(kind, ConnAck | SubAck | UnsubAck | PingResp)
}

/// MQTT-2.1.3-1.
fn check_flags(version: Version, kind: PacketType, flags: u8) -> Result<(), DecodeError> {
    // A 3.1 client sets DUP when it repeats a PUBREL, SUBSCRIBE or UNSUBSCRIBE.
    let ignored = if version == Version::V31 && kind.flags() != 0 { 0x8 } else { 0 };
    if flags & !ignored == kind.flags() {
        Ok(())
    } else {
        Err(DecodeError::Malformed("reserved fixed header flags"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::next_frame;

    const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

    /// Packets in the form that this codec encodes them, with the first version
    /// that they are valid in and the last.
    const PACKETS: &[(Version, Version, &[u8])] = &[
        (Version::V31, Version::V31, b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01c"),
        (Version::V31, Version::V31, b"\x10\x12\0\x06MQIsdp\x03\x82\0\x3c\0\x01c\0\x01u"),
        (Version::V311, Version::V311, b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c"),
        (
            Version::V5,
            Version::V5,
            b"\x10\x2c\0\x04MQTT\x05\xee\0\x3c\x05\x11\0\0\0\x0a\0\x01c\
                \x05\x18\0\0\0\x05\0\x02w/\0\x03bye\0\x04user\0\x02\xff\0",
        ),
        (Version::V311, Version::V311, b"\x20\x02\x01\0"),
        (Version::V31, Version::V311, b"\x20\x02\0\x05"),
        (Version::V5, Version::V5, b"\x20\x0b\x01\0\x08\x21\0\x0a\x13\0\x1e\x24\x01"),
        (Version::V31, Version::V311, b"\x31\x06\0\x03a/bx"),
        (Version::V31, Version::V311, b"\x3c\x07\0\x03a/b\x12\x34"),
        (Version::V5, Version::V5, b"\x30\x06\0\x03a/b\0"),
        (Version::V5, Version::V5, b"\x32\x10\0\0\0\x01\x0a\x23\0\x01\x26\0\x01k\0\x01vx"),
        (Version::V31, Version::V5, b"\x40\x02\0\x01"),
        (Version::V31, Version::V5, b"\x50\x02\0\x01"),
        (Version::V31, Version::V5, b"\x62\x02\0\x01"),
        (Version::V31, Version::V5, b"\x70\x02\xff\xff"),
        (Version::V5, Version::V5, b"\x40\x03\0\x01\x10"),
        (Version::V5, Version::V5, b"\x62\x08\0\x01\x92\x04\x1f\0\x01r"),
        (Version::V31, Version::V311, b"\x82\x0a\0\x0a\0\x01a\x02\0\x01#\0"),
        (Version::V5, Version::V5, b"\x82\x0d\0\x0a\x02\x0b\x07\0\x01a\x2e\0\x01#\x10"),
        (Version::V31, Version::V311, b"\x90\x04\0\x0a\x01\x80"),
        (Version::V5, Version::V5, b"\x90\x05\0\x0a\0\x01\x87"),
        (Version::V31, Version::V311, b"\xa2\x05\0\x0a\0\x01a"),
        (Version::V5, Version::V5, b"\xa2\x06\0\x0a\0\0\x01a"),
        (Version::V31, Version::V311, b"\xb0\x02\0\x0a"),
        (Version::V5, Version::V5, b"\xb0\x05\0\x0a\0\x11\0"),
        (Version::V31, Version::V5, b"\xc0\0"),
        (Version::V31, Version::V5, b"\xd0\0"),
        (Version::V31, Version::V5, b"\xe0\0"),
        (Version::V5, Version::V5, b"\xe0\x05\x8e\x03\x1f\0\0"),
        (Version::V5, Version::V5, b"\xe0\x07\x04\x05\x11\0\0\0\x01"),
        (Version::V5, Version::V5, b"\xf0\0"),
        (Version::V5, Version::V5, b"\xf0\x06\x18\x04\x15\0\x01m"),
    ];

    fn parse(version: Version, bytes: &[u8]) -> Result<Option<Packet<'_>>, DecodeError> {
        next_frame(bytes, u32::MAX)?.map(|frame| decode(version, &frame)).transpose()
    }

    #[test]
    fn packets_decode_and_encode_to_the_same_bytes() {
        let mut kinds = 0u16;
        for &(first, last, bytes) in PACKETS {
            for version in VERSIONS.into_iter().filter(|v| (first..=last).contains(v)) {
                let packet = parse(version, bytes).unwrap().unwrap();
                kinds |= 1 << packet.packet_type() as u8;
                let mut out = Vec::new();
                packet.encode(version, &mut out);
                assert_eq!(out, bytes, "{version} {packet:?}");
            }
        }
        assert_eq!(kinds, 0xFFFE, "a packet type is missing in the table");
    }

    /// A prefix of a packet is incomplete; a packet whose body was cut off with
    /// its length corrected is an error or, where fields are optional or the
    /// payload is open, another packet. It never is the same packet.
    #[test]
    fn cut_packets_are_never_mistaken() {
        for &(_, version, bytes) in PACKETS {
            let whole = parse(version, bytes).unwrap();
            for end in 0..bytes.len() {
                assert_eq!(parse(version, &bytes[..end]), Ok(None), "{bytes:02X?} {end}");
            }
            for end in 2..bytes.len() {
                let mut cut = bytes[..end].to_vec();
                cut[1] = (end - 2) as u8;
                assert_ne!(parse(version, &cut).unwrap_or(None), whole, "{bytes:02X?} {end}");
            }
        }
    }

    #[test]
    fn fixed_header_flags_are_checked() {
        for &(_, version, bytes) in PACKETS.iter().filter(|(_, _, bytes)| bytes[0] >> 4 != 3) {
            for flags in (0..16).filter(|flags| *flags != bytes[0] & 0x0F) {
                let mut packet = bytes.to_vec();
                packet[0] = bytes[0] & 0xF0 | flags;
                let error = parse(version, &packet).unwrap_err();
                assert_eq!(error.reason().0, 0x81, "{packet:02X?}");
            }
        }
        assert!(parse(Version::V31, b"\x6a\x02\0\x01").is_ok(), "DUP in 3.1");
        assert!(parse(Version::V31, b"\x48\x02\0\x01").is_err());
    }

    #[test]
    fn remaining_length_is_minimal_in_v5() {
        let packet = b"\x40\x82\0\0\x01";
        assert!(parse(Version::V311, packet).is_ok());
        assert_eq!(parse(Version::V5, packet).unwrap_err().reason().0, 0x81);
    }

    #[test]
    fn clients_send_client_packets_only() {
        for &(_, version, bytes) in PACKETS {
            let frame = next_frame(bytes, u32::MAX).unwrap().unwrap();
            let server_only = matches!(bytes[0], 0x20 | 0x90 | 0xB0 | 0xD0)
                || matches!(bytes, b"\xe0\x05\x8e\x03\x1f\0\0" | b"\xf0\0");
            match decode_from_client(version, &frame) {
                Ok(packet) => {
                    assert!(!server_only, "{bytes:02X?}");
                    assert_eq!(Ok(packet), decode(version, &frame));
                }
                Err(error) => {
                    assert!(server_only, "{bytes:02X?}");
                    assert_eq!(error.reason().0, 0x82);
                }
            }
        }
    }

    /// What decodes must encode to something that decodes to the same again.
    fn check_any(version: Version, bytes: &[u8]) {
        let Ok(Some(packet)) = parse(version, bytes) else { return };
        if let Packet::Subscribe(subscribe) = packet {
            assert!(subscribe.filters().count() > 0);
        }
        let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
        let mut out = Vec::new();
        packet.encode(version, &mut out);
        assert_eq!(parse(version, &out), Ok(Some(packet)), "{bytes:02X?}");
    }

    #[test]
    fn damaged_packets_never_panic() {
        let mut random = Random(0x5EED);
        for _ in 0..2_000 {
            for &(_, version, bytes) in PACKETS {
                let mut packet = bytes.to_vec();
                for _ in 0..=random.below(3) {
                    let at = random.below(packet.len());
                    packet[at] = random.next() as u8;
                }
                check_any(version, &packet);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = Random(0xF00D);
        for round in 0..60_000 {
            let len = random.below(40);
            let mut packet: Vec<u8> = (0..len + 2).map(|_| random.next() as u8).collect();
            // Mostly whole packets of small bytes: pure noise dies in the first field.
            if round % 4 != 0 {
                packet[1] = len as u8;
                packet[2..].iter_mut().for_each(|byte| *byte &= 0x2F);
            }
            check_any(VERSIONS[round % 3], &packet);
        }
    }

    /// xorshift64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 >> 16
        }

        fn below(&mut self, bound: usize) -> usize {
            self.next() as usize % bound
        }
    }
}
