//! Acknowledgements of one connection in the order of what they acknowledge
//! (MQTT-4.6.0-2, MQTT-4.6.0-3): one that must wait holds back those behind it.

use std::collections::VecDeque;

use smallvec::SmallVec;

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

/// What an acknowledgement waits for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Waits {
    /// So many records of the log are to be on disk.
    pub(super) commit: u64,
    /// Other shards are to have taken what was sent to them.
    pub(super) shards: SmallVec<[AppliedBy; 1]>,
}

impl Waits {
    pub(super) fn is_empty(&self) -> bool {
        self.commit == 0 && self.shards.is_empty()
    }
}

/// That a shard has taken all messages of ours up to a stamp: has applied them, and has in its log
/// what is to be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AppliedBy {
    pub(super) shard: ShardId,
    pub(super) stamp: u64,
}

/// The acknowledgements that cannot leave yet. Bounded by the packet
/// identifiers of one client.
#[derive(Debug, Default)]
pub(super) struct AckLine(Option<Box<VecDeque<Waiting>>>);

type Waiting = (PublishAck, Waits);

impl AckLine {
    /// Whether an acknowledgement that waits for nothing may leave at once.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn push(&mut self, ack: PublishAck, waits: Waits) {
        self.0.get_or_insert_default().push_back((ack, waits));
    }

    /// The next acknowledgement whose wait is over.
    pub(super) fn pop(&mut self, is_over: impl Fn(&Waits) -> bool) -> Option<PublishAck> {
        let line = self.0.as_mut()?;
        let (_, waits) = line.front()?;
        if !waits.is_empty() && !is_over(waits) {
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
        line.push(ack(1), Waits { commit: 7, ..Waits::default() });
        line.push(ack(2), Waits::default());
        assert_eq!(line.pop(|waits| waits.commit <= 6), None);
        assert_eq!(line.pop(|waits| waits.commit <= 7), Some(ack(1)));
        assert_eq!(line.pop(|_| false), Some(ack(2)));
        assert!(line.is_empty());
    }
}
