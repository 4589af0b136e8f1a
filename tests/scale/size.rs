//! What the broker keeps a million times, and how much memory each takes: resident bytes of its
//! process before and after, divided. Texts are as long as those of real devices and count as well.
//!
//! `SIZE_COUNT=1000000` is the full size, for a release build (`TEST_BROKER=PATH`); without, a tenth of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::alone;
use crate::common::Broker;
use crate::durable::Place;
use crate::lean::{Connection, Received};

const COUNT: usize = 100_000;
const LIMITS: [&str; 4] = [
    "limits.sessions_max=2000000",
    "limits.subscriptions_max=100000",
    "limits.retained_messages_max=2000000",
    "limits.retained_bytes_max=1000000000",
];
/// A session without connection, subscriptions apart.
const SESSION_BYTES_MAX: u64 = 300;
/// Its only subscription, for which there is a list, and what a restart has left.
const ONE_SUBSCRIPTION_BYTES_MAX: u64 = 150;
/// An exact filter of 21 bytes on the shard of its one subscriber, with the share of a client in a thousand.
const SUBSCRIPTION_BYTES_MAX: u64 = 110;
/// The same filter on another shard.
const COPY_BYTES_MAX: u64 = 60;
/// A retained message of 64 bytes on a topic of 21.
const RETAINED_BYTES_MAX: u64 = 250;
/// By how much the memory of a process differs from one run to the next.
const NOISE_BYTES: u64 = 2 << 20;
/// What reading a log may leave behind, until the allocator gives that back.
const RESTART_BYTES: u64 = 16 << 20;
/// Subscriptions of each client.
const FILTERS_EACH: usize = 1_000;
const GIVEN_BACK_AFTER: Duration = Duration::from_secs(13);
/// Connections, or packets without an answer, at a time.
const BATCH: usize = 500;

#[test]
fn offline_sessions_are_small_also_after_a_restart() {
    let _alone = alone();
    for (name, is_subscribed) in [("without", false), ("with", true)] {
        let place = Place::new(name);
        let broker = Broker::start_on(&place.0, 1, &LIMITS);
        leave_sessions(broker.port, "warm", BATCH, is_subscribed);
        let empty = broker.rss_kib();
        let count = count() / 5;
        leave_sessions(broker.port, "device", count, is_subscribed);
        let each = report(&format!("offline session {name} subscription"), &broker, empty, count);
        broker.terminate();
        let broker = Broker::start_on(&place.0, 1, &LIMITS);
        settle(&broker);
        let again = report("the same after a restart", &broker, empty, count);
        let allowed =
            SESSION_BYTES_MAX + if is_subscribed { ONE_SUBSCRIPTION_BYTES_MAX } else { 0 };
        check(each, allowed, count, NOISE_BYTES);
        check(again, allowed, count, RESTART_BYTES);
    }
}

/// Each shard has a copy of the index, and that is the same however many there are.
#[test]
fn exact_subscriptions_are_small_on_every_shard() {
    let _alone = alone();
    let mut own = 0;
    for shards in [1, 2, 4, 8, 16] {
        let broker = Broker::start_quiet(shards, &LIMITS);
        subscribe(broker.port, "warm", BATCH);
        let (empty, cpu_before) = (broker.rss_kib(), broker.cpu_time());
        let clients = subscribe(broker.port, "devices", count());
        let cpu_each = (broker.cpu_time() - cpu_before) / count() as u32;
        settle(&broker);
        let name = format!("exact subscription, {shards} shards, {cpu_each:?} of CPU");
        let each = report(&name, &broker, empty, count());
        drop(clients);
        match shards as u64 - 1 {
            0 => {
                check(each, SUBSCRIPTION_BYTES_MAX, count(), NOISE_BYTES);
                own = each;
            }
            others => {
                let copy = each.saturating_sub(own) / others;
                println!("the copy of another shard: {copy} bytes each");
                check(copy, COPY_BYTES_MAX, count(), NOISE_BYTES);
            }
        }
    }
}

#[test]
fn retained_messages_are_small() {
    let _alone = alone();
    let place = Place::new("retained");
    for is_durable in [false, true] {
        let broker = match is_durable {
            false => Broker::start_quiet(1, &LIMITS),
            true => Broker::start_on(&place.0, 1, &LIMITS),
        };
        retain(broker.port, "warm", 20 * BATCH);
        let empty = broker.rss_kib();
        retain(broker.port, "devices", count());
        let name = format!("retained message, durable: {is_durable}");
        let each = report(&name, &broker, empty, count());
        check(each, RETAINED_BYTES_MAX, count(), NOISE_BYTES);
        if is_durable {
            broker.terminate();
            let broker = Broker::start_on(&place.0, 1, &LIMITS);
            let again = report("the same after a restart", &broker, empty, count());
            check(again, RETAINED_BYTES_MAX, count(), RESTART_BYTES);
        }
    }
}

/// Whether each of so many takes no more than it may, apart from what their number has no part in.
#[track_caller]
fn check(each: u64, each_max: u64, count: usize, besides: u64) {
    let allowed = each_max + besides / count as u64;
    assert!(each <= allowed, "{each} bytes, allowed are {allowed}");
}

/// Has the allocator give back what is free, as tables that have grown leave their old selves: it does so
/// after ten seconds, while something is going on.
fn settle(broker: &Broker) {
    let began = Instant::now();
    while began.elapsed() < GIVEN_BACK_AFTER {
        for n in 0..BATCH / 10 {
            drop(Connection::open(broker.port, &format!("passing-{n}"), true, 600));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Prints and returns what each of `count` takes.
fn report(name: &str, broker: &Broker, empty_kib: u64, count: usize) -> u64 {
    let grown_kib = broker.rss_kib().saturating_sub(empty_kib);
    let each = grown_kib * 1024 / count as u64;
    println!("{name}: {each} bytes each ({count}: {grown_kib} KiB more than {empty_kib} KiB)");
    each
}

fn count() -> usize {
    let count = std::env::var("SIZE_COUNT").map(|text| text.parse().expect("a number"));
    count.unwrap_or(COUNT)
}

/// Clients that come, may subscribe, and go; their sessions stay.
fn leave_sessions(port: u16, name: &str, count: usize, is_subscribed: bool) {
    for start in (0..count).step_by(BATCH) {
        let open = |n: usize| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            let id = format!("{name}-{n:07}");
            let mut packets = vec![0x10, 12 + id.len() as u8, 0, 4];
            packets.extend(b"MQTT\x04\x00\x02\x58\x00");
            packets.push(id.len() as u8);
            packets.extend(id.as_bytes());
            if is_subscribed {
                let filter = format!("{name}/{n:07}/state");
                packets.extend([0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8]);
                packets.extend(filter.as_bytes());
                packets.push(1);
            }
            stream.write_all(&packets).expect("the broker reads");
            stream
        };
        let streams: Vec<_> = (start..count.min(start + BATCH)).map(open).collect();
        for mut stream in streams {
            let mut answers = vec![0; 4 + if is_subscribed { 5 } else { 0 }];
            stream.read_exact(&mut answers).expect("CONNACK and SUBACK");
            assert_eq!(answers[..4], [0x20, 2, 0, 0]);
            stream.write_all(&[0xe0, 0]).expect("the broker reads");
            assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        }
    }
}

/// Clients with [`FILTERS_EACH`] filters of their own each. They want no retained messages (Retain
/// Handling 2), as the search for those takes memory for a while.
fn subscribe(port: u16, name: &str, count: usize) -> Vec<TcpStream> {
    let clients = (0..count).step_by(FILTERS_EACH).map(|start| {
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let id = format!("{name}-{start}");
        let mut packets = vec![0x10, 13 + id.len() as u8, 0, 4];
        packets.extend(b"MQTT\x05\x02\x02\x58\x00\x00");
        packets.push(id.len() as u8);
        packets.extend(id.as_bytes());
        client.write_all(&packets).expect("the broker reads");
        let mut connack = [0; 2];
        client.read_exact(&mut connack).expect("a CONNACK");
        client.read_exact(&mut vec![0; connack[1].into()]).expect("the rest of it");
        let numbers: Vec<_> = (start..count.min(start + FILTERS_EACH)).collect();
        for batch in numbers.chunks(BATCH) {
            packets.clear();
            for n in batch {
                let filter = format!("{name}/{n:07}/state");
                packets.extend([0x82, 6 + filter.len() as u8, 0, 1, 0, 0, filter.len() as u8]);
                packets.extend(filter.as_bytes());
                packets.push(0x20);
            }
            client.write_all(&packets).expect("the broker reads");
            for _ in batch {
                let mut suback = [0; 6];
                client.read_exact(&mut suback).expect("a SUBACK");
                assert_eq!(suback, [0x90, 4, 0, 1, 0, 0]);
            }
        }
        client
    });
    clients.collect()
}

/// Retained messages of 64 bytes, each on its own topic.
fn retain(port: u16, name: &str, count: usize) {
    let (mut client, _) = Connection::open(port, name, true, 600).expect("a connection");
    for start in (0..count).step_by(BATCH) {
        let batch = start..count.min(start + BATCH);
        for n in batch.clone() {
            client.retain_sized(&format!("{name}/{n:07}/state"), 1, n as u64, 64);
        }
        for _ in batch {
            let answer = client.exchange().expect("a PUBACK");
            assert!(matches!(answer, Received::Ack { first_byte: 0x40, .. }), "{answer:?}");
        }
    }
}
