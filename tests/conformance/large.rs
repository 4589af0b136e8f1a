//! Large messages: whole, in order and to everybody, however they are split on their way (sections 3.3 and 4.3). Their
//! payload is held once and sent in a piece of its own, so whatever stands before and behind it has to be in its place.

use std::io::{Read, Write};
use std::net::TcpStream;

use socket2::SockRef;

use crate::common::{Broker, RawClient, on_one_and_four_shards, payload, publish};

const SIZES: [usize; 5] = [1 << 10, 16_000, (16 << 10) + 1, 64 << 10, 1 << 20];

/// A client of either version, subscribed to `t` at that QoS.
fn subscriber(broker: &Broker, id: &str, is_v5: bool, qos: u8) -> RawClient {
    let none = if is_v5 { "()" } else { "" };
    let mut client = match is_v5 {
        true => RawClient::v5(broker.port, id),
        false => RawClient::v311(broker.port, id),
    };
    client.send(&format!("82 ( 0001 {none} 't' 0{qos} )"));
    client.expect(&format!("90 ( 0001 {none} 0{qos} )"));
    client
}

/// Publishes in either version, and waits for the end of the exchange.
#[track_caller]
fn send(client: &mut RawClient, is_v5: bool, qos: u8, payload: &[u8]) {
    client.send_bytes(&publish(0x30 | qos << 1, "t", 7, is_v5, payload));
    finish(client, qos);
}

#[track_caller]
fn finish(client: &mut RawClient, qos: u8) {
    match qos {
        0 => {}
        1 => client.expect_ack(0x40, "0007"),
        _ => {
            client.expect_ack(0x50, "0007");
            client.send("62 02 0007");
            client.expect_ack(0x70, "0007");
        }
    }
}

/// The next packet is that message, which is acknowledged.
#[track_caller]
fn expect(client: &mut RawClient, is_v5: bool, first_byte: u8, payload: &[u8]) {
    let packet = client.read_packet();
    let qos = first_byte >> 1 & 3;
    let id_at = packet.len() - payload.len() - usize::from(is_v5) - 2;
    let id = u16::from_be_bytes([packet[id_at], packet[id_at + 1]]);
    // Not assert_eq: it would print all of it.
    assert!(packet == publish(first_byte, "t", id, is_v5, payload), "{} bytes", packet.len());
    match qos {
        0 => {}
        1 => client.send(&format!("40 02 {id:04x}")),
        _ => {
            client.send(&format!("50 02 {id:04x}"));
            client.expect(&format!("62 02 {id:04x}"));
            client.send(&format!("70 02 {id:04x}"));
        }
    }
}

fn they_arrive_whole_at_every_qos(broker: &Broker) {
    for is_v5 in [false, true] {
        for qos in 0..=2 {
            let mut taker = subscriber(broker, "taker", !is_v5, qos);
            let mut publisher = RawClient::connect(broker.port);
            let version = if is_v5 { "05 02 003c ()" } else { "04 02 003c" };
            publisher.send(&format!("10 ( 'MQTT' {version} 'publisher' )"));
            publisher.read_packet();
            for (seed, bytes) in SIZES.into_iter().enumerate() {
                let payload = payload(bytes, seed as u8);
                send(&mut publisher, is_v5, qos, &payload);
                expect(&mut taker, !is_v5, 0x30 | qos << 1, &payload);
            }
            publisher.ping();
            taker.ping();
        }
    }
}

fn sixty_four_mebibytes_arrive_whole(broker: &Broker) {
    let payload = payload(64 << 20, 9);
    let mut taker = subscriber(broker, "taker", true, 1);
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for qos in [0, 1] {
        send(&mut publisher, false, qos, &payload);
        expect(&mut taker, true, 0x30 | qos << 1, &payload);
    }
    taker.ping();
}

/// MQTT-4.6.0-6: among small ones, in one stream.
fn they_stay_in_order_among_small_ones(broker: &Broker) {
    let mut takers = [false, true]
        .map(|is_v5| (is_v5, subscriber(broker, if is_v5 { "new" } else { "old" }, is_v5, 1)));
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let sizes = [3, 20_000, 20_000, 100, 300_000, 0, 16 << 10, 1];
    let messages: Vec<Vec<u8>> =
        sizes.into_iter().enumerate().map(|(seed, bytes)| payload(bytes, seed as u8)).collect();
    let mut packets = Vec::new();
    for (id, message) in messages.iter().enumerate() {
        packets.extend(publish(0x32, "t", id as u16 + 1, false, message));
    }
    publisher.send_bytes(&packets);
    for id in 1..=messages.len() {
        publisher.expect(&format!("40 02 {id:04x}"));
    }
    for (is_v5, taker) in &mut takers {
        for message in &messages {
            expect(taker, *is_v5, 0x32, message);
        }
        taker.ping();
    }
}

fn a_fan_out_reaches_everybody(broker: &Broker) {
    let mut takers: Vec<_> = (0..24)
        .map(|n| (n % 2 == 0, n % 3, subscriber(broker, &format!("taker {n}"), n % 2 == 0, n % 3)))
        .collect();
    let mut publisher = RawClient::v5(broker.port, "publisher");
    for seed in 0..3 {
        let payload = payload(64 << 10, seed);
        send(&mut publisher, true, 2, &payload);
        for (is_v5, qos, taker) in &mut takers {
            expect(taker, *is_v5, 0x30 | *qos << 1, &payload);
        }
    }
}

/// A receiver that takes what it gets in the smallest pieces, of a sender that does the same.
fn they_can_be_split_anywhere(broker: &Broker) {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).expect("the broker accepts");
    SockRef::from(&stream).set_recv_buffer_size(1).expect("a socket");
    let connect = crate::common::wire("10 ( 'MQTT' 04 02 003c 'slow' ) 82 ( 0001 't' 00 )");
    stream.write_all(&connect).expect("open");
    stream.read_exact(&mut [0; 9]).expect("CONNACK and SUBACK");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut expected = Vec::new();
    for (seed, bytes) in [17_000, 5, 40_000, 300_000, 70_000].into_iter().enumerate() {
        expected.extend(publish(0x30, "t", 0, false, &payload(bytes, seed as u8)));
    }
    for piece in expected.chunks(997) {
        publisher.send_bytes(piece);
    }
    publisher.ping();
    let mut got = vec![0; expected.len()];
    let (slow, rest) = got.split_at_mut(60_000);
    slow.iter_mut().for_each(|byte| stream.read_exact(std::slice::from_mut(byte)).expect("more"));
    rest.chunks_mut(1009).for_each(|piece| stream.read_exact(piece).expect("more"));
    assert!(got == expected);
}

/// MQTT-4.4.0-1: what was in flight comes again, with DUP and its identifier.
fn one_in_flight_comes_again(broker: &Broker) {
    let payload = payload(1 << 20, 1);
    for (qos, first_byte) in [(1, 0x32), (2, 0x34)] {
        let (mut taker, _) = RawClient::v5_resume(broker.port, "taker");
        taker.send(&format!("82 ( 0001 () 't' 0{qos} )"));
        taker.expect(&format!("90 ( 0001 () 0{qos} )"));
        let mut publisher = RawClient::v311(broker.port, "publisher");
        send(&mut publisher, false, qos, &payload);
        let first = taker.read_packet();
        assert_eq!(first[0], first_byte);
        drop(taker);
        let (mut taker, present) = RawClient::v5_resume(broker.port, "taker");
        assert!(present);
        let again = taker.read_packet();
        assert!(again[0] == first_byte | 8 && again[1..] == first[1..]);
        let id = u16::from_be_bytes([first[7], first[8]]);
        if qos == 2 {
            taker.send(&format!("50 02 {id:04x}"));
            taker.expect(&format!("62 02 {id:04x}"));
        }
        taker.send(&format!("{} 02 {id:04x}", if qos == 1 { "40" } else { "70" }));
        taker.ping();
        taker.send("e0 02 00 00");
        taker.expect_closed();
    }
}

fn one_that_waits_is_there_for_the_return(broker: &Broker) {
    let (mut taker, _) = RawClient::v5_resume(broker.port, "taker");
    taker.send("82 ( 0001 () 't' 01 )");
    taker.expect("90 ( 0001 () 01 )");
    drop(taker);
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let sizes = [300_000, 10, 2 << 20, 30_000];
    for (seed, bytes) in sizes.into_iter().enumerate() {
        send(&mut publisher, false, 1, &payload(bytes, seed as u8));
    }
    let (mut taker, _) = RawClient::v5_resume(broker.port, "taker");
    for (seed, bytes) in sizes.into_iter().enumerate() {
        expect(&mut taker, true, 0x32, &payload(bytes, seed as u8));
    }
    taker.ping();
}

/// MQTT-3.3.1-5, and MQTT-3.3.1-6 where another takes its place.
fn they_can_be_retained(broker: &Broker) {
    let mut publisher = RawClient::v5(broker.port, "publisher");
    for (seed, bytes) in [1 << 20, 100, 50_000].into_iter().enumerate() {
        let payload = payload(bytes, seed as u8);
        publisher.send_bytes(&publish(0x33, "t", 7, true, &payload));
        finish(&mut publisher, 1);
        for is_v5 in [false, true] {
            let mut taker = subscriber(broker, "taker", is_v5, 1);
            expect(&mut taker, is_v5, 0x33, &payload);
        }
    }
    publisher.send_bytes(&publish(0x33, "t", 7, true, b""));
    finish(&mut publisher, 1);
    subscriber(broker, "taker", true, 1).ping();
}

/// MQTT-3.1.2-24, MQTT-3.1.2-25.
fn a_client_for_whom_they_are_too_large_gets_the_others(broker: &Broker) {
    let mut taker = RawClient::connect(broker.port);
    // PUBLISH with a topic of one byte and 20,000 of payload has 20,010 bytes.
    taker.send("10 ( 'MQTT' 05 02 003c ( 27 00004e2a 21 0001 22 000a ) 'taker' )");
    taker.expect_accepted();
    taker.send("82 ( 0001 () 't' 01 )");
    taker.expect("90 ( 0001 () 01 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for bytes in [20_001, 70_000, 20_000, 5] {
        send(&mut publisher, false, 1, &payload(bytes, 0));
    }
    expect(&mut taker, true, 0x32, &payload(20_000, 0));
    expect(&mut taker, true, 0x32, &payload(5, 0));
    taker.ping();
}

/// Section 3.3.2.3: what travels with a large payload, and what this server adds.
fn properties_travel_with_them(broker: &Broker) {
    let mut taker = RawClient::v5(broker.port, "taker");
    taker.send("82 ( 0001 ( 0b 05 ) 't' 01 )");
    taker.expect("90 ( 0001 () 01 )");
    let mut publisher = RawClient::v5(broker.port, "publisher");
    let text = "61".repeat(30_000);
    publisher.send(&format!("32 ( 't' 0007 ( 02 0000ffff 23 0001 26 'k' 'v' ) {text} )"));
    publisher.expect_ack(0x40, "0007");
    // By the alias, which stands for the same topic.
    publisher.send(&format!("32 ( '' 0008 ( 23 0001 26 'k' 'v' ) {text} )"));
    publisher.expect_ack(0x40, "0008");
    taker.expect(&format!("32 ( 't' ???? ( 02 0000ffff 0b 05 26 'k' 'v' ) {text} )"));
    taker.expect(&format!("32 ( 't' ???? ( 0b 05 26 'k' 'v' ) {text} )"));
}

on_one_and_four_shards! {
    they_arrive_whole_at_every_qos;
    sixty_four_mebibytes_arrive_whole with "limits.packet_bytes_max=100000000";
    they_stay_in_order_among_small_ones;
    a_fan_out_reaches_everybody;
    they_can_be_split_anywhere;
    one_in_flight_comes_again;
    one_that_waits_is_there_for_the_return;
    they_can_be_retained;
    a_client_for_whom_they_are_too_large_gets_the_others;
    properties_travel_with_them;
}
