//! What a PUBLISH may say, and how it reaches others: properties, aliases, sizes, expiry (section 3.3).

use std::time::Duration;

use crate::common::{Broker, RawClient, each, fields, on_one_and_four_shards, wire};

/// A v5 subscriber of `t` at QoS 1, after CONNECT with these properties.
fn subscriber(broker: &Broker, properties: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 02 003c ( {properties} ) 'subscriber' )"));
    client.expect_accepted();
    client.send("82 ( 0001 () 't/#' 01 )");
    client.expect("90 ( 0001 () 01 )");
    client
}

/// Topic, properties and payload of a PUBLISH.
type Parts = (String, Vec<(u8, Vec<u8>)>, Vec<u8>);

/// Takes a QoS 0 PUBLISH apart.
fn taken_apart(packet: &[u8]) -> Parts {
    assert_eq!(packet[0] & 0x06, 0, "QoS 0: {packet:02x?}");
    let header = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).expect("a length") + 1;
    let length = usize::from(u16::from_be_bytes([packet[header], packet[header + 1]]));
    let topic = String::from_utf8(packet[header + 2..header + 2 + length].to_vec()).expect("UTF-8");
    let (properties, payload) = fields(&packet[header + 2 + length..]);
    (topic, properties, payload.to_vec())
}

/// MQTT-3.3.2-4, -15 to -18, -20: unaltered, user properties in order.
fn properties_are_forwarded(broker: &Broker) {
    let mut v5 = subscriber(broker, "");
    let mut v311 = RawClient::v311(broker.port, "old");
    v311.send("82 ( 0001 't' 00 )");
    v311.expect("90 ( 0001 00 )");
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send(
        "30 ( 't' ( 01 01
                    08 'answers/here'
                    09 'corr'
                    03 'text/plain'
                    26 'b' '1' 26 'a' '2' 26 'b' '1' 26 '' '' ) `payload` )",
    );
    let (topic, mut properties, payload) = taken_apart(&v5.read_packet());
    let user: Vec<_> = properties.extract_if(.., |(id, _)| *id == 0x26).map(|(_, v)| v).collect();
    assert_eq!(user, [wire("'b' '1'"), wire("'a' '2'"), wire("'b' '1'"), wire("'' ''")]);
    properties.sort();
    let expected = [
        (0x01, wire("01")),
        (0x03, wire("'text/plain'")),
        (0x08, wire("'answers/here'")),
        (0x09, wire("'corr'")),
    ];
    assert_eq!(properties, expected);
    assert_eq!((topic.as_str(), payload), ("t", wire("`payload`")));
    v311.expect("30 ( 't' `payload` )");
}

/// MQTT-3.3.2-4, -15 to -18, -20: at each QoS to each of many subscribers, on whichever shard, through a
/// plain or a shared subscription, with and without a Subscription Identifier.
fn every_subscriber_gets_every_property(broker: &Broker) {
    let mut subscribers = Vec::new();
    for (n, filter) in ["t", "+", "#", "$share/one/t", "$share/two/+"].into_iter().enumerate() {
        for qos in 0..=2 {
            for identifier in ["", "0b 2a"] {
                let mut client = RawClient::v5(broker.port, &format!("{n} {qos} {identifier}"));
                // A group for each, so that every one has its turn.
                let filter =
                    filter.replace("$share/", &format!("$share/{n}{qos}{}", identifier.len()));
                client.send(&format!("82 ( 0001 ( {identifier} ) '{filter}' {qos:02x} )"));
                client.expect(&format!("90 ( 0001 () {qos:02x} )"));
                subscribers.push((client, qos, !identifier.is_empty()));
            }
        }
    }
    let properties =
        "26 'b' '1' 01 01 26 '' '' 08 'answers' 09 0005 00ffc08000 26 'a' '2' 03 'type' 26 'b' '1'";
    let expected = {
        let (mut properties, _) = fields(&wire(&format!("( {properties} )")));
        properties.sort_by_key(|(id, _)| *id);
        properties
    };
    let mut publisher = RawClient::v5(broker.port, "publisher");
    for (sent, publish) in ["30 ( 't' ", "32 ( 't' 0001 ", "34 ( 't' 0001 "].into_iter().enumerate()
    {
        publisher.send(&format!("{publish} ( {properties} ) `payload` )"));
        match sent {
            0 => {}
            1 => publisher.expect_ack(0x40, "0001"),
            _ => {
                publisher.expect_ack(0x50, "0001");
                publisher.send("62 02 0001");
                publisher.expect_ack(0x70, "0001");
            }
        }
        for (client, granted, has_identifier) in &mut subscribers {
            let packet = client.read_packet();
            let qos = sent.min(*granted);
            assert_eq!(usize::from(packet[0]), 0x30 | qos << 1);
            // Behind the header, the topic and the Packet Identifier.
            let at = 2 + 3 + if qos > 0 { 2 } else { 0 };
            let (mut properties, payload) = fields(&packet[at..]);
            let identifiers: Vec<_> = properties.extract_if(.., |(id, _)| *id == 0x0b).collect();
            assert_eq!(identifiers.len(), usize::from(*has_identifier));
            // Stable: user properties keep their order.
            properties.sort_by_key(|(id, _)| *id);
            assert_eq!((properties, payload), (expected.clone(), b"payload".as_slice()));
        }
    }
}

/// Payloads are bytes: none, zeros, a packet in a packet, more than any buffer.
fn payloads_are_opaque(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    client.send("82 ( 0001 't' 00 )");
    client.expect("90 ( 0001 00 )");
    for payload in ["", "00", "00000000", "c0 00", "ff fe 80", "`{\"json\": true}`"] {
        client.send(&format!("30 ( 't' {payload} )"));
        client.expect(&format!("30 ( 't' {payload} )"));
    }
    for size in [127, 128, 16_383, 16_384, 70_000, 300_000] {
        let packet = wire(&format!("30 ( 't' {} )", "5a".repeat(size)));
        client.send_bytes(&packet);
        assert!(client.read_packet() == packet, "{size} bytes came back changed");
    }
}

/// Section 4.7.3: every UTF-8 string without wildcards and NUL is a topic, as it is.
fn topics_are_taken_as_they_are(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    client.send("82 ( 0001 '#' 00 )");
    client.expect("90 ( 0001 00 )");
    let long = "x".repeat(60_000);
    for topic in ["/", "//", "a/", "/a", " ", "a b", "Ä/ä", "\u{feff}", "😀", &long] {
        client.send(&format!("30 ( '{topic}' `x` )"));
        client.expect(&format!("30 ( '{topic}' `x` )"));
    }
}

/// MQTT-3.3.2-7 and 3.3.2.3.4: an alias stands for its last topic, on this connection.
fn a_topic_alias_stands_for_its_topic(broker: &Broker) {
    let mut subscriber = subscriber(broker, "");
    let mut client = RawClient::v5(broker.port, "publisher");
    client.send("30 ( 't/1' ( 23 0001 ) `a` ) 30 ( 't/2' ( 23 0003 ) `b` )");
    client.send("30 ( '' ( 23 0001 ) `c` ) 32 ( '' 0001 ( 23 0003 ) `d` )");
    client.send("30 ( 't/3' ( 23 0001 ) `e` ) 30 ( '' ( 23 0001 ) `f` )");
    client.expect_ack(0x40, "0001");
    subscriber.expect("30 ( 't/1' () `a` ) 30 ( 't/2' () `b` ) 30 ( 't/1' () `c` )");
    subscriber.expect("32 ( 't/2' ???? () `d` ) 30 ( 't/3' () `e` ) 30 ( 't/3' () `f` )");
    // The next connection starts without any.
    drop(client);
    let mut client = RawClient::v5(broker.port, "publisher");
    client.send("30 ( '' ( 23 0001 ) `x` )");
    client.expect_disconnect_with(&[0x82, 0x94]);
}

/// MQTT-3.3.2-8, MQTT-3.3.2-9: the broker allows three here.
fn a_topic_alias_out_of_range_ends_the_connection(broker: &Broker) {
    for alias in ["0000", "0004", "ffff"] {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(&format!("30 ( 't' ( 23 {alias} ) `x` )"));
        client.expect_disconnect(0x94);
    }
}

/// MQTT-3.3.2-12: every alias that the broker allows, each for a topic of its own.
fn every_topic_alias_in_range_is_accepted(broker: &Broker) {
    let mut subscriber = subscriber(broker, "");
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () 'publisher' )");
    assert_eq!(client.expect_accepted().property(0x22), Some([0xff, 0xff].as_slice()));
    let aliases: Vec<u16> = (1..=40).chain((1..=u16::MAX).step_by(997)).chain([u16::MAX]).collect();
    for alias in &aliases {
        client.send(&format!("30 ( 't/{alias}' ( 23 {alias:04x} ) `set` )"));
        subscriber.expect(&format!("30 ( 't/{alias}' () `set` )"));
    }
    for alias in &aliases {
        client.send(&format!("30 ( '' ( 23 {alias:04x} ) `used` )"));
        subscriber.expect(&format!("30 ( 't/{alias}' () `used` )"));
    }
}

/// MQTT-3.2.2-18: with `topic_alias_maximum` 0 none is announced, and none is accepted.
fn without_a_maximum_there_are_no_topic_aliases(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () 'me' )");
    assert!(client.expect_accepted().property(0x22).is_none_or(|maximum| maximum == [0, 0]));
    client.send("30 ( 't' ( 23 0001 ) `x` )");
    client.expect_disconnect(0x94);
}

/// MQTT-3.1.2-26, MQTT-3.3.2-11: the broker may use as many as the client allows.
fn outgoing_topic_aliases_stay_in_range(broker: &Broker) {
    let mut subscriber = subscriber(broker, "22 0002");
    let mut client = RawClient::v311(broker.port, "publisher");
    let mut topics = vec![String::new(); 3];
    for round in 0..9 {
        let sent = format!("t/{}", round % 3);
        client.send(&format!("30 ( '{sent}' `x` )"));
        let (mut topic, properties, _) = taken_apart(&subscriber.read_packet());
        if let Some((_, alias)) = properties.iter().find(|(id, _)| *id == 0x23) {
            let alias = usize::from(u16::from_be_bytes([alias[0], alias[1]]));
            assert!((1..=2).contains(&alias), "alias {alias}");
            if topic.is_empty() {
                topic.clone_from(&topics[alias]);
            } else {
                topics[alias].clone_from(&topic);
            }
        }
        assert_eq!(topic, sent);
    }
}

/// MQTT-3.1.2-24, MQTT-3.1.2-25: dropped for this client, as if delivered.
fn a_client_gets_nothing_larger_than_it_takes(broker: &Broker) {
    let mut subscriber = subscriber(broker, "27 00000028 21 0001");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let large = "5a".repeat(60);
    publisher.send(&format!("32 ( 't' 0001 {large} ) 30 ( 't' {large} ) 32 ( 't' 0002 `small` )"));
    publisher.expect("40 02 0001 40 02 0002");
    // Receive Maximum is 1: the large one must not take the place.
    subscriber.expect("32 ( 't' ???? () `small` )");
    subscriber.ping();
}

/// MQTT-3.2.2-15: refused by what its header says, before its body comes.
fn a_packet_larger_than_allowed_ends_the_connection(broker: &Broker) {
    let mut exactly = RawClient::v5(broker.port, "exactly");
    // 3 bytes of header and 197 of body.
    exactly.send(&format!("30 ( 't' () {} )", "5a".repeat(193)));
    exactly.ping();
    let mut larger = RawClient::v5(broker.port, "larger");
    larger.send("30 c601 'only the header came'");
    larger.expect_disconnect(0x95);
    let mut v311 = RawClient::v311(broker.port, "old");
    v311.send("30 ffffff7f");
    v311.expect_closed();
    exactly.ping();
}

/// MQTT-3.3.2-5, MQTT-3.3.2-6: told what is left, and dropped when nothing is.
fn messages_expire_while_they_wait(broker: &Broker) {
    let (mut client, _) = RawClient::v5_resume(broker.port, "waiting");
    client.send("82 ( 0001 () 't' 01 )");
    client.expect("90 ( 0001 () 01 )");
    // Gone for the broker, too, when it closes.
    client.half_close();
    client.expect_closed();
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("32 ( 't' 0001 ( 02 00000001 ) `short` )");
    publisher.send("32 ( 't' 0002 ( 02 00000064 ) `long` )");
    publisher.send("32 ( 't' 0003 () `for ever` )");
    for id in ["0001", "0002", "0003"] {
        publisher.expect_ack(0x40, id);
    }
    // Time itself is under test.
    std::thread::sleep(Duration::from_millis(2300));
    let (mut client, present) = RawClient::v5_resume(broker.port, "waiting");
    assert!(present);
    let left = client.expect("32 ( 't' ???? ( 02 000000?? ) `long` )");
    let left = u8::from_str_radix(&left[4..], 16).expect("two digits");
    assert!((95..=98).contains(&left), "{left} of 100 seconds are left after 2.3");
    client.expect("32 ( 't' ???? () `for ever` )");
    client.ping();
}

/// The reason codes for a PUBLISH that must not be.
fn publish_errors_have_their_reason_codes(broker: &Broker) {
    let cases: [(&str, &str, &[u8]); 10] = [
        ("packet id 0 (MQTT-2.2.1-3)", "32 ( 't' 0000 () `x` )", &[0x82]),
        ("packet id 0 (MQTT-2.2.1-3)", "34 ( 't' 0000 () `x` )", &[0x82]),
        ("QoS 3 (MQTT-3.3.1-4)", "36 ( 't' 0001 () `x` )", &[0x81]),
        ("DUP with QoS 0 (MQTT-3.3.1-2)", "38 ( 't' () `x` )", &[0x81, 0x82]),
        ("wildcard (MQTT-3.3.2-2)", "30 ( 't/#' () `x` )", &[0x81]),
        ("wildcard (MQTT-3.3.2-2)", "30 ( '+/t' () `x` )", &[0x81]),
        ("no topic (MQTT-4.7.3-1)", "30 ( '' () `x` )", &[0x82]),
        ("subscription id (MQTT-3.3.4-6)", "30 ( 't' ( 0b 01 ) `x` )", &[0x82]),
        ("response topic (MQTT-3.3.2-14)", "30 ( 't' ( 08 'a/+' ) `x` )", &[0x81, 0x82]),
        ("format indicator 2 (3.3.2.3.2)", "30 ( 't' ( 01 02 ) `x` )", &[0x81, 0x82]),
    ];
    let mut bystander = subscriber(broker, "");
    each(cases, |(_, packet, reasons)| {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(packet);
        client.expect_disconnect_with(reasons);
    });
    let in_311 =
        ["32 ( 't' 0000 `x` )", "36 ( 't' 0001 `x` )", "30 ( 't/#' `x` )", "30 ( '' `x` )"];
    each(in_311, |packet| {
        let mut client = RawClient::v311(broker.port, "me");
        client.send(packet);
        client.expect_closed();
    });
    bystander.ping();
}

on_one_and_four_shards! {
    properties_are_forwarded;
    every_subscriber_gets_every_property;
    payloads_are_opaque;
    topics_are_taken_as_they_are;
    a_topic_alias_stands_for_its_topic with "limits.topic_alias_maximum=3";
    a_topic_alias_out_of_range_ends_the_connection with "limits.topic_alias_maximum=3";
    every_topic_alias_in_range_is_accepted with "limits.topic_alias_maximum=65535";
    without_a_maximum_there_are_no_topic_aliases with "limits.topic_alias_maximum=0";
    outgoing_topic_aliases_stay_in_range;
    a_client_gets_nothing_larger_than_it_takes;
    a_packet_larger_than_allowed_ends_the_connection with "limits.packet_bytes_max=200";
    messages_expire_while_they_wait;
    publish_errors_have_their_reason_codes;
}
