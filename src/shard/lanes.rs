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
                let (messages, incoming) = channel(wake_sender, wake_receiver);
                let (moving, flush) = (VecDeque::new(), Flush::No);
                ends[sender].outgoing.push(LaneOut { to, messages, moving, flush });
                ends[receiver].incoming.push(LaneIn { from, messages: incoming });
            }
        }
        ends
    }
}

/// The sending end of a lane.
pub(super) struct LaneOut {
    pub(super) to: ShardId,
    messages: Sender<LaneMessage>,
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

    fn is_waiting(&self, broker: &Broker) -> bool {
        !self.moving.is_empty() || broker.mesh_waiting(self.to) || self.flush == Flush::Wanted
    }

    /// Whether something waits for this lane that there is room for.
    pub(super) fn can_send(&self, broker: &Broker) -> bool {
        self.is_waiting(broker) && self.messages.has_room()
    }

    /// Sends what waits for this lane while there is room.
    pub(super) fn pump(&mut self, broker: &mut Broker, now: Time) {
        let mut has_sent = false;
        while self.messages.has_room() {
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
            self.messages.push(message);
            has_sent = true;
        }
        self.messages.end_turn(has_sent, self.is_waiting(broker));
    }
}

/// The receiving end of a lane.
pub(super) struct LaneIn {
    pub(super) from: ShardId,
    messages: Receiver<LaneMessage>,
}

impl LaneIn {
    /// The next message.
    pub(super) fn pop(&mut self) -> Option<LaneMessage> {
        self.messages.pop()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// A bounded channel between two threads that sleep in their rings.
fn channel<T>(sender: &Arc<Wake>, receiver: &Arc<Wake>) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = RingBuffer::new(LANE_MESSAGES);
    let is_short = Arc::new(AtomicBool::new(false));
    (
        Sender { queue: producer, is_short: is_short.clone(), receiver: receiver.clone() },
        Receiver { queue: consumer, is_short, sender: sender.clone() },
    )
}

struct Sender<T> {
    queue: Producer<T>,
    /// The sender has found the channel full, and wants to hear when it is not.
    is_short: Arc<AtomicBool>,
    receiver: Arc<Wake>,
}

impl<T> Sender<T> {
    /// Nothing is kept for a receiver that has ended.
    fn has_room(&self) -> bool {
        !self.queue.is_full() || self.queue.is_abandoned()
    }

    fn push(&mut self, message: T) {
        // Refused only if the receiver has ended: then the message is gone.
        let _ = self.queue.push(message);
    }

    /// Tells the receiver of what was pushed, and of what was not. A sender that sleeps afterwards looks for room
    /// once more before that.
    fn end_turn(&self, has_pushed: bool, has_more: bool) {
        if has_more {
            self.is_short.store(true, Ordering::Relaxed);
        }
        if has_pushed {
            self.receiver.wake();
        }
    }
}

struct Receiver<T> {
    queue: Consumer<T>,
    is_short: Arc<AtomicBool>,
    sender: Arc<Wake>,
}

impl<T> Receiver<T> {
    fn pop(&mut self) -> Option<T> {
        let message = self.queue.pop().ok()?;
        // The sender says that it is short, and then looks for room; we made room, and then look what it says.
        fence(Ordering::SeqCst);
        if self.is_short.load(Ordering::Relaxed) {
            self.is_short.store(false, Ordering::Relaxed);
            // Even one that is awake: it may have said so once more just before that was unsaid, and takes another
            // turn now, in which it says so again.
            self.sender.alarm();
        }
        Some(message)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Messages that wait in one lane. When they do, the sender keeps the rest in its broker, which then
/// holds back the publishers.
pub(super) const LANE_MESSAGES: usize = 16;

#[cfg(test)]
mod tests {
    use std::{os::fd::AsRawFd, thread, time::Duration};

    use super::*;
    use crate::shard::Ring;

    /// A thread's place to sleep.
    struct Bed {
        ring: Ring,
        wake: Arc<Wake>,
    }

    impl Bed {
        fn new(wake: Arc<Wake>) -> Self {
            let mut ring = Ring::new().unwrap();
            ring.watch(wake.as_raw_fd());
            Self { ring, wake }
        }

        /// As a shard does it; but one that is not woken fails.
        fn sleep_unless(&mut self, has_news: impl Fn() -> bool) {
            self.wake.falls_asleep();
            if !has_news() {
                self.ring.wait(Duration::from_secs(10)).unwrap();
                assert!(self.ring.harvest(usize::MAX) > 0, "nobody woke it");
                assert!(self.ring.next_event().is_none());
            }
            self.wake.is_up();
        }
    }

    /// Both ends sleep whenever they can: the receiver at an empty channel, the sender at a full one.
    #[test]
    fn nobody_sleeps_through_a_message_or_through_room_for_one() {
        const MESSAGES: u64 = 300_000;
        let wakes = [(); 2].map(|()| Arc::new(Wake::new().unwrap()));
        let (mut sender, mut receiver) = channel::<u64>(&wakes[0], &wakes[1]);
        let [here, there] = wakes;
        let sending = thread::spawn(move || {
            let (mut bed, mut next) = (Bed::new(here), 0);
            while next < MESSAGES {
                // Bursts of all lengths, some of which fill the channel.
                let (first, until) = (next, (next + next % 40 + 1).min(MESSAGES));
                while next < until && sender.has_room() {
                    sender.push(next);
                    next += 1;
                }
                sender.end_turn(next > first, next < until);
                if next < until {
                    bed.sleep_unless(|| sender.has_room());
                }
            }
        });
        let (mut bed, mut expected) = (Bed::new(there), 0);
        while expected < MESSAGES {
            while let Some(number) = receiver.pop() {
                assert_eq!(number, expected);
                expected += 1;
            }
            if expected < MESSAGES {
                bed.sleep_unless(|| !receiver.is_empty());
            }
        }
        sending.join().unwrap();
    }

    #[test]
    fn a_receiver_that_has_ended_keeps_nobody_waiting() {
        let wakes = [(); 2].map(|()| Arc::new(Wake::new().unwrap()));
        let (mut sender, receiver) = channel::<u64>(&wakes[0], &wakes[1]);
        drop(receiver);
        for number in 0..2 * LANE_MESSAGES as u64 {
            assert!(sender.has_room());
            sender.push(number);
        }
    }
}
