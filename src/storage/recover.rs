//! What a log amounts to, as values for the broker to go on with.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use super::{Boot, Delivery, DeliveryNumber, Hold, SessionNumber, Slot, Source};
use crate::{
    base::{ClientId, PacketId, ShardId, Text, WallTime},
    message::Publication,
    topic::{SubscriptionOptions, TopicFilter},
};

/// What a shard's log amounts to.
#[derive(Debug, Default)]
pub struct RecoveredShard {
    /// Sessions that had not ended.
    pub sessions: Vec<RecoveredSession>,
    /// Retained messages.
    pub retained: Vec<RecoveredRetained>,
    /// Messages taken over and not routed as far as is known, oldest first.
    pub intakes: Vec<RecoveredIntake>,
    /// Delayed publications.
    pub delayed: Vec<RecoveredDelayed>,
    /// What is counted across restarts, at its last state.
    pub boot: Boot,
}

impl RecoveredShard {
    /// Bytes of each segment that are needed.
    pub fn held(&self) -> BTreeMap<u32, u64> {
        let mut held = BTreeMap::new();
        let mut add =
            |hold: Hold| *held.entry(hold.at.segment).or_default() += u64::from(hold.bytes);
        for session in &self.sessions {
            add(session.hold);
            session.deliveries.iter().for_each(|slot| {
                if let Delivery::Message(hold) = slot.get() {
                    add(hold);
                }
            });
        }
        self.retained.iter().for_each(|retained| add(retained.hold));
        self.intakes.iter().for_each(|intake| add(intake.hold));
        self.delayed.iter().for_each(|delayed| add(delayed.hold));
        held
    }
}

/// A session.
#[derive(Debug)]
pub struct RecoveredSession {
    /// Its name in the log.
    pub number: SessionNumber,
    /// Whose it is.
    pub client: ClientId,
    /// User Name of its last connection.
    pub user_name: Option<Text>,
    /// Whether that connection had proven to be this user.
    pub is_proven: bool,
    /// Groups of that user.
    pub groups: Vec<Box<str>>,
    /// Where that connection came from.
    pub address: Option<IpAddr>,
    /// Session Expiry Interval in seconds.
    pub expiry_secs: u32,
    /// When it lost its connection; `None`: it had one at the end.
    pub detached_at: Option<WallTime>,
    /// Its will.
    pub will: Option<RecoveredWill>,
    /// Its subscriptions.
    pub subscriptions: Vec<(TopicFilter, SubscriptionOptions)>,
    /// QoS 2 identifiers of the client between PUBLISH and PUBREL.
    pub received: Vec<PacketId>,
    /// Number of the first of `deliveries`; of the next delivery if there are none.
    pub first: DeliveryNumber,
    /// Deliveries before this one may have been sent.
    pub sent: DeliveryNumber,
    /// All from the first that is not over to the last that has been counted, those between that are over
    /// included; empty if none is left.
    pub deliveries: VecDeque<Slot>,
    /// What its [`super::Record::Session`] keeps of the log.
    pub hold: Hold,
}

impl RecoveredSession {
    /// The number of the next delivery.
    pub fn next(&self) -> DeliveryNumber {
        DeliveryNumber(self.first.0 + self.deliveries.len() as u64)
    }
}

/// A Will Message.
#[derive(Debug)]
pub struct RecoveredWill {
    /// What is published.
    pub publication: Arc<Publication>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_secs: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
    /// When it is due, if the connection had ended.
    pub due_at: Option<WallTime>,
}

/// A retained message.
#[derive(Debug)]
pub struct RecoveredRetained {
    /// The message.
    pub publication: Arc<Publication>,
    /// What it keeps of the log.
    pub hold: Hold,
}

/// See [`super::Intake`].
#[derive(Debug)]
pub struct RecoveredIntake {
    /// Its stamp.
    pub stamp: u64,
    /// Where it came from.
    pub source: Source,
    /// Client that has published it.
    pub client: Option<ClientId>,
    /// Members chosen of shared subscriptions: the filter, and the shard that the member is on.
    pub chosen: Vec<(TopicFilter, ShardId)>,
    /// Whether it is for those only.
    pub chosen_only: bool,
    /// The message.
    pub publication: Arc<Publication>,
    /// What it keeps of the log.
    pub hold: Hold,
}

/// See [`super::DelayedRecord`].
#[derive(Debug)]
pub struct RecoveredDelayed {
    /// Its number.
    pub number: u64,
    /// When it is due.
    pub due_at: WallTime,
    /// Client that has published it.
    pub client: Option<ClientId>,
    /// The message.
    pub publication: Arc<Publication>,
    /// What it keeps of the log.
    pub hold: Hold,
}
