//! Bytes before their meaning: fixed headers, strings, lengths, identifiers (sections 1.5, 2.1, 2.2).

use std::collections::HashSet;

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

/// MQTT-2.1.3-1, MQTT-3.6.1-1, MQTT-3.8.1-1, MQTT-3.10.1-1, MQTT-3.14.1-1, MQTT-3.15.1-1,
/// 3.1.1:MQTT-2.2.2-1, 3.1.1:MQTT-2.2.2-2, 3.1.1:MQTT-3.6.1-1, 3.1.1:MQTT-3.8.1-1,
/// 3.1.1:MQTT-3.10.1-1, 3.1.1:MQTT-3.14.1-1: every wrong value of every packet a client sends.
fn reserved_flags_end_the_connection(broker: &Broker) {
    let packets: [(u8, &str, Option<&str>); 9] = [
        (0x40, "02 0001", Some("02 0001")),
        (0x50, "02 0001", Some("02 0001")),
        (0x62, "02 0001", Some("02 0001")),
        (0x70, "02 0001", Some("02 0001")),
        (0x82, "( 0001 () 't' 00 )", Some("( 0001 't' 00 )")),
        (0xa2, "( 0001 () 't' )", Some("( 0001 't' )")),
        (0xc0, "00", Some("00")),
        (0xe0, "00", Some("00")),
        (0xf0, "( 19 ( 15 'METHOD' ) )", None),
    ];
    let wrong = packets.into_iter().flat_map(|(first, v5, v311)| {
        let flags = (0..16).filter(move |flags| *flags != first & 0x0f);
        flags.map(move |flags| (first & 0xf0 | flags, v5, v311))
    });
    each(wrong, |(first, v5, v311)| {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(&format!("{first:02x} {v5}"));
        client.expect_disconnect(0x81);
        let Some(v311) = v311 else { return };
        let mut client = RawClient::v311(broker.port, "me");
        client.send(&format!("{first:02x} {v311}"));
        client.expect_closed();
    });
    each(1..16, |flags| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("1{flags:x} ( 'MQTT' 05 02 003c () 'me' )"));
        client.expect_refused(&[0x81]);
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("1{flags:x} ( 'MQTT' 04 02 003c 'me' )"));
        client.expect_closed();
    });
}

/// MQTT-1.5.5-1: a length in more bytes than it needs is malformed, wherever it stands.
fn lengths_take_their_fewest_bytes(broker: &Broker) {
    let cases = [
        "30 8500 't' 00 `x`",
        "30 85808000 't' 00 `x`",
        "30 ( 't' 8000 `x` )",
        "82 ( 0001 8000 't' 00 )",
        "82 ( 0001 ( 0b 8100 ) 't' 00 )",
        "40 ( 0001 00 8000 )",
        "c0 8000",
        "e0 ( 00 8000 )",
    ];
    each(cases, |packet| {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(packet);
        client.expect_disconnect(0x81);
    });
    each(["10 8f00 'MQTT' 05 02 003c 00 'me'", "10 ( 'MQTT' 05 02 003c 8000 'me' )"], |packet| {
        let mut client = RawClient::connect(broker.port);
        client.send(packet);
        client.expect_refused(&[0x81]);
    });
}

/// MQTT-1.5.7-1: both halves of a pair, in every packet that may carry one.
fn string_pairs_are_checked_everywhere(broker: &Broker) {
    each(["26 0001 ff 'v'", "26 'k' 0001 ff", "26 'k' 0002 6100", "26 0003 eda080 'v'"], |pair| {
        let after_connect = [
            format!("30 ( 't' ( {pair} ) `x` )"),
            format!("40 ( 0001 00 ( {pair} ) )"),
            format!("50 ( 0001 00 ( {pair} ) )"),
            format!("62 ( 0001 00 ( {pair} ) )"),
            format!("70 ( 0001 00 ( {pair} ) )"),
            format!("82 ( 0001 ( {pair} ) 't' 00 )"),
            format!("a2 ( 0001 ( {pair} ) 't' )"),
            format!("e0 ( 00 ( {pair} ) )"),
        ];
        each(after_connect, |packet| {
            let mut client = RawClient::v5(broker.port, "me");
            client.send(packet);
            client.expect_disconnect(0x81);
        });
        let at_connect = [
            format!("10 ( 'MQTT' 05 02 003c ( {pair} ) 'me' )"),
            format!("10 ( 'MQTT' 05 06 003c () 'me' ( {pair} ) 'w' 'x' )"),
        ];
        each(at_connect, |packet| {
            let mut client = RawClient::connect(broker.port);
            client.send(packet);
            client.expect_refused(&[0x81]);
        });
    });
}

/// MQTT-1.5.4-1, MQTT-1.5.4-2, MQTT-3.3.2-13, MQTT-3.3.2-19: the properties that are strings, in every
/// packet that may carry them.
fn string_properties_are_checked_everywhere(broker: &Broker) {
    each(["0001 ff", "0002 6100", "0003 eda080", "0002 c080"], |string| {
        let after_connect = [
            format!("30 ( 't' ( 03 {string} ) `x` )"),
            format!("30 ( 't' ( 08 {string} ) `x` )"),
            format!("40 ( 0001 00 ( 1f {string} ) )"),
            format!("50 ( 0001 00 ( 1f {string} ) )"),
            format!("62 ( 0001 00 ( 1f {string} ) )"),
            format!("70 ( 0001 00 ( 1f {string} ) )"),
            format!("e0 ( 04 ( 1f {string} ) )"),
        ];
        each(after_connect, |packet| {
            let mut client = RawClient::v5(broker.port, "me");
            client.send(packet);
            client.expect_disconnect(0x81);
        });
        let at_connect = [
            format!("10 ( 'MQTT' 05 02 003c ( 15 {string} ) 'me' )"),
            format!("10 ( 'MQTT' 05 06 003c () 'me' ( 03 {string} ) 'w' 'x' )"),
            format!("10 ( 'MQTT' 05 06 003c () 'me' ( 08 {string} ) 'w' 'x' )"),
        ];
        each(at_connect, |packet| {
            let mut client = RawClient::connect(broker.port);
            client.send(packet);
            client.expect_refused(&[0x81]);
        });
    });
}

/// MQTT-1.5.4-3, 3.1.1:MQTT-1.5.3-3: not skipped, not stripped, in no string.
fn a_byte_order_mark_is_a_character(broker: &Broker) {
    let mut marked = RawClient::v5(broker.port, "\u{feff}me");
    let mut plain = RawClient::v5(broker.port, "me");
    // Two clients: neither takes over from the other.
    marked.ping();
    marked.send("82 ( 0001 () '\u{feff}t' 00 )");
    marked.expect("90 ( 0001 () 00 )");
    plain.send("82 ( 0001 () 't' 00 )");
    plain.expect("90 ( 0001 () 00 )");
    let message = "30 ( '\u{feff}t' ( 26 '\u{feff}k' 'v\u{feff}' ) `\u{feff}x` )";
    plain.send(message);
    marked.expect(message);
    plain.send("30 ( 't' () `x` )");
    plain.expect("30 ( 't' () `x` )");
    marked.ping();

    let mut v311 = RawClient::v311(broker.port, "\u{feff}old");
    v311.send("82 ( 0001 '\u{feff}u' 00 )");
    v311.expect("90 ( 0001 00 )");
    v311.send("30 ( 'u' `x` ) 30 ( '\u{feff}u' `x` )");
    v311.expect("30 ( '\u{feff}u' `x` )");
}

/// MQTT-4.7.3-4, 3.1.1:MQTT-4.7.3-4: what looks alike, or means the same elsewhere, is not the same.
fn nothing_is_normalized(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    let others = [
        ("\u{e9}", "e\u{301}"),
        ("stra\u{df}e", "strasse"),
        ("a", "A"),
        ("a", "a "),
        ("a", " a"),
        ("a/b", "a//b"),
        ("a/b", "a/b/"),
        ("a/b", "a/./b"),
        ("a b", "a%20b"),
        ("a b", "a\u{a0}b"),
        ("ab", "a\u{200d}b"),
        ("\u{fffd}", "\u{fffe}"),
        ("a", "a\u{1}"),
        ("\u{1f600}", "\u{10ffff}"),
    ];
    for (one, other) in others {
        println!("{one:?} {other:?}");
        for (filter, topic) in [(one, other), (other, one)] {
            client.send(&format!("82 ( 0001 '{filter}' 00 )"));
            client.expect("90 ( 0001 00 )");
            client.send(&format!("30 ( '{topic}' `not this` ) 30 ( '{filter}' `this` )"));
            client.expect(&format!("30 ( '{filter}' `this` )"));
            client.send(&format!("a2 ( 0002 '{topic}' ) 30 ( '{filter}' `still there` )"));
            client
                .expect_in_any_order(&["b0 02 0002", &format!("30 ( '{filter}' `still there` )")]);
            client.send(&format!("a2 ( 0003 '{filter}' )"));
            client.expect("b0 02 0003");
        }
    }
}

/// MQTT-4.7.3-3, 3.1.1:MQTT-4.7.3-3: the longest there can be is one.
fn the_longest_topic_is_a_topic(broker: &Broker) {
    let topic = "x".repeat(65_535);
    let mut client = RawClient::v311(broker.port, "me");
    client.send(&format!("82 ( 0001 '{topic}' 00 )"));
    client.expect("90 ( 0001 00 )");
    client.send(&format!("30 ( '{topic}' `x` )"));
    client.expect(&format!("30 ( '{topic}' `x` )"));
    client.send(&format!("a2 ( 0002 '{topic}' )"));
    client.expect("b0 02 0002");
}

/// MQTT-2.2.1-4, MQTT-4.3.2-1, MQTT-4.3.3-1, 3.1.1:MQTT-2.3.1-4: all identifiers are given out and
/// begun again while a few of them stay in use, as those of PUBLISHes and of PUBRELs.
#[test]
fn packet_identifiers_in_use_are_not_given_again() {
    for shards in [1, 4] {
        give_out_all_identifiers(&Broker::start_quiet(shards, &[]));
    }
}

fn give_out_all_identifiers(broker: &Broker) {
    const BATCH: usize = 500;
    const BATCHES: usize = 140;
    const HELD_BATCHES: usize = 60;
    let mut subscriber = RawClient::v311(broker.port, "subscriber");
    subscriber.send("82 ( 0001 't' 02 )");
    subscriber.expect("90 ( 0001 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut in_use = HashSet::new();
    let mut held = Vec::new();
    let mut last_id = 0;
    let mut has_wrapped = false;
    for batch in 0..BATCHES {
        if batch % 20 == 0 {
            publisher.send("34 ( 't' 0001 ) 62 02 0001");
            publisher.expect("50 02 0001 70 02 0001");
            let id = subscriber.expect("34 ( 't' ???? )");
            assert!(in_use.insert(id.clone()), "{id} is in use");
            if batch % 40 == 0 {
                subscriber.send(&format!("50 02 {id}"));
                subscriber.expect(&format!("62 02 {id}"));
            }
            held.push((batch, id));
        }
        let publish: Vec<u8> = (1..=BATCH as u16)
            .flat_map(|id| [0x32, 5, 0, 1, b't', (id >> 8) as u8, id as u8])
            .collect();
        publisher.send_bytes(&publish);
        let mut acks = Vec::with_capacity(4 * BATCH);
        for _ in 0..BATCH {
            let packet = subscriber.read_packet();
            let [0x32, 5, 0, 1, b't', high, low] = packet[..] else { panic!("{packet:02x?}") };
            let id = u16::from_be_bytes([high, low]);
            assert!(id != 0 && !in_use.contains(&format!("{id:04x}")), "{id:04x} is in use");
            has_wrapped |= id < last_id;
            last_id = id;
            acks.extend([0x40, 2, high, low]);
        }
        subscriber.send_bytes(&acks);
        for id in 1..=BATCH {
            publisher.expect(&format!("40 02 {id:04x}"));
        }
        if let Some((since, id)) = held.first().cloned()
            && batch - since == HELD_BATCHES
        {
            if since % 40 != 0 {
                subscriber.send(&format!("50 02 {id}"));
                subscriber.expect(&format!("62 02 {id}"));
            }
            subscriber.send(&format!("70 02 {id}"));
            in_use.remove(&id);
            held.remove(0);
        }
    }
    assert!(has_wrapped, "too few messages to mean anything");
}

on_one_and_four_shards! {
    reserved_flags_end_the_connection;
    lengths_take_their_fewest_bytes;
    string_pairs_are_checked_everywhere;
    string_properties_are_checked_everywhere;
    a_byte_order_mark_is_a_character;
    nothing_is_normalized;
    the_longest_topic_is_a_topic;
}
