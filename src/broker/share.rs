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
