//! Clients that others wrote, unmodified, against the real binary: the tools of Debian's
//! mosquitto-clients as child processes, and rumqttc; on one shard and on four.

#[path = "../common/mod.rs"]
mod common;

mod log_lines;
mod mosquitto;
mod rumqttc_clients;
mod tool;
