//! One message to one session: into the output of its connection, or to wait; and what waits, as far as
//! the client takes it (MQTT 5.0 sections 3.3 and 4.9). Who is to get it is not known here.

use crate::{
    base::{ConnId, PacketId, QoS, SessionKey, Time, limits},
    codec::{Ack, PacketType, Version, encode_ack},
    message::{Delivery, TopicForm},
    session::{Logged, Outgoing, QueueBounds, Session},
};

use super::{
    Broker, DropReason,
    connection::Connection,
    packet_log,
    route::{Grant, Lazy},
    topic_aliases::ToClient,
};

/// What is to become of a message for one taker.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Sent,
    Queued,
    Dropped(DropReason),
    /// There is no connection, and nothing is kept for the session.
    Offline,
}

/// What became of a message for one taker.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It is in the output of this connection.
    Encoded(ConnId),
    Queued,
    /// With a reason, which has been counted.
    Dropped,
    /// There is no connection, and nothing is kept for the session.
    Offline,
}

/// The PUBLISH packet encoded last, for subscribers that get the same bytes.
#[derive(Debug, Default)]
pub(super) struct WireForm {
    key: Option<(Version, QoS, bool)>,
    bytes: Vec<u8>,
    packet_id_at: usize,
}

impl WireForm {
    /// Another message comes.
    pub(super) fn forget(&mut self) {
        self.key = None;
    }

    /// Appends the packet to `out`: by copying if it has been encoded before.
    fn append(&mut self, delivery: &Delivery<'_>, version: Version, now: Time, out: &mut Vec<u8>) {
        let key = Some((version, delivery.qos, delivery.retain));
        if self.key != key {
            self.bytes.clear();
            let at = delivery.encode(version, now, &mut self.bytes);
            self.packet_id_at = at.unwrap_or_default();
            self.key = key;
        }
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(id) = delivery.packet_id {
            let at = start + self.packet_id_at;
            out[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
        }
    }
}

impl Broker {
    /// Delivers one message to one session: sends it, or lets it wait.
    pub(super) fn deliver(
        &mut self,
        key: SessionKey,
        publication: &mut Lazy<'_>,
        grant: &Grant,
        is_fan_out: bool,
    ) -> Outcome {
        let outcome = self.hand_over(key, publication, grant, is_fan_out);
        self.note_load(key, false);
        if let Some(tracer) = &mut self.tracer {
            tracer.taker(outcome, &self.connections);
        }
        outcome
    }

    fn hand_over(
        &mut self,
        key: SessionKey,
        publication: &mut Lazy<'_>,
        grant: &Grant,
        is_fan_out: bool,
    ) -> Outcome {
        let (fate, is_durable) = self.fate(key, publication, grant);
        match fate {
            Fate::Offline => return Outcome::Offline,
            Fate::Dropped(reason) => {
                self.count_session_drop(key, reason, grant.qos);
                if reason == DropReason::SlowConsumer {
                    self.note_slow(key);
                }
                return Outcome::Dropped;
            }
            Fate::Sent | Fate::Queued => {}
        }
        let is_numbered = grant.qos > QoS::AtMostOnce;
        let logged = if is_numbered && is_durable {
            let logged =
                publication.log.logged.or_else(|| self.log_delivery(key, publication, grant));
            let may_leave = !self.waits_for_log(publication, grant.qos);
            logged.map(|logged| if may_leave { Logged { after: 0, ..logged } } else { logged })
        } else {
            None
        };
        if matches!(fate, Fate::Queued) {
            return self.enqueue(key, publication, grant, logged);
        }
        let mut delivery = Delivery {
            message: publication.message,
            qos: grant.qos,
            retain: grant.retain,
            dup: false,
            packet_id: None,
            topic: TopicForm::Name,
            identifiers: &grant.identifiers,
        };
        if is_numbered {
            let queued = grant.queued(publication.keep(), logged);
            let Some(session) = self.sessions.get_mut(key) else { return Outcome::Offline };
            delivery.packet_id = Some(session.outbox.start(queued));
        }
        self.send_publish(key, &delivery, is_fan_out)
    }

    /// What is to become of a message for one taker, if nothing else happens before, and whether the
    /// log has the taker.
    pub(super) fn fate(
        &self,
        key: SessionKey,
        publication: &Lazy<'_>,
        grant: &Grant,
    ) -> (Fate, bool) {
        match self.sessions.get(key) {
            Some(session) => {
                (self.fate_for(session, publication, grant), session.durable.is_some())
            }
            None => (Fate::Offline, false),
        }
    }

    fn fate_for(&self, session: &Session, publication: &Lazy<'_>, grant: &Grant) -> Fate {
        let message = &publication.message;
        // MQTT-3.3.2-5: between shards it may take long. An interval of 0 does not pass in no time.
        if message.expires_at.is_some_and(|at| at < self.now) {
            return Fate::Dropped(DropReason::Expired);
        }
        let connection = session.conn.and_then(|conn| self.connections.get(conn));
        let is_numbered = grant.qos > QoS::AtMostOnce;
        let may_be_sent = match connection {
            None if is_numbered || self.policy.limits.queue_qos0 => false,
            None => return Fate::Offline,
            Some(connection) if is_numbered => {
                !(session.durable.is_some() && self.waits_for_log(publication, grant.qos))
                    && connection.output.len() < limits::OUTPUT_BYTES_HIGH
                    && session.outbox.has_room(connection.quota)
            }
            Some(connection) if session.outbox.qos0_may_pass() => {
                let backlog = connection.backlog();
                let passes = || {
                    let bytes_max =
                        self.policy.listener(connection.origin.listener).output_bytes_max;
                    let bytes_max = bytes_max.min(self.policy.limits.queue_bytes_max);
                    (backlog + message.size()) as u64 > bytes_max
                };
                if backlog > 0 && !grant.is_paced && passes() {
                    return Fate::Dropped(DropReason::SlowConsumer);
                }
                true
            }
            Some(_) => false,
        };
        if may_be_sent {
            return Fate::Sent;
        }
        let bytes = (message.size() + size_of_val(grant.identifiers.as_slice())) as u64;
        match session.outbox.admits(bytes, self.queue_bounds_for(grant)) {
            Ok(()) => Fate::Queued,
            Err(refused) => Fate::Dropped(refused.into()),
        }
    }

    /// Whether the session outlives the process.
    pub(super) fn is_durable(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| session.durable.is_some())
    }

    fn enqueue(
        &mut self,
        key: SessionKey,
        publication: &mut Lazy<'_>,
        grant: &Grant,
        logged: Option<Logged>,
    ) -> Outcome {
        let bounds = self.queue_bounds_for(grant);
        let Some(session) = self.sessions.get_mut(key) else { return Outcome::Offline };
        if let Err(refused) = session.outbox.queue(grant.queued(publication.keep(), logged), bounds)
        {
            self.count_session_drop(key, refused.into(), grant.qos);
            return Outcome::Dropped;
        }
        if session.conn.is_some()
            && logged.is_some_and(|logged| logged.after > 0)
            && let Some(durable) = &mut self.durable
        {
            durable.hold_back(key);
        }
        Outcome::Queued
    }

    /// Whether a delivery to a session that outlives the process may not leave before its record is on disk.
    /// At QoS 2, or else it could come again under another identifier, or another one under its identifier,
    /// which the client would take for a repetition; and of an intake, or else what has left would be routed
    /// again after a crash as if it had not.
    pub(super) const fn waits_for_log(&self, publication: &Lazy<'_>, qos: QoS) -> bool {
        match qos {
            // Whose acknowledgement it was that did not wait does not matter here.
            QoS::ExactlyOnce => !self.policy.durability.relaxed,
            _ => !publication.log.is_relaxed && publication.log.origin.is_some(),
        }
    }

    fn queue_bounds_for(&self, grant: &Grant) -> QueueBounds {
        match grant.is_paced {
            true => QueueBounds { messages_max: usize::MAX, bytes_max: u64::MAX },
            false => self.queue_bounds(),
        }
    }

    /// Bounds of what waits for one client.
    pub(super) const fn queue_bounds(&self) -> QueueBounds {
        let limits = &self.policy.limits;
        QueueBounds {
            messages_max: limits.queue_messages_max as usize,
            bytes_max: limits.queue_bytes_max,
        }
    }

    /// Puts a PUBLISH into the output of the session's connection.
    fn send_publish(
        &mut self,
        key: SessionKey,
        delivery: &Delivery<'_>,
        is_fan_out: bool,
    ) -> Outcome {
        if delivery.message.is_large() {
            return self.send_large(key, delivery);
        }
        let conn = self.sessions.get(key).and_then(|session| session.conn);
        let Some(conn) = conn else { return Outcome::Offline };
        let Some(connection) = self.connections.writer(conn) else { return Outcome::Offline };
        let Connection { version, output, packet_bytes_max, aliases_out, .. } = connection;
        let output = output.tail();
        let start = output.len();
        if delivery.size_max() > limits::REMAINING_LENGTH_MAX as usize {
            let reason = DropReason::PacketTooLarge;
            return self.drop_unsent(key, reason, delivery.qos, delivery.packet_id);
        }
        let bytes_max = *packet_bytes_max as usize;
        // A client may keep a QoS 2 message unresolved until PUBREL, when the alias may be another's;
        // MQTT.js 5.16 loses the topic so.
        let aliased = aliases_out
            .as_mut()
            .filter(|_| delivery.qos < QoS::ExactlyOnce)
            .is_some_and(|aliases| append_aliased(aliases, delivery, self.now, bytes_max, output));
        let is_common = is_fan_out && (delivery.identifiers.is_empty() || *version < Version::V5);
        if !aliased && is_common {
            self.wire_form.append(delivery, *version, self.now, output);
        } else if !aliased {
            delivery.encode(*version, self.now, output);
        }
        if output.len() - start > bytes_max {
            output.truncate(start);
            let reason = DropReason::PacketTooLarge;
            return self.drop_unsent(key, reason, delivery.qos, delivery.packet_id);
        }
        self.counters.publishes_sent += 1;
        packet_log::sending_publish(&self.sessions, key, delivery);
        Outcome::Encoded(conn)
    }

    /// As if it had been sent and acknowledged (MQTT-3.1.2-25).
    pub(super) fn drop_unsent(
        &mut self,
        key: SessionKey,
        reason: DropReason,
        qos: QoS,
        packet_id: Option<PacketId>,
    ) -> Outcome {
        if let (Some(id), Some(session)) = (packet_id, self.sessions.get_mut(key)) {
            let finished = session.outbox.abandon(id);
            self.finish_delivery(key, finished);
        }
        self.count_session_drop(key, reason, qos);
        Outcome::Dropped
    }

    /// Counts a message that a client does not get, or that it may not publish.
    /// Logs the first, second, fourth, eighth ... of each session.
    pub(super) fn count_session_drop(&mut self, key: SessionKey, reason: DropReason, qos: QoS) {
        self.counters.count_drop(reason);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.drops = session.drops.saturating_add(1);
        if session.drops.is_power_of_two() {
            tracing::warn!(
                client = %session.client,
                reason = reason.name(),
                qos = qos.bits(),
                dropped = session.drops,
                "message dropped"
            );
        }
    }

    /// Sends what waits for a client, as far as its window and output allow.
    pub(super) fn pump(&mut self, key: SessionKey) {
        self.note_load(key, false);
        self.send_waiting(key);
        while self.read_ahead(key) {
            self.send_waiting(key);
        }
        self.note_load(key, false);
        self.schedule_fetch(key);
    }

    fn send_waiting(&mut self, key: SessionKey) {
        let committed = self.committed();
        loop {
            let Some(session) = self.sessions.get_mut(key) else { return };
            let Some(conn) = session.conn else { return };
            let Some(connection) = self.connections.get(conn) else { return };
            if connection.output.len() >= limits::OUTPUT_BYTES_HIGH {
                return;
            }
            match session.outbox.next(connection.quota, committed, self.now) {
                None => {
                    if let Some(rights) = &mut session.rights {
                        rights.is_rechecked &= session.outbox.load() > 0;
                    }
                    break;
                }
                Some(Outgoing::Publish { queued, packet_id, .. })
                    if self.acl.is_some()
                        && !self.may_leave(key, queued.publication.message().topic) =>
                {
                    self.drop_unsent(key, DropReason::ReceiveDenied, queued.qos, packet_id);
                }
                Some(Outgoing::Publish { queued, packet_id, dup }) => {
                    let delivery = Delivery {
                        message: queued.publication.message(),
                        qos: queued.qos,
                        retain: queued.retain,
                        dup,
                        packet_id,
                        topic: TopicForm::Name,
                        identifiers: &queued.identifiers,
                    };
                    self.send_publish(key, &delivery, false);
                }
                Some(Outgoing::Release(id)) => {
                    let Some(connection) = self.connections.writer(conn) else { return };
                    let release = Ack::success(id);
                    packet_log::sending_ack(&self.sessions, key, PacketType::PubRel, &release);
                    encode_ack(PacketType::PubRel, id, connection.output.tail());
                }
                Some(Outgoing::Expired(qos, finished)) => {
                    self.finish_delivery(key, finished);
                    self.count_session_drop(key, DropReason::Expired, qos);
                }
            }
        }
    }
}

/// Appends the packet with a topic alias; false if there is none for its topic,
/// or if the packet fits the client's Maximum Packet Size only without, if at all.
fn append_aliased(
    aliases: &mut ToClient,
    delivery: &Delivery<'_>,
    now: Time,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> bool {
    let topic = aliases.form(delivery.message.topic.as_str());
    if topic == TopicForm::Name {
        return false;
    }
    let start = out.len();
    Delivery { topic, ..*delivery }.encode(Version::V5, now, out);
    let fits = out.len() - start <= bytes_max;
    if !fits {
        out.truncate(start);
        aliases.take_back(topic);
    }
    fits
}
