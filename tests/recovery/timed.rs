//! What has a time goes on having it while the broker is down: expiry of messages and sessions,
//! wills, delayed publications.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::RawClient;
use crate::world::{World, subscribe, survives, take_qos_2};

survives! {
    message_expiry_counts_the_time_that_the_broker_was_down;
    a_session_expires_while_the_broker_is_down;
    a_pending_will_is_sent_once;
    the_will_of_a_client_that_was_connected_is_sent_once;
    a_client_that_is_back_in_time_takes_its_will_back;
    delayed_publications_come_once;
}

/// Time itself is under test.
const DOWN: Duration = Duration::from_millis(2100);

/// MQTT-3.3.2-5, MQTT-3.3.2-6
fn message_expiry_counts_the_time_that_the_broker_was_down(world: &mut World) {
    world.absentee("me", "t", 1);
    world.publish_with(0x33, "t", "02 00000001", "short-lived");
    world.publish_with(0x33, "t", "02 00000064", "long-lived");
    world.publish_with(0x33, "gone", "02 00000001", "short-lived");
    world.stop();
    sleep(DOWN);
    world.start();
    let left = |seconds: &str| u32::from_str_radix(seconds, 16).expect("hexadecimal digits");
    let mut client = world.back("me");
    let packet = client.read_packet();
    assert!(packet.ends_with(b"long-lived"), "{packet:02x?}");
    let mut newcomer = RawClient::v5(world.port(), "newcomer");
    newcomer.send("82 ( 0001 () 'gone' 00 't' 00 )");
    newcomer.expect("90 ( 0001 () 00 00 )");
    let seconds = newcomer.expect("31 ( 't' ( 02 ???????? ) `long-lived` )");
    assert!((60..=98).contains(&left(&seconds)), "{seconds}");
    let at = packet.len() - "long-lived".len() - 4;
    let seconds: String = packet[at..at + 4].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!((60..=98).contains(&left(&seconds)), "{seconds}");
}

/// MQTT-3.1.2-23
fn a_session_expires_while_the_broker_is_down(world: &mut World) {
    let connect = |id: &str, secs: u32| {
        let mut client = RawClient::connect(world.port());
        client.send(&format!("10 ( 'MQTT' 05 00 003c ( 11 {secs:08x} ) '{id}' )"));
        client.expect_accepted();
        subscribe(&mut client, "t", 1);
        client
    };
    drop(connect("away and short-lived", 1));
    drop(connect("away and long-lived", 100));
    let _connected = connect("long-lived", 100);
    world.publish(1, "t", "x");
    world.stop();
    sleep(DOWN);
    world.start();
    world.back("away and long-lived");
    world.back("long-lived");
    world.newcomer("away and short-lived");
}

/// A v5 client with a session of a minute and a will with this delay.
fn with_will(world: &World, id: &str, delay_secs: u32) -> RawClient {
    let mut client = RawClient::connect(world.port());
    client.send(&format!(
        "10 ( 'MQTT' 05 16 003c ( 11 0000003c ) '{id}' ( 18 {delay_secs:08x} ) 'will/{id}' 'gone' )"
    ));
    client.expect_accepted();
    client
}

/// Nothing but PUBREL is left for the subscriber.
fn expect_no_more(world: &World, client: &mut RawClient, topic: &str) {
    world.publish(2, topic, "marker");
    loop {
        let packet = client.read_packet();
        match packet[0] {
            0x62 => client.send(&format!("70 02 {:02x}{:02x}", packet[2], packet[3])),
            0x34 if packet.ends_with(b"marker") => {
                let at = packet.len() - "marker".len() - 3;
                let id = format!("{:02x}{:02x}", packet[at], packet[at + 1]);
                client.send(&format!("50 02 {id}"));
                client.expect_ack(0x62, &id);
                return client.send(&format!("70 02 {id}"));
            }
            _ => panic!("one more: {packet:02x?}"),
        }
    }
}

/// MQTT-3.1.3-9, MQTT-3.1.2-10
fn a_pending_will_is_sent_once(world: &mut World) {
    world.absentee("watcher", "will/#", 2);
    drop(with_will(world, "me", 2));
    // Its end is known when this is acknowledged, or the broker's end ends it.
    world.publish(1, "nobody/listens", "x");
    for is_due in [false, true] {
        world.stop();
        if is_due {
            sleep(DOWN);
        }
        world.start();
    }
    expect_the_will_once(world);
}

/// MQTT-3.1.2-8: the broker's end has ended the connection.
fn the_will_of_a_client_that_was_connected_is_sent_once(world: &mut World) {
    world.absentee("watcher", "will/#", 2);
    let _client = with_will(world, "me", 1);
    world.restart();
    expect_the_will_once(world);
}

/// It comes, and not again after another restart.
fn expect_the_will_once(world: &mut World) {
    let mut watcher = world.back("watcher");
    take_qos_2(&mut watcher, "will/me", "gone");
    watcher.ping();
    world.restart();
    let mut watcher = world.back("watcher");
    expect_no_more(world, &mut watcher, "will/marker");
}

/// MQTT-3.1.3-9
fn a_client_that_is_back_in_time_takes_its_will_back(world: &mut World) {
    world.absentee("watcher", "will/#", 2);
    drop(with_will(world, "me", 2));
    let connected = with_will(world, "connected", 2);
    world.restart();
    drop(connected);
    for id in ["me", "connected"] {
        let mut client = world.back(id);
        client.send("e0 00");
        client.expect_closed();
    }
    world.stop();
    sleep(DOWN);
    world.start();
    let mut watcher = world.back("watcher");
    expect_no_more(world, &mut watcher, "will/marker");
}

fn delayed_publications_come_once(world: &mut World) {
    // Their subscribers and the homes of those who publish are on both shards, if there are two.
    for n in 0..2 {
        world.absentee(&format!("subscriber {n}"), "t/#", 2);
    }
    for n in 0..4 {
        let mut publisher = world.newcomer(&format!("publisher {n}"));
        publisher.send(&format!("34 ( '$delayed/2/t/{n}' 0001 () `x` )"));
        publisher.expect_ack(0x50, "0001");
    }
    let sent = Instant::now();
    world.restart();
    // Sent again, as its PUBREC may have been lost.
    for n in 0..4 {
        let mut publisher = world.back(&format!("publisher {n}"));
        publisher.send(&format!("3c ( '$delayed/2/t/{n}' 0001 () `x` )"));
        publisher.expect_ack(0x50, "0001");
    }
    let mut first = world.back("subscriber 0");
    let mut ids = vec![];
    for _ in 0..4 {
        let packet = first.read_packet();
        assert_eq!(packet[0], 0x34, "{packet:02x?}");
        ids.push(format!("{:02x}{:02x}", packet[7], packet[8]));
    }
    assert!(sent.elapsed() >= Duration::from_secs(1), "too early: {:?}", sent.elapsed());
    for id in ids {
        first.send(&format!("50 02 {id}"));
        first.expect_ack(0x62, &id);
        first.send(&format!("70 02 {id}"));
    }
    first.ping();
    world.restart();
    let mut first = world.back("subscriber 0");
    expect_no_more(world, &mut first, "t/m");
    let mut second = world.back("subscriber 1");
    let expected: Vec<String> = (0..4).map(|n| format!("34 ( 't/{n}' ???? () `x` )")).collect();
    second.expect_in_any_order(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}
