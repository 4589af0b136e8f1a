//! How far a start has come that takes long: a line every two seconds while logs are read, and while they are
//! written anew.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tracing::info;

/// How far reading has come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) total: u64,
    pub(super) done: AtomicU64,
    /// The shard whose log was looked at last.
    pub(super) shard: AtomicUsize,
}

impl Progress {
    pub(super) fn tell(&self) {
        let done = self.done.load(Ordering::Relaxed);
        let shard = self.shard.load(Ordering::Relaxed);
        info!("recovering: {:.1} of {:.1} GiB, shard {shard}", gib(done), gib(self.total));
    }
}

/// How far writing anew has come.
pub(super) struct RewriteProgress {
    total: u64,
    /// Bytes of the old logs that have been gone through.
    done: u64,
    /// Bytes of the new ones.
    written: u64,
    tell_at: Instant,
}

impl RewriteProgress {
    /// Of old logs with so many bytes.
    pub(super) fn new(total: u64, now: Instant) -> Self {
        Self { total, done: 0, written: 0, tell_at: now + PROGRESS_EVERY }
    }

    /// So many bytes more; tells it from time to time.
    pub(super) fn add(&mut self, done: u64, written: u64) {
        if let Some(line) = self.line(done, written, Instant::now()) {
            info!("{line}");
        }
    }

    fn line(&mut self, done: u64, written: u64, now: Instant) -> Option<String> {
        self.done += done;
        self.written += written;
        if now < self.tell_at {
            return None;
        }
        self.tell_at = now + PROGRESS_EVERY;
        let (done, total, written) = (gib(self.done), gib(self.total), gib(self.written));
        Some(format!(
            "writing the logs anew: {done:.1} of {total:.1} GiB gone through, {written:.1} GiB written"
        ))
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Between two lines.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_anew_is_told_every_two_seconds() {
        let began = Instant::now();
        let mut progress = RewriteProgress::new(4 << 30, began);
        let mut line = |millis, done, written| {
            progress.line(done, written, began + Duration::from_millis(millis))
        };
        assert_eq!(line(1999, 1 << 29, 0), None);
        let told = |done, written| {
            Some(format!(
                "writing the logs anew: {done} of 4.0 GiB gone through, {written} GiB written"
            ))
        };
        assert_eq!(line(2000, 1 << 29, 1 << 29), told("1.0", "0.5"));
        assert_eq!(line(3999, 1 << 30, 0), None);
        assert_eq!(line(4001, 0, 1 << 30), told("2.0", "1.5"));
    }
}
