//! Acknowledgements of one connection in the order of what they acknowledge
//! (MQTT-4.6.0-2, MQTT-4.6.0-3): one that must wait holds back those behind it.

use std::collections::VecDeque;

use crate::{
    base::{PacketId, ShardId},
    codec::{PacketType, ReasonCode},
};

/// One PUBACK, PUBREC or PUBCOMP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PublishAck {
    pub(super) kind: PacketType,
    pub(super) packet_id: PacketId,
    pub(super) reason: ReasonCode,
}

/// What an acknowledgement waits for: that a shard has applied all messages
/// of ours up to a stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AppliedBy {
    pub(super) shard: ShardId,
    pub(super) stamp: u64,
}

/// The acknowledgements that cannot leave yet. Bounded by the packet
/// identifiers of one client.
#[derive(Debug, Default)]
pub(super) struct AckLine(Option<Box<VecDeque<Waiting>>>);

type Waiting = (PublishAck, Option<AppliedBy>);

impl AckLine {
    /// Whether an acknowledgement that waits for nothing may leave at once.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn push(&mut self, ack: PublishAck, waits_for: Option<AppliedBy>) {
        self.0.get_or_insert_default().push_back((ack, waits_for));
    }

    /// The next acknowledgement whose wait is over.
    pub(super) fn pop(&mut self, is_applied: impl Fn(AppliedBy) -> bool) -> Option<PublishAck> {
        let line = self.0.as_mut()?;
        let (_, waits_for) = line.front()?;
        if waits_for.is_some_and(|waits_for| !is_applied(waits_for)) {
            return None;
        }
        let (ack, _) = line.pop_front()?;
        if line.is_empty() {
            self.0 = None;
        }
        Some(ack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_acknowledgement_holds_back_the_next() {
        let ack = |id| PublishAck {
            kind: PacketType::PubAck,
            packet_id: PacketId::new(id).unwrap(),
            reason: ReasonCode::Success,
        };
        let mut line = AckLine::default();
        line.push(ack(1), Some(AppliedBy { shard: ShardId(1), stamp: 7 }));
        line.push(ack(2), None);
        assert_eq!(line.pop(|waits_for| waits_for.stamp <= 6), None);
        assert_eq!(line.pop(|waits_for| waits_for.stamp <= 7), Some(ack(1)));
        assert_eq!(line.pop(|_| false), Some(ack(2)));
        assert!(line.is_empty());
    }
}
