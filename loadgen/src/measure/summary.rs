//! What the outcome of a run comes to: rates, what they cost, whether they say anything, and what is needed
//! to repeat it. Pure.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use ringmq::codec::Version;

use super::Target;
use crate::{
    load::{Ended, Outcome},
    machine,
    record::Violation,
    result::{
        COMPLETE, Counts, FORMAT, Generator, INTERRUPTED, LatencyName, LatencyResult, Replay,
        ResultFile, RunResult, Settings,
    },
    scenario::{Attendance, Pace, Scenario},
};

/// Everything that one command has measured, for its file.
pub(crate) fn result_file(runs: Vec<RunResult>) -> ResultFile {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ResultFile {
        format: FORMAT.to_owned(),
        loadgen: env!("CARGO_PKG_VERSION").to_owned(),
        command: without_password(
            std::env::args_os().map(|one| one.to_string_lossy().into_owned()),
        ),
        finished_unix_secs: since_1970.as_secs(),
        machine: machine::facts(),
        runs,
    }
}

/// The command line as others may read it.
fn without_password(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_next = false;
    let hide = |argument: String| {
        if std::mem::replace(&mut is_next, matches!(argument.as_str(), "-P" | "-SP" | "--password"))
        {
            return "***".to_owned();
        }
        for name in ["--password=", "-P", "-SP"] {
            if argument.len() > name.len() && argument.starts_with(name) {
                return format!("{name}***");
            }
        }
        argument
    };
    arguments.map(hide).collect()
}

pub(super) fn result(scenario: &Scenario, target: &Target, outcome: Outcome) -> RunResult {
    let Outcome {
        mut tally,
        ended,
        connect_secs,
        measured,
        published_in,
        seconds,
        broker,
        rss_bytes,
    } = outcome;
    if scenario.topic.has_message_number() {
        // Only the messages of one topic have an order.
        tally.counts.reordered = 0;
    }
    let secs = measured.as_secs_f64();
    let per_sec = |count: u64| if secs > 0.0 { count as f64 / secs } else { 0.0 };
    let cpu_secs = tally.cpu_nanos as f64 / 1e9;
    let latency_us = tally
        .latencies
        .iter()
        .filter(|(_, latency)| !latency.is_empty())
        .map(|(name, latency)| (*name, LatencyResult::new(latency.histogram())));
    let latency_us: BTreeMap<_, _> = latency_us.collect();
    let replay = published_in.map(|time| Replay {
        publish_secs: time.as_secs_f64(),
        published_per_sec: (tally.counts.sent as f64 / time.as_secs_f64().max(1e-9)).round(),
        first_delivery_us: latency_us.get(&LatencyName::ReturnToDelivery).map(|one| one.min),
    });
    // Of late and returning subscribers only the deliveries are measured.
    let is_sending_measured = scenario.attendance == Attendance::Present;
    let sent = if is_sending_measured { tally.sent_measured } else { 0 };
    let messages = sent.max(tally.delivered_measured).max(1);
    // Without a measured time there is no share of it.
    let busy = if secs > 0.0 { tally.busy } else { 0.0 };
    let lateness = tally.latencies.get(&LatencyName::GeneratorLateness);
    let was_late = lateness.is_some_and(|lateness| {
        let late = lateness.histogram().count_between(LATENESS_US_MAX + 1, u64::MAX);
        // Beside a broker that is far slower it does not matter.
        let delivery = latency_us.get(&LatencyName::PublishToDelivery).map_or(0, |one| one.p99);
        let matters = lateness.histogram().value_at_quantile(0.99) * 4 > delivery;
        late * 100 > tally.sent_measured && matters
    });
    // A broker of one core that was even busier was the limit itself.
    let is_broker_full = broker.is_some_and(|one| (busy..1.05).contains(&(one.cpu_secs / secs)));
    RunResult {
        label: target.label.clone(),
        round: 1,
        settings: settings(scenario, target),
        ended: match ended {
            Ended::Complete => COMPLETE.to_owned(),
            Ended::Interrupted => INTERRUPTED.to_owned(),
            Ended::Failed(failure) => format!("failed: {failure}"),
        },
        connect_secs,
        measured_secs: secs,
        sent_per_sec: per_sec(sent).round(),
        delivered_per_sec: per_sec(tally.delivered_measured).round(),
        sent,
        delivered: tally.delivered_measured,
        whole_run: tally.counts,
        violations: tally.violations(scenario.qos()).iter().map(Violation::to_string).collect(),
        replay,
        latency_us,
        seconds,
        generator: Generator {
            cpu_secs,
            wall_secs: secs,
            cpu_us_per_message: cpu_secs * 1e6 / messages as f64,
            busy,
            rss_bytes,
            was_the_limit: busy > BUSY_MAX && !is_broker_full || was_late,
        },
        broker,
    }
}

/// Stands for a run that could not begin.
pub(crate) fn not_measured(scenario: &Scenario, target: &Target, reason: &str) -> RunResult {
    RunResult {
        label: target.label.clone(),
        round: 1,
        settings: settings(scenario, target),
        ended: format!("failed: {reason}"),
        connect_secs: 0.0,
        measured_secs: 0.0,
        sent_per_sec: 0.0,
        delivered_per_sec: 0.0,
        sent: 0,
        delivered: 0,
        whole_run: Counts::default(),
        violations: Vec::new(),
        replay: None,
        latency_us: BTreeMap::new(),
        seconds: Vec::new(),
        generator: Generator::default(),
        broker: None,
    }
}

pub(super) fn settings(scenario: &Scenario, target: &Target) -> Settings {
    Settings {
        scenario: scenario.name.clone(),
        host: target.hosts.join(","),
        port: target.port,
        transport: match (&target.tls, &target.websocket_path) {
            (None, None) => "tcp",
            (Some(_), None) => "tls",
            (None, Some(_)) => "ws",
            (Some(_), Some(_)) => "wss",
        }
        .to_owned(),
        mqtt_version: match scenario.version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        }
        .to_owned(),
        qos: scenario.qos().bits(),
        payload_bytes: scenario.payload_bytes,
        publishers: scenario.publishers,
        subscribers: scenario.subscribers,
        idle: scenario.idle,
        topic: scenario.topic.to_string(),
        filter: scenario.filter.to_string(),
        retain: scenario.retain,
        attendance: scenario.attendance.name().to_owned(),
        persistent: scenario.persistent.name().to_owned(),
        pace: match (scenario.pace, target.inflight_max) {
            (Pace::Window(_), Some(max)) => format!("as fast as {max} in flight allow"),
            (pace, _) => pace.describe(),
        },
        rate_per_sec: scenario.pace.rate_per_sec(),
        messages: scenario.messages,
        connect_rate: scenario.connect_rate,
        warm_secs: scenario.warm.as_secs_f64(),
        secs: if scenario.is_endless() { 0.0 } else { scenario.measure.as_secs_f64() },
        threads: target.threads.len(),
        cpus: target.threads.iter().copied().flatten().collect(),
        workers: target.workers(),
    }
}

/// Past it there was no idle time to speak of: the generator may have set the pace.
pub(crate) const BUSY_MAX: f64 = 0.95;

/// Messages that are sent later than this, one in a hundred, make a schedule worthless.
const LATENESS_US_MAX: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_get_into_results() {
        for (line, expected) in [
            ("run p2p -P secret -p 1", "run p2p -P *** -p 1"),
            ("run -Psecret", "run -P***"),
            ("run -SPsecret", "run -SP***"),
            ("run -SP secret", "run -SP ***"),
            ("run --password secret", "run --password ***"),
            ("run --password=secret --port 1", "run --password=*** --port 1"),
        ] {
            let shown = without_password(line.split(' ').map(str::to_owned)).join(" ");
            assert_eq!(shown, expected);
        }
    }
}
