//! The clock of a run: nanoseconds since it started, the same on all threads, and what of it can be
//! told to other processes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts nanoseconds from its start.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    /// The start, in microseconds since 1970.
    start_unix_us: u64,
}

impl Clock {
    /// A clock that shows 0 now.
    pub(crate) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_unix_us: since_1970.as_micros() as u64 }
    }

    /// The clock that another process started at that time, in microseconds since 1970: right as far as
    /// the clocks of the two hosts agree.
    pub(crate) fn since(start_unix_us: u64) -> Self {
        let own = Self::start();
        let age = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
        let behind = age(own.start_unix_us, start_unix_us);
        let start = own.start.checked_sub(age(start_unix_us, own.start_unix_us));
        match start.and_then(|start| start.checked_add(behind)) {
            Some(start) => Self { start, start_unix_us },
            None => own,
        }
    }

    /// When it started, in microseconds since 1970.
    pub(crate) fn start_unix_us(&self) -> u64 {
        self.start_unix_us
    }

    /// Nanoseconds since the start.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// A time of this clock in microseconds since 1970.
    #[inline]
    pub(crate) fn to_unix_us(self, time: u64) -> u64 {
        self.start_unix_us + time / 1000
    }

    /// Microseconds since 1970 as a time of this clock; 0 if it is from before its start.
    #[inline]
    pub(crate) fn of_unix_us(self, unix_us: u64) -> u64 {
        unix_us.saturating_sub(self.start_unix_us) * 1000
    }
}

/// The duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One second (ns).
pub(crate) const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_the_one_shows_that_it_was_set_by() {
        let ours = Clock::start();
        let theirs = Clock::since(ours.start_unix_us() - 5_000_000);
        let ahead = theirs.now().abs_diff(ours.now());
        assert!((4_900_000_000..5_100_000_000).contains(&ahead), "{ahead}");
        assert_eq!(theirs.of_unix_us(ours.start_unix_us()), 5 * SECOND);
        let fast = Clock::since(ours.start_unix_us() + 3_600_000_000);
        assert_eq!(fast.now(), 0, "it starts when the time has come");
    }
}
