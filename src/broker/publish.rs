//! PUBLISH from a client and both directions' acknowledgements (MQTT 5.0
//! sections 3.3 to 3.7, 4.3).

use bytes::Bytes;

use crate::{
    base::{ClientId, ConnId, PacketId, QoS, SessionKey},
    codec::{Ack, Original, PacketType, Publish, ReasonCode, Version},
    message::{Message, SplitProperties},
    session::{AckError, Durable, Finished, Received},
    storage::{Record, Source},
    topic::{FilterKind, Matches},
};

use super::{
    Broker, DropReason, Flow,
    ack_line::{PublishAck, Waits},
    close::Cause,
    packet_log,
    route::Lazy,
    topic_aliases::Topic,
};

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    /// What is over, if the log knows of it, when the message is taken over.
    pub(super) source: Option<Source>,
    /// The connection, if it is a client's PUBLISH.
    pub(super) conn: Option<ConnId>,
    /// Who has published it, where that session may be gone.
    pub(super) client: Option<&'a ClientId>,
}

impl Broker {
    /// Takes over an application message and sees to it that it is acknowledged. Its payload is a part of `shared`,
    /// if that is there.
    pub(super) fn publish(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        publish: &Publish<'_>,
        original: Option<Original<'_>>,
        shared: Option<&Bytes>,
    ) -> Flow {
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
                    // An earlier connection may have waited for what it still waits for.
                    let mut waits = self.commit();
                    waits.shards.extend(self.peers.last_unconfirmed_retain());
                    self.acknowledge(conn, key, publish.qos, id, ReasonCode::Success, waits);
                    return Flow::Continue;
                }
                Err((reason, why)) => return self.close(conn, Cause::Refused(reason, why)),
            }
        }
        let refused_before = self.refusals();
        let topic = topic.name();
        let (reason, waits) = if self.memory.refuses_publications() && !publish.payload.is_empty() {
            // Those without payload clear retained messages, which makes room.
            self.count_session_drop(key, DropReason::Memory, publish.qos);
            (ReasonCode::QuotaExceeded, Waits::default())
        } else if topic.prefix() == FilterKind::Request {
            (self.request(key, topic, publish), Waits::default())
        } else {
            let message = Message {
                topic,
                properties: split.travelling(),
                payload: publish.payload,
                qos: publish.qos,
                retain: publish.retain,
                expires_at: None,
                original: original.filter(|_| split.is_whole()),
                shared,
            };
            let from =
                From { source: self.source_of(key, publish), conn: Some(conn), client: None };
            self.dispatch(key, message, split.message_expiry_secs, from)
        };
        if reason == ReasonCode::NotAuthorized && self.policy.acl_disconnects {
            // 3.1.1:MQTT-3.3.5-2: acknowledged as if it was taken, or the end of the connection.
            return self.close(conn, Cause::Refused(reason, "may not publish there"));
        }
        if let Some(id) = publish.packet_id {
            if reason.is_error()
                && let Some(session) = self.sessions.get_mut(key)
            {
                // MQTT-4.3.3-9: after a refusal the identifier is free again.
                session.inbox.release(id);
            }
            let is_v5 = self.connections.get(conn).is_some_and(|one| one.version == Version::V5);
            if self.refusals() > refused_before && !is_v5 {
                // There is no other way to say that it was not taken.
                let why = "the message cannot be kept";
                return self.close(conn, Cause::Refused(reason, why));
            }
            self.acknowledge(conn, key, publish.qos, id, reason, waits);
        }
        Flow::Continue
    }

    /// Messages that were not taken because there is no room for them.
    fn refusals(&self) -> u64 {
        self.counters.drops(DropReason::Storage) + self.counters.drops(DropReason::Memory)
    }

    /// PUBACK from a subscriber.
    pub(super) fn puback(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let result = session.outbox.acknowledged(ack.packet_id);
        self.finish_delivery(key, result.ok());
        self.after_ack(conn, key, result.map(drop))
    }

    /// PUBREC from a subscriber: answered with PUBREL, unless it refuses.
    pub(super) fn pubrec(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let refused = ack.reason.is_error();
        let result = session.outbox.received(ack.packet_id, refused);
        let mut waits = Waits::default();
        match result {
            Ok(Received::Refused(finished)) => self.finish_delivery(key, Some(finished)),
            Ok(Received::Owned(finished)) => waits = self.note_owned(key, finished),
            Ok(Received::Again) if self.is_durable(key) => waits = self.commit(),
            _ => {}
        }
        if !refused && result != Err(AckError::WrongStep) {
            let reason = self.known(conn, result.is_ok());
            let packet_id = ack.packet_id;
            self.line_up(
                conn,
                key,
                PublishAck { kind: PacketType::PubRel, packet_id, reason },
                waits,
            );
        }
        self.after_ack(conn, key, result.map(drop))
    }

    /// PUBCOMP from a subscriber.
    pub(super) fn pubcomp(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let result = session.outbox.completed(ack.packet_id);
        self.finish_delivery(key, result.ok());
        self.after_ack(conn, key, result.map(drop))
    }

    /// PUBREL from a publisher: its identifier is free again.
    pub(super) fn pubrel(&mut self, conn: ConnId, key: SessionKey, ack: &Ack<'_>) -> Flow {
        let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
        let released = session.inbox.release(ack.packet_id);
        let mut waits = Waits::default();
        if released == Some(true)
            && let Some(Durable { number, .. }) = session.durable
        {
            // Otherwise the identifier's next message would be taken for this one after a crash.
            self.append(&Record::Released { session: number, packet_id: ack.packet_id });
            waits = self.commit();
        }
        let reason = self.known(conn, released.is_some());
        let packet_id = ack.packet_id;
        self.line_up(conn, key, PublishAck { kind: PacketType::PubComp, packet_id, reason }, waits);
        Flow::Continue
    }

    /// The client owns the message: PUBREL leaves when that is on disk, or else it could get
    /// the message again after the exchange has ended on its side.
    fn note_owned(&mut self, key: SessionKey, finished: Finished) -> Waits {
        let Some(Durable { number, .. }) = self.sessions.get(key).and_then(|found| found.durable)
        else {
            return Waits::default();
        };
        self.append(&Record::Received { session: number, delivery: finished.number });
        self.release_hold(finished.hold);
        self.commit()
    }

    /// A delivery is over: its message is needed no more.
    pub(super) fn finish_delivery(&mut self, key: SessionKey, finished: Option<Finished>) {
        let (Some(finished), Some(session)) = (finished, self.sessions.get(key)) else { return };
        let Some(Durable { number, .. }) = session.durable else { return };
        self.append(&Record::Done { session: number, delivery: finished.number });
        self.release_hold(finished.hold);
    }

    /// Sends the acknowledgements whose wait on another shard is over.
    pub(super) fn release_publish_acks(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting_acks);
        waiting.retain(|conn| {
            let still_waits = self.release_acks_of(*conn);
            if !still_waits {
                self.end_farewell(*conn);
            }
            still_waits
        });
        waiting.append(&mut self.waiting_acks);
        self.waiting_acks = waiting;
    }

    /// Looks at the DISCONNECT that acknowledgements were to leave before.
    pub(super) fn end_farewell(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(conn)
            && connection.ack_line.is_empty()
            && !connection.is_held()
            && std::mem::take(&mut connection.paused.farewell)
        {
            self.resume(conn);
        }
    }

    /// Whether the connection still has some that wait.
    fn release_acks_of(&mut self, conn: ConnId) -> bool {
        let committed = self.committed();
        loop {
            let Some(connection) = self.connections.get_mut(conn) else { return false };
            let Some(key) = connection.session else { return false };
            match connection.ack_line.pop(|waits| self.peers.is_over(waits, committed)) {
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
        from: From<'_>,
    ) -> (ReasonCode, Waits) {
        let mut matches = self.matches.take().unwrap_or_default();
        self.match_takers(&publication, Some(key), &mut matches);
        let Matches { local, shards, shared, .. } = &*matches;
        let has_takers = !local.is_empty() || !shards.is_empty() || !shared.is_empty();
        let mut reason = match has_takers {
            true => ReasonCode::Success,
            false => ReasonCode::NoMatchingSubscribers,
        };
        let waits = if self.needs_no_disk(&publication, &matches, from) {
            self.carry_out(&mut publication, &mut matches, Some(key))
        } else if from.conn.is_some() && self.refuses(&publication, &matches, from) {
            self.end_trace();
            self.count_session_drop(key, DropReason::Storage, publication.message.qos);
            reason = ReasonCode::QuotaExceeded;
            Waits::default()
        } else {
            self.take_over_durably(key, &mut publication, &mut matches, from)
        };
        self.matches = Some(matches);
        (reason, waits)
    }

    fn take_over_durably(
        &mut self,
        key: SessionKey,
        publication: &mut Lazy<'_>,
        matches: &mut Matches,
        From { source, conn, client }: From<'_>,
    ) -> Waits {
        publication.log.is_relaxed = self.is_relaxed(publication.message.topic, conn);
        if self.needs_intake(publication, matches, source) {
            self.end_trace();
            let chosen = std::mem::take(&mut matches.shared);
            let source = source.unwrap_or(Source::PassedOn(None));
            let client =
                client.or_else(|| self.sessions.get(key).map(|session| &session.client)).cloned();
            self.take_in(publication, source, client, chosen, None);
            self.note_logged(key, source);
            return if publication.log.is_relaxed { Waits::default() } else { self.commit() };
        }
        publication.log.source = source;
        let mut waits = self.carry_out(publication, matches, Some(key));
        if publication.log.has_received
            && let Some(source) = source
        {
            self.note_logged(key, source);
        }
        if publication.log.is_relaxed {
            waits.commit = 0;
        }
        waits
    }

    /// Where a PUBLISH comes from, if its Packet Identifier is to survive a restart.
    fn source_of(&self, key: SessionKey, publish: &Publish<'_>) -> Option<Source> {
        let id = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce)?;
        let durable = self.sessions.get(key)?.durable?;
        Some(Source::Publisher(durable.number, id))
    }

    pub(super) fn note_logged(&mut self, key: SessionKey, source: Source) {
        if let Source::Publisher(_, id) = source
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.inbox.note_logged(id);
        }
    }

    /// Whether nothing of a publication is to be on any disk, nor to be in order with what is.
    fn needs_no_disk(&self, publication: &Lazy<'_>, matches: &Matches, from: From<'_>) -> bool {
        if self.durable.is_none() {
            return true;
        }
        let message = &publication.message;
        let has_takers = || {
            self.has_durable_takers(matches)
                || self.peers.any_durable() && !self.takers_elsewhere(matches).is_empty()
        };
        !message.retain
            && from.source.is_none()
            && (message.qos == QoS::AtMostOnce || !has_takers())
    }

    /// Whether a publication is to be refused because the disk can take no more.
    fn refuses(&self, publication: &Lazy<'_>, matches: &Matches, from: From<'_>) -> bool {
        let message = &publication.message;
        let is_possible = self.log_refuses() || self.peers.any_refusing();
        if !is_possible {
            return false;
        }
        if message.qos == QoS::AtMostOnce {
            // It may neither wait for the disk nor pass those on its topic that do (MQTT-4.6.0-5).
            return self.log_refuses() && message.retain && self.is_behind(message);
        }
        let mut shards = self.takers_elsewhere(matches);
        let mut is_ours = self.has_durable_takers(matches);
        if message.retain {
            let home = self.home_of_topic(message.topic.as_str());
            shards.insert(home);
            shards.remove(self.shard);
            is_ours |= home == self.shard;
        }
        // Its Packet Identifier is kept whoever the takers are.
        let is_clogged = from.source.is_some() && self.log_is_clogged();
        is_clogged || is_ours && self.log_refuses() || self.peers.any_refuses(shards)
    }

    /// PUBACK or PUBREC, in the order of the PUBLISHes (MQTT-4.6.0-2, MQTT-4.6.0-3).
    fn acknowledge(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        qos: QoS,
        packet_id: PacketId,
        reason: ReasonCode,
        waits: Waits,
    ) {
        let kind = match qos {
            QoS::ExactlyOnce => PacketType::PubRec,
            _ => PacketType::PubAck,
        };
        self.line_up(conn, key, PublishAck { kind, packet_id, reason }, waits);
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
    fn line_up(&mut self, conn: ConnId, key: SessionKey, mut ack: PublishAck, waits: Waits) {
        let is_over = self.is_over(&waits);
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.version < Version::V5 {
            // Has no words for anything else.
            ack.reason = ReasonCode::Success;
        }
        if is_over && connection.ack_line.is_empty() {
            return self.reply_ack(conn, key, ack.kind, ack.packet_id, ack.reason);
        }
        if connection.ack_line.is_empty() {
            self.waiting_acks.push(conn);
        }
        connection.ack_line.push(ack, waits);
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
        let ack = Ack { reason, ..Ack::success(packet_id) };
        let flow = self.append_reply(conn, Cause::ReplyTooLarge, |version, out| {
            ack.encode(version, kind, out);
        });
        if flow == Flow::Continue {
            packet_log::sending_ack(&self.sessions, key, kind, &ack);
        }
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
