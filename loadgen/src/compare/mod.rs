//! Several brokers under the same load, in turn: what is run when, and what counts of it.
//!
//! - `started`: a broker's process, from its start to its end
//! - `figures`: medians, ratios and the verdict over the rounds
//!
//! Knows nothing of how the result is shown.

mod figures;
#[cfg(test)]
pub(crate) mod samples;
mod started;

use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use self::figures::{Column, Figures, METRICS, Verdict};
use self::started::Started;
use crate::{
    measure::{self, Progress, Target},
    result::RunResult,
    scenario::Scenario,
};

/// What is compared.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// The others are compared with the first.
    pub(crate) brokers: Vec<Contender>,
    pub(crate) scenario: Scenario,
    pub(crate) rounds: u32,
    /// CPUs of the brokers that are started, as `taskset -c` takes them.
    pub(crate) broker_cpus: Option<String>,
}

/// One of the brokers.
#[derive(Debug)]
pub(crate) struct Contender {
    /// Its label is the broker's name.
    pub(crate) target: Target,
    /// Starts it for each of its runs.
    pub(crate) start: Option<String>,
}

/// What a comparison tells while it goes on.
pub(crate) enum Step<'a> {
    /// A broker's turn in a round, from 1, begins.
    Turn {
        round: u32,
        broker: &'a str,
    },
    Of(Progress<'a>),
}

impl Comparison {
    /// Gives each broker its turn in each round, every other time in the opposite order: a machine that
    /// becomes slower steadily does not harm the same broker each time. A run that could not be made is a
    /// result that says so.
    pub(crate) fn run(
        &self,
        interrupt: &AtomicBool,
        tell: &mut dyn FnMut(Step<'_>),
    ) -> Vec<RunResult> {
        let mut results = Vec::new();
        let turns = (1..=self.rounds).flat_map(|round| {
            let count = self.brokers.len();
            let at = move |turn| if round % 2 == 1 { turn } else { count - 1 - turn };
            (0..count).map(move |turn| (round, &self.brokers[at(turn)]))
        });
        for (round, broker) in turns {
            if interrupt.load(Ordering::Relaxed) {
                break;
            }
            tell(Step::Turn { round, broker: broker.name() });
            let turn = self.turn(broker, interrupt, &mut |progress| tell(Step::Of(progress)));
            results.extend(turn.into_iter().map(|result| RunResult { round, ..result }));
        }
        results
    }

    /// One run for each QoS.
    fn turn(
        &self,
        broker: &Contender,
        interrupt: &AtomicBool,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Vec<RunResult> {
        let mut results = Vec::new();
        for qos in &self.scenario.qos {
            let scenario = self.scenario.single(*qos, self.scenario.pace);
            results.extend(self.one_qos(broker, &scenario, interrupt, tell));
            if interrupt.load(Ordering::Relaxed) {
                break;
            }
        }
        results
    }

    /// One run; several if it searches. A process of its own serves it, if one is started.
    fn one_qos(
        &self,
        broker: &Contender,
        scenario: &Scenario,
        interrupt: &AtomicBool,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Vec<RunResult> {
        let mut target = broker.target.clone();
        let mut started = None;
        if let Some(command) = &broker.start {
            let cpus = self.broker_cpus.as_deref();
            let address = (target.hosts.first().map_or("", String::as_str), target.port);
            match Started::start(command, cpus, address, interrupt) {
                Ok(process) => {
                    target.broker_pid = Some(process.pid());
                    started = Some(process);
                }
                Err(error) => {
                    return vec![measure::not_measured(scenario, &target, &error.to_string())];
                }
            }
        }
        let mut runs = Vec::new();
        if let Err(error) = measure::measure(scenario, &target, interrupt, tell, &mut runs) {
            runs.push(measure::not_measured(scenario, &target, &error.to_string()));
        }
        if let Some(last) = runs.last_mut().filter(|last| !last.is_complete())
            && let Some(end) = started.as_mut().and_then(Started::end)
        {
            last.ended += &format!("; {end}");
        }
        runs
    }
}

impl Contender {
    pub(crate) fn name(&self) -> &str {
        &self.target.label
    }
}
