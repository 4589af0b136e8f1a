//! What differs from listener to listener for those who come there: how they are authenticated, and what is done
//! if they do not read. Where a section of its own says nothing, what is said of all holds.

use super::{Chain, Limits};
use crate::base::limits::OUTPUT_BYTES_MAX;

/// What the broker goes by for the clients of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// How they are authenticated, if not as all are.
    pub chain: Option<Chain>,
    /// Bytes that wait to be sent to one client, above which QoS 0 messages for it are dropped.
    pub output_bytes_max: u64,
    /// Seconds in which something of it has to leave; 0 is no bound.
    pub output_stalled_secs_max: u16,
    /// What happens to a client for which a message was dropped.
    pub slow_consumer: SlowConsumer,
}

impl ListenerPolicy {
    /// For a listener of which nothing is said.
    pub(super) const DEFAULT: Self = Self {
        chain: None,
        output_bytes_max: OUTPUT_BYTES_MAX,
        output_stalled_secs_max: 60,
        slow_consumer: SlowConsumer::Drop,
    };
}

impl Default for ListenerPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens to a client for which a QoS 0 message was dropped because too much waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Nothing further.
    #[default]
    Drop,
    /// It is disconnected (0x97).
    Disconnect,
}

impl SlowConsumer {
    /// All of them by name.
    pub(super) const NAMES: [&str; 2] = ["drop", "disconnect"];

    /// The one at that place.
    pub(super) fn at(index: usize) -> Self {
        [Self::Drop, Self::Disconnect][index]
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What the section of one listener says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PolicySettings {
    pub(super) chain: Option<Chain>,
    pub(super) output_bytes_max: Option<u64>,
    pub(super) output_stalled_secs_max: Option<u16>,
    pub(super) slow_consumer: Option<SlowConsumer>,
}

impl PolicySettings {
    /// With what `[limits]` says of the rest.
    pub(super) fn or(&self, limits: &Limits) -> ListenerPolicy {
        let stalled = self.output_stalled_secs_max;
        ListenerPolicy {
            chain: self.chain.clone(),
            output_bytes_max: self.output_bytes_max.unwrap_or(limits.output_bytes_max),
            output_stalled_secs_max: stalled.unwrap_or(limits.output_stalled_secs_max),
            slow_consumer: self.slow_consumer.unwrap_or(limits.slow_consumer),
        }
    }
}
