//! What happened lately, for the report of a failure. Off unless a seed is
//! replayed: then texts are made at all.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

/// A log of the last events, shared between the world and the report.
#[derive(Clone, Default)]
pub(crate) struct Trace(Option<Rc<Log>>);

struct Log {
    lines: RefCell<VecDeque<String>>,
    prints: bool,
}

impl Trace {
    /// A log that keeps the last lines and, if asked, prints each at once.
    pub(crate) fn kept(prints: bool) -> Self {
        Self(Some(Rc::new(Log { lines: RefCell::default(), prints })))
    }

    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        let Some(log) = &self.0 else { return };
        let line = line();
        if log.prints {
            eprintln!("{line}");
        }
        let mut lines = log.lines.borrow_mut();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(crate) fn last_lines(&self) -> String {
        let Some(log) = &self.0 else { return String::new() };
        log.lines.borrow().iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

const LINES_MAX: usize = 300;
