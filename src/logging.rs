//! The log: `tracing` events as lines on standard error.
//!
//! Owns the form of a line. Lines are written by a thread of their own from a
//! bounded buffer: a reader of standard error that stalls, or is gone, loses
//! lines (counted, told at the end) and stops nothing. Knows no module that logs.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    borrow::Cow,
    fmt,
    io::{self, Write},
    panic::{self, PanicHookInfo},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracing::error;
use tracing_subscriber::fmt::{SubscriberBuilder, format::Writer, time::FormatTime};

use crate::config::{LogConfig, LogFormat};

/// Keeps the log going; dropped at the end of the process, it waits until what
/// is still in the buffer is written, for a second at most.
#[must_use]
pub struct LogGuard(Lines);

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.flush_within(FLUSH_MAX);
        let lines = self.0.lost.load(Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "log lines were lost: standard error was not read fast enough");
            self.0.flush_within(FLUSH_MAX);
        }
    }
}

/// Starts logging for the whole process, panics included. Of several calls the first one counts.
///
/// The `log` crate is not connected: its users here (glommio) trace their own
/// turns there, which no operator can act on.
pub fn init(config: &LogConfig) -> LogGuard {
    let writer = Lines::write_to(io::stderr());
    let guard = LogGuard(writer.clone());
    let lines = SubscriberBuilder::default()
        .with_max_level(config.level)
        .with_writer(move || writer.clone())
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
    panic::set_hook(Box::new(|panic| {
        error!("{}", panic_text(panic));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            trace.to_string().lines().for_each(|line| error!("{line}"));
        }
    }));
    guard
}

/// What is logged of a panic. It does not go to standard error by itself: there, it would wait for a reader
/// that stalls, and with it the thread whose end others are to hear of.
fn panic_text(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let text = panic.payload().downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
    format!("thread {name} panicked{place}: {}", text.unwrap_or("no message"))
}

/// Lines that wait for standard error. Further ones are lost.
const LINES_MAX: usize = 16 * 1024;

/// Bytes of them: client ids and topics of strangers can be long.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Time that the end of the process leaves them.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Takes whole lines, one a write, and neither waits nor fails. A thread writes them.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Queued>,
    waiting_bytes: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

enum Queued {
    Line(Vec<u8>),
    /// All before it is written.
    Mark(Sender<()>),
}

impl Lines {
    fn write_to(mut out: impl Write + Send + 'static) -> Self {
        let (queue, queued) = sync_channel(LINES_MAX);
        let (lost, waiting_bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (lines_lost, waiting) = (lost.clone(), waiting_bytes.clone());
        let write = move || {
            for next in queued {
                match next {
                    Queued::Line(line) => {
                        let text = String::from_utf8_lossy(&line);
                        if write_patiently(&mut out, one_line(&text).as_bytes()).is_err() {
                            lines_lost.fetch_add(1, Ordering::Relaxed);
                        }
                        waiting.fetch_sub(line.len(), Ordering::Relaxed);
                    }
                    Queued::Mark(reached) => {
                        let _ = reached.send(());
                    }
                }
            }
        };
        // Without it all lines are lost, and counted.
        let _ = thread::Builder::new().name("ringmq-log".to_owned()).spawn(write);
        Self { queue, waiting_bytes, lost }
    }

    /// Waits until all lines so far are written, but no longer than that.
    fn flush_within(&self, max: Duration) {
        let until = Instant::now() + max;
        let (reached, is_reached) = channel();
        let mut mark = Queued::Mark(reached);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(mark) {
            if Instant::now() >= until {
                return;
            }
            mark = back;
            thread::sleep(FULL_PAUSE);
        }
        let _ = is_reached.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Until the next look whether there is room.
const FULL_PAUSE: Duration = Duration::from_millis(1);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let waiting = self.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let has_room = waiting + line.len() <= BYTES_MAX;
        if !has_room || self.queue.try_send(Queued::Line(line.to_vec())).is_err() {
            self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of a line, also to what others have made not to block: there, half of one would be left.
fn write_patiently(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    fn a_panic_is_one_text() {
        let (told, heard) = std::sync::mpsc::channel();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| match thread::current().name() {
            Some("fails") => drop(told.send(panic_text(panic))),
            _ => before(panic),
        }));
        let thread = thread::Builder::new().name("fails".to_owned());
        let joined = thread.spawn(|| panic!("no {}", "luck")).unwrap().join();
        assert!(joined.is_err());
        let text = heard.recv().unwrap();
        assert!(text.starts_with("thread fails panicked at src/logging.rs:"), "{text}");
        assert!(text.ends_with(": no luck"), "{text}");
    }

    #[test]
    fn a_failing_writer_loses_lines_and_stops_nothing() {
        struct Closed(Sender<()>);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let (told, heard) = channel();
        let mut lines = Lines::write_to(Closed(told));
        assert_eq!((lines.write(b"one\n").unwrap(), lines.write(b"two\n").unwrap()), (4, 4));
        lines.flush_within(Duration::from_secs(60));
        assert_eq!(heard.try_iter().count(), 2);
        assert_eq!(lines.lost.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_writer_that_does_not_block_gets_whole_lines_and_long_ones_have_a_bound() {
        struct Slow(Sender<Vec<u8>>, bool);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let some = bytes.len().min(3);
                let _ = self.0.send(bytes[..some].to_vec());
                Ok(some)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (told, heard) = channel();
        let mut lines = Lines::write_to(Slow(told, false));
        lines.write_all(b"one line\n").unwrap();
        lines.write_all(&vec![b'x'; BYTES_MAX + 1]).unwrap();
        lines.write_all(b"another\n").unwrap();
        lines.flush_within(Duration::from_secs(60));
        assert_eq!(heard.try_iter().flatten().collect::<Vec<_>>(), b"one line\nanother\n");
        assert_eq!(lines.lost.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_writer_that_stalls_loses_what_the_buffer_cannot_hold() {
        struct Stalled(std::sync::mpsc::Receiver<()>);
        impl Write for Stalled {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(0)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (stalls, until) = channel();
        let mut lines = Lines::write_to(Stalled(until));
        for _ in 0..LINES_MAX + 10 {
            assert_eq!(lines.write(b"line\n").unwrap(), 5);
        }
        // One may be on its way.
        assert!((9..=10).contains(&lines.lost.load(Ordering::Relaxed)));
        lines.flush_within(Duration::from_millis(5));
        drop(stalls);
    }
}
