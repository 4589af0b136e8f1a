//! What the rounds say together: medians, ratios to the first broker, and whether they say anything.

use super::Comparison;
use crate::{
    measure::is_in_time,
    result::{LatencyName, LatencyResult, RunResult},
    scenario::Pace,
    spread::Spread,
};

/// All brokers at one QoS, in the order in which they were named.
pub(crate) struct Figures<'a> {
    pub(crate) columns: Vec<Column<'a>>,
    pub(crate) rounds: u32,
}

/// One broker at one QoS.
pub(crate) struct Column<'a> {
    pub(crate) name: &'a str,
    /// One a round, unless the comparison was cut short.
    pub(crate) runs: Vec<&'a RunResult>,
    /// Rounds whose search ended at a rate that was too much for the generator.
    capped: Vec<u32>,
    pace: Pace,
    rounds: u32,
}

/// Something that runs are compared by.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    /// Of a run, if it has it.
    value: fn(&RunResult) -> Option<f64>,
    /// Whether it says something about the broker, so that a ratio makes sense.
    pub(crate) has_ratio: bool,
}

/// What a comparison is worth; the worst counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verdict {
    Sound,
    /// A broker did what the QoS forbids.
    Violated,
    /// A run is missing, or tells more about the generator.
    NotMeasured,
}

impl<'a> Figures<'a> {
    /// One for each QoS.
    pub(crate) fn of(comparison: &'a Comparison, results: &'a [RunResult]) -> Vec<Self> {
        let of_qos = |qos: u8| {
            let columns = comparison.brokers.iter().map(|broker| {
                let is_own =
                    |run: &&RunResult| run.settings.qos == qos && run.label == broker.name();
                let own: Vec<_> = results.iter().filter(is_own).collect();
                Column::new(broker.name(), &own, comparison.scenario.pace, comparison.rounds)
            });
            Self { columns: columns.collect(), rounds: comparison.rounds }
        };
        comparison.scenario.qos.iter().map(|qos| of_qos(qos.bits())).collect()
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let verdicts = self.columns.iter().map(Column::verdict);
        verdicts.max().unwrap_or(Verdict::NotMeasured)
    }
}

impl<'a> Column<'a> {
    fn new(name: &'a str, own: &[&'a RunResult], pace: Pace, rounds: u32) -> Self {
        let rate = |run: &RunResult| run.settings.rate_per_sec.unwrap_or(0.0);
        let of_round = |round| {
            let mut runs = own.iter().copied().filter(|run| run.round == round);
            let Pace::Search(search) = pace else { return runs.next_back() };
            // The search's runs are those that were in time and those that show the limit.
            let in_time = runs.clone().filter(|run| is_in_time(run, search.p99_us_max));
            in_time.max_by(|a, b| rate(a).total_cmp(&rate(b))).or_else(|| runs.next_back())
        };
        let is_capped = |round: &u32| {
            let Pace::Search(search) = pace else { return false };
            let late =
                own.iter().filter(|run| run.round == *round && !is_in_time(run, search.p99_us_max));
            let lowest = late.min_by(|a, b| rate(a).total_cmp(&rate(b)));
            lowest.is_some_and(|run| run.generator.was_the_limit)
        };
        let capped = (1..=rounds).filter(is_capped).collect();
        Self { name, runs: (1..=rounds).filter_map(of_round).collect(), capped, pace, rounds }
    }

    /// Over the rounds that were completed.
    pub(crate) fn spread(&self, metric: &Metric) -> Option<Spread> {
        let complete = self.runs.iter().filter(|run| run.is_complete());
        Spread::of(complete.filter_map(|run| (metric.value)(run)))
    }

    /// The ratios to another in the same rounds.
    pub(crate) fn ratio(&self, to: &Column<'_>, metric: &Metric) -> Option<Spread> {
        let complete = |run: &&&RunResult| run.is_complete();
        let ratios = self.runs.iter().filter(complete).filter_map(|run| {
            let other = to.runs.iter().filter(complete).find(|other| other.round == run.round)?;
            let (value, base) = ((metric.value)(run)?, (metric.value)(other)?);
            (base > 0.0).then_some(value / base)
        });
        Spread::of(ratios)
    }

    /// Deliveries that were missing, in all rounds; none if nothing was to be delivered.
    pub(crate) fn lost(&self) -> Option<u64> {
        let sent: u64 = self.runs.iter().map(|run| run.whole_run.sent).sum();
        (sent > 0).then(|| self.runs.iter().map(|run| run.whole_run.lost).sum())
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let verdicts = self.runs.iter().map(|run| self.verdict_of(run));
        let missing = (self.runs.len() < self.rounds as usize).then_some(Verdict::NotMeasured);
        verdicts.chain(missing).max().unwrap_or(Verdict::NotMeasured)
    }

    /// What speaks against the figures, in words.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for run in &self.runs {
            let mut doubt = |text: &str| doubts.push(format!("round {}: {text}", run.round));
            if !run.is_complete() {
                doubt(&format!("NOT COMPLETE: {}", run.ended));
            }
            if !run.violations.is_empty() {
                doubt(&format!("FAILED: {}", run.violations.join(", ")));
            }
            if run.generator.was_the_limit || self.capped.contains(&run.round) {
                doubt("THE GENERATOR WAS THE LIMIT");
            }
            if self.is_late(run) {
                doubt("NO RATE WAS SERVED IN TIME");
            }
        }
        if self.runs.len() < self.rounds as usize {
            doubts.push(format!("{} of {} rounds were run", self.runs.len(), self.rounds));
        }
        doubts
    }

    fn verdict_of(&self, run: &RunResult) -> Verdict {
        let by_generator = run.generator.was_the_limit || self.capped.contains(&run.round);
        if !run.is_complete() || by_generator || self.is_late(run) {
            Verdict::NotMeasured
        } else if !run.violations.is_empty() {
            Verdict::Violated
        } else {
            Verdict::Sound
        }
    }

    fn is_late(&self, run: &RunResult) -> bool {
        matches!(self.pace, Pace::Search(search) if !is_in_time(run, search.p99_us_max))
    }
}

/// The latency that the load is about.
fn latency(run: &RunResult) -> Option<&LatencyResult> {
    let name = match run.settings.attendance.as_str() {
        "present" if run.settings.publishers > 0 => LatencyName::PublishToDelivery,
        "present" => LatencyName::ConnectToConnack,
        _ => LatencyName::ReturnToDelivery,
    };
    run.latency_us.get(&name)
}

/// CPU time is only known in ticks of 10 ms: what took none has none.
fn per_delivery(run: &RunResult, value: fn(&crate::result::BrokerUsage) -> f64) -> Option<f64> {
    let broker = run.broker.as_ref().filter(|broker| broker.cpu_secs > 0.0)?;
    (run.delivered > 0).then(|| value(broker))
}

const MIB: f64 = 1024.0 * 1024.0;

/// In the order of the table.
pub(crate) const METRICS: [Metric; 9] = [
    Metric {
        name: "deliveries/s",
        value: |run| (run.delivered > 0).then_some(run.delivered_per_sec),
        has_ratio: true,
    },
    Metric {
        name: "broker CPU us/delivery",
        value: |run| per_delivery(run, |broker| broker.cpu_us_per_delivery),
        has_ratio: true,
    },
    Metric {
        name: "deliveries/broker CPU s",
        value: |run| per_delivery(run, |broker| broker.deliveries_per_cpu_sec),
        has_ratio: true,
    },
    Metric {
        name: "broker CPU s",
        value: |run| run.broker.filter(|_| run.delivered == 0).map(|broker| broker.cpu_secs),
        has_ratio: true,
    },
    Metric {
        name: "latency p50 us",
        value: |run| latency(run).map(|latency| latency.p50 as f64),
        has_ratio: true,
    },
    Metric {
        name: "latency p99 us",
        value: |run| latency(run).map(|latency| latency.p99 as f64),
        has_ratio: true,
    },
    Metric {
        name: "latency p99.9 us",
        value: |run| latency(run).map(|latency| latency.p99_9 as f64),
        has_ratio: true,
    },
    Metric {
        name: "broker memory MiB",
        value: |run| run.broker.map(|broker| broker.rss_bytes_max as f64 / MIB),
        has_ratio: true,
    },
    Metric {
        name: "generator busy %",
        value: |run| (run.measured_secs > 0.0).then_some(run.generator.busy * 100.0),
        has_ratio: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::samples::{comparison, run},
        result::BrokerUsage,
        scenario::{Rate, Search},
    };

    fn figures_of<'a>(comparison: &'a Comparison, results: &'a [RunResult]) -> Figures<'a> {
        Figures::of(comparison, results).remove(0)
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let comparison = comparison(Pace::Window(1), 3);
        // The machine slows down: the ratio stays.
        let mut results = Vec::new();
        for (round, of_a, of_b) in [(1, 900.0, 450.0), (2, 600.0, 240.0), (3, 300.0, 180.0)] {
            results.push(run(&comparison, 0, round, of_a));
            results.push(run(&comparison, 1, round, of_b));
        }
        let [a, b] = &figures_of(&comparison, &results).columns[..] else { panic!("two brokers") };
        let rate = &METRICS[0];
        assert_eq!(
            b.spread(rate),
            Some(Spread { median: 240.0, min: 180.0, max: 450.0, count: 3 })
        );
        let ratio = b.ratio(a, rate).unwrap();
        assert_eq!(ratio, Spread { median: 0.5, min: 0.4, max: 0.6, count: 3 });
        assert!(!ratio.holds_one() && a.ratio(a, rate).unwrap().holds_one());
        assert_eq!(b.ratio(a, &METRICS[1]), None, "nothing is known of their processes");
        assert_eq!(b.verdict(), Verdict::Sound);
    }

    #[test]
    fn what_was_not_completed_does_not_count_and_decides() {
        let comparison = comparison(Pace::Window(1), 2);
        let mut results = [0, 1].map(|broker| run(&comparison, broker, 1, 100.0)).to_vec();
        results.push(run(&comparison, 0, 2, 100.0));
        results.push(RunResult { ended: "failed: gone".to_owned(), ..results[1].clone() });
        results[3].round = 2;
        results[3].delivered_per_sec = 1.0;
        let figures = figures_of(&comparison, &results);
        let b = &figures.columns[1];
        assert_eq!(b.spread(&METRICS[0]).unwrap().min, 100.0);
        assert_eq!(b.ratio(&figures.columns[0], &METRICS[0]).unwrap().min, 1.0);
        assert_eq!(b.doubts(), ["round 2: NOT COMPLETE: failed: gone"]);
        assert_eq!(figures.verdict(), Verdict::NotMeasured);
    }

    #[test]
    fn violations_the_generator_and_missing_rounds_decide() {
        let comparison = comparison(Pace::Window(1), 1);
        let sound = [0, 1].map(|broker| run(&comparison, broker, 1, 100.0));
        assert_eq!(figures_of(&comparison, &sound).verdict(), Verdict::Sound);

        let mut violated = sound.clone();
        violated[1].violations.push("9 lost".to_owned());
        violated[1].whole_run.lost = 9;
        let figures = figures_of(&comparison, &violated);
        assert_eq!(figures.verdict(), Verdict::Violated);
        assert_eq!(figures.columns[1].doubts(), ["round 1: FAILED: 9 lost"]);
        assert_eq!(
            figures.columns.iter().map(Column::lost).collect::<Vec<_>>(),
            [Some(0), Some(9)]
        );

        violated[0].generator.was_the_limit = true;
        assert_eq!(figures_of(&comparison, &violated).verdict(), Verdict::NotMeasured);

        let figures = figures_of(&comparison, &sound[..1]);
        assert_eq!(figures.verdict(), Verdict::NotMeasured);
        assert_eq!(figures.columns[1].doubts(), ["0 of 1 rounds were run"]);
    }

    #[test]
    fn of_a_search_the_highest_rate_in_time_counts() {
        let comparison = comparison(Pace::Search(Search { from: 100.0, p99_us_max: 1_000 }), 1);
        let at = |rate: f64| {
            let mut run = run(&comparison, 0, 1, rate);
            run.settings.rate_per_sec = Pace::Open(Rate::Fixed(rate)).rate_per_sec();
            run
        };
        let mut results = vec![at(100.0), at(200.0), at(400.0), at(300.0)];
        results[2].violations.push("7 lost".to_owned());
        let figures = figures_of(&comparison, &results);
        assert_eq!(figures.columns[0].spread(&METRICS[0]).unwrap().median, 300.0);
        assert_eq!(figures.columns[0].verdict(), Verdict::Sound);
        results[3].generator.was_the_limit = true;
        let figures = figures_of(&comparison, &results);
        assert_eq!(figures.columns[0].spread(&METRICS[0]).unwrap().median, 200.0);
        assert_eq!(figures.columns[0].doubts(), ["round 1: THE GENERATOR WAS THE LIMIT"]);
        assert_eq!(figures.columns[0].verdict(), Verdict::NotMeasured);
        let figures = figures_of(&comparison, &results[2..3]);
        assert!(
            figures.columns[0].doubts().contains(&"round 1: NO RATE WAS SERVED IN TIME".into())
        );
    }

    #[test]
    fn metrics_are_those_that_the_run_has() {
        let comparison = comparison(Pace::Window(1), 1);
        let mut busy = run(&comparison, 0, 1, 100.0);
        let usage = BrokerUsage { cpu_secs: 2.0, rss_bytes_max: 3 << 20, ..BrokerUsage::default() };
        busy.broker =
            Some(BrokerUsage { cpu_us_per_delivery: 4.0, deliveries_per_cpu_sec: 5.0, ..usage });
        let values = |run: &RunResult| METRICS.map(|metric| (metric.value)(run));
        let [rate, cpu, per_cpu, no_cpu, p50, p99, p99_9, memory, _] = values(&busy);
        assert_eq!([rate, cpu, per_cpu, memory], [Some(100.0), Some(4.0), Some(5.0), Some(3.0)]);
        assert_eq!([no_cpu, p50, p99, p99_9], [None, Some(100.0), Some(100.0), Some(100.0)]);
        // Idle clients: nothing is delivered, CPU time counts as it is.
        let idle = RunResult { delivered: 0, latency_us: [].into(), ..busy };
        let [rate, cpu, per_cpu, all_cpu, p50, ..] = values(&idle);
        assert_eq!([rate, cpu, per_cpu, all_cpu, p50], [None, None, None, Some(2.0), None]);
    }
}
