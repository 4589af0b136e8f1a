//! Rewrite rules: what topics and filters of clients are read as.

use crate::{
    common::{Broker, RawClient, each, on_one_and_four_shards},
    witnesses::Witnesses,
};

/// A v5 client with a User Name.
fn with_user(broker: &Broker, client: &str, user: &str) -> RawClient {
    let mut connection = RawClient::connect(broker.port);
    connection.send(&format!("10 ( 'MQTT' 05 82 003c () '{client}' '{user}' )"));
    connection.expect_accepted();
    connection
}

/// Publishers, subscribers, SUBACK and UNSUBACK see one topic by its old and its new name.
fn old_and_new_names_meet(broker: &Broker) {
    let mut v5 = RawClient::v5(broker.port, "v5");
    let mut v311 = RawClient::v311(broker.port, "v311");
    let mut new = RawClient::v311(broker.port, "new");
    v5.send("82 ( 0001 () 'other' 00 'x/1/#' 01 'x/+/2' 00 )");
    v5.expect("90 ( 0001 () 00 01 00 )");
    v311.send("82 ( 0001 'x/1/2' 02 )");
    v311.expect("90 ( 0001 02 )");
    new.send("82 ( 0001 'y/1/2' 00 )");
    new.expect("90 ( 0001 00 )");
    for topic in ["x/1/2", "y/1/2"] {
        let mut publisher = RawClient::v311(broker.port, "publisher");
        publisher.send(&format!("30 ( '{topic}' `a` )"));
        v5.expect("30 ( 'y/1/2' () `a` )");
        v311.expect("30 ( 'y/1/2' `a` )");
        new.expect("30 ( 'y/1/2' `a` )");
    }
    // By either name; the second time it is gone.
    v5.send("a2 ( 0002 () 'x/1/#' 'y/1/#' 'y/+/2' 'x/+/2' )");
    v5.expect("b0 ( 0002 () 00 11 00 11 )");
    v311.send("a2 ( 0002 'y/1/2' )");
    v311.expect("b0 02 0002");
    new.send("30 ( 'x/1/2' `b` ) 30 ( 'other' `c` )");
    new.expect("30 ( 'y/1/2' `b` )");
    v5.expect("30 ( 'other' () `c` )");
    v311.ping();
}

/// Scopes hold, the first rule that matches wins, and its result is not rewritten again.
fn rules_apply_by_scope_in_order_and_once(broker: &Broker) {
    let mut witnesses = Witnesses::of(broker, "seen/#");
    let mut client = RawClient::v5(broker.port, "me");
    client
        .send("30 ( 'p' () `1` ) 30 ( 's' () `2` ) 30 ( 'first/x' () `3` ) 30 ( 'chain' () `4` )");
    for expected in ["30 ( 'seen/p' `1` )", "30 ( 'seen/first' `3` )", "30 ( 'seen/chain' `4` )"] {
        witnesses.expect(expected);
    }
    client.send("82 ( 0001 () 's' 00 'p' 00 )");
    client.expect("90 ( 0001 () 00 00 )");
    client.send("30 ( 'got/s' () `5` ) 30 ( 's' () `6` ) 30 ( 'p' () `7` )");
    client.expect("30 ( 'got/s' () `5` )");
    client.ping();
}

fn names_of_the_client_come_in(broker: &Broker) {
    let mut ann = with_user(broker, "lamp", "ann");
    let mut bob = with_user(broker, "fan", "bob");
    let mut nobody = RawClient::v311(broker.port, "nobody");
    for client in [&mut ann, &mut bob] {
        client.send("82 ( 0001 () '#' 01 )");
        client.expect("90 ( 0001 () 01 )");
    }
    ann.send("30 ( 'a/b' () `1` )");
    ann.expect("30 ( 'users/ann/lamp/a/b' () `1` )");
    bob.send("30 ( 'a/b' () `2` )");
    bob.expect("30 ( 'users/bob/fan/a/b' () `2` )");
    nobody.send("82 ( 0001 'x' 00 )");
    nobody.expect("90 ( 0001 00 )");
    nobody.send("30 ( 'x' `3` )");
    nobody.expect("30 ( 'users//nobody/x' `3` )");
    ann.ping();
    bob.ping();
    // A delay is no way around a rule.
    bob.send("30 ( '$delayed/0/users/ann/lamp/a/b' () `4` ) 30 ( '$delayed/0/c' () `5` )");
    bob.expect("30 ( 'users/bob/fan/users/ann/lamp/a/b' () `4` )");
    bob.expect("30 ( 'users/bob/fan/c' () `5` )");
    ann.ping();
}

/// Sections 3.4.2.1, 3.9.3, 3.11.3: a name that would make a wildcard gets nothing.
fn results_that_are_no_topics_are_refused(broker: &Broker) {
    each(["a#", "+", "#"], |client| {
        let mut v5 = RawClient::v5(broker.port, client);
        v5.send("32 ( 'mine/t' 0001 () `x` )");
        assert_eq!(v5.ack_reason(0x40, "0001"), 0x90);
        v5.send("82 ( 0001 () 'a' 00 'mine/t' 01 '$share/g/mine/t' 01 'b' 01 )");
        v5.expect("90 ( 0001 () 00 8f 8f 01 )");
        v5.send("a2 ( 0001 () 'mine/t' 'a' )");
        v5.expect("b0 ( 0001 () 8f 00 )");
        drop(v5);
        let mut v311 = RawClient::v311(broker.port, client);
        v311.send("32 ( 'mine/t' 0001 `x` )");
        v311.expect("40 02 0001");
        v311.send("82 ( 0001 'mine/t' 00 'a' 02 )");
        v311.expect("90 ( 0001 80 02 )");
        v311.send("a2 ( 0002 'mine/t' )");
        v311.expect("b0 02 0002");
        drop(v311);
        // A will is refused with its CONNECT.
        let mut will = RawClient::connect(broker.port);
        will.send(&format!("10 ( 'MQTT' 05 06 003c () '{client}' () 'mine/t' 'gone' )"));
        will.expect_refused(&[0x90]);
    });
    broker.wait_for_log(&["message dropped", "reason=\"topic_name_invalid\""]);
    let mut client = RawClient::v5(broker.port, "me");
    // Reserved, delayed, empty, or shared where it was not.
    client.send("32 ( 'bare/$SYS/x' 0001 () `x` )");
    assert_eq!(client.ack_reason(0x40, "0001"), 0x87);
    for topic in ["bare/$delayed/0/t", "bare/", "bare"] {
        client.send(&format!("32 ( '{topic}' 0001 () `x` )"));
        assert_eq!(client.ack_reason(0x40, "0001"), 0x90, "{topic}");
    }
    client.send("82 ( 0001 () 'bare/$share/g/t' 00 'bare/$share' 00 'bare/a+' 00 )");
    client.expect_disconnect(0x81);
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 'bare/$share/g/t' 00 'bare/$share' 00 'bare' 00 'bare/t' 00 )");
    client.expect("90 ( 0001 () 8f 8f 8f 00 )");
}

/// Section 4.8.2: the share name stays, members by either name share.
fn share_names_are_kept(broker: &Broker) {
    let mut old = RawClient::v5(broker.port, "old");
    let mut new = RawClient::v5(broker.port, "new");
    old.send("82 ( 0001 () '$share/x/x/1/+' 00 )");
    old.expect("90 ( 0001 () 00 )");
    new.send("82 ( 0001 () '$share/x/y/1/+' 00 'marker' 00 )");
    new.expect("90 ( 0001 () 00 00 )");
    old.send("82 ( 0002 () 'marker' 00 )");
    old.expect("90 ( 0002 () 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("30 ( 'x/1/2' `a` ) 30 ( 'x/1/2' `a` ) 30 ( 'marker' `m` )");
    // One each, in turn.
    for member in [&mut old, &mut new] {
        member.expect("30 ( 'y/1/2' () `a` ) 30 ( 'marker' () `m` )");
    }
    old.send("a2 ( 0003 () '$share/x/y/1/+' )");
    old.expect("b0 ( 0003 () 00 )");
}

/// What is kept is kept under the new name: retained messages, aliases, wills.
fn retained_messages_aliases_and_wills_are_rewritten(broker: &Broker) {
    let mut witnesses = Witnesses::of(broker, "y/#");
    let mut publisher = RawClient::v5(broker.port, "publisher");
    publisher.send("31 ( 'x/1/2' ( 23 0001 ) `a` ) 31 ( '' ( 23 0001 ) `b` )");
    witnesses.expect("30 ( 'y/1/2' `a` ) 30 ( 'y/1/2' `b` )");
    for filter in ["x/1/2", "y/1/#", "x/+/#"] {
        let mut late = RawClient::v311(broker.port, "late");
        late.send(&format!("82 ( 0001 '{filter}' 00 )"));
        late.expect_in_any_order(&["90 ( 0001 00 )", "31 ( 'y/1/2' `b` )"]);
    }
    for connect in ["'MQTT' 04 06 003c 'me'", "'MQTT' 05 06 003c () 'me' ()"] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( {connect} 'x/w/ill' 'gone' )"));
        assert_eq!(client.read_packet()[3], 0x00);
        drop(client);
        witnesses.expect("30 ( 'y/w/ill' `gone` )");
    }
}

on_one_and_four_shards! {
    old_and_new_names_meet with "rewrite=all x/+/# => y/$1/$2";
    rules_apply_by_scope_in_order_and_once with
        "rewrite=['publish p => seen/p', 'subscribe s => got/s', 'all first/# => seen/first', \
         'all first/x => seen/second', 'publish chain => seen/chain', 'publish seen/# => lost']";
    names_of_the_client_come_in with "rewrite=all # => users/%u/%c/$1";
    results_that_are_no_topics_are_refused with
        "rewrite=['all mine/# => of/%c/$1', 'all bare/# => $1']";
    share_names_are_kept with "rewrite=all x/+/# => y/$1/$2";
    retained_messages_aliases_and_wills_are_rewritten with "rewrite=all x/+/# => y/$1/$2";
}
