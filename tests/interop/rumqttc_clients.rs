//! rumqttc, an independent client library, in 3.1.1 and in 5.0.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::common::{Broker, on_one_and_four_shards};

const MESSAGES: usize = 300;
const WAIT_MAX: Duration = Duration::from_secs(20);

/// What a client's connection reported: a subscription that stands, or a message.
enum Seen {
    Subscribed,
    Message { topic: String, qos: u8, payload: Vec<u8> },
}

/// One client each side, in 3.1.1: every QoS, in order, complete.
fn rumqttc_3_1_1(broker: &Broker) {
    use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
    let connect = |id: &str| {
        let mut options = MqttOptions::new(id, "127.0.0.1", broker.port);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 100);
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                let Ok(event) = event else { return };
                let sent = match event {
                    Event::Incoming(Packet::SubAck(_)) => sender.send(Seen::Subscribed),
                    Event::Incoming(Packet::Publish(publish)) => sender.send(Seen::Message {
                        topic: publish.topic,
                        qos: publish.qos as u8,
                        payload: publish.payload.to_vec(),
                    }),
                    _ => Ok(()),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        (client, seen)
    };
    let (subscriber, seen) = connect("subscriber");
    subscriber.subscribe("q/#", QoS::ExactlyOnce).expect("room in its queue");
    expect_subscribed(&seen);
    let (publisher, _events) = connect("publisher");
    for message in 0..MESSAGES {
        for (topic, qos) in
            [("q/0", QoS::AtMostOnce), ("q/1", QoS::AtLeastOnce), ("q/2", QoS::ExactlyOnce)]
        {
            publisher.publish(topic, qos, false, message.to_string()).expect("room in its queue");
        }
    }
    expect_all(&seen);
}

/// The same in 5.0.
fn rumqttc_5_0(broker: &Broker) {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{Client, Event, MqttOptions};
    let connect = |id: &str| {
        let mut options = MqttOptions::new(id, "127.0.0.1", broker.port);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 100);
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                let Ok(event) = event else { return };
                let sent = match event {
                    Event::Incoming(Packet::SubAck(_)) => sender.send(Seen::Subscribed),
                    Event::Incoming(Packet::Publish(publish)) => sender.send(Seen::Message {
                        topic: String::from_utf8(publish.topic.to_vec()).expect("UTF-8"),
                        qos: publish.qos as u8,
                        payload: publish.payload.to_vec(),
                    }),
                    _ => Ok(()),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        (client, seen)
    };
    let (subscriber, seen) = connect("subscriber");
    subscriber.subscribe("q/#", QoS::ExactlyOnce).expect("room in its queue");
    expect_subscribed(&seen);
    let (publisher, _events) = connect("publisher");
    for message in 0..MESSAGES {
        for (topic, qos) in
            [("q/0", QoS::AtMostOnce), ("q/1", QoS::AtLeastOnce), ("q/2", QoS::ExactlyOnce)]
        {
            publisher.publish(topic, qos, false, message.to_string()).expect("room in its queue");
        }
    }
    expect_all(&seen);
}

fn expect_subscribed(seen: &Receiver<Seen>) {
    let first = seen.recv_timeout(WAIT_MAX).expect("a SUBACK");
    assert!(matches!(first, Seen::Subscribed), "a message before the SUBACK");
}

/// Every message once, with its QoS, in order per topic.
fn expect_all(seen: &Receiver<Seen>) {
    let mut next = [0; 3];
    for received in 0..3 * MESSAGES {
        let event = seen.recv_timeout(WAIT_MAX);
        let Ok(Seen::Message { topic, qos, payload }) = event else {
            panic!("only {received} of {} messages came, per QoS {next:?}", 3 * MESSAGES);
        };
        let level = usize::from(qos);
        assert_eq!(topic, format!("q/{level}"));
        assert_eq!(String::from_utf8_lossy(&payload), next[level].to_string(), "{topic}");
        next[level] += 1;
    }
}

on_one_and_four_shards! {
    rumqttc_3_1_1 with "limits.queue_messages_max=100000", "limits.inflight_max=1000";
    rumqttc_5_0 with "limits.queue_messages_max=100000", "limits.inflight_max=1000";
}
