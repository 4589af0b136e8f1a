//! Sends that come to no end because the client does not read: looked at now and then, while any send is in progress.
//! What follows from it, the broker decides.

use super::Shard;
use crate::{base::Time, config::Policy};

/// When to look.
#[derive(Debug)]
pub(super) struct StallWatch {
    /// Time between two looks, if any listener bounds how long a send may take.
    period_millis: Option<u64>,
    next: Option<Time>,
}

impl StallWatch {
    pub(super) fn new(policy: &Policy) -> Self {
        let bounds = policy.listeners.iter().map(|listener| listener.output_stalled_secs_max);
        let shortest = bounds.filter(|secs| *secs > 0).min();
        let period_millis = shortest.map(|secs| u64::from(secs) * 1000 / u64::from(LOOKS));
        Self { period_millis, next: None }
    }

    /// A send has begun.
    pub(super) fn note_send(&mut self, now: Time) {
        if self.next.is_none() {
            self.next = self.period_millis.map(|millis| now.plus_millis(millis));
        }
    }

    /// When the next look is due, if there is something to look at.
    pub(super) const fn deadline(&self) -> Option<Time> {
        self.next
    }
}

impl Shard {
    /// Tells the broker of the connections that have taken nothing for long.
    pub(super) fn look_for_stalls(&mut self) {
        let Some(period_millis) = self.stalls.period_millis else { return };
        if self.stalls.next.is_none_or(|next| next > self.now) {
            return;
        }
        for (conn, looks) in self.ring.look_at_sends(LOOKS) {
            self.broker.stalled(self.now, conn, u64::from(looks) * period_millis / 1000);
        }
        self.apply_effects();
        self.stalls.next = None;
        if self.ring.is_sending() {
            self.stalls.note_send(self.now);
        }
    }
}

/// Looks within the shortest time that is bounded; it may pass by one of them.
const LOOKS: u32 = 4;
