//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7).

use super::{
    DecodeError, PacketType, Properties, ReasonCode, Version, properties,
    wire::{Reader, Sink, put_packet},
};
use crate::base::PacketId;

/// One step of a QoS 1 or QoS 2 delivery; which one is the packet's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The identifier of the PUBLISH (MQTT-2.2.1-5).
    pub packet_id: PacketId,
    /// How it went; always Success before 5.0.
    pub reason: ReasonCode,
    /// Checked properties.
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    /// One that says no more than that all is well.
    pub const fn success(packet_id: PacketId) -> Self {
        Self { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
    }

    #[inline] // Builds the result in its place; see Publish::decode.
    pub(super) fn decode(
        version: Version,
        kind: PacketType,
        body: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut ack = Self::success(packet_id);
        // 5.0 may leave out a reason of Success, and an empty property block.
        if version == Version::V5 && !reader.is_empty() {
            ack.reason = ReasonCode(reader.u8()?);
            if !is_reason_of(kind, ack.reason) {
                return Err(DecodeError::Protocol("reason code is not one of this packet"));
            }
            if !reader.is_empty() {
                (ack.properties, _) = Properties::decode(version, &mut reader, &properties::ACK)?;
            }
        }
        reader.finish()?;
        Ok(ack)
    }

    /// Appends the packet in its shortest form.
    pub fn encode(&self, version: Version, kind: PacketType, out: &mut Vec<u8>) {
        let plain = self.reason == ReasonCode::Success && self.properties.is_empty();
        if version < Version::V5 || plain {
            return encode_ack(kind, self.packet_id, out);
        }
        put_packet(out, kind.first_byte(), |out| {
            out.put_u16(self.packet_id.get());
            out.put_u8(self.reason.0);
            if !self.properties.is_empty() {
                self.properties.encode(version, out);
            }
        });
    }
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP of reason Success: four bytes that
/// are the same in every version.
pub fn encode_ack(kind: PacketType, packet_id: PacketId, out: &mut Vec<u8>) {
    debug_assert!((PacketType::PubAck as u8..=PacketType::PubComp as u8).contains(&(kind as u8)));
    let [high, low] = packet_id.get().to_be_bytes();
    out.put(&[kind.first_byte(), 2, high, low]);
}

/// MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1 and MQTT-3.7.2-1.
fn is_reason_of(kind: PacketType, reason: ReasonCode) -> bool {
    match kind {
        PacketType::PubRel | PacketType::PubComp => matches!(reason.0, 0x00 | 0x92),
        _ => matches!(reason.0, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_mean_success_without_properties() {
        for (body, reason) in [
            (&[0, 7][..], ReasonCode::Success),
            (&[0, 7, 0x10], ReasonCode::NoMatchingSubscribers),
            (&[0, 7, 0x80, 0], ReasonCode::UnspecifiedError),
        ] {
            let ack = Ack::decode(Version::V5, PacketType::PubAck, body).unwrap();
            assert_eq!((ack.packet_id.get(), ack.reason), (7, reason));
            assert!(ack.properties.is_empty());
        }
    }

    #[test]
    fn bad_acks_are_refused() {
        use PacketType::{PubAck, PubComp, PubRec, PubRel};
        use Version::{V5, V311};
        for (version, kind, body, reason) in [
            (V311, PubAck, &[0, 0][..], 0x82),
            (V311, PubAck, &[0, 1, 0], 0x81),
            (V311, PubAck, &[0], 0x81),
            (V5, PubAck, &[], 0x81),
            (V5, PubAck, &[0, 1, 0x92], 0x82),
            (V5, PubRec, &[0, 1, 0x01], 0x82),
            (V5, PubRel, &[0, 1, 0x80], 0x82),
            (V5, PubComp, &[0, 1, 0x10], 0x82),
            (V5, PubComp, &[0, 1, 0, 0, 0], 0x81),
            (V5, PubComp, &[0, 1, 0, 2, 0x01, 0], 0x81),
        ] {
            let error = Ack::decode(version, kind, body).unwrap_err();
            assert_eq!(error.reason().0, reason, "{kind} {body:02X?}");
        }
    }

    #[test]
    fn acks_encode_to_their_shortest_form() {
        let mut ack = Ack {
            packet_id: PacketId::new(0x0102).unwrap(),
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        };
        let encode = |ack: &Ack<'_>, version, kind| {
            let mut out = Vec::new();
            ack.encode(version, kind, &mut out);
            out
        };
        assert_eq!(encode(&ack, Version::V5, PacketType::PubRel), [0x62, 2, 1, 2]);
        ack.reason = ReasonCode::PacketIdentifierNotFound;
        assert_eq!(encode(&ack, Version::V5, PacketType::PubComp), [0x70, 3, 1, 2, 0x92]);
        assert_eq!(encode(&ack, Version::V311, PacketType::PubComp), [0x70, 2, 1, 2]);
        ack.properties = Properties::trusted(&[0x1F, 0, 0]);
        assert_eq!(
            encode(&ack, Version::V5, PacketType::PubComp),
            [0x70, 7, 1, 2, 0x92, 3, 0x1F, 0, 0]
        );
    }
}
