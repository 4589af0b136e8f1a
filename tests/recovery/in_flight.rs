//! Deliveries under way in both directions when the broker ends (MQTT 5.0 sections 4.3 and 4.4).

use crate::common::RawClient;
use crate::world::{World, subscribe, survives, take_qos_2};

survives! {
    qos_1_is_repeated_with_its_identifier;
    qos_2_without_pubrec_is_repeated_with_its_identifier;
    after_pubrec_only_pubrel_is_repeated;
    what_is_over_does_not_come_again;
    a_qos_2_publish_sent_again_is_taken_once;
    an_identifier_is_free_after_pubrel;
    the_window_and_the_queue_behind_it_keep_their_order;
}

/// MQTT-4.4.0-1, MQTT-3.3.1-1
fn qos_1_is_repeated_with_its_identifier(world: &mut World) {
    let mut client = world.newcomer("me");
    subscribe(&mut client, "t", 1);
    world.publish(1, "t", "x");
    world.publish(1, "t", "y");
    client.expect("32 ( 't' 0001 () `x` ) 32 ( 't' 0002 () `y` )");
    for _ in 0..2 {
        world.restart();
        client = world.back("me");
        client.expect("3a ( 't' 0001 () `x` ) 3a ( 't' 0002 () `y` )");
    }
    client.send("40 02 0001 40 02 0002");
    client.ping();
    world.publish(1, "t", "z");
    client.expect("32 ( 't' 0003 () `z` )");
}

/// MQTT-4.4.0-1, MQTT-4.3.3-6
fn qos_2_without_pubrec_is_repeated_with_its_identifier(world: &mut World) {
    let mut client = world.newcomer("me");
    subscribe(&mut client, "t", 2);
    world.publish(2, "t", "x");
    client.expect("34 ( 't' 0001 () `x` )");
    for _ in 0..2 {
        world.restart();
        client = world.back("me");
        client.expect("3c ( 't' 0001 () `x` )");
    }
    client.send("50 02 0001");
    client.expect_ack(0x62, "0001");
    client.send("70 02 0001");
    world.publish(2, "t", "y");
    client.expect("34 ( 't' 0002 () `y` )");
}

/// MQTT-4.3.3-7
fn after_pubrec_only_pubrel_is_repeated(world: &mut World) {
    let mut client = world.newcomer("me");
    subscribe(&mut client, "t", 2);
    for payload in ["x", "y"] {
        world.publish(2, "t", payload);
        let id = client.expect(&format!("34 ( 't' ???? () `{payload}` )"));
        client.send(&format!("50 02 {id}"));
        client.expect_ack(0x62, &id);
    }
    for _ in 0..2 {
        world.restart();
        client = world.back("me");
        client.expect_ack(0x62, "0001");
        client.expect_ack(0x62, "0002");
    }
    client.send("70 02 0001 70 02 0002");
    world.publish(2, "t", "z");
    take_qos_2(&mut client, "t", "z");
}

/// MQTT-4.3.3-13: PUBREL may be repeated, PUBLISH not.
fn what_is_over_does_not_come_again(world: &mut World) {
    let mut client = world.newcomer("me");
    subscribe(&mut client, "t", 2);
    for payload in ["x", "y", "z"] {
        world.publish(2, "t", payload);
        take_qos_2(&mut client, "t", payload);
    }
    client.ping();
    world.restart();
    client = world.back("me");
    world.publish(2, "t", "marker");
    loop {
        let packet = client.read_packet();
        if packet[0] == 0x62 {
            client.send(&format!("70 02 {:02x}{:02x}", packet[2], packet[3]));
        } else {
            assert!(packet[0] == 0x34 && packet.ends_with(b"marker"), "{packet:02x?}");
            break;
        }
    }
}

/// MQTT-4.3.3-10, and the acknowledgements that follow
fn a_qos_2_publish_sent_again_is_taken_once(world: &mut World) {
    // Some with subscribers on their own shard, some not, some on both.
    const PUBLISHERS: usize = 4;
    for n in 0..2 {
        world.absentee(&format!("subscriber {n}"), "t", 2);
    }
    for n in 0..PUBLISHERS {
        let mut publisher = world.newcomer(&format!("publisher {n}"));
        publisher.send(&format!("34 ( 't' 0005 () `{n}` )"));
        publisher.expect_ack(0x50, "0005");
    }
    world.restart();
    for n in 0..PUBLISHERS {
        let mut publisher = world.back(&format!("publisher {n}"));
        publisher.send(&format!("3c ( 't' 0005 () `{n}` )"));
        publisher.expect_ack(0x50, "0005");
    }
    world.restart();
    for n in 0..PUBLISHERS {
        let mut publisher = world.back(&format!("publisher {n}"));
        publisher.send("62 02 0005");
        publisher.expect("70 02 0005");
    }
    for n in 0..2 {
        let mut subscriber = world.back(&format!("subscriber {n}"));
        for at in 0..PUBLISHERS {
            subscriber.expect(&format!("34 ( 't' {:04x} () `{at}` )", at + 1));
        }
        subscriber.ping();
    }
}

/// MQTT-4.3.3-12
fn an_identifier_is_free_after_pubrel(world: &mut World) {
    world.absentee("subscriber", "t", 2);
    for payload in ["x", "y", "z"] {
        let (mut publisher, _) = RawClient::v5_resume(world.port(), "publisher");
        publisher.send(&format!("34 ( 't' 0005 () `{payload}` )"));
        publisher.expect_ack(0x50, "0005");
        publisher.send("62 02 0005");
        publisher.expect("70 02 0005");
        world.restart();
        // Nobody knows whether PUBCOMP has arrived (0x92: it is over).
        let mut publisher = world.back("publisher");
        publisher.send("62 02 0005");
        let reason = publisher.ack_reason(0x70, "0005");
        assert!(reason == 0x00 || reason == 0x92, "{reason:#04x}");
    }
    let mut subscriber = world.back("subscriber");
    subscriber.expect("34 ( 't' 0001 () `x` ) 34 ( 't' 0002 () `y` ) 34 ( 't' 0003 () `z` )");
    subscriber.ping();
}

/// MQTT-3.3.4-9, MQTT-4.6.0-1
fn the_window_and_the_queue_behind_it_keep_their_order(world: &mut World) {
    // Receive Maximum 2.
    let connect = "10 ( 'MQTT' 05 00 003c ( 11 0000012c 21 0002 ) 'me' )";
    let mut client = RawClient::connect(world.port());
    client.send(connect);
    client.expect_accepted();
    subscribe(&mut client, "t", 1);
    (1..=5).for_each(|n| world.publish(1, "t", &n.to_string()));
    client.expect("32 ( 't' 0001 () `1` ) 32 ( 't' 0002 () `2` )");
    world.restart();
    let mut client = RawClient::connect(world.port());
    client.send(connect);
    assert!(client.expect_accepted().session_present);
    client.expect("3a ( 't' 0001 () `1` ) 3a ( 't' 0002 () `2` )");
    client.ping();
    client.send("40 02 0001");
    // After a kill it is not known whether they were sent.
    let expect = |client: &mut RawClient, n: u8| {
        let packet = client.read_packet();
        let rest = [7, 0, 1, b't', 0, n, 0, b'0' + n];
        assert!(packet[0] & 0xf7 == 0x32 && packet[1..] == rest, "{packet:02x?}");
    };
    expect(&mut client, 3);
    client.send("40 02 0002 40 02 0003");
    (4..=5).for_each(|n| expect(&mut client, n));
}
