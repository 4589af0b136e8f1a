//! Why received bytes are not a packet. Always the peer's fault.

use super::ReasonCode;
use crate::topic::TopicError;

/// What is wrong with a packet. Every case ends the connection (section 4.13.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not have the form of a packet.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// The form is right, the content is forbidden.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The fixed header announces more than the receiver accepts.
    #[error("packet is larger than accepted")]
    PacketTooLarge,
    /// MQTT-3.3.2-8.
    #[error("topic alias is 0")]
    TopicAliasZero,
    /// MQTT-3.1.2-1 and MQTT-3.1.2-2.
    #[error("protocol level {level} is not supported")]
    UnsupportedVersion {
        /// The Protocol Level byte as received.
        level: u8,
        /// Whether the Protocol Name is one of MQTT: only then does the peer
        /// understand a CONNACK.
        mqtt_name: bool,
    },
}

impl DecodeError {
    /// What to tell the peer in CONNACK or DISCONNECT.
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::Malformed(_) => ReasonCode::MalformedPacket,
            Self::Protocol(_) => ReasonCode::ProtocolError,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::UnsupportedVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
        }
    }
}

impl From<TopicError> for DecodeError {
    fn from(error: TopicError) -> Self {
        Self::Malformed(match error {
            TopicError::Empty => "topic is empty",
            TopicError::Wildcard => "topic holds a wildcard",
            TopicError::Null => "topic holds U+0000",
            TopicError::TooDeep => "topic has too many levels",
        })
    }
}
