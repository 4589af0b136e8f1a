//! How busy the members of the groups by [`Strategy::LeastInflight`] are, those
//! of this shard and, as far as they have told, those of the others. Empty if
//! there is no such group.
//!
//! [`Strategy::LeastInflight`]: super::Strategy::LeastInflight

use ahash::RandomState;

use super::{
    Member,
    slab::{NIL, Slab},
    table::IdTable,
};
use crate::base::SessionKey;

/// One load a member, however many groups it is in.
pub(super) struct Loads {
    loads: Slab<Load>,
    by_member: IdTable,
    /// Members of this shard whose load the others do not know.
    unreported: Vec<Member>,
}

struct Load {
    member: Member,
    /// Groups that weigh this member.
    groups: u32,
    /// Deliveries in flight and waiting when it was last told.
    told: u32,
    /// Messages that this shard has chosen it for since then.
    sent: u32,
    /// Whether it is among the unreported.
    is_unreported: bool,
}

impl Loads {
    pub(super) const fn new() -> Self {
        Self { loads: Slab::new(), by_member: IdTable::new(), unreported: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_member.is_empty()
    }

    /// One more group weighs this member: the id of its load.
    pub(super) fn enter(&mut self, member: Member, hasher: &RandomState) -> u32 {
        let id = self.find(member, hasher).unwrap_or_else(|| {
            let load = Load { member, groups: 0, told: 0, sent: 0, is_unreported: false };
            let id = self.loads.insert(load);
            self.by_member.insert(hasher.hash_one(member), id);
            id
        });
        self.loads[id].groups += 1;
        id
    }

    /// A group that weighed a member does so no more. [`NIL`] is nobody's load.
    pub(super) fn exit(&mut self, id: u32, hasher: &RandomState) {
        if id == NIL {
            return;
        }
        let load = &mut self.loads[id];
        load.groups -= 1;
        if load.groups == 0 {
            let Load { member, .. } = self.loads.remove(id);
            self.by_member.remove(hasher.hash_one(member), id);
        }
    }

    /// What is known and guessed of a load.
    pub(super) fn weight(&self, id: u32) -> u32 {
        let Load { told, sent, .. } = self.loads[id];
        told.saturating_add(sent)
    }

    /// The member gets a message.
    pub(super) fn add(&mut self, id: u32) {
        let load = &mut self.loads[id];
        load.sent = load.sent.saturating_add(1);
    }

    /// The load of a member, from its own shard.
    pub(super) fn tell(&mut self, member: Member, told: u32, hasher: &RandomState) {
        if let Some(id) = self.find(member, hasher) {
            let load = &mut self.loads[id];
            (load.told, load.sent) = (told, 0);
        }
    }

    /// The load of a member of this shard. The other shards must know it if it
    /// has changed or if one of them counts on a change (`is_awaited`).
    pub(super) fn note(
        &mut self,
        member: Member,
        now: u32,
        is_awaited: bool,
        hasher: &RandomState,
    ) {
        let Some(id) = self.find(member, hasher) else { return };
        let load = &mut self.loads[id];
        if (load.told != now || is_awaited) && !load.is_unreported {
            load.is_unreported = true;
            self.unreported.push(member);
        }
        (load.told, load.sent) = (now, 0);
    }

    pub(super) fn has_unreported(&self) -> bool {
        !self.unreported.is_empty()
    }

    /// The loads that the other shards are to be told now.
    pub(super) fn report(&mut self, hasher: &RandomState) -> Vec<(SessionKey, u32)> {
        let unreported = std::mem::take(&mut self.unreported);
        let report = unreported.into_iter().filter_map(|member| {
            // Who left meanwhile is nobody's concern any more.
            let id = self.find(member, hasher)?;
            let load = &mut self.loads[id];
            load.is_unreported = false;
            Some((member.session, load.told))
        });
        report.collect()
    }

    fn find(&self, member: Member, hasher: &RandomState) -> Option<u32> {
        self.by_member.find(hasher.hash_one(member), |id| self.loads[id].member == member)
    }
}
