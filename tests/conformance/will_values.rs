//! What a will may say, and that it is published as just that (sections 3.1.2.5 to 3.1.2.7, 3.1.3).

use crate::common::{Broker, RawClient, on_one_and_four_shards};

/// A v5 subscriber of `will/#` at QoS 2.
fn watcher(broker: &Broker) -> RawClient {
    let mut watcher = RawClient::v5(broker.port, "watcher");
    watcher.send("82 ( 0001 () 'will/#' 02 )");
    watcher.expect("90 ( 0001 () 02 )");
    watcher
}

/// Acknowledges a message with that first byte and Packet Identifier to its end.
fn acknowledge(client: &mut RawClient, first: &str, id: &str) {
    match first {
        "30" => {}
        "32" => client.send(&format!("40 02 {id}")),
        _ => {
            client.send(&format!("50 02 {id}"));
            client.expect_ack(0x62, id);
            client.send(&format!("70 02 {id}"));
        }
    }
}

/// MQTT-3.1.2-7, MQTT-3.1.2-12, MQTT-3.1.2-14, MQTT-3.1.2-15, 3.1.1:MQTT-3.1.2-8,
/// 3.1.1:MQTT-3.1.2-14, 3.1.1:MQTT-3.1.2-16, 3.1.1:MQTT-3.1.2-17: each QoS, retained and not.
fn every_qos_and_retain_flag_is_kept(broker: &Broker) {
    let mut watcher = watcher(broker);
    let connects = [
        ("5", "10 ( 'MQTT' 05 FLAGS 003c () 'me 5' () 'will/TOPIC' 'gone' )"),
        ("4", "10 ( 'MQTT' 04 FLAGS 003c 'me 4' 'will/TOPIC' 'gone' )"),
    ];
    let wills = [
        ("06", "30", None),
        ("0e", "32", None),
        ("16", "34", None),
        ("26", "30", Some("31")),
        ("2e", "32", Some("33")),
        ("36", "34", Some("35")),
    ];
    for (version, connect) in connects {
        for (flags, live, retained) in wills {
            let topic = format!("{version}/{flags}");
            println!("{topic}");
            let mut client = RawClient::connect(broker.port);
            client.send(&connect.replace("FLAGS", flags).replace("TOPIC", &topic));
            assert_eq!(client.read_packet()[3], 0);
            drop(client);
            let id = if live == "30" { "" } else { "????" };
            let id = watcher.expect(&format!("{live} ( 'will/{topic}' {id} () `gone` )"));
            acknowledge(&mut watcher, live, &id);
            let mut late = RawClient::v5(broker.port, "late");
            late.send(&format!("82 ( 0001 () 'will/{topic}' 02 )"));
            let retained = retained.map(|first| {
                let id = if first == "31" { "" } else { "????" };
                format!("{first} ( 'will/{topic}' {id} () `gone` )")
            });
            let mut expected = vec!["90 ( 0001 () 02 )"];
            expected.extend(retained.as_deref());
            late.expect_in_any_order(&expected);
            // A live message shows that nothing else is under way.
            late.send(&format!("30 ( 'will/{topic}' () `live` )"));
            late.expect(&format!("30 ( 'will/{topic}' () `live` )"));
            watcher.expect(&format!("30 ( 'will/{topic}' () `live` )"));
        }
    }
}

/// MQTT-3.1.2-9 and 3.3.1.3: an empty payload is there, too. Retained, it clears.
fn a_will_may_be_empty(broker: &Broker) {
    let mut watcher = watcher(broker);
    watcher.send("33 ( 'will/me' 0001 () `kept` )");
    watcher.expect_in_any_order(&["40 02 0001", "32 ( 'will/me' ???? () `kept` )"]);
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 26 003c () 'me' () 'will/me' '' )");
    client.expect_accepted();
    drop(client);
    watcher.expect("30 ( 'will/me' () )");
    let mut late = RawClient::v5(broker.port, "late");
    late.send("82 ( 0001 () 'will/me' 00 )");
    late.expect("90 ( 0001 () 00 )");
    late.send("30 ( 'will/me' () `live` )");
    late.expect("30 ( 'will/me' () `live` )");
}

/// MQTT-3.1.2-10, MQTT-3.14.4-3, 3.1.1:MQTT-3.1.2-10, 3.1.1:MQTT-3.1.2-12, 3.1.1:MQTT-3.14.4-3: after
/// DISCONNECT, and without Will Flag, there is none, however the connection ends afterwards.
fn no_will_without_a_flag_or_after_disconnect(broker: &Broker) {
    let mut watcher = watcher(broker);
    for connect in [
        "10 ( 'MQTT' 05 02 003c () 'me' )",
        "10 ( 'MQTT' 04 02 003c 'me' )",
        "10 ( 'MQIsdp' 03 02 003c 'me' )",
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        assert_eq!(client.read_packet()[3], 0);
        drop(client);
    }
    // A session with a will that is withdrawn, and a later connection of it that has none and is lost.
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 04 003c ( 11 0000012c ) 'me' () 'will/me' 'gone' )");
    client.expect_accepted();
    client.send("e0 00");
    client.expect_closed();
    drop(RawClient::v5_resume(broker.port, "me"));
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 04 003c 'old' 'will/old' 'gone' ) e0 00");
    client.expect("20 02 00 00");
    client.expect_closed();
    assert!(RawClient::v311_resume(broker.port, "old").1);
    watcher.ping();
    let mut other = RawClient::v311(broker.port, "other");
    other.send("30 ( 'will/marker' `m` )");
    watcher.expect("30 ( 'will/marker' () `m` )");
}

/// 3.1.1:MQTT-3.1.2-8: whatever ends a 3.1.1 connection without DISCONNECT.
fn every_loss_of_a_3_1_1_connection_sends_the_will(broker: &Broker) {
    let mut watcher = watcher(broker);
    // The last is no DISCONNECT: it has a body.
    for packet in
        ["36 ( 't' 0001 `x` )", "10 ( 'MQTT' 04 02 003c 'me' )", "c1 00", "d0 00", "e0 01 00"]
    {
        println!("{packet}");
        let mut client = RawClient::connect(broker.port);
        client.send("10 ( 'MQTT' 04 06 003c 'me' 'will/me' 'gone' )");
        client.expect("20 02 00 00");
        client.send(packet);
        client.expect_closed();
        watcher.expect("30 ( 'will/me' () `gone` )");
    }
    let mut old = RawClient::connect(broker.port);
    old.send("10 ( 'MQTT' 04 06 003c 'me' 'will/me' 'gone' )");
    old.expect("20 02 00 00");
    let _new = RawClient::v311(broker.port, "me");
    old.expect_closed();
    watcher.expect("30 ( 'will/me' () `gone` )");
    watcher.ping();
}

on_one_and_four_shards! {
    every_qos_and_retain_flag_is_kept;
    a_will_may_be_empty;
    no_will_without_a_flag_or_after_disconnect;
    every_loss_of_a_3_1_1_connection_sends_the_will;
}
