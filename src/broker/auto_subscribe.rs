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
    /// Subscribes a new session. Its CONNACK, which is in the output already,
    /// leaves when the subscriptions are in force on every shard.
    pub(super) fn auto_subscribe(&mut self, conn: ConnId, key: SessionKey, user: Option<&str>) {
        if self.policy.auto_subscribe.is_empty() {
            return;
        }
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
        if wishes.is_empty() {
            return;
        }
        // Refused is only what is too much for a session, which is logged there.
        self.add_subscriptions(key, wishes);
        let stamp = self.peers.index_stamp();
        if !self.peers.index_applied(stamp) {
            self.connections.hold(conn);
            let answer = Answer::ConnAck { conn };
            self.pending_answers.push_back(PendingAnswer { stamp, key, answer });
        }
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
