//! How other threads wake a shard that sleeps in its ring: an eventfd that the ring watches.
//!
//! A shard that runs looks at its lanes each turn anyway, so their senders write only to one that has said
//! that it sleeps. It says so before its last look, and a sender asks after it has sent: one of the two sees
//! the other.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, RawFd},
    sync::atomic::{AtomicBool, Ordering, fence},
};

use super::sys;

/// One shard's end, shared by all threads.
#[derive(Debug)]
pub(crate) struct Wake {
    sleeps: AtomicBool,
    eventfd: File,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { sleeps: AtomicBool::new(false), eventfd: sys::new_eventfd()? })
    }

    /// Wakes the shard if it sleeps: what it is to find is where it looks before it does.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed) {
            self.alarm();
        }
    }

    /// Wakes the shard, or keeps it from falling asleep.
    pub(crate) fn alarm(&self) {
        // Fails only if the counter is full, and then the shard is awake already.
        let _ = (&self.eventfd).write(&1_u64.to_ne_bytes());
    }

    /// The shard is about to sleep: it looks once more behind this.
    pub(super) fn falls_asleep(&self) {
        self.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake.
    pub(super) fn is_up(&self) {
        self.sleeps.store(false, Ordering::Relaxed);
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}
