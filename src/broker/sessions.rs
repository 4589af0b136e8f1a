//! The sessions of one shard: by key, by Client Identifier, and by what the log calls them.

use ahash::RandomState;

use crate::{
    base::SessionKey,
    session::{Durable, Session},
    storage::SessionNumber,
    topic::IdTable,
};

/// Sessions whose home is this shard.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots by the hash of the Client Identifier, which the session has.
    by_client: IdTable,
    /// Slots by the hash of the number, which the session has, of those that are in the log.
    by_number: IdTable,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    session: Option<Box<Session>>,
}

impl Sessions {
    pub(super) fn new(hasher: RandomState) -> Self {
        let (by_client, by_number) = (IdTable::new(), IdTable::new());
        Self { slots: Vec::new(), free: Vec::new(), by_client, by_number, hasher }
    }

    pub(super) fn find(&self, client: &str) -> Option<SessionKey> {
        let is_client = |session: &Session| session.client.as_str() == client;
        self.find_in(&self.by_client, self.hasher.hash_one(client), is_client)
    }

    /// The session that the log knows by this number.
    pub(super) fn find_logged(&self, number: SessionNumber) -> Option<SessionKey> {
        let is_number =
            |session: &Session| session.durable.is_some_and(|durable| durable.number == number);
        self.find_in(&self.by_number, self.hasher.hash_one(number.0), is_number)
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionKey {
        debug_assert!(self.find(session.client.as_str()).is_none(), "one session a client");
        let hash = self.hasher.hash_one(session.client.as_str());
        let session = Some(Box::new(session));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.session = session;
        let key = SessionKey { slot, generation: entry.generation };
        self.by_client.insert(hash, slot);
        key
    }

    /// Notes how the log knows a session that it did not know.
    pub(super) fn enter_log(&mut self, key: SessionKey, durable: Durable) {
        if let Some(session) = self.get_mut(key) {
            session.durable = Some(durable);
            self.by_number.insert(self.hasher.hash_one(durable.number.0), key.slot);
        }
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
        self.by_client.remove(self.hasher.hash_one(session.client.as_str()), key.slot);
        if let Some(Durable { number, .. }) = session.durable {
            self.by_number.remove(self.hasher.hash_one(number.0), key.slot);
        }
        Some(session)
    }

    /// All sessions, for the rare occasions that concern each of them.
    pub(super) fn keys(&self) -> Vec<SessionKey> {
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| slot.session.is_some());
        let key = |(slot, held): (usize, &Slot)| SessionKey {
            slot: slot as u32,
            generation: held.generation,
        };
        slots.map(key).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn find_in(
        &self,
        table: &IdTable,
        hash: u64,
        is_it: impl Fn(&Session) -> bool,
    ) -> Option<SessionKey> {
        let session = |slot: u32| self.slots[slot as usize].session.as_deref();
        let slot = table.find(hash, |slot| session(slot).is_some_and(&is_it))?;
        Some(SessionKey { slot, generation: self.slots[slot as usize].generation })
    }
}
