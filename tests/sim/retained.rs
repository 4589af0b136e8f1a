//! New subscriptions while retained messages are published, some of which are held up between two
//! shards: what comes live does not come from the store, and nothing older follows it.

use ringmq::{
    base::{ShardId, limits},
    config::Policy,
};

use crate::{
    directed::{CHUNK_MAX, connect, run},
    link::LinkId,
    random::Random,
    requests::{TOPICS, publish, publish_all, received, subscribe},
    trace::Trace,
    world::World,
};

const SHARDS: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(2)];

/// A machine of three shards, with a client on each.
fn machine(seed: u64) -> (World, [LinkId; 3]) {
    let random = Random::new(seed);
    let world = World::new(random, Trace::default(), 3, &Policy::default(), CHUNK_MAX);
    let mut world = world.with_steady_lanes();
    let clients = SHARDS.map(|shard| connect(&mut world, shard, "client"));
    (world, clients)
}

/// The store is faster than the lane: what it has is on its way, and so is what came before that.
#[test]
fn what_is_published_after_suback_comes_once() {
    for seed in 0..10 {
        let (mut world, [client, _, publisher]) = machine(seed);
        subscribe(&mut world, client, &["busy"]);
        world.links[client].room = 0;
        publish(&mut world, client, "busy", false, &[b'0'; limits::RETAINED_OUTPUT_BYTES]);
        run(&mut world);
        // In force everywhere, but its walk waits for the client to read.
        subscribe(&mut world, client, &["t/+", "$request/t/+"]);
        publish(&mut world, client, "$request/t/+", false, b"");
        run(&mut world);
        world.block_lane(SHARDS[2], SHARDS[0]);
        publish_all(&mut world, publisher, b"1");
        publish_all(&mut world, publisher, b"2");
        world.links[client].room = usize::MAX;
        run(&mut world);
        assert_eq!(received(&mut world, client), [("live", b'0', 1)]);
        world.thaw();
        run(&mut world);
        let expected = [("live", b'1', TOPICS), ("live", b'2', TOPICS)];
        assert_eq!(received(&mut world, client), expected);
        world.check_quiet();
    }
}

/// One publisher's shard knows of the subscription and the other does not: what counts is whose
/// message is the last where they are stored.
#[test]
fn the_last_word_of_two_publishers_arrives() {
    for seed in 0..10 {
        let (mut world, [client, unaware, aware]) = machine(seed);
        world.block_lane(SHARDS[0], SHARDS[1]);
        subscribe(&mut world, client, &["t/+"]);
        publish_all(&mut world, aware, b"1");
        publish_all(&mut world, unaware, b"2");
        world.thaw();
        run(&mut world);
        let expected = [("live", b'1', TOPICS), ("answer", b'2', TOPICS)];
        assert_eq!(received(&mut world, client), expected);

        let (mut world, [client, unaware, aware]) = machine(seed);
        world.block_lane(SHARDS[0], SHARDS[1]);
        subscribe(&mut world, client, &["t/+"]);
        publish_all(&mut world, unaware, b"1");
        world.block_lane(SHARDS[2], SHARDS[1]);
        publish_all(&mut world, aware, b"2");
        world.thaw();
        // The store of one shard is late.
        world.block_lane(SHARDS[2], SHARDS[1]);
        run(&mut world);
        world.thaw();
        run(&mut world);
        assert_eq!(received(&mut world, client), [("live", b'2', TOPICS)]);
        world.check_quiet();
    }
}
