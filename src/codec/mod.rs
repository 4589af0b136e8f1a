//! MQTT packets as bytes: 3.1, 3.1.1 and 5.0, both directions, no allocation on decode.
//!
//! Owns the wire format and every rule that one packet alone can break. Must not
//! know sessions, connections or what a packet means for them: rules that span
//! packets (aliases, quotas, identifiers in use) belong to the session.

mod ack;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod packet;
mod properties;
mod property;
mod publish;
mod reason;
mod suback;
mod subscribe;
mod version;
mod wire;

pub use crate::topic::RetainHandling;
pub use ack::{Ack, encode_ack};
pub use connack::ConnAck;
pub use connect::{Connect, Will, connect_version, decode_connect};
pub use disconnect::{Auth, Disconnect};
pub use error::DecodeError;
pub use frame::{Frame, PacketType, frame_len, next_frame};
pub use packet::{Packet, decode, decode_ack, decode_from_client, decode_publish};
pub use properties::{Properties, PropertyBuf};
pub use property::Property;
pub use publish::{Original, Publish, encode_publish, encode_publish_head};
pub use reason::ReasonCode;
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{
    Subscribe, SubscribeFilter, Unsubscribe, encode_subscribe, encode_unsubscribe,
};
pub use version::Version;
