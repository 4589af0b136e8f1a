//! `-v` tells the same exchange, in the same order, as `mosquitto -v` does: who follows a
//! mosquitto tutorial finds each line.

use crate::common::{Broker, on_one_and_four_shards};
use crate::tool::{Subscriber, publish, subscribe_once};

/// The lines about one client must hold these parts, in this order.
#[track_caller]
fn expect_in_order(broker: &Broker, id: &str, expected: &[&str]) {
    if let Some(last) = expected.last() {
        broker.wait_for_log(&[last]);
    }
    let lines: Vec<String> = broker.log_lines();
    let mut about = lines.iter().filter(|line| line.contains(id));
    for part in expected {
        let found = about.any(|line| line.contains(part));
        assert!(found, "{part:?} is missing, or not in this order {expected:#?}");
    }
}

/// Connect, subscribe, publish at each QoS, receive, disconnect: what both clients' lines tell.
fn exchange_of_each_qos(broker: &Broker) {
    for (qos, published, delivered) in [
        (
            "0",
            &["Received PUBLISH from {p} (d0, q0, r0, m0, 'tour/0', ... (5 bytes))"][..],
            &["Sending PUBLISH to {s} (d0, q0, r0, m0, 'tour/0', ... (5 bytes))"][..],
        ),
        (
            "1",
            &[
                "Received PUBLISH from {p} (d0, q1, r0, m1, 'tour/1', ... (5 bytes))",
                "Sending PUBACK to {p} (m1, rc0)",
            ],
            &[
                "Sending PUBLISH to {s} (d0, q1, r0, m1, 'tour/1', ... (5 bytes))",
                "Received PUBACK from {s} (Mid: 1, RC:0)",
            ],
        ),
        (
            "2",
            &[
                "Received PUBLISH from {p} (d0, q2, r0, m1, 'tour/2', ... (5 bytes))",
                "Sending PUBREC to {p} (m1, rc0)",
                "Received PUBREL from {p} (Mid: 1)",
                "Sending PUBCOMP to {p} (m1)",
            ],
            &[
                "Sending PUBLISH to {s} (d0, q2, r0, m1, 'tour/2', ... (5 bytes))",
                "Received PUBREC from {s} (Mid: 1)",
                "Sending PUBREL to {s} (m1)",
                "Received PUBCOMP from {s} (Mid: 1, RC:0)",
            ],
        ),
    ] {
        let (publisher, subscriber) = (format!("tour-pub-{qos}"), format!("tour-sub-{qos}"));
        let topic = format!("tour/{qos}");
        let arguments = ["-q", qos, "-t", &topic, "-C", "1"];
        let running = Subscriber::start(broker, &subscriber, &arguments);
        publish(broker, &["-i", &publisher, "-q", qos, "-t", &topic, "-m", "hello"]);
        assert_eq!(running.lines(), [format!("{topic}|{qos}|0|hello")]);

        let named = |parts: &[&str]| -> Vec<String> {
            let fill = |part: &&str| part.replace("{p}", &publisher).replace("{s}", &subscriber);
            parts.iter().map(fill).collect()
        };
        let connack = ["Sending CONNACK to {p} (0, 0)"];
        let goodbye = ["Received DISCONNECT from {p}"];
        let expected = named(&[&connack[..], published, &goodbye[..]].concat());
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expect_in_order(broker, &publisher, &expected);

        let subscribe = [
            "Sending CONNACK to {s} (0, 0)",
            "Received SUBSCRIBE from {s}",
            "Sending SUBACK to {s}",
        ];
        let expected = named(&[&subscribe[..], delivered].concat());
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expect_in_order(broker, &subscriber, &expected);
    }
}

/// Connects and disconnects name the client; pings and unsubscribes are packets too.
fn comings_and_goings(broker: &Broker) {
    subscribe_once(broker, &["-i", "comer", "-t", "a", "-U", "b", "-E"]);
    expect_in_order(
        broker,
        "comer",
        &["comer", "Received SUBSCRIBE from comer", "Sending SUBACK to comer"],
    );
    let mut client = crate::common::RawClient::v311(broker.port, "pinger");
    client.ping();
    client.send("a2 ( 0003 'a' )");
    client.expect("b0 02 0003");
    expect_in_order(
        broker,
        "pinger",
        &[
            "Sending CONNACK to pinger (0, 0)",
            "Received PINGREQ from pinger",
            "Sending PINGRESP to pinger",
            "Received UNSUBSCRIBE from pinger",
            "Sending UNSUBACK to pinger",
        ],
    );
}

on_one_and_four_shards! {
    exchange_of_each_qos;
    comings_and_goings;
}
