//! `connections_per_user_max`: how many connections a user has who has proven who it is.

use crate::common::{Broker, RawClient, eventually, password_file};

/// What the broker answers to a user whose password is its name; the client too, if it is let in.
fn connect(broker: &Broker, user: &str, id: &str) -> (u8, RawClient) {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 c2 003c () '{id}' '{user}' '{user}' )"));
    let reason = client.connack().reason;
    (reason, client)
}

#[track_caller]
fn accepted(broker: &Broker, user: &str, id: &str) -> RawClient {
    let (reason, client) = connect(broker, user, id);
    assert_eq!(reason, 0, "{user} as {id}");
    client
}

#[track_caller]
fn refused(broker: &Broker, user: &str, id: &str) {
    let (reason, mut client) = connect(broker, user, id);
    assert_eq!(reason, 0x97, "{user} as {id}");
    client.expect_closed();
}

#[track_caller]
fn accepted_in_the_end(broker: &Broker, user: &str, id: &str) -> RawClient {
    eventually("a place that was given back", || {
        let (reason, client) = connect(broker, user, id);
        (reason == 0).then_some(client)
    })
}

/// Section 3.2.2.2: 0x97, and 0x03 to 3.1.1 clients. Every way in which a connection ends gives its place back.
fn a_user_has_so_many(broker: &Broker) {
    let first = accepted(broker, "ann", "a");
    let mut second = accepted(broker, "ann", "b");
    refused(broker, "ann", "c");
    let mut old = RawClient::connect(broker.port);
    old.send("10 ( 'MQTT' 04 c2 003c 'c' 'ann' 'ann' )");
    old.expect("20 02 00 03");
    old.expect_closed();
    // Others have their own.
    let _bob = accepted(broker, "bob", "d");

    // A connection that takes over another has its place.
    let mut third = accepted(broker, "ann", "b");
    second.expect_disconnect(0x8e);
    refused(broker, "ann", "c");
    let mut second = accepted(broker, "ann", "b");
    third.expect_disconnect(0x8e);

    second.send("e0 00");
    second.expect_closed();
    let again = accepted_in_the_end(broker, "ann", "c");
    refused(broker, "ann", "b");
    again.reset();
    let mut third = accepted_in_the_end(broker, "ann", "e");
    drop(first);
    let _first = accepted_in_the_end(broker, "ann", "f");
    // What ends it for a fault of its own.
    third.send("30 ( 't' ( 0b 01 ) )");
    third.expect_disconnect(0x82);
    let _third = accepted_in_the_end(broker, "ann", "g");
}

/// Who is refused for another reason has taken no place.
fn refusals_count_for_nothing(broker: &Broker) {
    let _first = accepted(broker, "ann", "a");
    for connect in [
        "10 ( 'MQTT' 05 c2 003c () 'b' 'ann' 'bob' )",
        // A will on a topic that nobody may publish to, and another user's session.
        "10 ( 'MQTT' 05 c6 003c () 'b' () '$SYS/a' '' 'ann' 'ann' )",
        "10 ( 'MQTT' 05 c2 003c () 'd' 'ann' 'ann' )",
        // CONNACK would be larger than the client takes.
        "10 ( 'MQTT' 05 c2 003c ( 27 00000004 ) 'b' 'ann' 'ann' )",
    ] {
        let mut keeper = RawClient::connect(broker.port);
        keeper.send("10 ( 'MQTT' 05 c0 003c ( 11 00000100 ) 'd' 'bob' 'bob' )");
        keeper.expect_accepted();
        let mut client = RawClient::connect(broker.port);
        client.send(connect);
        client.try_read_packet();
        client.expect_closed();
    }
    let _second = accepted(broker, "ann", "b");
    refused(broker, "ann", "c");
}

/// A User Name that nothing proves is nobody's.
fn names_that_are_not_proven_are_not_counted(broker: &Broker) {
    let clients: Vec<RawClient> = (0..4)
        .map(|n| {
            let mut client = RawClient::connect(broker.port);
            client.send(&format!("10 ( 'MQTT' 05 82 003c () 'n{n}' 'ann' )"));
            client.expect_accepted();
            client
        })
        .collect();
    drop(clients);
}

/// The same over SCRAM.
fn users_by_enhanced_authentication_are_counted(broker: &Broker) {
    let _first = accepted(broker, "ann", "a");
    let second = RawClient::v5_user(broker.port, ("02", ""), "b", "", "ann");
    refused(broker, "ann", "c");
    drop(second);
    accepted_in_the_end(broker, "ann", "c");
}

#[test]
fn users_have_so_many_connections_on_one_shard_and_on_four() {
    let users = password_file("user-connections", &["ann", "bob"]);
    let users = format!("password_file={}", users.display());
    for shards in [1, 4] {
        let start = || Broker::start(shards, &[&users, "limits.connections_per_user_max=2"]);
        a_user_has_so_many(&start());
        refusals_count_for_nothing(&start());
        users_by_enhanced_authentication_are_counted(&start());
        names_that_are_not_proven_are_not_counted(&Broker::start(
            shards,
            &["limits.connections_per_user_max=2"],
        ));
    }
}
