//! What the user reads: the live line, the summary table, and JSON.

use std::{
    fmt,
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::Histogram;
use ringmq::base::QoS;
use serde_json::{Map, Value, json};

use crate::{
    machine,
    options::Options,
    pace::Pace,
    record::{Latency, Record, Violation},
    run::{Ended, Outcome},
    scenario::Scenario,
};

/// The line that shows each second how the run is doing, on standard error.
#[derive(Default)]
pub(crate) struct LiveLine {
    seconds: usize,
    sent: u64,
    delivered: u64,
}

impl LiveLine {
    /// Prints what has happened since the last call, one second ago.
    pub(crate) fn print(&mut self, record: &mut Record) {
        self.seconds += 1;
        let counts = &record.counts;
        let latency = record.interval.histogram();
        // Nothing is lost with it if nobody can read it.
        let _ = writeln!(
            io::stderr(),
            "{:>4} s  sent {:>9}/s  delivered {:>9}/s  latency p50 {} us, p99 {} us",
            self.seconds,
            grouped(counts.sent - self.sent),
            grouped(counts.delivered - self.delivered),
            grouped(latency.value_at_quantile(0.5)),
            grouped(latency.value_at_quantile(0.99)),
        );
        (self.sent, self.delivered) = (counts.sent, counts.delivered);
        record.interval.clear();
    }

    /// How often it was printed.
    pub(crate) fn seconds(&self) -> usize {
        self.seconds
    }
}

/// The result of a run: a table through `Display`, or JSON.
pub(crate) struct Report<'a> {
    options: &'a Options,
    outcome: &'a Outcome,
    violations: Vec<Violation>,
}

impl<'a> Report<'a> {
    /// The report of this run.
    pub(crate) fn new(options: &'a Options, outcome: &'a Outcome) -> Self {
        Self { options, outcome, violations: outcome.record.violations() }
    }

    /// Everything, with what is needed to repeat the run. Latencies are in microseconds.
    pub(crate) fn json(&self) -> Value {
        let counts = &self.outcome.record.counts;
        let latencies = self.latencies().into_iter();
        let latencies: Map<String, Value> = latencies
            .map(|(name, latency)| (name.replace(' ', "_"), latency_json(latency.histogram())))
            .collect();
        let violations: Vec<String> = self.violations.iter().map(Violation::to_string).collect();
        json!({
            "loadgen": env!("CARGO_PKG_VERSION"),
            "command": std::env::args_os().map(|one| one.to_string_lossy().into_owned()).collect::<Vec<_>>(),
            "finished_unix_secs": unix_secs(),
            "machine": { "kernel": machine::kernel(), "cpu": machine::cpu_model(), "cpus": machine::cpus() },
            "options": self.options_json(),
            "ended": self.ending(),
            "measured_secs": self.measured_secs(),
            "sent": counts.sent_measured,
            "sent_per_sec": self.per_sec(counts.sent_measured),
            "delivered": counts.delivered_measured,
            "delivered_per_sec": self.per_sec(counts.delivered_measured),
            "whole_run": {
                "sent": counts.sent,
                "unsent": counts.unsent,
                "delivered": counts.delivered,
                "lost": counts.lost,
                "unfinished": counts.unfinished,
                "duplicates": counts.duplicates,
                "reordered": counts.reordered,
                "strays": counts.strays,
                "refused": counts.refused,
            },
            "violations": violations,
            "latency_us": latencies,
            "generator_cpu_share": self.cpu_share(),
        })
    }

    fn options_json(&self) -> Value {
        let options = self.options;
        let (window, rate) = match options.pace {
            Pace::Window(window) => (Some(window), None),
            Pace::Rate(rate) => (None, Some(rate)),
        };
        json!({
            "scenario": scenario_name(options.plan.scenario),
            "publishers": options.plan.publishers,
            "subscribers": options.plan.subscribers,
            "host": options.host,
            "port": options.port,
            "mqtt_version": options.version.to_string(),
            "qos": options.qos.bits(),
            "payload_bytes": options.payload_bytes,
            "window": window,
            "rate_per_sec": rate,
            "secs": options.measure.as_secs_f64(),
            "warm_secs": options.warm.as_secs_f64(),
            "pinned_to_cpu": options.cpu,
        })
    }

    /// The latencies that there are in this run, by name.
    fn latencies(&self) -> Vec<(&'static str, &Latency)> {
        let record = &self.outcome.record;
        let [puback, pubrec, pubcomp] = &record.steps;
        let mut all = vec![("publish to delivery", &record.delivery)];
        match self.options.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => all.push(("publish to PUBACK", puback)),
            QoS::ExactlyOnce => {
                all.extend([("publish to PUBREC", pubrec), ("publish to PUBCOMP", pubcomp)]);
            }
        }
        if matches!(self.options.pace, Pace::Rate(_)) {
            all.push(("generator lateness", &record.lateness));
        }
        all
    }

    fn ending(&self) -> String {
        match &self.outcome.ended {
            Ended::Complete => "complete".to_owned(),
            Ended::Interrupted => "interrupted".to_owned(),
            Ended::Failed(failure) => format!("failed: {failure}"),
        }
    }

    fn measured_secs(&self) -> f64 {
        let window = &self.outcome.record.window;
        Duration::from_nanos(window.end - window.start).as_secs_f64()
    }

    fn per_sec(&self, count: u64) -> f64 {
        let secs = self.measured_secs();
        if secs > 0.0 { (count as f64 / secs).round() } else { 0.0 }
    }

    /// Part of one CPU that this process used.
    fn cpu_share(&self) -> f64 {
        let wall = self.outcome.wall.as_secs_f64();
        let share = if wall > 0.0 { self.outcome.cpu.as_secs_f64() / wall } else { 0.0 };
        (share * 100.0).round() / 100.0
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (options, counts) = (self.options, &self.outcome.record.counts);
        let plan = &options.plan;
        let pace = match options.pace {
            Pace::Window(window) => format!("window {window}"),
            Pace::Rate(rate) => format!("{rate} messages/s"),
        };
        writeln!(
            f,
            "{} QoS {}: {} publishers, {} subscribers, {pace}, {} bytes, MQTT {}, {}:{}",
            scenario_name(plan.scenario),
            options.qos,
            plan.publishers,
            plan.subscribers,
            options.payload_bytes,
            options.version,
            options.host,
            options.port,
        )?;
        let (measured, warm) = (self.measured_secs(), options.warm.as_secs_f64());
        writeln!(f, "measured for {measured:.1} s after {warm:.1} s of warm-up\n")?;
        for (name, count) in
            [("sent", counts.sent_measured), ("delivered", counts.delivered_measured)]
        {
            let rate = grouped(self.per_sec(count) as u64);
            writeln!(f, "{name:<20}{:>14}{rate:>14}/s", grouped(count))?;
        }
        for (name, count) in [
            ("lost", counts.lost),
            ("unfinished", counts.unfinished),
            ("never sent", counts.unsent),
            ("duplicates", counts.duplicates),
            ("out of order", counts.reordered),
            ("strays", counts.strays),
            ("refused", counts.refused),
        ] {
            if count > 0 || name == "lost" {
                writeln!(f, "{name:<20}{:>14}  of the whole run", grouped(count))?;
            }
        }
        self.write_latencies(f)?;
        self.write_verdict(f)
    }
}

impl Report<'_> {
    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:<20}{:>10}", "latency (us)", "count")?;
        let columns = ["min", "p50", "p90", "p99", "p99.9", "max", "mean"];
        writeln!(f, "{}", columns.map(|name| format!("{name:>10}")).concat())?;
        for (name, latency) in self.latencies() {
            let histogram = latency.histogram();
            write!(f, "{name:<20}{:>10}", grouped(histogram.len()))?;
            let at = |quantile| histogram.value_at_quantile(quantile);
            let mean = histogram.mean().round() as u64;
            let min = histogram.min();
            let row = [min, at(0.5), at(0.9), at(0.99), at(0.999), histogram.max(), mean];
            writeln!(f, "{}", row.map(|micros| format!("{:>10}", grouped(micros))).concat())?;
        }
        Ok(())
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.cpu_share();
        writeln!(f, "\nthe generator used {:.0} % of a CPU", share * 100.0)?;
        if share > SATURATED_SHARE {
            writeln!(f, "THE GENERATOR WAS THE LIMIT: this says little about the broker")?;
        }
        if !matches!(self.outcome.ended, Ended::Complete) {
            writeln!(f, "NOT COMPLETE: {}", self.ending())?;
        }
        if !self.violations.is_empty() {
            let found: Vec<String> = self.violations.iter().map(Violation::to_string).collect();
            writeln!(f, "FAILED: {}", found.join(", "))?;
        }
        Ok(())
    }
}

fn latency_json(histogram: &Histogram<u64>) -> Value {
    let mut fields = Map::new();
    fields.insert("count".to_owned(), histogram.len().into());
    fields.insert("min".to_owned(), histogram.min().into());
    fields.insert("mean".to_owned(), ((histogram.mean() * 10.0).round() / 10.0).into());
    fields.insert("max".to_owned(), histogram.max().into());
    for (name, quantile) in QUANTILES {
        fields.insert(name.to_owned(), histogram.value_at_quantile(quantile).into());
    }
    Value::Object(fields)
}

fn scenario_name(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::P2p => "p2p",
        Scenario::FanOut => "fan-out",
        Scenario::FanIn => "fan-in",
    }
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The number with a comma between each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Past it there was no idle time to speak of: the generator may have set the pace.
const SATURATED_SHARE: f64 = 0.95;

const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let numbers = [0, 999, 1_000, 12_345, 123_456, 1_234_567];
        let texts = ["0", "999", "1,000", "12,345", "123,456", "1,234,567"];
        assert_eq!(numbers.map(grouped), texts);
    }

    #[test]
    fn json_has_the_percentiles() {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=1000).for_each(|micros| histogram.record(micros).unwrap());
        let json = latency_json(&histogram);
        assert_eq!(
            (&json["count"], &json["p50"], &json["p99.9"]),
            (&1000.into(), &500.into(), &999.into())
        );
    }
}
