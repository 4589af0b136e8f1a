//! One to three shards' brokers and a few clients that do whatever the input says: no panic, only whole and
//! allowed packets towards the clients, and in the end nothing is left.

mod packets;
mod view;
mod world;

use std::{io, mem, sync::LazyLock};

use ringmq::{
    base::QoS,
    codec::Version,
    config::{Limits, Policy},
};
use tracing::{Dispatch, Level, dispatcher};

use self::world::World;
use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let bits = bytes.get(1..3).map_or(0, |bits| u16::from_be_bytes([bits[0], bits[1]]));
    if bits & IS_LOGGED != 0 {
        dispatcher::with_default(&LOG, || run_with(bits, bytes));
    } else {
        run_with(bits, bytes);
    }
}

fn run_with(bits: u16, bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let shards = u16::from(input.u8() % 3) + 1;
    input.u16();
    let policy = policy(bits);
    let retain_available = policy.limits.retain_available;
    let mut world = World::new(shards, &policy, bits & IS_TRACED != 0);
    while !input.is_empty() {
        operate(&mut world, &mut input);
    }
    world.end();
    check_empty(&mut world, retain_available, bytes);
}

/// One operation: what it is, and by which client.
fn operate(world: &mut World, input: &mut Input<'_>) {
    let byte = input.u8();
    let link = usize::from(byte >> 4) % CLIENTS;
    let version = world.version(link);
    let mut packet = Vec::new();
    match byte & 0xF {
        0 => return world.open(link, input.u8()),
        1 => {
            let len = usize::from(input.u8());
            packet.extend_from_slice(input.take(len));
        }
        2 => {
            // On a connection that is open, a second CONNECT; else a new one.
            world.open_if_closed(link);
            packets::connect(input, &mut packet);
        }
        3 | 4 => packets::publish(version, input, &mut packet),
        5 => packets::subscribe(version, input, &mut packet),
        6 => packets::unsubscribe(version, input, &mut packet),
        7 => packets::acknowledge(input, &mut packet),
        8 => packet = world.answers(link, usize::from(input.u8())),
        9 => return world.take_output(link),
        10 => return world.written(link),
        11 => return world.hang_up(link, input.u8() & 1 == 1),
        12 => return world.pass_time(input.pick(&[1, 999, 5_000, 90_000, 4_000_000])),
        13 => {
            let lanes = input.u8();
            return world.move_lanes(lanes);
        }
        14 => return world.settle(),
        _ => match input.u8() % 8 {
            0 => packet.extend_from_slice(&[0xC0, 0]),
            1..=3 => packets::disconnect(version, input, &mut packet),
            4..=6 if world.may_flood() => packets::publish_many(version, input, &mut packet),
            7 => return world.shut_down(),
            _ => return,
        },
    }
    world.feed(link, &packet);
}

/// Bounds that are reached within a few operations, or not.
fn policy(bits: u16) -> Policy {
    let bit = |at: u16| bits >> at & 1 == 1;
    fn either<T>(is_small: bool, small: T, large: T) -> T {
        if is_small { small } else { large }
    }
    let limits = Limits {
        packet_bytes_max: either(bit(0), 64, 1 << 20),
        receive_maximum: either(bit(1), 2, 1024),
        topic_alias_maximum: either(bit(2), 0, 4),
        maximum_qos: either(bit(3), QoS::AtLeastOnce, QoS::ExactlyOnce),
        retain_available: !bit(4),
        keep_alive_secs_max: either(bit(5), 60, 0),
        // So that every session ends some time.
        session_expiry_secs_max: EXPIRY_SECS_MAX,
        inflight_max: either(bit(6), 1, 1024),
        queue_messages_max: either(bit(7), 2, 5_000),
        queue_bytes_max: either(bit(8), 200, 256 * 1024),
        queue_qos0: bit(9),
        sessions_max: either(bit(10), 2, 1000),
        subscriptions_max: either(bit(11), 2, 1000),
        retained_messages_max: either(bit(12), 2, 1000),
        retained_bytes_max: either(bit(13), 200, 1 << 20),
        ..Limits::default()
    };
    Policy { limits, ..Policy::default() }
}

/// Nobody is connected and every session has expired: no timer is set, no filter finds anybody, and
/// retained messages can all be found and removed.
fn check_empty(world: &mut World, retain_available: bool, bytes: &[u8]) {
    for shard in 0..world.shards() {
        world.check_idle(shard);
        let topics = packets::TOPICS.iter().filter(|topic| !topic.starts_with("$SYS"));
        let clear =
            |topic: &&str| packets::clear(Version::V5, topic, QoS::AtLeastOnce, retain_available);
        let clears: Vec<_> = topics.map(clear).collect();
        let reasons = world.probe(shard, &clears, |view| mem::take(&mut view.pubacks));
        let nobody = vec![NO_MATCHING_SUBSCRIBERS; clears.len()];
        assert_eq!(reasons, nobody, "a topic of {:?} still has a subscriber", packets::TOPICS);
    }
    for shard in 0..world.shards() {
        // Nothing is found if nothing may be retained.
        loop {
            let subscribe = [packets::subscribe_to_all()];
            let found = world.probe(shard, &subscribe, |view| mem::take(&mut view.retained));
            if found.is_empty() {
                break;
            }
            let clear = |topic: &String| packets::clear(Version::V5, topic, QoS::AtMostOnce, true);
            world.probe(shard, &found.iter().map(clear).collect::<Vec<_>>(), |_| ());
        }
    }
    for shard in 0..world.shards() {
        let retained = world.check_idle(shard);
        // `#` does not find those that start with `$`, if raw bytes have named some.
        assert!(retained == 0 || bytes.contains(&b'$'), "{retained} retained messages are left");
    }
}

/// The bits of the policy's bytes that have every publication traced, and every log line written.
const IS_TRACED: u16 = 1 << 14;
const IS_LOGGED: u16 = 1 << 15;
static LOG: LazyLock<Dispatch> = LazyLock::new(|| {
    let log = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_writer(io::sink);
    Dispatch::new(log.finish())
});
const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
const CLIENTS: usize = 5;
const EXPIRY_SECS_MAX: u32 = 3_600;
