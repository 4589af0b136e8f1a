//! The `loadgen` program against real brokers, and against small ones that break the rules.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod endings;
mod faults;
mod harness;
mod layers;
mod load;
mod sessions;
mod stalls;
