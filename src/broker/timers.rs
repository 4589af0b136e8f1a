//! Deadlines of connections and sessions, at most one for each, and of the search for expired
//! retained messages: setting it again replaces it, so their number is bounded by what they are about.
//!
//! An ordered set rather than a wheel of slots: nothing ticks while nothing is
//! due, an expiry of years costs what one of seconds does, and a deadline is
//! taken back exactly. It is not on the path of a packet: packets note the time
//! they came, and a keep-alive deadline that was outlived is set anew when it fires.

use std::collections::BTreeSet;

use crate::base::{ConnId, SessionKey, Time};

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// CONNECT did not come in time, or the keep-alive passed.
    Connection { slot: u32, generation: u32 },
    /// A will is due or the session expires.
    Session(SessionKey),
    /// Retained messages may have expired.
    Sweep,
}

impl From<ConnId> for Timer {
    fn from(id: ConnId) -> Self {
        Self::Connection { slot: id.slot, generation: id.generation }
    }
}

/// The deadlines of one shard.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Time, Timer)>);

impl Timers {
    /// Moves a timer from where `set_at` says it is to `at`.
    pub(super) fn set(&mut self, timer: Timer, set_at: &mut Option<Time>, at: Option<Time>) {
        if *set_at == at {
            return;
        }
        if let Some(old) = *set_at {
            self.0.remove(&(old, timer));
        }
        if let Some(new) = at {
            self.0.insert((new, timer));
        }
        *set_at = at;
    }

    /// Takes out the earliest timer that is due.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let (at, _) = self.0.first()?;
        if *at > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }

    /// When the earliest timer is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_set_once() {
        let timer = Timer::from(ConnId { slot: 1, generation: 0 });
        let at = |millis| Some(Time::from_millis(millis));
        let mut timers = Timers::default();
        let mut set_at = None;
        for millis in [50, 10, 30] {
            timers.set(timer, &mut set_at, at(millis));
        }
        assert_eq!((timers.next(), set_at), (at(30), at(30)));
        assert_eq!(timers.pop_due(Time::from_millis(29)), None);
        assert_eq!(timers.pop_due(Time::from_millis(30)), Some(timer));
        assert_eq!(timers.next(), None);
    }
}
