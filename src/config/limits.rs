//! Limits that can be configured, and their defaults. Those that cannot stand in `base/limits.rs`.

use super::{ListenerPolicy, SlowConsumer};
use crate::base::QoS;

/// Limits that an operator can change, checked. Units are in the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet accepted from a client (bytes, fixed header included).
    pub packet_bytes_max: u32,
    /// QoS 1 and 2 publications a v5 client may have unacknowledged towards us.
    pub receive_maximum: u16,
    /// Topic aliases a v5 client may use towards us; 0 turns them off.
    pub topic_alias_maximum: u16,
    /// Topic aliases used towards one v5 client; its Topic Alias Maximum can lower it.
    pub client_topic_aliases_max: u16,
    /// Highest QoS a client may publish with.
    pub maximum_qos: QoS,
    /// Whether retained messages are kept.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscription_available: bool,
    /// Whether subscriptions may have Subscription Identifiers.
    pub subscription_identifiers_available: bool,
    /// Longest keep-alive; 0 means no bound. A longer one is lowered with Server Keep Alive for v5 clients.
    pub keep_alive_secs_max: u16,
    /// Longest session expiry; longer ones are lowered. `u32::MAX` means sessions never expire.
    pub session_expiry_secs_max: u32,
    /// Deliveries in flight to one client; the client's Receive Maximum can lower it.
    pub inflight_max: u16,
    /// Messages waiting for one client beyond those in flight.
    pub queue_messages_max: u32,
    /// Bytes waiting for one client (payload, topic and properties).
    pub queue_bytes_max: u64,
    /// Whether QoS 0 messages are queued for offline sessions.
    pub queue_qos0: bool,
    /// Bytes that wait to be sent to one client, unless its listener says otherwise, as the next two.
    pub output_bytes_max: u64,
    /// Time in which something of them has to leave; 0 is no bound.
    pub output_stalled_secs_max: u16,
    /// What happens to a client for which a message was dropped.
    pub slow_consumer: SlowConsumer,
    /// Connections on this process.
    pub connections_max: u32,
    /// Time from accept to a complete CONNECT.
    pub connect_timeout_secs: u16,
    /// Sessions on this process, an even part on each shard; more are refused with 0x97.
    pub sessions_max: u32,
    /// Subscriptions of one session; more are refused with 0x97.
    pub subscriptions_max: u32,
    /// Retained messages on this process; further topics are not retained (counted and logged).
    pub retained_messages_max: u64,
    /// Bytes of retained messages on this process; the same.
    pub retained_bytes_max: u64,
    /// Delayed publications on this process, an even part on each shard; more are refused with 0x97.
    pub delayed_messages_max: u64,
    /// Bytes of delayed publications on this process; the same.
    pub delayed_bytes_max: u64,
    /// Bytes of memory that the process may use; `None` until it is known how much there is.
    pub memory_bytes_max: Option<u64>,
    /// Connections from one address, 0 for no bound; more are closed.
    pub connections_per_address_max: u32,
    /// Connections of one user, 0 for no bound; more are refused with 0x97.
    pub connections_per_user_max: u32,
    /// Connections accepted in a second, 0 for no bound; more wait.
    pub connects_per_second_max: u32,
    /// Connections from one address in a second, 0 for no bound; more are closed.
    pub connects_per_address_per_second_max: u32,
    /// Connections of one client within `flapping_secs`, 0 for no bound; with more it is banned.
    pub flapping_connects_max: u32,
    /// Time in which they are counted.
    pub flapping_secs: u16,
    /// How long such a ban lasts.
    pub ban_secs: u32,
    /// PUBLISH packets of one client in a second, 0 for no bound.
    pub publishes_per_second_max: u32,
    /// Their bytes, the same.
    pub publish_bytes_per_second_max: u64,
    /// The time whose worth of both may come at once.
    pub publish_burst_millis: u32,
    /// What follows when a client publishes faster.
    pub publish_rate_exceeded: RateExceeded,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 128 * 1024 * 1024,
            receive_maximum: 1024,
            topic_alias_maximum: 32,
            client_topic_aliases_max: 16,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            shared_subscription_available: true,
            subscription_identifiers_available: true,
            keep_alive_secs_max: 0,
            session_expiry_secs_max: u32::MAX,
            inflight_max: 1024,
            queue_messages_max: 100_000,
            queue_bytes_max: 128 * 1024 * 1024,
            queue_qos0: false,
            output_bytes_max: ListenerPolicy::DEFAULT.output_bytes_max,
            output_stalled_secs_max: ListenerPolicy::DEFAULT.output_stalled_secs_max,
            slow_consumer: ListenerPolicy::DEFAULT.slow_consumer,
            connections_max: 1_000_000,
            connect_timeout_secs: 10,
            sessions_max: 10_000_000,
            subscriptions_max: 10_000,
            retained_messages_max: 10_000_000,
            retained_bytes_max: 4 * 1024 * 1024 * 1024,
            delayed_messages_max: 1_000_000,
            delayed_bytes_max: 1024 * 1024 * 1024,
            memory_bytes_max: None,
            connections_per_address_max: 0,
            connections_per_user_max: 0,
            connects_per_second_max: 0,
            connects_per_address_per_second_max: 0,
            flapping_connects_max: 0,
            flapping_secs: 60,
            ban_secs: 300,
            publishes_per_second_max: 0,
            publish_bytes_per_second_max: 0,
            publish_burst_millis: 1000,
            publish_rate_exceeded: RateExceeded::default(),
        }
    }
}

/// What follows when a client publishes faster than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateExceeded {
    /// Nothing is read from it until it may go on.
    #[default]
    Slow,
    /// It is disconnected.
    Disconnect,
}
