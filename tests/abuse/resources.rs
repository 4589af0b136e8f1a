//! What tries to make the broker keep more than it should: lengths without bytes, clients
//! that do not read, do not acknowledge, do not leave.

use std::time::{Duration, Instant};

use crate::common::{Broker, RawClient, on_one_and_four_shards, wire};
use crate::{Bystander, Memory};

const GROWTH_KIB_MAX: u64 = 24 * 1024;

/// The kernel widens a table of descriptors that threads share in some 10 ms, and whoever connects waits.
#[test]
fn there_is_room_for_all_descriptors_before_anybody_connects() {
    let broker = Broker::start(1, &["limits.connections_max=3000"]);
    assert!(broker.status("FDSize:") >= 3000);
}

/// 256 MiB announced, a few bytes sent, by many.
fn huge_lengths_before_connect(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let memory = Memory::of(broker);
    let mut clients: Vec<RawClient> = (0..200).map(|_| RawClient::connect(broker.port)).collect();
    for client in &mut clients {
        client.send("10 ffffff7f");
    }
    for client in &mut clients {
        client.try_send_bytes(&wire("'MQTT' 05 02 003c"));
    }
    bystander.check(broker);
    memory.check(broker, GROWTH_KIB_MAX);
}

/// The same with a length that is allowed: nothing is set aside for bytes that have not come.
fn huge_lengths_after_connect(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut clients: Vec<RawClient> =
        (0..200).map(|n| RawClient::v5(broker.port, &format!("huge {n}"))).collect();
    let memory = Memory::of(broker);
    for client in &mut clients {
        // 64 MiB.
        client.send("30 80808020 't' 00");
    }
    for byte in 0..5 {
        for client in &mut clients {
            client.send_bytes(&[byte]);
        }
        bystander.check(broker);
    }
    memory.check(broker, GROWTH_KIB_MAX);
}

/// A subscriber that never reads: QoS 0 is dropped for it, others go on, memory is bounded.
fn a_subscriber_that_does_not_read(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut slow = RawClient::v311(broker.port, "sleeper");
    slow.send("82 ( 0001 't' 00 )");
    slow.expect("90 ( 0001 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let packet = wire(&format!("30 ( 't' {} )", "5a".repeat(10_000)));
    let memory = Memory::of(broker);
    // 100 MB, against 1 MB of queue and what the kernel's socket buffers take.
    for round in 0..10_000 {
        publisher.send_bytes(&packet);
        if round % 50 == 0 {
            publisher.ping();
        }
    }
    publisher.ping();
    bystander.check(broker);
    memory.check(broker, GROWTH_KIB_MAX);
}

/// A subscriber that reads but never acknowledges: its queue is bounded, each drop is told.
fn a_subscriber_that_does_not_acknowledge(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut slow = RawClient::v311(broker.port, "mute");
    slow.send("82 ( 0001 't' 01 )");
    slow.expect("90 ( 0001 01 )");
    publish_qos_1(broker, 2000);
    let memory = Memory::of(broker);
    publish_qos_1(broker, 10_000);
    memory.check(broker, GROWTH_KIB_MAX);
    broker.wait_for_log(&["mute", "drop"]);
    bystander.check(broker);
}

/// The same for one that is away: it finds the bounded queue, in order.
fn an_absent_subscriber(broker: &Broker) {
    let (mut away, _) = RawClient::v311_resume(broker.port, "absentee");
    away.send("82 ( 0001 't' 01 )");
    away.expect("90 ( 0001 01 )");
    away.send("e0 00");
    away.expect_closed();
    publish_qos_1(broker, 2000);
    broker.wait_for_log(&["absentee", "drop"]);
    let (mut back, present) = RawClient::v311_resume(broker.port, "absentee");
    assert!(present);
    let mut seen: Vec<u16> = Vec::new();
    back.send("c0 00");
    loop {
        let packet = back.read_packet();
        match packet[0] {
            0x32 => {
                // Two bytes of number follow header (3), topic (3) and packet id (2).
                seen.push(u16::from_be_bytes([packet[8], packet[9]]));
                back.send_bytes(&[0x40, 2, packet[6], packet[7], 0xc0, 0]);
            }
            // One answer for each PINGREQ: the last comes when nothing more is queued.
            0xd0 if seen.len() >= 100 => break,
            _ => {}
        }
    }
    assert!(seen.is_sorted() && seen.len() <= 104, "{seen:?}");
    drop(back);
    // And nobody else lost anything because of it.
    Bystander::new(broker).check(broker);
}

/// Publishes numbered messages of 1 KiB to `t`, each acknowledged.
fn publish_qos_1(broker: &Broker, count: u16) {
    const WINDOW: u16 = 20;
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let rest = "5a".repeat(1024);
    for number in 1..=count {
        publisher.send(&format!("32 ( 't' {number:04x} {number:04x} {rest} )"));
        if number > WINDOW {
            publisher.expect(&format!("40 02 {:04x}", number - WINDOW));
        }
    }
    for number in count - WINDOW + 1..=count {
        publisher.expect(&format!("40 02 {number:04x}"));
    }
}

/// Half-closed and silent connections, at each stage: their descriptors come back.
fn half_open_connections(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let before = broker.descriptors();
    let memory = Memory::of(broker);
    let mut clients = Vec::new();
    for n in 0..100 {
        let mut silent = RawClient::connect(broker.port);
        silent.half_close();
        let mut partial = RawClient::connect(broker.port);
        partial.send("10 20 'MQTT' 05");
        partial.half_close();
        let mut connected = RawClient::v5(broker.port, &format!("half {n}"));
        connected.half_close();
        let mut within = RawClient::v311(broker.port, &format!("within {n}"));
        within.send("32 7f 't' 0001");
        within.half_close();
        clients.extend([silent, partial, connected, within]);
    }
    for client in &mut clients {
        client.expect_closed();
    }
    bystander.check(broker);
    let deadline = Instant::now() + Duration::from_secs(5);
    while broker.descriptors() > before + 2 {
        assert!(Instant::now() < deadline, "{before} descriptors, now {}", broker.descriptors());
        std::thread::sleep(Duration::from_millis(10));
    }
    memory.check(broker, GROWTH_KIB_MAX);
}

/// Connections that reset instead of closing, while the broker has much to send to them.
fn connections_that_vanish(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let memory = Memory::of(broker);
    let flood = wire(&format!("30 ( 't' {} )", "5a".repeat(4000)));
    for n in 0..50 {
        let mut client = RawClient::v311(broker.port, &format!("vanishing {n}"));
        client.send("82 ( 0001 't' 00 )");
        for _ in 0..50 {
            client.try_send_bytes(&flood);
        }
        // Dropped with unread bytes in its receive buffer: the kernel answers with a reset.
    }
    bystander.check(broker);
    memory.check(broker, GROWTH_KIB_MAX);
}

/// `connections_max`: the next is turned away, those that are there stay, a place freed is a place.
fn more_connections_than_allowed(broker: &Broker) {
    let mut clients: Vec<RawClient> = (0..8).map_while(|n| try_to_connect(broker, n)).collect();
    // The connection that found the broker listening may still have held a place.
    assert!(clients.len() >= 7, "only {} of 8 places", clients.len());
    for n in 100..120 {
        if clients.len() < 8 {
            clients.extend(try_to_connect(broker, n));
            continue;
        }
        let mut refused = RawClient::connect(broker.port);
        refused.try_send_bytes(&wire("10 ( 'MQTT' 05 02 003c () 'too many' )"));
        refused.expect_refused(&[0x88, 0x89, 0x97, 0x9f]);
    }
    clients.iter_mut().for_each(RawClient::ping);
    clients.pop();
    let deadline = Instant::now() + Duration::from_secs(5);
    while try_to_connect(broker, 200).is_none() {
        assert!(Instant::now() < deadline, "a place that was freed is not given again");
    }
    clients.iter_mut().for_each(RawClient::ping);
}

fn try_to_connect(broker: &Broker, n: usize) -> Option<RawClient> {
    let mut client = RawClient::connect(broker.port);
    client.try_send_bytes(&wire(&format!("10 ( 'MQTT' 04 02 003c 'one of {n}' )")));
    let accepted = client.try_read_packet()? == [0x20, 2, 0, 0];
    accepted.then_some(client)
}

/// A burst that fills the lanes, DISCONNECT and the end of the stream right behind it:
/// all of it counts, and the will does not.
fn a_burst_before_the_end_of_the_stream(broker: &Broker) {
    const BURST: u32 = 50_000;
    let mut subscriber = RawClient::v311(broker.port, "subscriber");
    subscriber.send("82 ( 0001 'burst' 00 ) 82 ( 0002 'will' 00 )");
    subscriber.expect("90 ( 0001 00 ) 90 ( 0002 00 )");
    for publisher in ["a", "b", "c", "d"] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 06 003c 'burst {publisher}' 'will' 0001 `w` )"));
        client.expect("20 02 00 00");
        let burst = std::thread::spawn(move || {
            for number in 0..BURST {
                client.send(&format!("30 ( 'burst' {number:08x} )"));
            }
            client.send("e0 00");
            client.half_close();
        });
        for number in 0..BURST {
            subscriber.expect(&format!("30 ( 'burst' {number:08x} )"));
        }
        burst.join().expect("the publisher got rid of its burst");
        subscriber.ping();
    }
}

on_one_and_four_shards! {
    a_burst_before_the_end_of_the_stream;
    huge_lengths_before_connect;
    huge_lengths_after_connect with "limits.packet_bytes_max=100000000";
    a_subscriber_that_does_not_read with
        "limits.queue_messages_max=100", "limits.queue_bytes_max=1000000";
    a_subscriber_that_does_not_acknowledge with
        "limits.queue_messages_max=100", "limits.inflight_max=4";
    an_absent_subscriber with "limits.queue_messages_max=100", "limits.inflight_max=4";
    half_open_connections;
    connections_that_vanish;
    more_connections_than_allowed with "limits.connections_max=8";
}
