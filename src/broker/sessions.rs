//! The sessions of one shard: by key and by Client Identifier.

use std::collections::HashMap;

use ahash::RandomState;

use crate::{
    base::{ClientId, SessionKey},
    session::Session,
};

/// Sessions whose home is this shard.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_client: HashMap<ClientId, SessionKey, RandomState>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    session: Option<Box<Session>>,
}

impl Sessions {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_client: HashMap::with_hasher(hasher) }
    }

    pub(super) fn find(&self, client: &str) -> Option<SessionKey> {
        self.by_client.get(client).copied()
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionKey {
        let client = session.client.clone();
        let session = Some(Box::new(session));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.session = session;
        let key = SessionKey { slot, generation: entry.generation };
        let replaced = self.by_client.insert(client, key);
        debug_assert!(replaced.is_none(), "one session a client");
        key
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Session> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.session.as_deref().filter(|_| slot.generation == key.generation)
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.session.as_deref_mut().filter(|_| slot.generation == key.generation)
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        let session = slot.session.take_if(|_| slot.generation == key.generation)?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        self.by_client.remove(&session.client);
        Some(session)
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }
}
