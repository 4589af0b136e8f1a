//! One connection as its client sees it: both directions are read along, and what the broker sends is held
//! against what it may send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringmq::{
    base::{PacketId, QoS},
    codec::{
        Ack, Auth, ConnAck, Connect, Packet, PacketType, Properties, Property, Publish, ReasonCode,
        Version, decode, decode_connect, decode_from_client, encode_ack, next_frame,
    },
};

use super::packets;
use crate::{scram, targets::VERSIONS};

#[derive(Debug)]
pub(super) struct View {
    /// What the client's CONNECT says.
    pub(super) version: Option<Version>,
    packet_bytes_max: usize,
    receive_maximum: usize,
    topic_alias_maximum: u16,
    wants_response_information: bool,
    wants_problems: bool,
    /// Whether CONNECT names an Authentication Method.
    authenticates: bool,
    /// Bytes sent that make no whole packet yet.
    sent: Vec<u8>,
    /// The client has sent what is no packet: what it sends further means nothing.
    is_faulty: bool,
    is_accepted: bool,
    /// The broker has sent its last packet.
    is_over: bool,
    /// PUBLISHes towards the client that it has not fully acknowledged.
    in_flight: BTreeSet<PacketId>,
    /// Acknowledged before the client has looked at them, or before they existed.
    acknowledged_early: BTreeSet<PacketId>,
    owed: VecDeque<(PacketType, PacketId)>,
    /// The client's answer to an AUTH.
    owed_auth: Option<Vec<u8>>,
    /// What the broker's topic aliases stand for.
    aliases: BTreeMap<u16, String>,
    /// Reason codes of the PUBACKs.
    pub(super) pubacks: Vec<u8>,
    /// Those of the SUBACKs.
    pub(super) subacks: Vec<u8>,
    /// Topics of retained messages.
    pub(super) retained: Vec<String>,
}

impl View {
    pub(super) fn new() -> Self {
        Self {
            version: None,
            packet_bytes_max: usize::MAX,
            receive_maximum: usize::from(u16::MAX),
            topic_alias_maximum: 0,
            wants_response_information: false,
            wants_problems: true,
            authenticates: false,
            sent: Vec::new(),
            is_faulty: false,
            is_accepted: false,
            is_over: false,
            in_flight: BTreeSet::new(),
            acknowledged_early: BTreeSet::new(),
            owed: VecDeque::new(),
            owed_auth: None,
            aliases: BTreeMap::new(),
            pubacks: Vec::new(),
            subacks: Vec::new(),
            retained: Vec::new(),
        }
    }

    /// The client sends.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let mut sent = std::mem::take(&mut self.sent);
        sent.extend_from_slice(bytes);
        let mut used = 0;
        while !self.is_faulty {
            match next_frame(&sent[used..], u32::MAX) {
                Ok(Some(frame)) => {
                    used += frame.len;
                    self.is_faulty = match self.version {
                        None => !self.note_connect(decode_connect(&frame).ok()),
                        Some(version) => match decode_from_client(version, &frame) {
                            Ok(packet) => !self.note_sent(&packet),
                            Err(_) => true,
                        },
                    };
                }
                Ok(None) => break,
                Err(_) => self.is_faulty = true,
            }
        }
        sent.drain(..used);
        if !self.is_faulty {
            self.sent = sent;
        }
    }

    /// Up to `count` answers to what has come.
    pub(super) fn answers(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = self.owed_auth.take().unwrap_or_default();
        for (kind, id) in self.owed.drain(..count.min(self.owed.len())) {
            encode_ack(kind, id, &mut bytes);
        }
        bytes
    }

    /// The broker has sent.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(frame) = next_frame(rest, u32::MAX).expect("the broker sends packets") {
            rest = &rest[frame.len..];
            assert!(!self.is_over, "something follows the last packet");
            let Some(version) = self.version else {
                self.check_refusal(VERSIONS.map(|version| decode(version, &frame).ok()));
                continue;
            };
            let packet = decode(version, &frame)
                .unwrap_or_else(|error| panic!("{error} from the broker: {frame:02X?}"));
            assert!(
                frame.len <= self.packet_bytes_max,
                "MQTT-3.1.2-24: {} bytes: {packet:?}",
                frame.len
            );
            self.note_received(version, &packet);
        }
        assert!(rest.is_empty(), "the broker sends whole packets: {rest:02X?}");
    }

    fn note_connect(&mut self, connect: Option<Connect<'_>>) -> bool {
        let Some(connect) = connect else { return false };
        self.version = Some(connect.version);
        for property in connect.properties.iter() {
            match property {
                Property::MaximumPacketSize(bytes) => self.packet_bytes_max = bytes as usize,
                Property::ReceiveMaximum(count) => self.receive_maximum = usize::from(count),
                Property::TopicAliasMaximum(maximum) => self.topic_alias_maximum = maximum,
                Property::RequestResponseInformation(on) => self.wants_response_information = on,
                Property::RequestProblemInformation(on) => self.wants_problems = on,
                Property::AuthenticationMethod(_) => self.authenticates = true,
                _ => {}
            }
        }
        true
    }

    /// False for a packet after which nothing counts.
    fn note_sent(&mut self, packet: &Packet<'_>) -> bool {
        match packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.note_end(ack.packet_id),
            Packet::PubRec(ack) if ack.reason.is_error() => self.note_end(ack.packet_id),
            Packet::Disconnect(_) => return false,
            _ => {}
        }
        true
    }

    /// The client ends a delivery.
    fn note_end(&mut self, id: PacketId) {
        if !self.in_flight.remove(&id) {
            self.acknowledged_early.insert(id);
        }
    }

    /// A CONNECT that cannot be decoded is refused in words of some version.
    fn check_refusal(&mut self, decoded: [Option<Packet<'_>>; 3]) {
        let is_refusal = |packet: &Packet<'_>| matches!(packet, Packet::ConnAck(connack) if connack.reason.is_error());
        assert!(decoded.iter().flatten().any(is_refusal), "answer to no CONNECT: {decoded:?}");
        self.is_over = true;
    }

    fn note_received(&mut self, version: Version, packet: &Packet<'_>) {
        let is_connack = packet.packet_type() == PacketType::ConnAck;
        let is_auth = packet.packet_type() == PacketType::Auth && self.authenticates;
        assert!(
            is_connack != self.is_accepted || is_auth,
            "MQTT-3.2.0-1, MQTT-3.2.0-2: {packet:?}"
        );
        match packet {
            Packet::ConnAck(connack) => self.note_connack(connack),
            Packet::Auth(auth) if is_auth => self.note_auth(auth),
            Packet::SubAck(suback) => {
                self.subacks.extend_from_slice(suback.reasons);
                self.check_problems(suback.properties);
            }
            Packet::UnsubAck(unsuback) => self.check_problems(unsuback.properties),
            Packet::Publish(publish) => self.note_publish(publish),
            Packet::PubAck(Ack { reason, .. }) => self.pubacks.push(reason.0),
            Packet::PubRec(ack) if !ack.reason.is_error() => {
                self.owed.push_back((PacketType::PubRel, ack.packet_id));
            }
            Packet::PubRel(ack) => self.owed.push_back((PacketType::PubComp, ack.packet_id)),
            Packet::Disconnect(disconnect) => {
                assert_eq!(version, Version::V5);
                check_redirect(disconnect.reason, disconnect.properties);
                self.is_over = true;
            }
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_) => panic!("not a server's packet: {packet:?}"),
            Packet::PubRec(_) | Packet::PubComp(_) | Packet::PingResp => {}
        }
    }

    fn note_connack(&mut self, connack: &ConnAck<'_>) {
        self.is_accepted = true;
        self.is_over = connack.reason.is_error();
        check_redirect(connack.reason, connack.properties);
        let is_information = |property| matches!(property, Property::ResponseInformation(_));
        let has_information = connack.properties.iter().any(is_information);
        assert!(!has_information || self.wants_response_information, "MQTT-3.1.2-28");
    }

    fn note_auth(&mut self, auth: &Auth<'_>) {
        let is_end = auth.reason == ReasonCode::Success;
        let goes_on = auth.reason == ReasonCode::ContinueAuthentication;
        assert!(goes_on || is_end && self.is_accepted, "MQTT-4.12.0-2: {auth:?}");
        self.check_problems(auth.properties);
        let data = auth.properties.iter().find_map(|property| match property {
            Property::AuthenticationData(data) => Some(data),
            _ => None,
        });
        let last = data.and_then(scram::last);
        let answer = if data.is_none() { Some(scram::FIRST) } else { last.as_deref() };
        self.owed_auth = answer.filter(|_| goes_on).map(packets::continue_authentication);
    }

    fn check_problems(&self, properties: Properties<'_>) {
        let is_problem =
            |property| matches!(property, Property::ReasonString(_) | Property::UserProperty(..));
        assert!(self.wants_problems || !properties.iter().any(is_problem), "MQTT-3.1.2-29");
    }

    /// The topic, by name or by an alias that was set before.
    fn topic_of(&mut self, publish: &Publish<'_>) -> String {
        let alias = publish.properties.iter().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        let Some(alias) = alias else { return publish.topic.expect("a topic").to_string() };
        let in_range = (1..=self.topic_alias_maximum).contains(&alias);
        assert!(in_range, "MQTT-3.1.2-26: {publish:?}");
        if let Some(topic) = publish.topic {
            self.aliases.insert(alias, topic.to_string());
        }
        self.aliases.get(&alias).expect("an alias that was set").clone()
    }

    fn note_publish(&mut self, publish: &Publish<'_>) {
        let topic = self.topic_of(publish);
        if publish.retain {
            self.retained.push(topic);
        }
        let Some(id) = publish.packet_id else { return };
        if self.acknowledged_early.remove(&id) {
            return;
        }
        assert!(self.in_flight.insert(id), "MQTT-2.2.1-3: {id} is in use: {publish:?}");
        let count = self.in_flight.len();
        assert!(count <= self.receive_maximum, "MQTT-3.3.4-9: {count} unacknowledged");
        let kind = match publish.qos {
            QoS::ExactlyOnce => PacketType::PubRec,
            _ => PacketType::PubAck,
        };
        self.owed.push_back((kind, id));
    }
}

/// Another server is named to those only who shall use it.
fn check_redirect(reason: ReasonCode, properties: Properties<'_>) {
    let redirects = [ReasonCode::UseAnotherServer, ReasonCode::ServerMoved].contains(&reason);
    let is_reference = |property| matches!(property, Property::ServerReference(_));
    assert_eq!(properties.iter().any(is_reference), redirects, "{reason} {properties:?}");
}
