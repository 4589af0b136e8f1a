//! Lanes: the bounded one-way channels between two shards.
//!
//! A [`LaneOut`] never waits: what does not fit goes with a task of its own that waits for room, and
//! meanwhile the lane counts as full. So a shard that drains its lanes in never waits for another,
//! and two shards cannot wait for each other. Order on a lane is kept. Knows nothing of what it carries
//! beyond [`LaneMessage`].

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use glommio::{
    GlommioError, ResourceType, Task,
    channels::shared_channel::{self, ConnectedSender, SharedReceiver, SharedSender},
};

use super::{
    bell::Bell,
    connections::{Move, Socket},
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
    outgoing: Vec<(ShardId, SharedSender<LaneMessage>)>,
    incoming: Vec<(ShardId, SharedReceiver<LaneMessage>)>,
}

impl LaneEnds {
    /// The lanes between `shards` shards, as each of them needs them.
    pub(crate) fn matrix(shards: u16) -> Vec<Self> {
        let mut ends: Vec<Self> = (0..shards).map(|_| Self::default()).collect();
        for from in (0..shards).map(ShardId) {
            for to in (0..shards).map(ShardId).filter(|to| *to != from) {
                let (sender, receiver) = shared_channel::new_bounded(LANE_MESSAGES);
                ends[from.index()].outgoing.push((to, sender));
                ends[to.index()].incoming.push((from, receiver));
            }
        }
        ends
    }

    /// The ends to receive from, each with the shard at the other end.
    pub(super) fn take_incoming(&mut self) -> Vec<(ShardId, SharedReceiver<LaneMessage>)> {
        std::mem::take(&mut self.incoming)
    }

    /// Connects the ends to send to. Returns when every peer has connected its end, so the receiving
    /// ends of this shard must be connecting in other tasks. `room` is rung when a full lane has room.
    pub(super) async fn connect_outgoing(self, room: &Rc<Bell>) -> Vec<LaneOut> {
        let mut lanes = Vec::with_capacity(self.outgoing.len());
        for (to, sender) in self.outgoing {
            lanes.push(LaneOut::new(to, sender.connect().await, room.clone()));
        }
        lanes
    }
}

/// The sending end of a lane.
pub(super) struct LaneOut {
    pub(super) to: ShardId,
    sender: Rc<ConnectedSender<LaneMessage>>,
    overflow: Rc<Overflow>,
    /// Connections that wait for room: at most as many as there are connections.
    moving: VecDeque<(Socket, Box<Move>)>,
    flush: Flush,
    /// Cancelled when dropped.
    _waits_for_room: Task<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    No,
    Wanted,
    Sent,
}

/// The one message that found the lane full, on its way to the task that waits for room.
#[derive(Default)]
struct Overflow {
    full: Cell<bool>,
    message: Cell<Option<LaneMessage>>,
    filled: Bell,
}

impl LaneOut {
    fn new(to: ShardId, sender: ConnectedSender<LaneMessage>, room: Rc<Bell>) -> Self {
        let (sender, overflow) = (Rc::new(sender), Rc::<Overflow>::default());
        let task = glommio::spawn_local(overflow.clone().deliver(sender.clone(), room));
        let (moving, flush) = (VecDeque::new(), Flush::No);
        Self { to, sender, overflow, moving, flush, _waits_for_room: task }
    }

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

    /// Sends what waits for this lane while there is room.
    pub(super) fn pump(&mut self, broker: &mut Broker, now: Time) {
        while !self.overflow.full.get() {
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
            self.send(message);
        }
    }

    /// The message that finds the lane full is kept until there is room. If the peer has ended, the
    /// message is gone.
    fn send(&self, message: LaneMessage) {
        if let Err(GlommioError::WouldBlock(ResourceType::Channel(message))) =
            self.sender.try_send(message)
        {
            self.overflow.full.set(true);
            self.overflow.message.set(Some(message));
            self.overflow.filled.ring();
        }
    }
}

impl Overflow {
    async fn deliver(self: Rc<Self>, lane: Rc<ConnectedSender<LaneMessage>>, room: Rc<Bell>) {
        loop {
            self.filled.heard().await;
            if let Some(message) = self.message.take() {
                // An error means that the peer has ended; see `LaneOut::send`.
                let _ = lane.send(message).await;
            }
            self.full.set(false);
            room.ring();
        }
    }
}

/// Messages that wait in one lane. When they do, the sender keeps the rest in its broker, which then
/// holds back the publishers.
const LANE_MESSAGES: usize = 16;
