//! One MQTT client as a value: bytes in, bytes out. A publisher or a subscriber of one filter.
//!
//! Owns the QoS flows. Knows no socket, no clock and no scenario.

use ringmq::{
    base::{PacketId, QoS},
    codec::{
        Ack, ConnAck, Connect, DecodeError, Disconnect, Packet, PacketType, Properties, Property,
        Publish, ReasonCode, RetainHandling, SubAck, SubscribeFilter, Version, decode, encode_ack,
        encode_publish, encode_subscribe, next_frame,
    },
    topic::TopicName,
};

use crate::{
    identifiers::{IdSet, Outgoing},
    record::Stamp,
};

/// One client from its CONNECT to its DISCONNECT.
pub(crate) struct Client {
    setup: Setup,
    ready: bool,
    /// The start of a packet whose end has not been received.
    partial: Vec<u8>,
    output: Vec<u8>,
    /// Publications without their last acknowledgement.
    outgoing: Outgoing,
    /// Identifiers of QoS 2 publications received and not released.
    incoming: IdSet,
}

/// What a client is to be.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) version: Version,
    /// QoS of its publications or of its subscription.
    pub(crate) qos: QoS,
    pub(crate) client_id: String,
    /// What to subscribe to; `None` for a publisher.
    pub(crate) filter: Option<String>,
    /// Publications that may be without their last acknowledgement; the broker can lower it.
    pub(crate) inflight_max: u16,
    /// A larger packet is an error.
    pub(crate) packet_bytes_max: u32,
}

/// What the received bytes mean to the run.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Notice<'a> {
    /// Connected and, if asked for, subscribed.
    Ready,
    /// A message arrived for the first time, with this payload.
    Delivered(&'a [u8]),
    /// The broker acknowledged a message.
    Acknowledged { step: Step, intended: u64, refused: bool },
}

/// An acknowledgement of a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::enum_variant_names, reason = "the names are the standard's")]
pub(crate) enum Step {
    PubAck,
    PubRec,
    PubComp,
}

/// Why a client cannot go on. Always the broker's doing, or its right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the broker sent what is not MQTT: {0}")]
    Decode(#[from] DecodeError),
    #[error("the broker refused the connection: {0}")]
    Refused(ReasonCode),
    #[error("the broker allows QoS {0} at most")]
    QosNotSupported(QoS),
    #[error("the broker refused the subscription: {0}")]
    NotSubscribed(ReasonCode),
    #[error("the broker closed the connection: {0}")]
    Disconnected(ReasonCode),
    #[error("the broker sent an unexpected {0}")]
    Unexpected(PacketType),
}

impl Client {
    /// A client whose CONNECT is its first output.
    pub(crate) fn new(setup: Setup) -> Self {
        let mut output = Vec::new();
        let connect = Connect {
            version: setup.version,
            clean_start: true,
            keep_alive_secs: KEEP_ALIVE_SECS,
            client_id: &setup.client_id,
            properties: Properties::EMPTY,
            will: None,
            user_name: None,
            password: None,
        };
        Packet::Connect(connect).encode(setup.version, &mut output);
        let outgoing = Outgoing::new(setup.inflight_max);
        let (partial, incoming) = (Vec::new(), IdSet::default());
        Self { setup, ready: false, partial, output, outgoing, incoming }
    }

    /// Takes received bytes and answers them. After an error the connection is of no use.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        mut notice: impl FnMut(Notice<'_>),
    ) -> Result<(), ClientError> {
        if self.partial.is_empty() {
            let rest = self.packets(bytes, &mut notice)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let rest = self.packets(&joined, &mut notice)?.len();
        joined.drain(..joined.len() - rest);
        self.partial = joined;
        Ok(())
    }

    /// Whether another message may be sent.
    pub(crate) fn has_room(&self) -> bool {
        let waits = self.setup.qos != QoS::AtMostOnce;
        self.output.len() < OUTPUT_BYTES_MAX && !(waits && self.outgoing.is_full())
    }

    /// Sends a message. There must be room.
    pub(crate) fn publish(&mut self, template: &Template, stamp: Stamp) {
        let start = self.output.len();
        self.output.extend_from_slice(&template.packet);
        let packet = &mut self.output[start..];
        packet[template.payload_at..][..Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
        if let Some(at) = template.packet_id_at {
            let id = self.outgoing.begin(stamp.intended);
            packet[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
        }
    }

    /// Publications without their last acknowledgement.
    pub(crate) fn inflight(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends a PINGREQ.
    pub(crate) fn ping(&mut self) {
        Packet::PingReq.encode(self.setup.version, &mut self.output);
    }

    /// Sends a DISCONNECT.
    pub(crate) fn disconnect(&mut self) {
        let reason = ReasonCode::NormalDisconnection;
        let disconnect = Disconnect { reason, properties: Properties::EMPTY };
        Packet::Disconnect(disconnect).encode(self.setup.version, &mut self.output);
    }

    /// Whether there is something to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The bytes to be sent.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Gives the memory of earlier output back.
    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.output.is_empty() {
            buffer.clear();
            self.output = buffer;
        }
    }

    /// Handles whole packets and returns what is left behind them.
    fn packets<'a>(
        &mut self,
        bytes: &'a [u8],
        notice: &mut impl FnMut(Notice<'_>),
    ) -> Result<&'a [u8], ClientError> {
        let mut rest = bytes;
        while let Some(frame) = next_frame(rest, self.setup.packet_bytes_max)? {
            self.packet(&decode(self.setup.version, &frame)?, notice)?;
            rest = &rest[frame.len..];
        }
        Ok(rest)
    }

    fn packet(
        &mut self,
        packet: &Packet<'_>,
        notice: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), ClientError> {
        let unexpected = ClientError::Unexpected(packet.packet_type());
        match packet {
            Packet::ConnAck(connack) if !self.ready => self.connected(connack, notice),
            Packet::SubAck(suback) if !self.ready => self.subscribed(suback, notice),
            Packet::Publish(publish) if self.setup.filter.is_some() => {
                self.deliver(publish, notice);
                Ok(())
            }
            Packet::PubRel(ack) if self.setup.filter.is_some() => {
                self.incoming.remove(ack.packet_id);
                encode_ack(PacketType::PubComp, ack.packet_id, &mut self.output);
                Ok(())
            }
            Packet::PubAck(ack) => self.acknowledged(Step::PubAck, ack, notice).ok_or(unexpected),
            Packet::PubRec(ack) => self.acknowledged(Step::PubRec, ack, notice).ok_or(unexpected),
            Packet::PubComp(ack) => self.acknowledged(Step::PubComp, ack, notice).ok_or(unexpected),
            Packet::PingResp => Ok(()),
            Packet::Disconnect(disconnect) => Err(ClientError::Disconnected(disconnect.reason)),
            _ => Err(unexpected),
        }
    }

    fn connected(
        &mut self,
        connack: &ConnAck<'_>,
        notice: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), ClientError> {
        if connack.reason.is_error() {
            return Err(ClientError::Refused(connack.reason));
        }
        for property in connack.properties.iter() {
            match property {
                Property::ReceiveMaximum(max) => self.outgoing.lower_max(max),
                Property::MaximumQoS(bits) => {
                    let max = QoS::from_bits(bits).unwrap_or_default();
                    if max < self.setup.qos {
                        return Err(ClientError::QosNotSupported(max));
                    }
                }
                _ => {}
            }
        }
        let Some(filter) = &self.setup.filter else {
            self.ready = true;
            notice(Notice::Ready);
            return Ok(());
        };
        let filter = SubscribeFilter {
            filter,
            qos: self.setup.qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::DoNotSend,
        };
        let (version, properties) = (self.setup.version, Properties::EMPTY);
        encode_subscribe(version, SUBSCRIBE_ID, properties, &[filter], &mut self.output);
        Ok(())
    }

    fn subscribed(
        &mut self,
        suback: &SubAck<'_>,
        notice: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), ClientError> {
        let granted = match suback.reasons {
            [reason] if suback.packet_id == SUBSCRIBE_ID => ReasonCode(*reason),
            _ => return Err(ClientError::Unexpected(PacketType::SubAck)),
        };
        match QoS::from_bits(granted.0) {
            None => Err(ClientError::NotSubscribed(granted)),
            Some(max) if max < self.setup.qos => Err(ClientError::QosNotSupported(max)),
            Some(_) => {
                self.ready = true;
                notice(Notice::Ready);
                Ok(())
            }
        }
    }

    fn deliver(&mut self, publish: &Publish<'_>, notice: &mut impl FnMut(Notice<'_>)) {
        let first = match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => {
                encode_ack(PacketType::PubAck, id, &mut self.output);
                true
            }
            (QoS::ExactlyOnce, Some(id)) => {
                encode_ack(PacketType::PubRec, id, &mut self.output);
                self.incoming.insert(id)
            }
            _ => true,
        };
        if first {
            notice(Notice::Delivered(publish.payload));
        }
    }

    /// `None` if no publication waits for this acknowledgement.
    fn acknowledged(
        &mut self,
        step: Step,
        ack: &Ack<'_>,
        notice: &mut impl FnMut(Notice<'_>),
    ) -> Option<()> {
        let refused = ack.reason.is_error();
        let expected = match step {
            Step::PubAck => self.setup.qos == QoS::AtLeastOnce,
            Step::PubRec | Step::PubComp => self.setup.qos == QoS::ExactlyOnce,
        };
        let intended = match step {
            _ if !expected => None,
            Step::PubRec if !refused => {
                let intended = self.outgoing.receive(ack.packet_id)?;
                encode_ack(PacketType::PubRel, ack.packet_id, &mut self.output);
                Some(intended)
            }
            Step::PubAck | Step::PubRec => self.outgoing.end(ack.packet_id, false),
            Step::PubComp => self.outgoing.end(ack.packet_id, true),
        }?;
        notice(Notice::Acknowledged { step, intended, refused });
        Some(())
    }
}

/// A publisher's PUBLISH, encoded once; each message is a copy with other numbers in it.
pub(crate) struct Template {
    packet: Vec<u8>,
    packet_id_at: Option<usize>,
    payload_at: usize,
}

impl Template {
    /// For payloads of at least [`Stamp::BYTES`].
    pub(crate) fn new(
        version: Version,
        qos: QoS,
        topic: TopicName<'_>,
        payload_bytes: usize,
    ) -> Self {
        debug_assert!(payload_bytes >= Stamp::BYTES);
        let payload = vec![b'.'; payload_bytes];
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(topic),
            packet_id: None,
            properties: Properties::EMPTY,
            payload: &payload,
        };
        let mut packet = Vec::new();
        let packet_id_at = encode_publish(version, &publish, &mut packet);
        let payload_at = packet.len() - payload_bytes;
        Self { packet, packet_id_at, payload_at }
    }
}

/// The run pings each client more often than that.
const KEEP_ALIVE_SECS: u16 = 60;

const SUBSCRIBE_ID: PacketId = match PacketId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};

/// Output that waits behind a send. Past it messages wait for their turn, with their intended times.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
