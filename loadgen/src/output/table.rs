//! The summary of a run as a table of text.

use std::fmt;

use super::grouped;
use crate::{
    measure::BUSY_MAX,
    result::{LatencyName, RunResult, Settings},
};

/// Shows a result through `Display`.
pub(crate) struct Table<'a>(pub(crate) &'a RunResult);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_heading(f)?;
        self.write_counts(f)?;
        self.write_latencies(f)?;
        self.write_costs(f)?;
        self.write_verdict(f)
    }
}

impl Table<'_> {
    fn write_heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.0.settings;
        writeln!(f, "{}, {}:{}", load_of(settings), settings.host, settings.port)?;
        let (measured, warm) = (self.0.measured_secs, settings.warm_secs);
        match settings.attendance.as_str() {
            "present" if settings.publishers > 0 => {
                writeln!(f, "measured for {measured:.1} s after {warm:.1} s of warm-up\n")
            }
            "present" if settings.secs > 0.0 => writeln!(f, "watched for {measured:.1} s\n"),
            "present" => writeln!(f),
            _ => writeln!(f, "measured for {measured:.3} s from the subscribers' return\n"),
        }
    }

    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (result, whole) = (self.0, self.0.whole_run);
        let checks = result.settings.subscribers > 0;
        write!(f, "{:<20}{:>14}", "connected", grouped(whole.connected))?;
        // Late subscribers came after that time.
        if result.connect_secs > 0.0 && result.settings.attendance != "late" {
            let rate = whole.connected as f64 / result.connect_secs;
            write!(f, "{:>14}/s", grouped(rate as u64))?;
        }
        writeln!(f)?;
        if let Some(replay) = &result.replay {
            let rate = format!("{}/s", grouped(replay.published_per_sec as u64));
            write!(f, "{:<20}{:>14}{rate:>16}", "published before", grouped(whole.sent))?;
            writeln!(f, "  acknowledged within {:.3} s", replay.publish_secs)?;
            if let Some(first) = replay.first_delivery_us {
                writeln!(f, "{:<20}{:>14}  us after the return", "first delivery", grouped(first))?;
            }
        }
        for (name, count, rate, in_all) in [
            ("sent", result.sent, result.sent_per_sec, whole.sent),
            ("delivered", result.delivered, result.delivered_per_sec, whole.delivered),
        ] {
            if in_all > 0 {
                let rate = format!("{}/s", grouped(rate as u64));
                write!(f, "{name:<20}{:>14}{rate:>16}", grouped(count))?;
                writeln!(f, "  of {} in the whole run", grouped(in_all))?;
            }
        }
        for (name, count) in [
            ("lost", whole.lost),
            ("unfinished", whole.unfinished),
            ("never sent", whole.unsent),
            ("duplicates", whole.duplicates),
            ("out of order", whole.reordered),
            ("strays", whole.strays),
            ("refused", whole.refused),
            ("unacknowledged", whole.unacknowledged),
            ("sessions left", whole.sessions_left),
        ] {
            if count > 0 || name == "lost" && checks && whole.sent > 0 {
                writeln!(f, "{name:<20}{:>14}  of the whole run", grouped(count))?;
            }
        }
        Ok(())
    }

    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // How they connected is of interest where that is what is measured.
        let connects_only = self.0.settings.publishers == 0 && self.0.delivered == 0;
        let is_shown = |name: LatencyName| connects_only || name >= LatencyName::PublishToDelivery;
        let rows: Vec<_> = self.0.latency_us.iter().filter(|(name, _)| is_shown(**name)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        write!(f, "\n{:<20}{:>12}", "latency (us)", "count")?;
        let columns = ["min", "p50", "p90", "p99", "p99.9", "max", "mean"];
        writeln!(f, "{}", columns.map(|name| format!("{name:>11}")).concat())?;
        for (name, one) in rows {
            write!(f, "{:<20}{:>12}", name.label(), grouped(one.count))?;
            let mean = one.mean.round() as u64;
            let row = [one.min, one.p50, one.p90, one.p99, one.p99_9, one.max, mean];
            writeln!(f, "{}", row.map(|micros| format!("{:>11}", grouped(micros))).concat())?;
        }
        Ok(())
    }

    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generator = &self.0.generator;
        write!(f, "\ngenerator: {:.2} s of CPU", generator.cpu_secs)?;
        if self.0.sent + self.0.delivered > 0 {
            write!(f, ", {:.3} us a message", generator.cpu_us_per_message)?;
        }
        let rss = generator.rss_bytes as f64 / MIB;
        writeln!(f, ", busy {:.0} % of the time, {rss:.1} MiB", generator.busy * 100.0)?;
        if let Some(broker) = &self.0.broker {
            write!(f, "broker:    {:.2} s of CPU", broker.cpu_secs)?;
            if self.0.settings.publishers == 0 && self.0.settings.secs > 0.0 {
                write!(f, " after {:.2} s while connecting", broker.connect_cpu_secs)?;
            }
            if self.0.delivered > 0 {
                let per_cpu_sec = grouped(broker.deliveries_per_cpu_sec as u64);
                write!(f, ", {:.3} us a delivery", broker.cpu_us_per_delivery)?;
                write!(f, " ({per_cpu_sec} deliveries a CPU second)")?;
            }
            let [before, connected, max] =
                [broker.rss_bytes_before, broker.rss_bytes_connected, broker.rss_bytes_max]
                    .map(|bytes| bytes as f64 / MIB);
            write!(
                f,
                "\n           memory {before:.1} MiB before, {connected:.1} with all connected, "
            )?;
            writeln!(f, "{max:.1} at most")?;
        }
        Ok(())
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.generator.was_the_limit {
            let why = if self.0.generator.busy > BUSY_MAX {
                "it was busy all the time"
            } else {
                "it sent late what was due, see its lateness"
            };
            writeln!(f, "THE GENERATOR WAS THE LIMIT, {why}: this says little about the broker")?;
        }
        if !self.0.is_complete() {
            writeln!(f, "NOT COMPLETE: {}", self.0.ended)?;
        }
        if !self.0.violations.is_empty() {
            writeln!(f, "FAILED: {}", self.0.violations.join(", "))?;
        }
        Ok(())
    }
}

/// What was run, in a line.
pub(super) fn load_of(settings: &Settings) -> String {
    let mut text = format!("{} QoS {}:", settings.scenario, settings.qos);
    for (count, what) in [
        (settings.publishers, "publishers"),
        (settings.subscribers, "subscribers"),
        (settings.idle, "idle clients"),
    ] {
        if count > 0 {
            text += &format!(" {} {what},", grouped(count.into()));
        }
    }
    if settings.publishers > 0 {
        text += &format!(" {}, {} bytes,", settings.pace, settings.payload_bytes);
    }
    if !["", "nobody"].contains(&settings.persistent.as_str()) {
        text += &format!(" sessions of {} persist,", settings.persistent);
    }
    text + &format!(" MQTT {} over {}", settings.mqtt_version, settings.transport)
}

const MIB: f64 = 1024.0 * 1024.0;
