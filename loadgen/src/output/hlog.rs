//! An HdrHistogram interval log: the latency of each second as a histogram, in the text form that
//! HdrHistogram's own tools read (version 1.3, tagged; microseconds).

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
    },
};

use crate::{
    measure::Progress,
    record::Latency,
    result::{LatencyName, RunResult},
};

/// A log that is being written.
pub(crate) struct HistogramLog<W = File> {
    path: PathBuf,
    writer: W,
    start: Instant,
    /// Runs that have begun.
    runs: u32,
    /// The end of the last interval.
    until: Duration,
    /// What went wrong first. Nothing is written after it.
    failure: Option<io::Error>,
}

/// The log cannot be written, or is not whole.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}", path = path.display())]
pub(crate) struct HistogramLogError {
    path: PathBuf,
    source: io::Error,
}

impl HistogramLog {
    /// Begins a log in a new file, or over an old one.
    pub(crate) fn create(path: &Path) -> Result<Self, HistogramLogError> {
        File::create(path)
            .and_then(|file| HistogramLog::begin(file, path.to_owned(), SystemTime::now()))
            .map_err(|source| HistogramLogError { path: path.to_owned(), source })
    }
}

impl<W: Write> HistogramLog<W> {
    fn begin(mut writer: W, path: PathBuf, now: SystemTime) -> io::Result<Self> {
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(concat!(
                "[Logged by loadgen ",
                env!("CARGO_PKG_VERSION"),
                "; microseconds]"
            ))
            .with_start_time(now)
            .with_base_time(now)
            .begin_log_with(&mut writer, &mut V2DeflateSerializer::new())?;
        let start = Instant::now();
        Ok(Self { path, writer, start, runs: 0, until: Duration::ZERO, failure: None })
    }

    /// Writes what there is to write of it.
    pub(crate) fn take(&mut self, progress: &Progress<'_>) {
        if self.failure.is_some() {
            return;
        }
        let now = self.start.elapsed();
        let outcome = match progress {
            Progress::Run(scenario) => {
                self.runs += 1;
                self.until = now;
                let (qos, pace) = (scenario.qos().bits(), scenario.pace.describe());
                let (run, name) = (self.runs, scenario.name.escape_debug());
                writeln!(self.writer, "#[Run {run}: {name} QoS {qos}, {pace}]")
            }
            Progress::Second(_, latency) | Progress::Rest(_, latency) => self.second(latency, now),
            Progress::Result(result) => self.whole_run(result, now),
            Progress::Note(_) | Progress::Warning(_) | Progress::Found(_) => Ok(()),
        };
        self.failure = outcome.err();
    }

    /// Whether all of it is written.
    pub(crate) fn finish(mut self) -> Result<(), HistogramLogError> {
        let outcome = match self.failure {
            Some(failure) => Err(failure),
            None => self.writer.flush(),
        };
        outcome.map_err(|source| HistogramLogError { path: self.path, source })
    }

    fn second(&mut self, latency: &Latency, now: Duration) -> io::Result<()> {
        let from = std::mem::replace(&mut self.until, now);
        if latency.is_empty() {
            return Ok(());
        }
        self.interval("delivery", latency.histogram(), from, now.saturating_sub(from))
    }

    /// Everything that is not measured by the second.
    fn whole_run(&mut self, result: &RunResult, now: Duration) -> io::Result<()> {
        let length = Duration::try_from_secs_f64(result.measured_secs).unwrap_or_default();
        for (name, latency) in &result.latency_us {
            if let Some(tag) = tag(*name)
                && let Some(histogram) = latency.histogram()
            {
                self.interval(tag, &histogram, now.saturating_sub(length), length)?;
            }
        }
        Ok(())
    }

    fn interval(
        &mut self,
        tag: &str,
        histogram: &Histogram<u64>,
        from: Duration,
        length: Duration,
    ) -> io::Result<()> {
        let tag = if self.runs > 1 { format!("run{}-{tag}", self.runs) } else { tag.to_owned() };
        let mut serializer = V2DeflateSerializer::new();
        let mut log =
            IntervalLogWriterBuilder::new().begin_log_with(&mut self.writer, &mut serializer)?;
        match log.write_histogram(histogram, from, length, Tag::new(&tag)) {
            Err(IntervalLogWriterError::IoError(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
            Ok(()) => Ok(()),
        }
    }
}

/// What an interval of the whole run is called; `None` if its seconds are in the log.
fn tag(name: LatencyName) -> Option<&'static str> {
    Some(match name {
        LatencyName::ConnectToConnack => "connack",
        LatencyName::SubscribeToSuback => "suback",
        LatencyName::PublishToPuback => "puback",
        LatencyName::PublishToPubrec => "pubrec",
        LatencyName::PublishToPubcomp => "pubcomp",
        LatencyName::GeneratorLateness => "lateness",
        LatencyName::PublishToDelivery | LatencyName::ReturnToDelivery => return None,
    })
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::{
        result::{Second, histogram_of_text},
        scenario::{self, Overrides},
    };

    #[test]
    fn each_second_is_an_interval_that_can_be_read_back() {
        let now = SystemTime::now();
        let mut log = HistogramLog::begin(Vec::new(), PathBuf::new(), now).unwrap();
        let scenario = scenario::load("p2p", &Overrides::default()).unwrap();
        let second = Second::default();
        for _ in 0..2 {
            log.take(&Progress::Run(&scenario));
            for micros in [300, 70_000] {
                let mut latency = Latency::default();
                latency.add(0, micros * 1000);
                log.take(&Progress::Second(&second, &latency));
            }
            log.take(&Progress::Rest(&second, &Latency::default()));
        }
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&log.writer) {
            match entry.unwrap() {
                LogEntry::StartTime(since) | LogEntry::BaseTime(since) => {
                    let expected = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    assert!(since.abs_diff(expected) < Duration::from_millis(2));
                }
                LogEntry::Interval(one) => {
                    let histogram = histogram_of_text(one.encoded_histogram()).unwrap();
                    assert_eq!(histogram.len(), 1);
                    found.push((one.tag().unwrap().to_string(), histogram.max() / 100));
                }
            }
        }
        let of = |tag: &str, hundreds| (tag.to_owned(), hundreds);
        assert_eq!(
            found,
            [
                of("delivery", 3),
                of("delivery", 700),
                of("run2-delivery", 3),
                of("run2-delivery", 700)
            ]
        );
        let text = String::from_utf8(log.writer).unwrap();
        assert!(text.contains("#[Run 2: p2p QoS 0, window 512]"), "{text}");
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut log = HistogramLog {
            path: "x.hlog".into(),
            writer: Full,
            start: Instant::now(),
            runs: 0,
            until: Duration::ZERO,
            failure: None,
        };
        let mut latency = Latency::default();
        latency.add(0, 1000);
        log.take(&Progress::Second(&Second::default(), &latency));
        log.take(&Progress::Second(&Second::default(), &latency));
        assert!(log.finish().unwrap_err().to_string().starts_with("cannot write x.hlog: "));
    }
}
