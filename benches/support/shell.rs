//! A shard's shell without sockets, and the clients behind it: they connect, subscribe and answer what
//! they get, at once and in full. So a figure holds what the broker does for a message and the few
//! nanoseconds that a client's answer takes, but no system call.

use std::mem;

use ringmq::{
    base::{ConnId, PacketId, QoS, ShardId, Time},
    broker::{Broker, BrokerSetup, Origin},
    codec::{
        Connect, Packet, PacketType, Properties, Property, PropertyBuf, Publish, RetainHandling,
        SubscribeFilter, Version, encode_ack, encode_publish, encode_subscribe, next_frame,
    },
    config::Policy,
    topic::TopicName,
};

/// Nobody has a keep-alive, so nothing comes due.
pub(crate) const NOW: Time = Time::from_millis(1_000);
/// What is published to and subscribed to.
pub(crate) const TOPIC: &str = "site/7/line/3/temp";
const PAYLOAD: [u8; 64] = [b'x'; 64];

pub(crate) struct Shell {
    pub(crate) broker: Broker,
    /// PUBLISH packets that clients have answered.
    pub(crate) delivered: u64,
    connections: u32,
    answers: Vec<u8>,
}

impl Shell {
    /// A shard with the limits of the default configuration.
    pub(crate) fn new(shard: ShardId, shards: u16) -> Self {
        let broker = Broker::new(BrokerSetup {
            shard,
            shards,
            seed: 7,
            secret: [7; 32],
            policy: Policy::default(),
            trace: None,
        });
        Self { broker, delivered: 0, connections: 0, answers: Vec::new() }
    }

    /// A client on an unused slot. Nothing is read from it yet.
    pub(crate) fn open(&mut self, slot: u32) -> ConnId {
        let conn = ConnId { slot, generation: self.connections };
        self.connections += 1;
        let origin = Origin::new(([127, 0, 0, 1], 1024), true);
        self.broker.open(NOW, conn, origin);
        conn
    }

    /// A client that is connected, with a session for this connection only, under a name that the
    /// broker chooses for it so that its home is this shard.
    pub(crate) fn connect(&mut self, slot: u32, version: Version) -> ConnId {
        let conn = self.open(slot);
        self.broker.receive(NOW, conn, &connect_packet(version, "", true));
        self.settle();
        assert!(self.broker.is_settled(conn), "CONNECT was refused");
        conn
    }

    /// Subscribes a client to [`TOPIC`]. Takes the other shards as long as they take for SUBACK.
    pub(crate) fn subscribe(&mut self, conn: ConnId, version: Version, qos: QoS) {
        let filter = SubscribeFilter {
            filter: TOPIC,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::DoNotSend,
        };
        let mut packet = Vec::new();
        encode_subscribe(version, PacketId::FIRST, Properties::EMPTY, &[filter], &mut packet);
        self.broker.receive(NOW, conn, &packet);
        self.settle();
    }

    /// Sends all output and has the clients answer it, until nobody has anything left to say.
    pub(crate) fn settle(&mut self) {
        let mut answers = mem::take(&mut self.answers);
        while let Some(conn) = self.broker.pop_dirty() {
            let output = self.broker.take_output(conn).into_vec();
            answers.clear();
            self.delivered += answer(&output, &mut answers);
            self.broker.written(NOW, conn, output.into());
            if !answers.is_empty() {
                self.broker.receive(NOW, conn, &answers);
            }
        }
        self.answers = answers;
        assert!(self.broker.pop_effect().is_none(), "nobody is closed, moved or held back");
    }
}

/// A CONNECT; without `clean_start` the session stays when the connection is gone.
pub(crate) fn connect_packet(version: Version, client_id: &str, clean_start: bool) -> Vec<u8> {
    let mut properties = PropertyBuf::new();
    if !clean_start {
        properties.push(Property::SessionExpiryInterval(u32::MAX));
    }
    let connect = Connect {
        version,
        clean_start,
        keep_alive_secs: 0,
        client_id,
        properties: properties.as_properties(),
        will: None,
        user_name: None,
        password: None,
    };
    let mut packet = Vec::new();
    Packet::Connect(connect).encode(version, &mut packet);
    packet
}

/// PUBLISH packets to [`TOPIC`] with 64 bytes of payload, as they are read at once. Packet
/// Identifiers start at 1.
pub(crate) fn publish_packets(version: Version, qos: QoS, count: u16) -> Vec<u8> {
    let mut packets = Vec::new();
    for number in 0..count {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: TopicName::parse(TOPIC).ok(),
            packet_id: (qos > QoS::AtMostOnce).then(|| PacketId::FIRST.plus(number)),
            properties: Properties::EMPTY,
            payload: &PAYLOAD,
        };
        encode_publish(version, &publish, &mut packets);
    }
    packets
}

/// Appends what a client answers to these packets; returns how many of them are PUBLISHes.
fn answer(packets: &[u8], answers: &mut Vec<u8>) -> u64 {
    let (mut rest, mut publishes) = (packets, 0);
    while let Some(frame) = next_frame(rest, u32::MAX).expect("packets of the broker") {
        rest = &rest[frame.len..];
        let u16_at = |at| u16::from_be_bytes([frame.body[at], frame.body[at + 1]]);
        let (kind, id_at) = match frame.packet_type() {
            Some(PacketType::Publish) => {
                publishes += 1;
                let kind = match frame.first >> 1 & 3 {
                    0 => continue,
                    1 => PacketType::PubAck,
                    _ => PacketType::PubRec,
                };
                (kind, 2 + usize::from(u16_at(0)))
            }
            Some(PacketType::PubRec) => (PacketType::PubRel, 0),
            Some(PacketType::PubRel) => (PacketType::PubComp, 0),
            _ => continue,
        };
        let id = PacketId::new(u16_at(id_at)).expect("never 0");
        encode_ack(kind, id, answers);
    }
    assert!(rest.is_empty(), "the broker sends whole packets");
    publishes
}
