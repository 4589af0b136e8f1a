//! ringmq: a thread-per-core MQTT broker on io_uring. Modules in layer order;
//! each imports only from those above it (`tests/tidy.rs` checks that).

pub mod base;
pub mod config;
pub mod topic;
