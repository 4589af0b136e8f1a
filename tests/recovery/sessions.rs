//! Sessions, subscriptions and queues after a restart (MQTT 5.0 section 4.1).

use crate::common::RawClient;
use crate::world::{World, subscribe, survives, take_qos_2};

survives! {
    subscriptions_keep_their_options_and_identifiers;
    unsubscribed_filters_stay_gone;
    an_exclusive_subscription_keeps_its_holder;
    shared_subscriptions_keep_their_members;
    the_queue_of_an_absent_client_keeps_its_order;
    a_publication_keeps_its_properties;
    sessions_of_each_version_that_outlive_their_connection_are_there;
    sessions_that_ended_stay_gone;
}

/// MQTT-3.8.3-3, MQTT-3.8.3-4, MQTT-3.3.4-3
fn subscriptions_keep_their_options_and_identifiers(world: &mut World) {
    let mut client = world.newcomer("me");
    // No Local, Retain As Published, QoS 1; and QoS 2 without an identifier.
    client.send("82 ( 0001 ( 0b 07 ) 's/+' 0d ) 82 ( 0002 ( 0b c801 ) 's/id' 01 )");
    client.expect("90 ( 0001 () 01 ) 90 ( 0002 () 01 )");
    subscribe(&mut client, "s/2", 2);
    drop(client);
    world.restart();

    let mut client = world.back("me");
    client.send("32 ( 's/own' 0001 () `not to me` )");
    client.expect_ack(0x40, "0001");
    world.publish_with(0x33, "s/a", "", "x");
    let id = client.expect("33 ( 's/a' ???? ( 0b 07 ) `x` )");
    client.send(&format!("40 02 {id}"));
    world.publish(2, "s/2", "y");
    let id = client.expect("34 ( 's/2' ???? ( 0b 07 ) `y` )");
    client.send(&format!("50 02 {id}"));
    client.expect_ack(0x62, &id);
    client.send(&format!("70 02 {id}"));
    world.publish(2, "s/id", "z");
    let packet = client.read_packet();
    let has = |bytes: &[u8]| packet.windows(bytes.len()).any(|window| window == bytes);
    assert!(packet[0] == 0x32 && has(&[0x0b, 0x07]) && has(&[0x0b, 0xc8, 0x01]), "{packet:02x?}");
}

fn unsubscribed_filters_stay_gone(world: &mut World) {
    let mut client = world.newcomer("me");
    subscribe(&mut client, "gone/#", 1);
    subscribe(&mut client, "stays", 1);
    client.send("a2 ( 0001 () 'gone/#' )");
    client.expect("b0 ( 0001 () 00 )");
    drop(client);
    world.restart();
    world.publish(1, "gone/1", "x");
    world.publish(1, "stays", "y");
    world.restart();
    world.publish(1, "gone/1", "x");
    let mut client = world.back("me");
    client.expect("32 ( 'stays' 0001 () `y` )");
    client.ping();
    client.send("a2 ( 0002 () 'gone/#' 'stays' )");
    client.expect("b0 ( 0002 () 11 00 )");
}

fn an_exclusive_subscription_keeps_its_holder(world: &mut World) {
    // On both shards, if there are two.
    for n in 0..4 {
        subscribe(&mut world.newcomer(&format!("holder {n}")), &format!("$exclusive/e/{n}"), 1);
    }
    world.restart();
    for n in 0..4 {
        let mut other = RawClient::v5(world.port(), &format!("other {n}"));
        other.send(&format!("82 ( 0001 () '$exclusive/e/{n}' 01 )"));
        other.expect("90 ( 0001 () 97 )");
        world.publish(1, &format!("e/{n}"), "x");
        let mut holder = world.back(&format!("holder {n}"));
        let id = holder.expect(&format!("32 ( 'e/{n}' ???? () `x` )"));
        holder.send(&format!("40 02 {id} a2 ( 0001 () '$exclusive/e/{n}' )"));
        holder.expect("b0 ( 0001 () 00 )");
    }
}

fn shared_subscriptions_keep_their_members(world: &mut World) {
    const MESSAGES: usize = 12;
    for n in 0..3 {
        world.absentee(&format!("member {n}"), "$share/group/t", 2);
    }
    (0..MESSAGES / 2).for_each(|n| world.publish(2, "t", &format!("{n:02}")));
    world.restart();
    (MESSAGES / 2..MESSAGES).for_each(|n| world.publish(2, "t", &format!("{n:02}")));
    let mut got = Vec::new();
    for n in 0..3 {
        // Its answer to PINGREQ comes behind its share, of which nothing is on a lane any more:
        // PUBREC has waited for it.
        let mut member = world.back(&format!("member {n}"));
        member.send("c0 00");
        loop {
            let packet = member.read_packet();
            match packet[0] {
                0x34 => got.push(packet[packet.len() - 2..].to_vec()),
                0xd0 => break,
                _ => panic!("{packet:02x?}"),
            }
        }
    }
    got.sort();
    let expected: Vec<Vec<u8>> = (0..MESSAGES).map(|n| format!("{n:02}").into_bytes()).collect();
    assert_eq!(got, expected, "not each to one member");
}

/// MQTT-4.6.0-5, MQTT-2.2.1-4
fn the_queue_of_an_absent_client_keeps_its_order(world: &mut World) {
    world.absentee("me", "q/#", 2);
    let long = "long ".repeat(4000);
    let payload = |n: u8| if n == 4 { long.clone() } else { format!("payload {n}") };
    for n in 1..=10 {
        world.publish(1 + n % 2, "q/1", &payload(n));
        if n % 4 == 0 {
            world.restart();
        }
    }
    world.restart();
    let mut client = world.back("me");
    for n in 1..=10 {
        let first_byte = 0x30 | (1 + n % 2) << 1;
        client.expect(&format!("{first_byte:02x} ( 'q/1' 00{n:02x} () `{}` )", payload(n)));
    }
    client.ping();
}

/// MQTT-3.3.2-17 and the other properties that are passed on
fn a_publication_keeps_its_properties(world: &mut World) {
    let properties = "01 01 03 'text/plain' 08 'answer/here' 09 'correlation' \
                      26 'name' 'first' 26 'name' 'second' 26 '' ''";
    world.absentee("me", "p", 2);
    world.publish_with(0x35, "p", properties, "x");
    world.restart();
    let mut client = world.back("me");
    client.expect(&format!("34 ( 'p' 0001 ( {properties} ) `x` )"));
    let mut newcomer = RawClient::v5(world.port(), "newcomer");
    subscribe(&mut newcomer, "p", 2);
    newcomer.expect(&format!("35 ( 'p' ???? ( {properties} ) `x` )"));
}

/// MQTT-3.1.2-6, MQTT-3.2.2-3
fn sessions_of_each_version_that_outlive_their_connection_are_there(world: &mut World) {
    for (connect, connack) in [
        ("10 ( 'MQIsdp' 03 00 003c 'v3' )", "20 02 ?? 00"),
        ("10 ( 'MQTT' 04 00 003c 'v4' )", "20 02 ?? 00"),
    ] {
        for expected in ["00", "01", "01"] {
            let mut client = RawClient::connect(world.port());
            client.send(connect);
            let present = client.expect(connack);
            // 3.1 knows no Session Present.
            assert!(present == expected || connect.contains("MQIsdp"), "{connect}: {present}");
            if expected == "00" {
                client.send("82 ( 0001 'v/#' 02 )");
                client.expect("90 ( 0001 02 )");
            }
            world.restart();
        }
    }
    world.newcomer("v5");
    world.publish(2, "v/1", "x");
    world.restart();
    world.back("v5");
    for connect in ["10 ( 'MQIsdp' 03 00 003c 'v3' )", "10 ( 'MQTT' 04 00 003c 'v4' )"] {
        let mut client = RawClient::connect(world.port());
        client.send(connect);
        client.expect("20 02 ?? 00 34 ( 'v/1' 0001 `x` )");
    }
}

/// MQTT-3.1.2-4, MQTT-3.1.2-23
fn sessions_that_ended_stay_gone(world: &mut World) {
    let at_once = ["with its connection", "clean start", "disconnect", "taken over"];
    for id in at_once {
        subscribe(&mut world.newcomer(id), "t", 1);
    }
    RawClient::v5(world.port(), "with its connection").ping();
    RawClient::v5(world.port(), "clean start").ping();
    let mut client = world.back("disconnect");
    client.send("e0 ( 00 ( 11 00000000 ) )");
    client.expect_closed();
    let mut first = world.back("taken over");
    let second = RawClient::v5(world.port(), "taken over");
    first.expect_disconnect(0x8e);
    drop(second);
    // They ended before this was acknowledged.
    world.publish(1, "t", "x");
    world.restart();
    for id in at_once {
        let mut client = world.newcomer(id);
        subscribe(&mut client, "other", 2);
        world.publish(2, "other", "marker");
        take_qos_2(&mut client, "other", "marker");
        client.send("e0 ( 00 ( 11 00000000 ) )");
        client.expect_closed();
    }
}
