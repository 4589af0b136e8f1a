//! The client's Maximum Packet Size bounds everything that it gets (sections 3.1.2.11.4, 3.2.2.3,
//! 3.4.2.2 and the like), and what the broker's last packet may say (section 3.14).

use crate::common::{Broker, RawClient, each, fields, hex, on_one_and_four_shards};

/// A v5 client whose CONNECT has these properties, not yet answered.
fn asks(broker: &Broker, id: &str, properties: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 02 003c ( {properties} ) '{id}' )"));
    client
}

/// MQTT-3.1.2-24, MQTT-3.14.0-1: where CONNACK has no room, nothing has, and the will is none.
fn a_client_with_no_room_for_connack_gets_nothing(broker: &Broker) {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    watcher.send("82 ( 0001 'will' 00 )");
    watcher.expect("90 ( 0001 00 )");
    for bytes in 1..=4 {
        let size = format!("27 {bytes:08x}");
        println!("{size}");
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 06 003c ( {size} ) 'me' () 'will' 'gone' )"));
        client.expect_closed();
        // Its refusal has none either.
        asks(broker, "me", &format!("{size} 15 'UNKNOWN'")).expect_closed();
    }
    watcher.send("30 ( 'will' `marker` )");
    watcher.expect("30 ( 'will' `marker` )");
    // The limits of this broker are those that need not be told: this CONNACK is the shortest.
    let mut client = asks(broker, "me", "27 00000005");
    client.expect("20 03 00 00 00");
    client.ping();
}

/// MQTT-3.2.2-19, MQTT-3.2.2-20: a refusal fits, and so says no more than its reason code.
fn a_refusal_fits_the_client(broker: &Broker) {
    let mut client = asks(broker, "me", "27 00000005 15 'UNKNOWN'");
    client.expect("20 03 00 8c 00");
    client.expect_closed();
}

/// MQTT-3.4.2-2, -3, MQTT-3.5.2-2, -3, MQTT-3.6.2-2, -3, MQTT-3.7.2-2, -3, MQTT-3.9.2-1, -2,
/// MQTT-3.11.2-1, -2: with room for nothing else, every reply is still the whole one.
fn replies_fit_the_client(broker: &Broker) {
    let mut client = asks(broker, "me", "27 00000006");
    client.expect("20 03 00 00 00");
    let exchanges = [
        ("82 ( 0001 ( 26 'k' 'v' ) 't' 02 )", "90 ( 0001 () 02 )"),
        ("82 ( 0002 () 'a' 02 )", "90 ( 0002 () 97 )"),
        ("a2 ( 0003 ( 26 'k' 'v' ) 'b' )", "b0 ( 0003 () 11 )"),
        ("32 ( 'u' 0004 ( 26 'k' 'v' ) `x` )", "40 03 0004 10"),
        ("32 ( '$SYS/u' 0005 () `x` )", "40 03 0005 87"),
        ("34 ( 'u' 0006 ( 26 'k' 'v' ) `x` )", "50 03 0006 10"),
        ("62 ( 0006 00 ( 26 'k' 'v' ) )", "70 02 0006"),
        ("34 ( '$SYS/u' 0007 () `x` )", "50 03 0007 87"),
        ("62 02 0008", "70 03 0008 92"),
        ("50 02 0009", "62 03 0009 92"),
        ("50 ( 000a 00 ( 26 'k' 'v' ) )", "62 03 000a 92"),
    ];
    for (packet, reply) in exchanges {
        client.send(packet);
        client.expect(reply);
        // Nothing in between, and no second reply.
        client.ping();
    }
}

/// MQTT-3.1.2-24, MQTT-3.14.2-3, MQTT-3.14.2-4: an answer that does not fit ends the connection, with a
/// DISCONNECT that does.
fn a_reply_that_does_not_fit_ends_the_connection(broker: &Broker) {
    let mut client = asks(broker, "me", "27 00000006");
    client.expect("20 03 00 00 00");
    client.send("82 ( 0001 () 't' 00 'u' 00 )");
    client.expect("e0 02 95 00");
    client.expect_closed();
}

/// MQTT-3.1.2-24, MQTT-3.1.2-25: the size counts the whole packet, to the byte, where its length field
/// grows, too; alone, among others, from the queue.
fn the_largest_packet_arrives_and_one_byte_more_does_not(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    // Payload bytes and the size of the PUBLISH at QoS 1 around them: header, topic, identifier, length of
    // the properties.
    for (payload_bytes, packet_bytes) in [(40, 48), (121, 129), (122, 131), (300, 309)] {
        println!("{payload_bytes} {packet_bytes}");
        let size = format!("27 {packet_bytes:08x}");
        let mut clients: Vec<_> = ["alone", "one of two", "two of two"]
            .iter()
            .map(|id| {
                let mut client = asks(broker, id, &format!("{size} 21 0001"));
                client.expect_accepted();
                let topic = if *id == "alone" { 'a' } else { 'b' };
                client.send(&format!("82 ( 0001 () '{topic}' 01 )"));
                client.expect("90 ( 0001 () 01 )");
                client
            })
            .collect();
        let (fits, larger) = ("5a".repeat(payload_bytes), "5a".repeat(payload_bytes + 1));
        for topic in ["a", "b"] {
            for payload in [&larger, &fits, &larger, &fits] {
                publisher.send(&format!("32 ( '{topic}' 0001 {payload} )"));
                publisher.expect("40 02 0001");
            }
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let topic = if n == 0 { 'a' } else { 'b' };
            // The second one waits for the first, and so does what is between them.
            for _ in 0..2 {
                let id = client.expect(&format!("32 ( '{topic}' ???? () {fits} )"));
                client.ping();
                client.send(&format!("40 02 {id}"));
            }
            client.ping();
        }
    }
}

/// MQTT-3.1.2-25: a delivery that has begun is over when it does not fit the next connection.
fn a_repetition_that_does_not_fit_is_over(broker: &Broker) {
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("82 ( 0001 () 't' 02 )");
    client.expect("90 ( 0001 () 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let large = "5a".repeat(100);
    publisher.send(&format!("34 ( 't' 0001 {large} ) 62 02 0001 32 ( 't' 0002 `small` )"));
    publisher.expect("50 02 0001 70 02 0001 40 02 0002");
    client.expect(&format!("34 ( 't' ???? () {large} )"));
    let id = client.expect("32 ( 't' ???? () `small` )");
    drop(client);
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 00 003c ( 11 0000012c 27 00000028 21 0001 ) 'me' )");
    assert!(client.expect_accepted().session_present);
    client.expect(&format!("3a ( 't' {id} () `small` )"));
    client.send(&format!("40 02 {id}"));
    client.ping();
    drop(client);
    let (mut client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    client.ping();
}

/// MQTT-3.1.2-29: with Request Problem Information 0, no acknowledgement explains itself.
fn no_reply_explains_itself_when_told_not_to(broker: &Broker) {
    let mut client = asks(broker, "me", "17 00");
    client.expect_accepted();
    client.send("82 ( 0001 () 'a' 02 ) 82 ( 0002 () 'b' 02 )");
    client.expect("90 ( 0001 () 02 ) 90 ( 0002 () 97 )");
    client.send("a2 ( 0002 () 'unknown' )");
    client.expect("b0 ( 0002 () 11 )");
    client.send("32 ( '$SYS/u' 0003 () `x` ) 34 ( '$SYS/u' 0004 () `x` )");
    client.expect("40 03 0003 87 50 03 0004 87");
    client.send("62 02 0005 50 02 0006");
    client.expect("70 03 0005 92 62 03 0006 92");
}

/// MQTT-3.14.2-1, MQTT-3.14.2-2, MQTT-3.14.4-1, MQTT-3.14.4-2, MQTT-4.13.1-1, MQTT-4.13.2-1: what the
/// last packet says, and that it is the last, though there is more to send.
fn the_last_packet_is_a_plain_disconnect(broker: &Broker) {
    let causes: [(&str, u8); 8] = [
        ("10 ( 'MQTT' 05 02 003c () 'me' )", 0x82),
        ("36 ( 't' 0001 () `x` )", 0x81),
        ("30 ( 't' ( 23 ffff ) `x` )", 0x94),
        ("30 ( '' () `x` )", 0x82),
        ("c1 00", 0x81),
        ("82 ( 0001 () 't' 40 )", 0x81),
        ("e0 ( 00 ( 11 00000001 ) )", 0x82),
        ("d0 00", 0x82),
    ];
    each(causes, |(cause, reason)| {
        let mut publisher = RawClient::v311(broker.port, "publisher");
        let mut client = asks(broker, "me", "");
        client.expect_accepted();
        client.send("82 ( 0001 () 't' 02 )");
        client.expect("90 ( 0001 () 02 )");
        for _ in 0..50 {
            publisher.send("30 ( 't' `x` )");
        }
        // Behind the cause are packets that would be answered.
        client.send(&format!("{cause} c0 00 32 ( 't' 0001 () `mine` )"));
        for _ in 0..50 {
            publisher.send("30 ( 't' `x` )");
        }
        let last = loop {
            let packet = client.read_packet();
            if packet[0] != 0x30 {
                break packet;
            }
        };
        assert_eq!((last[0], last[2]), (0xe0, *reason), "{}", hex(&last));
        let (properties, rest) = fields(&last[3..]);
        assert!(properties.iter().all(|(id, _)| *id != 0x11) && rest.is_empty(), "{}", hex(&last));
        client.expect_closed();
    });
    // The same where the session would have outlived the connection.
    let (mut old, _) = RawClient::v5_resume(broker.port, "kept");
    let (_new, present) = RawClient::v5_resume(broker.port, "kept");
    assert!(present);
    let last = old.read_packet();
    assert_eq!((last[0], last[2]), (0xe0, 0x8e), "{}", hex(&last));
    let (properties, _) = fields(&last[3..]);
    assert!(properties.iter().all(|(id, _)| *id != 0x11), "{}", hex(&last));
    old.expect_closed();
}

on_one_and_four_shards! {
    a_client_with_no_room_for_connack_gets_nothing with
        "limits.receive_maximum=65535", "limits.topic_alias_maximum=0",
        "limits.packet_bytes_max=268435460";
    a_refusal_fits_the_client;
    replies_fit_the_client with
        "limits.receive_maximum=65535", "limits.topic_alias_maximum=0",
        "limits.packet_bytes_max=268435460", "limits.subscriptions_max=1";
    a_reply_that_does_not_fit_ends_the_connection with
        "limits.receive_maximum=65535", "limits.topic_alias_maximum=0",
        "limits.packet_bytes_max=268435460";
    the_largest_packet_arrives_and_one_byte_more_does_not;
    a_repetition_that_does_not_fit_is_over;
    no_reply_explains_itself_when_told_not_to with "limits.subscriptions_max=1";
    the_last_packet_is_a_plain_disconnect;
}
