//! What the conductor tells the threads, and what they tell it. The same goes over the wire to the
//! threads of other workers, so times are in microseconds since 1970.

use serde::{Deserialize, Serialize};

use crate::{
    machine::Usage,
    record::{Latency, Tally},
};

/// An order to a thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Connect these clients; those that subscribe are subscribed when they are ready.
    Connect { whom: Whom, at_unix_us: u64 },
    /// Publish. What was meant to be sent between `measure_unix_us` and `end_unix_us` is measured.
    Load { start_unix_us: u64, measure_unix_us: u64, end_unix_us: u64 },
    /// Start nothing new; report the [`Standing`] as it changes.
    Drain,
    /// Disconnect the subscribers.
    Part,
    /// Disconnect everybody, and end.
    Leave,
    /// Another thread of this process has opened the windows of these publishers.
    MayPublish(Vec<u32>),
}

/// Some of the clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Whom {
    Everybody,
    Publishers,
    Subscribers,
}

/// What a thread has to tell.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum News {
    /// All clients that were to connect, or to part, have.
    Ready,
    /// Every message was sent that the scenario has, or its time is over.
    Published,
    /// What happened in about the last second.
    Second(Box<ThreadSecond>),
    /// How much is still to come.
    Standing(Standing),
    /// Something broke. The thread reports nothing more but its end.
    Failed(String),
    /// The thread has ended.
    Ended(Box<Tally>),
    /// What the thread's process uses, if that is another worker's.
    Usage(Usage),
    /// Ctrl-C at another worker.
    Interrupted,
}

/// About a second of one thread's life.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ThreadSecond {
    /// So far.
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    /// In this second.
    pub(crate) latency: Latency,
}

/// How far a thread is with what it sent and what it waits for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Deliveries, at any thread, of what this one has sent.
    pub(crate) expected: u64,
    /// Deliveries that arrived at this thread, each counted once.
    pub(crate) delivered: u64,
    /// Messages that are due or without their last acknowledgement.
    pub(crate) unacknowledged: u64,
}
