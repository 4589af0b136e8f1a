//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 sections 3.8 to 3.11): changes of the
//! index on all shards, acknowledged when they are in force everywhere.

use std::num::NonZeroU32;

use smallvec::SmallVec;

use crate::{
    base::{ConnId, PacketId, QoS, SessionKey, ShardId},
    codec::{
        Packet, Properties, Property, ReasonCode, SubAck, Subscribe, SubscribeFilter, UnsubAck,
        Unsubscribe, Version,
    },
    session::Fetch,
    topic::{
        Added, FilterKind, Marks, Member, Removed, RetainHandling, Subscription,
        SubscriptionOptions, TopicFilter, TopicName,
    },
};

use super::{Broker, Flow, close::Cause, mesh::Mesh, share::identity};

/// Something for a session that waits until all shards have applied a change.
/// Bounded by what clients ask while a lane turns around.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    /// Stamp of the last index change it depends on.
    pub(super) stamp: u64,
    /// How many records of the log are to be on disk before it.
    pub(super) commit: u64,
    pub(super) key: SessionKey,
    pub(super) answer: Answer,
}

#[derive(Debug)]
pub(super) enum Answer {
    SubAck {
        conn: ConnId,
        packet_id: PacketId,
        reasons: Reasons,
    },
    UnsubAck {
        conn: ConnId,
        packet_id: PacketId,
        reasons: Reasons,
    },
    /// It is in the output already, which is held.
    ConnAck {
        conn: ConnId,
    },
    /// The retained messages that were requested.
    Retained,
}

/// What a SUBSCRIBE asks for, filter by filter, and what is refused of it already.
pub(super) type Wishes = SmallVec<[Result<Subscription, ReasonCode>; 4]>;

/// Reason codes of a SUBACK or UNSUBACK.
type Reasons = SmallVec<[u8; 8]>;

impl Broker {
    pub(super) fn subscribe(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        subscribe: &Subscribe<'_>,
    ) -> Flow {
        let identifier = subscribe.properties.iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(value) => NonZeroU32::new(value),
            _ => None,
        });
        if subscribe.filters().count() > self.policy.limits.subscriptions_max as usize {
            return self.close(conn, too_many_filters());
        }
        let is_v5 = self.connections.get(conn).is_some_and(|one| one.version == Version::V5);
        if identifier.is_some() && !self.policy.limits.subscription_identifiers_available {
            let reason = ReasonCode::SubscriptionIdentifiersNotSupported;
            return self.close(conn, Cause::Refused(reason, "Subscription Identifier"));
        }
        // All or nothing: no filter takes effect if one is malformed.
        let mut wishes = Wishes::new();
        for asked in subscribe.filters() {
            match TopicFilter::parse(asked.filter) {
                Ok(filter) => match self.unavailable(&filter) {
                    // CONNACK told so (sections 3.2.2.3.11 and 3.2.2.3.13).
                    Some(reason) if is_v5 => {
                        return self.close(conn, Cause::Refused(reason, "not available here"));
                    }
                    Some(reason) => wishes.push(Err(reason)),
                    None => {
                        let filter = self.read_filter(key, filter);
                        let filter = filter.ok_or(ReasonCode::TopicFilterInvalid);
                        wishes.push(filter.map(|filter| wish(&asked, filter, identifier)));
                    }
                },
                Err(error) if error.is_malformed() => {
                    return self.close(conn, Cause::MalformedFilter(error));
                }
                Err(_) => wishes.push(Err(ReasonCode::TopicFilterInvalid)),
            }
        }
        self.claim_exclusives(conn, key, subscribe.packet_id, wishes);
        Flow::Continue
    }

    /// Puts what a SUBSCRIBE asks for in force, and sees to its SUBACK.
    pub(super) fn grant(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        packet_id: PacketId,
        wishes: Wishes,
    ) {
        let reasons = self.add_subscriptions(key, wishes);
        let stamp = self.peers.index_stamp();
        let commit = self.commit_for(key);
        let answer = Answer::SubAck { conn, packet_id, reasons };
        self.answer_later(PendingAnswer { stamp, commit, key, answer });
        self.release_answers();
    }

    /// Puts subscriptions in force here and has the other shards do so.
    pub(super) fn add_subscriptions(&mut self, key: SessionKey, wishes: Wishes) -> Reasons {
        let mut reasons = Reasons::new();
        let mut fetches: SmallVec<[Fetch; 1]> = SmallVec::new();
        for wish in wishes {
            let reason = match wish {
                Ok(subscription) => self.add_subscription(key, subscription, &mut fetches),
                Err(reason) => reason,
            };
            reasons.push(reason.0);
        }
        self.tell_storage();
        let stamp = self.peers.index_stamp();
        let commit = self.commit_for(key);
        if let Some(session) = self.sessions.get_mut(key) {
            // They start with SUBACK, but live messages may pass before that.
            for mut fetch in fetches {
                fetch.starts_at = stamp;
                session.fetches.add(fetch);
            }
            session.fetches.wait_for_commit(commit);
            session.fetches.hold_requests(stamp);
        }
        reasons
    }

    pub(super) fn unsubscribe(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Flow {
        if unsubscribe.filters().count() > self.policy.limits.subscriptions_max as usize {
            return self.close(conn, too_many_filters());
        }
        let mut filters: SmallVec<[Option<TopicFilter>; 4]> = SmallVec::new();
        for text in unsubscribe.filters() {
            match TopicFilter::parse(text) {
                Ok(filter) => filters.push(self.read_filter(key, filter)),
                Err(error) if !error.is_malformed() => filters.push(None),
                Err(error) => return self.close(conn, Cause::MalformedFilter(error)),
            }
        }
        let mut reasons = Reasons::new();
        for filter in &filters {
            let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
            let reason = match filter {
                Some(filter) if session.subscriptions.remove(filter) => {
                    session.fetches.remove(filter);
                    self.log_unsubscribed(key, filter);
                    self.remove_subscription(key, filter);
                    ReasonCode::Success
                }
                Some(_) => ReasonCode::NoSubscriptionExisted,
                None => ReasonCode::TopicFilterInvalid,
            };
            reasons.push(reason.0);
        }
        self.tell_storage();
        let packet_id = unsubscribe.packet_id;
        let commit = self.commit_for(key);
        // Whoever asks for an exclusive one after the UNSUBACK is to find it free.
        let has_exclusive =
            filters.iter().flatten().any(|filter| filter.kind() == FilterKind::Exclusive);
        let stamp = if has_exclusive { self.peers.raise_barrier() } else { 0 };
        if has_exclusive || commit > 0 {
            let answer = Answer::UnsubAck { conn, packet_id, reasons };
            self.answer_later(PendingAnswer { stamp, commit, key, answer });
            self.release_answers();
        } else {
            self.reply_unsuback(conn, key, packet_id, &reasons);
        }
        Flow::Continue
    }

    /// Has an answer wait, behind others that wait for the same: those that need no disk do not wait
    /// for those that do.
    pub(super) fn answer_later(&mut self, pending: PendingAnswer) {
        match pending.commit {
            0 => self.pending_answers.push_back(pending),
            _ => self.pending_commits.push_back(pending),
        }
    }

    /// Gives the answers whose subscriptions are in force on every shard, and on disk.
    pub(super) fn release_answers(&mut self) {
        let committed = self.committed();
        let (peers, answers) = (&self.peers, &mut self.pending_answers);
        let is_ready = |pending: &PendingAnswer| {
            pending.commit <= committed && peers.index_applied(pending.stamp)
        };
        let mut ready = Vec::new();
        for line in [answers, &mut self.pending_commits] {
            while line.front().is_some_and(is_ready) {
                ready.extend(line.pop_front());
            }
        }
        for PendingAnswer { key, answer, .. } in ready {
            match answer {
                Answer::SubAck { conn, packet_id, reasons } => {
                    let properties = Properties::EMPTY;
                    let suback = SubAck { packet_id, properties, reasons: &reasons };
                    self.reply(conn, key, &Packet::SubAck(suback));
                }
                Answer::UnsubAck { conn, packet_id, reasons } => {
                    self.reply_unsuback(conn, key, packet_id, &reasons);
                }
                Answer::ConnAck { conn } => {
                    self.connections.release(conn);
                    self.end_farewell(conn);
                }
                Answer::Retained => {}
            }
            // At once for the first of many answers, the rest in turns of their own.
            if !self.sessions.get(key).is_some_and(|session| session.is_fetch_scheduled) {
                self.continue_fetch(key);
            }
        }
    }

    fn reply_unsuback(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        packet_id: PacketId,
        reasons: &[u8],
    ) {
        let unsuback = UnsubAck { packet_id, properties: Properties::EMPTY, reasons };
        self.reply(conn, key, &Packet::UnsubAck(unsuback));
    }

    /// Takes a subscription out of the index on every shard; the session's own
    /// list is the caller's business.
    pub(super) fn remove_subscription(&mut self, key: SessionKey, filter: &TopicFilter) {
        match filter.kind() {
            FilterKind::Shared | FilterKind::Queue => {
                self.index.leave(filter, Member { shard: self.shard, session: key });
                self.peers.broadcast(|| Mesh::Left { filter: filter.clone(), member: key });
            }
            FilterKind::Request => self.end_requests(key, filter),
            FilterKind::Plain | FilterKind::Exclusive => {
                if let Removed::Last = self.index.unsubscribe(filter, key) {
                    self.peers.broadcast(|| Mesh::Unsubscribed { filter: filter.clone() });
                }
                self.release_exclusive(key, filter);
            }
        }
    }

    /// Puts one subscription in force here and has the other shards do so.
    fn add_subscription(
        &mut self,
        key: SessionKey,
        subscription: Subscription,
        fetches: &mut SmallVec<[Fetch; 1]>,
    ) -> ReasonCode {
        let Subscription { filter, options, retain_handling } = subscription;
        let Some(session) = self.sessions.get(key) else {
            return ReasonCode::UnspecifiedError;
        };
        let is_durable = session.durable.is_some();
        let access = self.access_to(key, &filter);
        if !access.allowed {
            let is_held = session.subscriptions.contains(&filter);
            self.count_denied_subscription(key, &filter);
            if !is_held {
                self.release_exclusive(key, &filter);
            }
            return ReasonCode::NotAuthorized;
        }
        let options = SubscriptionOptions {
            marks: access.mark(Marks::durable(is_durable)),
            qos: options.qos.min(access.qos_max),
            ..options
        };
        let Some(session) = self.sessions.get(key) else {
            return ReasonCode::UnspecifiedError;
        };
        let is_new = !session.subscriptions.contains(&filter);
        let why = if session.subscriptions.len() >= self.policy.limits.subscriptions_max as usize {
            Some("subscriptions_max reached")
        } else if self.memory.refuses_subscriptions() {
            Some("memory_bytes_max reached")
        } else if !session.requests.has_room_for(&filter) {
            Some("too many $request filters with wildcards")
        } else {
            None
        };
        if is_new && let Some(why) = why {
            tracing::warn!(client = %session.client, %filter, why, "subscription refused");
            self.release_exclusive(key, &filter);
            return ReasonCode::QuotaExceeded;
        }
        if is_durable && self.log_refuses() {
            self.release_exclusive(key, &filter);
            return ReasonCode::QuotaExceeded;
        }
        self.log_subscribed(key, &filter, options, is_new);
        let Some(session) = self.sessions.get_mut(key) else {
            return ReasonCode::UnspecifiedError;
        };
        session.subscriptions.insert(filter.clone());
        match filter.kind() {
            FilterKind::Shared | FilterKind::Queue => self.join(key, filter, options, true),
            FilterKind::Request => session.requests.insert(filter, options),
            FilterKind::Plain | FilterKind::Exclusive => {
                let wants_retained = match retain_handling {
                    RetainHandling::SendAtSubscribe => true,
                    RetainHandling::SendIfNew => is_new,
                    RetainHandling::DoNotSend => false,
                };
                fetches.extend(self.listen(key, filter, options, wants_retained));
            }
        }
        granted(options.qos)
    }

    /// Makes the session a subscriber; returns its walk over the retained messages, if it wants one.
    pub(super) fn listen(
        &mut self,
        key: SessionKey,
        filter: TopicFilter,
        options: SubscriptionOptions,
        wants_retained: bool,
    ) -> Option<Fetch> {
        let added = self.index.subscribe(&filter, key, options);
        // The shards know a filter with earlier subscribers, but what they took for it
        // may be past here and not yet at its home: their confirmation waits for that.
        if added == Added::First || wants_retained {
            self.peers.broadcast_change(|stamp| Mesh::Subscribed { filter: filter.clone(), stamp });
        }
        wants_retained.then(|| {
            let shards = self.shards_with_topics_of(&filter);
            Fetch::new(filter, options, shards)
        })
    }

    /// Why such filters are not available, if they are not.
    fn unavailable(&self, filter: &TopicFilter) -> Option<ReasonCode> {
        let limits = &self.policy.limits;
        if filter.share_name().is_some() && !limits.shared_subscription_available {
            Some(ReasonCode::SharedSubscriptionsNotSupported)
        } else if filter.has_wildcard() && !limits.wildcard_subscription_available {
            Some(ReasonCode::WildcardSubscriptionsNotSupported)
        } else {
            None
        }
    }

    pub(super) fn join(
        &mut self,
        key: SessionKey,
        filter: TopicFilter,
        options: SubscriptionOptions,
        online: bool,
    ) {
        let member = Member { shard: self.shard, session: key };
        let identity = identity(&self.sessions, &self.placement, key);
        self.index.join(&filter, member, identity, options, online);
        // It may be busy with other subscriptions.
        self.note_load(key, false);
        self.peers.broadcast_change(|stamp| Mesh::Joined {
            filter: filter.clone(),
            member: key,
            identity,
            options,
            online,
            stamp,
        });
    }

    /// The first and the last shard that may hold retained messages for a filter.
    pub(super) fn shards_with_topics_of(&self, filter: &TopicFilter) -> (ShardId, ShardId) {
        match TopicName::parse(filter.pattern()) {
            Ok(topic) => {
                let home = self.home_of_topic(topic.as_str());
                (home, home)
            }
            Err(_) => (ShardId(0), ShardId(self.peers.shard_count() - 1)),
        }
    }
}

/// One filter of a SUBSCRIBE.
fn wish(
    asked: &SubscribeFilter<'_>,
    filter: TopicFilter,
    identifier: Option<NonZeroU32>,
) -> Subscription {
    // MQTT-3.2.2-10: a lower maximum_qos limits what is published, not what is asked for.
    let options = SubscriptionOptions {
        qos: asked.qos,
        no_local: asked.no_local,
        retain_as_published: asked.retain_as_published,
        identifier,
        ..Default::default()
    };
    Subscription { filter, options, retain_handling: asked.retain_handling }
}

/// More than the session could hold: not worth the memory to say so one by one.
const fn too_many_filters() -> Cause {
    Cause::Refused(ReasonCode::QuotaExceeded, "more filters in one packet than subscriptions_max")
}

const fn granted(qos: QoS) -> ReasonCode {
    ReasonCode(qos.bits())
}
