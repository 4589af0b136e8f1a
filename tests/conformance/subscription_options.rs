//! The v5 subscription options: No Local, Retain As Published, Retain Handling (section 3.8.3.1).

use crate::common::{Broker, RawClient, on_one_and_four_shards};

/// MQTT-3.8.3-3
fn no_local_keeps_own_messages_away(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 't' 04 'marker' 00 )");
    client.expect("90 ( 0001 () 00 00 )");
    client.send("30 ( 't' () `mine` ) 30 ( 'marker' () `m` )");
    client.expect("30 ( 'marker' () `m` )");
    let mut other = RawClient::v311(broker.port, "other");
    other.send("30 ( 't' `other` )");
    client.expect("30 ( 't' () `other` )");
}

/// MQTT-3.8.3-3: at each QoS, through a wildcard, on a later connection of the client, too. Another
/// subscription that matches is not concerned.
fn no_local_belongs_to_the_client_identifier(broker: &Broker) {
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("82 ( 0001 () 'own/#' 06 'own/both' 02 'marker' 00 )");
    client.expect("90 ( 0001 () 02 02 00 )");
    for connection in 0..2 {
        client.send("30 ( 'own/1' () `0` ) 32 ( 'own/1' 0001 () `1` ) 34 ( 'own/1' 0002 () `2` )");
        client.expect_ack(0x40, "0001");
        client.expect_ack(0x50, "0002");
        client.send("62 02 0002");
        client.expect_ack(0x70, "0002");
        client.send("30 ( 'own/both' () `x` ) 30 ( 'marker' () `m` )");
        client.expect("30 ( 'own/both' () `x` ) 30 ( 'marker' () `m` )");
        if connection == 0 {
            drop(client);
            let present;
            (client, present) = RawClient::v5_resume(broker.port, "me");
            assert!(present);
        }
    }
    let mut other = RawClient::v5(broker.port, "Me");
    other.send("30 ( 'own/1' () `other` )");
    client.expect("30 ( 'own/1' () `other` )");
}

/// MQTT-3.3.1-9 beside MQTT-3.8.3-3: No Local is about the forwarding of what a client publishes. What is kept
/// of it is nobody's any more, and a later subscription finds it.
fn no_local_does_not_hide_what_was_retained_before(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("33 ( 't' 0001 () `kept` )");
    client.expect_ack(0x40, "0001");
    client.send("82 ( 0002 () 't' 04 'marker' 00 )");
    client.expect_in_any_order(&["90 ( 0002 () 00 00 )", "31 ( 't' () `kept` )"]);
    client.send("31 ( 't' () `newer` ) 30 ( 'marker' () `m` )");
    client.expect("30 ( 'marker' () `m` )");
}

/// MQTT-3.8.4-3: the options are those of the newest SUBSCRIBE, each of them, both ways.
fn options_are_replaced_with_the_subscription(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    // QoS 1, with No Local, with Retain As Published, with both, with none of it. Retain Handling 2, since
    // only live messages are looked at.
    for options in [0x21, 0x25, 0x29, 0x2d, 0x20, 0x2c, 0x21] {
        println!("{options:02x}");
        let (no_local, as_published) = (options & 0x04 != 0, options & 0x08 != 0);
        client.send(&format!("82 ( 0001 () 't' {options:02x} )"));
        client.expect(&format!("90 ( 0001 () {:02x} )", options & 0x03));
        client.send("31 ( 't' () `x` ) c0 00");
        if !no_local {
            client.expect(&format!("{} ( 't' () `x` )", if as_published { "31" } else { "30" }));
        }
        client.expect("d0 00");
    }
}

/// MQTT-3.3.1-12, MQTT-3.3.1-13
fn retain_as_published_keeps_the_flag(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 'keep/#' 08 'drop/#' 00 )");
    client.expect("90 ( 0001 () 00 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher
        .send("31 ( 'keep/1' `x` ) 30 ( 'keep/2' `x` ) 31 ( 'drop/1' `x` ) 30 ( 'drop/2' `x` )");
    client.expect("31 ( 'keep/1' () `x` ) 30 ( 'keep/2' () `x` )");
    client.expect("30 ( 'drop/1' () `x` ) 30 ( 'drop/2' () `x` )");
}

/// MQTT-3.3.1-9 to -11, MQTT-3.8.4-4
fn retain_handling_chooses_when_retained_messages_come(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("33 ( 't' 0001 () `kept` )");
    client.expect_ack(0x40, "0001");
    // (Retain Handling in the options byte, subscribed before, retained message comes)
    let steps = [
        ("10", false, true),
        ("10", true, false),
        ("00", true, true),
        ("20", true, false),
        ("20", false, false),
        ("00", false, true),
    ];
    for (options, existed, comes) in steps {
        println!("options {options}, existed {existed}");
        if !existed {
            client.send("a2 ( 0002 () 't' )");
            client.expect("b0 ( 0002 () ?? )");
        }
        client.send(&format!("82 ( 0003 () 't' {options} )"));
        if comes {
            client.expect_in_any_order(&["90 ( 0003 () 00 )", "31 ( 't' () `kept` )"]);
        } else {
            client.expect("90 ( 0003 () 00 )");
        }
        // Retained messages may come from another shard: a live one shows that none is under way.
        client.send("30 ( 't' () `live` )");
        client.expect("30 ( 't' () `live` )");
    }
}

/// 3.8.3.1: a shared subscription gets no retained messages when it is made.
fn a_shared_subscription_gets_no_retained_messages(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("33 ( 't' 0001 () `kept` )");
    client.expect_ack(0x40, "0001");
    client.send("82 ( 0002 () '$share/g/t' 00 )");
    client.expect("90 ( 0002 () 00 )");
    client.send("30 ( 't' () `live` )");
    client.expect("30 ( 't' () `live` )");
}

on_one_and_four_shards! {
    no_local_keeps_own_messages_away;
    no_local_belongs_to_the_client_identifier;
    no_local_does_not_hide_what_was_retained_before;
    options_are_replaced_with_the_subscription;
    retain_as_published_keeps_the_flag;
    retain_handling_chooses_when_retained_messages_come;
    a_shared_subscription_gets_no_retained_messages;
}
