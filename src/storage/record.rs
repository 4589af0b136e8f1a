//! The records of a log: what each says, and as which bytes.

use std::{net::IpAddr, num::NonZeroU32};

use super::{DeliveryNumber, SessionNumber};
use crate::{
    base::{PacketId, QoS, ShardId, WallTime},
    topic::SubscriptionOptions,
};

/// One record. Borrowed from what is to be written, or from the bytes that were read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// All of a session but its deliveries, in place of all that was said of it before.
    Session(SessionRecord<'a>),
    /// A client has connected to the session.
    Attached(Attached<'a>),
    /// The session is without a connection.
    Detached {
        /// Which session.
        session: SessionNumber,
        /// When it lost its connection.
        at: WallTime,
        /// Session Expiry Interval in seconds; `u32::MAX` never expires.
        expiry_secs: u32,
        /// When its will is due; `None`: it has none any more.
        will_due_at: Option<WallTime>,
        /// Deliveries before this one may have been sent.
        sent: DeliveryNumber,
    },
    /// The session has ended, and all its deliveries with it.
    Ended {
        /// Which session.
        session: SessionNumber,
    },
    /// The session has a subscription now, or other options for it.
    Subscribed {
        /// Which session.
        session: SessionNumber,
        /// Filter as the client wrote it.
        filter: &'a str,
        /// What it asks for.
        options: SubscriptionOptions,
    },
    /// It has not any more.
    Unsubscribed {
        /// Which session.
        session: SessionNumber,
        /// Filter as the client wrote it.
        filter: &'a str,
    },
    /// A message for sessions of this shard, or for its retained messages.
    Publication(PublicationRecord<'a>),
    /// A delivery is over: acknowledged, refused, expired or dropped.
    Done {
        /// Which session.
        session: SessionNumber,
        /// Which of its deliveries.
        delivery: DeliveryNumber,
    },
    /// PUBREC has come for a delivery: the client owns the message, PUBREL is due.
    Received {
        /// Which session.
        session: SessionNumber,
        /// Which of its deliveries.
        delivery: DeliveryNumber,
    },
    /// PUBREL has come from the client: this identifier of its is free again.
    Released {
        /// Which session.
        session: SessionNumber,
        /// Which identifier.
        packet_id: PacketId,
    },
    /// A message that this shard has taken over and is yet to route.
    Intake(Intake<'a>),
    /// All intakes up to this stamp have reached those they were for.
    Routed {
        /// The last of them.
        stamp: u64,
    },
    /// A delayed publication.
    Delayed(DelayedRecord<'a>),
    /// A delayed publication has been published without an intake.
    DelayedDone {
        /// Which one.
        number: u64,
    },
    /// What is counted across restarts.
    Boot(Boot),
}

/// See [`Record::Session`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionRecord<'a> {
    /// Which session.
    pub number: SessionNumber,
    /// Client Identifier.
    pub client: &'a str,
    /// User Name of its last connection.
    pub user_name: Option<&'a str>,
    /// Whether that connection had proven to be this user.
    pub is_proven: bool,
    /// Groups of that user.
    pub groups: Vec<&'a str>,
    /// Where that connection came from.
    pub address: Option<IpAddr>,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_secs: u32,
    /// When it lost its connection; `None` while it has one.
    pub detached_at: Option<WallTime>,
    /// Its will.
    pub will: Option<WillRecord<'a>>,
    /// Filters as the client wrote them, each once.
    pub subscriptions: Vec<(&'a str, SubscriptionOptions)>,
    /// QoS 2 identifiers of the client between PUBLISH and PUBREL.
    pub received: Vec<PacketId>,
    /// Deliveries before this one are over.
    pub first: DeliveryNumber,
    /// The number of the next one.
    pub next: DeliveryNumber,
    /// Deliveries before this one may have been sent.
    pub sent: DeliveryNumber,
    /// From `first` on: deliveries that are over.
    pub done: Vec<DeliveryNumber>,
    /// From `first` on: deliveries whose PUBREC has come.
    pub released: Vec<DeliveryNumber>,
}

/// See [`Record::Attached`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached<'a> {
    /// Which session.
    pub session: SessionNumber,
    /// User Name of its last connection.
    pub user_name: Option<&'a str>,
    /// Whether that connection had proven to be this user.
    pub is_proven: bool,
    /// Groups of that user.
    pub groups: Vec<&'a str>,
    /// Where that connection came from.
    pub address: Option<IpAddr>,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_secs: u32,
    /// Its will.
    pub will: Option<WillRecord<'a>>,
}

/// A Will Message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WillRecord<'a> {
    /// The message.
    pub message: MessageRecord<'a>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_secs: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
    /// When it is due, once the connection is gone.
    pub due_at: Option<WallTime>,
}

/// An application message. Properties are a property block's inside, validated when it was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageRecord<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Those that travel with it.
    pub properties: &'a [u8],
    /// Application Message.
    pub payload: &'a [u8],
    /// What it is a part of, if it is large and can be shared.
    pub shared: Option<&'a bytes::Bytes>,
    /// QoS of it.
    pub qos: QoS,
    /// RETAIN flag of it.
    pub retain: bool,
    /// When it is no longer worth delivering.
    pub expires_at: Option<WallTime>,
}

/// See [`Record::Publication`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicationRecord<'a> {
    /// The message.
    pub message: MessageRecord<'a>,
    /// This shard keeps it as the topic's retained message, or with an empty payload none any more.
    pub is_retained: bool,
    /// QoS 2: the session of this shard that has published it, and its Packet Identifier, which is
    /// received with this record.
    pub publisher: Option<(SessionNumber, PacketId)>,
    /// The intake that it comes from: whose, and its stamp.
    pub origin: Option<(ShardId, u64)>,
    /// The sessions of this shard that it is for.
    pub targets: &'a [Target],
}

/// One delivery of a publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Which session.
    pub session: SessionNumber,
    /// Its number there.
    pub delivery: DeliveryNumber,
    /// QoS of it.
    pub qos: QoS,
    /// RETAIN flag of it.
    pub retain: bool,
    /// Subscription Identifiers.
    pub identifiers: smallvec::SmallVec<[NonZeroU32; 2]>,
}

/// See [`Record::Intake`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Intake<'a> {
    /// Grows with each intake of this shard, across restarts too.
    pub stamp: u64,
    /// Where it comes from, which it is not any more with this record.
    pub source: Source,
    /// Client that has published it, for No Local.
    pub client: Option<&'a str>,
    /// Members chosen of shared subscriptions: the filter, and the shard that the member is on.
    pub chosen: Vec<(&'a str, ShardId)>,
    /// Whether it is for the chosen members only.
    pub chosen_only: bool,
    /// The message.
    pub message: MessageRecord<'a>,
}

/// Where an intake comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A QoS 2 PUBLISH with this identifier, which is received with this record.
    Publisher(SessionNumber, PacketId),
    /// The delayed publication of this number.
    Delayed(u64),
    /// The will of this session.
    Will(SessionNumber),
    /// Nothing that the log knows of: such as another shard, which has chosen a member that has gone. If
    /// it was an intake there, this is the record that it is taken with: of which shard, and its stamp.
    PassedOn(Option<(ShardId, u64)>),
}

impl Source {
    /// The session and Packet Identifier of a QoS 2 PUBLISH.
    pub const fn publisher(self) -> Option<(SessionNumber, PacketId)> {
        match self {
            Self::Publisher(session, packet_id) => Some((session, packet_id)),
            _ => None,
        }
    }
}

/// See [`Record::Delayed`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DelayedRecord<'a> {
    /// Grows with each delayed publication of this shard, across restarts too.
    pub number: u64,
    /// When it is to be published.
    pub due_at: WallTime,
    /// Client that has published it, for No Local.
    pub client: Option<&'a str>,
    /// QoS 2: its session here and the identifier, which is received with this record.
    pub publisher: Option<(SessionNumber, PacketId)>,
    /// The session whose will it is, which it has not any more with this record.
    pub will_of: Option<SessionNumber>,
    /// The message.
    pub message: MessageRecord<'a>,
}

/// See [`Record::Boot`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Boot {
    /// The next session's number.
    pub next_session: u64,
    /// The last delayed publication's number.
    pub last_delayed: u64,
    /// The last stamp that was given out.
    pub stamp: u64,
    /// Intakes up to this stamp are routed.
    pub routed: u64,
    /// By shard, the stamp of its last intake that this one has logged what it had to of.
    pub taken: Vec<(ShardId, u64)>,
    /// The last segment that was given up, 0 if none was: files of later ones are to be there.
    pub given_up: u32,
}
