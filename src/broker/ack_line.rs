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
pub(super) struct AckLine(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    line: VecDeque<(PublishAck, Option<AppliedBy>)>,
    /// How many of them end their exchange.
    last: usize,
}

impl PublishAck {
    /// Whether it ends its exchange: after a PUBREC that does not, the inbox
    /// has the identifier until PUBREL.
    const fn is_last(&self) -> bool {
        !matches!(self.kind, PacketType::PubRec) || self.reason.is_error()
    }
}

impl AckLine {
    /// Whether an acknowledgement that waits for nothing may leave at once.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Those that end their exchange, which the inbox does not count.
    pub(super) fn last_acks(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.last)
    }

    pub(super) fn push(&mut self, ack: PublishAck, waits_for: Option<AppliedBy>) {
        let waiting = self.0.get_or_insert_default();
        waiting.last += usize::from(ack.is_last());
        waiting.line.push_back((ack, waits_for));
    }

    /// The next acknowledgement whose wait is over.
    pub(super) fn pop(&mut self, is_applied: impl Fn(AppliedBy) -> bool) -> Option<PublishAck> {
        let waiting = self.0.as_mut()?;
        let (_, waits_for) = waiting.line.front()?;
        if waits_for.is_some_and(|waits_for| !is_applied(waits_for)) {
            return None;
        }
        let (ack, _) = waiting.line.pop_front()?;
        waiting.last -= usize::from(ack.is_last());
        if waiting.line.is_empty() {
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

    #[test]
    fn a_pubrec_counts_only_if_it_ends_the_exchange() {
        let mut line = AckLine::default();
        for (kind, reason, last_acks) in [
            (PacketType::PubRec, ReasonCode::Success, 0),
            (PacketType::PubAck, ReasonCode::Success, 1),
            (PacketType::PubRec, ReasonCode::NotAuthorized, 2),
        ] {
            line.push(PublishAck { kind, packet_id: PacketId::FIRST, reason }, None);
            assert_eq!(line.last_acks(), last_acks);
        }
        for last_acks in [2, 1, 0] {
            line.pop(|_| true);
            assert_eq!(line.last_acks(), last_acks);
        }
    }
}
