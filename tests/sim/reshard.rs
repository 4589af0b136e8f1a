//! A restart with another number of shards: the logs are written anew by the broker's own code, and all of them
//! together must amount to what they did before.

use std::collections::BTreeMap;

use ringmq::{
    base::{ShardId, home_of},
    data_dir::{NewLogs, Resharding},
    storage::{Delivery, LogId, RecoveredLog, RecoveredSession, RecoveredShard, Write},
};

use crate::{client::Client, disk::Disk, message::message_number, oracle::Oracle, world::World};

/// The machine comes back with so many shards.
pub(crate) fn reshard(
    world: &mut World,
    oracle: &mut Oracle,
    clients: &[Client],
    old: Vec<RecoveredLog>,
    shards: u16,
) -> Vec<RecoveredLog> {
    let old: Vec<_> = old.into_iter().map(|log| log.shard).collect();
    let storage = world.storage.expect("a world with disks");
    let generation = world.disks[0].id.generation + 1;
    let new = NewLogs {
        generation,
        seed: world.setup.seed,
        shards,
        segment_bytes: storage.segment_bytes,
        bytes_max: storage.bytes_max,
    };
    let log_id = |shard| LogId { generation, shard: ShardId(shard) };
    let mut disks: Vec<_> =
        (0..shards).map(|shard| Disk::new(log_id(shard), storage.pace)).collect();
    let mut put = |shard: ShardId, write: &Write| {
        disks[shard.index()].store(write);
        Ok(())
    };
    let mut resharding = Resharding::new(&old, new, World::origin(), &mut put).unwrap();
    for disk in &world.disks {
        for (segment, bytes) in disk.files() {
            resharding.add_segment(disk.id, segment, bytes).unwrap();
        }
    }
    resharding.finish().unwrap();
    world.trace.note(|| format!("-- {} shards become {shards}", old.len()));
    world.stats.reshardings += 1;
    world.disks = disks;
    world.set_shards(shards);
    let logs = world.recover();
    check_sessions(world, clients, &old, &logs);
    oracle.follow_delayed(&logs);
    oracle.check_retained(&logs);
    logs
}

/// Rule 22 for sessions: all of them are there, each on its home.
fn check_sessions(
    world: &mut World,
    clients: &[Client],
    old: &[RecoveredShard],
    new: &[RecoveredLog],
) {
    let before = old.iter().flat_map(|shard| &shard.sessions);
    let mut before: BTreeMap<_, _> =
        before.map(|session| (session.client.as_str(), session)).collect();
    for (at, log) in new.iter().enumerate() {
        for session in &log.shard.sessions {
            let (name, shard) = (session.client.as_str(), ShardId(at as u16));
            assert_eq!(
                home_of(world.setup.seed, world.setup.shards, name),
                shard,
                "rule 22: {name} is not at home"
            );
            let was = before.remove(name);
            check_session(was.expect("rule 22: a session that was there"), session);
            let client = clients.iter().find(|client| client.profile.name == name);
            world.book.follow(client.expect("a known client").index, shard);
        }
    }
    assert!(before.is_empty(), "rule 22: sessions are lost: {:?}", before.keys());
}

/// It may only have got more deliveries, from messages that were between two shards.
fn check_session(old: &RecoveredSession, new: &RecoveredSession) {
    let told = |session: &RecoveredSession| {
        let will = session.will.as_ref().map(|will| {
            let number = message_number(will.publication.message().payload);
            (number, will.message_expiry_secs, will.delay_secs, will.due_at)
        });
        let deliveries = session.deliveries.iter().take(old.deliveries.len());
        let states = deliveries.map(|slot| match slot.get() {
            Delivery::Message(_) => "message",
            Delivery::Received => "received",
            Delivery::Done => "done",
        });
        let connection = (
            (session.user_name.clone(), session.is_proven),
            (session.groups.clone(), session.address),
            session.expiry_secs,
        );
        let exchanges = (session.received.clone(), session.first, session.sent);
        let own = (connection, session.detached_at, will, exchanges);
        format!("{own:?} {:?} {:?}", session.subscriptions, states.collect::<Vec<_>>())
    };
    assert_eq!(told(old), told(new), "rule 22: {} is not as it was", old.client.as_str());
    assert!(old.next() <= new.next(), "rule 22: {} has lost deliveries", old.client.as_str());
}

impl Oracle {
    /// Rule 22 for delayed publications, which wait on other shards now.
    fn follow_delayed(&mut self, logs: &[RecoveredLog]) {
        let mut waiting = std::mem::take(&mut self.delayed);
        for (at, log) in logs.iter().enumerate() {
            for delayed in &log.shard.delayed {
                let message = delayed.publication.message();
                let due_at = World::time_of(delayed.due_at);
                let mut same = waiting.iter().filter(|((_, due, _), _)| *due == due_at);
                let same = same.find(|(_, number)| match message_number(message.payload) {
                    Some(found) => found == **number,
                    None => self.clears(**number, message.topic.as_str()),
                });
                let (&key, &number) = same.expect("rule 22: it was delayed");
                waiting.remove(&key);
                self.delayed_in_all += 1;
                self.delayed.insert((ShardId(at as u16), due_at, self.delayed_in_all), number);
            }
        }
        assert!(waiting.is_empty(), "rule 22: delayed publications are lost: {waiting:?}");
    }

    /// Rule 22 for retained messages, those included that were on their way to their homes.
    fn check_retained(&self, logs: &[RecoveredLog]) {
        let stored = logs.iter().flat_map(|log| &log.shard.retained);
        let found: BTreeMap<_, _> = stored
            .filter_map(|one| {
                let message = one.publication.message();
                let number = message_number(message.payload);
                Some((self.plan.topic_of(message.topic.as_str()), number?))
            })
            .collect();
        for (topic, _) in
            self.plan.topics.iter().enumerate().filter(|(_, one)| one.retained.is_some())
        {
            let (found, known) = (found.get(&topic), self.retained.get(&topic));
            assert_eq!(found, known, "rule 22: retained on {}", self.plan.topics[topic].name);
        }
    }
}
