//! The search for expired retained messages: their memory is not kept until somebody asks for them.
//!
//! A pass over the whole store, a portion at a time, begins when the first of them may have expired.
//! While none has an expiry, or none is due, nothing is armed and nothing is looked at.

use crate::{
    base::{Time, limits},
    topic::Cursor,
};

use super::{Broker, timers::Timer};

/// What is known of the expiry of one shard's retained messages.
#[derive(Debug)]
pub(super) struct Sweep {
    /// None of the stored messages expires before.
    earliest: Time,
    /// The same for those that the pass under way has left in the store, and for new ones.
    earliest_left: Time,
    /// Where the pass under way goes on, if one is.
    position: Option<Cursor>,
    /// When the timer is set to.
    timer_at: Option<Time>,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { earliest: Time::MAX, earliest_left: Time::MAX, position: None, timer_at: None }
    }
}

impl Sweep {
    /// Takes note of a message that is stored.
    fn note(&mut self, expires_at: Time) {
        self.earliest = self.earliest.min(expires_at);
        self.earliest_left = self.earliest_left.min(expires_at);
    }

    /// Takes note of the end of a portion.
    fn portion_done(&mut self, next: Option<Cursor>) {
        self.position = next;
        if self.position.is_none() {
            self.earliest = self.earliest_left;
        }
    }

    /// When the next portion is to be looked at.
    fn next_at(&self, now: Time) -> Option<Time> {
        let soon = now.plus_millis(limits::RETAINED_SWEEP_MILLIS);
        match self.position {
            Some(_) => Some(soon),
            None => (self.earliest < Time::MAX).then(|| self.earliest.max(soon)),
        }
    }
}

impl Broker {
    /// Takes note of a retained message that is stored here.
    pub(super) fn note_retained_expiry(&mut self, expires_at: Option<Time>) {
        let Some(expires_at) = expires_at else { return };
        self.sweep.note(expires_at);
        // Not later than it is set to: messages that keep coming must not put it off.
        let at = [self.sweep.timer_at, self.sweep.next_at(self.now)].into_iter().flatten().min();
        self.timers.set(Timer::Sweep, &mut self.sweep.timer_at, at);
    }

    /// The timer of the search: looks through one portion.
    pub(super) fn sweep_timer(&mut self) {
        self.sweep.timer_at = None;
        self.sweep_retained();
    }

    /// Looks through a portion of the retained messages and removes those that have expired, if any
    /// can have.
    pub(super) fn sweep_retained(&mut self) {
        if self.sweep.earliest > self.now {
            return;
        }
        let after = self.sweep.position.take();
        if after.is_none() {
            self.sweep.earliest_left = Time::MAX;
        }
        let (mut expired, mut left) = (Vec::new(), Time::MAX);
        let visits = limits::RETAINED_SWEEP_VISITS;
        let next = self.retained.page_of_all(after.as_ref(), visits, &mut |found| match found
            .publication
            .expires_at()
        {
            Some(at) if at <= self.now => expired.push(found.publication.clone()),
            Some(at) => left = left.min(at),
            None => {}
        });
        self.remove_retained(&expired);
        self.sweep.earliest_left = self.sweep.earliest_left.min(left);
        self.sweep.portion_done(next);
        let at = self.sweep.next_at(self.now);
        self.timers.set(Timer::Sweep, &mut self.sweep.timer_at, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{OfTopic, Retained};

    impl OfTopic for &str {
        fn topic(&self) -> &str {
            self
        }
    }

    const fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// A place within a pass.
    fn cursor() -> Option<Cursor> {
        let mut retained = Retained::new(1);
        for topic in ["a", "b"] {
            retained.set(topic);
        }
        retained.page_of_all(None, 1, &mut |_| {})
    }

    #[test]
    fn nothing_is_armed_without_an_expiry() {
        assert_eq!(Sweep::default().next_at(at(5)), None);
    }

    #[test]
    fn a_pass_begins_with_the_first_expiry_and_goes_on_once_a_second() {
        let mut sweep = Sweep::default();
        sweep.note(at(9_000));
        sweep.note(at(7_000));
        sweep.note(at(8_000));
        assert_eq!(sweep.next_at(at(0)), Some(at(7_000)));
        assert_eq!(sweep.next_at(at(6_500)), Some(at(7_500)), "not more than once a second");
        // A pass in two portions finds one that stays, and one is stored meanwhile.
        sweep.earliest_left = at(9_000);
        sweep.portion_done(cursor());
        assert_eq!(sweep.next_at(at(7_000)), Some(at(8_000)));
        sweep.note(at(20_000));
        sweep.portion_done(None);
        assert_eq!(sweep.next_at(at(7_500)), Some(at(9_000)));
        // The next pass finds nothing that expires.
        sweep.earliest_left = Time::MAX;
        sweep.portion_done(None);
        assert_eq!(sweep.next_at(at(9_000)), None);
    }
}
