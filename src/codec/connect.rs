//! CONNECT (section 3.1).

use super::{
    DecodeError, Frame, PacketType, Properties, Version, properties,
    wire::{Reader, Sink, put_packet},
};
use crate::{base::QoS, topic::TopicName};

/// A client's first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect<'a> {
    /// The version the client speaks.
    pub version: Version,
    /// Clean Start; before 5.0 Clean Session, which also ends the session with the connection.
    pub clean_start: bool,
    /// Keep Alive (seconds), 0 for none.
    pub keep_alive_secs: u16,
    /// Client Identifier as sent, empty if the server shall choose one.
    pub client_id: &'a str,
    /// Checked properties.
    pub properties: Properties<'a>,
    /// What to publish when the client is lost.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub user_name: Option<&'a str>,
    /// Password, any bytes. Before 5.0 only with a user name.
    pub password: Option<&'a [u8]>,
}

/// Will Message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic.
    pub topic: TopicName<'a>,
    /// Checked Will Properties.
    pub properties: Properties<'a>,
    /// Will Payload.
    pub payload: &'a [u8],
}

/// Decodes a CONNECT of whichever version it says it is. Any other packet is a
/// protocol error (MQTT-3.1.0-1).
pub fn decode_connect<'a>(frame: &Frame<'a>) -> Result<Connect<'a>, DecodeError> {
    if frame.packet_type() != Some(PacketType::Connect) {
        return Err(DecodeError::Protocol("first packet is not CONNECT"));
    }
    let mut reader = Reader::new(frame.body);
    let version = decode_version(&mut reader)?;
    if frame.first != PacketType::Connect.first_byte() {
        return Err(DecodeError::Malformed("reserved fixed header flags"));
    }
    if !frame.minimal && version == Version::V5 {
        return Err(DecodeError::Malformed("Remaining Length not in its fewest bytes"));
    }
    let flags = Flags::decode(version, reader.u8()?)?;
    let keep_alive_secs = reader.u16()?;
    let (properties, _) = Properties::decode(version, &mut reader, &properties::CONNECT)?;
    let client_id = reader.string()?;
    let will = match flags.will {
        Some((qos, retain)) => Some(Will::decode(version, &mut reader, qos, retain)?),
        None => None,
    };
    // 3.1 gives Remaining Length precedence: flagged fields may be missing at the end.
    let has = |flag, reader: &Reader<'_>| flag && !(version == Version::V31 && reader.is_empty());
    let user_name = if has(flags.user_name, &reader) { Some(reader.string()?) } else { None };
    let password = if has(flags.password, &reader) { Some(reader.binary()?) } else { None };
    reader.finish()?;
    let clean_start = flags.clean_start;
    Ok(Connect {
        version,
        clean_start,
        keep_alive_secs,
        client_id,
        properties,
        will,
        user_name,
        password,
    })
}

/// The version of a CONNECT whose rest may be malformed, so that the refusal can
/// be told in a form that the client understands.
pub fn connect_version(frame: &Frame<'_>) -> Result<Version, DecodeError> {
    decode_version(&mut Reader::new(frame.body))
}

impl Connect<'_> {
    /// Appends the packet in the form of its own version.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let version = self.version;
        put_packet(out, PacketType::Connect.first_byte(), |out| {
            out.put_field(version.protocol_name().as_bytes());
            out.put_u8(version.level());
            out.put_u8(self.flags());
            out.put_u16(self.keep_alive_secs);
            self.properties.encode(version, out);
            out.put_field(self.client_id.as_bytes());
            if let Some(will) = &self.will {
                will.properties.encode(version, out);
                out.put_field(will.topic.as_str().as_bytes());
                out.put_field(will.payload);
            }
            if let Some(user_name) = self.user_name {
                out.put_field(user_name.as_bytes());
            }
            if let Some(password) = self.password {
                out.put_field(password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let will = self.will.as_ref().map_or(0, |will| {
            WILL | will.qos.bits() << WILL_QOS_SHIFT | flag(will.retain, WILL_RETAIN)
        });
        flag(self.clean_start, CLEAN_START)
            | will
            | flag(self.user_name.is_some(), USER_NAME)
            | flag(self.password.is_some(), PASSWORD)
    }
}

impl<'a> Will<'a> {
    fn decode(
        version: Version,
        reader: &mut Reader<'a>,
        qos: QoS,
        retain: bool,
    ) -> Result<Self, DecodeError> {
        let (properties, _) = Properties::decode(version, reader, &properties::WILL)?;
        let topic = TopicName::parse(reader.string()?)?;
        Ok(Self { qos, retain, topic, properties, payload: reader.binary()? })
    }
}

/// Connect Flags (section 3.1.2.3), checked.
struct Flags {
    clean_start: bool,
    /// Will QoS and Will Retain.
    will: Option<(QoS, bool)>,
    user_name: bool,
    password: bool,
}

impl Flags {
    fn decode(version: Version, byte: u8) -> Result<Self, DecodeError> {
        if byte & RESERVED != 0 {
            return Err(DecodeError::Malformed("reserved connect flag (MQTT-3.1.2-3)"));
        }
        let will_qos = QoS::from_bits(byte >> WILL_QOS_SHIFT & 0x3)
            .ok_or(DecodeError::Malformed("will QoS 3 (MQTT-3.1.2-12)"))?;
        let will_retain = byte & WILL_RETAIN != 0;
        let will = (byte & WILL != 0).then_some((will_qos, will_retain));
        if will.is_none() && (will_qos != QoS::AtMostOnce || will_retain) {
            return Err(DecodeError::Malformed("will flags without will (MQTT-3.1.2-11)"));
        }
        let user_name = byte & USER_NAME != 0;
        let password = byte & PASSWORD != 0;
        if password && !user_name && version < Version::V5 {
            return Err(DecodeError::Malformed("password without user name"));
        }
        Ok(Self { clean_start: byte & CLEAN_START != 0, will, user_name, password })
    }
}

/// Reads Protocol Name and Protocol Level.
fn decode_version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    let mqtt_name = matches!(name, b"MQIsdp" | b"MQTT");
    match (name, level) {
        (b"MQIsdp", 3 | 0x83) => Ok(Version::V31),
        (b"MQTT", 4 | 0x84) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(DecodeError::UnsupportedVersion { level, mqtt_name }),
    }
}

const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::next_frame;

    fn decode(packet: &[u8]) -> Result<Connect<'_>, DecodeError> {
        decode_connect(&next_frame(packet, u32::MAX).unwrap().unwrap())
    }

    /// A 3.1.1 CONNECT with these connect flags and what follows the client id "c".
    fn v311(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x10, 13 + rest.len() as u8];
        packet.extend(b"\0\x04MQTT\x04");
        packet.extend([flags, 0, 60, 0, 1, b'c']);
        packet.extend(rest);
        packet
    }

    #[test]
    fn every_field_has_its_place() {
        let packet = b"\x10\x2c\0\x04MQTT\x05\xee\0\x3c\x05\x11\0\0\0\x0a\0\x01c\
            \x05\x18\0\0\0\x05\0\x02w/\0\x03bye\0\x04user\0\x02\xff\0";
        let connect = decode(packet).unwrap();
        assert_eq!(connect.version, Version::V5);
        assert!(connect.clean_start);
        assert_eq!((connect.keep_alive_secs, connect.client_id), (60, "c"));
        assert_eq!(connect.properties.raw(), [0x11, 0, 0, 0, 10]);
        let will = connect.will.unwrap();
        assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
        assert_eq!((will.topic.as_str(), will.payload), ("w/", &b"bye"[..]));
        assert_eq!(will.properties.raw(), [0x18, 0, 0, 0, 5]);
        assert_eq!(connect.user_name, Some("user"));
        assert_eq!(connect.password, Some(&[0xFF, 0][..]));
        let mut out = Vec::new();
        connect.encode(&mut out);
        assert_eq!(out, packet);
    }

    #[test]
    fn name_and_level_decide_the_version() {
        let unsupported =
            |level, mqtt_name| Err(DecodeError::UnsupportedVersion { level, mqtt_name });
        for (name, level, expected) in [
            ("MQIsdp", 3, Ok(Version::V31)),
            ("MQTT", 4, Ok(Version::V311)),
            ("MQTT", 5, Ok(Version::V5)),
            ("MQIsdp", 0x83, Ok(Version::V31)),
            ("MQTT", 0x84, Ok(Version::V311)),
            ("MQTT", 3, unsupported(3, true)),
            ("MQTT", 6, unsupported(6, true)),
            ("MQTT", 0x85, unsupported(0x85, true)),
            ("MQIsdp", 4, unsupported(4, true)),
            ("mqtt", 4, unsupported(4, false)),
            ("", 4, unsupported(4, false)),
        ] {
            let mut body = vec![0, name.len() as u8];
            body.extend(name.as_bytes());
            body.push(level);
            let frame = Frame { first: 0x10, body: &body, len: body.len() + 2, minimal: true };
            assert_eq!(connect_version(&frame), expected, "{name} {level}");
            let error = decode_connect(&frame).unwrap_err();
            assert_eq!(matches!(error, DecodeError::Malformed(_)), expected.is_ok());
        }
    }

    #[test]
    fn flags_are_checked() {
        assert!(decode(&v311(0x02, &[])).is_ok());
        assert!(decode(&v311(0xC2, b"\0\x01u\0\0")).is_ok());
        assert!(decode(&v311(0x04, b"\0\x01t\0\0")).is_ok());
        for (flags, rest) in [
            (0x03, &b""[..]),          // MQTT-3.1.2-3
            (0x0A, b""),               // MQTT-3.1.2-11
            (0x22, b""),               // MQTT-3.1.2-13
            (0x1E, b"\0\x01t\0\0"),    // MQTT-3.1.2-12
            (0x42, b"\0\0"),           // password without user name
            (0x06, b"\0\0\0\0"),       // empty will topic
            (0x06, b"\0\x01#\0\0"),    // wildcard in the will topic
            (0x06, b"\0\x01\0\0\0"),   // U+0000 in the will topic
            (0x06, b"\0\x01t"),        // no will payload
            (0x82, b""),               // MQTT-3.1.2-17
            (0x82, b"\0\x01\xff"),     // user name is not UTF-8
            (0x82, b"\0\x01u\0\x01p"), // MQTT-3.1.2-18
        ] {
            let error = decode(&v311(flags, rest)).unwrap_err();
            assert!(matches!(error, DecodeError::Malformed(_)), "{flags:02X} {rest:02X?}");
        }
    }

    #[test]
    fn v5_takes_a_password_without_user_name() {
        let connect = decode(b"\x10\x11\0\x04MQTT\x05\x42\0\0\0\0\0\0\x02pw").unwrap();
        assert_eq!((connect.user_name, connect.password), (None, Some(&b"pw"[..])));
    }

    #[test]
    fn v31_may_miss_flagged_fields_at_the_end() {
        let connect = decode(b"\x10\x0f\0\x06MQIsdp\x03\xc2\0\x3c\0\x01c").unwrap();
        assert_eq!((connect.user_name, connect.password), (None, None));
        let connect = decode(b"\x10\x12\0\x06MQIsdp\x03\xc2\0\x3c\0\x01c\0\x01u").unwrap();
        assert_eq!((connect.user_name, connect.password), (Some("u"), None));
        assert!(decode(b"\x10\x11\0\x06MQIsdp\x03\xc2\0\x3c\0\x01c\0\x01").is_err());
    }

    #[test]
    fn the_fixed_header_is_checked() {
        let mut packet = v311(0x02, &[]);
        packet[0] = 0x11;
        assert!(matches!(decode(&packet), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode(&[0xC0, 0]), Err(DecodeError::Protocol(_))));
        let overlong = b"\x10\x8d\0\0\x04MQTT\x04\x02\0\0\0\x01c";
        assert!(decode(overlong).is_ok());
        let overlong = b"\x10\x8e\0\0\x04MQTT\x05\x02\0\0\0\0\x01c";
        assert!(matches!(decode(overlong), Err(DecodeError::Malformed(_))));
    }
}
