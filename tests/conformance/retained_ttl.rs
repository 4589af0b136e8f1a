//! `retained_ttl`: how long retained messages are kept, and that expired ones leave by themselves.

use std::time::Duration;

use crate::{
    common::{Broker, RawClient, on_one_and_four_shards},
    witnesses::Witnesses,
};

/// What a new v5 subscriber gets for `filter`, in any order.
fn expect_retained(broker: &Broker, filter: &str, messages: &[&str]) {
    let mut client = RawClient::v5(broker.port, "new subscriber");
    client.send(&format!("82 ( 0001 () '{filter}' 00 'marker' 00 )"));
    let mut expected = vec!["90 ( 0001 () 00 00 )"];
    expected.extend(messages);
    client.expect_in_any_order(&expected);
    // Retained messages may come from another shard: a live one shows that none is under way.
    client.send("30 ( 'marker' () `m` )");
    client.expect("30 ( 'marker' () `m` )");
    client.ping();
}

/// Ends the broker: each shard then tells what it holds.
fn assert_nothing_is_kept(broker: &Broker) {
    broker.signal("TERM");
    broker.wait_for_log(&["stopped"]);
    let mut left = broker.log_lines();
    left.retain(|line| line.contains(" retained=") && !line.contains(" retained=0 "));
    assert!(left.is_empty(), "{left:?}");
}

/// MQTT-3.3.2-6: the shorter of rule and Message Expiry Interval, for stored copies only.
fn the_shorter_time_holds_for_stored_messages(broker: &Broker) {
    let mut live = RawClient::v5(broker.port, "live");
    live.send("82 ( 0001 () 'r/#' 00 )");
    live.expect("90 ( 0001 () 00 )");
    let mut v5 = RawClient::v5(broker.port, "v5");
    let mut v311 = RawClient::v311(broker.port, "v311");
    v5.send("33 ( 'r/1' 0001 () `a` )");
    v5.expect_ack(0x40, "0001");
    v5.send("33 ( 'r/2' 0002 ( 02 00000032 ) `b` )");
    v5.expect_ack(0x40, "0002");
    v5.send("33 ( 'r/3' 0003 ( 02 00010000 26 'k' 'v' ) `c` )");
    v5.expect_ack(0x40, "0003");
    live.expect("30 ( 'r/1' () `a` ) 30 ( 'r/2' ( 02 00000032 ) `b` )");
    live.expect("30 ( 'r/3' ( 02 0001 0000 26 'k' 'v' ) `c` )");
    v311.send("33 ( 'r/4' 0001 `d` )");
    v311.expect("40 02 0001");
    v311.send("33 ( 'free' 0002 `e` )");
    v311.expect("40 02 0002");
    live.expect("30 ( 'r/4' () `d` )");
    expect_retained(
        broker,
        "r/#",
        &[
            "31 ( 'r/1' ( 02 000050?? ) `a` )",
            "31 ( 'r/2' ( 02 000000?? ) `b` )",
            "31 ( 'r/3' ( 02 000050?? 26 'k' 'v' ) `c` )",
            "31 ( 'r/4' ( 02 000050?? ) `d` )",
        ],
    );
    expect_retained(broker, "free", &["31 ( 'free' () `e` )"]);
    // The first rule that matches holds, and an empty payload still clears.
    v311.send("33 ( 'r/4' 0003 )");
    v311.expect("40 02 0003");
    live.expect("30 ( 'r/4' () )");
    expect_retained(broker, "r/4", &[]);
}

fn a_message_is_gone_after_its_time(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("33 ( 'short/1' 0001 `a` )");
    publisher.expect("40 02 0001");
    expect_retained(broker, "short/#", &["31 ( 'short/1' ( 02 00000001 ) `a` )"]);
    // Time itself is under test.
    std::thread::sleep(Duration::from_millis(1100));
    expect_retained(broker, "short/#", &[]);
}

/// Delivered like any other, and nobody finds it afterwards.
fn zero_keeps_nothing(broker: &Broker) {
    let mut witnesses = Witnesses::of(broker, "none");
    let mut v5 = RawClient::v5(broker.port, "v5");
    v5.send("33 ( 'none' 0001 () `a` )");
    assert_eq!(v5.ack_reason(0x40, "0001"), 0x00);
    witnesses.expect("30 ( 'none' `a` )");
    expect_retained(broker, "none", &[]);
    // Not even for the moment until it is found to have expired.
    v5.send("33 ( 'none' 0001 () `b` )");
    assert_eq!(v5.ack_reason(0x40, "0001"), 0x00);
    // The broker does not wait for clients that are gone.
    drop((v5, witnesses));
    assert_nothing_is_kept(broker);
}

/// Nobody asks for them and nothing is full: their memory is free all the same.
fn expired_messages_leave_the_store(broker: &Broker) {
    let mut publisher = RawClient::v5(broker.port, "publisher");
    for n in 1..=100 {
        publisher.send(&format!("33 ( 'short/{n}' {n:04x} () `x` )"));
        publisher.expect_ack(0x40, &format!("{n:04x}"));
    }
    publisher.send("33 ( '$short/1' 0001 ( 02 00000001 ) `x` )");
    publisher.expect_ack(0x40, "0001");
    // Two portions at most, a second apart, after the second that they live.
    std::thread::sleep(Duration::from_millis(2500));
    assert_nothing_is_kept(broker);
}

on_one_and_four_shards! {
    the_shorter_time_holds_for_stored_messages with
        "retained_ttl=['r/+ => 20600', 'r/# => 1']";
    a_message_is_gone_after_its_time with "retained_ttl=short/# => 1";
    zero_keeps_nothing with "retained_ttl=none => 0";
    expired_messages_leave_the_store with "retained_ttl=short/# => 1", "acl_file=tests/conformance/dollar.acl";
}
