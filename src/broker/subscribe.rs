//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 sections 3.8 to 3.11): changes of the
//! index on all shards, acknowledged when they are in force everywhere.

use std::num::NonZeroU32;

use smallvec::SmallVec;

use crate::{
    base::{ConnId, PacketId, QoS, SessionKey, ShardId},
    codec::{
        Packet, Properties, Property, ReasonCode, RetainHandling, SubAck, Subscribe,
        SubscribeFilter, UnsubAck, Unsubscribe, Version,
    },
    session::Fetch,
    topic::{Added, Member, Removed, SubscriptionOptions, TopicFilter, TopicName},
};

use super::{Broker, Flow, close::Cause, mesh::Mesh};

/// A SUBACK that waits until all shards have applied the subscriptions.
/// Bounded by what clients ask while a lane turns around.
#[derive(Debug)]
pub(super) struct PendingSubAck {
    /// Stamp of the last index change it depends on.
    stamp: u64,
    conn: ConnId,
    key: SessionKey,
    packet_id: PacketId,
    reasons: SmallVec<[u8; 8]>,
}

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
        let mut filters: SmallVec<[(SubscribeFilter<'_>, Option<TopicFilter>); 4]> =
            SmallVec::new();
        for asked in subscribe.filters() {
            match TopicFilter::parse(asked.filter) {
                Ok(filter) => filters.push((asked, self.read_filter(key, filter))),
                Err(error) => return self.close(conn, Cause::MalformedFilter(error)),
            }
        }
        let mut known = filters.iter().filter_map(|(_, filter)| filter.as_ref());
        if is_v5 && let Some(reason) = known.find_map(|filter| self.unavailable(filter)) {
            return self.close(conn, Cause::Refused(reason, "told so in CONNACK"));
        }
        let mut reasons: SmallVec<[u8; 8]> = SmallVec::new();
        let mut fetches: SmallVec<[Fetch; 1]> = SmallVec::new();
        for (asked, filter) in filters {
            let reason = match filter {
                Some(filter) => {
                    self.add_subscription(key, &asked, filter, identifier, &mut fetches)
                }
                None => ReasonCode::TopicFilterInvalid,
            };
            reasons.push(reason.0);
        }
        let stamp = self.peers.index_stamp();
        if let Some(session) = self.sessions.get_mut(key) {
            // They start with SUBACK, but live messages may pass before that.
            for mut fetch in fetches {
                fetch.starts_at = stamp;
                session.fetches.add(fetch);
            }
        }
        let packet_id = subscribe.packet_id;
        self.pending_subacks.push_back(PendingSubAck { stamp, conn, key, packet_id, reasons });
        self.release_subacks();
        Flow::Continue
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
                Err(error) => return self.close(conn, Cause::MalformedFilter(error)),
            }
        }
        let mut reasons: SmallVec<[u8; 8]> = SmallVec::new();
        for filter in &filters {
            let Some(session) = self.sessions.get_mut(key) else { return Flow::Gone };
            let reason = match filter {
                Some(filter) if session.subscriptions.remove(filter) => {
                    session.fetches.remove(filter);
                    self.remove_subscription(key, filter);
                    ReasonCode::Success
                }
                Some(_) => ReasonCode::NoSubscriptionExisted,
                None => ReasonCode::TopicFilterInvalid,
            };
            reasons.push(reason.0);
        }
        let unsuback = UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: Properties::EMPTY,
            reasons: &reasons,
        };
        self.reply(conn, key, &Packet::UnsubAck(unsuback));
        Flow::Continue
    }

    /// Sends the SUBACKs whose subscriptions are in force on every shard.
    pub(super) fn release_subacks(&mut self) {
        while let Some(oldest) = self.pending_subacks.front()
            && self.peers.index_applied(oldest.stamp)
            && let Some(done) = self.pending_subacks.pop_front()
        {
            let PendingSubAck { conn, key, packet_id, reasons, .. } = done;
            let suback = SubAck { packet_id, properties: Properties::EMPTY, reasons: &reasons };
            self.reply(conn, key, &Packet::SubAck(suback));
            self.continue_fetch(key);
        }
    }

    /// Takes a subscription out of the index on every shard; the session's own
    /// list is the caller's business.
    pub(super) fn remove_subscription(&mut self, key: SessionKey, filter: &TopicFilter) {
        if filter.share_name().is_some() {
            self.index.leave(filter, Member { shard: self.shard, session: key });
            self.peers.broadcast(|| Mesh::Left { filter: filter.clone(), member: key });
        } else if let Removed::Last = self.index.unsubscribe(filter, key) {
            self.peers.broadcast(|| Mesh::Unsubscribed { filter: filter.clone() });
        }
    }

    /// Puts one subscription in force here and has the other shards do so.
    fn add_subscription(
        &mut self,
        key: SessionKey,
        asked: &SubscribeFilter<'_>,
        filter: TopicFilter,
        identifier: Option<NonZeroU32>,
        fetches: &mut SmallVec<[Fetch; 1]>,
    ) -> ReasonCode {
        let unavailable = self.unavailable(&filter);
        let Some(session) = self.sessions.get_mut(key) else {
            return ReasonCode::UnspecifiedError;
        };
        if let Some(reason) = unavailable {
            return reason;
        }
        let is_new = !session.subscriptions.contains(&filter);
        if is_new && session.subscriptions.len() >= self.policy.limits.subscriptions_max as usize {
            tracing::warn!(client = %session.client, %filter, "refused: subscriptions_max reached");
            return ReasonCode::QuotaExceeded;
        }
        session.subscriptions.insert(filter.clone());
        // MQTT-3.2.2-10: a lower maximum_qos limits what is published, not what is asked for.
        let options = SubscriptionOptions {
            qos: asked.qos,
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            identifier,
        };
        if filter.share_name().is_some() {
            self.join(key, filter, options);
            return granted(asked.qos);
        }
        let added = self.index.subscribe(&filter, key, options);
        let wants_retained = match asked.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // The shards know a filter with earlier subscribers, but what they took for it
        // may be past here and not yet at its home: their confirmation waits for that.
        if added == Added::First || wants_retained {
            self.peers.broadcast_change(|stamp| Mesh::Subscribed { filter: filter.clone(), stamp });
        }
        if wants_retained {
            let shards = self.shards_with_topics_of(&filter);
            fetches.push(Fetch::new(filter, options, shards));
        }
        granted(asked.qos)
    }

    /// Why such filters are not available, if they are not. For v5 clients, which CONNACK told so,
    /// they are an error (sections 3.2.2.3.11 and 3.2.2.3.13); others learn it from SUBACK.
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

    fn join(&mut self, key: SessionKey, filter: TopicFilter, options: SubscriptionOptions) {
        let member = Member { shard: self.shard, session: key };
        self.index.join(&filter, member, options, true);
        self.peers.broadcast_change(|stamp| Mesh::Joined {
            filter: filter.clone(),
            member: key,
            options,
            stamp,
        });
    }

    /// The first and the last shard that may hold retained messages for a filter.
    fn shards_with_topics_of(&self, filter: &TopicFilter) -> (ShardId, ShardId) {
        match TopicName::parse(filter.pattern()) {
            Ok(topic) => {
                let home = self.home_of_topic(topic.as_str());
                (home, home)
            }
            Err(_) => (ShardId(0), ShardId(self.peers.shard_count() - 1)),
        }
    }
}

/// More than the session could hold: not worth the memory to say so one by one.
const fn too_many_filters() -> Cause {
    Cause::Refused(ReasonCode::QuotaExceeded, "more filters in one packet than subscriptions_max")
}

const fn granted(qos: QoS) -> ReasonCode {
    ReasonCode(qos.bits())
}
