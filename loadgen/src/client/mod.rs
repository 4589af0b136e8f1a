//! One MQTT client as a value: bytes in, bytes out. A publisher, a subscriber of one filter, or neither.
//!
//! Owns the QoS flows. Knows no socket, no clock and no scenario.

mod identifiers;

use std::sync::Arc;

use ringmq::{
    base::{PacketId, QoS},
    codec::{
        Ack, ConnAck, Connect, DecodeError, Disconnect, Frame, Packet, PacketType, Properties,
        Property, PropertyBuf, Publish, ReasonCode, RetainHandling, SubAck, SubscribeFilter,
        Version, decode, encode_ack, encode_publish, encode_subscribe, next_frame,
    },
    topic::TopicName,
};

use self::identifiers::{IdSet, Outgoing};
use crate::{record::Stamp, scenario::MESSAGE_DIGITS};

/// One client from its CONNECT to its DISCONNECT.
pub(crate) struct Client {
    setup: Arc<Setup>,
    /// What to subscribe to.
    filter: Option<Box<str>>,
    state: State,
    /// The start of a packet whose end has not been received.
    partial: Vec<u8>,
    output: Vec<u8>,
    /// Publications without their last acknowledgement.
    outgoing: Outgoing,
    /// Identifiers of QoS 2 publications received and not released.
    incoming: IdSet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Subscribing,
    Ready,
}

/// What all clients of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) version: Version,
    /// QoS of publications and subscriptions.
    pub(crate) qos: QoS,
    pub(crate) clean_start: bool,
    /// How long the session is to outlive the connection (MQTT 5.0).
    pub(crate) session_expiry_secs: u32,
    /// 0 is no keep-alive.
    pub(crate) keep_alive_secs: u16,
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<String>,
    /// Publications that may be without their last acknowledgement; the broker can lower it.
    pub(crate) inflight_max: u16,
    /// A larger packet is an error.
    pub(crate) packet_bytes_max: u32,
    /// Messages are published at this QoS too: one that arrives at another is an error. A broker that
    /// lowers it saves the acknowledgements, and would look fast.
    pub(crate) expects_qos: bool,
}

/// What the received bytes mean to the run.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Notice<'a> {
    /// The broker accepted the connection. A subscriber has yet to be subscribed.
    Connected,
    Subscribed,
    /// A message arrived for the first time, with this payload.
    Delivered(&'a [u8]),
    /// The broker acknowledged a message.
    Acknowledged {
        step: Step,
        intended: u64,
        refused: bool,
    },
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
    #[error("the broker delivered at QoS {0} what was published and subscribed to at QoS {1}")]
    OtherQos(QoS, QoS),
    #[error("the broker sends, but does not read the answers")]
    Unread,
}

impl Client {
    /// A client whose CONNECT is its first output.
    pub(crate) fn new(setup: &Arc<Setup>, client_id: &str, filter: Option<&str>) -> Self {
        let mut output = Vec::new();
        let mut properties = PropertyBuf::new();
        if setup.version == Version::V5 && setup.session_expiry_secs > 0 {
            properties.push(Property::SessionExpiryInterval(setup.session_expiry_secs));
        }
        let connect = Connect {
            version: setup.version,
            clean_start: setup.clean_start,
            keep_alive_secs: setup.keep_alive_secs,
            client_id,
            properties: properties.as_properties(),
            will: None,
            user_name: setup.user_name.as_deref(),
            password: setup.password.as_deref().map(str::as_bytes),
        };
        Packet::Connect(connect).encode(setup.version, &mut output);
        Self {
            setup: setup.clone(),
            filter: filter.map(Box::from),
            state: State::Connecting,
            partial: Vec::new(),
            output,
            outgoing: Outgoing::new(setup.inflight_max),
            incoming: IdSet::default(),
        }
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
        } else {
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(bytes);
            let rest = self.packets(&joined, &mut notice)?.len();
            joined.drain(..joined.len() - rest);
            self.partial = joined;
        }
        let is_unread = self.filter.is_some() && self.output.len() > ANSWER_BYTES_MAX;
        if is_unread { Err(ClientError::Unread) } else { Ok(()) }
    }

    /// Whether another message may be sent.
    pub(crate) fn has_room(&self) -> bool {
        let waits = self.setup.qos != QoS::AtMostOnce;
        self.output.len() < OUTPUT_BYTES_MAX && !(waits && self.outgoing.is_full())
    }

    /// Sends a message. There must be room.
    pub(crate) fn publish(&mut self, template: &Template, stamp: Stamp, intended: u64) {
        let start = self.output.len();
        self.output.extend_from_slice(&template.packet);
        let packet = &mut self.output[start..];
        if let Some(at) = template.stamp_at {
            packet[at..at + Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
        }
        if let Some(at) = template.message_at {
            let digits = &mut packet[at..at + MESSAGE_DIGITS];
            let mut number = stamp.sequence;
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        if let Some(at) = template.packet_id_at {
            let id = self.outgoing.begin(intended);
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
            if self.takes_messages()
                && let Some(delivery) = Delivery::of(&frame, self.setup.version)
            {
                self.deliver(&delivery, notice)?;
            } else {
                self.packet(&decode(self.setup.version, &frame)?, notice)?;
            }
            rest = &rest[frame.len..];
        }
        Ok(rest)
    }

    fn takes_messages(&self) -> bool {
        self.filter.is_some() && self.state != State::Connecting
    }

    fn packet(
        &mut self,
        packet: &Packet<'_>,
        notice: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), ClientError> {
        let unexpected = ClientError::Unexpected(packet.packet_type());
        match packet {
            Packet::ConnAck(connack) if self.state == State::Connecting => {
                self.connected(connack, notice)
            }
            Packet::SubAck(suback) if self.state == State::Subscribing => {
                self.subscribed(suback, notice)
            }
            // Retained messages, and those of an earlier session, may come before the SUBACK.
            Packet::Publish(publish) if self.takes_messages() => {
                let Publish { qos, packet_id, payload, .. } = *publish;
                self.deliver(&Delivery { qos, packet_id, payload }, notice)
            }
            Packet::PubRel(ack) if self.filter.is_some() => {
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
        notice(Notice::Connected);
        let Some(filter) = &self.filter else {
            self.state = State::Ready;
            return Ok(());
        };
        self.state = State::Subscribing;
        let filter = SubscribeFilter {
            filter,
            qos: self.setup.qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
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
                self.state = State::Ready;
                notice(Notice::Subscribed);
                Ok(())
            }
        }
    }

    #[inline]
    fn deliver(
        &mut self,
        delivery: &Delivery<'_>,
        notice: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), ClientError> {
        if delivery.qos != self.setup.qos && self.setup.expects_qos {
            return Err(ClientError::OtherQos(delivery.qos, self.setup.qos));
        }
        let first = match (delivery.qos, delivery.packet_id) {
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
            notice(Notice::Delivered(delivery.payload));
        }
        Ok(())
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
    /// Where the number of the message stands in the topic.
    message_at: Option<usize>,
    packet_id_at: Option<usize>,
    stamp_at: Option<usize>,
}

/// What the messages of a publisher carry.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// A [`Stamp`] and filling, so many bytes together; only filling if there is no room for a stamp.
    Stamped(usize),
    /// The same bytes in each message.
    Fixed(&'a [u8]),
}

impl Template {
    /// `message_at` is where the topic holds the number of the message.
    pub(crate) fn new(
        setup: &Setup,
        retain: bool,
        topic: TopicName<'_>,
        message_at: Option<usize>,
        payload: Payload<'_>,
    ) -> Self {
        let filling;
        let (payload, is_stamped) = match payload {
            Payload::Stamped(bytes) => {
                filling = vec![b'.'; bytes];
                (filling.as_slice(), bytes >= Stamp::BYTES)
            }
            Payload::Fixed(bytes) => (bytes, false),
        };
        let publish = Publish {
            dup: false,
            qos: setup.qos,
            retain,
            topic: Some(topic),
            packet_id: None,
            properties: Properties::EMPTY,
            payload,
        };
        let mut packet = Vec::new();
        let packet_id_at = encode_publish(setup.version, &publish, &mut packet);
        let stamp_at = is_stamped.then(|| packet.len() - payload.len());
        // The topic is the first thing behind the fixed header, and its length.
        let header = packet.len()
            - next_frame(&packet, u32::MAX)
                .map_or(0, |frame| frame.map_or(0, |frame| frame.body.len()));
        let message_at = message_at.map(|at| header + 2 + at);
        Self { packet, message_at, packet_id_at, stamp_at }
    }
}

/// What counts of a PUBLISH.
struct Delivery<'a> {
    qos: QoS,
    packet_id: Option<PacketId>,
    payload: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// Reads a PUBLISH without a look at its topic, which is half the cost of decoding it. `None` if it
    /// is another packet, or not well formed: then decoding it will tell.
    #[inline]
    fn of(frame: &Frame<'a>, version: Version) -> Option<Self> {
        if frame.first >> 4 != PacketType::Publish as u8 {
            return None;
        }
        let qos = QoS::from_bits(frame.first >> 1 & 3)?;
        let topic_len = usize::from(u16::from_be_bytes(*frame.body.first_chunk()?));
        let mut rest = frame.body.get(2 + topic_len..)?;
        let mut packet_id = None;
        if qos != QoS::AtMostOnce {
            packet_id = Some(PacketId::new(u16::from_be_bytes(*rest.first_chunk()?))?);
            rest = &rest[2..];
        }
        if version == Version::V5 {
            // Mostly there are none; otherwise their length is a variable byte integer.
            let len = rest.iter().position(|byte| byte & 0x80 == 0).filter(|last| *last < 4)? + 1;
            let bytes = rest[..len].iter().rev();
            let properties = bytes.fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7F));
            rest = rest.get(len + properties..)?;
        }
        Some(Self { qos, packet_id, payload: rest })
    }
}

const SUBSCRIBE_ID: PacketId = match PacketId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};

/// Output that waits behind a send. Past it messages wait for their turn, with their intended times.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Far more of a subscriber's answers than there are identifiers: past it the broker does not read them.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
