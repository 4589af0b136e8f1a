//! SUBACK and UNSUBACK (sections 3.9 and 3.11).

use super::{
    DecodeError, PacketType, Properties, ReasonCode, Version, properties,
    wire::{Reader, Sink, put_packet},
};
use crate::base::PacketId;

/// The answer to SUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE (MQTT-2.2.1-6).
    pub packet_id: PacketId,
    /// Checked properties.
    pub properties: Properties<'a>,
    /// A [`ReasonCode`] byte for each filter, in order (MQTT-3.9.3-1). Before 5.0
    /// every failure is encoded as 0x80.
    pub reasons: &'a [u8],
}

impl<'a> SubAck<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (properties, _) = Properties::decode(version, &mut reader, &properties::ACK)?;
        let reasons = reader.into_rest();
        let known = match version {
            Version::V31 | Version::V311 => |&reason: &u8| matches!(reason, 0..=2 | 0x80),
            Version::V5 => is_subscribe_reason,
        };
        check_reasons(reasons, known)?;
        Ok(Self { packet_id, properties, reasons })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(out, PacketType::SubAck.first_byte(), |out| {
            out.put_u16(self.packet_id.get());
            self.properties.encode(version, out);
            match version {
                Version::V31 | Version::V311 => out.extend(self.reasons.iter().map(v3_reason)),
                Version::V5 => out.put(self.reasons),
            }
        });
    }
}

/// The answer to UNSUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsubAck<'a> {
    /// The identifier of the UNSUBSCRIBE (MQTT-2.2.1-6).
    pub packet_id: PacketId,
    /// Checked properties.
    pub properties: Properties<'a>,
    /// A [`ReasonCode`] byte for each filter, in order (MQTT-3.11.3-1). Not sent
    /// before 5.0.
    pub reasons: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (properties, _) = Properties::decode(version, &mut reader, &properties::ACK)?;
        if version < Version::V5 {
            reader.finish()?;
            return Ok(Self { packet_id, properties, reasons: &[] });
        }
        let reasons = reader.into_rest();
        check_reasons(reasons, is_unsubscribe_reason)?;
        Ok(Self { packet_id, properties, reasons })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(out, PacketType::UnsubAck.first_byte(), |out| {
            out.put_u16(self.packet_id.get());
            self.properties.encode(version, out);
            if version == Version::V5 {
                out.put(self.reasons);
            }
        });
    }
}

fn check_reasons(reasons: &[u8], known: fn(&u8) -> bool) -> Result<(), DecodeError> {
    if reasons.is_empty() {
        return Err(DecodeError::Protocol("no reason code"));
    }
    if !reasons.iter().all(known) {
        return Err(DecodeError::Protocol("reason code is not one of this packet"));
    }
    Ok(())
}

/// MQTT-3.9.3-2.
fn is_subscribe_reason(reason: &u8) -> bool {
    matches!(reason, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
}

/// MQTT-3.11.3-2.
fn is_unsubscribe_reason(reason: &u8) -> bool {
    matches!(reason, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
}

/// The only failure that a SUBACK before 5.0 knows is 0x80.
fn v3_reason(&reason: &u8) -> u8 {
    if ReasonCode(reason).is_error() { ReasonCode::UnspecifiedError.0 } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_one_code_before_v5() {
        let suback = SubAck::decode(Version::V5, &[0, 3, 0, 2, 0x87, 0]).unwrap();
        assert_eq!(suback.reasons, [2, 0x87, 0]);
        let mut out = Vec::new();
        suback.encode(Version::V5, &mut out);
        suback.encode(Version::V311, &mut out);
        assert_eq!(out, [0x90, 6, 0, 3, 0, 2, 0x87, 0, 0x90, 5, 0, 3, 2, 0x80, 0]);
    }

    #[test]
    fn unsuback_has_no_payload_before_v5() {
        let unsuback = UnsubAck::decode(Version::V5, &[0, 3, 0, 0x11, 0]).unwrap();
        assert_eq!(unsuback.reasons, [0x11, 0]);
        let mut out = Vec::new();
        unsuback.encode(Version::V5, &mut out);
        unsuback.encode(Version::V31, &mut out);
        assert_eq!(out, [0xB0, 5, 0, 3, 0, 0x11, 0, 0xB0, 2, 0, 3]);
        assert!(UnsubAck::decode(Version::V311, &[0, 3, 0]).is_err());
    }

    #[test]
    fn bad_answers_are_refused() {
        use Version::{V5, V311};
        for (version, body) in [
            (V5, &[0, 1, 0][..]),
            (V5, &[0, 1, 0, 3]),
            (V5, &[0, 1, 0, 0, 0x11]),
            (V311, &[0, 1]),
            (V311, &[0, 1, 0x87]),
            (V311, &[0, 0, 0]),
        ] {
            let error = SubAck::decode(version, body).unwrap_err();
            assert_eq!(error.reason().0, 0x82, "{body:02X?}");
        }
        for body in [&[0, 1, 0][..], &[0, 1, 0, 1], &[0, 0, 0, 0]] {
            let error = UnsubAck::decode(V5, body).unwrap_err();
            assert_eq!(error.reason().0, 0x82, "{body:02X?}");
        }
    }
}
