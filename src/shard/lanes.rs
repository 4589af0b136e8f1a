//! Lanes: the bounded one-way channels between two shards.
//!
//! A [`LaneOut`] never waits: what does not fit stays where it was, and the receiver wakes the sender when there
//! is room. So a shard that drains its lanes in never waits for another, and two shards cannot wait for each
//! other. Order on a lane is kept. Knows nothing of what it carries beyond [`LaneMessage`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use rtrb::{Consumer, Producer, RingBuffer};

use super::{
    connections::{Move, Socket},
    wake::Wake,
};
use crate::{
    base::{ShardId, Time},
    broker::{Broker, MeshMessage},
};

/// What crosses a lane.
pub(super) enum LaneMessage {
    /// Messages from broker to broker.
    Mesh(Vec<MeshMessage>),
    /// A connection whose home is the receiver.
    Connection { socket: Socket, moved: Box<Move> },
    /// At shutdown: the sender will not start anything new on this lane.
    Flushed,
}

/// The ends of all lanes that one shard has; sent to its thread before it starts.
#[derive(Default)]
pub(crate) struct LaneEnds {
    pub(super) outgoing: Vec<LaneOut>,
    pub(super) incoming: Vec<LaneIn>,
}

impl LaneEnds {
    /// The lanes between the shards that these wake, as each of them needs them.
    pub(super) fn matrix(wakes: &[Arc<Wake>]) -> Vec<Self> {
        let mut ends: Vec<Self> = wakes.iter().map(|_| Self::default()).collect();
        for (sender, wake_sender) in wakes.iter().enumerate() {
            for (receiver, wake_receiver) in wakes.iter().enumerate() {
                if sender == receiver {
                    continue;
                }
                let (from, to) = (ShardId(sender as u16), ShardId(receiver as u16));
                let (producer, consumer) = RingBuffer::new(LANE_MESSAGES);
                let is_short = Arc::new(AtomicBool::new(false));
                ends[sender].outgoing.push(LaneOut {
                    to,
                    messages: producer,
                    is_short: is_short.clone(),
                    receiver: wake_receiver.clone(),
                    moving: VecDeque::new(),
                    flush: Flush::No,
                });
                let sender = wake_sender.clone();
                ends[receiver].incoming.push(LaneIn { from, messages: consumer, is_short, sender });
            }
        }
        ends
    }
}

/// The sending end of a lane.
pub(super) struct LaneOut {
    pub(super) to: ShardId,
    messages: Producer<LaneMessage>,
    /// The sender has more than there was room for.
    is_short: Arc<AtomicBool>,
    receiver: Arc<Wake>,
    /// Connections that wait for room: at most as many as there are connections.
    moving: VecDeque<(Socket, Box<Move>)>,
    flush: Flush,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    No,
    Wanted,
    Sent,
}

impl LaneOut {
    /// Hands a connection over once there is room.
    pub(super) fn move_connection(&mut self, socket: Socket, moved: Box<Move>) {
        self.moving.push_back((socket, moved));
    }

    /// Sends [`LaneMessage::Flushed`] once nothing waits in front of it.
    pub(super) fn flush(&mut self) {
        if self.flush == Flush::No {
            self.flush = Flush::Wanted;
        }
    }

    /// Whether [`LaneMessage::Flushed`] is on its way.
    pub(super) fn is_flushed(&self) -> bool {
        self.flush == Flush::Sent
    }

    /// Whether something waits for this lane that there is room for.
    pub(super) fn can_send(&self, broker: &Broker) -> bool {
        let is_waiting =
            !self.moving.is_empty() || broker.mesh_waiting(self.to) || self.flush == Flush::Wanted;
        is_waiting && !self.is_full()
    }

    /// Sends what waits for this lane while there is room.
    pub(super) fn pump(&mut self, broker: &mut Broker, now: Time) {
        let mut has_sent = false;
        while !self.is_full() {
            let message = if let Some((socket, moved)) = self.moving.pop_front() {
                LaneMessage::Connection { socket, moved }
            } else if broker.mesh_waiting(self.to) {
                LaneMessage::Mesh(broker.take_mesh(now, self.to))
            } else if self.flush == Flush::Wanted {
                self.flush = Flush::Sent;
                LaneMessage::Flushed
            } else {
                break;
            };
            // Refused only by a peer that has ended: then the message is gone.
            let _ = self.messages.push(message);
            has_sent = true;
        }
        if self.is_full() {
            // The sender's last look before it sleeps comes behind this.
            self.is_short.store(true, Ordering::Relaxed);
        }
        if has_sent {
            self.receiver.wake();
        }
    }

    /// Nothing is kept for a peer that has ended.
    fn is_full(&self) -> bool {
        self.messages.is_full() && !self.messages.is_abandoned()
    }
}

/// The receiving end of a lane.
pub(super) struct LaneIn {
    pub(super) from: ShardId,
    messages: Consumer<LaneMessage>,
    is_short: Arc<AtomicBool>,
    sender: Arc<Wake>,
}

impl LaneIn {
    /// The next message.
    pub(super) fn pop(&mut self) -> Option<LaneMessage> {
        let message = self.messages.pop().ok()?;
        fence(Ordering::SeqCst);
        if self.is_short.load(Ordering::Relaxed) {
            self.is_short.store(false, Ordering::Relaxed);
            self.sender.wake();
        }
        Some(message)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// Messages that wait in one lane. When they do, the sender keeps the rest in its broker, which then
/// holds back the publishers.
pub(super) const LANE_MESSAGES: usize = 16;
