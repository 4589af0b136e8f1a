//! Two shards whose lanes are blocked both ways while publishers on both sides
//! go on: reading from them stops, and nothing is lost or stuck afterwards.

use ringmq::{
    base::{PacketId, QoS, ShardId, limits},
    codec::{
        Connect, Packet, Properties, Publish, RetainHandling, SubscribeFilter, Version,
        encode_subscribe, next_frame,
    },
    topic::TopicName,
};

use crate::{
    book::Word,
    link::{LinkId, Place},
    plan,
    random::Random,
    trace::Trace,
    world::{Action, World},
};

pub(crate) const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];

pub(crate) struct Pair {
    pub(crate) world: World,
    /// Links of a publisher and a subscriber on each shard.
    pub(crate) publishers: [LinkId; 2],
    pub(crate) subscribers: [LinkId; 2],
}

impl Pair {
    /// Subscribers on both shards to what the publisher on the other one sends.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let policy = plan::policy(&mut random);
        let world = World::new(random, Trace::default(), 2, &policy, CHUNK_MAX);
        let mut world = world.with_steady_lanes();
        let publishers = SHARDS.map(|shard| connect(&mut world, shard, "publisher"));
        let subscribers = SHARDS.map(|shard| connect(&mut world, shard, "subscriber"));
        for (link, topic) in subscribers.into_iter().zip(["from/1", "from/0"]) {
            let filter = SubscribeFilter {
                filter: topic,
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAtSubscribe,
            };
            let mut bytes = Vec::new();
            let none = Properties::EMPTY;
            encode_subscribe(Version::V311, PacketId::FIRST, none, &[filter], &mut bytes);
            world.write(link, Word::Other, &bytes);
        }
        run(&mut world);
        Self { world, publishers, subscribers }
    }

    /// Has both publishers send so many messages of one size at QoS 0.
    pub(crate) fn publish(&mut self, count: usize, payload_bytes: usize) {
        for (link, topic) in self.publishers.into_iter().zip(["from/0", "from/1"]) {
            for number in 0..count as u32 {
                let mut payload = number.to_be_bytes().to_vec();
                payload.resize(payload_bytes, 0);
                let publish = Publish {
                    dup: false,
                    qos: QoS::AtMostOnce,
                    retain: false,
                    topic: Some(TopicName::parse(topic).unwrap()),
                    packet_id: None,
                    properties: Properties::EMPTY,
                    payload: &payload,
                };
                send(&mut self.world, link, &Packet::Publish(publish));
            }
        }
    }

    fn block_lanes(&mut self) {
        self.world.block_lane(SHARDS[0], SHARDS[1]);
        self.world.block_lane(SHARDS[1], SHARDS[0]);
    }

    /// Numbers of the messages that a subscriber got.
    pub(crate) fn received(&mut self, subscriber: usize) -> Vec<u32> {
        let bytes = self.world.links[self.subscribers[subscriber]].outbound.make_contiguous();
        let mut rest = &*bytes;
        let mut numbers = Vec::new();
        while let Some(frame) = next_frame(rest, u32::MAX).unwrap() {
            if frame.first >> 4 == 3 {
                let payload = &frame.body[2 + "from/0".len()..];
                numbers.push(u32::from_be_bytes(*payload.first_chunk().unwrap()));
            }
            rest = &rest[frame.len..];
        }
        assert!(rest.is_empty());
        numbers
    }
}

#[test]
fn publishers_wait_while_lanes_are_full_both_ways() {
    let messages = 3 * limits::LANE_MESSAGES_MAX;
    // More than a lane takes, less than is kept for a subscriber at QoS 0.
    let bytes = 14 << 20;
    assert!(bytes > limits::LANE_BYTES_MAX && (bytes as u64) < limits::OUTPUT_BYTES_MAX);
    for (seed, (count, payload_bytes)) in
        [(messages, 4), (bytes / 100_000, 100_000), (bytes >> 20, 1 << 20)].into_iter().enumerate()
    {
        let mut pair = Pair::new(seed as u64);
        pair.block_lanes();
        pair.publish(count, payload_bytes);
        run(&mut pair.world);
        for link in pair.publishers {
            assert!(pair.world.links[link].paused, "both publishers are held up");
            assert!(!pair.world.links[link].inbound.is_empty(), "and not read from");
        }
        assert!(!pair.subscribers.iter().any(|&link| pair.world.links[link].paused));
        pair.world.thaw();
        run(&mut pair.world);
        pair.world.check_quiet();
        for subscriber in [0, 1] {
            let expected: Vec<u32> = (0..count as u32).collect();
            assert!(pair.received(subscriber) == expected, "all arrives in order");
        }
        let stats = pair.world.stats;
        assert!(stats.batch_messages_max <= limits::LANE_MESSAGES_MAX, "{stats:?}");
        assert!(stats.pauses >= 2 && stats.pauses == stats.resumes, "{stats:?}");
    }
}

#[test]
fn a_publisher_that_leaves_while_it_waits_is_forgotten() {
    let mut pair = Pair::new(0);
    pair.block_lanes();
    pair.publish(2 * limits::LANE_MESSAGES_MAX, 4);
    run(&mut pair.world);
    for link in pair.publishers {
        pair.world.cut(link);
    }
    run(&mut pair.world);
    assert!(pair.publishers.iter().all(|&link| pair.world.links[link].place == Place::Gone));
    pair.world.thaw();
    run(&mut pair.world);
    pair.world.check_quiet();
    for subscriber in [0, 1] {
        let received = pair.received(subscriber);
        assert!(received.len() >= limits::LANE_MESSAGES_MAX);
        assert!(received.iter().enumerate().all(|(at, number)| at == *number as usize));
    }
}

/// A client whose home is that shard.
pub(crate) fn connect(world: &mut World, shard: ShardId, role: &str) -> LinkId {
    for attempt in 0.. {
        let link = world.connect_to(shard, NOBODY);
        world.links[link].room = usize::MAX;
        let connect = Connect {
            version: Version::V311,
            clean_start: true,
            keep_alive_secs: 0,
            client_id: &format!("{role}-{shard}-{attempt}"),
            properties: Properties::EMPTY,
            will: None,
            user_name: None,
            password: None,
        };
        send(world, link, &Packet::Connect(connect));
        run(world);
        if let Place::Shard(home, _) = world.links[link].place
            && home == shard
        {
            return link;
        }
    }
    unreachable!("some name has its home there")
}

pub(crate) fn send(world: &mut World, link: LinkId, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    packet.encode(Version::V311, &mut bytes);
    world.write(link, Word::Other, &bytes);
}

/// Lets the machine run, in any order, until nothing can happen.
pub(crate) fn run(world: &mut World) {
    let mut actions: Vec<Action> = Vec::new();
    for _ in 0..STEPS_MAX {
        world.step += 1;
        actions.clear();
        world.enabled(&mut actions);
        if actions.is_empty() {
            return;
        }
        let action = world.random.pick(&actions);
        world.perform(action);
    }
    panic!("rule 9: no rest after {STEPS_MAX} steps");
}

pub(crate) const CHUNK_MAX: usize = 16 * 1024;
const STEPS_MAX: usize = 500_000;
/// No client of the book.
const NOBODY: usize = usize::MAX;
