//! The payload of CONNECT: which fields are there, in which order, and who the client is
//! (sections 3.1.2.3 to 3.1.2.9, 3.1.3).

use std::time::{Duration, Instant};

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

/// MQTT-3.1.2-3, MQTT-3.1.2-9, MQTT-3.1.2-11 to -13, MQTT-3.1.2-16 to -19, MQTT-3.1.3-1, MQTT-3.1.3-3,
/// MQTT-3.1.4-1, 3.1.1:MQTT-3.1.2-9, 3.1.1:MQTT-3.1.2-11, 3.1.1:MQTT-3.1.2-13 to -15,
/// 3.1.1:MQTT-3.1.2-18 to -22, 3.1.1:MQTT-3.1.3-3, 3.1.1:MQTT-3.1.4-1, 3.1.1:MQTT-3.2.2-6: fields
/// that the flags do not announce, and flags without their field. 3.1.1 has no return code for it.
fn fields_and_flags_have_to_agree(broker: &Broker) {
    let cases = [
        ("reserved bit", "03", "'me'"),
        ("bytes after the last field", "02", "'me' 'more'"),
        ("no Client Identifier", "02", ""),
        ("will topic and payload without flag", "02", "'me' 'w' 'x'"),
        ("Will QoS 1 without Will", "0a", "'me'"),
        ("Will QoS 2 without Will", "12", "'me'"),
        ("Will QoS 1 without Will, with its fields", "0a", "'me' 'w' 'x'"),
        ("Will Retain without Will", "22", "'me'"),
        ("Will QoS 3", "1e", "'me' 'w' 'x'"),
        ("will missing", "06", "'me'"),
        ("will payload missing", "06", "'me' 'w'"),
        ("user name without flag", "02", "'me' 'user'"),
        ("user name missing", "82", "'me'"),
        ("password without flag", "82", "'me' 'user' 'password'"),
        ("password missing", "c2", "'me' 'user'"),
        ("will and user name, one of them missing", "86", "'me' 'w' 'x'"),
    ];
    each(cases, |(_, flags, payload)| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 {flags} 003c {payload} )"));
        client.expect_closed();
        let payload = payload.replace("'w'", "() 'w'");
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 {flags} 003c () {payload} )"));
        client.expect_refused(&[0x81, 0x82]);
    });
}

/// MQTT-3.1.3-1, 3.1.1:MQTT-3.1.3-1: with all fields there, each is taken for what it is.
fn fields_are_read_in_their_order(broker: &Broker) {
    let mut watcher = RawClient::v5(broker.port, "watcher");
    watcher.send("82 ( 0001 () 'will/#' 02 )");
    watcher.expect("90 ( 0001 () 02 )");
    for (connect, connack, message) in [
        (
            "10 ( 'MQTT' 05 ee 003c () 'five' ( 03 'type' ) 'will/five' 'gone' 'name 5' 'secret' )",
            None,
            "32 ( 'will/five' ???? ( 03 'type' ) `gone` )",
        ),
        (
            "10 ( 'MQTT' 04 ee 003c 'four' 'will/four' 'gone' 'name 4' 'secret' )",
            Some("20 02 00 00"),
            "32 ( 'will/four' ???? () `gone` )",
        ),
        (
            "10 ( 'MQIsdp' 03 ee 003c 'three' 'will/three' 'gone' 'name 3' 'secret' )",
            Some("20 02 00 00"),
            "32 ( 'will/three' ???? () `gone` )",
        ),
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        match connack {
            Some(connack) => drop(client.expect(connack)),
            None => drop(client.expect_accepted()),
        }
        drop(client);
        let id = watcher.expect(message);
        watcher.send(&format!("40 02 {id}"));
    }
    for (client, user) in [("five", "name 5"), ("four", "name 4"), ("three", "name 3")] {
        broker.wait_for_log(&["connected", &format!("client={client}"), user]);
    }
}

/// MQTT-3.1.3-5, 3.1.1:MQTT-3.1.3-5: every character that must be, at every length that must be, and
/// more than that.
fn client_identifiers_of_every_length_are_accepted(broker: &Broker) {
    const CHARACTERS: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let ids = (1..=23).map(|length| &CHARACTERS[..length]);
    let ids = ids.chain([&CHARACTERS[16..39], &CHARACTERS[39..], CHARACTERS, "a/+#$ \u{e9}"]);
    each(ids, |id| {
        RawClient::v5(broker.port, id).ping();
        RawClient::v311(broker.port, id).ping();
        let mut old = RawClient::connect(broker.port);
        old.send(&format!("10 ( 'MQIsdp' 03 02 003c '{id}' )"));
        old.expect("20 02 00 00");
        old.ping();
    });
}

/// MQTT-3.1.3-2, 3.1.1:MQTT-3.1.3-2: state belongs to exactly one identifier, whatever else is alike.
fn each_identifier_has_its_own_state(broker: &Broker) {
    let ids = ["me", "Me", "me ", "m", "mee"];
    for (n, id) in ids.iter().enumerate() {
        let (mut client, present) = RawClient::v5_resume(broker.port, id);
        assert!(!present, "{id:?}");
        client.send(&format!("82 ( 0001 () 'of/{n}' 00 )"));
        client.expect("90 ( 0001 () 00 )");
    }
    let mut clients = ids.map(|id| {
        let (client, present) = RawClient::v5_resume(broker.port, id);
        assert!(present, "{id:?}");
        client
    });
    for _ in 0..2 {
        for topic in 0..ids.len() {
            clients[0].send(&format!("30 ( 'of/{topic}' () `x` )"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            client.expect(&format!("30 ( 'of/{n}' () `x` )"));
        }
    }
    clients.iter_mut().for_each(RawClient::ping);
}

/// MQTT-3.1.3-7, 3.1.1:MQTT-3.1.3-6: an assigned identifier is one like others: it can come back. In 3.1.1
/// nobody learns it, but each client has its own.
fn an_assigned_identifier_is_the_clients_from_then_on(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 00 003c ( 11 0000012c ) '' )");
    let connack = client.expect_accepted();
    assert!(!connack.session_present);
    let id = connack.property(0x12).expect("an Assigned Client Identifier")[2..].to_vec();
    let id = String::from_utf8(id).expect("a UTF-8 Encoded String");
    client.send("82 ( 0001 () 't' 00 )");
    client.expect("90 ( 0001 () 00 )");
    drop(client);
    let (mut client, present) = RawClient::v5_resume(broker.port, &id);
    assert!(present, "the session of {id}");
    client.send("30 ( 't' () `x` )");
    client.expect("30 ( 't' () `x` )");

    let mut nameless: Vec<_> = (0..3).map(|_| RawClient::v311(broker.port, "")).collect();
    nameless.iter_mut().for_each(RawClient::ping);
}

/// MQTT-3.1.4-2, MQTT-3.1.4-6: who is refused takes nothing over, ends no session, and is not listened to.
fn a_refused_connect_changes_nothing(broker: &Broker) {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    watcher.send("82 ( 0001 '#' 00 )");
    watcher.expect("90 ( 0001 00 )");
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("82 ( 0001 () 't' 00 )");
    client.expect("90 ( 0001 () 00 )");
    let refused = [
        ("10 ( 'MQTT' 05 02 003c ( 15 'UNKNOWN' ) 'me' )", &[0x8c][..]),
        ("10 ( 'MQTT' 05 06 003c () 'me' () 'w/#' 'x' )", &[0x81, 0x90]),
        ("10 ( 'MQTT' 05 02 003c ( 21 0000 ) 'me' )", &[0x81, 0x82]),
        ("10 ( 'MQTT' 05 03 003c () 'me' )", &[0x81]),
        ("10 ( 'MQTT' 06 02 003c () 'me' )", &[0x84]),
    ];
    for (connect, reasons) in refused {
        let mut other = RawClient::connect(broker.port);
        other.send(&format!("{connect} 30 ( 't' () `from nobody` ) c0 00"));
        other.expect_refused(reasons);
    }
    let mut other = RawClient::connect(broker.port);
    other.send("10 ( 'MQTT' 04 06 003c 'me' 'w/#' 'x' ) 30 ( 't' `from nobody` )");
    other.expect_closed();
    client.send("30 ( 't' () `x` )");
    client.expect("30 ( 't' () `x` )");
    watcher.expect("30 ( 't' `x` )");
}

/// MQTT-3.1.4-2, 3.1.1:MQTT-3.1.4-5, 3.1.1:MQTT-3.2.2-4, 3.1.1:MQTT-3.2.2-5: with
/// `allow_anonymous=false` nobody may connect, and each version has its words for it.
fn who_may_not_connect_is_told_so(broker: &Broker) {
    for (connect, told) in [
        ("10 ( 'MQTT' 05 02 003c ( 27 00000005 ) 'me' )", "20 03 00 87 00"),
        ("10 ( 'MQTT' 04 00 003c 'me' )", "20 02 00 05"),
        ("10 ( 'MQIsdp' 03 00 003c 'me' )", "20 02 00 05"),
    ] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("{connect} c0 00"));
        client.expect(told);
        client.expect_closed();
    }
}

/// MQTT-3.2.2-21, MQTT-3.2.2-22: the keep-alive that was announced instead is the one that holds.
fn an_announced_keep_alive_is_enforced(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () 'me' )");
    let connack = client.expect_accepted();
    assert_eq!(connack.property(0x13), Some([0, 1].as_slice()));
    let started = Instant::now();
    // Time itself is under test.
    client.expect_silence(Duration::from_millis(1200));
    client.expect_disconnect(0x8d);
    let waited = started.elapsed();
    assert!((1400..4000).contains(&waited.as_millis()), "{waited:?} instead of 1.5 seconds");
}

/// MQTT-3.2.2-8, MQTT-3.2.2-6: a broker with no room for further sessions.
fn a_full_broker_refuses_new_sessions(broker: &Broker) {
    let mut accepted = 0;
    let mut refused = 0;
    for n in 0..20 {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 00 003c ( 11 0000012c ) 'five {n}' )"));
        let connack = client.connack();
        match connack.reason {
            0 => accepted += 1,
            _ => {
                assert_eq!((connack.reason, connack.session_present), (0x97, false));
                client.expect_closed();
                refused += 1;
            }
        }
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 00 003c 'three {n}' )"));
        match client.expect("20 02 00 ??").as_str() {
            "00" => accepted += 1,
            code => {
                assert_eq!(code, "03", "3.1.1:MQTT-3.2.2-4, 3.1.1:MQTT-3.2.2-5");
                client.expect_closed();
                refused += 1;
            }
        }
    }
    assert!(accepted <= 4 && refused >= 36, "{accepted} accepted, {refused} refused");
}

/// MQTT-3.2.2-9, MQTT-3.2.2-10: subscribers may ask for more QoS than publishers have.
fn any_qos_can_be_subscribed_to(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () 'me' )");
    assert_eq!(client.expect_accepted().property(0x24), Some([0].as_slice()));
    client.send("82 ( 0001 () 'a' 00 'b' 01 'c' 02 )");
    client.expect("90 ( 0001 () ?? ?? ?? )");
    client.send("30 ( 'a' () `x` ) 30 ( 'b' () `x` ) 30 ( 'c' () `x` )");
    client.expect("30 ( 'a' () `x` ) 30 ( 'b' () `x` ) 30 ( 'c' () `x` )");
    client.send("32 ( 'a' 0001 () `x` )");
    client.expect_disconnect(0x9b);
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 0e 003c () 'me' () 'w' 'x' )");
    assert_eq!(client.connack().reason, 0x9b);
    client.expect_closed();
}

on_one_and_four_shards! {
    fields_and_flags_have_to_agree;
    fields_are_read_in_their_order;
    client_identifiers_of_every_length_are_accepted;
    each_identifier_has_its_own_state;
    an_assigned_identifier_is_the_clients_from_then_on;
    a_refused_connect_changes_nothing;
    who_may_not_connect_is_told_so with "allow_anonymous=false";
    an_announced_keep_alive_is_enforced with "limits.keep_alive_secs_max=1";
    a_full_broker_refuses_new_sessions with "limits.sessions_max=4";
    any_qos_can_be_subscribed_to with "limits.maximum_qos=0";
}
