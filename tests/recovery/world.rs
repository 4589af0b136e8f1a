//! The stage of a directed test: one directory, one broker at a time on it, and literal clients.

use std::fs;
use std::path::PathBuf;

use crate::common::RawClient;
use crate::process::{Ending, Process, Recipe, Scratch};

pub(crate) struct World {
    // Before the folder, so that it has ended when that goes.
    process: Option<Process>,
    pub(crate) recipe: Recipe,
    ending: Ending,
    pub(crate) scratch: Scratch,
}

impl World {
    pub(crate) fn new(shards: usize, ending: Ending) -> Self {
        Self::with(shards, ending, &[])
    }

    pub(crate) fn with(shards: usize, ending: Ending, settings: &[&str]) -> Self {
        let scratch = Scratch::new();
        let recipe = Recipe::ringmq(&scratch, shards, settings);
        let process = Some(recipe.start());
        Self { process, recipe, ending, scratch }
    }

    pub(crate) fn port(&self) -> u16 {
        self.recipe.port
    }

    /// What the running broker has logged.
    #[track_caller]
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().expect("it runs").log()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.scratch.data()
    }

    /// Ends the broker.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("it runs").end(self.ending);
    }

    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "it still runs");
        self.process = Some(self.recipe.start());
    }

    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    #[track_caller]
    pub(crate) fn restart_with_shards(&mut self, shards: usize) {
        self.stop();
        self.recipe = self.recipe.clone().with_shards(shards);
        self.start();
    }

    /// A v5 client with a new session of five minutes.
    #[track_caller]
    pub(crate) fn newcomer(&self, id: &str) -> RawClient {
        let (client, present) = RawClient::v5_resume(self.port(), id);
        assert!(!present, "{id} has a session already");
        client
    }

    /// A v5 client that comes back to its session.
    #[track_caller]
    pub(crate) fn back(&self, id: &str) -> RawClient {
        let (client, present) = RawClient::v5_resume(self.port(), id);
        assert!(present, "the session of {id} is gone");
        client
    }

    /// A new v5 client with a session of five minutes and a subscription, gone again.
    #[track_caller]
    pub(crate) fn absentee(&self, id: &str, filter: &str, qos: u8) {
        let mut client = self.newcomer(id);
        subscribe(&mut client, filter, qos);
        client.send("e0 00");
        client.expect_closed();
    }

    /// Publishes with these properties in the notation, until the broker has acknowledged.
    #[track_caller]
    pub(crate) fn publish_with(
        &self,
        first_byte: u8,
        topic: &str,
        properties: &str,
        payload: &str,
    ) {
        let mut client = RawClient::v5(self.port(), "a passing publisher");
        client.send(&format!("{first_byte:02x} ( '{topic}' 0001 ( {properties} ) `{payload}` )"));
        match first_byte >> 1 & 3 {
            1 => client.expect_ack(0x40, "0001"),
            _ => {
                client.expect_ack(0x50, "0001");
                client.send("62 02 0001");
                client.expect_ack(0x70, "0001");
            }
        }
    }

    #[track_caller]
    pub(crate) fn publish(&self, qos: u8, topic: &str, payload: &str) {
        self.publish_with(0x30 | qos << 1, topic, "", payload);
    }

    /// All files below the data directory with their sizes, in order.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut folders = vec![self.data()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let metadata = entry.metadata().expect("a file that nobody deletes");
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push((entry.path(), metadata.len()));
                }
            }
        }
        found.sort();
        found
    }
}

/// SUBSCRIBE of a v5 client, granted.
#[track_caller]
pub(crate) fn subscribe(client: &mut RawClient, filter: &str, qos: u8) {
    client.send(&format!("82 ( 7fff () '{filter}' {qos:02x} )"));
    client.expect(&format!("90 ( 7fff () {qos:02x} )"));
}

/// The next packet is this QoS 2 delivery; the whole exchange. Returns its identifier.
#[track_caller]
pub(crate) fn take_qos_2(client: &mut RawClient, topic: &str, payload: &str) -> String {
    let id = client.expect(&format!("34 ( '{topic}' ???? () `{payload}` )"));
    client.send(&format!("50 02 {id}"));
    client.expect_ack(0x62, &id);
    client.send(&format!("70 02 {id}"));
    id
}

/// Runs each named `fn(&mut World)` on one and two shards, ended by SIGKILL and by SIGTERM.
macro_rules! survives {
    ($($name:ident;)+) => {$(
        mod $name {
            use crate::{process::Ending, world::World};

            #[test]
            fn one_shard() {
                super::$name(&mut World::new(1, Ending::Kill));
            }

            #[test]
            fn two_shards() {
                super::$name(&mut World::new(2, Ending::Kill));
            }

            #[test]
            fn two_shards_sigterm() {
                super::$name(&mut World::new(2, Ending::Terminate));
            }
        }
    )+};
}
pub(crate) use survives;
