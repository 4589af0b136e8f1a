//! What durable sessions cost: the memory for a long queue, the time until it is there again after a
//! kill, and the log's part of a wide fan-out.
//!
//! `SCALE_MESSAGES=10000000` has the full queue, for a release build (`TEST_BROKER=PATH`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::alone;
use crate::common::Broker;
use crate::lean::{Connection, Received};

/// In the queue, if the environment does not say otherwise.
const MESSAGES: u64 = 200_000;
const FULL_MESSAGES: u64 = 10_000_000;
const PAYLOAD_BYTES: usize = 100;
/// Broker memory for each message in the queue: 400 MiB for ten million.
const BYTES_EACH_MAX: u64 = 42;
/// What else may grow: buffers of the publisher's connection and of the disk, which are there once.
const BYTES_ONCE_MAX: u64 = 8 * 1024 * 1024;
/// Time for a restart with the full queue. Of fewer messages nothing is timed: a debug build is slower.
const READY_MAX: Duration = Duration::from_secs(10);
/// Publications without PUBACK.
const WINDOW: u64 = 10_000;
/// They leave in groups of this size.
const BURST: u64 = 1_000;
/// Messages that pass before memory is looked at.
const WARM_UP: u64 = 20_000;
const TAKER: &str = "taker";
const LIMITS: [&str; 2] =
    ["limits.queue_messages_max=100000000", "limits.queue_bytes_max=1000000000000"];

const SESSIONS: usize = 1_000;
const PUBLICATIONS: u64 = 100;
/// Records and syncs of a start and an end, and of the publisher's coming and going.
const SPARE: u64 = 10;
/// Of the log for each taker of a publication.
const TAKER_BYTES_MAX: u64 = 24;

#[test]
fn a_long_queue_takes_little_memory_and_survives_a_kill() {
    let _alone = alone();
    let messages = std::env::var("SCALE_MESSAGES")
        .map_or(MESSAGES, |text| text.parse().expect("SCALE_MESSAGES is a number"));
    let place = Place::new("queue");
    let broker = Broker::start_on(&place.0, 1, &LIMITS);
    subscribe(broker.port);
    publish(broker.port, WARM_UP);
    drain(broker.port, WARM_UP);

    let before_kib = broker.rss_kib();
    let began = Instant::now();
    publish(broker.port, messages);
    let grown = (broker.rss_kib().saturating_sub(before_kib)) * 1024;
    println!("{messages} messages published in {:?}", began.elapsed());
    println!(
        "memory: {} MiB more than {} MiB, {} bytes each",
        grown >> 20,
        before_kib >> 10,
        grown / messages
    );

    broker.kill();
    let began = Instant::now();
    let broker = Broker::start_on(&place.0, 1, &LIMITS);
    let ready_in = began.elapsed();
    println!("ready {ready_in:?} after a kill, with {} MiB", broker.rss_kib() >> 10);
    let began = Instant::now();
    drain(broker.port, messages);
    println!("drained complete and in order in {:?}", began.elapsed());
    println!("then {} MiB, broker CPU {:?}", broker.rss_kib() >> 10, broker.cpu_time());
    broker.terminate();

    let allowed = BYTES_ONCE_MAX + messages * BYTES_EACH_MAX;
    assert!(grown <= allowed, "{grown} bytes for {messages} messages, allowed are {allowed}");
    let is_timed = messages >= FULL_MESSAGES;
    assert!(
        !is_timed || ready_in < READY_MAX,
        "ready after {ready_in:?}, allowed are {READY_MAX:?}"
    );
}

/// However many sessions take a message, it stands in the log once, and all wait for the same sync.
#[test]
fn a_fan_out_is_one_record_and_one_sync() {
    let _alone = alone();
    let place = Place::new("fan-out");
    let broker = Broker::start_on(&place.0, 1, &[]);
    for session in 0..SESSIONS {
        let (mut connection, _) = open(broker.port, &format!("taker {session}"));
        connection.subscribe("all", 1);
        let answer = connection.exchange().expect("a SUBACK");
        assert!(matches!(answer, Received::Suback), "{answer:?}");
    }
    broker.terminate();

    // Nothing but the publications happens in this life.
    let broker = Broker::start_on(&place.0, 1, &[]);
    let opened = Connection::open(broker.port, "publisher", true, 600);
    let (mut publisher, _) = opened.expect("a connection");
    for number in 0..PUBLICATIONS {
        publisher.publish_sized("all", number as u16 + 1, number, PAYLOAD_BYTES);
        let answer = publisher.exchange().expect("a PUBACK");
        assert!(matches!(answer, Received::Ack { first_byte: 0x40, .. }), "{answer:?}");
    }
    let log = broker.terminate();
    let line = log.iter().find(|line| line.contains("the log has ended")).expect("the last line");
    let [records, syncs, bytes] =
        ["records", "syncs", "bytes"].map(|unit| count_before(line, unit));
    println!(
        "{PUBLICATIONS} publications to {SESSIONS} sessions: {records} records, {syncs} syncs, {bytes} bytes"
    );
    let expected = PUBLICATIONS..=PUBLICATIONS + SPARE;
    assert!(expected.contains(&records), "{records} records: {line}");
    assert!(expected.contains(&syncs), "{syncs} syncs: {line}");
    let allowed = (PUBLICATIONS + SPARE) * (SESSIONS as u64 * TAKER_BYTES_MAX + 1024);
    assert!(bytes <= allowed, "{bytes} bytes, allowed are {allowed}: {line}");

    // The counts are of what was kept.
    let broker = Broker::start_on(&place.0, 1, &[]);
    let (mut taker, _) = open(broker.port, &format!("taker {}", SESSIONS - 1));
    take(&mut taker, PUBLICATIONS);
}

/// Such as 17 in `... 17 records; ...`.
fn count_before(line: &str, unit: &str) -> u64 {
    let words: Vec<&str> =
        line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == unit).expect("the unit is in the line");
    words[at - 1].parse().expect("a number before it")
}

fn subscribe(port: u16) {
    let (mut connection, _) = open(port, TAKER);
    connection.subscribe("q", 1);
    let answer = connection.exchange().expect("a SUBACK");
    assert!(matches!(answer, Received::Suback), "{answer:?}");
}

/// A connection whose session stays.
fn open(port: u16, id: &str) -> (Connection, bool) {
    Connection::open(port, id, false, 600).expect("a connection")
}

/// Publishes so many messages, numbered from 0, and waits until the last is acknowledged.
fn publish(port: u16, messages: u64) {
    let opened = Connection::open(port, "publisher", true, 600);
    let (mut publisher, _) = opened.expect("a connection");
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < messages {
        while sent < messages && sent + BURST <= acknowledged + WINDOW {
            for _ in 0..BURST.min(messages - sent) {
                publisher.publish_sized("q", packet_id(sent), sent, PAYLOAD_BYTES);
                sent += 1;
            }
            publisher.flush().expect("the broker reads");
        }
        publisher.read().expect("more PUBACKs");
        while let Some(received) = publisher.next() {
            let Received::Ack { first_byte: 0x40, packet_id: id } = received else {
                panic!("{received:?}");
            };
            assert_eq!(id, packet_id(acknowledged), "out of order");
            acknowledged += 1;
        }
    }
}

fn packet_id(number: u64) -> u16 {
    (number % 60_000) as u16 + 1
}

/// Comes back for so many messages: each once, in order, and nothing behind them.
fn drain(port: u16, messages: u64) {
    let (mut taker, present) = open(port, TAKER);
    assert!(present, "the session is gone");
    take(&mut taker, messages);
    // Whatever else were there would come before this SUBACK.
    taker.subscribe("q", 1);
    let answer = taker.exchange().expect("a SUBACK");
    assert!(matches!(answer, Received::Suback), "{answer:?}");
}

fn take(taker: &mut Connection, messages: u64) {
    let mut next = 0;
    while next < messages {
        taker.flush().and_then(|()| taker.read()).expect("more messages");
        while let Some(received) = taker.next() {
            let Received::Publish { qos: 1, packet_id, payload, .. } = received else {
                panic!("{received:?}");
            };
            assert_eq!(u64::from_be_bytes(payload), next, "lost, twice or out of order");
            next += 1;
            taker.ack(0x40, packet_id);
        }
    }
    taker.flush().expect("the last PUBACKs");
}

/// A data directory that is removed at the end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("scale-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder of the build's");
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for inspection: {}", self.0.display());
        } else {
            // What is left is of use to nobody.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
