//! Application messages: what a publisher puts into one, and what must come
//! out of it on the other side.

use ringmq::{
    base::{QoS, Time},
    codec::{Properties, Property, PropertyBuf},
};

use crate::{link::Stamp, plan::Plan, profile::BIG_BYTES, profile::Profile, random::Random};

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) publisher: usize,
    pub(crate) topic: usize,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// An empty payload removes the retained message.
    pub(crate) is_clear: bool,
    payload_bytes: usize,
    pub(crate) expiry_secs: Option<u32>,
    /// Which properties it has, one bit each.
    dress: u8,
    /// Step of the first time that it was sent, or that a will was due.
    pub(crate) first_sent: u64,
    pub(crate) attempts: u32,
    /// Step when the broker has last routed it.
    pub(crate) routed: u64,
    /// When the broker has taken it (or it was due, if delayed), each time that it has to route it.
    pub(crate) heard: Vec<Time>,
    /// The broker has certainly taken it.
    pub(crate) is_certain: bool,
    /// It was sent once, and the broker has refused it.
    pub(crate) is_refused: bool,
    /// PUBACK or PUBREC has come.
    pub(crate) is_acknowledged: bool,
    /// How often the end of the whole machine was a reason to route it once more.
    pub(crate) reroutes: usize,
}

impl Message {
    /// One that its publisher has not sent yet.
    pub(crate) fn new(
        random: &mut Random,
        plan: &Plan,
        (publisher, profile): (usize, &Profile),
        (topic, qos, retain): (usize, QoS, bool),
    ) -> Self {
        let is_big = !retain && random.chance(profile.big_percent);
        let expires = random.chance(profile.expiring_percent);
        let dress = random.below(1 << DRESSES) as u8;
        let dressed = !plan.bulky && random.chance(50);
        Self {
            publisher,
            topic,
            qos,
            retain,
            is_clear: false,
            payload_bytes: if is_big { BIG_BYTES } else { profile.payload_bytes },
            expiry_secs: expires.then(|| random.pick(&EXPIRIES_SECS)),
            dress: if dressed && profile.version == ringmq::codec::Version::V5 { dress } else { 0 },
            first_sent: 0,
            attempts: 0,
            routed: 0,
            heard: Vec::new(),
            is_certain: false,
            is_refused: false,
            is_acknowledged: false,
            reroutes: 0,
        }
    }

    /// How often it may be routed.
    pub(crate) fn routed_max(&self) -> usize {
        let heard = self.heard.len();
        self.reroutes + if self.qos == QoS::AtLeastOnce { heard } else { heard.min(1) }
    }

    /// Whether a client that takes no big messages takes it.
    pub(crate) fn is_small(&self) -> bool {
        self.payload_bytes < BIG_BYTES
    }

    /// When each of its copies expires.
    fn ends(&self, secs: u32) -> impl Iterator<Item = Time> {
        self.heard.iter().map(move |at| at.plus_secs(secs.into()))
    }

    /// Whether a copy of it may have expired.
    pub(crate) fn may_be_expired(&self, now: Time) -> bool {
        self.expiry_secs.is_some_and(|secs| self.ends(secs).any(|end| end <= now))
    }

    /// Its number, and padding.
    pub(crate) fn payload(&self, number: usize) -> Vec<u8> {
        if self.is_clear {
            return Vec::new();
        }
        let mut payload = vec![number as u8; self.payload_bytes.max(4)];
        payload[..4].copy_from_slice(&(number as u32).to_be_bytes());
        payload
    }

    /// The properties that must travel with it unchanged.
    pub(crate) fn push_properties(&self, number: usize, properties: &mut PropertyBuf) {
        let text = format!("{number}");
        let has = |bit: u8| self.dress & 1 << bit != 0;
        if has(0) {
            properties.push(Property::UserProperty("first", &text));
            properties.push(Property::UserProperty("", ""));
        }
        if has(1) {
            properties.push(Property::PayloadFormatIndicator(0));
        }
        if has(2) {
            properties.push(Property::ContentType(&text));
        }
        if has(3) {
            properties.push(Property::ResponseTopic("answers"));
            properties.push(Property::CorrelationData(&[0, number as u8, 255]));
        }
        if has(4) {
            properties.push(Property::UserProperty("then", &text));
            properties.push(Property::UserProperty("first", "again"));
        }
    }

    /// Checks the properties of a delivery to a v5 client: those of the
    /// publisher in their order, and no others.
    pub(crate) fn check_properties(&self, number: usize, received: Properties<'_>) {
        let mut expected = PropertyBuf::new();
        self.push_properties(number, &mut expected);
        let mut travelled = PropertyBuf::new();
        received.iter().filter(is_of_publisher).for_each(|property| travelled.push(property));
        assert_eq!(
            travelled.as_properties(),
            expected.as_properties(),
            "rule 13: properties of {number}"
        );
    }

    /// Checks that a delivery is not too late, and the interval that it tells.
    pub(crate) fn check_expiry(&self, number: usize, dup: bool, told: Told, made: Stamp) {
        let Some(secs) = self.expiry_secs else {
            assert!(!matches!(told, Told::Secs(_)), "rule 12: {number} never expires");
            return;
        };
        assert!(
            dup || self.ends(secs).any(|end| made.since <= end),
            "rule 12: {number} had expired: {self:?}, sent from {made:?}"
        );
        let left = |end: Time, at| end.millis_since(at).div_ceil(1000);
        let is_right = match told {
            Told::Nothing => true,
            Told::Secs(told) => self.ends(secs).any(|end| {
                (left(end, made.until)..=left(end, made.since)).contains(&u64::from(told))
            }),
            Told::Never => false,
        };
        assert!(is_right, "rule 12: interval of {number}: {told:?} of {self:?}, sent {made:?}");
    }
}

/// What a PUBLISH says of its Message Expiry Interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// It cannot: before 5.0.
    Nothing,
    Secs(u32),
    Never,
}

fn is_of_publisher(property: &Property<'_>) -> bool {
    !matches!(
        property,
        Property::TopicAlias(_)
            | Property::MessageExpiryInterval(_)
            | Property::SubscriptionIdentifier(_)
    )
}

/// The number in a payload; `None` if it clears a retained message.
pub(crate) fn message_number(payload: &[u8]) -> Option<usize> {
    let number = payload.first_chunk::<4>()?;
    let number = u32::from_be_bytes(*number) as usize;
    let padding = &payload[4..];
    // All bytes are the same if each is the same as the next.
    let is_whole = padding
        .first()
        .is_none_or(|first| *first == number as u8 && padding[1..] == padding[..padding.len() - 1]);
    assert!(is_whole, "payload of {number} damaged");
    Some(number)
}

const DRESSES: u32 = 5;
const EXPIRIES_SECS: [u32; 7] = [1, 2, 5, 30, 3_600, 3_600, u32::MAX];
