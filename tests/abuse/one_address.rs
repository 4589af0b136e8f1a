//! What one address may do: how many connections it has, and how fast it comes.

use std::time::{Duration, Instant};

use crate::Bystander;
use crate::common::{Broker, RawClient, eventually, on_one_and_four_shards, wire};

const HERE: [u8; 4] = [127, 0, 0, 2];

/// A connection of that address that is served, unless it is closed.
fn try_client(broker: &Broker, address: [u8; 4], id: &str) -> Option<RawClient> {
    let mut client = RawClient::connect_from(address, broker.port);
    client.try_send_bytes(&wire(&format!("10 ( 'MQTT' 05 02 003c () '{id}' )")));
    let packet = client.try_read_packet()?;
    assert_eq!((packet[0], packet[3]), (0x20, 0), "{packet:02x?}");
    Some(client)
}

#[track_caller]
fn client(broker: &Broker, id: &str) -> RawClient {
    eventually("a place that was given back", || try_client(broker, HERE, id))
}

/// `connections_per_address_max`: further ones are closed, other addresses have their own, and every way in which a
/// connection ends gives its place back.
fn an_address_has_so_many_connections(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut clients: Vec<_> =
        (0..3).map(|n| try_client(broker, HERE, &format!("c{n}")).expect("room")).collect();
    let full = || assert!(try_client(broker, HERE, "too many").is_none());
    full();
    // One that says nothing has no place either, and none is needed elsewhere.
    RawClient::connect_from(HERE, broker.port).expect_closed();
    let _elsewhere = try_client(broker, [127, 0, 0, 3], "elsewhere").expect("another address");

    // DISCONNECT, the end of the stream, a reset.
    let mut last = clients.pop().expect("three");
    last.send("e0 00");
    last.expect_closed();
    clients.push(client(broker, "c2"));
    full();
    drop(clients.pop());
    clients.push(client(broker, "c2"));
    clients.pop().expect("three").reset();
    clients.push(client(broker, "c2"));
    full();

    // A CONNECT that is refused, and no CONNECT at all.
    drop(clients.pop());
    for bytes in ["10 ( 'MQTT' 05 02 003c ( 15 'none' ) 'r' )", "c0 00", "16 0301 0200 01"] {
        let mut refused = eventually("a place", || {
            let mut silent = RawClient::connect_from(HERE, broker.port);
            silent.try_send_bytes(&wire(bytes)).then_some(silent)
        });
        while refused.try_read_packet().is_some() {}
        refused.expect_closed();
    }
    clients.push(client(broker, "c2"));
    full();

    // A take-over needs a place until it has happened.
    drop(clients.pop());
    let mut over = client(broker, "c0");
    clients[0].expect_disconnect(0x8e);
    over.ping();
    clients[0] = client(broker, "c3");
    full();
    bystander.check(broker);
}

/// `connects_per_address_per_second_max`: those that come faster are closed, and others are not.
fn an_address_comes_so_often(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let started = Instant::now();
    let burst = (0..20).filter(|n| try_client(broker, HERE, &format!("c{n}")).is_some()).count();
    // Five at once, and one more for each 200 ms that this took.
    let more = started.elapsed().as_millis() as usize / 200 + 1;
    assert!((5..=5 + more).contains(&burst), "{burst} in {:?}", started.elapsed());
    assert!(try_client(broker, [127, 0, 0, 3], "elsewhere").is_some());
    for n in 0..6 {
        client(broker, &format!("later{n}"));
    }
    let time = started.elapsed();
    assert!(time >= Duration::from_millis(200 * (burst as u64 + 6 - 5) - 20), "{time:?}");
    bystander.check(broker);
}

on_one_and_four_shards! {
    an_address_has_so_many_connections with "limits.connections_per_address_max=3";
    an_address_comes_so_often with "limits.connects_per_address_per_second_max=5";
}
