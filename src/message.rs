//! An application message: borrowed while it is routed, owned once it must wait,
//! and how a delivery of it is put on the wire.
//!
//! Knows nothing of sessions. Owned messages are immutable and shared between
//! shards by reference count.

use std::{num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    base::{PacketId, QoS, Time, limits::SHARED_BYTES_MIN},
    codec::{
        Original, Properties, Property, PropertyBuf, Publish, Version, encode_publish,
        encode_publish_head,
    },
    topic::TopicName,
};

/// Subscription Identifiers that go with one delivery, in no fixed order.
pub type Identifiers = SmallVec<[NonZeroU32; 2]>;

/// An application message by reference, as the router sees it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Where it was published to; a topic alias is resolved already.
    pub topic: TopicName<'a>,
    /// Properties that travel with the message unchanged (MQTT-3.3.2-17 and
    /// others); those meant for the receiver of one
    /// packet are not among them.
    pub properties: Properties<'a>,
    /// The payload.
    pub payload: &'a [u8],
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN flag it was published with.
    pub retain: bool,
    /// When it is no longer worth delivering.
    pub expires_at: Option<Time>,
    /// The packet it came in, if that says no more than this.
    pub original: Option<Original<'a>>,
    /// What the payload is a part of, if that can be shared.
    pub shared: Option<&'a Bytes>,
}

impl Message<'_> {
    /// Bytes of topic, properties and payload.
    pub fn size(&self) -> usize {
        self.topic.as_str().len() + self.properties.raw().len() + self.payload.len()
    }

    /// Whether its payload is one that is shared and not copied.
    pub const fn is_large(&self) -> bool {
        self.payload.len() >= SHARED_BYTES_MIN
    }

    /// The payload for one more who has it: a copy only if it is no part of what can be shared.
    pub fn shared_payload(&self) -> Bytes {
        match self.shared {
            Some(whole) => whole.slice_ref(self.payload),
            None => Bytes::copy_from_slice(self.payload),
        }
    }

    /// Whether its Message Expiry Interval has passed.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// An application message that outlives the packet it came in: one allocation
/// for its bytes, shared by every queue that holds it. A large payload stays where it was received.
#[derive(Debug)]
pub struct Publication {
    /// Topic, properties and payload, in this order.
    bytes: Bytes,
    /// The payload, if it is large.
    payload: Option<Box<Bytes>>,
    expires_at: Option<Time>,
    properties_len: u32,
    topic_len: u16,
    qos: QoS,
    retain: bool,
}

impl Publication {
    /// Copies a borrowed message, but for what of it can be shared.
    pub fn new(message: &Message<'_>) -> Arc<Self> {
        let topic = message.topic.as_str();
        let properties = message.properties.raw();
        let payload = message.is_large().then(|| Box::new(message.shared_payload()));
        let copied = if payload.is_some() { &[] } else { message.payload };
        let mut bytes = Vec::with_capacity(topic.len() + properties.len() + copied.len());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(copied);
        Arc::new(Self {
            bytes: bytes.into(),
            payload,
            expires_at: message.expires_at,
            properties_len: properties.len() as u32,
            topic_len: topic.len() as u16,
            qos: message.qos,
            retain: message.retain,
        })
    }

    /// The message by reference.
    pub fn message(&self) -> Message<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_len as usize);
        let (properties, payload) = rest.split_at(self.properties_len as usize);
        let topic = std::str::from_utf8(topic).expect("copied from a str in new()");
        Message {
            topic: TopicName::trusted(topic),
            properties: Properties::trusted(properties),
            payload: self.payload.as_deref().map_or(payload, |payload| payload),
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
            original: None,
            shared: self.payload.as_deref(),
        }
    }

    /// Bytes of topic, properties and payload.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.payload.as_deref().map_or(0, Bytes::len)
    }

    /// The same message with another end. Shares the bytes.
    pub fn expiring_at(&self, expires_at: Time) -> Arc<Self> {
        let (bytes, payload) = (self.bytes.clone(), self.payload.clone());
        Arc::new(Self { bytes, payload, expires_at: Some(expires_at), ..*self })
    }

    /// When it is no longer worth delivering.
    pub const fn expires_at(&self) -> Option<Time> {
        self.expires_at
    }

    /// Whether its Message Expiry Interval has passed.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The properties of a received PUBLISH or will, split into those that travel
/// with the message and those that are meant for this server.
pub struct SplitProperties<'a> {
    /// What travels, if it is not simply the whole received block.
    rebuilt: Option<PropertyBuf>,
    received: Properties<'a>,
    /// Topic Alias of the PUBLISH.
    pub topic_alias: Option<u16>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_secs: Option<u32>,
    /// Will Delay Interval in seconds.
    pub will_delay_secs: u32,
    /// Whether there is a Subscription Identifier, which clients must not send (MQTT-3.3.4-6).
    pub has_subscription_identifier: bool,
}

impl<'a> SplitProperties<'a> {
    /// Splits a validated block; copies only if something has to be left out.
    pub fn new(received: Properties<'a>) -> Self {
        let mut split = Self {
            rebuilt: None,
            received,
            topic_alias: None,
            message_expiry_secs: None,
            will_delay_secs: 0,
            has_subscription_identifier: false,
        };
        for property in received.iter() {
            match property {
                Property::TopicAlias(alias) => split.topic_alias = Some(alias),
                Property::MessageExpiryInterval(secs) => split.message_expiry_secs = Some(secs),
                Property::WillDelayInterval(secs) => split.will_delay_secs = secs,
                Property::SubscriptionIdentifier(_) => split.has_subscription_identifier = true,
                _ => continue,
            }
            split.rebuilt.get_or_insert_with(PropertyBuf::new);
        }
        if let Some(rebuilt) = &mut split.rebuilt {
            received.iter().filter(travels).for_each(|property| rebuilt.push(property));
        }
        split
    }

    /// Whether all of it travels with the message.
    pub const fn is_whole(&self) -> bool {
        self.rebuilt.is_none()
    }

    /// The block that travels with the message.
    pub fn travelling(&self) -> Properties<'_> {
        self.rebuilt.as_ref().map_or(self.received, PropertyBuf::as_properties)
    }
}

fn travels(property: &Property<'_>) -> bool {
    !matches!(
        property,
        Property::TopicAlias(_)
            | Property::MessageExpiryInterval(_)
            | Property::WillDelayInterval(_)
            | Property::SubscriptionIdentifier(_)
    )
}

/// How a topic stands in a PUBLISH (MQTT 5.0 section 3.3.2.3.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TopicForm {
    /// By its name.
    #[default]
    Name,
    /// By its name, which the alias stands for from now on.
    NameAndAlias(u16),
    /// By an alias that the receiver knows.
    Alias(u16),
}

impl TopicForm {
    const fn alias(self) -> Option<u16> {
        match self {
            Self::Name => None,
            Self::NameAndAlias(alias) | Self::Alias(alias) => Some(alias),
        }
    }
}

/// How one subscriber gets a message.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The message.
    pub message: Message<'a>,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Whether it was sent before (MQTT-3.3.1-1).
    pub dup: bool,
    /// Packet Identifier, if QoS > 0.
    pub packet_id: Option<PacketId>,
    /// How the topic stands in it.
    pub topic: TopicForm,
    /// Subscription Identifiers, for v5 subscribers.
    pub identifiers: &'a [NonZeroU32],
}

impl Delivery<'_> {
    /// No less than the bytes of its packet behind the fixed header.
    pub fn size_max(&self) -> usize {
        // An identifier takes up to five bytes.
        self.message.size() + 5 * self.identifiers.len() + PUBLISH_OVERHEAD
    }

    /// Appends the PUBLISH packet. Returns where in `out` the Packet Identifier
    /// stands, so that a copy of the packet can be given another one.
    pub fn encode(&self, version: Version, now: Time, out: &mut Vec<u8>) -> Option<usize> {
        self.with_properties(version, now, |properties| self.encode_with(version, properties, out))
    }

    /// Appends the packet without the payload, which is to follow.
    pub fn encode_head(&self, version: Version, now: Time, out: &mut Vec<u8>) {
        self.with_properties(version, now, |properties| {
            encode_publish_head(version, &self.publish(properties), out);
        });
    }

    /// Calls `encode` with the properties of the packet.
    #[inline]
    fn with_properties<T>(
        &self,
        version: Version,
        now: Time,
        encode: impl FnOnce(Properties<'_>) -> T,
    ) -> T {
        if version < Version::V5 {
            return encode(Properties::EMPTY);
        }
        let is_plain = self.message.expires_at.is_none() && self.topic == TopicForm::Name;
        if is_plain && self.identifiers.is_empty() {
            return encode(self.message.properties);
        }
        let mut properties = PropertyBuf::new();
        if let Some(at) = self.message.expires_at {
            // MQTT-3.3.2-6: what is left of the interval, in begun seconds.
            let secs = at.millis_since(now).div_ceil(1000);
            let secs = u32::try_from(secs).unwrap_or(u32::MAX);
            properties.push(Property::MessageExpiryInterval(secs));
        }
        if let Some(alias) = self.topic.alias() {
            properties.push(Property::TopicAlias(alias));
        }
        for identifier in self.identifiers {
            properties.push(Property::SubscriptionIdentifier(identifier.get()));
        }
        self.message.properties.iter().for_each(|property| properties.push(property));
        encode(properties.as_properties())
    }

    /// Whether it is the received packet again, but for flags and Packet Identifier.
    fn repeats(&self, original: &Original<'_>, version: Version) -> bool {
        let adds_nothing =
            version < Version::V5 || self.identifiers.is_empty() && self.topic == TopicForm::Name;
        original.is_of(version) && self.qos == self.message.qos && adds_nothing
    }

    fn publish<'p>(&'p self, properties: Properties<'p>) -> Publish<'p> {
        let is_named = !matches!(self.topic, TopicForm::Alias(_));
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: is_named.then_some(self.message.topic),
            packet_id: self.packet_id,
            properties,
            payload: self.message.payload,
        }
    }

    fn encode_with(
        &self,
        version: Version,
        properties: Properties<'_>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let publish = self.publish(properties);
        let Some(original) = self.message.original.filter(|it| self.repeats(it, version)) else {
            return encode_publish(version, &publish, out);
        };
        let start = out.len();
        let packet_id_at = original.encode(version, &publish, out);
        debug_assert!(
            {
                let mut anew = Vec::new();
                encode_publish(version, &publish, &mut anew);
                anew == out[start..]
            },
            "the packet is of another message"
        );
        packet_id_at
    }
}

/// Most bytes of a PUBLISH besides topic, payload, received properties and Subscription
/// Identifiers: lengths, Packet Identifier, Message Expiry Interval.
const PUBLISH_OVERHEAD: usize = 32;
