//! `$request/FILTER`: retained messages when the client asks for them, and only then.

use std::collections::HashMap;

use crate::{
    common::{Broker, RawClient, each, fields, on_one_and_four_shards},
    witnesses::Witnesses,
};

/// Retained messages, each acknowledged and so stored.
fn retain(broker: &Broker, messages: &[(&str, &str)]) {
    let mut publisher = RawClient::v311(broker.port, "retainer");
    for (topic, payload) in messages {
        publisher.send(&format!("33 ( '{topic}' 0001 `{payload}` )"));
        publisher.expect("40 02 0001");
    }
}

/// Registered at QoS 1, with Subscription Identifier 7, for `filters` and `$request/end`.
fn registered_v5(broker: &Broker, filters: &[&str]) -> RawClient {
    retain(broker, &[("end", "end")]);
    let mut client = RawClient::v5(broker.port, "me");
    for filter in filters {
        client.send(&format!("82 ( 0001 ( 0b 07 ) '$request/{filter}' 01 )"));
        client.expect("90 ( 0001 () 01 )");
    }
    client.send("82 ( 0001 () '$request/end' 00 )");
    client.expect("90 ( 0001 () 00 )");
    client
}

/// Requests are answered in turn, so nothing else is under way when this one is answered.
fn expect_no_more(client: &mut RawClient) {
    client.send("30 ( '$request/end' () )");
    client.expect("31 ( 'end' () `end` )");
}

/// Neither what is retained, nor live messages, nor what is published to `$request/...`.
fn a_registration_brings_nothing(broker: &Broker) {
    retain(broker, &[("r/1", "one")]);
    let mut old = RawClient::v311(broker.port, "old");
    old.send("82 ( 0001 '$request/r/#' 02 )");
    old.expect("90 ( 0001 02 )");
    let mut client = registered_v5(broker, &["r/#"]);
    let mut witnesses = Witnesses::of(broker, "r/#");
    witnesses.expect("31 ( 'r/1' `one` )");
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("33 ( 'r/2' 0001 () `two` ) 33 ( '$request/r/1' 0002 () )");
    publisher.expect_ack(0x40, "0001");
    assert_eq!(publisher.ack_reason(0x40, "0002"), 0x87);
    witnesses.expect("30 ( 'r/2' `two` )");
    old.ping();
    client.ping();
    expect_no_more(&mut client);
}

/// RETAIN set, the lower QoS, the Subscription Identifier; acknowledged like any PUBLISH.
fn a_request_brings_what_matches(broker: &Broker) {
    retain(broker, &[("r/1", "one"), ("r/2", "two"), ("other", "x"), ("$r/1", "x")]);
    let mut zero = RawClient::v311(broker.port, "zero");
    zero.send("31 ( 'r/0' `zero` )");
    zero.ping();
    let mut client = registered_v5(broker, &["+/+"]);
    let answer = [
        "31 ( 'r/0' ( 0b 07 ) `zero` )",
        "33 ( 'r/1' ???? ( 0b 07 ) `one` )",
        "33 ( 'r/2' ???? ( 0b 07 ) `two` )",
    ];
    client.send("30 ( '$request/+/+' () )");
    client.expect_in_any_order(&answer);
    // RETAIN means nothing here.
    client.send("33 ( '$request/+/+' 0002 () )");
    client.expect("40 02 0002");
    client.expect_in_any_order(&answer);
    client.send("34 ( '$request/+/+' 0003 () )");
    client.expect("50 02 0003");
    client.expect_in_any_order(&answer);
    // MQTT-4.3.3-10: not answered again.
    client.send("3c ( '$request/+/+' 0003 () ) 62 02 0003");
    client.expect("50 02 0003 70 02 0003");
    expect_no_more(&mut client);

    let mut client = RawClient::v311(broker.port, "old");
    client.send("82 ( 0001 '$request/r/#' 02 )");
    client.expect("90 ( 0001 02 )");
    client.send("32 ( '$request/r/#' 0002 )");
    client.expect("40 02 0002");
    let answer = ["31 ( 'r/0' `zero` )", "33 ( 'r/1' ???? `one` )", "33 ( 'r/2' ???? `two` )"];
    client.expect_in_any_order(&answer);
    client.ping();
}

/// For clients that cannot publish to a filter.
fn a_topic_can_be_requested(broker: &Broker) {
    retain(broker, &[("r/1", "one"), ("r/2", "two"), ("s", "x")]);
    let mut client = registered_v5(broker, &["r/+", "missing"]);
    client.send("32 ( '$request/r/1' 0002 () )");
    client.expect("40 02 0002");
    client.expect("33 ( 'r/1' ???? ( 0b 07 ) `one` )");
    // Nothing is retained there.
    client.send("32 ( '$request/r/3' 0003 () ) 32 ( '$request/missing' 0004 () )");
    client.expect("40 02 0003 40 02 0004");
    expect_no_more(&mut client);
    // A filter that is not registered is not covered by one that matches its topics.
    for topic in ["$request/s", "$request/+/1", "$request/r/1/#", "$request/"] {
        client.send(&format!("32 ( '{topic}' 0005 () )"));
        assert_eq!(client.ack_reason(0x40, "0005"), 0x87, "{topic}");
    }
    expect_no_more(&mut client);
}

/// 0x87 for v5, a plain acknowledgement before; counted, and nothing is sent.
fn refused_requests_bring_nothing(broker: &Broker) {
    retain(broker, &[("r", "one")]);
    let mut old = RawClient::v311(broker.port, "old");
    old.send("32 ( '$request/r' 0001 ) 34 ( '$request/#' 0002 ) 62 02 0002");
    old.expect("40 02 0001 50 02 0002 70 02 0002");
    broker.wait_for_log(&["message dropped", "old", "request_unregistered"]);
    let mut client = registered_v5(broker, &["r"]);
    client.send("32 ( '$request/r' 0001 () `x` ) 34 ( '$request/r' 0002 () `x` )");
    assert_eq!(client.ack_reason(0x40, "0001"), 0x99);
    assert_eq!(client.ack_reason(0x50, "0002"), 0x99);
    broker.wait_for_log(&["message dropped", "me", "request_payload"]);
    // MQTT-4.3.3-4: the refusal ended the exchange.
    client.send("34 ( '$request/r' 0002 () )");
    client.expect("50 02 0002");
    client.expect("33 ( 'r' ???? ( 0b 07 ) `one` )");
    expect_no_more(&mut client);
}

/// MQTT-3.10.4-2
fn unsubscribe_ends_the_registration(broker: &Broker) {
    retain(broker, &[("r/1", "one")]);
    let mut client = registered_v5(broker, &["r/#"]);
    client.send("a2 ( 0002 () '$request/r/#' 'r/#' ) a2 ( 0003 () '$request/r/#' '$request/' )");
    client.expect("b0 ( 0002 () 00 11 ) b0 ( 0003 () 11 8f )");
    for topic in ["$request/r/#", "$request/r/1"] {
        client.send(&format!("32 ( '{topic}' 0004 () )"));
        assert_eq!(client.ack_reason(0x40, "0004"), 0x87, "{topic}");
    }
    expect_no_more(&mut client);
}

/// It is a part of the session.
fn a_registration_lasts_as_long_as_the_session(broker: &Broker) {
    retain(broker, &[("r/1", "one")]);
    let (mut client, _) = RawClient::v5_resume(broker.port, "kept");
    client.send("82 ( 0001 ( 0b 09 ) '$request/r/#' 00 )");
    client.expect("90 ( 0001 () 00 )");
    drop(client);
    let (mut client, present) = RawClient::v5_resume(broker.port, "kept");
    assert!(present);
    client.ping();
    client.send("30 ( '$request/r/#' () )");
    client.expect("31 ( 'r/1' ( 0b 09 ) `one` )");
    // Subscribed again: other options. SUBACK waits for the disk, and an answer may overtake it.
    client.send("82 ( 0002 () '$request/r/#' 02 )");
    client.expect("90 ( 0002 () 02 )");
    client.send("30 ( '$request/r/#' () )");
    client.expect("33 ( 'r/1' ???? () `one` )");
    let mut client = RawClient::v5(broker.port, "kept");
    client.send("32 ( '$request/r/#' 0001 () )");
    assert_eq!(client.ack_reason(0x40, "0001"), 0x87);
}

/// Several thousand from all shards, at the pace of the client, none left out.
fn thousands_are_streamed(broker: &Broker) {
    const TOPICS: usize = 5000;
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for n in 0..TOPICS {
        publisher.send(&format!("33 ( 'm/{n}/x' 0001 {n:04x} )"));
        publisher.expect("40 02 0001");
    }
    // Receive Maximum 20: that many may be unacknowledged.
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 21 0014 ) 'me' )");
    client.expect_accepted();
    for qos in ["01", "00"] {
        client.send(&format!("82 ( 0001 () '$request/m/#' {qos} )"));
        client.expect(&format!("90 ( 0001 () {qos} )"));
        client.send("30 ( '$request/m/#' () )");
        let mut seen = Vec::new();
        while seen.len() < TOPICS {
            let packet = client.read_packet();
            if qos == "01" {
                assert_eq!(packet[0], 0x33);
                let at = 4 + usize::from(packet[3]);
                client.send(&format!("40 02 {:02x}{:02x}", packet[at], packet[at + 1]));
            }
            let end = packet.len();
            seen.push(u16::from_be_bytes([packet[end - 2], packet[end - 1]]));
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..TOPICS as u16), "each once at QoS {qos}");
        client.ping();
    }
}

/// Whether or not the one before is being answered still.
fn requests_in_a_row_are_all_answered(broker: &Broker) {
    const TOPICS: usize = 300;
    let topics: Vec<_> = (0..TOPICS).map(|n| format!("r/{n}")).collect();
    retain(broker, &topics.iter().map(|topic| (topic.as_str(), "x")).collect::<Vec<_>>());
    let mut client = registered_v5(broker, &["r/#"]);
    client.send("82 ( 0001 () '$request/r/#' 00 )");
    client.expect("90 ( 0001 () 00 )");
    client.send(&"30 ( '$request/r/#' () )".repeat(5));
    client.send(&"30 ( '$request/r/7' () )".repeat(3));
    client.send("30 ( '$request/end' () )");
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    // Repetitions of one filter wait behind the other requests, so the end is no mark here.
    for _ in 0..5 * TOPICS + 3 + 1 {
        let packet = client.read_packet();
        let length = usize::from(packet[3]);
        *counts.entry(packet[4..4 + length].to_vec()).or_default() += 1;
    }
    client.ping();
    expect_no_more(&mut client);
    assert_eq!((counts.remove(&b"r/7"[..]), counts.remove(&b"end"[..])), (Some(8), Some(1)));
    assert_eq!(counts.len(), TOPICS - 1);
    assert!(counts.values().all(|count| *count == 5), "{counts:?}");
}

/// What the client has got live is followed by nothing older, and the last answer has everything.
fn answers_are_never_older_than_live_messages(broker: &Broker) {
    const ROUNDS: u16 = 3000;
    const PUBLISHERS: usize = 4;
    let mut client = registered_v5(broker, &["s/#"]);
    client.send("82 ( 0001 () '$request/s/#' 00 's/#' 00 'marker' 00 )");
    client.expect("90 ( 0001 () 00 00 00 )");
    let ids = (0..PUBLISHERS).map(|n| format!("publisher {n}"));
    let mut publishers: Vec<_> = ids.map(|id| RawClient::v311(broker.port, &id)).collect();
    let mut last: HashMap<String, u16> = HashMap::new();
    for round in 1..=ROUNDS {
        // Always the same publisher for a topic.
        let from = usize::from(round) % PUBLISHERS;
        let topic = format!("s/{from}/{}", round % 3);
        publishers[from].send(&format!("31 ( '{topic}' {round:04x} )"));
        last.insert(topic, round);
        if round % 10 == 0 {
            client.send("30 ( '$request/s/#' () )");
        }
    }
    for publisher in &mut publishers {
        publisher.ping();
        publisher.send("30 ( 'marker' `m` )");
    }
    let mut live: HashMap<String, u16> = HashMap::new();
    let mut markers = 0;
    while markers < PUBLISHERS || !last.is_empty() {
        let packet = client.read_packet();
        let (topic, rest) = packet[4..].split_at(usize::from(packet[3]));
        let (_, payload) = fields(rest);
        let topic = String::from_utf8_lossy(topic).into_owned();
        if topic == "marker" {
            markers += 1;
            if markers == PUBLISHERS {
                client.send("30 ( '$request/s/#' () )");
            }
            continue;
        }
        let round = u16::from_be_bytes([payload[0], payload[1]]);
        let is_answer = packet[0] == 0x31;
        let newest = live.entry(topic.clone()).or_default();
        assert!(*newest <= round, "{topic}: {round} after {newest}, as an answer: {is_answer}");
        if !is_answer {
            *newest = round;
        } else if last.get(&topic) == Some(&round) {
            last.remove(&topic);
        }
    }
}

/// MQTT 5.0 section 3.3.2.3.4
fn a_topic_alias_stands_for_a_request(broker: &Broker) {
    retain(broker, &[("r/1", "one")]);
    let mut client = registered_v5(broker, &["r/+"]);
    for publish in ["30 ( '$request/r/+' ( 23 0001 ) )", "30 ( '' ( 23 0001 ) )"] {
        client.send(publish);
        client.expect("33 ( 'r/1' ???? ( 0b 07 ) `one` )");
    }
    expect_no_more(&mut client);
}

/// 0x8F, 0x80 before v5, beside the filters of the same packet that are granted.
fn filters_that_mean_nothing_are_refused(broker: &Broker) {
    let filters =
        "'$request' 00 '$request/' 00 '$share/g/$request/a' 00 '$request/$share/g/a' 00 'a' 01";
    let mut client = RawClient::v5(broker.port, "me 5");
    client.send(&format!("82 ( 0001 () {filters} )"));
    client.expect("90 ( 0001 () 8f 8f 8f 8f 01 )");
    let mut client = RawClient::v311(broker.port, "me 3");
    client.send(&format!("82 ( 0001 {filters} )"));
    client.expect("90 ( 0001 80 80 80 80 01 )");
}

/// MQTT-3.3.2-2, but for `$request/FILTER` in a PUBLISH.
fn wildcards_stay_out_of_topics(broker: &Broker) {
    let topics = ["$request/a#", "$request/#/a", "$requests/#", "request/+", "$request+", "#"];
    each(topics, |topic| {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(&format!("30 ( '{topic}' () )"));
        client.expect_disconnect_with(&[0x81, 0x90]);
        let mut client = RawClient::v311(broker.port, "me");
        client.send(&format!("30 ( '{topic}' )"));
        client.expect_closed();
    });
    // A will is no request.
    for (topic, reasons) in [("$request/#", [0x81, 0x90]), ("$request/a", [0x87, 0x87])] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 06 003c () 'me' () '{topic}' '' )"));
        client.expect_refused(&reasons);
    }
}

/// A registration is one of the subscriptions of a session.
fn registrations_count_as_subscriptions(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 'a' 00 '$request/a' 00 )");
    client.expect("90 ( 0001 () 00 00 )");
    client.send("82 ( 0002 () '$request/b' 00 '$request/a' 01 )");
    client.expect("90 ( 0002 () 97 01 )");
}

/// A request for one topic looks at all registrations with wildcards; of others there may be more.
fn registrations_with_wildcards_are_bounded(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    let some: String = (0..99).map(|n| format!("'$request/{n}/#' 00")).collect();
    client.send(&format!("82 ( 0001 () {some} )"));
    client.expect(&format!("90 ( 0001 () {} )", "00".repeat(99)));
    client.send(
        "82 ( 0002 () '$request/+/x' 00 '$request/+' 00 '$request/x' 00 '$request/9/#' 01 '#' 00 )",
    );
    client.expect("90 ( 0002 () 00 97 00 01 00 )");
    client.send("a2 ( 0003 () '$request/3/#' '$request/+' )");
    client.expect("b0 ( 0003 () 00 11 )");
    client.send("82 ( 0004 () '$request/+' 00 )");
    client.expect("90 ( 0004 () 00 )");
}

/// `queue_messages_max` bounds what waits for a client, requests included.
fn waiting_requests_are_bounded(broker: &Broker) {
    const REQUESTS: usize = 200;
    let mut client = registered_v5(broker, &["r/#"]);
    let requests: String =
        (1..=REQUESTS).map(|n| format!("32 ( '$request/r/{n}' {n:04x} () )")).collect();
    client.send(&requests);
    let reasons: Vec<_> =
        (1..=REQUESTS).map(|n| client.ack_reason(0x40, &format!("{n:04x}"))).collect();
    assert!(reasons.iter().all(|reason| matches!(reason, 0x00 | 0x97)), "{reasons:02x?}");
    assert_eq!(reasons[0], 0x00);
    assert!(reasons.contains(&0x97), "all came in one go");
    broker.wait_for_log(&["message dropped", "queue_messages_max"]);
    client.ping();
}

on_one_and_four_shards! {
    a_registration_brings_nothing;
    a_request_brings_what_matches with "acl_file=tests/conformance/dollar.acl";
    a_topic_can_be_requested;
    refused_requests_bring_nothing;
    unsubscribe_ends_the_registration;
    a_registration_lasts_as_long_as_the_session;
    thousands_are_streamed;
    requests_in_a_row_are_all_answered;
    answers_are_never_older_than_live_messages;
    a_topic_alias_stands_for_a_request;
    filters_that_mean_nothing_are_refused;
    wildcards_stay_out_of_topics;
    registrations_count_as_subscriptions with "limits.subscriptions_max=2";
    registrations_with_wildcards_are_bounded;
    waiting_requests_are_bounded with "limits.queue_messages_max=20";
}
