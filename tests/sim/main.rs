//! A deterministic simulation of the whole broker: several shards, the lanes
//! between them, clients on a bad network, and rules that must hold whatever
//! happens. A failing interleaving is a seed.
//!
//! `RINGMQ_SIM_SEED=7 cargo test --test sim` replays one seed and prints all
//! that happens. `RINGMQ_SIM_SEEDS=100000 cargo test --test sim` tries many.

mod behavior;
mod client;
mod directed;
mod link;
mod oracle;
mod plan;
mod protocol;
mod random;
mod requests;
mod shell;
mod sim;
mod trace;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use crate::{trace::Trace, world::Stats};

#[test]
fn no_interleaving_breaks_a_rule() {
    if let Some(seed) = number_from_env("RINGMQ_SIM_SEED") {
        let stats = sim::run(seed, Trace::kept(true));
        eprintln!("seed {seed}: {stats:?}");
        return;
    }
    let seeds = number_from_env("RINGMQ_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in ONCE_FAILED {
        sim::run(seed, Trace::kept(false));
    }
    let start = Instant::now();
    let (total, failed) = run_all(seeds);
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{seeds} seeds in {seconds:.1} s: {total:?}");
    if let Some(seed) = failed {
        replay(seed);
    }
    assert!(total.moves > 0 && total.cuts > 0 && total.resumes > 0, "{total:?}");
}

/// Runs the seeds from 0 on all CPUs; tells the first that fails.
fn run_all(seeds: u64) -> (Stats, Option<u64>) {
    let next = AtomicU64::new(0);
    let first_failed = AtomicU64::new(u64::MAX);
    let total = Mutex::new(Stats::default());
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds || first_failed.load(Ordering::Relaxed) < seed {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| sim::run(seed, Trace::default()))) {
            Ok(stats) => total.lock().unwrap().add(&stats),
            Err(_) => _ = first_failed.fetch_min(seed, Ordering::Relaxed),
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failed = first_failed.into_inner();
    (total.into_inner().unwrap(), (failed < u64::MAX).then_some(failed))
}

/// Runs a failed seed again and tells what led to the failure.
fn replay(seed: u64) {
    let trace = Trace::kept(false);
    let result = catch_unwind(AssertUnwindSafe(|| sim::run(seed, trace.clone())));
    let Err(cause) = result else { panic!("seed {seed} failed once only: not deterministic") };
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or(cause.downcast_ref::<&str>().copied()).unwrap_or_default();
    panic!("seed {seed}: {text}\nlast events:\n{}", trace.last_lines());
}

fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Enough to meet every rule in a plain `cargo test`.
const SEEDS: u64 = 1_000;

/// Beyond those, seeds that have found something: all members that a message for a shared subscription was
/// passed on to had left in turn.
const ONCE_FAILED: [u64; 1] = [4683];
