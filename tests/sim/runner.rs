//! Runs many seeds on all CPUs, tells how far it is, and reports the first
//! seed that fails with what is left of it after shrinking.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    script::{Case, Recording},
    shrink, sim,
    trace::Trace,
    world::Stats,
};

/// Runs `count` seeds from `first` on; panics with a report if one fails.
pub(crate) fn run_seeds(first: u64, count: u64) -> Stats {
    let work = Work {
        end: first.saturating_add(count),
        next: AtomicU64::new(first),
        failed: AtomicU64::new(u64::MAX),
        total: Mutex::default(),
    };
    let is_over = AtomicBool::new(false);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run())).collect();
        let teller = scope.spawn(|| work.tell(first, start, &is_over));
        for worker in workers {
            worker.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        teller.thread().unpark();
    });
    let failed = work.failed.into_inner();
    if failed < u64::MAX {
        report(failed);
    }
    let total = work.total.into_inner().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{count} seeds in {seconds:.1} s, {:.0}/s: {total:?}", count as f64 / seconds);
    total
}

/// The violation that a case ends with, if it does; nothing is printed.
pub(crate) fn violation_of(
    case: &Case,
    trace: Trace,
    recording: Option<&Recording>,
) -> Result<Stats, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                loud(panic);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| sim::run(case, trace, recording)));
    IS_QUIET.set(false);
    result.map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        text.or(cause.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
    })
}

thread_local! {
    /// Whether a panic is looked at by [`violation_of`].
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

struct Work {
    end: u64,
    next: AtomicU64,
    /// The lowest seed that has failed.
    failed: AtomicU64,
    total: Mutex<Stats>,
}

impl Work {
    fn run(&self) {
        let mut total = Stats::default();
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end || self.failed.load(Ordering::Relaxed) < seed {
                break;
            }
            match violation_of(&Case::of_seed(seed), Trace::default(), None) {
                Ok(stats) => total.add(&stats),
                Err(_) => _ = self.failed.fetch_min(seed, Ordering::Relaxed),
            }
        }
        self.total.lock().unwrap().add(&total);
    }

    /// A line now and then while it takes long.
    fn tell(&self, first: u64, start: Instant, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            thread::park_timeout(TELL_EVERY);
            let done = self.next.load(Ordering::Relaxed).min(self.end) - first;
            let seconds = start.elapsed().as_secs_f64();
            if seconds >= TELL_EVERY.as_secs_f64() && !is_over.load(Ordering::Relaxed) {
                let count = self.end - first;
                let rate = done as f64 / seconds;
                let left = (count - done) as f64 / rate.max(1.0);
                eprintln!("{done} of {count} seeds, {rate:.0}/s, {left:.0} s left");
            }
        }
    }
}

/// Panics with all that is to be known of a seed that has failed.
fn report(seed: u64) -> ! {
    let case = Case::of_seed(seed);
    let Some(shrunk) = shrink::shrink(&case) else {
        panic!("seed {seed} failed once only: not deterministic")
    };
    let trace = Trace::kept(false);
    let again = violation_of(&shrunk.case, trace.clone(), None);
    panic!(
        "seed {seed}: {}\n\
         replay: RINGMQ_SIM_SEED={seed} cargo test --test sim -- --nocapture\n\
         shrunk in {} tries from {} beats to {}, clients left out: {:?}; it ends with: {}\n\
         last events of what is left:\n{}",
        shrunk.violation,
        shrunk.tries,
        shrunk.beats_before,
        shrunk.case.script.as_ref().map_or(0, |script| script.len()),
        shrunk.case.absent,
        again.err().unwrap_or_default(),
        trace.last_lines()
    );
}

const TELL_EVERY: Duration = Duration::from_secs(10);
