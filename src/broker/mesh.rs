//! What shards tell each other, and what waits for the lanes.
//!
//! Lanes keep the order of messages between two shards and lose nothing; that
//! is all this relies on. Index changes and retained messages carry a stamp and
//! are confirmed, so that SUBACK and PUBACK can wait for their effect
//! everywhere.

use std::{collections::VecDeque, num::NonZeroU64, sync::Arc};

use smallvec::SmallVec;

use super::{
    Broker,
    ack_line::{AppliedBy, Waits},
    exclusive::{Claim, Verdict},
    retain::Stored,
    trace::TraceStart,
};
use crate::{
    base::{RetainId, SessionKey, ShardId, ShardSet, Time, limits},
    message::Publication,
    topic::{Cursor, Member, SubscriptionOptions, TopicFilter},
};

/// One message from a shard to another.
#[derive(Debug)]
pub struct MeshMessage(pub(super) Mesh);

#[derive(Debug)]
pub(super) enum Mesh {
    /// A publication that has takers there.
    Publish(Forward),
    /// The publication that follows is traced.
    Traced(Box<TraceStart>),
    /// The sender has its first subscriber of this filter.
    Subscribed { filter: TopicFilter, stamp: u64 },
    /// The sender has lost its last subscriber of this filter.
    Unsubscribed { filter: TopicFilter },
    /// A session of the sender has joined a shared subscription.
    Joined {
        filter: TopicFilter,
        member: SessionKey,
        /// Hash of the member's client.
        identity: u64,
        options: SubscriptionOptions,
        online: bool,
        stamp: u64,
    },
    /// A session of the sender has left a shared subscription.
    Left { filter: TopicFilter, member: SessionKey },
    /// A member of a shared subscription has connected or disconnected.
    MemberOnline { filter: TopicFilter, member: SessionKey, online: bool },
    /// No index change, but confirmed like one: the sender waits until what it sent
    /// before is done, and the receiver's retained messages have reached their homes.
    Barrier { stamp: u64 },
    /// What members of the sender have in flight and waiting.
    Loads(Arc<[(SessionKey, u32)]>),
    /// All index changes up to this stamp are in force at the sender, and every
    /// retained message that it took before them has reached its home. It has routed
    /// those up to the stamp `routed`: what the receiver was to get of them, it has.
    IndexApplied { stamp: u64, routed: u64 },
    /// A retained message for a topic whose home is the receiver. Confirmed with
    /// [`Mesh::RetainApplied`] and [`Mesh::Taken`].
    Retain { message: Stored, stamp: u64 },
    /// All retained messages up to this stamp are stored at the sender.
    RetainApplied { stamp: u64 },
    /// What the receiver has sent up to this stamp, the sender has in its log as far as it is to be.
    Taken { stamp: u64 },
    /// What the sender keeps on disk.
    Storage { storage: PeerStorage, stamp: u64 },
    /// A subscriber of the sender wants a page of retained messages.
    RetainedQuery(RetainedQuery),
    /// The page.
    RetainedPage(RetainedPage),
    /// A session of the sender wants an exclusive filter that the receiver decides about.
    Claim(Claim),
    /// Whether it has it.
    Verdict(Verdict),
    /// A session of the sender gives an exclusive filter back, if it has it.
    Release { filter: TopicFilter, session: SessionKey },
}

/// A publication on its way to another shard.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) publication: Arc<Publication>,
    /// Which one it is, if it has RETAIN and the sender is its publisher's shard.
    pub(super) retain_id: Option<RetainId>,
    /// Confirmed with [`Mesh::Taken`], if so.
    pub(super) stamp: Option<u64>,
    /// The intake that it comes from.
    pub(super) origin: Option<(ShardId, u64)>,
    /// Whether the receiver matches it against its ordinary subscriptions.
    pub(super) ordinary: bool,
    /// Whether the receiver is its topic's home and is to retain it. Confirmed with
    /// [`Mesh::RetainApplied`], too.
    pub(super) keeps: bool,
    /// Members of shared subscriptions that were chosen for it.
    pub(super) shared: SmallVec<[ChosenMember; 1]>,
}

/// A member of a shared subscription on the receiving shard.
#[derive(Clone, Debug)]
pub(super) struct ChosenMember {
    pub(super) filter: TopicFilter,
    pub(super) session: SessionKey,
    /// Hash of what the choice went by.
    pub(super) hash: u64,
    /// How often the message was passed on already.
    pub(super) hops: u8,
}

/// What a shard tells the others of its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct PeerStorage {
    /// It has subscriptions of sessions that outlive the process.
    pub(super) is_durable: bool,
    /// It can take no more for them.
    pub(super) refuses: bool,
}

#[derive(Debug)]
pub(super) struct RetainedQuery {
    pub(super) session: SessionKey,
    /// Names the question in its answer.
    pub(super) tag: u64,
    pub(super) filter: TopicFilter,
    pub(super) after: Option<Cursor>,
}

#[derive(Debug)]
pub(super) struct RetainedPage {
    pub(super) session: SessionKey,
    pub(super) tag: u64,
    pub(super) found: Vec<Stored>,
    pub(super) next: Option<Cursor>,
    /// By shard, the stamp of its last message that the answering one had stored; empty if
    /// nothing was found.
    pub(super) stored: Box<[u64]>,
}

/// What one shard knows of each other one and has waiting for it.
#[derive(Debug)]
pub(super) struct Peers {
    own: ShardId,
    lanes: Vec<Lane>,
    /// Lanes over [`limits::LANE_MESSAGES_MAX`] or [`limits::LANE_BYTES_MAX`].
    full: usize,
    /// Stamp of the last index change or publication with RETAIN.
    stamp: u64,
    /// Stamp of the last index change, which went to every peer.
    index_stamp: u64,
    /// Retained messages that peers have not confirmed, oldest first.
    unconfirmed_retains: VecDeque<AppliedBy>,
    /// Shards with [`PeerStorage::is_durable`].
    durable: ShardSet,
    /// Shards with [`PeerStorage::refuses`].
    refusing: ShardSet,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: Vec<MeshMessage>,
    waiting_bytes: usize,
    /// The peer has applied our index changes up to this stamp.
    index_applied: u64,
    /// The peer has stored our retained messages up to this stamp.
    retain_applied: u64,
    /// The peer's publications with RETAIN up to this stamp have passed by here, if they had takers.
    retains_passed: u64,
    /// Those of them whose home is here are stored, up to this stamp.
    retains_stored: u64,
    /// The peer has taken what we sent up to this stamp.
    taken: u64,
    /// What the peer has sent, by stamp, and how many of our records are to be on disk before that
    /// is taken.
    to_take: VecDeque<(u64, u64)>,
    /// Index changes of the peer, by stamp, that we applied and confirm once
    /// our retained messages up to the second stamp are stored.
    to_confirm: VecDeque<(u64, u64)>,
}

impl Lane {
    const fn is_full(&self) -> bool {
        self.waiting.len() >= limits::LANE_MESSAGES_MAX
            || self.waiting_bytes >= limits::LANE_BYTES_MAX
    }
}

impl Peers {
    pub(super) fn new(own: ShardId, shards: u16) -> Self {
        Self {
            own,
            lanes: (0..shards).map(|_| Lane::default()).collect(),
            full: 0,
            stamp: 0,
            index_stamp: 0,
            unconfirmed_retains: VecDeque::new(),
            durable: ShardSet::EMPTY,
            refusing: ShardSet::EMPTY,
        }
    }

    /// All shards but this one.
    pub(super) fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.own;
        (0..self.lanes.len() as u16).map(ShardId).filter(move |shard| *shard != own)
    }

    pub(super) fn shard_count(&self) -> u16 {
        self.lanes.len() as u16
    }

    /// Whether publishers must wait.
    pub(super) const fn any_full(&self) -> bool {
        self.full > 0
    }

    pub(super) fn send(&mut self, to: ShardId, message: Mesh) {
        debug_assert_ne!(to, self.own);
        let lane = &mut self.lanes[to.index()];
        let was_full = lane.is_full();
        lane.waiting_bytes += match &message {
            Mesh::Publish(Forward { publication, .. })
            | Mesh::Retain { message: Stored { publication, .. }, .. } => publication.size(),
            Mesh::Loads(loads) => size_of_val(&**loads),
            _ => 0,
        };
        lane.waiting.push(MeshMessage(message));
        self.full += usize::from(!was_full && lane.is_full());
    }

    /// Sends an index change to every other shard.
    pub(super) fn broadcast_change(&mut self, change: impl Fn(u64) -> Mesh) {
        self.stamp += 1;
        self.index_stamp = self.stamp;
        for shard in self.others() {
            self.send(shard, change(self.stamp));
        }
    }

    /// Sends a barrier to every other shard. Returns the stamp that they confirm.
    pub(super) fn raise_barrier(&mut self) -> u64 {
        self.broadcast_change(|stamp| Mesh::Barrier { stamp });
        self.index_stamp
    }

    /// Sends something that nobody waits for to every other shard.
    pub(super) fn broadcast(&mut self, message: impl Fn() -> Mesh) {
        for shard in self.others() {
            self.send(shard, message());
        }
    }

    /// Names a publication with RETAIN that is routed, and stored if its home is here, before
    /// anything else happens.
    pub(super) fn next_retain_id(&mut self) -> Option<RetainId> {
        self.stamp += 1;
        let own = &mut self.lanes[self.own.index()];
        (own.retains_passed, own.retains_stored) = (self.stamp, self.stamp);
        NonZeroU64::new(self.stamp).map(|stamp| RetainId { shard: self.own, stamp })
    }

    /// Sends a retained message to its home; tells what its acknowledgement waits for.
    pub(super) fn send_retain(&mut self, to: ShardId, message: Stored) -> AppliedBy {
        // Not that of its name: what was sent live has a later one, and stamps grow along a lane.
        let waits_for = self.next_retain(to);
        self.send(to, Mesh::Retain { message, stamp: waits_for.stamp });
        waits_for
    }

    /// A retained message is about to be sent to its home; tells how it is confirmed.
    pub(super) fn next_retain(&mut self, to: ShardId) -> AppliedBy {
        let waits_for = AppliedBy { shard: to, stamp: self.next_stamp() };
        self.unconfirmed_retains.push_back(waits_for);
        waits_for
    }

    /// A publication with RETAIN has come from its publisher's shard.
    pub(super) fn note_passed(&mut self, id: RetainId) {
        self.lanes[id.shard.index()].retains_passed = id.stamp.get();
    }

    /// Whether this publication has come by here, if it was sent here at all. If not, it will:
    /// provided that its shard knew of its taker here, and so it did if that is in force everywhere.
    pub(super) fn has_passed(&self, id: RetainId) -> bool {
        id.stamp.get() <= self.lanes[id.shard.index()].retains_passed
    }

    /// By shard, the stamp of its last retained message that is stored here.
    pub(super) fn stored_stamps(&self) -> Box<[u64]> {
        self.lanes.iter().map(|lane| lane.retains_stored).collect()
    }

    /// What the last retained message of this shard waits for, if it still does.
    pub(super) fn last_unconfirmed_retain(&self) -> Option<AppliedBy> {
        self.unconfirmed_retains.back().copied()
    }

    /// Stamp that every peer must have applied before a SUBSCRIBE handled now is acknowledged.
    pub(super) const fn index_stamp(&self) -> u64 {
        self.index_stamp
    }

    /// Whether every peer has applied our index changes up to `stamp`.
    pub(super) fn index_applied(&self, stamp: u64) -> bool {
        self.others().all(|shard| self.lanes[shard.index()].index_applied >= stamp)
    }

    /// Whether that peer has taken what we sent up to that stamp.
    pub(super) fn has_taken(&self, waits_for: AppliedBy) -> bool {
        self.lanes[waits_for.shard.index()].taken >= waits_for.stamp
    }

    /// Whether what an acknowledgement waits for has happened, with so many records on disk.
    pub(super) fn is_over(&self, waits: &Waits, committed: u64) -> bool {
        waits.commit <= committed && waits.shards.iter().all(|shard| self.has_taken(*shard))
    }

    /// Stamp of a publication that the receiver is to confirm.
    pub(super) const fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Of these shards, the ones that keep something on disk.
    pub(super) fn durable_of(&self, shards: ShardSet) -> ShardSet {
        shards.intersection(self.durable)
    }

    /// Whether any other shard keeps something on disk.
    pub(super) const fn any_durable(&self) -> bool {
        !self.durable.is_empty()
    }

    /// Whether any other shard can take no more.
    pub(super) const fn any_refusing(&self) -> bool {
        !self.refusing.is_empty()
    }

    /// Whether one of these shards can take no more.
    pub(super) fn any_refuses(&self, shards: ShardSet) -> bool {
        !shards.intersection(self.refusing).is_empty()
    }

    /// The peer has sent something that is taken when so many of our records are on disk.
    pub(super) fn confirm_after(&mut self, from: ShardId, stamp: u64, commit: u64) {
        let line = &mut self.lanes[from.index()].to_take;
        // In the order of the lane: what is behind one that waits waits too.
        match line.back_mut() {
            // All of one commit are told at once.
            Some((last, before)) if *before >= commit => *last = stamp,
            _ => line.push_back((stamp, commit)),
        }
    }

    /// Tells the peers what is taken, now that so many of our records are on disk.
    pub(super) fn confirm_taken(&mut self, committed: u64) {
        for shard in self.others() {
            let line = &mut self.lanes[shard.index()].to_take;
            let mut taken = None;
            while let Some((stamp, commit)) = line.front().copied()
                && commit <= committed
            {
                taken = Some(stamp);
                line.pop_front();
            }
            if let Some(stamp) = taken {
                self.send(shard, Mesh::Taken { stamp });
            }
        }
    }

    fn retain_applied(&self, waits_for: AppliedBy) -> bool {
        self.lanes[waits_for.shard.index()].retain_applied >= waits_for.stamp
    }

    fn note_storage(&mut self, of: ShardId, storage: PeerStorage) {
        self.durable.set(of, storage.is_durable);
        self.refusing.set(of, storage.refuses);
    }

    pub(super) fn is_waiting(&self, to: ShardId) -> bool {
        !self.lanes[to.index()].waiting.is_empty()
    }

    pub(super) fn take(&mut self, to: ShardId) -> Vec<MeshMessage> {
        let lane = &mut self.lanes[to.index()];
        self.full -= usize::from(lane.is_full());
        lane.waiting_bytes = 0;
        std::mem::take(&mut lane.waiting)
    }

    fn note_index_applied(&mut self, by: ShardId, stamp: u64, routed: u64) {
        let lane = &mut self.lanes[by.index()];
        (lane.index_applied, lane.retains_passed) = (stamp, routed);
    }

    fn note_stored(&mut self, of: ShardId, stamp: u64) {
        self.lanes[of.index()].retains_stored = stamp;
    }

    fn note_retain_applied(&mut self, by: ShardId, stamp: u64) {
        self.lanes[by.index()].retain_applied = stamp;
        while let Some(oldest) = self.unconfirmed_retains.front()
            && self.retain_applied(*oldest)
        {
            self.unconfirmed_retains.pop_front();
        }
        for shard in self.others() {
            self.confirm(shard);
        }
    }

    /// An index change of a peer was applied here. It is confirmed when every
    /// retained message that was taken here before has reached its home: the
    /// subscriber then finds there what it did not get live.
    fn applied_change(&mut self, of: ShardId, stamp: u64) {
        let retained_before = self.stamp;
        let lane = &mut self.lanes[of.index()];
        lane.to_confirm.push_back((stamp, retained_before));
        self.confirm(of);
    }

    fn confirm(&mut self, to: ShardId) {
        let oldest = self.unconfirmed_retains.front().map_or(u64::MAX, |retain| retain.stamp);
        let lane = &mut self.lanes[to.index()];
        let mut confirmed = None;
        while let Some((change, retained_before)) = lane.to_confirm.front()
            && *retained_before < oldest
        {
            confirmed = Some(*change);
            lane.to_confirm.pop_front();
        }
        if let Some(stamp) = confirmed {
            self.send(to, Mesh::IndexApplied { stamp, routed: self.stamp });
        }
    }
}

impl Broker {
    /// Takes in what another shard has sent, in its order.
    pub fn receive_mesh(&mut self, now: Time, from: ShardId, batch: Vec<MeshMessage>) {
        self.now = now;
        let mut stored = None;
        for MeshMessage(message) in batch {
            match message {
                Mesh::Publish(forward) => {
                    if let (true, Some(id)) = (forward.keeps, forward.retain_id) {
                        self.peers.note_stored(from, id.stamp.get());
                        stored = forward.stamp;
                    }
                    self.receive_forward(from, forward);
                }
                Mesh::Traced(start) => {
                    if let Some(tracer) = &mut self.tracer {
                        tracer.announced(start);
                    }
                }
                Mesh::Subscribed { filter, stamp } => {
                    self.index.add_shard(&filter, from);
                    self.peers.applied_change(from, stamp);
                }
                Mesh::Unsubscribed { filter } => self.index.remove_shard(&filter, from),
                Mesh::Joined { filter, member, identity, options, online, stamp } => {
                    let member = Member { shard: from, session: member };
                    self.index.join(&filter, member, identity, options, online);
                    self.peers.applied_change(from, stamp);
                }
                Mesh::Left { filter, member } => {
                    self.index.leave(&filter, Member { shard: from, session: member });
                }
                Mesh::MemberOnline { filter, member, online } => {
                    let member = Member { shard: from, session: member };
                    self.index.set_online(&filter, member, online);
                }
                Mesh::Barrier { stamp } => self.peers.applied_change(from, stamp),
                Mesh::Loads(loads) => self.receive_loads(from, &loads),
                Mesh::IndexApplied { stamp, routed } => {
                    self.peers.note_index_applied(from, stamp, routed);
                    self.release_answers();
                }
                Mesh::Retain { message, stamp } => {
                    self.peers.note_stored(from, message.id.stamp.get());
                    let commit = self.receive_retained(message);
                    self.peers.confirm_after(from, stamp, commit);
                    stored = Some(stamp);
                }
                Mesh::RetainApplied { stamp } => {
                    self.peers.note_retain_applied(from, stamp);
                }
                Mesh::Taken { stamp } => {
                    self.peers.lanes[from.index()].taken = stamp;
                    self.after_taken();
                }
                Mesh::Storage { storage, stamp } => {
                    self.peers.note_storage(from, storage);
                    self.peers.applied_change(from, stamp);
                }
                Mesh::RetainedQuery(query) => self.answer_retained_query(from, query),
                Mesh::RetainedPage(page) => self.receive_retained_page(page),
                Mesh::Claim(claim) => self.decide_claim(from, claim),
                Mesh::Verdict(verdict) => self.receive_verdict(&verdict),
                Mesh::Release { filter, session } => {
                    self.exclusives.release(&filter, Member { shard: from, session });
                }
            }
        }
        if let Some(stamp) = stored {
            self.peers.send(from, Mesh::RetainApplied { stamp });
        }
        self.peers.confirm_taken(self.committed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Properties, message::Message, topic::TopicName};

    fn publication() -> Arc<Publication> {
        Publication::new(&Message {
            topic: TopicName::parse("t").unwrap(),
            properties: Properties::EMPTY,
            payload: b"x",
            qos: crate::base::QoS::AtMostOnce,
            retain: true,
            expires_at: None,
            original: None,
            shared: None,
        })
    }

    fn retain(peers: &mut Peers, home: ShardId) -> AppliedBy {
        let id = peers.next_retain_id().unwrap();
        peers.send_retain(home, Stored { publication: publication(), id, hold: None })
    }

    /// Stamps of the confirmations that wait for a lane.
    fn confirmations(peers: &mut Peers, to: ShardId) -> Vec<u64> {
        let stamp = |message: MeshMessage| match message.0 {
            Mesh::IndexApplied { stamp, .. } => Some(stamp),
            _ => None,
        };
        peers.take(to).into_iter().filter_map(stamp).collect()
    }

    #[test]
    fn a_change_is_confirmed_after_the_retained_messages_before_it() {
        let [own, home, other] = [0, 1, 2].map(ShardId);
        let mut peers = Peers::new(own, 3);
        let first = retain(&mut peers, home);
        peers.applied_change(other, 10);
        let second = retain(&mut peers, home);
        assert!(confirmations(&mut peers, other).is_empty());
        peers.note_retain_applied(home, first.stamp);
        assert_eq!(confirmations(&mut peers, other), [10]);
        peers.applied_change(other, 11);
        peers.applied_change(other, 12);
        peers.note_retain_applied(home, second.stamp);
        assert_eq!(confirmations(&mut peers, other), [12]);
        peers.applied_change(other, 13);
        assert_eq!(confirmations(&mut peers, other), [13]);
    }

    #[test]
    fn a_lane_is_full_until_it_is_taken() {
        let mut peers = Peers::new(ShardId(0), 2);
        for _ in 0..limits::LANE_MESSAGES_MAX {
            assert!(!peers.any_full());
            peers.send(ShardId(1), Mesh::IndexApplied { stamp: 0, routed: 0 });
        }
        assert!(peers.any_full());
        assert_eq!(peers.take(ShardId(1)).len(), limits::LANE_MESSAGES_MAX);
        assert!(!peers.any_full() && !peers.is_waiting(ShardId(1)));
    }

    #[test]
    fn a_lane_is_full_of_bytes_too() {
        let mut peers = Peers::new(ShardId(0), 2);
        let message = publication();
        let forward = || Forward {
            publication: message.clone(),
            retain_id: None,
            stamp: None,
            origin: None,
            ordinary: true,
            keeps: false,
            shared: SmallVec::new(),
        };
        peers.lanes[1].waiting_bytes = limits::LANE_BYTES_MAX - 1;
        assert!(!peers.any_full());
        peers.send(ShardId(1), Mesh::Publish(forward()));
        assert!(peers.any_full());
    }
}
