//! Retained messages: kept, replaced, cleared, expired (section 3.3.1.3).

use std::time::Duration;

use crate::{
    common::{Broker, RawClient, on_one_and_four_shards},
    witnesses::Witnesses,
};

/// What a new 3.1.1 subscriber at QoS 2 gets for `filter`, in any order.
fn expect_retained(broker: &Broker, filter: &str, messages: &[&str]) {
    let mut client = RawClient::v311(broker.port, "new subscriber");
    client.send(&format!("82 ( 0001 '{filter}' 02 'marker' 00 )"));
    let mut expected = vec!["90 ( 0001 02 00 )"];
    expected.extend(messages);
    client.expect_in_any_order(&expected);
    // Retained messages may come from another shard: a live one shows that none is under way.
    client.send("30 ( 'marker' `m` )");
    client.expect("30 ( 'marker' `m` )");
    client.ping();
}

/// MQTT-3.3.1-5 to -8
fn a_retained_message_is_kept_replaced_and_cleared(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    // A new subscriber could get live what is still under way to the shard of the one before it.
    let mut witnesses = Witnesses::of(broker, "a");
    expect_retained(broker, "a", &[]);
    publisher.send("33 ( 'a' 0001 `first` )");
    publisher.expect("40 02 0001");
    witnesses.expect("30 ( 'a' `first` )");
    expect_retained(broker, "a", &["33 ( 'a' ???? `first` )"]);
    publisher.send("33 ( 'a' 0001 `second` )");
    publisher.expect("40 02 0001");
    witnesses.expect("30 ( 'a' `second` )");
    expect_retained(broker, "a", &["33 ( 'a' ???? `second` )"]);
    // Without the flag nothing changes.
    publisher.send("32 ( 'a' 0002 `not kept` )");
    publisher.expect("40 02 0002");
    witnesses.expect("30 ( 'a' `not kept` )");
    publisher.send("32 ( 'a' 0003 )");
    publisher.expect("40 02 0003");
    witnesses.expect("30 ( 'a' )");
    expect_retained(broker, "a", &["33 ( 'a' ???? `second` )"]);
    publisher.send("33 ( 'a' 0004 )");
    publisher.expect("40 02 0004");
    witnesses.expect("30 ( 'a' )");
    expect_retained(broker, "a", &[]);
}

/// A live subscriber gets the message, and the clearing, without the flag.
fn live_subscribers_see_no_retain_flag(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "live");
    client.send("82 ( 0001 'a' 00 )");
    client.expect("90 ( 0001 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("31 ( 'a' `x` ) 31 ( 'a' )");
    client.expect("30 ( 'a' `x` ) 30 ( 'a' )");
}

/// The lower QoS, as for any message (MQTT-3.8.4-8).
fn retained_messages_come_with_the_lower_qos(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("33 ( 'q/1' 0001 `x` ) 35 ( 'q/2' 0002 `x` ) 62 02 0002");
    publisher.expect("40 02 0001 50 02 0002 70 02 0002");
    for (granted, one, two) in [
        ("00", "31 ( 'q/1' `x` )", "31 ( 'q/2' `x` )"),
        ("01", "33 ( 'q/1' ???? `x` )", "33 ( 'q/2' ???? `x` )"),
        ("02", "33 ( 'q/1' ???? `x` )", "35 ( 'q/2' ???? `x` )"),
    ] {
        let mut client = RawClient::v311(broker.port, "subscriber");
        client.send(&format!("82 ( 0001 'q/+' {granted} )"));
        client.expect_in_any_order(&[&format!("90 ( 0001 {granted} )"), one, two]);
    }
}

/// A wildcard finds them all, on every shard, and only those.
fn a_wildcard_brings_every_match(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    const TOPICS: usize = 200;
    for n in 1..=TOPICS {
        publisher.send(&format!("33 ( 'w/{n}/x' {n:04x} {n:04x} )"));
        publisher.expect(&format!("40 02 {n:04x}"));
    }
    publisher.send("33 ( '$w/1/x' 0001 `x` )");
    publisher.expect("40 02 0001");
    for filter in ["w/#", "w/+/x", "#", "+/+/x"] {
        let mut client = RawClient::v311(broker.port, "subscriber");
        client.send(&format!("82 ( 0001 '{filter}' 00 )"));
        let mut seen: Vec<u16> = Vec::new();
        while seen.len() < TOPICS {
            let packet = client.read_packet();
            if packet[0] == 0x31 {
                let end = packet.len();
                seen.push(u16::from_be_bytes([packet[end - 2], packet[end - 1]]));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=TOPICS as u16).collect::<Vec<_>>(), "{filter}");
        client.send(&format!("a2 ( 0002 '{filter}' )"));
        client.expect("b0 02 0002");
        client.ping();
    }
    expect_retained(broker, "w/7/+", &["33 ( 'w/7/x' ???? 0007 )"]);
    expect_retained(broker, "w/7", &[]);
    expect_retained(broker, "$w/#", &["33 ( '$w/1/x' ???? `x` )"]);
}

/// A session that is resumed does not get them again; a subscription made again does.
fn resuming_brings_no_retained_messages(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("33 ( 'r' 0001 `x` )");
    publisher.expect("40 02 0001");
    let (mut client, _) = RawClient::v311_resume(broker.port, "me");
    client.send("82 ( 0001 'r' 00 )");
    client.expect_in_any_order(&["90 ( 0001 00 )", "31 ( 'r' `x` )"]);
    drop(client);
    let (mut client, present) = RawClient::v311_resume(broker.port, "me");
    assert!(present);
    client.send("30 ( 'r' `live` )");
    client.expect("30 ( 'r' `live` )");
    client.send("82 ( 0002 'r' 00 )");
    client.expect_in_any_order(&["90 ( 0002 00 )", "31 ( 'r' `x` )"]);
}

/// MQTT-3.3.2-5, MQTT-3.3.2-6, MQTT-3.3.2-18 for retained messages.
fn retained_messages_keep_properties_and_expire(broker: &Broker) {
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("33 ( 'p/user' 0001 ( 26 'b' '1' 26 'a' '2' ) `x` )");
    publisher.send("33 ( 'p/short' 0002 ( 02 00000001 ) `x` )");
    publisher.send("33 ( 'p/long' 0003 ( 02 00000064 ) `x` )");
    for id in ["0001", "0002", "0003"] {
        publisher.expect_ack(0x40, id);
    }
    // Time itself is under test.
    std::thread::sleep(Duration::from_millis(2300));
    let mut client = RawClient::v5(broker.port, "subscriber");
    client.send("82 ( 0001 () 'p/#' 00 )");
    client.expect_in_any_order(&[
        "90 ( 0001 () 00 )",
        "31 ( 'p/user' ( 26 'b' '1' 26 'a' '2' ) `x` )",
        "31 ( 'p/long' ( 02 000000?? ) `x` )",
    ]);
    client.send("30 ( 'p/live' () `x` )");
    client.expect("30 ( 'p/live' () `x` )");
}

/// What a new subscription is owed comes at the client's pace and in full, however little may
/// wait for it otherwise.
fn no_bound_on_queues_shortens_a_walk(broker: &Broker) {
    const TOPICS: usize = 60;
    let payload = "ab".repeat(20_000);
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for n in 0..TOPICS {
        publisher.send(&format!("33 ( 'long/{n}' 0001 {payload} )"));
        publisher.expect("40 02 0001");
    }
    for qos in 0..=1 {
        // Reads nothing until all could have been sent to it.
        let mut client = RawClient::v5(broker.port, &format!("qos {qos}"));
        client.send(&format!("82 ( 0001 () 'long/#' 0{qos} )"));
        client.expect(&format!("90 ( 0001 () 0{qos} )"));
        let mut taken = [false; TOPICS];
        for _ in 0..TOPICS {
            let packet = client.read_packet();
            let at = packet.windows(5).position(|bytes| bytes == b"long/").expect("its topic") + 5;
            let number = packet[at..].iter().take_while(|byte| byte.is_ascii_digit());
            let number = number.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            assert!(!std::mem::replace(&mut taken[number], true), "{number} comes twice");
            if qos == 1 {
                let end = at + number.to_string().len();
                client.send(&format!("40 02 {:02x}{:02x}", packet[end], packet[end + 1]));
            }
        }
        client.ping();
    }
}

/// What is published after SUBACK comes live, and not from the store as well: a second copy would
/// stand before one of the next packets. Other messages make the ways between shards differ.
fn what_is_published_after_suback_comes_once(broker: &Broker) {
    let publishers = (0..4).map(|n| RawClient::v311(broker.port, &format!("publisher {n}")));
    let mut publishers: Vec<_> = publishers.collect();
    let load = "30 ( 'load' `x` ) ".repeat(50);
    for qos in 1..=2 {
        let mut subscriber = RawClient::v311(broker.port, &format!("subscriber {qos}"));
        let mut busy = Witnesses::of(broker, "load");
        for n in 1..=100 {
            let publisher = &mut publishers[n % 4];
            subscriber.send(&format!("82 ( {n:04x} 'once/{qos}/{n}/#' 0{qos} )"));
            publisher.send(&load);
            subscriber.expect(&format!("90 ( {n:04x} 0{qos} )"));
            let topic = format!("once/{qos}/{n}/x");
            publisher.send(&format!("3{:x} ( '{topic}' 0001 `x` )", 2 * qos + 1));
            let id = subscriber.expect(&format!("3{:x} ( '{topic}' ???? `x` )", 2 * qos));
            if qos == 1 {
                publisher.expect("40 02 0001");
                subscriber.send(&format!("40 02 {id}"));
            } else {
                publisher.expect("50 02 0001");
                publisher.send("62 02 0001");
                publisher.expect("70 02 0001");
                subscriber.send(&format!("50 02 {id}"));
                subscriber.expect(&format!("62 02 {id}"));
                subscriber.send(&format!("70 02 {id}"));
            }
            busy.expect(&load);
        }
        // The last walk is over when a later one has brought something.
        subscriber.send(&format!("82 ( 0001 'once/{qos}/1/x' 00 )"));
        subscriber.expect("90 ( 0001 00 )");
        subscriber.expect(&format!("31 ( 'once/{qos}/1/x' `x` )"));
    }
}

on_one_and_four_shards! {
    a_retained_message_is_kept_replaced_and_cleared;
    live_subscribers_see_no_retain_flag;
    retained_messages_come_with_the_lower_qos;
    a_wildcard_brings_every_match with "acl_file=tests/conformance/dollar.acl";
    resuming_brings_no_retained_messages;
    retained_messages_keep_properties_and_expire;
    what_is_published_after_suback_comes_once;
    no_bound_on_queues_shortens_a_walk with
        "limits.queue_bytes_max=1000", "limits.queue_messages_max=1", "limits.inflight_max=2";
}
