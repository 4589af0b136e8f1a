//! From a publication to its subscribers: on this shard at once, on others by
//! one message each (MQTT 5.0 sections 3.3.4 and 4.7).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    base::{ConnId, PacketId, QoS, RetainId, SessionKey, ShardId, ShardSet, Time, limits},
    codec::{PacketType, Version, encode_ack},
    message::{Delivery, Identifiers, Message, Publication, TopicForm},
    session::{Outgoing, QueueBounds, Queued},
    topic::{LocalMatch, Matches, Member, SharedMatch, SubscriptionOptions},
};

use super::{
    Broker, DropReason,
    connection::Connection,
    mesh::{ChosenMember, Forward, Mesh},
    packet_log,
    share::identity,
    topic_aliases::ToClient,
};

/// A message that is copied out of its packet once somebody has to keep it.
pub(super) struct Lazy<'a> {
    pub(super) message: Message<'a>,
    kept: Option<Arc<Publication>>,
    /// Which one it is, if it is live and has RETAIN.
    pub(super) retain_id: Option<RetainId>,
}

impl<'a> Lazy<'a> {
    pub(super) fn new(message: Message<'a>) -> Self {
        Self { message, kept: None, retain_id: None }
    }

    pub(super) fn kept(publication: &'a Arc<Publication>) -> Self {
        let kept = Some(publication.clone());
        Self { message: publication.message(), kept, retain_id: None }
    }

    pub(super) fn keep(&mut self) -> Arc<Publication> {
        self.kept.get_or_insert_with(|| Publication::new(&self.message)).clone()
    }
}

/// How one session gets a message: the sum of its matching subscriptions.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Identifiers,
    /// Comes no faster than the client takes it, so no bound on what waits for it
    /// has to hold it back, and nothing of it is dropped.
    is_paced: bool,
}

impl Grant {
    /// What one subscription grants a message.
    fn new(message: &Message<'_>, options: &SubscriptionOptions) -> Self {
        Self {
            qos: message.qos.min(options.qos),
            retain: message.retain && options.retain_as_published,
            identifiers: options.identifier.into_iter().collect(),
            is_paced: false,
        }
    }

    /// A retained message for a new subscription: RETAIN is set (3.1.1:MQTT-3.3.1-8).
    pub(super) fn retained(message: &Message<'_>, options: &SubscriptionOptions) -> Self {
        Self { retain: true, is_paced: true, ..Self::new(message, options) }
    }

    /// Overlapping subscriptions of one session: one delivery with the highest
    /// QoS and all identifiers (section 3.3.4).
    fn merge(&mut self, message: &Message<'_>, options: &SubscriptionOptions) {
        let other = Self::new(message, options);
        self.qos = self.qos.max(other.qos);
        self.retain |= other.retain;
        self.identifiers.extend(other.identifiers);
    }

    fn queued(&self, publication: Arc<Publication>) -> Queued {
        Queued {
            publication,
            qos: self.qos,
            retain: self.retain,
            identifiers: self.identifiers.clone(),
        }
    }
}

/// The PUBLISH packet encoded last, for subscribers that get the same bytes.
#[derive(Debug, Default)]
pub(super) struct WireForm {
    key: Option<(Version, QoS, bool)>,
    bytes: Vec<u8>,
    packet_id_at: usize,
}

impl WireForm {
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

impl Broker {
    /// Sends a message of this shard's to all its takers; false if there are none.
    pub(super) fn route(
        &mut self,
        publication: &mut Lazy<'_>,
        publisher: Option<SessionKey>,
    ) -> bool {
        if let Some(tracer) = &mut self.tracer {
            tracer.begin(&publication.message, publisher, &self.sessions);
        }
        let mut matches = std::mem::take(&mut self.matches);
        let (sessions, placement) = (&self.sessions, &self.placement);
        let client = || publisher.map_or(0, |key| identity(sessions, placement, key));
        self.index.matches(publication.message.topic, client, &mut matches);
        if let Some(tracer) = &mut self.tracer {
            tracer.matched();
        }
        let Matches { local, shards, shared, .. } = &mut matches;
        let has_takers = !local.is_empty() || !shards.is_empty() || !shared.is_empty();
        self.deliver_local(publication, local, publisher);
        self.forward(publication, *shards, shared);
        self.matches = matches;
        self.end_trace();
        has_takers
    }

    /// Takes in a message that another shard has routed here.
    pub(super) fn receive_forward(&mut self, forward: Forward) {
        let mut publication = Lazy::kept(&forward.publication);
        publication.retain_id = forward.retain_id;
        if let Some(id) = forward.retain_id {
            self.peers.note_passed(id);
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.begin_forwarded(&publication.message);
        }
        if forward.ordinary {
            let mut matches = std::mem::take(&mut self.matches);
            self.index.matches_local(publication.message.topic, &mut matches);
            self.deliver_local(&mut publication, &mut matches.local, None);
            self.matches = matches;
        }
        for chosen in forward.shared {
            self.deliver_to_member(&mut publication, chosen);
        }
        self.end_trace();
    }

    /// Sends what waits for a client, as far as its window and output allow.
    pub(super) fn pump(&mut self, key: SessionKey) {
        self.note_load(key, false);
        loop {
            let Some(session) = self.sessions.get_mut(key) else { return };
            let Some(conn) = session.conn else { return };
            let Some(connection) = self.connections.get(conn) else { return };
            if connection.output.len() >= limits::OUTPUT_BYTES_HIGH {
                return;
            }
            match session.outbox.next(connection.quota, self.now) {
                None => break,
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
                    packet_log::sending_ack(&self.sessions, key, PacketType::PubRel, id);
                    encode_ack(PacketType::PubRel, id, &mut connection.output);
                }
                Some(Outgoing::Expired(queued)) => {
                    self.count_session_drop(key, DropReason::Expired, queued.qos);
                }
            }
        }
        self.note_load(key, false);
        self.schedule_fetch(key);
    }

    /// Delivers to the subscribers of this shard. A session with several
    /// matching subscriptions gets the message once.
    fn deliver_local(
        &mut self,
        publication: &mut Lazy<'_>,
        local: &mut Vec<LocalMatch>,
        publisher: Option<SessionKey>,
    ) {
        if let Some(publisher) = publisher {
            let all = local.len();
            // MQTT-3.8.3-3.
            local.retain(|found| !found.options.no_local || found.session != publisher);
            if local.len() < all {
                // Nor is it to come from the store.
                self.note_live(publisher, publication);
            }
        }
        // One filter's subscribers come in order and once each.
        if !local.is_sorted_by(|a, b| a.session < b.session) {
            local.sort_by_key(|found| found.session);
        }
        let is_fan_out = local.len() > 1;
        self.wire_form.key = None;
        for same in local.chunk_by(|a, b| a.session == b.session) {
            let mut grant = Grant::new(&publication.message, &same[0].options);
            for other in &same[1..] {
                grant.merge(&publication.message, &other.options);
            }
            let outcome = self.deliver(same[0].session, publication, &grant, is_fan_out);
            if publication.retain_id.is_some() && !matches!(outcome, Outcome::Offline) {
                self.note_live(same[0].session, publication);
            }
        }
    }

    /// Hands a message to the other shards that have takers, one message each.
    fn forward(
        &mut self,
        publication: &mut Lazy<'_>,
        ordinary: ShardSet,
        shared: &mut Vec<SharedMatch>,
    ) {
        let mut shards = ordinary;
        shards.remove(self.shard);
        let mut chosen: SmallVec<[(ShardId, ChosenMember); 4]> = SmallVec::new();
        for SharedMatch { filter, member, options, hash } in shared.drain(..) {
            if member.shard == self.shard {
                let grant = Grant::new(&publication.message, &options);
                self.deliver(member.session, publication, &grant, false);
            } else {
                shards.insert(member.shard);
                let session = member.session;
                chosen.push((member.shard, ChosenMember { filter, session, hash, hops: 0 }));
            }
        }
        for shard in shards.iter() {
            let here = chosen.iter().filter(|(at, _)| *at == shard);
            let forward = Forward {
                publication: publication.keep(),
                retain_id: publication.retain_id,
                ordinary: ordinary.contains(shard),
                shared: here.map(|(_, member)| member.clone()).collect(),
            };
            self.send_forward(shard, forward);
            self.counters.forwarded += 1;
        }
    }

    /// If the publication is traced, the other shard learns so from the message before it.
    fn send_forward(&mut self, to: ShardId, forward: Forward) {
        if let Some(tracer) = &mut self.tracer
            && let Some(start) = tracer.forwarded()
        {
            self.peers.send(to, Mesh::Traced(start));
        }
        self.peers.send(to, Mesh::Publish(forward));
    }

    fn end_trace(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            tracer.end(self.now);
        }
    }

    /// Delivers to a member that another shard has chosen; if it has left or gone
    /// offline meanwhile, one is chosen anew.
    fn deliver_to_member(&mut self, publication: &mut Lazy<'_>, chosen: ChosenMember) {
        let ChosenMember { filter, session, hash, hops } = chosen;
        self.note_load(session, true);
        let member = Member { shard: self.shard, session };
        let options = self.index.member_options(&filter, member);
        let is_online = self.sessions.get(session).is_some_and(|found| found.conn.is_some());
        if let Some(options) = options
            && (is_online || hops >= limits::SHARE_HOPS_MAX)
        {
            let grant = Grant::new(&publication.message, &options);
            self.deliver(session, publication, &grant, false);
            return;
        }
        match self.index.pick(&filter, hash) {
            Some((other, options)) if other.shard == self.shard => {
                let grant = Grant::new(&publication.message, &options);
                self.deliver(other.session, publication, &grant, false);
            }
            Some((other, _)) if hops < limits::SHARE_DEPARTURES_MAX => {
                let next = ChosenMember { filter, session: other.session, hash, hops: hops + 1 };
                let publication = publication.keep();
                let shared = [next].into_iter().collect();
                // Not from its publisher's shard.
                let retain_id = None;
                let forward = Forward { publication, retain_id, ordinary: false, shared };
                self.send_forward(other.shard, forward);
            }
            _ => {
                self.counters.count_drop(DropReason::NoMember);
                let topic = publication.message.topic;
                tracing::debug!(%filter, %topic, "no member of the shared subscription is left");
            }
        }
    }

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
        // MQTT-3.3.2-5: between shards it may take long. An interval of 0 does not pass in no time.
        if publication.message.expires_at.is_some_and(|at| at < self.now) {
            self.count_session_drop(key, DropReason::Expired, grant.qos);
            return Outcome::Dropped;
        }
        let Some(session) = self.sessions.get_mut(key) else { return Outcome::Offline };
        let connection = session.conn.and_then(|conn| self.connections.get(conn));
        let Some(connection) = connection else {
            if grant.qos > QoS::AtMostOnce || self.policy.limits.queue_qos0 {
                return self.enqueue(key, publication, grant);
            }
            return Outcome::Offline;
        };
        let mut delivery = Delivery {
            message: publication.message,
            qos: grant.qos,
            retain: grant.retain,
            dup: false,
            packet_id: None,
            topic: TopicForm::Name,
            identifiers: &grant.identifiers,
        };
        if grant.qos == QoS::AtMostOnce && session.outbox.qos0_may_pass() {
            let backlog = connection.backlog();
            let backlog_max = self.policy.limits.queue_bytes_max.min(limits::OUTPUT_BYTES_MAX);
            let passes = (backlog + delivery.message.size()) as u64 > backlog_max;
            if backlog > 0 && passes && !grant.is_paced {
                self.count_session_drop(key, DropReason::SlowConsumer, QoS::AtMostOnce);
                return Outcome::Dropped;
            }
            self.send_publish(key, &delivery, is_fan_out)
        } else if grant.qos > QoS::AtMostOnce
            && connection.output.len() < limits::OUTPUT_BYTES_HIGH
            && session.outbox.has_room(connection.quota)
        {
            delivery.packet_id = Some(session.outbox.start(grant.queued(publication.keep())));
            self.send_publish(key, &delivery, is_fan_out)
        } else {
            self.enqueue(key, publication, grant)
        }
    }

    fn enqueue(&mut self, key: SessionKey, publication: &mut Lazy<'_>, grant: &Grant) -> Outcome {
        let bounds = match grant.is_paced {
            true => QueueBounds { messages_max: usize::MAX, bytes_max: u64::MAX },
            false => self.queue_bounds(),
        };
        let Some(session) = self.sessions.get_mut(key) else { return Outcome::Offline };
        if let Err(refused) = session.outbox.queue(grant.queued(publication.keep()), bounds) {
            self.count_session_drop(key, refused.into(), grant.qos);
            return Outcome::Dropped;
        }
        Outcome::Queued
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
        let conn = self.sessions.get(key).and_then(|session| session.conn);
        let Some(conn) = conn else { return Outcome::Offline };
        let Some(connection) = self.connections.writer(conn) else { return Outcome::Offline };
        let Connection { version, output, packet_bytes_max, aliases_out, .. } = connection;
        let start = output.len();
        // An identifier takes up to five bytes.
        let size = delivery.message.size() + 5 * delivery.identifiers.len();
        if size + PUBLISH_OVERHEAD > limits::REMAINING_LENGTH_MAX as usize {
            return self.drop_too_large(key, delivery.qos, delivery.packet_id);
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
            return self.drop_too_large(key, delivery.qos, delivery.packet_id);
        }
        self.counters.publishes_sent += 1;
        packet_log::sending_publish(&self.sessions, key, delivery);
        Outcome::Encoded(conn)
    }

    /// MQTT-3.1.2-25: as if it had been sent and acknowledged.
    fn drop_too_large(
        &mut self,
        key: SessionKey,
        qos: QoS,
        packet_id: Option<PacketId>,
    ) -> Outcome {
        if let (Some(id), Some(session)) = (packet_id, self.sessions.get_mut(key)) {
            session.outbox.abandon(id);
        }
        self.count_session_drop(key, DropReason::PacketTooLarge, qos);
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

/// Most bytes of a PUBLISH besides topic, payload, received properties and Subscription
/// Identifiers: lengths, Packet Identifier, Message Expiry Interval.
const PUBLISH_OVERHEAD: usize = 32;
