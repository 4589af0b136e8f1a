//! CONNACK (section 3.2).

use super::{
    DecodeError, PacketType, Properties, ReasonCode, Version, properties,
    wire::{Reader, Sink, put_packet},
};

/// The server's answer to CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnAck<'a> {
    /// Whether the session existed before. 3.1 has no such flag: false.
    pub session_present: bool,
    /// The outcome; before 5.0 the return code that is nearest in meaning.
    pub reason: ReasonCode,
    /// Checked properties.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        if flags > 1 {
            return Err(DecodeError::Malformed("reserved CONNACK flags (MQTT-3.2.2-1)"));
        }
        let session_present = flags == 1 && version > Version::V31;
        let reason = decode_reason(version, reader.u8()?)
            .ok_or(DecodeError::Protocol("reason code is not one of CONNACK"))?;
        if session_present && reason != ReasonCode::Success {
            return Err(DecodeError::Protocol("refused with a session (MQTT-3.2.2-6)"));
        }
        let (properties, _) = Properties::decode(version, &mut reader, &properties::CONNACK)?;
        reader.finish()?;
        Ok(Self { session_present, reason, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let reason = match version {
            Version::V31 | Version::V311 => self.reason.connect_return_code(),
            Version::V5 => self.reason.0,
        };
        put_packet(out, PacketType::ConnAck.first_byte(), |out| {
            out.put_u8((self.session_present && version > Version::V31).into());
            out.put_u8(reason);
            self.properties.encode(version, out);
        });
    }
}

/// MQTT-3.2.2-8.
fn decode_reason(version: Version, byte: u8) -> Option<ReasonCode> {
    if version < Version::V5 {
        return ReasonCode::from_connect_return_code(byte);
    }
    let known = matches!(
        byte,
        0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
    );
    known.then_some(ReasonCode(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_its_form() {
        let mut connack = ConnAck {
            session_present: true,
            reason: ReasonCode::Success,
            properties: Properties::trusted(&[0x13, 0, 60]),
        };
        let encode = |connack: &ConnAck<'_>, version| {
            let mut out = Vec::new();
            connack.encode(version, &mut out);
            out
        };
        assert_eq!(encode(&connack, Version::V31), [0x20, 2, 0, 0]);
        assert_eq!(encode(&connack, Version::V311), [0x20, 2, 1, 0]);
        assert_eq!(encode(&connack, Version::V5), [0x20, 6, 1, 0, 3, 0x13, 0, 60]);
        connack.session_present = false;
        connack.reason = ReasonCode::NotAuthorized;
        assert_eq!(encode(&connack, Version::V311), [0x20, 2, 0, 5]);
        assert_eq!(ConnAck::decode(Version::V311, &[0, 5]).unwrap().reason, connack.reason);
    }

    #[test]
    fn bad_connacks_are_refused() {
        use Version::{V5, V311};
        for (version, body, reason) in [
            (V311, &[2, 0][..], 0x81),
            (V311, &[0, 6], 0x82),
            (V311, &[1, 5], 0x82),
            (V311, &[0], 0x81),
            (V311, &[0, 0, 0], 0x81),
            (V5, &[0, 0], 0x81),
            (V5, &[0, 1, 0], 0x82),
            (V5, &[0, 0x8B, 0], 0x82),
            (V5, &[1, 0x87, 0], 0x82),
            (V5, &[0, 0, 0, 0], 0x81),
        ] {
            let error = ConnAck::decode(version, body).unwrap_err();
            assert_eq!(error.reason().0, reason, "{body:02X?}");
        }
    }
}
