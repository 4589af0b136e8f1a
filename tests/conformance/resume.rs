//! A client that comes back at any point of an exchange sees it completed (sections 4.3, 4.4).
//!
//! "Lost" is seen from the side that waits: the packet was sent, its sender knows,
//! and the connection ends before the other side can act on it.

use crate::common::{Broker, RawClient, on_one_and_four_shards};

/// The two versions with sessions that outlive their connections.
#[derive(Clone, Copy)]
enum Version {
    V311,
    V5,
}

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

impl Version {
    fn resume(self, broker: &Broker, id: &str) -> (RawClient, bool) {
        match self {
            Self::V311 => RawClient::v311_resume(broker.port, id),
            Self::V5 => RawClient::v5_resume(broker.port, id),
        }
    }

    fn first(self, broker: &Broker, id: &str) -> RawClient {
        let (client, present) = self.resume(broker, id);
        assert!(!present);
        client
    }

    fn again(self, broker: &Broker, id: &str) -> RawClient {
        let (client, present) = self.resume(broker, id);
        assert!(present, "the session is gone");
        client
    }

    /// An empty block of properties, where there is one.
    fn properties(self) -> &'static str {
        match self {
            Self::V311 => "",
            Self::V5 => "()",
        }
    }

    fn expect_ack(self, client: &mut RawClient, first_byte: u8, packet_id: &str) {
        match self {
            Self::V311 => drop(client.expect(&format!("{first_byte:02x} 02 {packet_id}"))),
            Self::V5 => client.expect_ack(first_byte, packet_id),
        }
    }

    fn subscribe(self, client: &mut RawClient, topic: &str, qos: u8) {
        let properties = self.properties();
        client.send(&format!("82 ( 0001 {properties} '{topic}' {qos:02x} )"));
        client.expect(&format!("90 ( 0001 {properties} {qos:02x} )"));
    }
}

/// A subscriber that sees what reaches others; the message `marker` shows that all before it is there.
fn watcher(broker: &Broker) -> RawClient {
    let mut watcher = RawClient::v311(broker.port, "watcher");
    Version::V311.subscribe(&mut watcher, "t", 0);
    watcher
}

/// The second half of an exchange, client to broker. Brokers may hand a message on before or
/// after it (4.3.3), so a message is looked for only after it.
fn release(v: Version, client: &mut RawClient) {
    client.send("62 02 0005");
    v.expect_ack(client, 0x70, "0005");
}

fn expect_only(watcher: &mut RawClient, publisher: &mut RawClient, v: Version, messages: &[&str]) {
    publisher.send(&format!("30 ( 't' {} `marker` )", v.properties()));
    for message in messages {
        watcher.expect(&format!("30 ( 't' `{message}` )"));
    }
    watcher.expect("30 ( 't' `marker` )");
}

/// MQTT-4.3.3-10, MQTT-4.4.0-1: client to broker, QoS 2.
fn inbound_qos_2_publish_lost(broker: &Broker) {
    let mut watcher = watcher(broker);
    for v in VERSIONS {
        let id = format!("{} publish", v as u8);
        drop(v.first(broker, &id));
        let mut client = v.again(broker, &id);
        client.send(&format!("3c ( 't' 0005 {} `once` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        release(v, &mut client);
        expect_only(&mut watcher, &mut client, v, &["once"]);
    }
}

fn inbound_qos_2_half_a_publish(broker: &Broker) {
    let mut watcher = watcher(broker);
    for v in VERSIONS {
        let id = format!("{} half", v as u8);
        let mut client = v.first(broker, &id);
        let packet = crate::common::wire(&format!("34 ( 't' 0005 {} `once` )", v.properties()));
        client.send_bytes(&packet[..packet.len() - 1]);
        drop(client);
        let mut client = v.again(broker, &id);
        client.send(&format!("3c ( 't' 0005 {} `once` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        release(v, &mut client);
        expect_only(&mut watcher, &mut client, v, &["once"]);
    }
}

fn inbound_qos_2_pubrec_lost(broker: &Broker) {
    let mut watcher = watcher(broker);
    for v in VERSIONS {
        let id = format!("{} pubrec", v as u8);
        let mut client = v.first(broker, &id);
        client.send(&format!("34 ( 't' 0005 {} `once` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        drop(client);
        // Twice, so that a remembered id is still remembered after it was asked for.
        for _ in 0..2 {
            let mut client = v.again(broker, &id);
            client.send(&format!("3c ( 't' 0005 {} `once` )", v.properties()));
            v.expect_ack(&mut client, 0x50, "0005");
        }
        let mut client = v.again(broker, &id);
        release(v, &mut client);
        expect_only(&mut watcher, &mut client, v, &["once"]);
    }
}

fn inbound_qos_2_pubrel_lost(broker: &Broker) {
    let mut watcher = watcher(broker);
    for v in VERSIONS {
        let id = format!("{} pubrel", v as u8);
        let mut client = v.first(broker, &id);
        client.send(&format!("34 ( 't' 0005 {} `once` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        client.send_bytes(&[0x62, 0x02, 0x00]);
        drop(client);
        let mut client = v.again(broker, &id);
        release(v, &mut client);
        // MQTT-4.3.3-12: after PUBCOMP the same id is a new message.
        client.send(&format!("34 ( 't' 0005 {} `next` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        release(v, &mut client);
        expect_only(&mut watcher, &mut client, v, &["once", "next"]);
    }
}

fn inbound_qos_2_pubcomp_lost(broker: &Broker) {
    let mut watcher = watcher(broker);
    for v in VERSIONS {
        let id = format!("{} pubcomp", v as u8);
        let mut client = v.first(broker, &id);
        client.send(&format!("34 ( 't' 0005 {} `once` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        release(v, &mut client);
        drop(client);
        let mut client = v.again(broker, &id);
        client.send("62 02 0005");
        // 3.7.2.1: 0x92 is no error during recovery.
        match v {
            Version::V311 => drop(client.expect("70 02 0005")),
            Version::V5 => assert!([0x00, 0x92].contains(&client.ack_reason(0x70, "0005"))),
        }
        expect_only(&mut watcher, &mut client, v, &["once"]);
    }
}

/// Publishes `x` at QoS 2 to the topic, from somebody else.
fn publish(broker: &Broker, topic: &str, payload: &str) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send(&format!("34 ( '{topic}' 0001 `{payload}` )"));
    publisher.expect("50 02 0001");
    publisher.send("62 02 0001");
    publisher.expect("70 02 0001");
    publisher.send("e0 00");
    publisher.expect_closed();
}

/// Goes, and sees the broker close, too: what is published now is not sent into the void.
fn leave(mut client: RawClient) {
    client.half_close();
    client.expect_closed();
}

/// MQTT-3.3.1-1, MQTT-4.4.0-1: broker to client, QoS 2. PUBLISH or PUBREC lost look alike from here.
fn outbound_qos_2_publish_or_pubrec_lost(broker: &Broker) {
    for v in VERSIONS {
        let (id, topic) = (format!("{} out publish", v as u8), format!("out/{}", v as u8));
        let properties = v.properties();
        let mut client = v.first(broker, &id);
        v.subscribe(&mut client, &topic, 2);
        publish(broker, &topic, "x");
        let packet_id = client.expect(&format!("34 ( '{topic}' ???? {properties} `x` )"));
        drop(client);
        for _ in 0..2 {
            let mut client = v.again(broker, &id);
            client.expect(&format!("3c ( '{topic}' {packet_id} {properties} `x` )"));
            client.ping();
        }
        let mut client = v.again(broker, &id);
        client.expect(&format!("3c ( '{topic}' {packet_id} {properties} `x` )"));
        client.send(&format!("50 02 {packet_id}"));
        v.expect_ack(&mut client, 0x62, &packet_id);
        client.send(&format!("70 02 {packet_id}"));
        client.ping();
        drop(client);
        v.again(broker, &id).ping();
    }
}

/// After PUBREC only PUBREL is repeated, never the message. PUBREL or PUBCOMP lost look alike.
fn outbound_qos_2_pubrel_or_pubcomp_lost(broker: &Broker) {
    for v in VERSIONS {
        let (id, topic) = (format!("{} out pubrel", v as u8), format!("out/{}", v as u8));
        let mut client = v.first(broker, &id);
        v.subscribe(&mut client, &topic, 2);
        publish(broker, &topic, "x");
        let packet_id = client.expect(&format!("34 ( '{topic}' ???? {} `x` )", v.properties()));
        client.send(&format!("50 02 {packet_id}"));
        v.expect_ack(&mut client, 0x62, &packet_id);
        drop(client);
        for _ in 0..2 {
            let mut client = v.again(broker, &id);
            v.expect_ack(&mut client, 0x62, &packet_id);
            client.ping();
        }
        let mut client = v.again(broker, &id);
        v.expect_ack(&mut client, 0x62, &packet_id);
        client.send(&format!("70 02 {packet_id}"));
        client.ping();
        drop(client);
        v.again(broker, &id).ping();
    }
}

/// A message that came while the client was away is no repetition.
fn outbound_first_delivery_after_an_absence_has_no_dup(broker: &Broker) {
    for v in VERSIONS {
        let (id, topic) = (format!("{} absent", v as u8), format!("absent/{}", v as u8));
        let mut client = v.first(broker, &id);
        v.subscribe(&mut client, &topic, 2);
        leave(client);
        publish(broker, &topic, "x");
        let properties = v.properties();
        let mut client = v.again(broker, &id);
        let packet_id = client.expect(&format!("34 ( '{topic}' ???? {properties} `x` )"));
        drop(client);
        let mut client = v.again(broker, &id);
        client.expect(&format!("3c ( '{topic}' {packet_id} {properties} `x` )"));
    }
}

/// MQTT-4.3.2-1 and following: at least once.
fn inbound_qos_1_puback_lost(broker: &Broker) {
    for v in VERSIONS {
        let id = format!("{} in 1", v as u8);
        let mut client = v.first(broker, &id);
        client.send(&format!("32 ( 't' 0005 {} `x` )", v.properties()));
        v.expect_ack(&mut client, 0x40, "0005");
        drop(client);
        let mut client = v.again(broker, &id);
        client.send(&format!("3a ( 't' 0005 {} `x` )", v.properties()));
        v.expect_ack(&mut client, 0x40, "0005");
        client.ping();
    }
}

fn outbound_qos_1_publish_or_puback_lost(broker: &Broker) {
    for v in VERSIONS {
        let (id, topic) = (format!("{} out 1", v as u8), format!("one/{}", v as u8));
        let properties = v.properties();
        let mut client = v.first(broker, &id);
        v.subscribe(&mut client, &topic, 1);
        publish(broker, &topic, "x");
        let packet_id = client.expect(&format!("32 ( '{topic}' ???? {properties} `x` )"));
        drop(client);
        let mut client = v.again(broker, &id);
        client.expect(&format!("3a ( '{topic}' {packet_id} {properties} `x` )"));
        client.send(&format!("40 02 {packet_id}"));
        client.ping();
        drop(client);
        v.again(broker, &id).ping();
    }
}

/// MQTT-4.6.0-1: first what is in flight, in its order, then what waited.
fn repetitions_keep_their_order(broker: &Broker) {
    for v in VERSIONS {
        let (id, topic) = (format!("{} order", v as u8), format!("order/{}", v as u8));
        let properties = v.properties();
        let mut client = v.first(broker, &id);
        v.subscribe(&mut client, &topic, 2);
        let mut packet_ids = Vec::new();
        for payload in ["1", "2", "3"] {
            publish(broker, &topic, payload);
            packet_ids
                .push(client.expect(&format!("34 ( '{topic}' ???? {properties} `{payload}` )")));
        }
        // The middle one is past PUBREC when the connection ends.
        client.send(&format!("50 02 {}", packet_ids[1]));
        v.expect_ack(&mut client, 0x62, &packet_ids[1]);
        leave(client);
        publish(broker, &topic, "4");
        let mut client = v.again(broker, &id);
        let (first, third) = (&packet_ids[0], &packet_ids[2]);
        let mut publishes = Vec::new();
        let mut releases = 0;
        for _ in 0..4 {
            let packet = client.read_packet();
            if packet[0] == 0x62 { releases += 1 } else { publishes.push(packet) }
        }
        assert_eq!(releases, 1);
        let expected = |start: &str, packet_id: &str, payload: &str| {
            crate::common::wire(&format!(
                "{start} ( '{topic}' {packet_id} {properties} `{payload}` )"
            ))
        };
        assert_eq!(publishes[0], expected("3c", first, "1"));
        assert_eq!(publishes[1], expected("3c", third, "3"));
        assert_eq!(publishes[2][0], 0x34);
        assert_eq!(publishes[2].last(), Some(&b'4'));
        client.ping();
    }
}

/// MQTT-3.1.2-4: Clean Start 1 forgets what was in flight, in both directions.
fn clean_start_forgets_what_was_in_flight(broker: &Broker) {
    for v in VERSIONS {
        let (id, topic) = (format!("{} clean", v as u8), format!("clean/{}", v as u8));
        let mut client = v.first(broker, &id);
        v.subscribe(&mut client, &topic, 2);
        publish(broker, &topic, "x");
        client.expect(&format!("34 ( '{topic}' ???? {} `x` )", v.properties()));
        client.send(&format!("34 ( 't' 0005 {} `x` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        drop(client);
        match v {
            Version::V311 => RawClient::v311(broker.port, &id).ping(),
            Version::V5 => RawClient::v5(broker.port, &id).ping(),
        }
        let mut watcher = watcher(broker);
        let mut client = v.first(broker, &id);
        client.send(&format!("3c ( 't' 0005 {} `new` )", v.properties()));
        v.expect_ack(&mut client, 0x50, "0005");
        release(v, &mut client);
        expect_only(&mut watcher, &mut client, v, &["new"]);
    }
}

on_one_and_four_shards! {
    inbound_qos_2_publish_lost;
    inbound_qos_2_half_a_publish;
    inbound_qos_2_pubrec_lost;
    inbound_qos_2_pubrel_lost;
    inbound_qos_2_pubcomp_lost;
    outbound_qos_2_publish_or_pubrec_lost;
    outbound_qos_2_pubrel_or_pubcomp_lost;
    outbound_first_delivery_after_an_absence_has_no_dup;
    inbound_qos_1_puback_lost;
    outbound_qos_1_publish_or_puback_lost;
    repetitions_keep_their_order;
    clean_start_forgets_what_was_in_flight;
}
