//! Checked configuration: what every other module sees.

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
    /// Highest QoS a client may publish with.
    pub maximum_qos: QoS,
    /// Whether retained messages are kept.
    pub retain_available: bool,
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
    /// Connections on this process.
    pub connections_max: u32,
    /// Time from accept to a complete CONNECT.
    pub connect_timeout_secs: u16,
    /// Subscriptions of one session; more are refused with 0x97.
    pub subscriptions_max: u32,
    /// Retained messages on this process; further topics are not retained (counted and logged).
    pub retained_messages_max: u64,
    /// Bytes of retained messages on this process; the same.
    pub retained_bytes_max: u64,
}
