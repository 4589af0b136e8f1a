//! The traces of a shard in its log: a line for each, and percentiles of all.
//!
//! Owns the wording and the statistics; the broker has the stamps. Lines are written after the ring was
//! entered, so that no send waits for them.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tracing::info;

use super::Shard;
use crate::{
    base::{ShardId, Time},
    broker::{Stage, Trace},
};

/// What the traces of one shard have shown since it started.
pub(super) struct TraceLog {
    shard: ShardId,
    traces: u64,
    incomplete: u64,
    /// Nanoseconds, one histogram a stage.
    stages: Vec<Histogram<u64>>,
    /// When the next summary may follow, if there was a trace since the last one.
    summary_at: Option<Time>,
}

/// One row of the summary, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Row {
    stage: &'static str,
    count: u64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Shard {
    /// Reads the clock for the input that is handled next.
    pub(super) fn read_clock(&mut self) {
        let at = Instant::now();
        self.turn_started = at;
        self.now = self.clock.time_at(at);
        if let Some(tracer) = self.broker.tracer() {
            tracer.input_taken(at);
        }
    }

    /// Logs the traces that are finished, and now and then a summary. Wakes nobody: a shard without
    /// work has no news either.
    pub(super) fn log_traces(&mut self) {
        let (Some(log), Some(tracer)) = (&mut self.trace_log, self.broker.tracer()) else { return };
        while let Some(trace) = tracer.pop(self.now) {
            log.add(self.now, &trace);
        }
        if log.summary_at.is_some_and(|at| at <= self.now) {
            log.summarize(tracer.skipped());
        }
    }

    /// The same at the end of the shard: nothing is waited for any more.
    pub(super) fn log_last_traces(&mut self) {
        let (Some(log), Some(tracer)) = (&mut self.trace_log, self.broker.tracer()) else { return };
        while let Some(trace) = tracer.pop(Time::MAX) {
            log.add(self.now, &trace);
        }
        log.summarize(tracer.skipped());
    }
}

impl TraceLog {
    pub(super) fn new(shard: ShardId) -> Self {
        let histogram = |_| {
            Histogram::new_with_bounds(1, NANOS_MAX, DIGITS)
                .expect("bounds that HDR histograms allow")
        };
        Self {
            shard,
            traces: 0,
            incomplete: 0,
            stages: Stage::ALL.iter().map(histogram).collect(),
            summary_at: None,
        }
    }

    fn add(&mut self, now: Time, trace: &Trace) {
        self.line(trace);
        self.summary_at.get_or_insert(now.plus_secs(SUMMARY_SECS));
        self.traces += 1;
        self.incomplete += u64::from(trace.unsent() > 0);
        for stage in Stage::ALL {
            if let Some(time) = trace.stage(stage) {
                self.stages[stage as usize].saturating_record(nanos(time));
            }
        }
    }

    /// Fields that say nothing of this publication are left out.
    fn line(&self, trace: &Trace) {
        let some = |count: u32| (count > 0).then_some(count);
        let us = |stage| trace.stage(stage).map(|time| micros(nanos(time)));
        info!(
            target: TARGET,
            shard = self.shard.0,
            id = %trace.id(),
            topic = %trace.topic,
            client = %trace.publisher(),
            qos = trace.qos.bits(),
            payload_bytes = trace.payload_bytes,
            takers = trace.takers(),
            sent = trace.sent(),
            queued = some(trace.queued),
            dropped = some(trace.dropped),
            offline = some(trace.offline),
            unsent = some(trace.unsent()),
            forwarded = some(trace.forwarded),
            turn_us = us(Stage::Turn),
            match_us = us(Stage::Match),
            lane_us = us(Stage::Lane),
            encode_us = us(Stage::Encode),
            encode_rest_us = us(Stage::EncodeRest),
            send_us = us(Stage::Send),
            send_rest_us = us(Stage::SendRest),
            total_us = us(Stage::Total),
            "{}", if trace.unsent() > 0 { "trace, incomplete" } else { "trace" }
        );
    }

    /// A log line cannot hold a table, so it is a line a row.
    fn summarize(&mut self, skipped: u64) {
        self.summary_at = None;
        let Self { shard: ShardId(shard), traces, incomplete, .. } = *self;
        info!(target: TARGET, shard, traces, incomplete, skipped, "trace summary");
        for Row { stage, count, p50, p99, max } in self.rows() {
            info!(
                target: TARGET,
                shard, stage = %stage, count, p50_us = p50, p99_us = p99, max_us = max,
                "trace summary"
            );
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let stages = Stage::ALL.into_iter().zip(&self.stages);
        stages.filter(|(_, times)| !times.is_empty()).map(|(stage, times)| Row {
            stage: stage.name(),
            count: times.len(),
            p50: micros(times.value_at_quantile(0.5)),
            p99: micros(times.value_at_quantile(0.99)),
            max: micros(times.max()),
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Exact to the nanosecond, so that the stages of a line sum up.
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// Target of these lines.
const TARGET: &str = "ringmq::trace";

/// Longest time that is told from longer ones. A lane can hold a publication up beyond what its trace
/// waits for sends.
const NANOS_MAX: u64 = 10_000_000_000;

/// Significant digits of the summary.
const DIGITS: u8 = 3;

/// Time from the first trace after a summary to the next summary.
const SUMMARY_SECS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn log(times_of_match: impl IntoIterator<Item = u64>) -> TraceLog {
        let mut log = TraceLog::new(ShardId(0));
        for nanos in times_of_match {
            log.stages[Stage::Match as usize].saturating_record(nanos);
        }
        log
    }

    #[test]
    fn stages_that_no_trace_came_through_have_no_row() {
        assert_eq!(log([]).rows().count(), 0);
        let one = Row { stage: "match", count: 1, p50: 1.5, p99: 1.5, max: 1.5 };
        assert_eq!(log([1500]).rows().collect::<Vec<_>>(), [one]);
    }

    #[test]
    fn rows_show_percentiles_to_three_digits_in_microseconds() {
        let row = log((1..=100).map(|i| i * 1000)).rows().next().unwrap();
        assert_eq!(row.count, 100);
        for (shown, exact) in [(row.p50, 50.0), (row.p99, 99.0), (row.max, 100.0)] {
            assert!((shown / exact - 1.0).abs() < 0.001, "{shown} for {exact}");
        }
        let row = log([u64::MAX]).rows().next().unwrap();
        assert!((row.max / 1e7 - 1.0).abs() < 0.001, "{}", row.max);
    }
}
