//! When each message is meant to be sent: a window of messages on their way (closed loop), or a
//! schedule that does not care how the broker does (open loop).
//!
//! Pure: time is an argument, in nanoseconds since the run's clock started.

/// What sets the pace of the publishers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pace {
    /// Closed loop: at most so many messages of one publisher are on their way to their subscribers.
    Window(u32),
    /// Open loop: so many messages per second, of all publishers together, at even intervals.
    Rate(f64),
}

/// How far each publisher is and how far it may go.
pub(crate) struct Pacer {
    pace: Pace,
    takers: u64,
    publishers: Vec<Progress>,
    /// When the first message may be sent.
    start: u64,
    /// When no further message becomes due. What is due before may be sent later.
    end: u64,
    /// Messages of the schedule that are due so far, of all publishers.
    due: u64,
}

#[derive(Clone, Default)]
struct Progress {
    sent: u64,
    /// Deliveries that have arrived, or that a later one has overtaken.
    settled: u64,
    /// Deliveries that the window no longer waits for; `settled` may be past it.
    given_up: u64,
    settled_at_check: u64,
}

impl Pacer {
    /// For this many publishers, whose messages go to `takers` subscribers each. Nothing is due yet.
    pub(crate) fn new(pace: Pace, publishers: u32, takers: u64) -> Self {
        let publishers = vec![Progress::default(); publishers as usize];
        Self { pace, takers, publishers, start: 0, end: 0, due: 0 }
    }

    /// Messages become due from `start` on, and before `end`.
    pub(crate) fn start(&mut self, start: u64, end: u64) {
        (self.start, self.end) = (start, end);
    }

    /// Nothing more becomes due.
    pub(crate) fn stop(&mut self, now: u64) {
        self.end = self.end.min(now);
    }

    /// Calls `is_due` with each publisher whose turn in the schedule has come since the last call.
    pub(crate) fn release(&mut self, now: u64, mut is_due: impl FnMut(u32)) {
        let publishers = self.publishers.len() as u64;
        while self.next_due().is_some_and(|due| due <= now) {
            is_due((self.due % publishers) as u32);
            self.due += 1;
        }
    }

    /// When the schedule goes on; `None` if there is none or it is at its end.
    pub(crate) fn next_due(&self) -> Option<u64> {
        match self.pace {
            Pace::Window(_) => None,
            Pace::Rate(rate) => Some(self.time_of(self.due, rate)).filter(|due| *due < self.end),
        }
    }

    /// When the publisher's next message was meant to be sent, unless that time has not come.
    pub(crate) fn intended(&self, publisher: u32, now: u64) -> Option<u64> {
        let progress = &self.publishers[publisher as usize];
        match self.pace {
            Pace::Window(window) => {
                let room = u64::from(window - 1) * self.takers;
                (now < self.end && self.on_their_way(progress) <= room).then_some(now)
            }
            Pace::Rate(rate) => {
                let place = progress.sent * self.publishers.len() as u64 + u64::from(publisher);
                (place < self.due).then(|| self.time_of(place, rate))
            }
        }
    }

    /// Counts a message as sent and returns its sequence number, from 0.
    pub(crate) fn sent(&mut self, publisher: u32) -> u64 {
        let progress = &mut self.publishers[publisher as usize];
        progress.sent += 1;
        progress.sent - 1
    }

    /// Whether there is such a message.
    pub(crate) fn has_sent(&self, publisher: u32, sequence: u64) -> bool {
        self.publishers.get(publisher as usize).is_some_and(|one| sequence < one.sent)
    }

    /// So many deliveries of the publisher's messages need no more waiting for.
    pub(crate) fn settled(&mut self, publisher: u32, deliveries: u64) {
        self.publishers[publisher as usize].settled += deliveries;
    }

    /// Deliveries of sent messages that are still to come.
    pub(crate) fn unsettled(&self) -> u64 {
        self.publishers.iter().map(|one| one.sent * self.takers - one.settled).sum()
    }

    /// Messages of the schedule that are due and have not been sent.
    pub(crate) fn unsent(&self) -> u64 {
        match self.pace {
            Pace::Window(_) => 0,
            Pace::Rate(_) => self.due - self.publishers.iter().map(|one| one.sent).sum::<u64>(),
        }
    }

    /// Called about once a second: opens the window of publishers for which nothing has arrived since
    /// the last call. Their messages may be lost (QoS 0), and would hold the window for ever.
    pub(crate) fn give_up_stalled(&mut self, mut is_open: impl FnMut(u32)) {
        for (number, progress) in self.publishers.iter_mut().enumerate() {
            if progress.settled == progress.settled_at_check {
                progress.given_up = progress.sent * self.takers;
                is_open(number as u32);
            }
            progress.settled_at_check = progress.settled;
        }
    }

    fn on_their_way(&self, progress: &Progress) -> u64 {
        progress.sent * self.takers - progress.settled.max(progress.given_up)
    }

    fn time_of(&self, place: u64, rate: f64) -> u64 {
        self.start + (place as f64 / rate * 1e9) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn a_window_opens_when_all_takers_have_a_message() {
        let mut pacer = Pacer::new(Pace::Window(2), 1, 3);
        assert_eq!(pacer.intended(0, 0), None, "not started");
        pacer.start(5, 10);
        for sequence in 0..2 {
            assert_eq!(pacer.intended(0, 5), Some(5));
            assert_eq!(pacer.sent(0), sequence);
        }
        pacer.settled(0, 2);
        assert_eq!((pacer.intended(0, 6), pacer.unsettled()), (None, 4));
        pacer.settled(0, 1);
        assert_eq!(pacer.intended(0, 7), Some(7));
        assert!(pacer.has_sent(0, 1) && !pacer.has_sent(0, 2) && !pacer.has_sent(1, 0));
        assert_eq!((pacer.next_due(), pacer.intended(0, 10)), (None, None));
    }

    #[test]
    fn a_stalled_window_opens_once_and_late_deliveries_do_not_widen_it() {
        let mut pacer = Pacer::new(Pace::Window(1), 2, 1);
        pacer.start(0, 10);
        pacer.sent(0);
        pacer.sent(1);
        pacer.settled(1, 1);
        let mut open = Vec::new();
        pacer.give_up_stalled(|publisher| open.push(publisher));
        assert_eq!(open, [0]);
        assert!(pacer.intended(0, 1).is_some());
        pacer.sent(0);
        // The first message arrives after all.
        pacer.settled(0, 1);
        assert_eq!((pacer.intended(0, 2), pacer.unsettled()), (None, 1));
    }

    #[test]
    fn a_schedule_keeps_its_times_however_late_it_is_served() {
        let mut pacer = Pacer::new(Pace::Rate(1000.0), 2, 1);
        pacer.start(10 * MILLI, 16 * MILLI);
        assert_eq!((pacer.next_due(), pacer.intended(0, 0)), (Some(10 * MILLI), None));
        let mut due = Vec::new();
        pacer.release(14 * MILLI, |publisher| due.push(publisher));
        assert_eq!((due.as_slice(), pacer.next_due()), (&[0, 1, 0, 1, 0][..], Some(15 * MILLI)));
        let mut intended = Vec::new();
        while let Some(at) = pacer.intended(0, 14 * MILLI) {
            intended.push(at / MILLI);
            pacer.sent(0);
        }
        assert_eq!(intended, [10, 12, 14]);
        assert_eq!(pacer.intended(1, 99 * MILLI), Some(11 * MILLI));
        pacer.release(99 * MILLI, |_| ());
        assert_eq!((pacer.next_due(), pacer.unsent(), pacer.unsettled()), (None, 3, 3));
    }

    #[test]
    fn what_was_due_before_a_stop_is_still_sent() {
        let mut pacer = Pacer::new(Pace::Rate(1000.0), 1, 1);
        pacer.start(0, 1000 * MILLI);
        pacer.stop(3 * MILLI);
        pacer.release(500 * MILLI, |_| ());
        assert_eq!((pacer.unsent(), pacer.next_due()), (3, None));
        assert_eq!(pacer.intended(0, 500 * MILLI), Some(0));
    }
}
