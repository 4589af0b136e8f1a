//! `$delayed/SECONDS/TOPIC`: acknowledged at once, published after its time.

use std::time::Instant;

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

/// A v5 subscriber of `t/#` at QoS 2.
fn watcher(broker: &Broker) -> RawClient {
    let mut watcher = RawClient::v5(broker.port, "watcher");
    watcher.send("82 ( 0001 () 't/#' 02 )");
    watcher.expect("90 ( 0001 () 02 )");
    watcher
}

/// Time itself is under test: about a second has passed since `sent`.
#[track_caller]
fn assert_a_second_since(sent: Instant) {
    let waited = sent.elapsed();
    assert!((900..5000).contains(&waited.as_millis()), "{waited:?} instead of a second");
}

fn every_version_and_qos_is_acknowledged_now_and_published_later(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut v5 = RawClient::v5(broker.port, "v5");
    let mut v311 = RawClient::v311(broker.port, "v311");
    let sent = Instant::now();
    // All under one deadline or nearly so: they come in this order.
    v5.send("30 ( '$delayed/1/t/5/0' () `a` ) 32 ( '$delayed/1/t/5/1' 0001 () `b` )");
    v5.send("34 ( '$delayed/1/t/5/2' 0002 () `c` )");
    assert_eq!(v5.ack_reason(0x40, "0001"), 0x00);
    assert_eq!(v5.ack_reason(0x50, "0002"), 0x00);
    v5.send("62 02 0002");
    v5.expect("70 02 0002");
    watcher.expect("30 ( 't/5/0' () `a` )");
    assert_a_second_since(sent);
    watcher.expect("32 ( 't/5/1' 0001 () `b` ) 34 ( 't/5/2' 0002 () `c` )");

    let sent = Instant::now();
    v311.send("30 ( '$delayed/1/t/4/0' `a` ) 32 ( '$delayed/01/t/4/1' 0001 `b` )");
    v311.send("34 ( '$delayed/1/t/4/2' 0002 `c` )");
    v311.expect("40 02 0001 50 02 0002");
    v311.send("62 02 0002");
    v311.expect("70 02 0002");
    watcher.expect("30 ( 't/4/0' () `a` )");
    assert_a_second_since(sent);
    watcher.expect("32 ( 't/4/1' 0003 () `b` ) 34 ( 't/4/2' 0004 () `c` )");
}

/// By deadline, then by arrival; also for more than are published at a time.
fn messages_come_in_the_order_of_their_deadlines(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("30 ( '$delayed/2/t/last' `x` )");
    publisher
        .send(&(0..1000).map(|n| format!("30 ( '$delayed/1/t' {n:04x} )")).collect::<String>());
    publisher.send("30 ( '$delayed/0/t/first' `x` )");
    watcher.expect("30 ( 't/first' () `x` )");
    for n in 0..1000 {
        watcher.expect(&format!("30 ( 't' () {n:04x} )"));
    }
    watcher.expect("30 ( 't/last' () `x` )");
}

fn the_publisher_need_not_stay(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("32 ( '$delayed/1/t' 0001 ( 26 'a' '1' ) `x` ) e0 00");
    publisher.expect_ack(0x40, "0001");
    publisher.expect_closed();
    watcher.expect("32 ( 't' 0001 ( 26 'a' '1' ) `x` )");
}

/// MQTT-3.8.3-3, also in a later session of the publisher.
fn no_local_holds_later_too(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("82 ( 0001 () 't' 04 't/own' 00 )");
    publisher.expect("90 ( 0001 () 00 00 )");
    publisher.send("30 ( '$delayed/1/t' () `x` ) 30 ( '$delayed/1/t/own' () `y` )");
    watcher.expect("30 ( 't' () `x` ) 30 ( 't/own' () `y` )");
    publisher.expect("30 ( 't/own' () `y` )");

    publisher.send("32 ( '$delayed/1/t' 0001 () `x` ) 32 ( '$delayed/1/t/own' 0002 () `y` )");
    assert_eq!(publisher.ack_reason(0x40, "0001"), 0x00);
    assert_eq!(publisher.ack_reason(0x40, "0002"), 0x00);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("82 ( 0001 () 't' 04 't/own' 00 )");
    publisher.expect("90 ( 0001 () 00 00 )");
    watcher.expect("32 ( 't' 0001 () `x` ) 32 ( 't/own' 0002 () `y` )");
    publisher.expect("30 ( 't/own' () `y` )");
}

fn a_retained_message_is_retained_when_it_is_published(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("33 ( '$delayed/2/t/kept' 0001 `x` )");
    publisher.expect("40 02 0001");
    let mut early = RawClient::v311(broker.port, "early");
    early.send("82 ( 0001 't/kept' 00 )");
    // Live and without the flag: it was not there yet.
    early.expect("90 ( 0001 00 ) 30 ( 't/kept' `x` )");
    watcher.expect("32 ( 't/kept' 0001 () `x` )");
    let mut late = RawClient::v311(broker.port, "late");
    late.send("82 ( 0001 't/kept' 00 )");
    late.expect_in_any_order(&["90 ( 0001 00 )", "31 ( 't/kept' `x` )"]);
}

/// MQTT-3.3.2-5, -6: the interval begins when the message is published.
fn message_expiry_counts_from_publication(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("30 ( '$delayed/2/t' ( 02 00000001 ) `x` )");
    watcher.expect("30 ( 't' ( 02 00000001 ) `x` )");
}

fn a_topic_alias_can_stand_for_it(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("30 ( '$delayed/1/t' ( 23 0001 ) `a` ) 30 ( '' ( 23 0001 ) `b` )");
    watcher.expect("30 ( 't' () `a` ) 30 ( 't' () `b` )");
}

/// Section 3.4.2.1: 0x90, and nothing is published.
fn malformed_ones_are_refused(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut v5 = RawClient::v5(broker.port, "v5");
    let mut v311 = RawClient::v311(broker.port, "v311");
    for topic in [
        "$delayed/x/t",
        "$delayed/-1/t",
        "$delayed/4294968/t",
        "$delayed//t",
        "$delayed/0/",
        "$delayed/0",
        "$delayed",
        "$delayed/0/$SYS/t",
        "$delayed/0/$CONTROL/t",
        "$delayed/0/$share/t",
        "$delayed/0/$delayed/0/t",
    ] {
        println!("{topic}");
        v5.send(&format!("30 ( '{topic}' () `x` ) 32 ( '{topic}' 0001 () `x` )"));
        assert_eq!(v5.ack_reason(0x40, "0001"), 0x90);
        // MQTT-4.3.3-9: the refusal ends the exchange.
        v5.send(&format!("34 ( '{topic}' 0002 () `x` )"));
        assert_eq!(v5.ack_reason(0x50, "0002"), 0x90);
        v311.send(&format!("30 ( '{topic}' `x` ) 32 ( '{topic}' 0001 `x` )"));
        v311.expect("40 02 0001");
        v311.send(&format!("34 ( '{topic}' 0002 `x` ) 62 02 0002"));
        v311.expect("50 02 0002 70 02 0002");
    }
    broker.wait_for_log(&["message dropped", "client=v5", "reason=\"topic_name_invalid\""]);
    broker.wait_for_log(&["message dropped", "client=v311", "reason=\"topic_name_invalid\""]);
    // What only begins like it is a topic like any other.
    v5.send("82 ( 0001 () '$delayed2/#' 00 )");
    v5.expect("90 ( 0001 () 00 )");
    v5.send("30 ( '$delayed2/x/t' () `x` )");
    v5.expect("30 ( '$delayed2/x/t' () `x` )");
    v5.send("30 ( 't' () `marker` )");
    watcher.expect("30 ( 't' () `marker` )");
}

fn a_will_can_be_delayed(broker: &Broker) {
    let mut watcher = watcher(broker);
    for connect in ["'MQTT' 04 0e 003c 'me'", "'MQTT' 05 0e 003c () 'me' ()"] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( {connect} '$delayed/1/t/will' 'gone' )"));
        assert_eq!(client.read_packet()[3], 0x00);
        let lost = Instant::now();
        drop(client);
        let id = watcher.expect("32 ( 't/will' ???? () `gone` )");
        watcher.send(&format!("40 02 {id}"));
        assert_a_second_since(lost);
    }
}

/// Section 3.2.2.2: 0x90; before 5.0 the nearest is 3.
fn a_malformed_delayed_will_is_refused(broker: &Broker) {
    each(["$delayed/x/t", "$delayed/1", "$delayed/1/$SYS/x"], |topic| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 06 003c () 'me' () '{topic}' 'gone' )"));
        client.expect_refused(&[0x90]);
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 06 003c 'me' '{topic}' 'gone' )"));
        client.expect("20 02 00 03");
        client.expect_closed();
    });
}

/// 0x97, and the one that waits is still published.
fn further_ones_are_refused_at_the_bound(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut v5 = RawClient::v5(broker.port, "v5");
    v5.send("32 ( '$delayed/1/t' 0001 () `kept` )");
    assert_eq!(v5.ack_reason(0x40, "0001"), 0x00);
    v5.send("32 ( '$delayed/1/t' 0002 () `x` ) 34 ( '$delayed/0/t' 0003 () `x` )");
    assert_eq!(v5.ack_reason(0x40, "0002"), 0x97);
    assert_eq!(v5.ack_reason(0x50, "0003"), 0x97);
    broker.wait_for_log(&["message dropped", "client=v5", "reason=\"delayed_max\""]);
    watcher.expect("32 ( 't' 0001 () `kept` )");
    watcher.send("40 02 0001");
    v5.send("32 ( '$delayed/0/t' 0004 () `again` )");
    assert_eq!(v5.ack_reason(0x40, "0004"), 0x00);
    watcher.expect("32 ( 't' ???? () `again` )");
}

on_one_and_four_shards! {
    every_version_and_qos_is_acknowledged_now_and_published_later;
    messages_come_in_the_order_of_their_deadlines;
    the_publisher_need_not_stay;
    no_local_holds_later_too;
    a_retained_message_is_retained_when_it_is_published;
    message_expiry_counts_from_publication;
    a_topic_alias_can_stand_for_it;
    malformed_ones_are_refused with "acl_file=tests/conformance/dollar.acl";
    a_will_can_be_delayed;
    a_malformed_delayed_will_is_refused;
    further_ones_are_refused_at_the_bound with "limits.delayed_messages_max=1";
}

mod bytes {
    use super::*;

    /// Topic and payload count, 11 bytes here.
    fn bytes_are_bounded_too(broker: &Broker) {
        let mut v5 = RawClient::v5(broker.port, "v5");
        // No acknowledgement waits for so long.
        v5.send("32 ( '$delayed/9/t' 0001 () `12345678901` )");
        assert_eq!(v5.ack_reason(0x40, "0001"), 0x97);
        v5.send("32 ( '$delayed/9/t' 0001 () `1234567890` )");
        assert_eq!(v5.ack_reason(0x40, "0001"), 0x00);
        v5.send("32 ( '$delayed/9/t' 0001 () `` )");
        assert_eq!(v5.ack_reason(0x40, "0001"), 0x97);
        // What still waits is told at the end.
        broker.signal("TERM");
        broker.wait_for_log(&["has ended", " delayed=1 ", " dropped.delayed_max=2"]);
    }

    #[test]
    fn bytes_are_bounded_on_one_shard() {
        bytes_are_bounded_too(&Broker::start(1, &["limits.delayed_bytes_max=11"]));
    }

    #[test]
    fn each_of_four_shards_has_a_quarter() {
        bytes_are_bounded_too(&Broker::start(4, &["limits.delayed_bytes_max=44"]));
    }
}
