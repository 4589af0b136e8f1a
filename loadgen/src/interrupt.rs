//! Ctrl-C: a flag, and a descriptor that wakes the run from its sleep. The only second thread.

use std::{
    fs::File,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use ringmq::shard::new_eventfd;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Whether the user wants the run to end.
pub(crate) struct Interrupt {
    asked: AtomicBool,
    wake: Arc<File>,
}

impl Interrupt {
    /// Watches SIGINT and SIGTERM. The first asks the run to end, the second ends the process.
    pub(crate) fn watch() -> io::Result<Arc<Self>> {
        let interrupt = Arc::new(Self { asked: AtomicBool::new(false), wake: new_eventfd()? });
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let asked = interrupt.clone();
        thread::Builder::new().name("loadgen-signals".to_owned()).spawn(move || {
            for signal in &mut signals {
                if asked.asked.swap(true, Ordering::AcqRel) {
                    std::process::exit(128 + signal);
                }
                // Fails only if the counter is full, and then the run is awake already.
                let _ = (&*asked.wake).write(&1_u64.to_ne_bytes());
            }
        })?;
        Ok(interrupt)
    }

    /// Whether the run should end early.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// The eventfd that becomes readable when it is asked.
    pub(crate) fn wake(&self) -> &File {
        &self.wake
    }
}
