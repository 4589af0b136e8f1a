//! SUBSCRIBE, UNSUBSCRIBE and which messages they bring (sections 3.8 to 3.11, 4.7).

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

/// MQTT-3.8.4-1, -2, -6, MQTT-3.9.3-1: one code for each filter, in order.
fn suback_grants_each_filter_in_order(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me 3");
    client.send("82 ( 1234 'a' 02 'b/+' 00 '#' 01 )");
    client.expect("90 ( 1234 02 00 01 )");
    let mut client = RawClient::v5(broker.port, "me 5");
    client.send("82 ( ffff () 'a' 02 'b/+' 00 '#' 01 '$share/g/a' 02 )");
    client.expect("90 ( ffff () 02 00 01 02 )");
}

/// MQTT-4.7.1-2, -3, MQTT-4.7.2-1, MQTT-4.7.3-4
fn filters_match_as_the_standard_says(broker: &Broker) {
    let cases = [
        ("a/b", "a/b", true),
        ("a/b", "a/b/", false),
        ("a/b", "A/b", false),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("#", "a/b", true),
        ("#", "/", true),
        ("+", "a", true),
        ("+", "", false),
        ("+", "a/b", false),
        ("+", "/a", false),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("+/b/+", "a/b/c", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/+/#", "a/b", true),
        ("a/+/#", "a", false),
        ("a//b", "a/b", false),
        ("#", "$x/a", false),
        ("+/a", "$x/a", false),
        ("$x/#", "$x/a", true),
        ("$x/+", "$x/a", true),
        ("a/$x", "a/$x", true),
        ("a/+", "a/$x", true),
    ];
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for (filter, topic, matches) in cases.into_iter().filter(|(_, topic, _)| !topic.is_empty()) {
        println!("{filter} {topic} {matches}");
        let mut client = RawClient::v311(broker.port, "subscriber");
        client.send(&format!("82 ( 0001 '{filter}' 00 'marker' 00 )"));
        client.expect("90 ( 0001 00 00 )");
        publisher.send(&format!("30 ( '{topic}' `x` ) 30 ( 'marker' `m` )"));
        if matches {
            client.expect(&format!("30 ( '{topic}' `x` )"));
        }
        client.expect("30 ( 'marker' `m` )");
    }
}

/// MQTT-3.3.4-2: one delivery with the highest of the matching QoS.
fn overlapping_subscriptions_deliver_once(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me 3");
    client.send("82 ( 0001 'a/#' 00 'a/+' 02 'a/b' 01 '#' 00 )");
    client.expect("90 ( 0001 00 02 01 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("34 ( 'a/b' 0001 `x` ) 62 02 0001");
    publisher.expect("50 02 0001 70 02 0001");
    client.expect("34 ( 'a/b' ???? `x` )");
    publisher.send("30 ( 'a/b' `marker` )");
    client.expect("30 ( 'a/b' `marker` )");
}

/// MQTT-3.3.4-3, MQTT-3.3.4-4: the ids of all that match.
fn subscription_identifiers_come_with_the_message(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 ( 0b 01 ) 'a' 00 )");
    client.send("82 ( 0002 ( 0b ffffff7f ) 'a/#' 00 )");
    client.send("82 ( 0003 () '+' 00 )");
    client.expect("90 ( 0001 () 00 ) 90 ( 0002 () 00 ) 90 ( 0003 () 00 )");
    client.send("30 ( 'a/b' () `x` )");
    client.expect("30 ( 'a/b' ( 0b ffffff7f ) `x` )");
    client.send("30 ( 'b' () `x` )");
    client.expect("30 ( 'b' () `x` )");
    client.send("30 ( 'a' () `x` )");
    let packet = client.read_packet();
    let (mut properties, payload) = crate::common::fields(&packet[5..]);
    properties.sort();
    let expected = [(0x0b, vec![0x01]), (0x0b, vec![0xff, 0xff, 0xff, 0x7f])];
    assert_eq!((properties.as_slice(), payload), (expected.as_slice(), b"x".as_slice()));
    client.ping();
    // 3.8.2.1.2: a subscription made anew without an id has none.
    client.send("82 ( 0004 () 'a/#' 00 ) 30 ( 'a/b' () `x` )");
    client.expect_in_any_order(&["90 ( 0004 () 00 )", "30 ( 'a/b' () `x` )"]);
}

/// MQTT-3.8.4-3
fn a_filter_subscribed_again_is_replaced(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for (qos, delivered) in [("01", "32 ( 't' ???? `x` )"), ("00", "30 ( 't' `x` )")] {
        client.send(&format!("82 ( 0001 't' {qos} )"));
        client.expect(&format!("90 ( 0001 {qos} )"));
        publisher.send("32 ( 't' 0001 `x` )");
        publisher.expect("40 02 0001");
        client.expect(delivered);
        publisher.send("30 ( 't' `marker` )");
        client.expect("30 ( 't' `marker` )");
    }
}

/// MQTT-3.10.4-1, -2, -4, -5, MQTT-3.11.3-1, -2: exactly that filter, and a code for each.
fn unsubscribe_ends_exactly_that_subscription(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me 5");
    client.send("82 ( 0001 () 'a/#' 00 'a/b' 00 'c' 00 )");
    client.expect("90 ( 0001 () 00 00 00 )");
    client.send("a2 ( 0002 () 'a/+' 'a/#' 'A/b' 'a/#' )");
    client.expect("b0 ( 0002 () 11 00 11 11 )");
    client.send("30 ( 'a/x' () `x` ) 30 ( 'a/b' () `y` ) 30 ( 'c' () `z` )");
    client.expect("30 ( 'a/b' () `y` ) 30 ( 'c' () `z` )");

    let mut client = RawClient::v311(broker.port, "me 3");
    client.send("82 ( 0001 't' 02 )");
    client.expect("90 ( 0001 02 )");
    client.send("a2 ( 0007 't' 'unknown' )");
    client.expect("b0 02 0007");
    client.send("30 ( 't' `x` )");
    client.ping();
}

/// The reason codes for a SUBSCRIBE or UNSUBSCRIBE that must not be.
fn subscribe_errors_have_their_reason_codes(broker: &Broker) {
    let cases: [(&str, &str, &[u8]); 14] = [
        ("no filter (MQTT-3.8.3-2)", "82 ( 0001 () )", &[0x82]),
        ("packet id 0 (MQTT-2.2.1-3)", "82 ( 0000 () 't' 00 )", &[0x82]),
        ("header flags (MQTT-3.8.1-1)", "80 ( 0001 () 't' 00 )", &[0x81]),
        ("options missing", "82 ( 0001 () 't' )", &[0x81]),
        ("QoS 3", "82 ( 0001 () 't' 03 )", &[0x81, 0x82]),
        ("retain handling 3", "82 ( 0001 () 't' 30 )", &[0x81, 0x82]),
        ("reserved options (MQTT-3.8.3-5)", "82 ( 0001 () 't' 40 )", &[0x81]),
        ("subscription id 0 (3.8.2.1.2)", "82 ( 0001 ( 0b 00 ) 't' 00 )", &[0x82]),
        ("two subscription ids", "82 ( 0001 ( 0b 01 0b 02 ) 't' 00 )", &[0x82]),
        ("no local, shared (MQTT-3.8.3-4)", "82 ( 0001 () '$share/g/t' 04 )", &[0x82]),
        ("unsubscribe, no filter", "a2 ( 0001 () )", &[0x82]),
        ("unsubscribe, packet id 0", "a2 ( 0000 () 't' )", &[0x82]),
        ("unsubscribe, header flags", "a0 ( 0001 () 't' )", &[0x81]),
        ("unsubscribe, wildcard inside", "a2 ( 0001 () 'a/#/b' )", &[0x81, 0x8f]),
    ];
    each(cases, |(_, packet, reasons)| {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(packet);
        client.expect_disconnect_with(reasons);
    });
    let in_311 = ["82 ( 0001 )", "80 ( 0001 't' 00 )", "82 ( 0001 't' 03 )", "82 ( 0001 't' 04 )"];
    each(in_311, |packet| {
        let mut client = RawClient::v311(broker.port, "me");
        client.send(packet);
        client.expect_closed();
    });
}

on_one_and_four_shards! {
    suback_grants_each_filter_in_order;
    filters_match_as_the_standard_says with "acl_file=tests/conformance/dollar.acl";
    overlapping_subscriptions_deliver_once;
    subscription_identifiers_come_with_the_message;
    a_filter_subscribed_again_is_replaced;
    unsubscribe_ends_exactly_that_subscription;
    subscribe_errors_have_their_reason_codes;
}
