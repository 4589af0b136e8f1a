//! One to three shards' brokers and a few clients that do whatever the input says: no panic, only whole and
//! allowed packets towards the clients, and in the end nothing is left.

mod packets;
mod view;
mod world;

use std::{
    io, mem,
    sync::{Arc, LazyLock},
};

use ringmq::{
    base::QoS,
    codec::Version,
    config::{AnonymousPolicy, Limits, Policy, Redirect, RedirectWhen, RetainedTtl},
    topic::{RewriteRule, RewriteScope, Strategies, Strategy, TopicFilter},
};
use tracing::{Dispatch, Level, dispatcher};

use self::world::World;
use crate::{input::Input, scram};

pub(crate) fn run(bytes: &[u8]) {
    let bits = bytes.get(1..5).and_then(|bits| bits.try_into().ok()).map_or(0, u32::from_be_bytes);
    if bits & IS_LOGGED != 0 {
        dispatcher::with_default(&LOG, || run_with(bits, bytes));
    } else {
        run_with(bits, bytes);
    }
}

fn run_with(bits: u32, bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let shards = u16::from(input.u8() % 3) + 1;
    input.take(4);
    let policy = policy(bits);
    let mut world = World::new(shards, &policy, bits & IS_TRACED != 0);
    while !input.is_empty() {
        operate(&mut world, &mut input);
    }
    world.end();
    check_empty(&mut world, &policy, bytes);
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
        _ => match input.u8() % 16 {
            0 => packet.extend_from_slice(&[0xC0, 0]),
            1..=3 => packets::disconnect(version, input, &mut packet),
            4..=6 if world.may_flood() => packets::publish_many(version, input, &mut packet),
            7 => return world.shut_down(),
            8..=12 => packets::auth(input, &mut packet),
            13 => return world.change_rules(input.u8()),
            _ => return,
        },
    }
    world.feed(link, &packet);
}

/// Bounds that are reached within a few operations, or not.
fn limits(bits: u32) -> Limits {
    let bit = |at: u32| bits >> at & 1 == 1;
    fn either<T>(is_small: bool, small: T, large: T) -> T {
        if is_small { small } else { large }
    }
    Limits {
        // Room for authentication where nobody gets in without.
        packet_bytes_max: either(bit(16) && !bit(1), 64, 1 << 20),
        receive_maximum: either(bit(17), 2, 1024),
        topic_alias_maximum: either(bit(18), 0, 4),
        maximum_qos: either(bit(19), QoS::AtLeastOnce, QoS::ExactlyOnce),
        retain_available: !bit(20),
        keep_alive_secs_max: either(bit(21), 60, 0),
        // So that every session ends some time.
        session_expiry_secs_max: EXPIRY_SECS_MAX,
        inflight_max: either(bit(22), 1, 1024),
        queue_messages_max: either(bit(23), 2, 5_000),
        queue_bytes_max: either(bit(24), 200, 256 * 1024),
        queue_qos0: bit(25),
        sessions_max: either(bit(26), 2, 1000),
        subscriptions_max: either(bit(27), 4, 1000),
        retained_messages_max: either(bit(28), 2, 1000),
        retained_bytes_max: either(bit(29), 200, 1 << 20),
        wildcard_subscription_available: !bit(8),
        shared_subscription_available: !bit(9),
        subscription_identifiers_available: !bit(10),
        client_topic_aliases_max: either(bit(11), 1, 16),
        delayed_messages_max: either(bit(12), 2, 1000),
        delayed_bytes_max: either(bit(13), 200, 1 << 20),
        ..Limits::default()
    }
}

/// What else an operator decides.
fn policy(bits: u32) -> Policy {
    let bit = |at: u32| bits >> at & 1 == 1;
    let mut policy = Policy { limits: limits(bits), ..Policy::default() };
    if bit(0) || bit(1) {
        policy.credentials = Arc::new(scram::credentials());
    }
    if bit(1) {
        policy.anonymous = AnonymousPolicy::Nowhere;
    }
    if bit(2) {
        policy.rewrite = REWRITE
            .map(|(scope, filter, template)| {
                RewriteRule::new(scope, filter, template).expect("a rule")
            })
            .into();
    }
    if bit(3) {
        let ttl = |(filter, secs)| RetainedTtl {
            filter: TopicFilter::parse(filter).expect("a filter"),
            secs,
        };
        policy.retained_ttl = RETAINED_TTL.map(ttl).into();
    }
    if bit(4) {
        policy.auto_subscribe = AUTO_SUBSCRIBE.map(|rule| rule.parse().expect("a rule")).into();
    }
    let when = [RedirectWhen::Shutdown, RedirectWhen::Full, RedirectWhen::Always];
    policy.redirect = (bits >> 5 & 3)
        .checked_sub(1)
        .map(|at| Redirect { server_reference: "b.example:1883".into(), when: when[at as usize] });
    policy.response_information = bit(7).then(|| "answers/%c".into());
    if bit(14) {
        let rules = ["g", "h", "s", "c", "t", "l"].into_iter().zip(Strategy::ALL);
        let by_prefix = rules.map(|(prefix, strategy)| (prefix.into(), strategy)).collect();
        policy.shared = Strategies { default: Strategy::LeastInflight, by_prefix };
    }
    policy
}

/// Nobody is connected and every session has expired: no timer is set, no filter finds anybody or is
/// taken, and retained messages can all be found and removed.
fn check_empty(world: &mut World, policy: &Policy, bytes: &[u8]) {
    for shard in 0..world.shards() {
        world.check_idle(shard);
    }
    if policy.redirect.as_ref().is_some_and(|redirect| redirect.when == RedirectWhen::Always) {
        return;
    }
    for shard in 0..world.shards() {
        check_nobody(world, shard, policy);
    }
    if !policy.limits.wildcard_subscription_available {
        return;
    }
    for shard in 0..world.shards() {
        // Nothing is found if nothing may be retained.
        for _ in 0..=policy.limits.retained_messages_max {
            let subscribe = [packets::subscribe_to("#")];
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

/// Nobody gets what is published on this shard, and whoever asks for an exclusive filter gets it.
fn check_nobody(world: &mut World, shard: usize, policy: &Policy) {
    let Limits { retain_available, wildcard_subscription_available, .. } = policy.limits;
    // Those under `$d` are removed too, which `#` does not find; the others of `$` mean something else.
    let may_clear = |topic: &&&str| !topic.starts_with('$') || topic.starts_with("$d/");
    let clear =
        |topic: &&str| packets::clear(Version::V5, topic, QoS::AtLeastOnce, retain_available);
    let clears: Vec<_> = packets::TOPICS.iter().filter(may_clear).map(clear).collect();
    let reasons = world.probe(shard, &clears, |view| mem::take(&mut view.pubacks));
    let nobody = vec![NO_MATCHING_SUBSCRIBERS; clears.len()];
    assert_eq!(reasons, nobody, "a topic of {:?} still has a subscriber", packets::TOPICS);
    for filter in packets::EXCLUSIVES {
        if wildcard_subscription_available || !filter.contains('#') {
            let subscribe = [packets::subscribe_to(filter)];
            let reasons = world.probe(shard, &subscribe, |view| mem::take(&mut view.subacks));
            assert_eq!(reasons, [0], "{filter} is still taken");
        }
    }
}

/// What these make of a topic stays as it is when it is published to again.
const REWRITE: [(RewriteScope, &str, &str); 4] = [
    (RewriteScope::All, "b", "r/b"),
    (RewriteScope::Publish, "a/b/#", "r/%u/%c/$1"),
    (RewriteScope::Subscribe, "+/+/c", "r/+/+/$1/$2"),
    (RewriteScope::Subscribe, "$d/#", "$d/$1/%u"),
];
const RETAINED_TTL: [(&str, u32); 3] = [("a/b/#", 5), ("b", 0), ("+", 100_000)];
/// For a client that is asked in the end, they match none of [`packets::TOPICS`].
const AUTO_SUBSCRIBE: [&str; 3] =
    ["+/%c => 1 no_local", "$share/g/%c/# => 2", "%u/# => 0 retain=new"];

/// The bits of the policy's bytes that have every publication traced, and every log line written.
const IS_TRACED: u32 = 1 << 30;
const IS_LOGGED: u32 = 1 << 31;
static LOG: LazyLock<Dispatch> = LazyLock::new(|| {
    let log = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_writer(io::sink);
    Dispatch::new(log.finish())
});
const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
const CLIENTS: usize = 5;
const EXPIRY_SECS_MAX: u32 = 3_600;
