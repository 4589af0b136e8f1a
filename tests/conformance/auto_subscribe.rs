//! `auto_subscribe`: what a new session is subscribed to without asking.

use crate::common::{Broker, RawClient, on_one_and_four_shards};

/// A client that has given back what the rules gave to it, too.
fn publisher_without(broker: &Broker, filters: &str) -> RawClient {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send(&format!("a2 ( 0001 {filters} )"));
    publisher.expect("b0 02 0001");
    publisher
}

/// From CONNACK on, whichever shards publisher and subscriber are on.
fn a_new_session_is_subscribed_when_it_is_accepted(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for n in 0..12 {
        let mut old = RawClient::v311(broker.port, &format!("old{n}"));
        publisher.send(&format!("34 ( 'to/old{n}' 0001 `x` ) 62 02 0001"));
        publisher.expect("50 02 0001 70 02 0001");
        old.expect(&format!("32 ( 'to/old{n}' ???? `x` )"));
        let mut new = RawClient::v5(broker.port, &format!("new{n}"));
        publisher.send(&format!("30 ( 'to/new{n}' `x` ) 30 ( 'to/old{n}' `y` )"));
        new.expect(&format!("30 ( 'to/new{n}' () `x` )"));
        old.expect(&format!("30 ( 'to/old{n}' `y` )"));
    }
    // An assigned Client Identifier counts as well.
    let mut assigned = RawClient::connect(broker.port);
    assigned.send("10 ( 'MQTT' 05 02 003c () '' )");
    let connack = assigned.expect_accepted();
    let id = connack.property(0x12).expect("an assigned Client Identifier");
    let topic = format!("to/{}", String::from_utf8_lossy(&id[2..]));
    publisher.send(&format!("30 ( '{topic}' `x` )"));
    assigned.expect(&format!("30 ( '{topic}' () `x` )"));
}

/// Nothing overtakes CONNACK, and what the client sends with CONNECT is handled.
fn connack_comes_first(broker: &Broker) {
    for n in 0..12 {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!(
            "10 ( 'MQTT' 04 02 003c 'c{n}' ) 30 ( 'to/c{n}' `x` ) 82 ( 0001 'y' 00 ) c0 00"
        ));
        client.expect("20 02 00 00");
        client.expect_in_any_order(&[&format!("30 ( 'to/c{n}' `x` )"), "90 ( 0001 00 )", "d0 00"]);
    }
}

/// What the client has changed holds while its session lasts.
fn a_resumed_session_stays_as_it_is(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("a2 ( 0001 () 'to/me' 'to/you' )");
    client.expect("b0 ( 0001 () 00 11 )");
    drop(client);
    let (mut client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    publisher.send("32 ( 'to/me' 0001 `x` )");
    publisher.expect("40 02 0001");
    client.send("a2 ( 0002 () 'to/me' )");
    client.expect("b0 ( 0002 () 11 )");
    drop(client);
    let mut client = RawClient::v5(broker.port, "me");
    client.send("a2 ( 0003 () 'to/me' )");
    client.expect("b0 ( 0003 () 00 )");
}

/// The rules' flags and QoS, as if the client had asked so.
fn options_hold_as_in_subscribe(broker: &Broker) {
    let mut publisher = publisher_without(broker, "'send' 'never' 'local'");
    for topic in ["send", "never"] {
        publisher.send(&format!("33 ( '{topic}' 0001 `kept` )"));
        publisher.expect("40 02 0001");
    }
    let mut client = RawClient::v5(broker.port, "me");
    client.expect("33 ( 'send' ???? () `kept` )");
    publisher.send("33 ( 'never' 0002 `live` )");
    publisher.expect("40 02 0002");
    client.expect("31 ( 'never' () `live` )");
    client.send("32 ( 'local' 0001 () `own` )");
    client.expect_ack(0x40, "0001");
    publisher.send("32 ( 'local' 0003 `other` )");
    publisher.expect("40 02 0003");
    client.expect("32 ( 'local' ???? () `other` )");
    client.ping();
}

/// Without a user name such a rule is not for the client.
fn user_names_take_their_place(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 82 003c 'me' 'anna' )");
    client.expect("20 02 00 00");
    publisher.send("30 ( 'user/anna/me/x' `x` )");
    client.expect("30 ( 'user/anna/me/x' `x` )");
    let mut nobody = RawClient::v5(broker.port, "nobody");
    nobody.send("a2 ( 0001 () 'user/%u/nobody/#' 'user//nobody/#' )");
    nobody.expect("b0 ( 0001 () 11 11 )");
}

/// A name that would make another filter of the rule: the client connects without it.
fn names_that_do_not_fit_are_skipped(broker: &Broker) {
    let mut publisher = publisher_without(broker, "'fixed'");
    for id in ["a/b", "#", "+", "$SYS"] {
        let mut client = RawClient::v311(broker.port, id);
        broker.wait_for_log(&["WARN", "not subscribed automatically", "%c", id]);
        publisher.send("30 ( 'to/a/b' `x` ) 30 ( 'any/x' `x` )");
        publisher.ping();
        client.send("30 ( 'fixed' `marker` )");
        client.expect("30 ( 'fixed' `marker` )");
    }
}

/// Shared, queued and on request.
fn prefixes_mean_what_they_mean_in_subscribe(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("33 ( 'cfg/one' 0001 `kept` )");
    publisher.expect("40 02 0001");
    let mut one = RawClient::v5(broker.port, "one");
    let mut two = RawClient::v5(broker.port, "two");
    // The publisher is a member too.
    for _ in 0..6 {
        one.send("30 ( 'job' () `x` )");
    }
    for client in [&mut one, &mut two] {
        client.expect("30 ( 'job' () `x` )");
        client.expect("30 ( 'job' () `x` )");
    }
    one.send("30 ( '$request/cfg/one' () )");
    one.expect("33 ( 'cfg/one' ???? () `kept` )");
    two.send("32 ( '$request/cfg/one' 0001 () )");
    assert_eq!(two.ack_reason(0x40, "0001"), 0x87);
}

/// A client that has no room for CONNACK has no session when it comes again, but a new one.
fn a_client_that_was_not_accepted_has_no_session(broker: &Broker) {
    let mut refused = RawClient::connect(broker.port);
    refused.send("10 ( 'MQTT' 05 00 003c ( 11 0000012c 27 00000004 ) 'me' )");
    refused.expect_closed();
    let (mut client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(!present);
    client.send("a2 ( 0001 () 'to/me' )");
    client.expect("b0 ( 0001 () 00 )");
}

/// Rewrite rules hold for them as for the filters of SUBSCRIBE and UNSUBSCRIBE.
fn they_are_rewritten(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("30 ( 'to/me' () `x` )");
    client.expect("30 ( 'all/to/me' () `x` )");
    client.send("a2 ( 0001 () 'to/me' ) 30 ( 'to/me' () `x` )");
    client.expect("b0 ( 0001 () 00 )");
    client.ping();
}

/// subscriptions_max holds for them too.
fn they_count_as_subscriptions(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    broker.wait_for_log(&["WARN", "subscriptions_max", "c/me"]);
    client.send("82 ( 0001 () 'd' 00 'a/me' 00 )");
    client.expect("90 ( 0001 () 97 00 )");
    client.send("a2 ( 0002 () 'a/me' 'b/me' ) a2 ( 0003 () 'c/me' )");
    client.expect("b0 ( 0002 () 00 00 ) b0 ( 0003 () 11 )");
}

on_one_and_four_shards! {
    a_new_session_is_subscribed_when_it_is_accepted with r#"auto_subscribe=["to/%c => 1"]"#;
    connack_comes_first with r#"auto_subscribe=["to/%c => 1"]"#;
    a_resumed_session_stays_as_it_is with r#"auto_subscribe=["to/%c => 1"]"#;
    options_hold_as_in_subscribe with r#"auto_subscribe=["send => 1 retain=send", "never => 0 retain=never retain_as_published", "local => 2 no_local"]"#;
    user_names_take_their_place with "auto_subscribe=user/%u/%c/# => 1";
    names_that_do_not_fit_are_skipped with r#"auto_subscribe=["to/%c => 1", "%c/x => 1", "fixed => 0"]"#;
    prefixes_mean_what_they_mean_in_subscribe with r#"auto_subscribe=["$queue/job => 1", "$request/cfg/%c => 1"]"#;
    a_client_that_was_not_accepted_has_no_session with "auto_subscribe=to/%c => 1";
    they_are_rewritten with
        "auto_subscribe=to/%c => 1",
        r##"rewrite=["all # => all/$1"]"##;
    they_count_as_subscriptions with r#"auto_subscribe=["a/%c => 1", "b/%c => 1", "c/%c => 1"]"#, "limits.subscriptions_max=2";
}
