//! Retained messages (MQTT 5.0 section 3.3.1.3): kept on the shard that their
//! topic hashes to, walked page by page for new subscriptions and requests.

use std::sync::Arc;

use crate::{
    base::{QoS, RetainId, SessionKey, ShardId, limits},
    codec::Properties,
    config::RetainedTtl,
    message::{Message, Publication},
    storage::{Hold, PublicationRecord, Record},
    topic::{FilterKind, OfTopic, TopicName},
};

use super::{
    Broker, DropReason,
    ack_line::Waits,
    mesh::{Mesh, RetainedPage, RetainedQuery},
    route::{Grant, Lazy},
};

/// A retained message as its topic's home has it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) publication: Arc<Publication>,
    /// The publication that it is a copy of.
    pub(super) id: RetainId,
    /// What it keeps of its home's log.
    pub(super) hold: Option<Hold>,
}

/// Together with the message itself it is there a million times.
const _: () = assert!(size_of::<Stored>() == 40);

impl OfTopic for Stored {
    fn topic(&self) -> &str {
        self.publication.message().topic.as_str()
    }
}

impl Broker {
    /// Keeps a message as its topic's retained one. Adds what has to happen before that is acknowledged.
    pub(super) fn retain(&mut self, publication: &mut Lazy<'_>, id: RetainId, waits: &mut Waits) {
        let home = self.home_of_topic(publication.message.topic.as_str());
        if home == self.shard {
            if publication.log.is_unkept {
                self.discard_retained(&publication.message);
            } else if !publication.log.is_stored {
                self.retain_here(publication, id);
            }
        } else if publication.log.origin.is_none() {
            let stored = Stored { publication: self.kept_copy(publication), id, hold: None };
            waits.shards.push(self.peers.send_retain(home, stored));
        }
    }

    /// The same on the topic's home, for one whose record is in the log if there is one.
    pub(super) fn retain_here(&mut self, publication: &mut Lazy<'_>, id: RetainId) {
        let logged = publication.log.logged.filter(|_| publication.log.keeps);
        let hold = logged.map(|logged| logged.hold).or(publication.log.copy);
        let publication = self.kept_copy(publication);
        self.store_retained(Stored { publication, id, hold });
    }

    /// Sees to it that the log says what this shard, the topic's home, retains of a publication: in the
    /// record of that, or in one before it if a rule makes that another message. One of the two has its
    /// origin, so that it never takes the place of a later one.
    pub(super) fn log_what_is_kept(&mut self, publication: &mut Lazy<'_>, has_takers: bool) {
        if self.home_of_topic(publication.message.topic.as_str()) != self.shard {
            return;
        }
        let is_free = publication.log.origin.is_none();
        publication.log.is_unkept = is_free && self.cannot_keep(&publication.message);
        if publication.log.is_unkept {
            return;
        }
        publication.log.keeps = self.retained_ttl_rule(&publication.message).is_none();
        if !publication.log.keeps {
            let copy = self.kept_copy(publication);
            let origin = publication.log.origin.filter(|_| !has_takers);
            publication.log.copy = self.log_retained(&copy.message(), origin);
        }
    }

    fn retained_ttl_rule(&self, message: &Message<'_>) -> Option<&RetainedTtl> {
        self.policy.retained_ttl.iter().find(|rule| rule.filter.matches(message.topic))
    }

    /// Takes in a retained message from its publisher's shard. Returns how many records are to be on
    /// disk before it is acknowledged there.
    pub(super) fn receive_retained(&mut self, mut stored: Stored) -> u64 {
        if self.cannot_keep(&stored.publication.message()) {
            self.discard_retained(&stored.publication.message());
            return 0;
        }
        stored.hold = self.log_retained(&stored.publication.message(), None);
        let is_acknowledged = stored.publication.message().qos > QoS::AtMostOnce;
        let commit = if is_acknowledged { self.commit().commit } else { 0 };
        self.store_retained(stored);
        commit
    }

    /// Whether the log takes no more and nobody could be told so: at QoS 0 there is no acknowledgement that
    /// would refuse it, and how many come is not bounded.
    fn cannot_keep(&self, message: &Message<'_>) -> bool {
        message.qos == QoS::AtMostOnce && self.log_refuses()
    }

    /// Leaves the topic of a message that cannot be kept without a retained one (section 3.3.1.3): an older one
    /// must not stand for it. What the log is told of that is bounded by what it has.
    fn discard_retained(&mut self, message: &Message<'_>) {
        let topic = message.topic;
        if !message.payload.is_empty() {
            self.count_unretained(topic, DropReason::Storage, "it cannot be kept on disk");
        }
        if let Some(old) = self.retained.remove(topic) {
            self.retained_bytes -= old.publication.size() as u64;
            let properties = Properties::EMPTY;
            self.log_retained(&Message { payload: &[], properties, ..*message }, None);
            self.release_hold(old.hold);
        }
    }

    fn count_unretained(&mut self, topic: TopicName<'_>, reason: DropReason, why: &str) {
        self.counters.count_drop(reason);
        let count = self.counters.drops(reason);
        if count.is_power_of_two() {
            tracing::warn!(%topic, count, "not retained: {why}");
        }
    }

    /// Puts a retained message that is stored here into the log.
    fn log_retained(
        &mut self,
        message: &Message<'_>,
        origin: Option<(ShardId, u64)>,
    ) -> Option<Hold> {
        let durable = self.durable.as_mut()?;
        let record = PublicationRecord {
            message: durable.message(message),
            is_retained: true,
            publisher: None,
            origin,
            targets: &[],
        };
        Some(durable.append(self.now, &Record::Publication(record)))
    }

    /// What is stored of a message: itself, one that ends earlier by a rule of `retained_ttl`, or,
    /// where that keeps nothing, one that clears the topic so that no older one stands for it.
    fn kept_copy(&self, publication: &mut Lazy<'_>) -> Arc<Publication> {
        let message = publication.message;
        let Some(rule) = self.retained_ttl_rule(&message) else {
            return publication.keep();
        };
        if rule.secs == 0 {
            return Publication::new(&Message { payload: &[], ..message });
        }
        let ends_at = self.now.plus_secs(u64::from(rule.secs));
        match message.expires_at {
            Some(at) if at <= ends_at => publication.keep(),
            _ => publication.keep().expiring_at(ends_at),
        }
    }

    /// Stores or, with an empty payload, removes a retained message whose home is here.
    pub(super) fn store_retained(&mut self, stored: Stored) {
        let publication = stored.publication.clone();
        let hold = stored.hold;
        let message = publication.message();
        let topic = message.topic;
        let replaced = if message.payload.is_empty() {
            self.retained.remove(topic)
        } else if self.is_full_of_unexpired(&message) {
            self.count_unretained(topic, DropReason::RetainedFull, "retained_max is reached");
            // The older message must not stand for the one that was refused.
            self.log_retained(&Message { payload: &[], ..message }, None);
            self.retained.remove(topic)
        } else {
            if let (Some(durable), Some(hold)) = (&mut self.durable, hold) {
                durable.log.hold(hold);
            }
            self.retained_bytes += publication.size() as u64;
            self.note_retained_expiry(publication.expires_at());
            self.retained.set(stored)
        };
        if let Some(old) = replaced {
            self.retained_bytes -= old.publication.size() as u64;
            self.release_hold(old.hold);
        }
    }

    /// Notes that a message, if it has RETAIN, has passed by a session live: neither that
    /// nor an older one on its topic is to come from a walk.
    pub(super) fn note_live(&mut self, key: SessionKey, publication: &Lazy<'_>) {
        if let Some(id) = publication.retain_id
            && let Some(session) = self.sessions.get_mut(key)
            && !session.fetches.is_empty()
        {
            let topic = publication.message.topic.as_str();
            session.fetches.note_live(self.placement.hash_one(topic), id);
        }
    }

    /// Goes on with what a session's new subscriptions are owed, if its client
    /// takes it: one page at a time, each after the one before has left.
    pub(super) fn continue_fetch(&mut self, key: SessionKey) {
        let committed = self.committed();
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.is_fetch_scheduled = false;
        let Some(connection) = session.conn.and_then(|conn| self.connections.get(conn)) else {
            return;
        };
        let is_busy =
            connection.backlog() >= limits::RETAINED_OUTPUT_BYTES || session.outbox.queue_len() > 0;
        let has_started = self.peers.index_applied(session.fetches.starts_at())
            && session.fetches.commit() <= committed;
        let Some(fetch) = session.fetches.front() else { return };
        if is_busy || fetch.awaited.is_some() || !has_started {
            return;
        }
        self.queries += 1;
        let tag = self.queries;
        fetch.awaited = Some(tag);
        let (shard, filter, after) = (fetch.shard, fetch.filter.clone(), fetch.after.clone());
        let query = RetainedQuery { session: key, tag, filter, after };
        if shard == self.shard {
            let page = self.retained_page(query);
            self.receive_retained_page(page);
        } else {
            self.peers.send(shard, Mesh::RetainedQuery(query));
        }
    }

    pub(super) fn answer_retained_query(&mut self, from: ShardId, query: RetainedQuery) {
        let page = self.retained_page(query);
        self.peers.send(from, Mesh::RetainedPage(page));
    }

    /// Delivers a page that was asked for, and lets the walk go on in a later turn.
    pub(super) fn receive_retained_page(&mut self, page: RetainedPage) {
        let RetainedPage { session: key, tag, mut found, next, stored } = page;
        let committed = self.committed();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let may_go_on = session.conn.is_some()
            && self.peers.index_applied(session.fetches.starts_at())
            && session.fetches.commit() <= committed;
        let Some(fetch) = session.fetches.front() else { return };
        // Another walk by now, or none: the filter was unsubscribed, or the client came anew.
        if fetch.awaited != Some(tag) {
            return;
        }
        if !may_go_on {
            fetch.awaited = None;
            return;
        }
        let options = fetch.options;
        let is_request = fetch.registration.is_some();
        found.retain(|one| self.is_owed(key, one, is_request, &stored));
        if self.acl.is_some() {
            found.retain(|one| self.may_have_retained(key, &one.publication));
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut ended = None;
        if let Some(fetch) = session.fetches.front()
            && !fetch.advance(next)
        {
            ended = session.fetches.pop();
        }
        for Stored { publication, .. } in &found {
            let mut publication = Lazy::kept(publication);
            let grant = Grant::retained(&publication.message, &options);
            self.deliver(key, &mut publication, &grant, false);
        }
        if let Some(fetch) = ended.filter(|fetch| fetch.repeats > 0) {
            self.repeat_request(key, fetch);
        }
        self.schedule_fetch(key);
    }

    /// Whether the access rules let a session have a retained message. Counts it if not.
    fn may_have_retained(&mut self, key: SessionKey, publication: &Publication) -> bool {
        let Message { topic, qos, .. } = publication.message();
        let may = self.may_receive(key, topic);
        if !may {
            self.count_session_drop(key, DropReason::ReceiveDenied, qos);
        }
        may
    }

    /// Whether a message that a walk has found is to be delivered. It is not if it comes live, or if
    /// it or a newer one on its topic has come live meanwhile. `stored` tells what its home had.
    fn is_owed(&self, key: SessionKey, found: &Stored, is_request: bool, stored: &[u64]) -> bool {
        let Some(session) = self.sessions.get(key) else { return false };
        let topic = found.publication.message().topic;
        if self.peers.has_passed(found.id) {
            let topic_hash = self.placement.hash_one(topic.as_str());
            return !session.fetches.is_stale(topic_hash, found.id, stored);
        }
        // It is on its lane, if the session is subscribed.
        let is_ordinary = |kind| matches!(kind, FilterKind::Plain | FilterKind::Exclusive);
        let mut filters = session.subscriptions.iter();
        is_request && !filters.any(|filter| is_ordinary(filter.kind()) && filter.matches(topic))
    }

    /// Has the session's walk go on in this or a later turn.
    pub(super) fn schedule_fetch(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.fetches.is_empty()
            && !session.is_fetch_scheduled
        {
            session.is_fetch_scheduled = true;
            self.ready_fetches.push_back(key);
        }
    }

    /// One page of what is stored here. Expired messages that it comes by are removed.
    fn retained_page(&mut self, query: RetainedQuery) -> RetainedPage {
        let RetainedQuery { session, tag, filter, after } = query;
        let (mut found, mut expired) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut take = |one: &Stored| {
            if one.publication.is_expired(self.now) {
                expired.push(one.publication.clone());
            } else {
                bytes += one.publication.size();
                found.push(one.clone());
            }
            found.len() < limits::RETAINED_PAGE_MESSAGES && bytes < limits::RETAINED_PAGE_BYTES
        };
        let visits = limits::RETAINED_PAGE_VISITS;
        let next = self.retained.page(&filter, after.as_ref(), visits, &mut |_, value| take(value));
        self.remove_retained(&expired);
        let stored = if found.is_empty() { Box::default() } else { self.peers.stored_stamps() };
        RetainedPage { session, tag, found, next, stored }
    }

    /// Whether there is no room for `message`, not even after a look for expired ones.
    fn is_full_of_unexpired(&mut self, message: &Message<'_>) -> bool {
        if !self.retained_is_full(message) {
            return false;
        }
        self.sweep_retained();
        self.retained_is_full(message)
    }

    pub(super) fn remove_retained(&mut self, publications: &[Arc<Publication>]) {
        for publication in publications {
            let removed = self.retained.remove(publication.message().topic);
            self.retained_bytes -= publication.size() as u64;
            self.release_hold(removed.and_then(|removed| removed.hold));
        }
    }

    /// Whether a message would pass this shard's part of the bounds on retained messages.
    fn retained_is_full(&self, message: &Message<'_>) -> bool {
        let limits = &self.policy.limits;
        let old = self.retained.get(message.topic);
        let count = self.retained.len() as u64 + u64::from(old.is_none());
        let bytes = self.retained_bytes + message.size() as u64;
        let bytes = bytes - old.map_or(0, |old| old.publication.size() as u64);
        count > self.even_part(limits.retained_messages_max)
            || bytes > self.even_part(limits.retained_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU64};

    use super::*;
    use crate::{
        base::{ConnId, QoS, Time},
        broker::{BrokerSetup, Origin},
        config::Policy,
        topic::TopicName,
    };

    const NOW: Time = Time::from_millis(1_000);
    const CONN: ConnId = ConnId { slot: 0, generation: 0 };

    /// Otherwise each SUBSCRIBE of a pipeline would have a page looked through in the same turn.
    #[test]
    fn many_new_subscriptions_are_one_walk_for_their_turn() {
        let policy = Policy::default();
        let shard = ShardId(0);
        let setup = BrokerSetup { shard, shards: 1, seed: 1, secret: [0; 32], policy, trace: None };
        let mut broker = Broker::new(setup);
        for n in 1..=2 * limits::RETAINED_PAGE_VISITS as u64 {
            let publication = Publication::new(&Message {
                topic: TopicName::parse(&format!("{n}/a")).unwrap(),
                properties: Properties::EMPTY,
                payload: b"x",
                qos: QoS::AtMostOnce,
                retain: true,
                expires_at: None,
                original: None,
                shared: None,
            });
            let id = RetainId { shard, stamp: NonZeroU64::new(n).unwrap() };
            broker.store_retained(Stored { publication, id, hold: None });
        }
        broker.open(NOW, CONN, Origin::new((Ipv4Addr::LOCALHOST, 1), true));
        broker.receive(NOW, CONN, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c");
        for filter in *b"0123456789" {
            broker.receive(NOW, CONN, &[0x82, 8, 0, 1, 0, 3, b'+', b'/', filter, 0]);
        }
        assert_eq!((broker.ready_fetches.len(), broker.queries), (1, 1));
        for _ in 0..1000 {
            broker.advance(NOW);
        }
        assert_eq!(broker.ready_fetches.len(), 0);
        assert!(broker.queries >= 20, "each filter took more than a page");
    }
}
