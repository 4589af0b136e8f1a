//! Sessions: present or not, their end, take-over, queues (sections 3.1.2.4, 3.1.2.11, 3.1.4, 4.1).

use std::time::{Duration, Instant};

use crate::{
    common::{Broker, RawClient, on_one_and_four_shards},
    witnesses::Witnesses,
};

/// MQTT-3.1.2-4 to -6, MQTT-3.2.2-2, MQTT-3.2.2-3
fn session_present_follows_clean_start(broker: &Broker) {
    // (Clean Start, expiry, present afterwards), one connection after the other.
    let steps = [
        ("00", "0000012c", false),
        ("00", "0000012c", true),
        ("02", "0000012c", false),
        ("00", "00000000", true),
        ("00", "0000012c", false),
        ("02", "00000000", false),
        ("00", "00000000", false),
    ];
    for (step, (flags, expiry, present)) in steps.into_iter().enumerate() {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 {flags} 003c ( 11 {expiry} ) 'me' )"));
        assert_eq!(client.expect_accepted().session_present, present, "step {step}");
        client.send("e0 00");
        client.expect_closed();
    }
}

/// 3.1.1:MQTT-3.2.2-1 to -3
fn session_present_in_3_1_1(broker: &Broker) {
    assert!(!RawClient::v311_resume(broker.port, "me").1);
    assert!(RawClient::v311_resume(broker.port, "me").1);
    drop(RawClient::v311(broker.port, "me"));
    assert!(!RawClient::v311_resume(broker.port, "me").1);
    // 3.1 knows sessions, but not the flag that tells of them.
    let mut old = RawClient::connect(broker.port);
    old.send("10 ( 'MQIsdp' 03 00 003c 'me' )");
    old.expect("20 02 00 00");
}

/// A resumed session has its subscriptions; a new one has none.
fn subscriptions_are_part_of_the_session(broker: &Broker) {
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("82 ( 0001 () 't' 00 )");
    client.expect("90 ( 0001 () 00 )");
    drop(client);
    let (mut client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    client.send("30 ( 't' () `x` )");
    client.expect("30 ( 't' () `x` )");
    drop(client);
    let mut client = RawClient::v5(broker.port, "me");
    client.send("30 ( 't' () `x` )");
    client.ping();
}

/// MQTT-3.1.2-23 and 3.1.2.11.2: the time starts when the connection ends.
fn a_session_ends_when_its_time_is_over(broker: &Broker) {
    let connect = |expiry: &str| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 00 003c ( 11 {expiry} ) 'short' )"));
        let present = client.expect_accepted().session_present;
        (client, present)
    };
    let (mut client, present) = connect("00000001");
    assert!(!present);
    client.send("82 ( 0001 () 'short' 01 )");
    client.expect("90 ( 0001 () 01 )");
    // Longer than the interval, but connected.
    client.expect_silence(Duration::from_millis(1300));
    drop(client);
    let (client, present) = connect("00000001");
    assert!(present, "it has to last a second after the connection ended");
    drop(client);
    let ended = Instant::now();
    std::thread::sleep(Duration::from_millis(2500));
    let (mut client, present) = connect("00000001");
    assert!(!present, "it has to be gone {:?} after the connection", ended.elapsed());
    client.send("32 ( 'short' 0001 () `x` )");
    client.expect_ack(0x40, "0001");
    client.ping();
}

/// 3.14.2.2.2: the interval can change at the end, but not from zero.
fn disconnect_changes_the_session_expiry(broker: &Broker) {
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("e0 ( 00 ( 11 00000000 ) )");
    client.expect_closed();
    let (mut client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(!present);
    client.send("e0 ( 00 ( 11 0000000a ) )");
    client.expect_closed();
    assert!(RawClient::v5_resume(broker.port, "me").1);

    let mut client = RawClient::v5(broker.port, "none");
    client.send("e0 ( 00 ( 11 0000000a ) )");
    // 3.14.2.2.2: the answer to this Protocol Error is a DISCONNECT with 0x82.
    client.expect_disconnect(0x82);
}

/// 3.2.2.3.2: what the broker uses instead is told.
fn a_longer_session_expiry_is_lowered(broker: &Broker) {
    for (asked, told) in [("ffffffff", Some([0, 0, 0, 100])), ("000003e8", Some([0, 0, 0, 100]))] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 02 003c ( 11 {asked} ) 'me' )"));
        let connack = client.expect_accepted();
        assert_eq!(connack.property(0x11), told.as_ref().map(<[u8; 4]>::as_slice));
    }
}

/// MQTT-3.1.4-3
fn the_newer_connection_takes_over(broker: &Broker) {
    let (mut old, _) = RawClient::v5_resume(broker.port, "me");
    let (mut new, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    old.expect_disconnect(0x8e);
    // 3.x has no word for it.
    let mut newer = RawClient::v311(broker.port, "me");
    new.expect_disconnect(0x8e);
    let mut newest = RawClient::v5(broker.port, "me");
    newer.expect_closed();
    newest.ping();
    // Deliveries go to the newest, and only there.
    newest.send("82 ( 0001 () 't' 00 ) 30 ( 't' () `x` )");
    newest.expect_in_any_order(&["90 ( 0001 () 00 )", "30 ( 't' () `x` )"]);
}

/// A take-over in the middle of an exchange completes on the new connection.
fn a_take_over_keeps_what_is_in_flight(broker: &Broker) {
    let (mut old, _) = RawClient::v5_resume(broker.port, "me");
    old.send("82 ( 0001 () 't' 02 )");
    old.expect("90 ( 0001 () 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("34 ( 't' 0001 `x` ) 62 02 0001");
    publisher.expect("50 02 0001 70 02 0001");
    let packet_id = old.expect("34 ( 't' ???? () `x` )");
    let (mut new, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    old.expect_disconnect(0x8e);
    new.expect(&format!("3c ( 't' {packet_id} () `x` )"));
    new.ping();
}

/// MQTT-4.5.0-1: QoS 1 and 2 wait for the client, in order.
fn messages_wait_for_an_absent_client(broker: &Broker) {
    absent_client_gets(
        broker,
        &["32 ( 't' ???? `1` )", "34 ( 't' ???? `2` )", "32 ( 't' ???? `3` )"],
    );
}

/// `queue_qos0`: QoS 0 too, with the others in order.
fn qos_0_waits_too_if_told_so(broker: &Broker) {
    absent_client_gets(
        broker,
        &["32 ( 't' ???? `1` )", "30 ( 't' `0` )", "34 ( 't' ???? `2` )", "32 ( 't' ???? `3` )"],
    );
}

fn absent_client_gets(broker: &Broker, messages: &[&str]) {
    let (mut client, _) = RawClient::v311_resume(broker.port, "absent");
    client.send("82 ( 0001 't' 02 )");
    client.expect("90 ( 0001 02 )");
    client.send("e0 00");
    client.expect_closed();
    // Some on every shard: what they have got, the absent client's queue has, too.
    let mut witnesses = Witnesses::of(broker, "t");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send(
        "32 ( 't' 0001 `1` ) 30 ( 't' `0` ) 34 ( 't' 0002 `2` ) 62 02 0002 32 ( 't' 0003 `3` )",
    );
    publisher.expect("40 02 0001 50 02 0002 70 02 0002 40 02 0003");
    witnesses.expect("30 ( 't' `1` ) 30 ( 't' `0` ) 30 ( 't' `2` ) 30 ( 't' `3` )");
    let (mut client, present) = RawClient::v311_resume(broker.port, "absent");
    assert!(present);
    for message in messages {
        client.expect(message);
    }
    client.ping();
}

/// The end of a 3.1.1 session with Clean Session 1 is the end of its connection.
fn a_clean_session_leaves_nothing(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    client.send("82 ( 0001 't' 01 )");
    client.expect("90 ( 0001 01 )");
    client.send("e0 00");
    client.expect_closed();
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("32 ( 't' 0001 `1` )");
    publisher.expect("40 02 0001");
    let (mut client, present) = RawClient::v311_resume(broker.port, "me");
    assert!(!present);
    client.ping();
}

on_one_and_four_shards! {
    session_present_follows_clean_start;
    session_present_in_3_1_1;
    subscriptions_are_part_of_the_session;
    a_session_ends_when_its_time_is_over;
    disconnect_changes_the_session_expiry;
    a_longer_session_expiry_is_lowered with "limits.session_expiry_secs_max=100";
    the_newer_connection_takes_over;
    a_take_over_keeps_what_is_in_flight;
    messages_wait_for_an_absent_client with "limits.queue_qos0=false";
    qos_0_waits_too_if_told_so with "limits.queue_qos0=true";
    a_clean_session_leaves_nothing;
}
