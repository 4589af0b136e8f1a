//! PUBLISH from a client and both directions' acknowledgements (MQTT 5.0
//! sections 3.3 to 3.7, 4.3).

use crate::{
    base::{ConnId, PacketId, QoS, SessionKey},
    codec::{Ack, Packet, PacketType, Properties, Publish, ReasonCode, Version},
    message::{Message, SplitProperties},
    session::AckError,
    topic::FilterKind,
};

use super::{
    Broker, Flow,
    ack_line::{AppliedBy, PublishAck},
    close::Cause,
    packet_log,
    route::Lazy,
    topic_aliases::Topic,
};

impl Broker {
    /// Takes over an application message and sees to it that it is acknowledged.
    pub(super) fn publish(&mut self, conn: ConnId, key: SessionKey, publish: &Publish<'_>) -> Flow {
        self.counters.publishes_received += 1;
        let split = SplitProperties::new(publish.properties);
        let topic = match self.check_publish(conn, publish, &split) {
            Ok(topic) => topic,
            Err((reason, why)) => return self.close(conn, Cause::Refused(reason, why)),
        };
        if let Some(id) = publish.packet_id {
            match self.note_received(conn, key, publish.qos, id) {
                Ok(true) => {}
                // MQTT-4.3.3-10: acknowledged again, not delivered again.
                Ok(false) => {
                    // An earlier connection may have waited for its retained message to be stored.
                    let waits_for = self.peers.last_unconfirmed_retain();
                    self.acknowledge(conn, key, publish.qos, id, ReasonCode::Success, waits_for);
                    return Flow::Continue;
                }
                Err((reason, why)) => return self.close(conn, Cause::Refused(reason, why)),
            }
        }
        let topic = topic.name();
        let (reason, waits_for) = if topic.prefix() == FilterKind::Request {
            (self.request(key, topic, publish), None)
        } else {
            let message = Message {
                topic,
                properties: split.travelling(),
                payload: publish.payload,
                qos: publish.qos,
                retain: publish.retain,
                expires_at: None,
            };
            self.dispatch(key, message, split.message_expiry_secs)
        };
        if let Some(id) = publish.packet_id {
            if reason.is_error()
                && let Some(session) = self.sessions.get_mut(key)
            {
                // MQTT-4.3.3-9: after a refusal the identifier is free again.
                session.inbox.release(id);
            }
            self.acknowledge(conn, key, publish.qos, id, reason, waits_for);
        }
        Flow::Continue
    }

    /// PUBACK from a subscriber.
    pub(super) fn puback(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let result = session.outbox.acknowledged(ack.packet_id);
        self.after_ack(conn, key, result)
    }

    /// PUBREC from a subscriber: answered with PUBREL, unless it refuses.
    pub(super) fn pubrec(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let refused = ack.reason.is_error();
        let result = session.outbox.received(ack.packet_id, refused);
        if !refused && result != Err(AckError::WrongStep) {
            let reason = self.known(conn, result.is_ok());
            self.reply_ack(conn, key, PacketType::PubRel, ack.packet_id, reason);
        }
        self.after_ack(conn, key, result)
    }

    /// PUBCOMP from a subscriber.
    pub(super) fn pubcomp(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let result = session.outbox.completed(ack.packet_id);
        self.after_ack(conn, key, result)
    }

    /// PUBREL from a publisher: its identifier is free again.
    pub(super) fn pubrel(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let is_known = session.inbox.release(ack.packet_id);
        let reason = self.known(conn, is_known);
        let packet_id = ack.packet_id;
        self.line_up(conn, key, PublishAck { kind: PacketType::PubComp, packet_id, reason }, None);
        Flow::Continue
    }

    /// Sends the acknowledgements whose wait on another shard is over.
    pub(super) fn release_publish_acks(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting_acks);
        waiting.retain(|conn| self.release_acks_of(*conn));
        waiting.append(&mut self.waiting_acks);
        self.waiting_acks = waiting;
    }

    /// Whether the connection still has some that wait.
    fn release_acks_of(&mut self, conn: ConnId) -> bool {
        loop {
            let Some(connection) = self.connections.get_mut(conn) else { return false };
            let Some(key) = connection.session else { return false };
            match connection.ack_line.pop(|waits_for| self.peers.retain_applied(waits_for)) {
                Some(ack) => self.reply_ack(conn, key, ack.kind, ack.packet_id, ack.reason),
                None => return !connection.ack_line.is_empty(),
            }
        }
    }

    /// Checks what the codec cannot know, and finds the topic.
    fn check_publish<'p>(
        &mut self,
        conn: ConnId,
        publish: &Publish<'p>,
        split: &SplitProperties<'_>,
    ) -> Result<Topic<'p>, (ReasonCode, &'static str)> {
        if publish.qos > self.policy.limits.maximum_qos {
            return Err((ReasonCode::QoSNotSupported, "QoS above maximum_qos"));
        }
        if publish.retain && !self.policy.limits.retain_available {
            return Err((ReasonCode::RetainNotSupported, "retained messages are turned off"));
        }
        if split.has_subscription_identifier {
            let why = "Subscription Identifier from a client";
            return Err((ReasonCode::ProtocolError, why));
        }
        let (Some(alias), Some(connection)) = (split.topic_alias, self.connections.get_mut(conn))
        else {
            // The codec lets an empty topic pass only with an alias.
            return publish
                .topic
                .map(Topic::Named)
                .ok_or((ReasonCode::ProtocolError, "neither topic nor alias"));
        };
        let maximum = self.policy.limits.topic_alias_maximum;
        connection.aliases.resolve(maximum, alias, publish.topic)
    }

    /// Notes a PUBLISH at QoS > 0; false for a repetition at QoS 2.
    fn note_received(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        qos: QoS,
        id: PacketId,
    ) -> Result<bool, (ReasonCode, &'static str)> {
        let (Some(connection), Some(session)) =
            (self.connections.get_mut(conn), self.sessions.get_mut(key))
        else {
            return Ok(false);
        };
        if connection.version == Version::V5 {
            if connection.unacknowledged >= self.policy.limits.receive_maximum {
                return Err((ReasonCode::ReceiveMaximumExceeded, "Receive Maximum exceeded"));
            }
            connection.unacknowledged += 1;
        }
        Ok(qos < QoS::ExactlyOnce || session.inbox.receive(id))
    }

    /// Routes and retains a message. Returns the reason code of its
    /// acknowledgement and what that has to wait for.
    pub(super) fn take_over(
        &mut self,
        key: SessionKey,
        mut publication: Lazy<'_>,
    ) -> (ReasonCode, Option<AppliedBy>) {
        if publication.message.retain {
            publication.retain_id = self.peers.next_retain_id();
        }
        let has_takers = self.route(&mut publication, Some(key));
        let waits_for = publication.retain_id.and_then(|id| self.retain(&mut publication, id));
        let reason = match has_takers {
            true => ReasonCode::Success,
            false => ReasonCode::NoMatchingSubscribers,
        };
        (reason, waits_for)
    }

    /// PUBACK or PUBREC, in the order of the PUBLISHes (MQTT-4.6.0-2, MQTT-4.6.0-3).
    fn acknowledge(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        qos: QoS,
        packet_id: PacketId,
        reason: ReasonCode,
        waits_for: Option<AppliedBy>,
    ) {
        let kind = match qos {
            QoS::ExactlyOnce => PacketType::PubRec,
            _ => PacketType::PubAck,
        };
        self.line_up(conn, key, PublishAck { kind, packet_id, reason }, waits_for);
    }

    /// Reason code of PUBREL and PUBCOMP. After a resumption an unknown identifier is that of an
    /// exchange whose last packet was lost: no error (sections 3.6.2.1 and 3.7.2.1), and some
    /// clients would take it for one.
    fn known(&self, conn: ConnId, is_known: bool) -> ReasonCode {
        let is_resumption = self.connections.get(conn).is_some_and(|found| found.is_resumption);
        if is_known || is_resumption {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        }
    }

    /// Sends an acknowledgement, behind those that wait.
    fn line_up(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        mut ack: PublishAck,
        waits_for: Option<AppliedBy>,
    ) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.version < Version::V5 {
            // Has no words for anything else.
            ack.reason = ReasonCode::Success;
        }
        if waits_for.is_none() && connection.ack_line.is_empty() {
            return self.reply_ack(conn, key, ack.kind, ack.packet_id, ack.reason);
        }
        if connection.ack_line.is_empty() {
            self.waiting_acks.push(conn);
        }
        connection.ack_line.push(ack, waits_for);
    }

    fn reply_ack(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        kind: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        if matches!(kind, PacketType::PubAck | PacketType::PubComp) || reason.is_error() {
            // The end of an exchange with the client's quota (section 4.9), or of one that an
            // earlier connection has begun.
            if let Some(connection) = self.connections.get_mut(conn) {
                connection.unacknowledged = connection.unacknowledged.saturating_sub(1);
            }
        }
        let ack = Ack { packet_id, reason, properties: Properties::EMPTY };
        let packet = match kind {
            PacketType::PubRec => Packet::PubRec(ack),
            PacketType::PubRel => Packet::PubRel(ack),
            PacketType::PubComp => Packet::PubComp(ack),
            _ => Packet::PubAck(ack),
        };
        self.reply(conn, key, &packet);
    }

    /// Goes on with the session's deliveries after one has moved on.
    fn after_ack(&mut self, conn: ConnId, key: SessionKey, result: Result<(), AckError>) -> Flow {
        match result {
            Ok(()) => self.pump(key),
            // Left over from a session that has ended: nothing to be done about it.
            Err(AckError::Unknown) => {
                tracing::debug!(target: packet_log::TARGET, "acknowledgement of an unknown packet");
            }
            Err(AckError::WrongStep) => {
                let why = "acknowledgement does not fit the delivery";
                return self.close(conn, Cause::Refused(ReasonCode::ProtocolError, why));
            }
        }
        Flow::Continue
    }
}
