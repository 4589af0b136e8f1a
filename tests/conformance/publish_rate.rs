//! How fast a client may publish, and what follows when it is faster.

use std::time::{Duration, Instant};

use crate::common::{Broker, RawClient, on_one_and_four_shards, wire};

const MESSAGES: u16 = 120;
/// At 50 a second, 5 of them at once; the broker counts whole milliseconds.
const TIME_MIN: Duration = Duration::from_millis(2300 - 2);

fn subscriber(broker: &Broker) -> RawClient {
    let mut subscriber = RawClient::v5(broker.port, "subscriber");
    subscriber.send("82 ( 0001 () 'rate/#' 00 )");
    subscriber.expect("90 ( 0001 () 00 )");
    subscriber
}

fn publishes(count: u16, rest: &str) -> Vec<u8> {
    let one = |n| wire(&format!("32 ( 'rate/1' {n:04x} () {n:04x} {rest} )"));
    (1..=count).flat_map(one).collect()
}

#[track_caller]
fn expect_all(subscriber: &mut RawClient, count: u16, rest: &str) {
    for n in 1..=count {
        subscriber.expect(&format!("30 ( 'rate/1' () {n:04x} {rest} )"));
    }
}

/// Many times as fast as it may: all arrives, in order and acknowledged, and takes its time. Meanwhile nothing is read
/// from it, which does not end its keep-alive of a second; others are served.
fn who_is_too_fast_is_slowed_down(broker: &Broker) {
    let mut subscriber = subscriber(broker);
    let mut publisher = RawClient::connect(broker.port);
    publisher.send("10 ( 'MQTT' 05 02 0001 () 'publisher' )");
    publisher.expect_accepted();
    let started = Instant::now();
    publisher.send_bytes(&publishes(MESSAGES, ""));
    subscriber.expect("30 ( 'rate/1' () 0001 )");
    let mut other = RawClient::v5(broker.port, "other");
    other.ping();
    other.send("30 ( 'rate/2' () `in between` )");
    other.ping();
    let mut seen = 1;
    let mut was_in_between = false;
    while seen < MESSAGES {
        let packet = subscriber.read_packet();
        if packet.ends_with(b"in between") {
            was_in_between = true;
            continue;
        }
        seen += 1;
        assert_eq!(packet, wire(&format!("30 ( 'rate/1' () {seen:04x} )")));
    }
    assert!(was_in_between && started.elapsed() >= TIME_MIN, "{:?}", started.elapsed());
    for n in 1..=MESSAGES {
        publisher.expect_ack(0x40, &format!("{n:04x}"));
    }
    publisher.ping();
    broker.wait_for_log(&["client=publisher", "faster than it may"]);
}

/// The end of the stream comes behind what was published.
fn what_was_sent_before_the_end_counts(broker: &Broker) {
    let mut subscriber = subscriber(broker);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    let started = Instant::now();
    publisher.send_bytes(&publishes(MESSAGES, ""));
    publisher.send("e0 00");
    publisher.half_close();
    expect_all(&mut subscriber, MESSAGES, "");
    assert!(started.elapsed() >= TIME_MIN, "{:?}", started.elapsed());
    for n in 1..=MESSAGES {
        publisher.expect_ack(0x40, &format!("{n:04x}"));
    }
    publisher.expect_closed();
}

/// Bytes are counted too; a message of more than may come at once is only late.
fn bytes_take_their_time(broker: &Broker) {
    let mut subscriber = subscriber(broker);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    let rest = "5a".repeat(30_000);
    let started = Instant::now();
    publisher.send_bytes(&publishes(10, &rest));
    expect_all(&mut subscriber, 10, &rest);
    // 300 KB at 150 KB a second, of which the last is owed afterwards.
    assert!(started.elapsed() >= Duration::from_millis(1700), "{:?}", started.elapsed());
}

/// What is within the bounds has no limit of its own: pings and acknowledgements are none of them.
fn only_publishes_count(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "client");
    for _ in 0..300 {
        client.ping();
    }
}

/// Section 3.14.2.1: Message rate too high.
fn or_it_is_disconnected(broker: &Broker) {
    let mut subscriber = subscriber(broker);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send_bytes(&publishes(5, ""));
    for n in 1..=5 {
        publisher.expect_ack(0x40, &format!("{n:04x}"));
    }
    publisher.try_send_bytes(&publishes(MESSAGES, ""));
    loop {
        let packet = publisher.read_packet();
        if packet[0] == 0xe0 {
            assert_eq!(packet[2], 0x96);
            break;
        }
    }
    publisher.expect_closed();
    expect_all(&mut subscriber, 5, "");
    let mut old = RawClient::v311(broker.port, "old");
    let one = wire("30 ( 'elsewhere' )");
    old.try_send_bytes(&one.repeat(100));
    old.expect_closed();
}

on_one_and_four_shards! {
    who_is_too_fast_is_slowed_down with
        "limits.publishes_per_second_max=50", "limits.publish_burst_millis=100";
    what_was_sent_before_the_end_counts with
        "limits.publishes_per_second_max=50", "limits.publish_burst_millis=100";
    bytes_take_their_time with
        "limits.publish_bytes_per_second_max=150000", "limits.publish_burst_millis=10";
    only_publishes_count with
        "limits.publishes_per_second_max=1", "limits.publish_bytes_per_second_max=1";
    or_it_is_disconnected with
        "limits.publishes_per_second_max=5", "limits.publish_rate_exceeded=disconnect";
}
