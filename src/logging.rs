//! The log: `tracing` events as lines on standard error.
//!
//! Owns the form of a line. Lines are written by a thread of their own from a
//! bounded buffer: a reader of standard error that stalls, or is gone, loses
//! lines (counted, told at the end) and stops nothing. Knows no module that logs.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::{SubscriberBuilder, format::Writer, time::FormatTime};

use crate::config::{LogConfig, LogFormat};

/// Keeps the log going; dropped at the end of the process, it writes what is
/// still in the buffer, for a second at most.
#[must_use]
pub struct LogGuard {
    lost: ErrorCounter,
    _writer: WorkerGuard,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let lines = self.lost.dropped_lines();
        if lines > 0 {
            tracing::warn!(lines, "log lines were lost: standard error was not read fast enough");
        }
    }
}

/// Starts logging for the whole process. Of several calls the first one counts.
///
/// The `log` crate is not connected: its users here (glommio) trace their own
/// turns there, which no operator can act on.
pub fn init(config: &LogConfig) -> LogGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("ringmq-log")
        .finish(Lines(io::stderr()));
    let lost = writer.error_counter();
    let lines = SubscriberBuilder::default()
        .with_max_level(config.level)
        .with_writer(writer)
        .with_timer(UtcMillis)
        .with_ansi(false)
        .with_target(false)
        // Its complaint about a failed write would go to standard error, and panic there.
        .log_internal_errors(false);
    let first = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(lines.finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish())
        }
    };
    // An error says that logging has been started before, which is allowed.
    drop(first);
    LogGuard { lost, _writer: guard }
}

/// Lines that wait for standard error. Further ones are lost.
const LINES_MAX: usize = 16 * 1024;

/// Takes whole lines, one a call, and never fails.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Nobody is left to tell when the log itself cannot be written.
        let _ = self.0.write_all(one_line(&String::from_utf8_lossy(line)).as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes control characters visible. Client ids and topics come from strangers:
/// none may forge a line of the log or steer the terminal that shows it.
fn one_line(line: &str) -> Cow<'_, str> {
    let text = line.strip_suffix('\n').unwrap_or(line);
    if !text.contains(char::is_control) {
        return Cow::Borrowed(line);
    }
    let mut clean = String::with_capacity(line.len() + 16);
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean.push('\n');
    Cow::Owned(clean)
}

/// Time stamps like `2026-03-01T08:05:09.042Z` (RFC 3339).
struct UtcMillis;

impl FormatTime for UtcMillis {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        // A clock before 1970 is no reason to stop logging.
        write_utc(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), writer)
    }
}

/// A time of day, with the form of those in the log.
pub(crate) fn write_utc(since_1970: Duration, writer: &mut impl fmt::Write) -> fmt::Result {
    let secs = since_1970.as_secs();
    let (year, month, day) = date(secs / SECS_PER_DAY);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    let millis = since_1970.subsec_millis();
    write!(writer, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Gregorian year, month and day, `days` after 1970-01-01.
///
/// Counts in years that begin on 1 March: the leap day is then the last day of
/// its year, and the lengths of the months follow (153 m + 2) / 5.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_0000_03_01_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let leap_days_before =
        day_of_era / 1460 - day_of_era / 36_524 + day_of_era / (DAYS_PER_400_YEARS - 1);
    let year_of_era = (day_of_era - leap_days_before) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

const SECS_PER_DAY: u64 = 86_400;
const DAYS_PER_400_YEARS: u64 = 146_097;
const DAYS_0000_03_01_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_rfc_3339_with_millis() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_001, "2000-03-01T00:00:00.001Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_767_225_599_042, "2025-12-31T23:59:59.042Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut text = String::new();
            write_utc(Duration::from_millis(millis), &mut text).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn consecutive_days_have_consecutive_dates() {
        let mut before = date(0);
        for day in 1..200_000 {
            let now = date(day);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            let next_year = (before.0 + 1, 1, 1);
            assert!([next_day, next_month, next_year].contains(&now), "{before:?} {now:?}");
            before = now;
        }
    }

    #[test]
    fn strangers_cannot_forge_lines() {
        assert!(matches!(one_line("plain é\n"), Cow::Borrowed("plain é\n")));
        assert_eq!(one_line("a\nERROR b\r\u{1b}[2J\u{9b}\n"), "a\\nERROR b\\r\\u{1b}[2J\\u{9b}\n");
    }

    #[test]
    fn a_failing_writer_goes_unnoticed() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        assert_eq!(Lines(Closed).write(b"line\n").unwrap(), 5);
        assert!(Lines(Closed).flush().is_ok());
    }
}
