//! PUBLISH (section 3.3).

use super::{
    DecodeError, Frame, PacketType, Properties, Version,
    packet::Sender,
    properties,
    property::id,
    wire::{Reader, Sink, field},
};
use crate::{
    base::{PacketId, QoS},
    topic::TopicName,
};

/// An application message on its way to or from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// Whether this may be a re-delivery.
    pub dup: bool,
    /// Delivery promise.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// `None` for an empty topic: a Topic Alias stands for it (5.0 only).
    pub topic: Option<TopicName<'a>>,
    /// Present exactly if QoS > 0 (MQTT-2.2.1-2). An encoder may leave it out to
    /// write it later.
    pub packet_id: Option<PacketId>,
    /// Checked properties.
    pub properties: Properties<'a>,
    /// Application data.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    #[inline] // Measured: with Ack::decode, a quarter off PUBLISH and off the acknowledgements.
    pub(super) fn decode(
        version: Version,
        first: u8,
        body: &'a [u8],
        sender: Sender,
    ) -> Result<Self, DecodeError> {
        let qos = QoS::from_bits(first >> 1 & 0x3)
            .ok_or(DecodeError::Malformed("QoS 3 (MQTT-3.3.1-4)"))?;
        let dup = first & DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::Malformed("DUP with QoS 0 (MQTT-3.3.1-2)"));
        }
        let mut reader = Reader::new(body);
        // TopicName checks for U+0000 itself.
        let topic = reader.utf8()?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
        };
        let (properties, seen) = Properties::decode(version, &mut reader, &properties::PUBLISH)?;
        if sender == Sender::Client && seen.contains(id::SUBSCRIPTION_IDENTIFIER) {
            return Err(DecodeError::Protocol("subscription identifier from a client"));
        }
        let topic = match topic {
            "" if seen.contains(id::TOPIC_ALIAS) => None,
            "" if version == Version::V5 => {
                return Err(DecodeError::Protocol("neither topic nor topic alias"));
            }
            topic if sender == Sender::Client => Some(TopicName::parse_received(topic)?),
            topic => Some(TopicName::parse(topic)?),
        };
        let payload = reader.into_rest();
        Ok(Self { dup, qos, retain: first & RETAIN != 0, topic, packet_id, properties, payload })
    }
}

/// The bytes of a received PUBLISH, so that a delivery that says the same need not be put together anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Original<'a> {
    packet: &'a [u8],
    is_v5: bool,
}

impl<'a> Original<'a> {
    /// Of `packet`, which is all of `frame`; `None` if this codec would not encode its fixed header so.
    pub fn new(version: Version, frame: &Frame<'_>, packet: &'a [u8]) -> Option<Self> {
        debug_assert_eq!(packet.len(), frame.len);
        frame.minimal.then_some(Self { packet, is_v5: version == Version::V5 })
    }

    /// Whether a PUBLISH in this version has the same fields.
    pub fn is_of(&self, version: Version) -> bool {
        self.is_v5 == (version == Version::V5)
    }

    /// As [`encode_publish`], of a PUBLISH with the same QoS, topic, properties and payload.
    pub fn encode(
        &self,
        version: Version,
        publish: &Publish<'_>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let start = out.len();
        out.extend_from_slice(self.packet);
        out[start] = first_byte(publish);
        if publish.qos == QoS::AtMostOnce {
            return None;
        }
        let behind_id = publish.properties.encoded_len(version) + publish.payload.len();
        let at = out.len() - behind_id - 2;
        let id = publish.packet_id.map_or(0, PacketId::get);
        out[at..at + 2].copy_from_slice(&id.to_be_bytes());
        Some(at)
    }
}

/// Appends a PUBLISH. If QoS > 0, returns the offset within `out` of the two
/// packet identifier bytes, so that a fan-out can encode once, copy and patch.
///
/// The whole packet must fit [`crate::base::limits::REMAINING_LENGTH_MAX`].
pub fn encode_publish(version: Version, publish: &Publish<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let packet_id_at = put_head(version, publish, publish.payload.len(), out);
    out.put(publish.payload);
    packet_id_at
}

/// The same without the payload, which is to follow.
pub fn encode_publish_head(version: Version, publish: &Publish<'_>, out: &mut Vec<u8>) {
    put_head(version, publish, 0, out);
}

/// Appends all but the payload, with room for `more` bytes behind it.
#[inline]
fn put_head(
    version: Version,
    publish: &Publish<'_>,
    more: usize,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let topic = field(publish.topic.map_or("", TopicName::as_str).as_bytes());
    let id_len = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    let remaining =
        2 + topic.len() + id_len + publish.properties.encoded_len(version) + publish.payload.len();
    out.reserve(HEADER_BYTES_MAX + remaining - publish.payload.len() + more);
    out.put_u8(first_byte(publish));
    out.put_varint(remaining);
    out.put_field(topic);
    let packet_id_at = (id_len > 0).then_some(out.len());
    if packet_id_at.is_some() {
        out.put_u16(publish.packet_id.map_or(0, PacketId::get));
    }
    publish.properties.encode(version, out);
    packet_id_at
}

fn first_byte(publish: &Publish<'_>) -> u8 {
    let flags = if publish.dup { DUP } else { 0 } | if publish.retain { RETAIN } else { 0 };
    PacketType::Publish.first_byte() | publish.qos.bits() << 1 | flags
}

const DUP: u8 = 0x8;
const RETAIN: u8 = 0x1;
/// First byte and the longest Remaining Length.
const HEADER_BYTES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(version: Version, first: u8, body: &[u8]) -> Result<Publish<'_>, DecodeError> {
        Publish::decode(version, first, body, Sender::Either)
    }

    #[test]
    fn flags_and_fields_have_their_places() {
        let publish = decode(Version::V5, 0x3D, &[0, 1, b't', 0, 9, 2, 0x01, 1, b'x']).unwrap();
        assert!(publish.dup && publish.retain);
        assert_eq!(publish.qos, QoS::ExactlyOnce);
        assert_eq!(publish.topic.map(TopicName::as_str), Some("t"));
        assert_eq!(publish.packet_id, PacketId::new(9));
        assert_eq!(publish.properties.raw(), [0x01, 1]);
        assert_eq!(publish.payload, b"x");
    }

    #[test]
    fn an_alias_replaces_the_topic_in_v5_only() {
        let body = [0, 0, 3, 0x23, 0, 1, b'x'];
        assert_eq!(decode(Version::V5, 0x30, &body).unwrap().topic, None);
        assert_eq!(
            decode(Version::V311, 0x30, &body),
            Err(DecodeError::Malformed("topic is empty"))
        );
        assert_eq!(
            decode(Version::V5, 0x30, &[0, 0, 0]),
            Err(DecodeError::Protocol("neither topic nor topic alias"))
        );
    }

    #[test]
    fn bad_publishes_are_refused() {
        for (first, body, reason) in [
            (0x36, &[0, 1, b't', 0, 1, 0][..], 0x81), // QoS 3
            (0x38, &[0, 1, b't', 0], 0x81),           // DUP with QoS 0
            (0x30, &[0, 1, b'#', 0], 0x81),           // MQTT-3.3.2-2
            (0x30, &[0, 1, b'+', 0], 0x81),
            (0x30, &[0, 1, 0, 0], 0x81),
            (0x30, &[0, 1, 0xFF, 0], 0x81),
            (0x32, &[0, 1, b't', 0, 0, 0], 0x82), // MQTT-2.2.1-3
            (0x32, &[0, 1, b't', 0], 0x81),
            (0x30, &[0, 1, b't'], 0x81),    // no property length
            (0x30, &[0, 1, b't', 1], 0x81), // properties cut off
            (0x30, &[0, 1, b't', 3, 0x23, 0, 0], 0x94),
        ] {
            let error = decode(Version::V5, first, body).unwrap_err();
            assert_eq!(error.reason().0, reason, "{first:02X} {body:02X?}");
        }
    }

    #[test]
    fn a_client_names_no_subscription_identifier() {
        let body = [0, 1, b't', 2, 0x0B, 1];
        assert!(decode(Version::V5, 0x30, &body).is_ok());
        let error = Publish::decode(Version::V5, 0x30, &body, Sender::Client).unwrap_err();
        assert_eq!(error.reason().0, 0x82, "MQTT-3.3.4-6");
    }

    #[test]
    fn wildcards_stand_in_requests_of_clients_only() {
        let body = b"\0\x0a$request/#\0";
        let topic = |sender| Publish::decode(Version::V5, 0x30, body, sender).map(|p| p.topic);
        assert!(topic(Sender::Client).is_ok_and(|topic| topic.is_some()));
        assert!(topic(Sender::Either).is_err());
    }

    #[test]
    fn the_packet_id_can_be_patched() {
        let topic = TopicName::parse("t").ok();
        let payload = [7; 200];
        let mut publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: Properties::EMPTY,
            payload: &payload,
        };
        for version in [Version::V31, Version::V311, Version::V5] {
            let mut out = vec![0xEE];
            let at = encode_publish(version, &publish, &mut out).unwrap();
            out[at..at + 2].copy_from_slice(&0x1234u16.to_be_bytes());
            assert_eq!(out[..3], [0xEE, 0x32, 0xCD + u8::from(version == Version::V5)]);
            let decoded = decode(version, out[1], &out[4..]).unwrap();
            assert_eq!(decoded.packet_id, PacketId::new(0x1234));
            assert_eq!(decoded.payload, payload);
        }
        publish.qos = QoS::AtMostOnce;
        assert_eq!(encode_publish(Version::V5, &publish, &mut Vec::new()), None);
    }
}
