//! Shared subscriptions between the shards: who a member is to all of them, and
//! how busy the members are of those that choose by that. Nothing of the latter
//! happens without such a group.

use std::sync::Arc;

use ahash::RandomState;

use super::{Broker, mesh::Mesh, sessions::Sessions};
use crate::{
    base::{SessionKey, ShardId},
    topic::Member,
};

impl Broker {
    /// Takes note of what a session has in flight and waiting. `is_awaited`:
    /// another shard has sent it something.
    pub(super) fn note_load(&mut self, key: SessionKey, is_awaited: bool) {
        if !self.index.has_loads() {
            return;
        }
        let Some(session) = self.sessions.get(key) else { return };
        let load = u32::try_from(session.outbox.load()).unwrap_or(u32::MAX);
        self.index.note_load(Member { shard: self.shard, session: key }, load, is_awaited);
    }

    /// Whether the other shards are to be told loads now. While a lane is full
    /// the news wait here: later ones take the place of earlier ones.
    pub(super) fn can_report_loads(&self) -> bool {
        self.index.has_unreported_loads() && !self.peers.any_full()
    }

    /// Tells the other shards the loads that have changed, one message for all.
    pub(super) fn report_loads(&mut self) {
        if self.can_report_loads() {
            let loads: Arc<[_]> = self.index.report_loads().into();
            self.peers.broadcast(|| Mesh::Loads(loads.clone()));
        }
    }

    /// Takes in the loads of members on another shard.
    pub(super) fn receive_loads(&mut self, from: ShardId, loads: &[(SessionKey, u32)]) {
        for &(session, load) in loads {
            self.index.tell_load(Member { shard: from, session }, load);
        }
    }
}

/// Hash of a session's client, the same on every shard and for every session
/// that this client ever has.
pub(super) fn identity(sessions: &Sessions, placement: &RandomState, key: SessionKey) -> u64 {
    sessions.get(key).map_or(0, |session| placement.hash_one(&session.client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{ClientId, Time, limits},
        broker::BrokerSetup,
        config::Policy,
        session::Session,
        topic::{Strategies, Strategy, SubscriptionOptions, TopicFilter},
    };

    const NOW: Time = Time::from_millis(1_000);
    const OTHER: ShardId = ShardId(1);

    /// A broker of two shards with one session, a member of one shared subscription.
    fn broker_with(default: Strategy) -> (Broker, SessionKey) {
        let shared = Strategies { default, by_prefix: Vec::new() };
        let policy = Policy { shared, ..Policy::default() };
        let shard = ShardId(0);
        let mut broker = Broker::new(BrokerSetup {
            shard,
            shards: 2,
            seed: 1,
            secret: [0; 32],
            policy,
            trace: None,
        });
        let session = broker.sessions.insert(Session::new(ClientId::new("member")));
        let filter = TopicFilter::parse("$share/g/t").unwrap();
        let options = SubscriptionOptions::default();
        broker.index.join(&filter, Member { shard, session }, 1, options, true);
        (broker, session)
    }

    /// The sessions that one turn tells the other shard the loads of.
    fn told(broker: &mut Broker) -> Vec<Vec<SessionKey>> {
        broker.advance(NOW);
        let news = broker.take_mesh(NOW, OTHER).into_iter().filter_map(|message| match message.0 {
            Mesh::Loads(loads) => Some(loads.iter().map(|(session, _)| *session).collect()),
            _ => None,
        });
        news.collect()
    }

    #[test]
    fn a_load_is_told_once_a_turn_and_only_if_somebody_asks() {
        let (mut broker, session) = broker_with(Strategy::LeastInflight);
        broker.note_load(session, false);
        assert_eq!(broker.next_deadline(), None, "it has not changed");
        (0..3).for_each(|_| broker.note_load(session, true));
        assert!(broker.next_deadline().is_some());
        assert_eq!(told(&mut broker), [[session]]);
        assert!(told(&mut broker).is_empty());
        for strategy in Strategy::ALL.into_iter().filter(|s| *s != Strategy::LeastInflight) {
            let (mut broker, session) = broker_with(strategy);
            broker.note_load(session, true);
            assert!(broker.next_deadline().is_none() && told(&mut broker).is_empty());
        }
    }

    #[test]
    fn news_wait_for_room_in_the_lanes() {
        let (mut broker, session) = broker_with(Strategy::LeastInflight);
        for _ in 0..limits::LANE_MESSAGES_MAX {
            broker.peers.send(OTHER, Mesh::IndexApplied { stamp: 0, routed: 0 });
        }
        broker.note_load(session, true);
        assert_eq!(broker.next_deadline(), None, "nothing to do before there is room");
        assert!(told(&mut broker).is_empty());
        assert!(broker.next_deadline().is_some());
        assert_eq!(told(&mut broker), [[session]]);
    }
}
