//! Steps of the memory budget: publishers wait and lose nothing, subscribers are served meanwhile, and who is refused
//! is told so.

use ringmq::{
    base::{MemoryLevel, limits},
    broker::DropReason,
    codec::{Connect, Packet, Properties, Version},
};

use crate::{
    book::Word,
    directed::{Pair, SHARDS, run, send},
    link::Place,
};

impl Pair {
    fn set_level(&mut self, level: MemoryLevel) {
        let now = self.world.now;
        for shard in SHARDS {
            self.world.touch(shard).set_memory_level(now, level);
        }
    }
}

#[test]
fn publishers_wait_while_memory_is_short_and_go_on_in_order() {
    for level in [MemoryLevel::PublishersWait, MemoryLevel::NoNewClients, MemoryLevel::SlowestLeave]
    {
        let mut pair = Pair::new(3);
        pair.publish(5, 100);
        run(&mut pair.world);
        pair.set_level(level);
        pair.publish(5, 100);
        // What comes from a subscriber is answered all the same.
        for link in pair.subscribers {
            send(&mut pair.world, link, &Packet::PingReq);
        }
        run(&mut pair.world);
        for link in pair.publishers {
            assert!(pair.world.links[link].paused, "{level:?}");
        }
        for subscriber in [0, 1] {
            assert_eq!(pair.received(subscriber), (0..5).collect::<Vec<u32>>(), "{level:?}");
            let link = &pair.world.links[pair.subscribers[subscriber]];
            assert!(!link.paused && link.outbound.iter().rev().take(2).eq(&[0, 0xd0]));
        }
        pair.set_level(MemoryLevel::Normal);
        run(&mut pair.world);
        pair.world.check_quiet();
        for subscriber in [0, 1] {
            let expected: Vec<u32> = (0..5).chain(0..5).collect();
            assert_eq!(pair.received(subscriber), expected, "{level:?}");
        }
    }
}

#[test]
fn when_nothing_helps_publications_are_read_and_refused() {
    let mut pair = Pair::new(4);
    pair.set_level(MemoryLevel::PublishersWait);
    pair.publish(7, 100);
    run(&mut pair.world);
    pair.set_level(MemoryLevel::Full);
    run(&mut pair.world);
    pair.world.check_quiet();
    for (at, shard) in SHARDS.into_iter().enumerate() {
        assert!(pair.received(at).is_empty());
        let summary = pair.world.broker(shard).summary();
        assert_eq!(summary.counters().drops(DropReason::Memory), 7);
    }
}

#[test]
fn new_clients_are_refused_from_the_second_step_on() {
    for (level, expected) in [(MemoryLevel::PublishersWait, 0), (MemoryLevel::NoNewClients, 3)] {
        let mut pair = Pair::new(5);
        pair.set_level(level);
        let link = pair.world.connect_to(SHARDS[0], usize::MAX);
        pair.world.links[link].room = usize::MAX;
        let connect = Connect {
            version: Version::V311,
            clean_start: true,
            keep_alive_secs: 0,
            client_id: "late",
            properties: Properties::EMPTY,
            will: None,
            user_name: None,
            password: None,
        };
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(Version::V311, &mut bytes);
        pair.world.write(link, Word::Other, &bytes);
        run(&mut pair.world);
        assert_eq!(pair.world.links[link].outbound, [0x20, 2, 0, expected]);
        assert_eq!(pair.world.links[link].place == Place::Gone, expected > 0);
    }
}

/// A subscriber that takes nothing loses its connection, the others keep theirs.
#[test]
fn the_one_with_most_waiting_is_disconnected() {
    let mut pair = Pair::new(6);
    let [stuck, _] = pair.subscribers;
    pair.world.links[stuck].room = 0;
    let bytes = limits::MEMORY_DISCONNECT_BYTES_MIN;
    pair.publish(3, bytes);
    run(&mut pair.world);
    let now = pair.world.now;
    let freed: u64 =
        SHARDS.map(|shard| pair.world.touch(shard).disconnect_slowest(now, 1)).iter().sum();
    assert!(freed >= 3 * bytes as u64, "{freed}");
    run(&mut pair.world);
    assert!(pair.world.links[stuck].place == Place::Gone);
    for link in [pair.subscribers[1], pair.publishers[0], pair.publishers[1]] {
        assert!(pair.world.links[link].place != Place::Gone);
    }
}
