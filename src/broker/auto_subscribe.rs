//! Automatic subscriptions: what `auto_subscribe` gives to each new session, in
//! the same way as if its client had sent SUBSCRIBE with CONNECT.

use crate::{
    base::{ConnId, SessionKey},
    topic::Subscription,
};

use super::{
    Broker,
    subscribe::{Answer, PendingAnswer, Wishes},
};

impl Broker {
    /// Subscribes a new session.
    pub(super) fn auto_subscribe(&mut self, key: SessionKey, user: Option<&str>) {
        let mut wishes = Wishes::new();
        for subscription in self.wishes_of_rules(key, user) {
            // As SUBSCRIBE is, so that UNSUBSCRIBE finds it.
            match self.read_filter(key, subscription.filter.clone()) {
                Some(filter) => wishes.push(Ok(Subscription { filter, ..subscription })),
                None => {
                    let filter = &subscription.filter;
                    tracing::warn!(%filter, "not subscribed automatically: rewritten to no filter");
                }
            }
        }
        // Refused is only what is too much for a session, which is logged there.
        self.add_subscriptions(key, wishes);
    }

    /// Has CONNACK, which is in the output already, leave when what it promises holds: what was put
    /// into the log since it had so many records is on disk, and the session's automatic
    /// subscriptions are in force on every shard. A resumed session, too, may be
    /// so new that they are not: an earlier connection was lost before its CONNACK.
    pub(super) fn hold_connack(&mut self, conn: ConnId, key: SessionKey, records_before: u64) {
        let has_rules = !self.policy.auto_subscribe.is_empty();
        let stamp = if has_rules { self.peers.index_stamp() } else { 0 };
        let commit = if self.appended() > records_before || self.has_just_ended(key) {
            self.commit().commit
        } else {
            0
        };
        if commit > 0 || !self.peers.index_applied(stamp) {
            self.connections.hold(conn);
            self.answer_later(PendingAnswer {
                stamp,
                commit,
                key,
                answer: Answer::ConnAck { conn },
            });
        }
    }

    /// Whether an earlier session of the client may be back after a crash.
    fn has_just_ended(&self, key: SessionKey) -> bool {
        let (Some(durable), Some(session)) = (&self.durable, self.sessions.get(key)) else {
            return false;
        };
        !durable.ended.is_empty() && durable.ended.contains_key(&session.client)
    }

    fn wishes_of_rules(&self, key: SessionKey, user: Option<&str>) -> Vec<Subscription> {
        let Some(session) = self.sessions.get(key) else { return Vec::new() };
        let client = &session.client;
        let for_client = self.policy.auto_subscribe.iter().filter_map(|rule| {
            rule.for_client(client.as_str(), user).unwrap_or_else(|reason| {
                let rule = rule.filter();
                tracing::warn!(%client, %rule, %reason, "not subscribed automatically");
                None
            })
        });
        for_client.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        base::{ShardId, Time},
        broker::{BrokerSetup, Origin},
        config::Policy,
    };

    const NOW: Time = Time::from_millis(1_000);

    fn connect(broker: &mut Broker, slot: u32, client: u8) -> ConnId {
        let conn = ConnId { slot, generation: 0 };
        broker.open(NOW, conn, Origin::new((Ipv4Addr::LOCALHOST, 1), true));
        let packet = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0, 1, client];
        broker.receive(NOW, conn, &packet);
        conn
    }

    #[test]
    fn connack_waits_on_the_next_connection_too() {
        let [own, other] = [0, 1].map(ShardId);
        let auto_subscribe = vec!["to/%c => 1".parse().unwrap()];
        let policy = Policy { auto_subscribe, ..Policy::default() };
        let setup = |shard| {
            let (policy, secret) = (policy.clone(), [0; 32]);
            BrokerSetup { shard, shards: 2, seed: 1, secret, policy, trace: None }
        };
        let mut broker = Broker::new(setup(own));
        let mut peer = Broker::new(setup(other));
        let is_at_home =
            |client: &u8| broker.home_of_client(str::from_utf8(&[*client]).unwrap()) == own;
        let client = (b'a'..=b'z').find(is_at_home).unwrap();
        let first = connect(&mut broker, 0, client);
        assert!(broker.take_output(first).is_empty());
        broker.disconnected(NOW, first, None);
        let second = connect(&mut broker, 1, client);
        assert!(broker.take_output(second).is_empty());
        peer.receive_mesh(NOW, own, broker.take_mesh(NOW, other));
        broker.receive_mesh(NOW, other, peer.take_mesh(NOW, own));
        assert_eq!(broker.take_output(second).into_vec(), [0x20, 2, 1, 0]);
    }
}
