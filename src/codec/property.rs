//! One MQTT 5.0 property: identifier and value (section 2.2.2.2).

use super::{
    DecodeError,
    wire::{Reader, Sink},
};
use crate::topic::TopicName;

/// A property with its value. Times are in seconds, sizes in bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs)] // The names and meanings are the standard's.
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(u8),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifiersAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// Reads and checks the value that follows the identifier `id`.
    pub(super) fn decode_value(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match id {
            id::PAYLOAD_FORMAT_INDICATOR => Self::PayloadFormatIndicator(bit(reader)?),
            id::MESSAGE_EXPIRY_INTERVAL => Self::MessageExpiryInterval(reader.u32()?),
            id::CONTENT_TYPE => Self::ContentType(reader.string()?),
            id::RESPONSE_TOPIC => Self::ResponseTopic(topic(reader)?),
            id::CORRELATION_DATA => Self::CorrelationData(reader.binary()?),
            id::SUBSCRIPTION_IDENTIFIER => {
                Self::SubscriptionIdentifier(positive(reader.varint()?)?)
            }
            id::SESSION_EXPIRY_INTERVAL => Self::SessionExpiryInterval(reader.u32()?),
            id::ASSIGNED_CLIENT_IDENTIFIER => Self::AssignedClientIdentifier(reader.string()?),
            id::SERVER_KEEP_ALIVE => Self::ServerKeepAlive(reader.u16()?),
            id::AUTHENTICATION_METHOD => Self::AuthenticationMethod(reader.string()?),
            id::AUTHENTICATION_DATA => Self::AuthenticationData(reader.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => Self::RequestProblemInformation(flag(reader)?),
            id::WILL_DELAY_INTERVAL => Self::WillDelayInterval(reader.u32()?),
            id::REQUEST_RESPONSE_INFORMATION => Self::RequestResponseInformation(flag(reader)?),
            id::RESPONSE_INFORMATION => Self::ResponseInformation(reader.string()?),
            id::SERVER_REFERENCE => Self::ServerReference(reader.string()?),
            id::REASON_STRING => Self::ReasonString(reader.string()?),
            id::RECEIVE_MAXIMUM => Self::ReceiveMaximum(positive(reader.u16()?)?),
            id::TOPIC_ALIAS_MAXIMUM => Self::TopicAliasMaximum(reader.u16()?),
            id::TOPIC_ALIAS => match reader.u16()? {
                0 => return Err(DecodeError::TopicAliasZero),
                alias => Self::TopicAlias(alias),
            },
            id::MAXIMUM_QOS => Self::MaximumQoS(bit(reader)?),
            id::RETAIN_AVAILABLE => Self::RetainAvailable(flag(reader)?),
            id::USER_PROPERTY => Self::UserProperty(reader.string()?, reader.string()?),
            id::MAXIMUM_PACKET_SIZE => Self::MaximumPacketSize(positive(reader.u32()?)?),
            id::WILDCARD_SUBSCRIPTION => Self::WildcardSubscriptionAvailable(flag(reader)?),
            id::SUBSCRIPTION_IDENTIFIERS => Self::SubscriptionIdentifiersAvailable(flag(reader)?),
            id::SHARED_SUBSCRIPTION => Self::SharedSubscriptionAvailable(flag(reader)?),
            _ => return Err(DecodeError::Malformed("unknown property")),
        })
    }

    /// Appends identifier and value.
    pub(super) fn encode(&self, out: &mut impl Sink) {
        match *self {
            Self::PayloadFormatIndicator(v) => put_u8(out, id::PAYLOAD_FORMAT_INDICATOR, v),
            Self::MessageExpiryInterval(v) => put_u32(out, id::MESSAGE_EXPIRY_INTERVAL, v),
            Self::ContentType(v) => put_field(out, id::CONTENT_TYPE, v),
            Self::ResponseTopic(v) => put_field(out, id::RESPONSE_TOPIC, v),
            Self::CorrelationData(v) => put_field(out, id::CORRELATION_DATA, v),
            Self::SubscriptionIdentifier(v) => {
                out.put_u8(id::SUBSCRIPTION_IDENTIFIER);
                out.put_varint(v as usize);
            }
            Self::SessionExpiryInterval(v) => put_u32(out, id::SESSION_EXPIRY_INTERVAL, v),
            Self::AssignedClientIdentifier(v) => put_field(out, id::ASSIGNED_CLIENT_IDENTIFIER, v),
            Self::ServerKeepAlive(v) => put_u16(out, id::SERVER_KEEP_ALIVE, v),
            Self::AuthenticationMethod(v) => put_field(out, id::AUTHENTICATION_METHOD, v),
            Self::AuthenticationData(v) => put_field(out, id::AUTHENTICATION_DATA, v),
            Self::RequestProblemInformation(v) => put_u8(out, id::REQUEST_PROBLEM_INFORMATION, v),
            Self::WillDelayInterval(v) => put_u32(out, id::WILL_DELAY_INTERVAL, v),
            Self::RequestResponseInformation(v) => put_u8(out, id::REQUEST_RESPONSE_INFORMATION, v),
            Self::ResponseInformation(v) => put_field(out, id::RESPONSE_INFORMATION, v),
            Self::ServerReference(v) => put_field(out, id::SERVER_REFERENCE, v),
            Self::ReasonString(v) => put_field(out, id::REASON_STRING, v),
            Self::ReceiveMaximum(v) => put_u16(out, id::RECEIVE_MAXIMUM, v),
            Self::TopicAliasMaximum(v) => put_u16(out, id::TOPIC_ALIAS_MAXIMUM, v),
            Self::TopicAlias(v) => put_u16(out, id::TOPIC_ALIAS, v),
            Self::MaximumQoS(v) => put_u8(out, id::MAXIMUM_QOS, v),
            Self::RetainAvailable(v) => put_u8(out, id::RETAIN_AVAILABLE, v),
            Self::UserProperty(name, value) => {
                put_field(out, id::USER_PROPERTY, name);
                out.put_field(value.as_bytes());
            }
            Self::MaximumPacketSize(v) => put_u32(out, id::MAXIMUM_PACKET_SIZE, v),
            Self::WildcardSubscriptionAvailable(v) => put_u8(out, id::WILDCARD_SUBSCRIPTION, v),
            Self::SubscriptionIdentifiersAvailable(v) => {
                put_u8(out, id::SUBSCRIPTION_IDENTIFIERS, v);
            }
            Self::SharedSubscriptionAvailable(v) => put_u8(out, id::SHARED_SUBSCRIPTION, v),
        }
    }
}

/// Property Identifiers (Table 2-4). All are below 0x80 and so one byte on the wire.
#[rustfmt::skip]
pub(super) mod id {
    pub(in crate::codec) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(in crate::codec) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(in crate::codec) const CONTENT_TYPE: u8 = 0x03;
    pub(in crate::codec) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in crate::codec) const CORRELATION_DATA: u8 = 0x09;
    pub(in crate::codec) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(in crate::codec) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(in crate::codec) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(in crate::codec) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in crate::codec) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in crate::codec) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in crate::codec) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in crate::codec) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(in crate::codec) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in crate::codec) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(in crate::codec) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in crate::codec) const REASON_STRING: u8 = 0x1F;
    pub(in crate::codec) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in crate::codec) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in crate::codec) const TOPIC_ALIAS: u8 = 0x23;
    pub(in crate::codec) const MAXIMUM_QOS: u8 = 0x24;
    pub(in crate::codec) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in crate::codec) const USER_PROPERTY: u8 = 0x26;
    pub(in crate::codec) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in crate::codec) const WILDCARD_SUBSCRIPTION: u8 = 0x28;
    pub(in crate::codec) const SUBSCRIPTION_IDENTIFIERS: u8 = 0x29;
    pub(in crate::codec) const SHARED_SUBSCRIPTION: u8 = 0x2A;
}

/// A byte that is 0 or 1.
fn bit(reader: &mut Reader<'_>) -> Result<u8, DecodeError> {
    match reader.u8()? {
        bit @ (0 | 1) => Ok(bit),
        _ => Err(DecodeError::Protocol("property value is neither 0 nor 1")),
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    Ok(bit(reader)? == 1)
}

fn positive<T: Default + PartialEq>(value: T) -> Result<T, DecodeError> {
    if value == T::default() {
        return Err(DecodeError::Protocol("property value is 0"));
    }
    Ok(value)
}

/// A Response Topic is a Topic Name (MQTT-3.3.2-14).
fn topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let text = reader.string()?;
    match TopicName::parse(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(DecodeError::Protocol("response topic is not a topic name")),
    }
}

fn put_u8(out: &mut impl Sink, id: u8, value: impl Into<u8>) {
    out.put(&[id, value.into()]);
}

fn put_u16(out: &mut impl Sink, id: u8, value: u16) {
    out.put_u8(id);
    out.put_u16(value);
}

fn put_u32(out: &mut impl Sink, id: u8, value: u32) {
    out.put_u8(id);
    out.put_u32(value);
}

fn put_field(out: &mut impl Sink, id: u8, value: impl AsRef<[u8]>) {
    out.put_u8(id);
    out.put_field(value.as_ref());
}
