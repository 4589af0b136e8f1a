//! Where 3.1.1 and 3.1 differ from 5.0: no reason codes, so that an error is the end of the connection;
//! return codes of their own; sessions by Clean Session alone.

use crate::{
    common::{Broker, RawClient, each, on_one_and_four_shards},
    witnesses::Witnesses,
};

/// Clients of 3.1 and 3.1.1 with Clean Session 1.
fn connected(broker: &Broker, protocol: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( {protocol} 02 003c 'me' )"));
    client.expect("20 02 00 00");
    client
}

const PROTOCOLS: [&str; 2] = ["'MQTT' 04", "'MQIsdp' 03"];

/// 3.1.1:MQTT-4.8.0-1, 3.1.1:MQTT-2.3.1-1, 3.1.1:MQTT-3.3.1-2, 3.1.1:MQTT-3.3.1-4,
/// 3.1.1:MQTT-3.3.2-1, 3.1.1:MQTT-3.3.2-2, 3.1.1:MQTT-3.8.3-1, 3.1.1:MQTT-3.8.3-3,
/// 3.1.1:MQTT-3.8.3-4, 3.1.1:MQTT-3.10.3-1, 3.1.1:MQTT-3.10.3-2, 3.1.1:MQTT-4.7.1-1 to -3,
/// 3.1.1:MQTT-4.7.3-1, 3.1.1:MQTT-4.7.3-2: an error closes the connection, without a word.
fn errors_close_without_a_word(broker: &Broker) {
    let packets = [
        ("PUBLISH, packet id 0", "32 ( 't' 0000 `x` )"),
        ("PUBLISH, packet id 0", "34 ( 't' 0000 `x` )"),
        ("PUBLISH, no packet id", "32 ( 't' )"),
        ("PUBLISH, QoS 3", "36 ( 't' 0001 `x` )"),
        ("PUBLISH, DUP at QoS 0", "38 ( 't' `x` )"),
        ("PUBLISH, no topic", "30 00"),
        ("PUBLISH, empty topic", "30 ( '' `x` )"),
        ("PUBLISH, topic longer than the packet", "30 ( 0009 `t` )"),
        ("PUBLISH, wildcard", "30 ( 't/#' `x` )"),
        ("PUBLISH, wildcard", "30 ( '+' `x` )"),
        ("PUBLISH, NUL", "30 ( 0002 7400 `x` )"),
        ("PUBLISH, no UTF-8", "30 ( 0002 74ff `x` )"),
        ("PUBLISH, surrogate", "30 ( 0003 eda080 `x` )"),
        ("PUBACK, packet id 0", "40 02 0000"),
        ("PUBACK, longer", "40 03 0001 00"),
        ("PUBREC, shorter", "50 01 00"),
        ("PUBREC, longer", "50 04 0001 00 00"),
        ("PUBREL, empty", "62 00"),
        ("PUBREL, longer", "62 03 0001 00"),
        ("PUBCOMP, longer", "70 03 0001 92"),
        ("SUBSCRIBE, no filter", "82 ( 0001 )"),
        ("SUBSCRIBE, packet id 0", "82 ( 0000 't' 00 )"),
        ("SUBSCRIBE, no QoS", "82 ( 0001 't' )"),
        ("SUBSCRIBE, QoS 3", "82 ( 0001 't' 03 )"),
        ("SUBSCRIBE, No Local of 5.0", "82 ( 0001 't' 04 )"),
        ("SUBSCRIBE, highest reserved bit", "82 ( 0001 't' 80 )"),
        ("SUBSCRIBE, second of two reserved", "82 ( 0001 't' 00 'u' 10 )"),
        ("SUBSCRIBE, empty filter", "82 ( 0001 '' 00 )"),
        ("SUBSCRIBE, no UTF-8", "82 ( 0001 0001 ff 00 )"),
        ("SUBSCRIBE, NUL", "82 ( 0001 0001 00 00 )"),
        ("SUBSCRIBE, multi-level wildcard inside", "82 ( 0001 'a/#/b' 00 )"),
        ("SUBSCRIBE, multi-level wildcard in a level", "82 ( 0001 'a#' 00 )"),
        ("SUBSCRIBE, single-level wildcard in a level", "82 ( 0001 'a+/b' 00 )"),
        ("UNSUBSCRIBE, no filter", "a2 ( 0001 )"),
        ("UNSUBSCRIBE, packet id 0", "a2 ( 0000 't' )"),
        ("UNSUBSCRIBE, no UTF-8", "a2 ( 0001 0001 ff )"),
        ("PINGREQ, longer", "c0 01 00"),
        ("DISCONNECT of 5.0", "e0 01 00"),
        ("AUTH of 5.0", "f0 00"),
        ("CONNACK", "20 02 00 00"),
        ("SUBACK", "90 ( 0001 00 )"),
        ("UNSUBACK", "b0 02 0001"),
        ("PINGRESP", "d0 00"),
        ("reserved type", "00 00"),
    ];
    for protocol in PROTOCOLS {
        each(packets, |(_, packet)| {
            let mut client = connected(broker, protocol);
            client.send(packet);
            client.expect_closed();
        });
    }
}

/// 3.1.1:MQTT-1.5.3-1, 3.1.1:MQTT-1.5.3-2, 3.1.1:MQTT-3.1.3-4, 3.1.1:MQTT-3.1.3-10,
/// 3.1.1:MQTT-3.1.3-11, 3.1.1:MQTT-3.1.4-1: each string of CONNECT.
fn bad_strings_in_connect_close_without_a_word(broker: &Broker) {
    for string in
        ["0002 6100", "0002 61ff", "0003 eda080", "0002 c0af", "0002 6180", "0004 f4908080"]
    {
        for protocol in PROTOCOLS {
            let connects = [
                format!("10 ( {protocol} 02 003c {string} )"),
                format!("10 ( {protocol} 06 003c 'me' {string} 'x' )"),
                format!("10 ( {protocol} 82 003c 'me' {string} )"),
            ];
            each(connects, |connect| {
                let mut client = RawClient::connect(broker.port);
                client.send(connect);
                client.expect_closed();
            });
        }
    }
    // The will's payload and the password are no strings.
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 c6 003c 'me' 'w' 0002 00ff 'user' 0002 00ff )");
    client.expect("20 02 00 00");
}

/// 3.1.1:MQTT-3.1.2-1, 3.1.1:MQTT-3.1.2-2: names and levels that do not belong together.
fn unknown_levels_get_return_code_1(broker: &Broker) {
    for connect in [
        "10 ( 'MQTT' 00 02 003c 'me' )",
        "10 ( 'MQTT' 03 02 003c 'me' )",
        "10 ( 'MQIsdp' 02 02 003c 'me' )",
        "10 ( 'MQIsdp' 04 02 003c 'me' )",
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("{connect} c0 00"));
        client.expect("20 02 00 01");
        client.expect_closed();
    }
    for connect in [
        "10 ( 'mqtt' 04 02 003c 'me' )",
        "10 ( 'MQTTT' 04 02 003c 'me' )",
        "10 ( 'MQISDP' 03 02 003c 'me' )",
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        client.expect_refused_in_any_version();
    }
}

/// 3.1.1:MQTT-3.8.4-5, 3.1.1:MQTT-3.9.3-1, 3.1.1:MQTT-3.9.3-2, MQTT-3.8.4-6, MQTT-3.8.4-7,
/// MQTT-3.9.3-2: a subscription that fails has its own code, in its own place. 0x80 is the only one that
/// 3.1.1 knows.
fn a_subscription_may_fail(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "old");
    client.send("82 ( 0001 'a' 02 'b' 00 )");
    client.expect("90 ( 0001 02 00 )");
    client.send("82 ( 0002 'c' 02 'b' 01 )");
    client.expect("90 ( 0002 80 01 )");
    client.send("30 ( 'c' `x` ) 30 ( 'b' `x` )");
    client.expect("30 ( 'b' `x` )");
    client.ping();

    let mut client = RawClient::v5(broker.port, "new");
    client.send("82 ( 0001 () 'a' 02 'b' 00 )");
    client.expect("90 ( 0001 () 02 00 )");
    client.send("82 ( 0002 () '$share/g/c' 02 'b' 01 )");
    client.expect("90 ( 0002 () 97 01 )");
    client.send("30 ( 'c' () `x` ) 30 ( 'b' () `x` )");
    client.expect("30 ( 'b' () `x` )");
    client.ping();
}

/// 3.1.1:MQTT-3.3.5-2: what may not be published is acknowledged as if it had been, and reaches nobody.
fn a_refused_message_is_acknowledged(broker: &Broker) {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    watcher.send("82 ( 0001 '$CONTROL/#' 00 'marker' 00 )");
    watcher.expect("90 ( 0001 00 00 )");
    for protocol in PROTOCOLS {
        let mut client = connected(broker, protocol);
        client.send(
            "30 ( '$CONTROL/x' `0` ) 32 ( '$CONTROL/x' 0001 `1` ) 35 ( '$CONTROL/x' 0002 `2` )",
        );
        client.expect("40 02 0001 50 02 0002");
        client.send("62 02 0002");
        client.expect("70 02 0002");
        client.send("30 ( 'marker' `m` )");
        watcher.expect("30 ( 'marker' `m` )");
    }
    let mut late = RawClient::v311(broker.port, "late");
    late.send("82 ( 0001 '$CONTROL/#' 00 'marker' 00 )");
    late.expect("90 ( 0001 00 00 )");
    late.send("30 ( 'marker' `m` )");
    late.expect("30 ( 'marker' `m` )");
}

/// 3.1.1:MQTT-3.1.2-4, 3.1.1:MQTT-3.1.2-6, 3.1.1:MQTT-4.1.0-1: a session of 3.1 is kept as one of 3.1.1
/// is, and Clean Session 1 ends either.
fn a_3_1_client_keeps_its_session(broker: &Broker) {
    let connect = |flags: &str| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQIsdp' 03 {flags} 003c 'me' )"));
        client.expect("20 02 00 00");
        client
    };
    let mut client = connect("00");
    client.send("82 ( 0001 't' 02 )");
    client.expect("90 ( 0001 02 )");
    client.send("e0 00");
    client.expect_closed();
    let mut witnesses = Witnesses::of(broker, "t");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("32 ( 't' 0001 `1` ) 34 ( 't' 0002 `2` ) 62 02 0002");
    publisher.expect("40 02 0001 50 02 0002 70 02 0002");
    witnesses.expect("30 ( 't' `1` ) 30 ( 't' `2` )");
    let mut client = connect("00");
    let first = client.expect("32 ( 't' ???? `1` )");
    let second = client.expect("34 ( 't' ???? `2` )");
    drop(client);
    let mut client = connect("00");
    client.expect(&format!("3a ( 't' {first} `1` ) 3c ( 't' {second} `2` )"));
    drop(client);
    let mut client = connect("02");
    client.send("30 ( 't' `x` )");
    client.ping();
}

/// A 3.1 client may set DUP when it repeats a PUBREL, SUBSCRIBE or UNSUBSCRIBE; 3.1.1 has reserved the bit.
fn a_3_1_client_may_repeat_any_request(broker: &Broker) {
    let mut client = connected(broker, "'MQIsdp' 03");
    client.send("8a ( 0001 't' 01 )");
    client.expect("90 ( 0001 01 )");
    client.send("34 ( 'u' 0002 `x` )");
    client.expect("50 02 0002");
    client.send("6a 02 0002");
    client.expect("70 02 0002");
    client.send("aa ( 0003 't' )");
    client.expect("b0 02 0003");
}

/// 3.1.1:MQTT-3.1.2-7: a retained message does not end with the session of its publisher.
fn retained_messages_outlive_sessions(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("33 ( 't/1' 0001 `kept` )");
    publisher.expect("40 02 0001");
    publisher.send("e0 00");
    publisher.expect_closed();
    let (mut kept, _) = RawClient::v311_resume(broker.port, "publisher");
    kept.send("33 ( 't/2' 0001 `kept` )");
    kept.expect("40 02 0001");
    drop(kept);
    // Ends the session that would have been kept.
    drop(RawClient::v311(broker.port, "publisher"));
    let mut client = RawClient::v311(broker.port, "subscriber");
    client.send("82 ( 0001 't/+' 00 )");
    client.expect_in_any_order(&["90 ( 0001 00 )", "31 ( 't/1' `kept` )", "31 ( 't/2' `kept` )"]);
}

/// 3.1.1:MQTT-3.3.1-5, 3.1.1:MQTT-3.3.1-7, MQTT-3.3.1-5: the newest of whichever QoS is the one that is kept.
fn a_retained_message_replaces_one_of_any_qos(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "publisher");
    let publish = ["31 ( 'T' `0` )", "33 ( 'T' 0001 `1` )", "35 ( 'T' 0002 `2` ) 62 02 0002"];
    let acks = ["", "40 02 0001", "50 02 0002 70 02 0002"];
    let kept = ["31 ( 'T' `0` )", "33 ( 'T' ???? `1` )", "35 ( 'T' ???? `2` )"];
    for before in 0..3 {
        for (after, kept) in kept.iter().enumerate() {
            // A topic for each, so that no subscriber can get live what was meant for the one before it.
            let topic = format!("{after} after {before}");
            println!("{topic}");
            for qos in [before, after] {
                client.send(&publish[qos].replace('T', &topic));
                client.expect(acks[qos]);
            }
            client.ping();
            let mut late = RawClient::v311(broker.port, "subscriber");
            late.send(&format!("82 ( 0001 '{topic}' 02 )"));
            late.expect_in_any_order(&["90 ( 0001 02 )", &kept.replace('T', &topic)]);
        }
    }
}

on_one_and_four_shards! {
    errors_close_without_a_word;
    bad_strings_in_connect_close_without_a_word;
    unknown_levels_get_return_code_1;
    a_subscription_may_fail with "limits.subscriptions_max=2";
    a_refused_message_is_acknowledged;
    a_3_1_client_keeps_its_session;
    a_3_1_client_may_repeat_any_request;
    retained_messages_outlive_sessions;
    a_retained_message_replaces_one_of_any_qos;
}
