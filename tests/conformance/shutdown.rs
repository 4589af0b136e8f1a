//! SIGTERM and SIGINT: clients are told, what was accepted still goes out (section 3.14.2.1).

use crate::common::{Broker, RawClient};

#[test]
fn sigterm_tells_v5_clients_and_exits_cleanly() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &[]);
        let mut v5: Vec<_> =
            (0..8).map(|n| RawClient::v5(broker.port, &format!("five {n}"))).collect();
        let mut v311: Vec<_> =
            (0..8).map(|n| RawClient::v311(broker.port, &format!("three {n}"))).collect();
        let unknown = RawClient::connect(broker.port);
        broker.terminate();
        v5.iter_mut().for_each(|client| client.expect_disconnect(0x8b));
        v311.iter_mut().for_each(RawClient::expect_closed);
        drop(unknown);
    }
}

#[test]
fn sigint_ends_the_broker_too() {
    let mut broker = Broker::start(1, &[]);
    let mut client = RawClient::v5(broker.port, "me");
    broker.signal("INT");
    client.expect_disconnect(0x8b);
    assert_eq!(broker.wait_for_exit().code(), Some(0));
}

/// What the publisher knows to be taken arrives, across shards too, before the goodbye.
#[test]
fn queues_are_flushed_before_the_goodbye() {
    for shards in [1, 4] {
        let broker = Broker::start_quiet(shards, &[]);
        let mut subscribers: Vec<_> = (0..4)
            .map(|n| {
                let mut client = RawClient::v5(broker.port, &format!("subscriber {n}"));
                client.send("82 ( 0001 () 't' 00 )");
                client.expect("90 ( 0001 () 00 )");
                client
            })
            .collect();
        let mut publisher = RawClient::v311(broker.port, "publisher");
        const MESSAGES: usize = 500;
        let payload = "5a".repeat(200);
        for message in 0..MESSAGES {
            publisher.send(&format!("30 ( 't' {message:04x} {payload} )"));
        }
        publisher.ping();
        broker.terminate();
        for subscriber in &mut subscribers {
            for message in 0..MESSAGES {
                subscriber.expect(&format!("30 ( 't' () {message:04x} {payload} )"));
            }
            subscriber.expect_disconnect(0x8b);
        }
    }
}
