//! Many clients, many messages, many idle connections, long queues on disk. Nothing here shares code
//! with the broker: the few packets needed are written by hand in `lean`.

#[path = "../common/mod.rs"]
mod common;

mod durable;
mod exactly_once;
mod idle;
mod large;
mod lean;
mod retained;
mod size;
mod throughput;

use std::sync::{Mutex, MutexGuard};

/// Each test wants the machine for itself.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that the next could trip over.
    MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
