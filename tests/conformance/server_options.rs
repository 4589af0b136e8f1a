//! What the operator decides and CONNACK or DISCONNECT tells: features that are not available,
//! another server, Response Information; and Reason Strings.

use crate::common::{Broker, RawClient, on_one_and_four_shards};

fn connected(broker: &Broker, properties: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 02 0000 ( {properties} ) 'me' )"));
    client.expect_accepted();
    client
}

/// Sections 3.2.2.3.11 to 3.2.2.3.13: told in CONNACK, and an error of clients that do it still.
fn what_is_not_available_is_told_and_refused(broker: &Broker) {
    for (subscribe, reason) in [
        ("82 ( 0001 () 'a/+' 00 )", 0xa2),
        ("82 ( 0001 () 'a' 00 '#' 00 )", 0xa2),
        ("82 ( 0001 () '$share/g/a' 00 )", 0x9e),
        ("82 ( 0001 ( 0b 01 ) 'a' 00 )", 0xa1),
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send("10 ( 'MQTT' 05 02 0000 () 'me' )");
        let connack = client.expect_accepted();
        for property in [0x28, 0x29, 0x2a] {
            assert_eq!(connack.property(property), Some(&[0][..]), "{property:#x}");
        }
        client.send(subscribe);
        client.expect_disconnect(reason);
    }
    let mut plain = connected(broker, "");
    plain.send("82 ( 0001 () 'a' 00 )");
    plain.expect("90 ( 0001 () 00 )");
}

/// Clients before v5 could not know: SUBACK 0x80 for that filter alone.
fn older_clients_learn_it_from_suback(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me");
    client.send("82 ( 0001 'a/+' 00 'a' 01 '$share/g/a' 02 )");
    client.expect("90 ( 0001 80 01 80 )");
}

/// By default all are available, and CONNACK need not say so.
fn everything_is_available_by_default(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 0000 () 'me' )");
    let connack = client.expect_accepted();
    assert!([0x28, 0x29, 0x2a].into_iter().all(|property| connack.property(property).is_none()));
    client.send("82 ( 0001 ( 0b 01 ) 'a/+' 00 '$share/g/a' 00 )");
    client.expect("90 ( 0001 () 00 00 )");
}

/// MQTT-3.1.2-28: Response Information only for those that request it.
fn response_information_is_given_on_request(broker: &Broker) {
    for (request, expected) in
        [("19 01", Some(&b"\x00\x0aanswers/me"[..])), ("19 00", None), ("", None)]
    {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 02 0000 ( {request} ) 'me' )"));
        assert_eq!(client.expect_accepted().property(0x1a), expected, "{request}");
    }
}

/// A Client Identifier that makes it longer than a string can be (section 1.5.4) goes without.
fn response_information_that_is_too_long_is_left_out(broker: &Broker) {
    for (length, is_given) in [(65_527, true), (65_528, false), (65_535, false)] {
        let mut client = RawClient::connect(broker.port);
        let id = "x".repeat(length);
        client.send(&format!("10 ( 'MQTT' 05 02 0000 ( 19 01 ) '{id}' )"));
        let connack = client.expect_accepted();
        assert_eq!(connack.property(0x1a).is_some(), is_given, "{length}");
        client.ping();
    }
}

/// Section 4.13: every new client is sent to the other server.
fn a_moved_server_says_where_it_is(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 0000 () 'me' )");
    let connack = client.connack();
    assert_eq!(connack.reason, 0x9d);
    assert_eq!(connack.property(0x1c), Some(&b"\x00\x06b:1883"[..]));
    client.expect_closed();
    let mut old = RawClient::connect(broker.port);
    old.send("10 ( 'MQTT' 04 02 0000 'me' )");
    old.expect("20 02 00 03");
    old.expect_closed();
}

/// The same for those that find no room; the ones with a session stay.
fn a_full_server_names_another(broker: &Broker) {
    let _first = connected(broker, "");
    let _again = connected(broker, "");
    // Each shard has an even part of the sessions: one of them.
    let mut others = Vec::new();
    let refusal = (0..100).find_map(|n| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 02 0000 () 'other{n}' )"));
        let connack = client.connack();
        others.push(client);
        (connack.reason > 0).then_some(connack)
    });
    let refusal = refusal.expect("a session more than there may be");
    assert_eq!(refusal.reason, 0x9c);
    assert_eq!(refusal.property(0x1c), Some(&b"\x00\x06b:1883"[..]));
}

/// Clients that are connected when the server ends are told where to go.
#[test]
fn a_server_that_ends_names_another() {
    let broker = Broker::start(2, &["server_reference=b:1883 c:1883"]);
    let mut client = connected(&broker, "");
    let mut old = RawClient::v311(broker.port, "old");
    broker.signal("TERM");
    client.expect("e0 ( 9c ( 1c 'b:1883 c:1883' ) )");
    client.expect_closed();
    old.expect_closed();
}

/// Sections 3.2.2.3.9 and 3.14.2.2.3: what was wrong, in words, unless the client wants none
/// (MQTT-3.1.2-29).
fn errors_are_explained(broker: &Broker) {
    let mut client = connected(broker, "");
    client.send("30 ( 'a' ( 0b 01 ) )");
    client.expect("e0 ( 82 ( 1f 'protocol error: subscription identifier from a client' ) )");
    client.expect_closed();
    let mut silent = connected(broker, "17 00");
    silent.send("30 ( 'a' ( 0b 01 ) )");
    silent.expect("e0 ( 82 () )");
    silent.expect_closed();
    let mut refused = RawClient::connect(broker.port);
    refused.send("10 ( 'MQTT' 05 02 0000 ( 15 'none' ) 'me' )");
    let connack = refused.connack();
    assert_eq!(connack.reason, 0x8c);
    assert!(connack.property(0x1f).is_some_and(|reason| reason.len() > 10));
}

/// MQTT-3.14.2-3 and MQTT-3.2.2-19: not if the packet would be too large with it, and no packet
/// at all if it is too large without.
fn a_reason_string_never_makes_a_packet_too_large(broker: &Broker) {
    let mut client = connected(broker, "27 00000028");
    client.send("30 ( 'a' ( 0b 01 ) )");
    client.expect("e0 ( 82 () )");
    client.expect_closed();
    let mut refused = RawClient::connect(broker.port);
    refused.send("10 ( 'MQTT' 05 02 0000 ( 15 'none' 27 00000008 ) 'me' )");
    refused.expect("20 ( 00 8c () )");
    refused.expect_closed();
    let mut tiny = RawClient::connect(broker.port);
    tiny.send("10 ( 'MQTT' 05 02 0000 ( 15 'none' 27 00000004 ) 'me' )");
    tiny.expect_closed();
}

on_one_and_four_shards! {
    what_is_not_available_is_told_and_refused with
        "limits.wildcard_subscription_available=false",
        "limits.shared_subscription_available=false",
        "limits.subscription_identifiers_available=false";
    older_clients_learn_it_from_suback with
        "limits.wildcard_subscription_available=false",
        "limits.shared_subscription_available=false";
    everything_is_available_by_default;
    response_information_is_given_on_request with "response_information=answers/%c";
    response_information_that_is_too_long_is_left_out with "response_information=answers/%c";
    a_moved_server_says_where_it_is with "server_reference=b:1883", "redirect=always";
    a_full_server_names_another with
        "limits.sessions_max=1", "server_reference=b:1883", "redirect=full";
    errors_are_explained;
    a_reason_string_never_makes_a_packet_too_large;
}
