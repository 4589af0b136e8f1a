//! A million retained messages for one wildcard subscription: every one, once, while the other
//! clients of the shards go on.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::alone;
use crate::common::Broker;
use crate::lean::{Connection, Received};

const TOPICS: u64 = 1_000_000;
/// Messages that the publisher has unacknowledged.
const BATCH: u64 = 1000;
const SHARDS: usize = 4;
/// Exchanges that each other client manages at least while the subscriber is served.
const EXCHANGES_MIN: u64 = 100;

#[test]
fn a_million_retained_messages_are_streamed() {
    let _alone = alone();
    let broker = Broker::start_quiet(SHARDS, &[]);
    retain_all(broker.port);
    println!("retained: RSS {} MiB, broker CPU {:?}", broker.rss_kib() / 1024, broker.cpu_time());
    let (is_over, port) = (&AtomicBool::new(false), broker.port);
    std::thread::scope(|scope| {
        // Enough names that every shard has some.
        let others: Vec<_> = (0..4 * SHARDS)
            .map(|name| scope.spawn(move || exchanges(port, name, is_over)))
            .collect();
        // A reader whose window is far smaller than what it is owed.
        subscribe_to_all(port);
        is_over.store(true, Ordering::Relaxed);
        for other in others {
            let count = other.join().expect("a client that is served");
            assert!(count >= EXCHANGES_MIN, "{count} exchanges beside the walk");
        }
    });
    println!("streamed: RSS {} MiB, broker CPU {:?}", broker.rss_kib() / 1024, broker.cpu_time());
}

fn retain_all(port: u16) {
    let (mut publisher, _) = Connection::open(port, "publisher", true, 600).expect("a connection");
    for batch in 0..TOPICS / BATCH {
        for id in 1..=BATCH {
            let number = batch * BATCH + id - 1;
            publisher.retain(&format!("r/{}/{number}", number % 997), id as u16, number);
        }
        for _ in 0..BATCH {
            let answer = publisher.exchange().expect("a PUBACK");
            assert!(matches!(answer, Received::Ack { first_byte: 0x40, .. }), "{answer:?}");
        }
    }
}

/// Takes all of them at QoS 1; none is missing and none comes twice.
fn subscribe_to_all(port: u16) {
    let (mut taker, _) = Connection::open(port, "taker", true, 600).expect("a connection");
    taker.subscribe("r/#", 1);
    let mut seen = vec![false; TOPICS as usize];
    let mut left = TOPICS;
    while left > 0 {
        taker.flush().and_then(|()| taker.read()).expect("more retained messages");
        while let Some(received) = taker.next() {
            let Received::Publish { packet_id, payload, .. } = received else { continue };
            let seen = &mut seen[u64::from_be_bytes(payload) as usize];
            assert!(!std::mem::replace(seen, true), "{received:?} came twice");
            taker.ack(0x40, packet_id);
            left -= 1;
        }
    }
}

/// Publishes to itself, one message after the other, until the walk is over.
fn exchanges(port: u16, name: usize, is_over: &AtomicBool) -> u64 {
    let topic = format!("echo/{name}");
    let opened = Connection::open(port, &format!("echo {name}"), true, 600);
    let (mut connection, _) = opened.expect("a connection");
    connection.subscribe(&topic, 1);
    let answer = connection.exchange().expect("a SUBACK");
    assert!(matches!(answer, Received::Suback), "{answer:?}");
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        connection.publish(false, 1, &topic, 1, count);
        let (mut is_back, mut is_acknowledged) = (false, false);
        while !is_back || !is_acknowledged {
            match connection.exchange().expect("an answer") {
                Received::Publish { packet_id, .. } => {
                    connection.ack(0x40, packet_id);
                    is_back = true;
                }
                Received::Ack { .. } => is_acknowledged = true,
                Received::Suback => {}
            }
        }
        count += 1;
    }
    count
}
