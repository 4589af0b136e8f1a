//! The QoS 1 and 2 exchanges where something comes in between: errors, expiry, an end of the
//! subscription, a full window, silence (sections 3.8.4, 3.10.4, 4.3, 4.4, 4.9).

use std::time::Duration;

use crate::common::{Broker, RawClient, on_one_and_four_shards, wire};

/// A v5 client with a session that outlives its connection, subscribed to `t`.
fn subscriber(broker: &Broker, qos: &str) -> RawClient {
    let (mut client, _) = RawClient::v5_resume(broker.port, "subscriber");
    client.send(&format!("82 ( 0001 () 't' {qos} )"));
    client.expect(&format!("90 ( 0001 () {qos} )"));
    client
}

fn resume(broker: &Broker) -> RawClient {
    let (client, present) = RawClient::v5_resume(broker.port, "subscriber");
    assert!(present);
    client
}

/// MQTT-4.3.2-4, MQTT-4.3.2-5, 3.1.1:MQTT-4.3.2-2: after PUBACK the identifier is free, whatever DUP says.
fn an_identifier_after_puback_is_a_new_message(broker: &Broker) {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    watcher.send("82 ( 0001 't' 00 )");
    watcher.expect("90 ( 0001 00 )");
    let mut v311 = RawClient::v311(broker.port, "old");
    let mut v5 = RawClient::v5(broker.port, "new");
    for first in ["32", "3a", "32", "3a"] {
        v311.send(&format!("{first} ( 't' 0005 `{first}` )"));
        v311.expect("40 02 0005");
        watcher.expect(&format!("30 ( 't' `{first}` )"));
        v5.send(&format!("{first} ( 't' 0005 () `{first}` )"));
        v5.expect_ack(0x40, "0005");
        watcher.expect(&format!("30 ( 't' `{first}` )"));
    }
}

/// MQTT-4.3.3-8, MQTT-4.3.3-9, MQTT-3.4.2-1, MQTT-3.5.2-1: a refused message leaves its identifier free,
/// for another message and without a PUBREL.
fn an_identifier_after_a_refusal_is_a_new_message(broker: &Broker) {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    watcher.send("82 ( 0001 't' 00 )");
    watcher.expect("90 ( 0001 00 )");
    let mut client = RawClient::v5(broker.port, "me");
    client.send("32 ( '$SYS/me' 0005 () `refused` ) 34 ( '$SYS/me' 0005 () `refused` )");
    assert_eq!(client.ack_reason(0x40, "0005"), 0x87);
    assert_eq!(client.ack_reason(0x50, "0005"), 0x87);
    client.send("34 ( 't' 0005 () `new` )");
    client.expect_ack(0x50, "0005");
    client.send("62 02 0005");
    assert_eq!(client.ack_reason(0x70, "0005"), 0);
    watcher.expect("30 ( 't' `new` )");
    watcher.ping();
}

/// MQTT-4.3.3-7, MQTT-4.3.3-13: once it has begun, an exchange of a message that expires goes on, on both
/// sides of the broker.
fn expiry_does_not_stop_an_exchange(broker: &Broker) {
    let mut client = subscriber(broker, "02");
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("34 ( 't' 0001 ( 02 00000001 ) `a` ) 34 ( 't' 0002 ( 02 00000001 ) `b` )");
    publisher.expect_ack(0x50, "0001");
    publisher.expect_ack(0x50, "0002");
    let first = client.expect("34 ( 't' ???? ( 02 00000001 ) `a` )");
    let second = client.expect("34 ( 't' ???? ( 02 00000001 ) `b` )");
    client.send(&format!("50 02 {second}"));
    client.expect_ack(0x62, &second);
    drop(client);
    // Time itself is under test.
    std::thread::sleep(Duration::from_millis(2200));
    publisher.send("62 02 0001 62 02 0002");
    assert_eq!(publisher.ack_reason(0x70, "0001"), 0);
    assert_eq!(publisher.ack_reason(0x70, "0002"), 0);
    let mut client = resume(broker);
    client.expect(&format!("3c ( 't' {first} ( 02 00000000 ) `a` )"));
    client.expect_ack(0x62, &second);
    client.send(&format!("50 02 {first} 70 02 {second}"));
    client.expect_ack(0x62, &first);
    client.send(&format!("70 02 {first}"));
    client.ping();
    drop(client);
    resume(broker).ping();
}

/// MQTT-4.4.0-1, MQTT-4.3.3-6: nothing is repeated as long as the connection lasts, and on the next one
/// each message once.
fn only_a_new_connection_repeats(broker: &Broker) {
    let mut client = subscriber(broker, "02");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher
        .send("32 ( 't' 0001 `1` ) 34 ( 't' 0002 `2` ) 62 02 0002 34 ( 't' 0003 `3` ) 62 02 0003");
    publisher.expect("40 02 0001 50 02 0002 70 02 0002 50 02 0003 70 02 0003");
    let first = client.expect("32 ( 't' ???? () `1` )");
    let second = client.expect("34 ( 't' ???? () `2` )");
    let third = client.expect("34 ( 't' ???? () `3` )");
    client.send(&format!("50 02 {third}"));
    client.expect_ack(0x62, &third);
    // Time itself is under test: brokers of the past repeated after a while.
    client.expect_silence(Duration::from_secs(3));
    client.ping();
    drop(client);
    let mut client = resume(broker);
    client.expect(&format!("3a ( 't' {first} () `1` ) 3c ( 't' {second} () `2` )"));
    client.expect_ack(0x62, &third);
    client.expect_silence(Duration::from_secs(1));
    client.ping();
}

/// 3.1.1:MQTT-3.14.4-2 and 3.14.4: what a client sends behind its DISCONNECT is not looked at.
fn nothing_behind_a_disconnect_is_handled(broker: &Broker) {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    watcher.send("82 ( 0001 't' 00 )");
    watcher.expect("90 ( 0001 00 )");
    let mut v5 = RawClient::v5(broker.port, "new");
    v5.send("e0 00 30 ( 't' () `late` ) c0 00");
    v5.expect_closed();
    let mut v311 = RawClient::v311(broker.port, "old");
    v311.send("30 ( 't' `in time` ) e0 00 30 ( 't' `late` ) 10 ( 'MQTT' 04 02 003c 'old' )");
    v311.expect_closed();
    watcher.expect("30 ( 't' `in time` )");
    watcher.send("30 ( 't' `marker` )");
    watcher.expect("30 ( 't' `marker` )");
}

/// MQTT-4.4.0-2, MQTT-4.8.2-6: a refusal is the end of a delivery: it gives the place back, and nothing of
/// it comes on the next connection.
fn a_refused_delivery_is_not_repeated(broker: &Broker) {
    let connect = "10 ( 'MQTT' 05 00 003c ( 11 0000012c 21 0001 ) 'subscriber' )";
    let mut client = RawClient::connect(broker.port);
    client.send(connect);
    assert!(!client.expect_accepted().session_present);
    client.send("82 ( 0001 () 't' 02 )");
    client.expect("90 ( 0001 () 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("32 ( 't' 0001 `1` ) 34 ( 't' 0002 `2` ) 62 02 0002 32 ( 't' 0003 `3` )");
    publisher.expect("40 02 0001 50 02 0002 70 02 0002 40 02 0003");
    let id = client.expect("32 ( 't' ???? () `1` )");
    client.send(&format!("40 03 {id} 87"));
    let id = client.expect("34 ( 't' ???? () `2` )");
    client.send(&format!("50 03 {id} 97"));
    // Neither a PUBREL, nor a repetition: the next message.
    let id = client.expect("32 ( 't' ???? () `3` )");
    client.send(&format!("40 03 {id} 80"));
    client.ping();
    drop(client);
    let mut client = RawClient::connect(broker.port);
    client.send(connect);
    assert!(client.expect_accepted().session_present);
    client.ping();
}

/// MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1: the client has to keep to the codes, too.
fn unknown_reason_codes_end_the_connection(broker: &Broker) {
    for packet in ["40 03 0001 01", "50 03 0001 92", "62 03 0001 10", "70 03 0001 80", "e0 01 01"] {
        println!("{packet}");
        let mut client = RawClient::v5(broker.port, "me");
        client.send(packet);
        client.expect_disconnect_with(&[0x81, 0x82]);
    }
}

/// MQTT-3.3.4-9, MQTT-3.3.4-10, MQTT-4.9.0-1 to -3: with the window full, PUBLISHes at QoS 1 and 2 wait,
/// and nothing else does.
fn a_full_window_holds_back_nothing_else(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 21 0001 ) 'me' )");
    client.expect_accepted();
    client.send("82 ( 0001 () 't' 02 'zero' 00 )");
    client.expect("90 ( 0001 () 02 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("34 ( 't' 0001 `1` ) 62 02 0001 34 ( 't' 0002 `2` ) 62 02 0002");
    publisher.expect("50 02 0001 70 02 0001 50 02 0002 70 02 0002");
    let id = client.expect("34 ( 't' ???? () `1` )");
    for step in ["", "50"] {
        if !step.is_empty() {
            client.send(&format!("50 02 {id}"));
            client.expect_ack(0x62, &id);
        }
        client.ping();
        client.send("82 ( 0002 () 'u' 00 )");
        client.expect("90 ( 0002 () 00 )");
        client.send("a2 ( 0003 () 'u' )");
        client.expect("b0 ( 0003 () 00 )");
        client.send("32 ( 'v' 0004 () `x` )");
        client.expect_ack(0x40, "0004");
        client.send("34 ( 'v' 0005 () `x` )");
        client.expect_ack(0x50, "0005");
        client.send("62 02 0005");
        client.expect_ack(0x70, "0005");
        publisher.send("30 ( 'zero' `x` )");
        client.expect("30 ( 'zero' () `x` )");
    }
    client.send(&format!("70 02 {id}"));
    client.expect("34 ( 't' ???? () `2` )");
}

/// MQTT-3.3.4-9, MQTT-4.9.0-2: what an earlier connection left in flight counts anew, against the Receive
/// Maximum of the new one.
fn repetitions_keep_to_the_new_receive_maximum(broker: &Broker) {
    let mut client = subscriber(broker, "02");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut ids = Vec::new();
    for number in 1..=5 {
        publisher.send(&format!("32 ( 't' 0001 `{number}` )"));
        publisher.expect("40 02 0001");
        ids.push(client.expect(&format!("32 ( 't' ???? () `{number}` )")));
    }
    drop(client);
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 00 003c ( 11 0000012c 21 0002 ) 'subscriber' )");
    assert!(client.expect_accepted().session_present);
    publisher.send("32 ( 't' 0001 `6` )");
    publisher.expect("40 02 0001");
    client.expect(&format!("3a ( 't' {} () `1` ) 3a ( 't' {} () `2` )", ids[0], ids[1]));
    for number in 3..=5 {
        client.ping();
        client.send(&format!("40 02 {}", ids[number - 3]));
        client.expect(&format!("3a ( 't' {} () `{number}` )", ids[number - 1]));
    }
    client.ping();
    client.send(&format!("40 02 {}", ids[3]));
    client.expect("32 ( 't' ???? () `6` )");
}

/// MQTT-3.3.4-9: retained messages wait for their turn like others.
fn retained_messages_keep_to_the_receive_maximum(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for number in 1..=6 {
        publisher.send(&format!("33 ( 't/{number}' {number:04x} `x` )"));
        publisher.expect(&format!("40 02 {number:04x}"));
    }
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 21 0002 ) 'me' )");
    client.expect_accepted();
    client.send("82 ( 0001 () 't/+' 01 )");
    let mut waiting = Vec::new();
    let mut seen = 0;
    while seen < 6 {
        let packet = client.read_packet();
        match packet[0] {
            0x90 => assert_eq!(packet, wire("90 ( 0001 () 01 )")),
            _ => {
                assert_eq!(packet[0], 0x33);
                seen += 1;
                waiting.push(format!("{:02x}{:02x}", packet[7], packet[8]));
                assert!(waiting.len() <= 2, "more than the Receive Maximum");
            }
        }
        if waiting.len() == 2 {
            client.ping();
            client.send(&format!("40 02 {}", waiting.remove(0)));
        }
    }
    client.ping();
}

/// MQTT-4.6.0-5, MQTT-4.6.0-6, 3.1.1:MQTT-4.6.0-5, 3.1.1:MQTT-4.6.0-6: of each publisher's messages those of
/// one QoS come in their order, live, through a small window, and to subscribers on each shard.
fn order_is_kept_at_each_qos(broker: &Broker) {
    const MESSAGES: usize = 120;
    let mut subscribers: Vec<_> = (0..4)
        .map(|n| {
            let mut client = RawClient::connect(broker.port);
            let id = format!("subscriber {n}");
            client.send(&format!("10 ( 'MQTT' 05 02 003c ( 21 0005 ) '{id}' )"));
            client.expect_accepted();
            client.send("82 ( 0001 () 'order/#' 02 )");
            client.expect("90 ( 0001 () 02 )");
            client
        })
        .collect();
    let mut publishers: Vec<_> =
        (0..3).map(|n| RawClient::v311(broker.port, &format!("publisher {n}"))).collect();
    for message in 0..MESSAGES {
        let id = message + 1;
        for (n, publisher) in publishers.iter_mut().enumerate() {
            let topic = format!("'order/{n}'");
            match message % 3 {
                0 => publisher.send(&format!("30 ( {topic} {message:04x} )")),
                1 => publisher.send(&format!("32 ( {topic} {id:04x} {message:04x} )")),
                _ => {
                    publisher.send(&format!("34 ( {topic} {id:04x} {message:04x} ) 62 02 {id:04x}"))
                }
            }
        }
    }
    for client in &mut subscribers {
        let mut last = [[None; 3]; 3];
        let mut seen = 0;
        while seen < 3 * MESSAGES {
            let packet = client.read_packet();
            if packet[0] == 0x62 {
                client.send(&format!("70 02 {:02x}{:02x}", packet[2], packet[3]));
                continue;
            }
            let qos = usize::from(packet[0] >> 1 & 0x3);
            let publisher = usize::from(packet[10] - b'0');
            let (high, low) = (packet[packet.len() - 2], packet[packet.len() - 1]);
            let message = Some(u16::from_be_bytes([high, low]));
            let before = std::mem::replace(&mut last[publisher][qos], message);
            assert!(before < message, "{message:?} after {before:?} of {publisher} at QoS {qos}");
            seen += 1;
            match qos {
                0 => {}
                1 => client.send(&format!("40 02 {:02x}{:02x}", packet[11], packet[12])),
                _ => client.send(&format!("50 02 {:02x}{:02x}", packet[11], packet[12])),
            }
        }
    }
}

/// MQTT-3.10.4-2, MQTT-3.10.4-3, 3.1.1:MQTT-3.10.4-2, 3.1.1:MQTT-3.10.4-3: no new messages, but what
/// has begun goes to its end, also on the next connection.
fn an_unsubscribe_lets_what_has_begun_end(broker: &Broker) {
    for (v5, properties) in [(true, "()"), (false, "")] {
        let connect = |present| {
            let (client, found) = match v5 {
                true => RawClient::v5_resume(broker.port, "new"),
                false => RawClient::v311_resume(broker.port, "old"),
            };
            assert_eq!(found, present);
            client
        };
        let mut client = connect(false);
        client.send(&format!("82 ( 0001 {properties} 't' 02 )"));
        client.expect(&format!("90 ( 0001 {properties} 02 )"));
        let mut publisher = RawClient::v311(broker.port, "publisher");
        publisher.send(
            "32 ( 't' 0001 `1` ) 34 ( 't' 0002 `2` ) 62 02 0002 34 ( 't' 0003 `3` ) 62 02 0003",
        );
        publisher.expect("40 02 0001 50 02 0002 70 02 0002 50 02 0003 70 02 0003");
        let first = client.expect(&format!("32 ( 't' ???? {properties} `1` )"));
        let second = client.expect(&format!("34 ( 't' ???? {properties} `2` )"));
        let third = client.expect(&format!("34 ( 't' ???? {properties} `3` )"));
        client.send(&format!("50 02 {third}"));
        client.expect(&format!("62 02 {third}"));
        client.send(&format!("a2 ( 0004 {properties} 't' )"));
        client.expect(if v5 { "b0 ( 0004 () 00 )" } else { "b0 02 0004" });
        client.send(&format!(
            "30 ( 't' {properties} `nobody's` ) 32 ( 't' 0007 {properties} `nobody's` )"
        ));
        if v5 {
            client.expect_ack(0x40, "0007")
        } else {
            drop(client.expect("40 02 0007"))
        }
        client.ping();
        drop(client);
        let mut client = connect(true);
        client.expect(&format!("3a ( 't' {first} {properties} `1` )"));
        client.expect(&format!("3c ( 't' {second} {properties} `2` )"));
        client.expect(&format!("62 02 {third}"));
        client.send(&format!("40 02 {first} 50 02 {second} 70 02 {third}"));
        client.expect(&format!("62 02 {second}"));
        client.send(&format!("70 02 {second}"));
        client.ping();
        drop(client);
        connect(true).ping();
    }
}

/// MQTT-3.8.4-3, MQTT-3.8.4-4, 3.1.1:MQTT-3.8.4-3: a subscription is made again and again while messages
/// come: none is lost, none comes twice, none out of order.
fn a_subscription_made_again_loses_nothing(broker: &Broker) {
    const COUNT: u16 = 300;
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 't' 01 )");
    client.expect("90 ( 0001 () 01 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for number in 1..=COUNT {
        // Each time with other options: Retain Handling 0 or 2, No Local, Retain As Published.
        let options = ["01", "05", "09", "21"][usize::from(number % 4)];
        client.send(&format!("82 ( {number:04x} () 't' {options} )"));
        publisher.send(&format!("32 ( 't' {number:04x} {number:04x} )"));
    }
    let (mut subacks, mut messages) = (0, 0);
    while subacks < COUNT || messages < COUNT {
        let packet = client.read_packet();
        match packet[0] {
            0x90 => {
                subacks += 1;
                assert_eq!(packet, wire(&format!("90 ( {subacks:04x} () 01 )")));
            }
            _ => {
                messages += 1;
                let id = format!("{:02x}{:02x}", packet[5], packet[6]);
                assert_eq!(packet, wire(&format!("32 ( 't' {id} () {messages:04x} )")));
                client.send(&format!("40 02 {id}"));
            }
        }
    }
    client.ping();
}

/// MQTT-4.3.3-4, 3.1.1:MQTT-4.3.3-1, 3.1.1:MQTT-4.6.0-6: PUBRELs come in the order of the PUBRECs, each
/// with the identifier of its PUBLISH.
fn pubrels_keep_the_order_of_pubrecs(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    client.send("82 ( 0001 't' 02 )");
    client.expect("90 ( 0001 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut ids = Vec::new();
    for payload in ["1", "2", "3"] {
        publisher.send(&format!("34 ( 't' 0001 `{payload}` ) 62 02 0001"));
        publisher.expect("50 02 0001 70 02 0001");
        ids.push(client.expect(&format!("34 ( 't' ???? `{payload}` )")));
    }
    let (one, two, three) = (&ids[0], &ids[1], &ids[2]);
    client.send(&format!("50 02 {three} 50 02 {one} 50 02 {two}"));
    client.expect(&format!("62 02 {three} 62 02 {one} 62 02 {two}"));
    client.send(&format!("70 02 {one} 70 02 {two} 70 02 {three}"));
    client.ping();
}

/// MQTT-3.8.4-5, MQTT-3.10.4-6, 3.1.1:MQTT-3.8.4-4, 3.1.1:MQTT-3.10.4-6: the later entry of a packet
/// finds what the earlier one did, and there is one answer.
fn several_filters_count_as_several_packets(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 'a' 02 'b' 01 'a' 00 'b' 02 )");
    client.expect("90 ( 0001 () 02 01 00 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("34 ( 'a' 0001 `x` ) 62 02 0001");
    publisher.expect("50 02 0001 70 02 0001");
    client.expect("30 ( 'a' () `x` )");
    publisher.send("34 ( 'b' 0001 `x` ) 62 02 0001");
    publisher.expect("50 02 0001 70 02 0001");
    client.expect("34 ( 'b' ???? () `x` )");
    client.send("a2 ( 0002 () 'a' 'unknown' 'a' 'b' )");
    client.expect("b0 ( 0002 () 00 11 11 00 )");
    client.send("30 ( 'a' () `x` ) 30 ( 'b' () `x` )");
    client.ping();

    let mut old = RawClient::v311(broker.port, "old");
    old.send("82 ( 0001 'c' 01 'd' 02 'c' 00 )");
    old.expect("90 ( 0001 01 02 00 )");
    old.send("32 ( 'c' 0002 `x` )");
    old.expect_in_any_order(&["40 02 0002", "30 ( 'c' `x` )"]);
    old.send("a2 ( 0003 'c' 'c' 'd' )");
    old.expect("b0 02 0003");
    old.send("30 ( 'c' `x` ) 30 ( 'd' `x` )");
    old.ping();
}

on_one_and_four_shards! {
    an_identifier_after_puback_is_a_new_message;
    an_identifier_after_a_refusal_is_a_new_message;
    expiry_does_not_stop_an_exchange;
    only_a_new_connection_repeats;
    nothing_behind_a_disconnect_is_handled;
    a_refused_delivery_is_not_repeated;
    unknown_reason_codes_end_the_connection;
    a_full_window_holds_back_nothing_else;
    repetitions_keep_to_the_new_receive_maximum;
    retained_messages_keep_to_the_receive_maximum;
    order_is_kept_at_each_qos;
    an_unsubscribe_lets_what_has_begun_end;
    a_subscription_made_again_loses_nothing;
    pubrels_keep_the_order_of_pubrecs;
    several_filters_count_as_several_packets;
}
