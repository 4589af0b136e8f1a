//! DISCONNECT and AUTH (sections 3.14 and 3.15).

use super::{
    DecodeError, PacketType, Properties, ReasonCode, Version,
    packet::Sender,
    properties,
    property::id,
    wire::{Reader, Sink, put_packet},
};

/// The last packet of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// Why it ends; before 5.0 always `NormalDisconnection`.
    pub reason: ReasonCode,
    /// Checked properties.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(super) fn decode(
        version: Version,
        body: &'a [u8],
        sender: Sender,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut disconnect =
            Self { reason: ReasonCode::NormalDisconnection, properties: Properties::EMPTY };
        // 5.0 may leave out a reason of 0, and an empty property block.
        if version == Version::V5 && !reader.is_empty() {
            disconnect.reason = ReasonCode(reader.u8()?);
            if !is_disconnect_reason(disconnect.reason, sender) {
                return Err(DecodeError::Protocol("reason code is not one of this DISCONNECT"));
            }
            if !reader.is_empty() {
                let (properties, seen) =
                    Properties::decode(version, &mut reader, &properties::DISCONNECT)?;
                if sender == Sender::Client && seen.contains(id::SERVER_REFERENCE) {
                    return Err(DecodeError::Protocol("server reference from a client"));
                }
                disconnect.properties = properties;
            }
        }
        reader.finish()?;
        Ok(disconnect)
    }

    /// Appends the packet; empty before 5.0.
    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_short(PacketType::Disconnect, version, self.reason, self.properties, out);
    }
}

/// A step of extended authentication (5.0 only).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// Checked properties, Authentication Method among them unless the packet is empty.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(
        version: Version,
        body: &'a [u8],
        sender: Sender,
    ) -> Result<Self, DecodeError> {
        if version < Version::V5 {
            return Err(DecodeError::Protocol("AUTH before 5.0"));
        }
        let mut reader = Reader::new(body);
        let mut auth = Self { reason: ReasonCode::Success, properties: Properties::EMPTY };
        if !reader.is_empty() {
            auth.reason = ReasonCode(reader.u8()?);
            let (properties, seen) = Properties::decode(version, &mut reader, &properties::AUTH)?;
            if !seen.contains(id::AUTHENTICATION_METHOD) {
                return Err(DecodeError::Protocol("AUTH without authentication method"));
            }
            auth.properties = properties;
        }
        if !is_auth_reason(auth.reason, sender) {
            return Err(DecodeError::Protocol("reason code is not one of this AUTH"));
        }
        reader.finish()?;
        Ok(auth)
    }

    /// Appends the packet; nothing before 5.0, which has no AUTH.
    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert!(version == Version::V5);
        if version == Version::V5 {
            put_short(PacketType::Auth, version, self.reason, self.properties, out);
        }
    }
}

/// A packet of reason and properties, both left out if they say nothing. A reason
/// alone could stand without property length too, but not every client knows that.
fn put_short(
    kind: PacketType,
    version: Version,
    reason: ReasonCode,
    properties: Properties<'_>,
    out: &mut Vec<u8>,
) {
    put_packet(out, kind.first_byte(), |out| {
        let plain = reason == ReasonCode::Success && properties.is_empty();
        if version == Version::V5 && !plain {
            out.put_u8(reason.0);
            properties.encode(version, out);
        }
    });
}

/// MQTT-3.14.2-1. The second half of the table is for servers only.
fn is_disconnect_reason(reason: ReasonCode, sender: Sender) -> bool {
    match reason.0 {
        0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => true,
        0x87 | 0x89 | 0x8B..=0x8F | 0x9A..=0xA2 => sender != Sender::Client,
        _ => false,
    }
}

/// MQTT-3.15.2-1: success is the server's to say.
fn is_auth_reason(reason: ReasonCode, sender: Sender) -> bool {
    match reason {
        ReasonCode::ContinueAuthentication | ReasonCode::ReAuthenticate => true,
        ReasonCode::Success => sender != Sender::Client,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_mean_normal_disconnection() {
        for body in [&[][..], &[0], &[0, 0]] {
            let disconnect = Disconnect::decode(Version::V5, body, Sender::Client).unwrap();
            assert_eq!(disconnect.reason, ReasonCode::NormalDisconnection);
            assert!(disconnect.properties.is_empty());
        }
        assert!(Disconnect::decode(Version::V311, &[], Sender::Client).is_ok());
        assert!(Disconnect::decode(Version::V311, &[0], Sender::Client).is_err());
    }

    #[test]
    fn each_side_has_its_reasons() {
        for (body, client, server) in [
            (&[0x04][..], true, true),
            (&[0x98], true, true),
            (&[0x8E], false, true),
            (&[0x8B], false, true),
            (&[0x01], false, false),
            (&[0x85], false, false),
            (&[0xA3], false, false),
            (&[0x00, 3, 0x1C, 0, 0], false, true),
        ] {
            for (sender, expected) in [(Sender::Client, client), (Sender::Either, server)] {
                let result = Disconnect::decode(Version::V5, body, sender);
                assert_eq!(result.is_ok(), expected, "{body:02X?}");
                assert!(result.err().is_none_or(|error| error.reason().0 == 0x82));
            }
        }
    }

    #[test]
    fn a_disconnect_that_says_nothing_is_empty() {
        let mut disconnect =
            Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
        let mut out = Vec::new();
        disconnect.encode(Version::V5, &mut out);
        disconnect.reason = ReasonCode::SessionTakenOver;
        disconnect.encode(Version::V311, &mut out);
        disconnect.encode(Version::V5, &mut out);
        assert_eq!(out, [0xE0, 0, 0xE0, 0, 0xE0, 2, 0x8E, 0]);
    }

    #[test]
    fn auth_is_checked() {
        let body = [0x18, 4, 0x15, 0, 1, b'm'];
        let auth = Auth::decode(Version::V5, &body, Sender::Client).unwrap();
        assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
        let mut out = Vec::new();
        auth.encode(Version::V5, &mut out);
        assert_eq!(out[2..], body);
        assert!(Auth::decode(Version::V5, &[], Sender::Either).is_ok());
        for (version, body, reason) in [
            (Version::V5, &[][..], 0x82),
            (Version::V5, &[0x18], 0x81),
            (Version::V5, &[0x18, 0], 0x82),
            (Version::V5, &[0x00, 4, 0x15, 0, 1, b'm'], 0x82),
            (Version::V5, &[0x17, 4, 0x15, 0, 1, b'm'], 0x82),
            (Version::V5, &[0x18, 3, 0x16, 0, 0], 0x82),
            (Version::V5, &[0x18, 4, 0x15, 0, 1, b'm', 0], 0x81),
            (Version::V311, &body, 0x82),
        ] {
            let error = Auth::decode(version, body, Sender::Client).unwrap_err();
            assert_eq!(error.reason().0, reason, "{body:02X?}");
        }
    }
}
