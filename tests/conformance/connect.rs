//! CONNECT and CONNACK, keep-alive, PINGREQ, AUTH (sections 3.1, 3.2, 3.12, 3.14, 3.15).

use std::time::{Duration, Instant};

use crate::common::{Broker, RawClient, on_one_and_four_shards};

fn each_protocol_version_is_accepted(broker: &Broker) {
    for connect in [
        "10 ( 'MQIsdp' 03 02 003c 'v31' )",
        "10 ( 'MQTT' 04 02 003c 'v311' )",
        "10 ( 'MQTT' 04 c2 003c 'named' 'user' 'password' )",
        "10 ( 'MQTT' 04 82 003c 'no password' 'user' )",
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        client.expect("20 02 00 00");
        client.ping();
    }
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () '0123456789ABCDEFGHIJKLM' )");
    let connack = client.expect_accepted();
    assert!(!connack.session_present);
    assert_eq!(connack.property(0x12), None, "an id was given, none may be assigned");
    client.ping();
}

/// A version nobody speaks: MQTT-3.1.2-2, 3.1.1:MQTT-3.1.2-2.
fn an_unknown_protocol_is_refused(broker: &Broker) {
    // The name is known, so the answer has to say that the version is not.
    for connect in ["10 ( 'MQTT' 02 02 003c 'me' )", "10 ( 'MQTT' 06 02 003c () 'me' )"] {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        let packet = client.read_packet();
        let known = packet == [0x20, 2, 0, 1] || packet.get(3) == Some(&0x84);
        assert!(known, "{connect}: {packet:02x?}");
        client.expect_closed();
    }
    // MQTT-3.1.2-1: a hint that this is MQTT may come or not.
    for connect in [
        "10 ( 'MQTX' 04 02 003c 'me' )",
        "10 ( 'MQTX' 05 02 003c () 'me' )",
        "10 ( '' 04 02 003c 'me' )",
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        client.expect_refused_in_any_version();
    }
}

/// MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16
fn an_empty_id_gets_a_new_one(broker: &Broker) {
    let mut assigned = Vec::new();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(broker.port);
        client.send("10 ( 'MQTT' 05 02 003c () '' )");
        let connack = client.expect_accepted();
        assigned.push(connack.property(0x12).expect("an Assigned Client Identifier").to_vec());
        open.push(client);
    }
    assert!(assigned.iter().all(|id| id.len() > 2), "{assigned:?}");
    assigned.sort();
    assigned.dedup();
    assert_eq!(assigned.len(), 3, "each id only once");
    open.iter_mut().for_each(RawClient::ping);
}

/// 3.1.1:MQTT-3.1.3-7 to -9: only with Clean Session 1.
fn an_empty_id_in_3_1_1_needs_a_clean_session(broker: &Broker) {
    let mut clean = RawClient::connect(broker.port);
    clean.send("10 ( 'MQTT' 04 02 003c '' )");
    clean.expect("20 02 00 00");
    clean.ping();

    for connect in ["10 ( 'MQTT' 04 00 003c '' )", "10 ( 'MQIsdp' 03 00 003c '' )"] {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        client.expect("20 02 00 02");
        client.expect_closed();
    }
}

/// MQTT-3.1.0-2
fn a_second_connect_ends_the_connection(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "twice");
    client.send("10 ( 'MQTT' 04 02 003c 'twice' )");
    client.expect_closed();

    let mut client = RawClient::v5(broker.port, "twice");
    client.send("10 ( 'MQTT' 05 02 003c () 'twice' )");
    client.expect_disconnect(0x82);
}

/// MQTT-3.1.0-1: closed without an answer, since nobody is known there yet.
fn the_first_packet_has_to_be_connect(broker: &Broker) {
    for packet in [
        "c0 00",
        "30 ( 'a' `x` )",
        "32 ( 'a' 0001 `x` )",
        "40 ( 0001 )",
        "82 ( 0001 'a' 00 )",
        "a2 ( 0001 'a' )",
        "e0 00",
        "f0 00",
        "00 00",
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(packet);
        client.expect_closed();
    }
}

/// 3.1.1:MQTT-3.1.2-22: no Password without a User Name. In 5.0 it is allowed.
fn a_password_may_stand_alone_in_5_0(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 42 003c 'me' 'password' )");
    client.expect_closed();
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 42 003c () 'me' 'password' )");
    client.expect_accepted();
}

/// How TCP cuts the stream means nothing.
fn packets_may_come_in_one_piece_or_byte_by_byte(broker: &Broker) {
    let packets = crate::common::wire(
        "10 ( 'MQTT' 04 02 003c 'stream' ) 82 ( 0001 's/#' 01 ) 32 ( 's/1' 0002 `one` ) c0 00",
    );
    for piece in [packets.len(), 7, 1] {
        let mut client = RawClient::connect(broker.port);
        packets.chunks(piece).for_each(|bytes| client.send_bytes(bytes));
        client.expect("20 02 00 00");
        client.expect_in_any_order(&[
            "90 ( 0001 01 )",
            "40 ( 0002 )",
            "32 ( 's/1' ???? `one` )",
            "d0 00",
        ]);
    }
}

/// A connection that never becomes one: silent, half a packet, and byte after byte.
fn a_connect_has_to_come_in_time(broker: &Broker) {
    let started = Instant::now();
    let mut silent = RawClient::connect(broker.port);
    let mut half = RawClient::connect(broker.port);
    half.send("10 20 'MQTT'");
    let mut slow = RawClient::connect(broker.port);
    let mut bytes = crate::common::wire("10 ( 'MQTT' 04 02 003c 'slow and never complete' )");
    bytes.truncate(30);
    // Paced input is the case under test: no byte may buy more time.
    for byte in bytes {
        if !slow.try_send_bytes(&[byte]) || started.elapsed() > Duration::from_secs(3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for client in [&mut silent, &mut half, &mut slow] {
        client.expect_closed_within(Duration::from_secs(3));
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// MQTT-3.1.2-22: after one and a half times the keep-alive, not before it.
fn a_silent_client_is_cut_after_its_keep_alive(broker: &Broker) {
    let mut v311 = RawClient::connect(broker.port);
    v311.send("10 ( 'MQTT' 04 02 0001 'silent 3' )");
    let mut v5 = RawClient::connect(broker.port);
    v5.send("10 ( 'MQTT' 05 02 0001 () 'silent 5' )");
    let mut without = RawClient::connect(broker.port);
    without.send("10 ( 'MQTT' 04 02 0000 'no keep-alive' )");
    let mut alive = RawClient::connect(broker.port);
    alive.send("10 ( 'MQTT' 04 02 0001 'pinging' )");
    v311.expect("20 02 00 00");
    without.expect("20 02 00 00");
    alive.expect("20 02 00 00");
    v5.expect_accepted();

    let started = Instant::now();
    alive.expect_silence(Duration::from_millis(700));
    alive.ping();
    v5.expect_silence(Duration::from_millis(600));
    alive.ping();
    v5.expect_disconnect(0x8d);
    assert!(started.elapsed() > Duration::from_millis(1400), "{:?}", started.elapsed());
    v311.expect_closed();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    alive.ping();
    without.ping();
}

/// MQTT-3.2.2-21, MQTT-3.2.2-22
fn a_longer_keep_alive_is_lowered(broker: &Broker) {
    for (keep_alive, server_keep_alive) in
        [("003c", Some([0, 30])), ("ffff", Some([0, 30])), ("0000", Some([0, 30])), ("000a", None)]
    {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 02 {keep_alive} () 'me' )"));
        let connack = client.expect_accepted();
        let announced = connack.property(0x13).map(<[u8]>::to_vec);
        // Telling a client what it asked for itself is no mistake.
        let echoed = server_keep_alive.is_none() && announced == Some(vec![0, 10]);
        assert!(
            echoed || announced == server_keep_alive.map(Vec::from),
            "{keep_alive}: {connack:?}"
        );
    }
}

/// MQTT-4.12.0-1, MQTT-4.12.0-7
fn authentication_methods_are_refused(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 15 'SCRAM-SHA-1' ) 'me' )");
    assert_eq!(client.connack().reason, 0x8c);
    client.expect_closed();

    let mut client = RawClient::v5(broker.port, "me");
    client.send("f0 ( 19 ( 15 'SCRAM-SHA-1' ) )");
    client.expect_disconnect_with(&[0x82, 0x8c]);
}

/// MQTT-3.1.4-6
fn nothing_after_a_refused_connect_is_handled(broker: &Broker) {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    watcher.send("82 ( 0001 't' 00 )");
    watcher.expect("90 ( 0001 00 )");
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 00 003c '' ) 30 ( 't' `from nobody` )");
    client.expect("20 02 00 02");
    client.expect_closed();
    watcher.send("30 ( 't' `marker` )");
    watcher.expect("30 ( 't' `marker` )");
}

/// 3.2.2.3: what the broker allows is what it was told to allow.
fn limits_are_announced(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () 'me' )");
    let connack = client.expect_accepted();
    let expected: [(u8, &[u8]); 5] =
        [(0x21, &[0, 7]), (0x22, &[0, 3]), (0x27, &[0, 0, 0x03, 0xe8]), (0x24, &[1]), (0x25, &[0])];
    for (property, value) in expected {
        assert_eq!(connack.property(property), Some(value), "{property:#04x} in {connack:02x?}");
    }
}

/// MQTT-3.2.2-12, MQTT-3.2.2-13, 3.2.2.3.4 and 3.2.2.3.5
fn announced_limits_are_enforced(broker: &Broker) {
    let cases = [
        ("10 ( 'MQTT' 05 16 003c () 'me' () 'w' 'x' )", 0x9b),
        ("10 ( 'MQTT' 05 26 003c () 'me' () 'w' 'x' )", 0x9a),
    ];
    for (connect, reason) in cases {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        assert_eq!(client.connack().reason, reason, "{connect}");
        client.expect_closed();
    }
    let mut client = RawClient::v5(broker.port, "qos 2");
    client.send("34 ( 'a' 0001 () `x` )");
    client.expect_disconnect(0x9b);
    let mut client = RawClient::v5(broker.port, "retain");
    client.send("31 ( 'a' () `x` )");
    client.expect_disconnect(0x9a);
    // MQTT-3.2.2-10: subscribing at a QoS that publishers may not use is fine.
    let mut client = RawClient::v311(broker.port, "subscriber");
    client.send("82 ( 0001 'a' 02 )");
    client.expect("90 ( 0001 ?? )");
}

/// 3.2.2.3.4 and 3.2.2.3.5: the defaults are told by leaving the property out.
fn full_support_is_announced_by_absence(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () 'me' )");
    let connack = client.expect_accepted();
    assert_eq!(connack.property(0x24), None, "Maximum QoS is 0 or 1, or absent");
    assert!(connack.property(0x25).is_none_or(|value| value == [1]));
    for available in [0x28, 0x29, 0x2a] {
        assert!(connack.property(available).is_none_or(|value| value == [1]), "{available:#04x}");
    }
}

/// Sections 3.12 and 3.14
fn ping_is_answered_and_disconnect_closes(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    client.send("c0 00 c0 00");
    client.expect("d0 00 d0 00");
    client.send("e0 00");
    client.expect_closed();

    for disconnect in ["e0 00", "e0 ( 00 )", "e0 ( 00 () )", "e0 ( 04 )"] {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(disconnect);
        client.expect_closed();
    }
}

on_one_and_four_shards! {
    each_protocol_version_is_accepted;
    an_unknown_protocol_is_refused;
    an_empty_id_gets_a_new_one;
    an_empty_id_in_3_1_1_needs_a_clean_session;
    a_second_connect_ends_the_connection;
    the_first_packet_has_to_be_connect;
    a_password_may_stand_alone_in_5_0;
    packets_may_come_in_one_piece_or_byte_by_byte;
    a_connect_has_to_come_in_time with "limits.connect_timeout_secs=1";
    a_silent_client_is_cut_after_its_keep_alive;
    a_longer_keep_alive_is_lowered with "limits.keep_alive_secs_max=30";
    authentication_methods_are_refused;
    nothing_after_a_refused_connect_is_handled;
    limits_are_announced with
        "limits.receive_maximum=7", "limits.topic_alias_maximum=3", "limits.packet_bytes_max=1000",
        "limits.maximum_qos=1", "limits.retain_available=false";
    announced_limits_are_enforced with "limits.maximum_qos=1", "limits.retain_available=false";
    full_support_is_announced_by_absence;
    ping_is_answered_and_disconnect_closes;
}
