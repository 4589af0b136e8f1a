//! The line that shows each second how a run is doing, on standard error: one that is written over
//! again and again on a terminal, one a second otherwise.

use std::io::{self, IsTerminal, Write};

use super::grouped;
use crate::{result::Second, scenario::Scenario};

/// The live line.
pub(crate) struct Live {
    is_terminal: bool,
    is_quiet: bool,
    /// Seconds that the run's load is to take, if it has an end, and its clients.
    secs: Option<f64>,
    clients: u64,
    /// Whether messages are sent, and whether they arrive here.
    sends: bool,
    receives: bool,
}

impl Live {
    /// One that shows nothing if it is quiet.
    pub(crate) fn new(is_quiet: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let (sends, receives) = (false, false);
        Self { is_terminal, is_quiet, secs: None, clients: 0, sends, receives }
    }

    /// Says something that is of interest before a run.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_quiet {
            let _ = writeln!(io::stderr(), "loadgen: {text}");
        }
    }

    /// Says something that matters, also if it is quiet.
    pub(crate) fn warn(&self, text: &str) {
        let _ = writeln!(io::stderr(), "loadgen: warning: {text}");
    }

    /// A run begins.
    pub(crate) fn begin(&mut self, scenario: &Scenario) {
        let secs = (scenario.warm + scenario.measure).as_secs_f64();
        self.secs = Some(secs).filter(|secs| *secs > 0.0 && !scenario.is_endless());
        self.clients =
            u64::from(scenario.publishers + scenario.subscribers) + u64::from(scenario.idle);
        self.sends = scenario.publishers > 0;
        self.receives = scenario.subscribers > 0 && (self.sends || !scenario.checked);
    }

    /// A second has passed.
    pub(crate) fn show(&self, second: &Second) {
        if self.is_quiet {
            return;
        }
        let mut line = format!("{:>4.0} s  ", second.at_secs);
        if second.connected < self.clients || !(self.sends || self.receives) {
            line +=
                &format!("connected {} of {}  ", grouped(second.connected), grouped(self.clients));
        }
        if self.sends {
            line += &format!("sent {:>9}/s  ", grouped(second.sent));
        }
        if self.receives {
            line += &format!(
                "delivered {:>9}/s  latency p50 {} us, p99 {} us",
                grouped(second.delivered),
                grouped(second.p50_us),
                grouped(second.p99_us),
            );
        }
        if let Some(broker) = second.broker_cpu {
            line += &format!("  broker {:.0} % CPU", broker * 100.0);
        }
        let line = line.trim_end();
        // Nothing is lost with it if nobody can read it.
        let _ = if self.is_terminal {
            write!(io::stderr(), "\r\x1b[K{}{line}", self.bar(second.at_secs))
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    /// A run has ended: what comes next begins on a clean line.
    pub(crate) fn end(&self) {
        if self.is_terminal && !self.is_quiet {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn bar(&self, at_secs: f64) -> String {
        let Some(secs) = self.secs else { return String::new() };
        let full = ((at_secs / secs).clamp(0.0, 1.0) * BAR_CELLS as f64) as usize;
        format!("[{}{}] ", "#".repeat(full), ".".repeat(BAR_CELLS - full))
    }
}

const BAR_CELLS: usize = 20;
