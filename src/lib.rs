//! ringmq: a thread-per-core MQTT broker on io_uring. Modules in layer order;
//! each imports only from those above it (`tests/tidy.rs` checks that).

pub mod base;
pub mod topic;
pub mod config;
pub mod codec;
pub mod message;
pub mod auth;
pub mod listener;
pub mod storage;
pub mod session;
pub mod broker;
#[doc(hidden)]
pub mod shard;
pub mod data_dir;
pub mod certificates;
pub mod server;
pub mod logging;
pub mod memory_there_is;
pub mod preflight;
pub mod privileges;
pub mod passwd;
pub mod explain;
pub mod import;
pub mod inspect;
pub mod repair;
pub mod cli;
