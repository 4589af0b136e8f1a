//! Requests for retained messages while some of these are held up between two shards.

use ringmq::{
    base::{PacketId, QoS, ShardId},
    codec::{
        Packet, Properties, Publish, RetainHandling, SubscribeFilter, Version, encode_subscribe,
        next_frame,
    },
    config::Policy,
    topic::TopicName,
};

use crate::{
    book::Word,
    directed::{CHUNK_MAX, connect, run, send},
    link::LinkId,
    random::Random,
    trace::Trace,
    world::World,
};

/// So many that each of three shards is the home of some.
pub(crate) const TOPICS: u8 = 30;

/// An answer does not overtake what the client has got live: it waits until that is stored.
#[test]
fn an_answer_waits_for_what_is_on_its_way_to_its_home() {
    for seed in 0..10 {
        let random = Random::new(seed);
        let world = World::new(random, Trace::default(), 3, &Policy::default(), CHUNK_MAX);
        let mut world = world.with_steady_lanes();
        let [taker, publisher, other] = [0, 1, 2].map(ShardId);
        let client = connect(&mut world, taker, "client");
        let source = connect(&mut world, publisher, "source");
        subscribe(&mut world, client, &["t/+", "$request/t/+"]);
        publish_all(&mut world, source, b"1");
        assert_eq!(received(&mut world, client), [("live", b'1', TOPICS)]);

        world.block_lane(publisher, other);
        publish_all(&mut world, source, b"2");
        assert_eq!(received(&mut world, client), [("live", b'2', TOPICS)]);
        publish(&mut world, client, "$request/t/+", false, b"");
        run(&mut world);
        assert!(received(&mut world, client).is_empty(), "some would be older");
        world.thaw();
        run(&mut world);
        assert_eq!(received(&mut world, client), [("answer", b'2', TOPICS)]);
        world.check_quiet();
    }
}

pub(crate) fn subscribe(world: &mut World, link: LinkId, filters: &[&str]) {
    for filter in filters {
        let filter = SubscribeFilter {
            filter,
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let mut bytes = Vec::new();
        let none = Properties::EMPTY;
        encode_subscribe(Version::V311, PacketId::FIRST, none, &[filter], &mut bytes);
        world.write(link, Word::Other, &bytes);
    }
    run(world);
}

/// A retained message on each topic.
pub(crate) fn publish_all(world: &mut World, link: LinkId, payload: &[u8]) {
    for n in 0..TOPICS {
        publish(world, link, &format!("t/{n}"), true, payload);
    }
    run(world);
}

pub(crate) fn publish(world: &mut World, link: LinkId, topic: &str, retain: bool, payload: &[u8]) {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain,
        topic: Some(TopicName::parse_received(topic).unwrap()),
        packet_id: None,
        properties: Properties::EMPTY,
        payload,
    };
    send(world, link, &Packet::Publish(publish));
}

/// What a client got since it was last asked, runs of the same kind and payload counted.
pub(crate) fn received(world: &mut World, link: LinkId) -> Vec<(&'static str, u8, u8)> {
    let bytes: Vec<u8> = world.links[link].outbound.drain(..).collect();
    let mut rest = &*bytes;
    let mut messages: Vec<(&str, u8, u8)> = Vec::new();
    while let Some(frame) = next_frame(rest, u32::MAX).unwrap() {
        rest = &rest[frame.len..];
        let kind = match frame.first {
            0x30 => "live",
            0x31 => "answer",
            _ => continue,
        };
        let payload = *frame.body.last().unwrap();
        match messages.last_mut() {
            Some((last, value, count)) if (*last, *value) == (kind, payload) => *count += 1,
            _ => messages.push((kind, payload, 1)),
        }
    }
    assert!(rest.is_empty());
    messages
}
