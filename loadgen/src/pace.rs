//! When each message is meant to be sent: a window of messages on their way (closed loop), or a
//! schedule that does not care how the broker does (open loop).
//!
//! One pacer a thread, for the publishers of that thread. Pure: time is an argument, in nanoseconds
//! since the run's clock started; chance comes from a seed.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    clock::SECOND,
    scenario::{Pace, Rate},
};

/// Deliveries of each publisher's messages that have arrived, or that a later one has overtaken.
///
/// Shared by the threads: subscribers of one add to it, publishers of another wait for it.
#[derive(Clone)]
pub(crate) struct Settled(Arc<[AtomicU64]>);

impl Settled {
    /// Of so many publishers.
    pub(crate) fn new(publishers: u32) -> Self {
        Self((0..publishers).map(|_| AtomicU64::new(0)).collect())
    }

    /// So many deliveries need no more waiting for.
    #[inline]
    pub(crate) fn add(&self, publisher: u32, deliveries: u64) {
        // Only a count: no other memory depends on it.
        self.0[publisher as usize].fetch_add(deliveries, Ordering::Relaxed);
    }

    fn of(&self, publisher: u32) -> u64 {
        self.0[publisher as usize].load(Ordering::Relaxed)
    }
}

/// How far each publisher of a thread is and how far it may go. Publishers are named by their place on
/// the thread.
pub(crate) struct Pacer {
    pace: Pace,
    publishers: Vec<Progress>,
    /// The publishers of all threads together.
    of_all: u32,
    settled: Settled,
    /// When the windows open for the first time; `None` if they have.
    opens: Option<u64>,
    schedule: Option<Schedule>,
    /// When no further message becomes due. What is due before may be sent later.
    end: u64,
    /// Messages of the schedule that are due and have not been sent.
    backlog: usize,
}

/// What one publisher is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duty {
    /// Its number among the publishers of all threads.
    pub(crate) publisher: u32,
    /// How many it sends at most. Of two publishers the one with the smaller number has as many as the
    /// other, or more.
    pub(crate) messages: u64,
    /// Deliveries of each message that a window waits for.
    pub(crate) awaited: u64,
}

struct Progress {
    duty: Duty,
    sent: u64,
    /// Deliveries that the window no longer waits for; more may have been settled.
    given_up: u64,
    settled_at_check: u64,
    /// When messages that are due were meant to be sent.
    due: VecDeque<u64>,
    /// The first of them has had to wait for the broker.
    held: bool,
}

impl Pacer {
    /// For the publishers of one thread. Nothing is due yet.
    pub(crate) fn new(pace: Pace, duties: impl Iterator<Item = Duty>, settled: Settled) -> Self {
        let publishers = duties.map(|duty| Progress {
            duty,
            sent: 0,
            given_up: 0,
            settled_at_check: 0,
            due: VecDeque::new(),
            held: false,
        });
        let publishers = publishers.collect();
        let (opens, schedule) = (None, None);
        Self { pace, publishers, of_all: 0, settled, opens, schedule, end: 0, backlog: 0 }
    }

    /// Messages become due from `start` on, and before `end`. The publishers of all threads together
    /// are `of_all`.
    pub(crate) fn start(&mut self, start: u64, end: u64, of_all: u32, seed: u64) {
        (self.end, self.of_all) = (end, of_all);
        self.opens = matches!(self.pace, Pace::Window(_)).then_some(start);
        if let Pace::Open(rate) = self.pace
            && !self.publishers.is_empty()
        {
            let share = self.publishers.len() as f64 / f64::from(of_all);
            self.schedule = Some(Schedule::new(rate, start, end, share, seed));
            self.find_next();
        }
    }

    /// Nothing more becomes due.
    pub(crate) fn stop(&mut self, now: u64) {
        self.end = self.end.min(now);
    }

    /// Calls `is_due` with each publisher whose turn in the schedule, or whose first window, has come
    /// since the last call.
    pub(crate) fn release(&mut self, now: u64, mut is_due: impl FnMut(usize)) {
        if self.opens.is_some_and(|at| at <= now) {
            self.opens = None;
            (0..self.publishers.len()).for_each(&mut is_due);
        }
        while let Some(due) = self.next_due()
            && due <= now
            && self.backlog < BACKLOG_MAX
        {
            let Some(schedule) = &mut self.schedule else { return };
            let place = (schedule.released % self.publishers.len() as u64) as usize;
            schedule.released += 1;
            self.publishers[place].due.push_back(due);
            self.backlog += 1;
            is_due(place);
            self.find_next();
        }
    }

    /// When the schedule goes on, or the windows open for the first time; `None` if neither is to come.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let next = self.opens.or_else(|| self.schedule.as_ref()?.next)?;
        (next < self.end).then_some(next)
    }

    /// Whether the broker is so far behind the schedule that there is no sense in going on.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.backlog >= BACKLOG_MAX
    }

    /// When the publisher's next message was meant to be sent, unless that time has not come.
    #[inline]
    pub(crate) fn intended(&self, place: usize, now: u64) -> Option<u64> {
        let progress = &self.publishers[place];
        match self.pace {
            Pace::Window(window) => {
                let room = u64::from(window - 1) * progress.duty.awaited;
                let go = self.opens.is_none()
                    && now < self.end
                    && progress.sent < progress.duty.messages
                    && self.on_their_way(progress) <= room;
                go.then_some(now)
            }
            Pace::Open(_) | Pace::Search(_) => progress.due.front().copied(),
        }
    }

    /// The publisher's next message, which is due, has to wait for the broker.
    pub(crate) fn hold(&mut self, place: usize) {
        self.publishers[place].held = true;
    }

    /// Counts a message as sent. Returns its sequence number, from 0, and whether it had to wait for
    /// the broker.
    #[inline]
    pub(crate) fn sent(&mut self, place: usize) -> (u64, bool) {
        let progress = &mut self.publishers[place];
        let was_held = progress.held;
        if progress.due.pop_front().is_some() {
            self.backlog -= 1;
            progress.held &= !progress.due.is_empty();
        } else {
            progress.held = false;
        }
        progress.sent += 1;
        (progress.sent - 1, was_held)
    }

    /// Deliveries expected of everything sent, where each message has as many as `takers` says.
    pub(crate) fn expected(&self, takers: impl Fn(u32) -> u64) -> u64 {
        self.publishers.iter().map(|one| one.sent * takers(one.duty.publisher)).sum()
    }

    /// Messages of the schedule that are due and have not been sent.
    pub(crate) fn unsent(&self) -> u64 {
        self.backlog as u64
    }

    /// Whether every publisher has sent all of its messages.
    pub(crate) fn is_finished(&self) -> bool {
        self.publishers.iter().all(|one| one.sent >= one.duty.messages)
    }

    /// Called about once a second: opens the window of publishers for which nothing has arrived since
    /// the last call. Their messages may be lost (QoS 0), and would hold the window for ever.
    pub(crate) fn give_up_stalled(&mut self, mut is_open: impl FnMut(usize)) {
        for (place, progress) in self.publishers.iter_mut().enumerate() {
            let settled = self.settled.of(progress.duty.publisher);
            if settled == progress.settled_at_check {
                progress.given_up = progress.sent * progress.duty.awaited;
                is_open(place);
            }
            progress.settled_at_check = settled;
        }
    }

    fn on_their_way(&self, progress: &Progress) -> u64 {
        let settled = self.settled.of(progress.duty.publisher).max(progress.given_up);
        (progress.sent * progress.duty.awaited).saturating_sub(settled)
    }

    fn find_next(&mut self) {
        let Some(schedule) = &mut self.schedule else { return };
        let publishers = self.publishers.len() as u64;
        let (round, place) = (schedule.released / publishers, schedule.released % publishers);
        let duty = self.publishers[place as usize].duty;
        // Those behind one that has sent all have sent all too.
        schedule.next = if round < duty.messages {
            schedule.time_of(round * u64::from(self.of_all) + u64::from(duty.publisher))
        } else {
            None
        };
    }
}

/// The times at which messages are due.
struct Schedule {
    rate: Rate,
    start: u64,
    end: u64,
    /// This thread's part of all publishers.
    share: f64,
    /// Messages of this thread that are due so far.
    released: u64,
    next: Option<u64>,
    last: u64,
    random: Random,
}

impl Schedule {
    fn new(rate: Rate, start: u64, end: u64, share: f64, seed: u64) -> Self {
        let random = Random(seed);
        Self { rate, start, end, share, released: 0, next: None, last: start, random }
    }

    /// When the message at this place in the order of all threads is due; `None` if it never is.
    fn time_of(&mut self, place: u64) -> Option<u64> {
        let place = place as f64;
        let secs = match self.rate {
            Rate::Fixed(rate) => place / rate,
            Rate::Ramp { from, to } => {
                let length = (self.end - self.start) as f64 / SECOND as f64;
                let slope = (to - from) / length;
                if slope == 0.0 {
                    place / from
                } else {
                    // The messages due until `t` are from * t + slope / 2 * t^2.
                    let root = (from * from + 2.0 * slope * place).sqrt();
                    (root - from) / slope
                }
            }
            Rate::Poisson(rate) => {
                // Gaps of the thread's own part: the parts add up to one of the whole rate.
                let gap = -self.random.unit().ln() / (rate * self.share);
                self.last += (gap * SECOND as f64) as u64;
                return Some(self.last);
            }
        };
        secs.is_finite().then(|| self.start + (secs * SECOND as f64) as u64)
    }
}

/// SplitMix64: enough for gaps between messages.
struct Random(u64);

impl Random {
    /// Above 0, up to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// Messages that are due on one thread and cannot be sent, of all its publishers. Then the run ends.
const BACKLOG_MAX: usize = 16_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn pacer(pace: Pace, publishers: u32, awaited: u64) -> (Pacer, Settled) {
        let settled = Settled::new(publishers);
        let duties = (0..publishers).map(|publisher| duty(publisher, u64::MAX, awaited));
        (Pacer::new(pace, duties, settled.clone()), settled)
    }

    fn duty(publisher: u32, messages: u64, awaited: u64) -> Duty {
        Duty { publisher, messages, awaited }
    }

    #[test]
    fn a_window_opens_when_all_takers_have_a_message() {
        let (mut pacer, settled) = pacer(Pace::Window(2), 1, 3);
        assert_eq!(pacer.intended(0, 0), None, "not started");
        pacer.start(5, 10, 1, 0);
        pacer.release(4, |_| panic!("not yet"));
        assert_eq!((pacer.next_due(), pacer.intended(0, 4)), (Some(5), None));
        let mut open = Vec::new();
        pacer.release(5, |place| open.push(place));
        assert_eq!(open, [0]);
        for sequence in 0..2 {
            assert_eq!(pacer.intended(0, 5), Some(5));
            assert_eq!(pacer.sent(0), (sequence, false));
        }
        settled.add(0, 2);
        assert_eq!((pacer.intended(0, 6), pacer.expected(|_| 3)), (None, 6));
        settled.add(0, 1);
        assert_eq!(pacer.intended(0, 7), Some(7));
        assert_eq!((pacer.next_due(), pacer.intended(0, 10)), (None, None));
    }

    #[test]
    fn a_stalled_window_opens_once_and_late_deliveries_do_not_widen_it() {
        let (mut pacer, settled) = pacer(Pace::Window(1), 2, 1);
        pacer.start(0, 10, 2, 0);
        pacer.release(0, |_| ());
        pacer.sent(0);
        pacer.sent(1);
        settled.add(1, 1);
        let mut open = Vec::new();
        pacer.give_up_stalled(|publisher| open.push(publisher));
        assert_eq!(open, [0]);
        assert!(pacer.intended(0, 1).is_some());
        pacer.sent(0);
        // The first message arrives after all.
        settled.add(0, 1);
        assert_eq!(pacer.intended(0, 2), None);
    }

    #[test]
    fn a_schedule_keeps_its_times_however_late_it_is_served() {
        let (mut pacer, _) = pacer(Pace::Open(Rate::Fixed(1000.0)), 2, 1);
        pacer.start(10 * MILLI, 16 * MILLI, 2, 0);
        assert_eq!((pacer.next_due(), pacer.intended(0, 0)), (Some(10 * MILLI), None));
        let mut due = Vec::new();
        pacer.release(14 * MILLI, |publisher| due.push(publisher));
        assert_eq!((due.as_slice(), pacer.next_due()), (&[0, 1, 0, 1, 0][..], Some(15 * MILLI)));
        pacer.hold(0);
        let mut intended = Vec::new();
        while let Some(at) = pacer.intended(0, 14 * MILLI) {
            intended.push((at / MILLI, pacer.sent(0).1));
        }
        assert_eq!(intended, [(10, true), (12, true), (14, true)], "they waited for the broker");
        assert_eq!(pacer.intended(1, 99 * MILLI), Some(11 * MILLI));
        pacer.release(99 * MILLI, |_| ());
        assert_eq!((pacer.next_due(), pacer.unsent()), (None, 3));
        assert_eq!(pacer.sent(1), (0, false));
    }

    #[test]
    fn two_threads_share_one_schedule() {
        let mut all = Vec::new();
        for thread in 0..2 {
            let duties = (thread..5).step_by(2).map(|publisher| duty(publisher, u64::MAX, 1));
            let rate = Pace::Open(Rate::Fixed(1000.0));
            let mut pacer = Pacer::new(rate, duties, Settled::new(5));
            pacer.start(0, 20 * MILLI, 5, 0);
            while let Some(due) = pacer.next_due() {
                all.push(due / MILLI);
                pacer.release(due, |_| ());
            }
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..20));
    }

    #[test]
    fn a_ramp_has_the_mean_rate_and_grows() {
        let (mut pacer, _) = pacer(Pace::Open(Rate::Ramp { from: 0.0, to: 2000.0 }), 1, 1);
        pacer.start(0, SECOND, 1, 0);
        let mut halves = [0, 0];
        pacer.release(SECOND / 2, |_| halves[0] += 1);
        pacer.release(SECOND, |_| halves[1] += 1);
        assert_eq!(halves, [251, 749], "the first is due at the start");
    }

    #[test]
    fn poisson_gaps_have_the_rate_and_are_uneven() {
        let (mut pacer, _) = pacer(Pace::Open(Rate::Poisson(1000.0)), 4, 1);
        pacer.start(0, 10 * SECOND, 4, 7);
        let (mut count, mut short, mut last) = (0_u32, 0_u32, 0);
        while let Some(due) = pacer.next_due() {
            short += u32::from(due - last < MILLI / 2);
            last = due;
            pacer.release(due, |_| count += 1);
        }
        assert!((9_500..10_500).contains(&count), "{count}");
        // 1 - e^-0.5 of the gaps are shorter than half of the mean.
        assert!((3_600..4_300).contains(&short), "{short}");
    }

    #[test]
    fn each_publisher_ends_after_its_messages() {
        let settled = Settled::new(2);
        for pace in [Pace::Window(5), Pace::Open(Rate::Fixed(1000.0))] {
            let duties = [duty(0, 4, 0), duty(1, 3, 0)].into_iter();
            let mut pacer = Pacer::new(pace, duties, settled.clone());
            pacer.start(0, SECOND, 2, 0);
            pacer.release(SECOND, |_| ());
            let mut sent = 0;
            for place in [0, 1] {
                while pacer.intended(place, 0).is_some() {
                    pacer.sent(place);
                    sent += 1;
                }
            }
            assert_eq!((sent, pacer.is_finished(), pacer.next_due()), (7, true, None));
        }
    }
}
