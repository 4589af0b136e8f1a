//! What the broker has promised holds after kill -9: a random load with a checker of every promise,
//! and directed tests for each kind of state, for damaged logs and for full disks. From outside
//! only: real processes, sockets and files.

#[path = "../common/mod.rs"]
mod common;

mod book;
mod content;
mod damage;
mod directory;
mod disk;
mod fuse;
mod in_flight;
mod kills;
mod link;
mod payload;
mod power;
mod process;
mod publisher;
mod random;
mod retained;
mod run;
mod sessions;
mod shards;
mod subscriber;
mod timed;
mod world;
