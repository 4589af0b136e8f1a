//! Comparisons and results that tests are made of.

use super::{Comparison, Contender};
use crate::{
    measure::{Target, not_measured},
    result::{COMPLETE, LatencyName, LatencyResult, RunResult},
    scenario::{self, Overrides, Pace},
};

/// Two brokers, `a` and `b`.
pub(crate) fn comparison(pace: Pace, rounds: u32) -> Comparison {
    let brokers = ["a", "b"].map(|name| Contender { target: target(name), start: None });
    let overrides = Overrides { pace: Some(pace), ..Overrides::default() };
    Comparison {
        brokers: brokers.into(),
        scenario: scenario::load("p2p", &overrides).unwrap(),
        rounds,
        broker_cpus: None,
    }
}

/// A broker that is asked nothing.
pub(crate) fn target(name: &str) -> Target {
    Target {
        hosts: vec!["127.0.0.1".to_owned()],
        port: 1883,
        from: Vec::new(),
        tls: None,
        websocket_path: None,
        user_name: None,
        password: None,
        prefix: None,
        first: 0,
        homes: None,
        clean_start: None,
        session_expiry_secs: None,
        inflight_max: None,
        payload: None,
        threads: vec![None],
        spins: false,
        team: None,
        broker_pid: None,
        label: name.to_owned(),
    }
}

/// A run in which that many messages a second were delivered.
pub(crate) fn run(of: &Comparison, broker: usize, round: u32, per_sec: f64) -> RunResult {
    let mut run = not_measured(&of.scenario, &of.brokers[broker].target, "");
    run.ended = COMPLETE.to_owned();
    (run.round, run.measured_secs) = (round, 10.0);
    (run.delivered_per_sec, run.delivered) = (per_sec, (per_sec * 10.0) as u64);
    (run.whole_run.sent, run.whole_run.delivered) = (run.delivered, run.delivered);
    let mut latency = hdrhistogram::Histogram::new(3).unwrap();
    latency.record(100).unwrap();
    run.latency_us.insert(LatencyName::PublishToDelivery, LatencyResult::new(&latency));
    run
}
