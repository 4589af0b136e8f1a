//! Will messages: when they are sent, when not, and with what (sections 3.1.2.5, 3.1.3.2).

use std::time::{Duration, Instant};

use crate::common::{Broker, RawClient, on_one_and_four_shards};

/// A v5 subscriber of `will/#` at QoS 2.
fn watcher(broker: &Broker) -> RawClient {
    let mut watcher = RawClient::v5(broker.port, "watcher");
    watcher.send("82 ( 0001 () 'will/#' 02 )");
    watcher.expect("90 ( 0001 () 02 )");
    watcher
}

/// A v5 client `me` with a will on `will/me`: flags of CONNECT, its properties, will properties.
fn with_will(broker: &Broker, flags: &str, properties: &str, will: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!(
        "10 ( 'MQTT' 05 {flags} 003c ( {properties} ) 'me' ( {will} ) 'will/me' 'gone' )"
    ));
    client.expect_accepted();
    client
}

/// No will comes: what is published afterwards is the next to arrive.
fn expect_none(broker: &Broker, watcher: &mut RawClient) {
    let mut other = RawClient::v311(broker.port, "other");
    other.send("30 ( 'will/marker' `m` )");
    watcher.expect("30 ( 'will/marker' () `m` )");
}

/// MQTT-3.1.2-8: a closed connection sends it, at each QoS and from each version.
fn a_lost_connection_sends_the_will(broker: &Broker) {
    let mut watcher = watcher(broker);
    for connect in ["'MQIsdp' 03", "'MQTT' 04"] {
        for (flags, expected) in [
            ("06", "30 ( 'will/old' () `gone` )"),
            ("0e", "32 ( 'will/old' ???? () `gone` )"),
            ("16", "34 ( 'will/old' ???? () `gone` )"),
        ] {
            let mut client = RawClient::connect(broker.port);
            client.send(&format!("10 ( {connect} {flags} 003c 'old' 'will/old' 'gone' )"));
            client.expect("20 02 00 00");
            drop(client);
            let id = watcher.expect(expected);
            match flags {
                "06" => {}
                "0e" => watcher.send(&format!("40 02 {id}")),
                _ => {
                    watcher.send(&format!("50 02 {id}"));
                    watcher.expect_ack(0x62, &id);
                    watcher.send(&format!("70 02 {id}"));
                }
            }
        }
    }
    drop(with_will(broker, "06", "", ""));
    watcher.expect("30 ( 'will/me' () `gone` )");
}

/// MQTT-3.1.2-10 and 3.14.4: 0x00 takes it back, 0x04 asks for it.
fn disconnect_decides_about_the_will(broker: &Broker) {
    let mut watcher = watcher(broker);
    for (disconnect, sent) in
        [("e0 00", false), ("e0 ( 00 )", false), ("e0 ( 04 )", true), ("e0 ( 80 )", true)]
    {
        println!("{disconnect}");
        let mut client = with_will(broker, "06", "", "");
        client.send(disconnect);
        client.expect_closed();
        if sent {
            watcher.expect("30 ( 'will/me' () `gone` )");
        }
        expect_none(broker, &mut watcher);
    }
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 06 003c 'old' 'will/old' 'gone' ) e0 00");
    client.expect("20 02 00 00");
    client.expect_closed();
    expect_none(broker, &mut watcher);
}

/// 3.1.2.5: a protocol error and a missed keep-alive are losses too.
fn errors_send_the_will(broker: &Broker) {
    let mut watcher = watcher(broker);
    let mut client = with_will(broker, "06", "", "");
    client.send("36 ( 't' 0001 () `x` )");
    watcher.expect("30 ( 'will/me' () `gone` )");

    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 06 0001 'silent' 'will/silent' 'gone' )");
    client.expect("20 02 00 00");
    watcher.expect("30 ( 'will/silent' () `gone` )");
    client.expect_closed();
}

/// MQTT-3.1.2-14, MQTT-3.1.2-15
fn a_will_can_be_retained(broker: &Broker) {
    let mut watcher = watcher(broker);
    drop(with_will(broker, "06", "", ""));
    watcher.expect("30 ( 'will/me' () `gone` )");
    let mut late = RawClient::v311(broker.port, "late");
    late.send("82 ( 0001 'will/#' 00 )");
    late.expect("90 ( 0001 00 )");
    drop(with_will(broker, "2e", "", ""));
    watcher.expect("32 ( 'will/me' ???? () `gone` )");
    late.expect("30 ( 'will/me' `gone` )");
    let mut later = RawClient::v311(broker.port, "later");
    later.send("82 ( 0001 'will/#' 00 )");
    later.expect_in_any_order(&["90 ( 0001 00 )", "31 ( 'will/me' `gone` )"]);
}

/// MQTT-3.1.3-10 and 3.1.3.2
fn will_properties_are_forwarded(broker: &Broker) {
    let mut watcher = watcher(broker);
    drop(with_will(broker, "06", "", "26 'b' '1' 26 'a' '2'"));
    watcher.expect("30 ( 'will/me' ( 26 'b' '1' 26 'a' '2' ) `gone` )");
    drop(with_will(broker, "06", "", "03 'text/plain' 18 00000000"));
    watcher.expect("30 ( 'will/me' ( 03 'text/plain' ) `gone` )");
}

/// MQTT-3.1.3-9 and 3.1.3.2.2
fn a_delayed_will_waits(broker: &Broker) {
    let mut watcher = watcher(broker);
    drop(with_will(broker, "04", "11 0000012c", "18 00000001"));
    let closed = Instant::now();
    watcher.expect("30 ( 'will/me' () `gone` )");
    let waited = closed.elapsed();
    assert!((800..4000).contains(&waited.as_millis()), "{waited:?} instead of a second");
}

fn a_delayed_will_is_withdrawn_by_a_reconnect(broker: &Broker) {
    let mut watcher = watcher(broker);
    drop(with_will(broker, "04", "11 0000012c", "18 00000001"));
    let (mut client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    // Twice the delay: time itself is under test.
    watcher.expect_silence(Duration::from_millis(2200));
    client.ping();
}

/// 3.1.2.5: the end of the session does not wait for the delay.
fn the_end_of_the_session_sends_a_delayed_will(broker: &Broker) {
    let mut watcher = watcher(broker);
    drop(with_will(broker, "04", "11 00000001", "18 00000e10"));
    let closed = Instant::now();
    watcher.expect("30 ( 'will/me' () `gone` )");
    let waited = closed.elapsed();
    assert!((800..4000).contains(&waited.as_millis()), "{waited:?} instead of a second");
    // No session after the connection: at once.
    drop(with_will(broker, "06", "", "18 00000e10"));
    watcher.expect("30 ( 'will/me' () `gone` )");
    // Clean Start 1 ends the session that waited.
    drop(with_will(broker, "04", "11 0000012c", "18 00000e10"));
    drop(RawClient::v5(broker.port, "me"));
    watcher.expect("30 ( 'will/me' () `gone` )");
}

/// 3.1.4 (take-over): sent, unless it is delayed and the session goes on.
fn a_take_over_sends_the_will(broker: &Broker) {
    let mut watcher = watcher(broker);
    let _old = with_will(broker, "04", "11 0000012c", "");
    let (_new, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    watcher.expect("30 ( 'will/me' () `gone` )");

    let _old = with_will(broker, "04", "11 0000012c", "18 00000e10");
    let (_new, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    expect_none(broker, &mut watcher);

    let _old = with_will(broker, "04", "11 0000012c", "18 00000e10");
    let _new = RawClient::v5(broker.port, "me");
    watcher.expect("30 ( 'will/me' () `gone` )");
}

/// Each connection has its own will, or none.
fn a_will_belongs_to_one_connection(broker: &Broker) {
    let mut watcher = watcher(broker);
    drop(with_will(broker, "04", "11 0000012c", ""));
    watcher.expect("30 ( 'will/me' () `gone` )");
    let (client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    drop(client);
    let (_client, _) = RawClient::v5_resume(broker.port, "me");
    expect_none(broker, &mut watcher);
}

on_one_and_four_shards! {
    a_lost_connection_sends_the_will;
    disconnect_decides_about_the_will;
    errors_send_the_will;
    a_will_can_be_retained;
    will_properties_are_forwarded;
    a_delayed_will_waits;
    a_delayed_will_is_withdrawn_by_a_reconnect;
    the_end_of_the_session_sends_a_delayed_will;
    a_take_over_sends_the_will;
    a_will_belongs_to_one_connection;
}
