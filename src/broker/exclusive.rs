//! Exclusive subscriptions, `$exclusive/FILTER`: each is held by one session of
//! all shards at most.
//!
//! Who has it is decided by one shard, that which the filter's text hashes to. A
//! SUBSCRIBE for exclusive filters waits for its verdicts, and meanwhile nothing
//! more is read from its connection, so that no later packet of the client can
//! pass it. A session gives back what it has, or has asked for, as soon as it
//! wants it no more: the lane brings that behind the claim and before any later one.

use std::collections::{HashMap, hash_map::Entry};

use ahash::RandomState;

use crate::{
    base::{ConnId, PacketId, SessionKey, ShardId},
    codec::ReasonCode,
    topic::{FilterKind, Member, Subscription, TopicFilter},
};

use super::{Broker, mesh::Mesh, subscribe::Wishes};

/// What one shard knows of exclusive subscriptions.
#[derive(Debug, Default)]
pub(super) struct Exclusives {
    /// Who has the filters that this shard decides about. Bounded by the
    /// subscriptions of all sessions.
    holders: HashMap<TopicFilter, Member, RandomState>,
    /// SUBSCRIBEs that wait for verdicts: one a connection, which is not read from.
    waiting: HashMap<ConnId, WaitingSubscribe, RandomState>,
}

#[derive(Debug)]
struct WaitingSubscribe {
    key: SessionKey,
    packet_id: PacketId,
    wishes: Wishes,
    /// Verdicts that have not come yet.
    open: usize,
}

/// A session of the sender wants an exclusive filter.
#[derive(Debug)]
pub(super) struct Claim {
    filter: TopicFilter,
    session: SessionKey,
    conn: ConnId,
    /// Which wish of the connection's SUBSCRIBE it is.
    wish: usize,
}

/// Whether it has it.
#[derive(Debug)]
pub(super) struct Verdict {
    conn: ConnId,
    wish: usize,
    is_granted: bool,
}

impl Exclusives {
    /// Gives the filter to a session; false if another has it.
    fn take(&mut self, filter: TopicFilter, claimant: Member) -> bool {
        match self.holders.entry(filter) {
            Entry::Vacant(vacant) => {
                vacant.insert(claimant);
                true
            }
            Entry::Occupied(holder) => *holder.get() == claimant,
        }
    }

    /// Takes the filter from a session, if it has it.
    pub(super) fn release(&mut self, filter: &TopicFilter, holder: Member) {
        if self.holders.get(filter) == Some(&holder) {
            self.holders.remove(filter);
        }
    }
}

impl Broker {
    /// Asks for the exclusive filters of a SUBSCRIBE, and grants all of it when
    /// it is known which of them the session can have.
    pub(super) fn claim_exclusives(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        packet_id: PacketId,
        mut wishes: Wishes,
    ) {
        let mut open = 0;
        for (at, wish) in wishes.iter_mut().enumerate() {
            let Ok(Subscription { filter, .. }) = wish else { continue };
            if filter.kind() != FilterKind::Exclusive || self.holds(key, filter) {
                continue;
            }
            let filter = filter.clone();
            let decider = self.place(filter.as_str());
            if decider != self.shard {
                let claim = Claim { filter, session: key, conn, wish: at };
                self.peers.send(decider, Mesh::Claim(claim));
                open += 1;
            } else if !self.exclusives.take(filter, Member { shard: self.shard, session: key }) {
                *wish = Err(ReasonCode::QuotaExceeded);
            }
        }
        if open == 0 {
            return self.grant(conn, key, packet_id, wishes);
        }
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.paused.claims = true;
            let subscribe = WaitingSubscribe { key, packet_id, wishes, open };
            self.exclusives.waiting.insert(conn, subscribe);
        }
    }

    /// A session that was restored had this filter, and has it again.
    pub(super) fn claim_again(&mut self, key: SessionKey, filter: &TopicFilter) {
        let decider = self.place(filter.as_str());
        let filter = filter.clone();
        if decider == self.shard {
            self.exclusives.take(filter, Member { shard: self.shard, session: key });
        } else {
            // The verdict finds nobody who waits for it: nobody else had the filter.
            let conn = ConnId { slot: u32::MAX, generation: u32::MAX };
            let claim = Claim { filter, session: key, conn, wish: 0 };
            self.peers.send(decider, Mesh::Claim(claim));
        }
    }

    pub(super) fn decide_claim(&mut self, from: ShardId, claim: Claim) {
        let Claim { filter, session, conn, wish } = claim;
        let is_granted = self.exclusives.take(filter, Member { shard: from, session });
        self.peers.send(from, Mesh::Verdict(Verdict { conn, wish, is_granted }));
    }

    /// Takes in a verdict; after the last one the SUBSCRIBE is carried out.
    pub(super) fn receive_verdict(&mut self, verdict: &Verdict) {
        let Verdict { conn, wish, is_granted } = *verdict;
        let Entry::Occupied(mut waiting) = self.exclusives.waiting.entry(conn) else {
            // The connection has gone, and the claim was withdrawn.
            return;
        };
        let subscribe = waiting.get_mut();
        if !is_granted && let Some(wish) = subscribe.wishes.get_mut(wish) {
            *wish = Err(ReasonCode::QuotaExceeded);
        }
        subscribe.open -= 1;
        if subscribe.open > 0 {
            return;
        }
        let WaitingSubscribe { key, packet_id, wishes, .. } = waiting.remove();
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.paused.claims = false;
        }
        self.grant(conn, key, packet_id, wishes);
        self.resume(conn);
    }

    /// The connection goes, with a SUBSCRIBE that waits for verdicts: it is as if
    /// that had never come.
    pub(super) fn withdraw_claims(&mut self, conn: ConnId) {
        let Some(subscribe) = self.exclusives.waiting.remove(&conn) else { return };
        for Subscription { filter, .. } in subscribe.wishes.into_iter().flatten() {
            if !self.holds(subscribe.key, &filter) {
                self.release_exclusive(subscribe.key, &filter);
            }
        }
    }

    /// Gives a filter back, if it is an exclusive one.
    pub(super) fn release_exclusive(&mut self, key: SessionKey, filter: &TopicFilter) {
        if filter.kind() != FilterKind::Exclusive {
            return;
        }
        let decider = self.place(filter.as_str());
        if decider == self.shard {
            self.exclusives.release(filter, Member { shard: self.shard, session: key });
        } else {
            self.peers.send(decider, Mesh::Release { filter: filter.clone(), session: key });
        }
    }

    fn holds(&self, key: SessionKey, filter: &TopicFilter) -> bool {
        self.sessions.get(key).is_some_and(|session| session.subscriptions.contains(filter))
    }
}
