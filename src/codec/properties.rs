//! Property blocks: validated once when received, then read or passed on as bytes.

use smallvec::SmallVec;

use super::{
    DecodeError, Property, Version,
    property::id,
    wire::{Reader, Sink, varint_len},
};

/// A valid property block without its length prefix. Always empty before 5.0.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Properties<'a> {
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No property.
    pub const EMPTY: Self = Self { raw: &[] };

    /// Bytes that were validated before, such as those of a stored message.
    pub(crate) fn trusted(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// The block of a message that was stored: what a PUBLISH may carry.
    ///
    /// # Errors
    /// If it is not valid.
    pub(crate) fn parse_stored(raw: &'a [u8]) -> Result<Self, DecodeError> {
        PUBLISH.check(raw).map(|_| Self { raw })
    }

    /// Whether there is no property.
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The block's bytes.
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// The properties in the order of the wire (MQTT-3.3.2-18).
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        let mut reader = Reader::new(self.raw);
        std::iter::from_fn(move || {
            let id = reader.u8().ok()?;
            Property::decode_value(id, &mut reader).ok()
        })
    }

    /// Reads the block of a packet; there is none before 5.0. Tells which
    /// properties it holds.
    pub(super) fn decode(
        version: Version,
        reader: &mut Reader<'a>,
        scope: &Scope,
    ) -> Result<(Self, IdSet), DecodeError> {
        let len = if version == Version::V5 { reader.varint()? } else { 0 };
        if len == 0 {
            return Ok((Self::EMPTY, IdSet::EMPTY));
        }
        let raw = reader.take(len as usize)?;
        Ok((Self { raw }, scope.check(raw)?))
    }

    /// Bytes that [`Properties::encode`] appends.
    pub(super) fn encoded_len(self, version: Version) -> usize {
        match version {
            Version::V31 | Version::V311 => 0,
            Version::V5 => varint_len(self.raw.len()) + self.raw.len(),
        }
    }

    /// Appends length and block; nothing before 5.0.
    pub(super) fn encode(self, version: Version, out: &mut impl Sink) {
        if version == Version::V5 {
            out.put_varint(self.raw.len());
            out.put(self.raw);
        }
    }
}

/// Builds the property block of an outgoing packet. Most fit without allocation.
#[derive(Clone, Default, Debug)]
pub struct PropertyBuf(SmallVec<[u8; INLINE_BYTES]>);

impl PropertyBuf {
    /// A block without properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one property. That its value is legal and the packet may carry it
    /// is up to the caller; strings are at most 65,535 bytes.
    pub fn push(&mut self, property: Property<'_>) {
        property.encode(&mut self.0);
    }

    /// The block so far.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { raw: &self.0 }
    }

    /// Bytes of the block.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of property identifiers, one bit each.
#[derive(Clone, Copy)]
pub(super) struct IdSet(u64);

impl IdSet {
    pub(super) const EMPTY: Self = Self(0);

    const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < ids.len() {
            bits |= 1 << ids[index];
            index += 1;
        }
        Self(bits)
    }

    pub(super) const fn contains(self, id: u8) -> bool {
        id < u64::BITS as u8 && self.0 >> id & 1 == 1
    }
}

/// What one kind of packet may carry (Table 2-4).
pub(super) struct Scope {
    allowed: IdSet,
    /// Those that may stand more than once.
    repeatable: IdSet,
}

impl Scope {
    /// User Property, allowed and repeatable everywhere, and `ids` at most once.
    const fn new(ids: &[u8]) -> Self {
        let repeatable = IdSet::of(&[id::USER_PROPERTY]);
        Self { allowed: IdSet(IdSet::of(ids).0 | repeatable.0), repeatable }
    }

    const fn with_repeatable(self, id: u8) -> Self {
        let added = IdSet::of(&[id]).0;
        Self {
            allowed: IdSet(self.allowed.0 | added),
            repeatable: IdSet(self.repeatable.0 | added),
        }
    }

    /// One pass over the block, whatever it holds.
    fn check(&self, raw: &[u8]) -> Result<IdSet, DecodeError> {
        let mut reader = Reader::new(raw);
        let mut seen = IdSet::EMPTY;
        while !reader.is_empty() {
            let id = reader.u8()?;
            if !self.allowed.contains(id) {
                return Err(DecodeError::Malformed("property is not allowed in this packet"));
            }
            if seen.contains(id) && !self.repeatable.contains(id) {
                return Err(DecodeError::Protocol("property stands more than once"));
            }
            seen.0 |= 1 << id;
            Property::decode_value(id, &mut reader)?;
        }
        if seen.contains(id::AUTHENTICATION_DATA) && !seen.contains(id::AUTHENTICATION_METHOD) {
            return Err(DecodeError::Protocol("authentication data without method"));
        }
        Ok(seen)
    }
}

/// Enough for what a PUBLISH usually adds: alias, expiry, identifier, content type.
const INLINE_BYTES: usize = 64;

pub(super) const CONNECT: Scope = Scope::new(&[
    id::SESSION_EXPIRY_INTERVAL,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
    id::REQUEST_PROBLEM_INFORMATION,
    id::REQUEST_RESPONSE_INFORMATION,
    id::RECEIVE_MAXIMUM,
    id::TOPIC_ALIAS_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
]);
pub(super) const WILL: Scope = Scope::new(&[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::WILL_DELAY_INTERVAL,
]);
pub(super) const CONNACK: Scope = Scope::new(&[
    id::SESSION_EXPIRY_INTERVAL,
    id::ASSIGNED_CLIENT_IDENTIFIER,
    id::SERVER_KEEP_ALIVE,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
    id::RESPONSE_INFORMATION,
    id::SERVER_REFERENCE,
    id::REASON_STRING,
    id::RECEIVE_MAXIMUM,
    id::TOPIC_ALIAS_MAXIMUM,
    id::MAXIMUM_QOS,
    id::RETAIN_AVAILABLE,
    id::MAXIMUM_PACKET_SIZE,
    id::WILDCARD_SUBSCRIPTION,
    id::SUBSCRIPTION_IDENTIFIERS,
    id::SHARED_SUBSCRIPTION,
]);
pub(super) const PUBLISH: Scope = Scope::new(&[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::TOPIC_ALIAS,
])
.with_repeatable(id::SUBSCRIPTION_IDENTIFIER);
/// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
pub(super) const ACK: Scope = Scope::new(&[id::REASON_STRING]);
pub(super) const SUBSCRIBE: Scope = Scope::new(&[id::SUBSCRIPTION_IDENTIFIER]);
pub(super) const UNSUBSCRIBE: Scope = Scope::new(&[]);
pub(super) const DISCONNECT: Scope =
    Scope::new(&[id::SESSION_EXPIRY_INTERVAL, id::SERVER_REFERENCE, id::REASON_STRING]);
pub(super) const AUTH: Scope =
    Scope::new(&[id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING]);

#[cfg(test)]
mod tests {
    use super::*;

    /// One property of each kind, with the block it encodes to.
    const ALL: [(Property<'static>, &[u8]); 27] = [
        (Property::PayloadFormatIndicator(1), &[0x01, 1]),
        (Property::MessageExpiryInterval(1), &[0x02, 0, 0, 0, 1]),
        (Property::ContentType("t"), &[0x03, 0, 1, b't']),
        (Property::ResponseTopic("r/t"), &[0x08, 0, 3, b'r', b'/', b't']),
        (Property::CorrelationData(&[0, 255]), &[0x09, 0, 2, 0, 255]),
        (Property::SubscriptionIdentifier(300), &[0x0B, 0xAC, 0x02]),
        (Property::SessionExpiryInterval(u32::MAX), &[0x11, 255, 255, 255, 255]),
        (Property::AssignedClientIdentifier("c"), &[0x12, 0, 1, b'c']),
        (Property::ServerKeepAlive(258), &[0x13, 1, 2]),
        (Property::AuthenticationMethod("m"), &[0x15, 0, 1, b'm']),
        (Property::AuthenticationData(&[7]), &[0x16, 0, 1, 7]),
        (Property::RequestProblemInformation(true), &[0x17, 1]),
        (Property::WillDelayInterval(9), &[0x18, 0, 0, 0, 9]),
        (Property::RequestResponseInformation(false), &[0x19, 0]),
        (Property::ResponseInformation("i"), &[0x1A, 0, 1, b'i']),
        (Property::ServerReference("s"), &[0x1C, 0, 1, b's']),
        (Property::ReasonString(""), &[0x1F, 0, 0]),
        (Property::ReceiveMaximum(1), &[0x21, 0, 1]),
        (Property::TopicAliasMaximum(0), &[0x22, 0, 0]),
        (Property::TopicAlias(5), &[0x23, 0, 5]),
        (Property::MaximumQoS(0), &[0x24, 0]),
        (Property::RetainAvailable(true), &[0x25, 1]),
        (Property::UserProperty("k", "v"), &[0x26, 0, 1, b'k', 0, 1, b'v']),
        (Property::MaximumPacketSize(256), &[0x27, 0, 0, 1, 0]),
        (Property::WildcardSubscriptionAvailable(false), &[0x28, 0]),
        (Property::SubscriptionIdentifiersAvailable(true), &[0x29, 1]),
        (Property::SharedSubscriptionAvailable(true), &[0x2A, 1]),
    ];

    #[test]
    fn every_property_has_its_wire_form() {
        let mut all = PropertyBuf::new();
        for (property, bytes) in ALL {
            let mut buf = PropertyBuf::new();
            buf.push(property);
            assert_eq!(buf.as_properties().raw(), bytes);
            assert_eq!(buf.as_properties().iter().collect::<Vec<_>>(), [property]);
            all.push(property);
        }
        let decoded: Vec<_> = all.as_properties().iter().collect();
        assert_eq!(decoded, ALL.map(|(property, _)| property));
    }

    /// Table 2-4, a column each: the identifiers that a packet may carry.
    #[test]
    fn packets_allow_their_own_properties_only() {
        let cases: [(&Scope, &[u8]); 9] = [
            (&CONNECT, &[0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
            (&WILL, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]),
            (
                &CONNACK,
                &[
                    0x11, 0x12, 0x13, 0x15, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27,
                    0x28, 0x29, 0x2A,
                ],
            ),
            (&PUBLISH, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26]),
            (&ACK, &[0x1F, 0x26]),
            (&SUBSCRIBE, &[0x0B, 0x26]),
            (&UNSUBSCRIBE, &[0x26]),
            (&DISCONNECT, &[0x11, 0x1C, 0x1F, 0x26]),
            (&AUTH, &[0x15, 0x1F, 0x26]),
        ];
        for (scope, allowed) in cases {
            for (_, bytes) in ALL.iter().filter(|(_, bytes)| bytes[0] != id::AUTHENTICATION_DATA) {
                let result = scope.check(bytes);
                assert_eq!(result.is_ok(), allowed.contains(&bytes[0]), "{bytes:02X?}");
            }
        }
    }

    #[test]
    fn values_and_repetitions_are_checked() {
        let malformed =
            |scope: &Scope, raw: &[u8]| matches!(scope.check(raw), Err(DecodeError::Malformed(_)));
        assert!(malformed(&PUBLISH, &[0x00]));
        assert!(malformed(&PUBLISH, &[0x7F, 0]));
        assert!(malformed(&PUBLISH, &[0xA6, 0x00, 0, 0, 0, 0]));
        assert!(malformed(&PUBLISH, &[0x02, 0, 0, 0]));
        assert!(malformed(&PUBLISH, &[0x03, 0, 1, 0]));
        assert!(malformed(&PUBLISH, &[0x0B, 0x81, 0x00]));
        assert!(malformed(&PUBLISH, &[0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]));
        for (scope, raw) in [
            (&PUBLISH, &[0x01, 2][..]),
            (&PUBLISH, &[0x01, 1, 0x01, 1]),
            (&PUBLISH, &[0x0B, 0]),
            (&PUBLISH, &[0x08, 0, 0]),
            (&PUBLISH, &[0x08, 0, 1, b'#']),
            (&PUBLISH, &[0x23, 0, 1, 0x23, 0, 2]),
            (&SUBSCRIBE, &[0x0B, 1, 0x0B, 2]),
            (&CONNECT, &[0x21, 0, 0]),
            (&CONNECT, &[0x27, 0, 0, 0, 0]),
            (&CONNECT, &[0x17, 2]),
            (&CONNECT, &[0x19, 2]),
            (&CONNECT, &[0x16, 0, 0]),
            (&CONNACK, &[0x24, 2]),
            (&CONNACK, &[0x25, 2]),
        ] {
            let result = scope.check(raw);
            assert!(matches!(result, Err(DecodeError::Protocol(_))), "{raw:02X?}");
        }
        assert_eq!(PUBLISH.check(&[0x23, 0, 0]).err(), Some(DecodeError::TopicAliasZero));
        assert!(PUBLISH.check(&[0x0B, 1, 0x0B, 2]).is_ok());
        assert!(ACK.check(&[0x26, 0, 0, 0, 0, 0x26, 0, 0, 0, 0]).is_ok());
        assert!(CONNECT.check(&[0x16, 0, 0, 0x15, 0, 0]).is_ok());
    }
}
