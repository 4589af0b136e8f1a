//! How fast something may happen: so much a second, and at once what a bounded time would have brought.
//!
//! A token bucket that ticks nowhere: all there is of it is the time up to which everything is spent.

use super::Time;

/// So much a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    per_sec: u64,
    burst_nanos: u64,
}

/// What has been spent of a pace: the time, in nanoseconds, up to which it is. By default nothing is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Spent(pub u64);

impl Pace {
    /// So much a second, and at once what comes together in `burst_millis`; `None` for 0, which is no bound.
    pub fn new(per_sec: u64, burst_millis: u64) -> Option<Self> {
        let burst_nanos = burst_millis.saturating_mul(NANOS_PER_MILLI);
        (per_sec > 0).then_some(Self { per_sec, burst_nanos })
    }

    /// When so many units may be spent, unless they may be now. Of more than a burst is, that is when a whole
    /// burst is there: the rest is owed.
    pub fn due(self, spent: Spent, now: Time, units: u64) -> Option<Time> {
        let wanted = self.nanos(units).min(self.burst_nanos);
        let at = spent.0.saturating_add(wanted).saturating_sub(self.burst_nanos);
        (at > nanos(now)).then(|| Time::from_millis(at.div_ceil(NANOS_PER_MILLI)))
    }

    /// What is spent after so many units more. What is owed afterwards is owed for a minute at most.
    #[must_use]
    pub fn spend(self, spent: Spent, now: Time, units: u64) -> Spent {
        let now = nanos(now);
        let bound = now.saturating_add(self.burst_nanos).saturating_add(DEBT_NANOS_MAX);
        Spent(spent.0.max(now).saturating_add(self.nanos(units)).min(bound))
    }

    fn nanos(self, units: u64) -> u64 {
        let nanos = u128::from(units) * u128::from(NANOS_PER_SEC) / u128::from(self.per_sec);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Spent {
    /// Whether nothing is spent any more at that time.
    pub fn is_over(self, now: Time) -> bool {
        self.0 <= nanos(now)
    }
}

fn nanos(time: Time) -> u64 {
    time.as_millis().saturating_mul(NANOS_PER_MILLI)
}

const NANOS_PER_SEC: u64 = 1_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;
const DEBT_NANOS_MAX: u64 = 60 * NANOS_PER_SEC;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(1_700_000_000_000 + millis)
    }

    /// How many single units pass at each of these times, asked for as long as they do.
    fn passing(pace: Pace, times: &[u64]) -> Vec<u32> {
        let mut spent = Spent::default();
        let mut all_at = |millis: &u64| {
            let mut count = 0;
            while pace.due(spent, at(*millis), 1).is_none() {
                spent = pace.spend(spent, at(*millis), 1);
                count += 1;
            }
            count
        };
        times.iter().map(&mut all_at).collect()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_so_many_a_second() {
        let pace = |per_sec, burst| Pace::new(per_sec, burst).unwrap();
        assert_eq!(passing(pace(3, 1000), &[0, 333, 334, 1000, 9000]), [3, 0, 1, 2, 3]);
        assert_eq!(passing(pace(1000, 100), &[0, 1, 50, 1050]), [100, 1, 49, 100]);
        // A burst of less than one unit still lets one through.
        assert_eq!(passing(pace(2, 100), &[0, 499, 500, 1000]), [1, 0, 1, 1]);
        assert_eq!(Pace::new(0, 1000), None);
    }

    #[test]
    fn what_is_larger_than_a_burst_waits_for_a_whole_one_and_is_owed_for_a_minute_at_most() {
        let pace = Pace::new(1000, 1000).unwrap();
        let spent = pace.spend(Spent::default(), at(0), 5000);
        assert_eq!(pace.due(spent, at(0), 1), Some(at(4001)));
        assert_eq!(pace.due(spent, at(0), 9000), Some(at(5000)));
        assert_eq!(pace.due(spent, at(5000), 9000), None);
        let spent = pace.spend(spent, at(5000), u64::MAX);
        assert_eq!(pace.due(spent, at(5000), u64::MAX), Some(at(66_000)));
        assert!(!spent.is_over(at(65_999)) && spent.is_over(at(66_000)));
    }
}
