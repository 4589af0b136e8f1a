//! A thousand clients, a million messages at QoS 1: complete, and in order per publisher.

use std::time::Instant;

use crate::alone;
use crate::common::Broker;
use crate::lean::{Connection, Received};

const CLIENTS: usize = 1000;
const MESSAGES_EACH: u64 = 1000;
const WINDOW: u64 = 16;
const STACK_BYTES: usize = 128 * 1024;

/// Each client publishes to the next one's topic, so that most messages cross shards.
#[test]
fn a_million_qos_1_messages_arrive_in_order() {
    let _alone = alone();
    let broker = Broker::start_quiet(4, &["limits.queue_messages_max=100000"]);
    let mut connections: Vec<Connection> =
        (0..CLIENTS).map(|client| subscribed(broker.port, client)).collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (client, connection) in connections.drain(..).enumerate() {
            std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, move || run(connection, client))
                .expect("the machine allows a thousand threads");
        }
    });
    println!(
        "{} messages in {:?}, broker CPU {:?}",
        CLIENTS as u64 * MESSAGES_EACH,
        started.elapsed(),
        broker.cpu_time()
    );
}

fn subscribed(port: u16, client: usize) -> Connection {
    let opened = Connection::open(port, &format!("client {client}"), true, 600);
    let (mut connection, _) = opened.unwrap_or_else(|error| panic!("client {client}: {error}"));
    connection.subscribe(&format!("to/{client}"), 1);
    let answer = connection.exchange().expect("a SUBACK");
    assert!(matches!(answer, Received::Suback), "{answer:?}");
    connection
}

fn run(mut connection: Connection, client: usize) {
    let topic = format!("to/{}", (client + 1) % CLIENTS);
    let (mut sent, mut acknowledged, mut received) = (0, 0, 0);
    while acknowledged < MESSAGES_EACH || received < MESSAGES_EACH {
        while sent < MESSAGES_EACH && sent - acknowledged < WINDOW {
            connection.publish(false, 1, &topic, sent as u16 + 1, sent);
            sent += 1;
        }
        let state = (sent, acknowledged, received);
        if let Err(error) = connection.flush().and_then(|()| connection.read()) {
            panic!("client {client}, (sent, acknowledged, received) = {state:?}: {error}");
        }
        while let Some(packet) = connection.next() {
            match packet {
                Received::Publish { dup: false, qos: 1, packet_id, payload } => {
                    let number = u64::from_be_bytes(payload);
                    assert_eq!(number, received, "client {client}: out of order or lost");
                    received += 1;
                    connection.ack(0x40, packet_id);
                }
                Received::Ack { first_byte: 0x40, packet_id } => {
                    // MQTT-4.6.0-2: in the order of the messages.
                    assert_eq!(u64::from(packet_id), acknowledged + 1, "client {client}");
                    acknowledged += 1;
                }
                other => panic!("client {client}: {other:?}"),
            }
        }
    }
    connection.flush().expect("the last PUBACKs");
}
