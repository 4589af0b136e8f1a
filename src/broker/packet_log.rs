//! One log line a packet, in both directions, for those who follow an exchange
//! with `-v`; worded as mosquitto words them, so that its tutorials and scripts
//! that look for its lines hold here. Costs one comparison when it is off.

use std::fmt;

use crate::{
    base::{PacketId, Peer, SessionKey},
    codec::{Ack, Connect, Frame, Packet, PacketType, Publish, Version, decode_from_client},
    message::Delivery,
};

use super::sessions::Sessions;

/// Target of these lines.
pub(super) const TARGET: &str = "ringmq::packet";

fn is_on() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

pub(super) fn received_connect(connect: &Connect<'_>) {
    let Connect { version, clean_start, keep_alive_secs, client_id, .. } = connect;
    tracing::debug!(
        target: TARGET,
        "Received CONNECT from {client_id} (MQTT {version}, c{}, k{keep_alive_secs})",
        u8::from(*clean_start)
    );
}

/// Before CONNACK there is no session, so the client goes by its address.
pub(super) fn received_early(peer: Peer, packet: &Packet<'_>) {
    let kind = packet.packet_type();
    tracing::debug!(target: TARGET, "Received {kind} from {peer}{}", InBrackets(packet));
}

pub(super) fn sending_early(peer: Peer, packet: &Packet<'_>) {
    let kind = packet.packet_type();
    tracing::debug!(target: TARGET, "Sending {kind} to {peer}{}", InBrackets(packet));
}

/// Says nothing of what cannot be decoded.
pub(super) fn received(sessions: &Sessions, key: SessionKey, version: Version, frame: &Frame<'_>) {
    if is_on()
        && let Ok(packet) = &decode_from_client(version, frame)
    {
        let client = Name(sessions, key);
        match packet {
            Packet::Subscribe(subscribe) => {
                tracing::debug!(
                    target: TARGET,
                    "Received SUBSCRIBE from {client} ({})",
                    Described(packet)
                );
                for asked in subscribe.filters() {
                    tracing::debug!(target: TARGET, "    {} (QoS {})", asked.filter, asked.qos);
                }
            }
            Packet::Unsubscribe(unsubscribe) => {
                tracing::debug!(
                    target: TARGET,
                    "Received UNSUBSCRIBE from {client} ({})",
                    Described(packet)
                );
                for filter in unsubscribe.filters() {
                    tracing::debug!(target: TARGET, "    {filter}");
                }
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => tracing::debug!(
                target: TARGET,
                "Received {} from {client} (Mid: {}, RC:{})",
                packet.packet_type(),
                ack.packet_id,
                ack.reason.0
            ),
            Packet::PubRec(ack) | Packet::PubRel(ack) => tracing::debug!(
                target: TARGET,
                "Received {} from {client} (Mid: {})",
                packet.packet_type(),
                ack.packet_id
            ),
            _ => tracing::debug!(
                target: TARGET,
                "Received {} from {client}{}",
                packet.packet_type(),
                InBrackets(packet)
            ),
        }
    }
}

pub(super) fn sending(sessions: &Sessions, key: SessionKey, packet: &Packet<'_>) {
    if is_on() {
        let client = Name(sessions, key);
        let kind = packet.packet_type();
        tracing::debug!(target: TARGET, "Sending {kind} to {client}{}", InBrackets(packet));
    }
}

pub(super) fn sending_ack(sessions: &Sessions, key: SessionKey, kind: PacketType, ack: &Ack<'_>) {
    if is_on() {
        let packet = match kind {
            PacketType::PubRec => Packet::PubRec(*ack),
            PacketType::PubRel => Packet::PubRel(*ack),
            PacketType::PubComp => Packet::PubComp(*ack),
            _ => Packet::PubAck(*ack),
        };
        sending(sessions, key, &packet);
    }
}

pub(super) fn sending_publish(sessions: &Sessions, key: SessionKey, delivery: &Delivery<'_>) {
    if is_on() {
        let publish = Publish {
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: Some(delivery.message.topic),
            packet_id: delivery.packet_id,
            properties: delivery.message.properties,
            payload: delivery.message.payload,
        };
        sending(sessions, key, &Packet::Publish(publish));
    }
}

/// The client's name.
struct Name<'a>(&'a Sessions, SessionKey);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(self.1) {
            Some(session) => session.client.fmt(f),
            None => f.write_str("?"),
        }
    }
}

/// What a packet says, in a few characters; brackets only around something.
struct InBrackets<'a>(&'a Packet<'a>);

impl fmt::Display for InBrackets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Packet::PingReq | Packet::PingResp => Ok(()),
            packet => write!(f, " ({})", Described(packet)),
        }
    }
}

struct Described<'a>(&'a Packet<'a>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Packet::Publish(publish) => describe_publish(publish, f),
            Packet::PubAck(Ack { packet_id, reason, .. })
            | Packet::PubRec(Ack { packet_id, reason, .. }) => {
                write!(f, "m{packet_id}, rc{}", reason.0)
            }
            Packet::PubRel(ack) | Packet::PubComp(ack) if ack.reason.is_error() => {
                write!(f, "m{}, rc{}", ack.packet_id, ack.reason.0)
            }
            Packet::PubRel(ack) | Packet::PubComp(ack) => write!(f, "m{}", ack.packet_id),
            Packet::ConnAck(connack) => {
                write!(f, "{}, {}", u8::from(connack.session_present), connack.reason.0)
            }
            Packet::Subscribe(subscribe) => write!(f, "m{}", subscribe.packet_id),
            Packet::Unsubscribe(unsubscribe) => write!(f, "m{}", unsubscribe.packet_id),
            Packet::SubAck(suback) => write!(f, "m{}, {:?}", suback.packet_id, suback.reasons),
            Packet::UnsubAck(unsuback) => {
                write!(f, "m{}, {:?}", unsuback.packet_id, unsuback.reasons)
            }
            Packet::Disconnect(disconnect) => write!(f, "rc{}", disconnect.reason.0),
            Packet::Auth(auth) => write!(f, "rc{}", auth.reason.0),
            Packet::Connect(_) | Packet::PingReq | Packet::PingResp => Ok(()),
        }
    }
}

fn describe_publish(publish: &Publish<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "d{}, q{}, r{}, m{}, '{}', ... ({} bytes)",
        u8::from(publish.dup),
        publish.qos,
        u8::from(publish.retain),
        publish.packet_id.map_or(0, PacketId::get),
        publish.topic.map_or("", |topic| topic.as_str()),
        publish.payload.len()
    )
}
