//! What the broker counts, and the reasons it drops messages for.

use std::fmt;

use crate::session::Refused;

/// Why a message did not reach somebody it was meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum DropReason {
    /// `queue_messages_max` is reached.
    QueueMessages,
    /// `queue_bytes_max` would be passed.
    QueueBytes,
    /// A QoS 0 message for a client that does not read fast enough.
    SlowConsumer,
    /// Larger than the client's Maximum Packet Size (MQTT-3.1.2-25).
    PacketTooLarge,
    /// Its Message Expiry Interval passed while it waited.
    Expired,
    /// Every member of a shared subscription left while it was on its way.
    NoMember,
    /// Not retained: `retained_messages_max` or `retained_bytes_max` is reached.
    RetainedFull,
    /// Published to a topic that only the server publishes to.
    ReservedTopic,
    /// The access rules do not let its publisher publish it.
    PublishDenied,
    /// The access rules do not let its taker have it.
    ReceiveDenied,
    /// Published to a malformed `$delayed/...`, or to what a rewrite rule makes no Topic Name of.
    InvalidTopic,
    /// `delayed_messages_max` or `delayed_bytes_max` is reached.
    DelayedFull,
    /// A request for retained messages that the client has not registered for.
    RequestUnregistered,
    /// A request for retained messages with a payload.
    RequestPayload,
    /// Published while the memory of the process is full.
    Memory,
    /// The log has no room for it, the disk refuses it, or does not give it back.
    Storage,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::QueueMessages,
        Self::QueueBytes,
        Self::SlowConsumer,
        Self::PacketTooLarge,
        Self::Expired,
        Self::NoMember,
        Self::RetainedFull,
        Self::ReservedTopic,
        Self::PublishDenied,
        Self::ReceiveDenied,
        Self::InvalidTopic,
        Self::DelayedFull,
        Self::RequestUnregistered,
        Self::RequestPayload,
        Self::Memory,
        Self::Storage,
    ];

    /// Its name in logs and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueMessages => "queue_messages_max",
            Self::QueueBytes => "queue_bytes_max",
            Self::SlowConsumer => "slow_consumer",
            Self::PacketTooLarge => "client_maximum_packet_size",
            Self::Expired => "expired",
            Self::NoMember => "no_shared_member",
            Self::RetainedFull => "retained_max",
            Self::ReservedTopic => "reserved_topic",
            Self::PublishDenied => "acl_publish",
            Self::ReceiveDenied => "acl_receive",
            Self::InvalidTopic => "topic_name_invalid",
            Self::DelayedFull => "delayed_max",
            Self::RequestUnregistered => "request_unregistered",
            Self::RequestPayload => "request_payload",
            Self::Memory => "memory",
            Self::Storage => "storage",
        }
    }
}

impl From<Refused> for DropReason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Messages => Self::QueueMessages,
            Refused::Bytes => Self::QueueBytes,
        }
    }
}

/// Counts of one shard since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// CONNECTs accepted.
    pub connects: u64,
    /// CONNECTs refused.
    pub refused: u64,
    /// CONNECTs among them whose credentials could not be checked because those of too many waited.
    pub checks_refused: u64,
    /// Connections that were closed as they came: too many, too fast, or from where nobody may come.
    pub turned_away: u64,
    /// CONNECTs refused because of a ban.
    pub banned: u64,
    /// Clients banned for a while because they came too often.
    pub flapping_bans: u64,
    /// Pauses of clients that published faster than they may.
    pub publish_pauses: u64,
    /// PUBLISH packets from clients.
    pub publishes_received: u64,
    /// PUBLISH packets to clients, repetitions included.
    pub publishes_sent: u64,
    /// Publications sent to other shards.
    pub forwarded: u64,
    /// Subscriptions that the access rules have denied.
    pub subscriptions_denied: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Counts a dropped message.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Messages dropped for a reason.
    pub const fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

/// What is worth a log line when a shard ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    pub(super) counters: Counters,
    pub(super) connections: usize,
    pub(super) sessions: usize,
    pub(super) retained: usize,
    pub(super) delayed: usize,
    pub(super) filters: usize,
}

impl Summary {
    /// The counts.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Retained messages whose home is this shard.
    pub const fn retained(&self) -> usize {
        self.retained
    }

    /// Publications that wait for their time on this shard.
    pub const fn delayed(&self) -> usize {
        self.delayed
    }

    /// Topic Filters in this shard's copy of the index.
    pub const fn filters(&self) -> usize {
        self.filters
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { connects, refused, publishes_received, publishes_sent, forwarded, .. } =
            self.counters;
        write!(
            f,
            "connections={} sessions={} retained={} delayed={} connects={connects} \
             refused={refused} publishes_received={publishes_received} \
             publishes_sent={publishes_sent} forwarded={forwarded}",
            self.connections, self.sessions, self.retained, self.delayed
        )?;
        let denied = self.counters.subscriptions_denied;
        if denied > 0 {
            write!(f, " subscriptions_denied={denied}")?;
        }
        for (name, count) in [
            ("checks_refused", self.counters.checks_refused),
            ("turned_away", self.counters.turned_away),
            ("banned", self.counters.banned),
            ("flapping_bans", self.counters.flapping_bans),
            ("publish_pauses", self.counters.publish_pauses),
        ] {
            if count > 0 {
                write!(f, " {name}={count}")?;
            }
        }
        for reason in DropReason::ALL {
            let count = self.counters.drops(reason);
            if count > 0 {
                write!(f, " dropped.{}={count}", reason.name())?;
            }
        }
        Ok(())
    }
}
