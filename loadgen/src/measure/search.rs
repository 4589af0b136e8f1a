//! The search for the highest rate that a broker serves in time. Knows a rate's run only by its result.

use super::MeasureError;
use crate::{
    result::{INTERRUPTED, LatencyName, RunResult},
    scenario::Search,
};

/// What a search has found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Highest {
    /// The highest rate in time, if there was one.
    pub(crate) rate: Option<f64>,
    /// The next one was too much for the generator: the broker may serve more.
    pub(crate) was_generators_limit: bool,
}

/// Doubles the rate until it is too high, then halves the gap. Finds nothing if the user has put an end
/// to it.
pub(super) fn find_highest(
    search: Search,
    one_rate: &mut dyn FnMut(f64) -> Result<RunResult, MeasureError>,
    results: &mut Vec<RunResult>,
) -> Result<Option<Highest>, MeasureError> {
    let (mut good, mut bad, mut rate) = (0.0, f64::INFINITY, search.from);
    let mut was_generators_limit = false;
    for _ in 0..SEARCH_RUNS_MAX {
        let result = one_rate(rate)?;
        // A rate that is far too high may fail, which is an answer too.
        let go_on = result.ended != INTERRUPTED;
        if is_in_time(&result, search.p99_us_max) {
            good = rate;
        } else {
            bad = rate;
            was_generators_limit = result.generator.was_the_limit;
        }
        results.push(result);
        if !go_on {
            return Ok(None);
        }
        let is_found = bad.is_finite() && bad - good <= bad * SEARCH_PRECISION;
        if is_found || bad < SEARCH_RATE_MIN {
            break;
        }
        rate = if bad.is_infinite() { good * 2.0 } else { f64::midpoint(good, bad) };
    }
    Ok(Some(Highest { rate: Some(good).filter(|good| *good > 0.0), was_generators_limit }))
}

/// Whether the broker kept up: in time, and with nothing missing.
pub(crate) fn is_in_time(result: &RunResult, p99_us_max: u64) -> bool {
    let p99 = result.latency_us.get(&LatencyName::PublishToDelivery).map(|latency| latency.p99);
    let whole = result.whole_run;
    result.is_complete()
        && p99.is_some_and(|p99| p99 <= p99_us_max)
        && result.violations.is_empty()
        && whole.lost + whole.unsent == 0
        && !result.generator.was_the_limit
}

/// A search ends when the gap between a good and a bad rate is this part of it, or after that many runs.
const SEARCH_PRECISION: f64 = 0.05;
const SEARCH_RUNS_MAX: usize = 40;

/// A broker that cannot do this much cannot do anything.
const SEARCH_RATE_MIN: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::samples,
        measure::not_measured,
        result::{COMPLETE, LatencyResult},
        scenario::{self, Overrides},
    };

    #[test]
    fn a_search_doubles_until_it_is_too_much_and_then_closes_in() {
        for (limit, found) in [(3700.0, 3500.0..=3700.0), (100.0, 93.0..=100.0), (0.5, 0.0..=0.5)] {
            let mut rates = Vec::new();
            let mut one_rate = |rate: f64| {
                rates.push(rate);
                Ok(sample(rate <= limit))
            };
            let search = Search { from: 100.0, p99_us_max: 1000 };
            let mut results = Vec::new();
            let highest = find_highest(search, &mut one_rate, &mut results).unwrap().unwrap();
            assert!(results.len() < 16, "{rates:?}");
            assert!(found.contains(&highest.rate.unwrap_or(0.0)), "{rates:?}");
            assert!(!highest.was_generators_limit);
        }
    }

    #[test]
    fn a_search_tells_if_the_generator_ended_it_and_nothing_if_the_user_did() {
        for (limit, ended, expected) in [
            (true, COMPLETE, Some(Highest { rate: None, was_generators_limit: true })),
            (false, INTERRUPTED, None),
        ] {
            let mut one_rate = |_| {
                let mut result = sample(true);
                result.generator.was_the_limit = limit;
                result.ended = ended.to_owned();
                Ok(result)
            };
            let search = Search { from: 2.0, p99_us_max: 1000 };
            let found = find_highest(search, &mut one_rate, &mut Vec::new()).unwrap();
            assert_eq!(found, expected);
        }
    }

    /// A result in time, or too late.
    fn sample(in_time: bool) -> RunResult {
        let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
        histogram.record(if in_time { 900 } else { 1100 }).unwrap();
        let scenario = scenario::load("p2p", &Overrides::default()).unwrap();
        let mut result = not_measured(&scenario, &samples::target("broker"), "");
        result.ended = COMPLETE.to_owned();
        result.latency_us.insert(LatencyName::PublishToDelivery, LatencyResult::new(&histogram));
        result
    }
}
