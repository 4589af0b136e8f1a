//! What goes over the lanes, counted, with few shards and with many: a publication crosses once to each
//! shard that has a subscriber of it and to no other, and a subscription is told to each shard once.

use ringmq::{base::ShardId, config::Policy};

use crate::{
    book::Word,
    directed::{CHUNK_MAX, connect, run},
    link::LinkId,
    random::Random,
    trace::Trace,
    world::World,
};

const SHARDS: [u16; 4] = [2, 4, 8, 16];
const PUBLICATIONS: u64 = 50;
const HERE: ShardId = ShardId(0);

#[test]
fn a_publication_crosses_once_to_each_shard_with_a_subscriber() {
    for shards in SHARDS {
        let mut world = world(shards);
        let publisher = connect(&mut world, HERE, "publisher");
        // Two on each shard, as it is the shards that count, not those on them.
        for (takers, shard) in (1..shards).map(ShardId).enumerate() {
            let before = (world.stats.lane_messages, forwarded(&world));
            for qos in [0, 1] {
                publish(&mut world, publisher, qos);
            }
            let expected = 2 * PUBLICATIONS * takers as u64;
            let after = (world.stats.lane_messages, forwarded(&world));
            let crossed = (after.0 - before.0, after.1 - before.1);
            assert_eq!(crossed, (expected, expected), "{takers} of {shards} shards take it");
            for role in ["one", "other"] {
                let taker = connect(&mut world, shard, role);
                subscribe(&mut world, taker, "all");
            }
        }
    }
}

#[test]
fn all_that_waits_for_a_lane_is_one_batch() {
    for shards in SHARDS {
        let mut world = world(shards);
        let publisher = connect(&mut world, HERE, "publisher");
        let others: Vec<ShardId> = (1..shards).map(ShardId).collect();
        for &shard in &others {
            let taker = connect(&mut world, shard, "taker");
            subscribe(&mut world, taker, "all");
        }
        others.iter().for_each(|&shard| world.block_lane(HERE, shard));
        let before = (world.stats.lane_messages, world.stats.lane_batches);
        publish(&mut world, publisher, 0);
        world.thaw();
        run(&mut world);
        let messages = world.stats.lane_messages - before.0;
        let batches = world.stats.lane_batches - before.1;
        assert_eq!(messages, PUBLICATIONS * others.len() as u64);
        // What there was when the lane was blocked, and what came while it was.
        assert!(batches <= 2 * others.len() as u64, "{batches} batches for {shards} shards");
    }
}

#[test]
fn a_subscription_is_told_to_each_shard_once_and_its_end_if_it_is_the_last() {
    for shards in SHARDS {
        let mut world = world(shards);
        let others = u64::from(shards) - 1;
        let clients = ["one", "other"].map(|role| connect(&mut world, HERE, role));
        assert_eq!(world.stats.lane_messages, 0, "a client that connects is told to nobody");
        let crossed = |world: &mut World, client, is_in| {
            let before = world.stats.lane_messages;
            match is_in {
                true => subscribe(world, client, "a/+"),
                false => unsubscribe(world, client, "a/+"),
            }
            world.stats.lane_messages - before
        };
        // Each wants what is retained: so it is told to all and confirmed even if the filter is known, and as
        // that has a wildcard, all are asked.
        let (told_and_confirmed, asked_and_answered) = (2 * others, 2 * others);
        for client in clients {
            assert_eq!(crossed(&mut world, client, true), told_and_confirmed + asked_and_answered);
        }
        assert!(world.shard_ids().all(|shard| world.broker(shard).summary().filters() == 1));
        assert_eq!(crossed(&mut world, clients[0], false), 0);
        assert_eq!(crossed(&mut world, clients[1], false), others);
        assert!(world.shard_ids().all(|shard| world.broker(shard).summary().filters() == 0));
    }
}

fn world(shards: u16) -> World {
    let random = Random::new(shards.into());
    let policy = Policy::default();
    World::new(random, Trace::default(), shards, &policy, CHUNK_MAX).with_steady_lanes()
}

fn forwarded(world: &World) -> u64 {
    world.shard_ids().map(|shard| world.broker(shard).summary().counters().forwarded).sum()
}

fn publish(world: &mut World, publisher: LinkId, qos: u8) {
    let mut packet = vec![0x30 | qos << 1, 0, 0, 3];
    packet.extend(b"all");
    packet.extend([0, 1].iter().filter(|_| qos > 0));
    packet.extend(b"payload");
    packet[1] = packet.len() as u8 - 2;
    world.write(publisher, Word::Other, &packet.repeat(PUBLICATIONS as usize));
    run(world);
}

fn subscribe(world: &mut World, client: LinkId, filter: &str) {
    request(world, client, 0x82, filter, &[1]);
}

fn unsubscribe(world: &mut World, client: LinkId, filter: &str) {
    request(world, client, 0xa2, filter, &[]);
}

fn request(world: &mut World, client: LinkId, first_byte: u8, filter: &str, options: &[u8]) {
    let mut packet = vec![first_byte, 0, 0, 1, 0, filter.len() as u8];
    packet.extend(filter.as_bytes());
    packet.extend(options);
    packet[1] = packet.len() as u8 - 2;
    world.write(client, Word::Other, &packet);
    run(world);
}
