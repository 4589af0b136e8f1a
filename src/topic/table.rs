//! Ids by hash: the table under every lookup of topics, filters and sessions. The keys lie where
//! the ids point, so that no text is held twice. Knows no key.

use ahash::RandomState;
use hashbrown::HashTable;

use super::mix::SplitMix;

/// A hash table of `u32` ids. Each slot carries half of the hash, so that
/// misses rarely look at a key and growing looks at none.
#[derive(Debug)]
pub(crate) struct IdTable {
    slots: HashTable<Slot>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot {
    hash: u32,
    id: u32,
}

impl IdTable {
    pub(crate) const fn new() -> Self {
        Self { slots: HashTable::new() }
    }

    /// Whether it holds no id.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The id under `hash` whose key is the one looked for.
    pub(crate) fn find(&self, hash: u64, is_key: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = fold(hash);
        let slot = self.slots.find(spread(hash), |slot| slot.hash == hash && is_key(slot.id))?;
        Some(slot.id)
    }

    /// Adds an id whose key is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, id: u32) {
        let hash = fold(hash);
        self.slots.insert_unique(spread(hash), Slot { hash, id }, |slot| spread(slot.hash));
    }

    /// Takes an id out, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, id: u32) {
        let slot = Slot { hash: fold(hash), id };
        if let Ok(found) = self.slots.find_entry(spread(slot.hash), |other| *other == slot) {
            found.remove();
        }
        let len = self.slots.len();
        if self.slots.capacity() > SPARE_MIN && self.slots.capacity() > 8 * len {
            self.slots.shrink_to(2 * len, |slot| spread(slot.hash));
        }
    }

    /// Gives the key of `id` another id.
    pub(crate) fn renumber(&mut self, hash: u64, id: u32, new: u32) {
        let slot = Slot { hash: fold(hash), id };
        if let Some(found) = self.slots.find_mut(spread(slot.hash), |other| *other == slot) {
            found.id = new;
        }
    }
}

/// The hash of one store's keys: the same for the same seed, so that a
/// simulated run repeats.
pub(super) fn hasher(seed: u64) -> RandomState {
    let mut numbers = SplitMix::new(seed);
    let mut next = || numbers.next();
    RandomState::with_seeds(next(), next(), next(), next())
}

/// The half of a hash that a slot keeps.
const fn fold(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

/// A full hash again: the table takes its place from the low bits, its tag from the top.
const fn spread(hash: u32) -> u64 {
    (hash as u64) << 32 | hash as u64
}

/// Capacity below which a table never shrinks.
const SPARE_MIN: usize = 64;
