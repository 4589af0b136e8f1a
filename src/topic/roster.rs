//! A list without duplicates that is walked as one slice: the sessions behind
//! one filter. Finding one is a scan while they are few and a hash lookup when
//! they are many, so that 100,000 subscriptions to one filter stay linear.

use std::hash::Hash;

use ahash::RandomState;

use super::table::IdTable;

/// What a [`Roster`] holds: each item has a key that no other has.
pub(super) trait Keyed {
    type Key: Copy + Eq + Hash;

    fn key(&self) -> Self::Key;
}

/// Items in no order that means anything; the last takes a removed one's place.
pub(super) struct Roster<T> {
    items: Vec<T>,
    /// Item positions by key, once there are more than [`SCAN_MAX`].
    positions: IdTable,
}

impl<T: Keyed> Roster<T> {
    pub(super) const fn new() -> Self {
        Self { items: Vec::new(), positions: IdTable::new() }
    }

    /// The items. Their keys must not be changed.
    pub(super) fn as_slice(&self) -> &[T] {
        &self.items
    }

    /// The item at a position. Its key must not be changed.
    pub(super) fn at_mut(&mut self, position: usize) -> &mut T {
        &mut self.items[position]
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Where the item with this key is.
    pub(super) fn find(&self, key: T::Key, hasher: &RandomState) -> Option<usize> {
        if self.positions.is_empty() {
            return self.items.iter().position(|item| item.key() == key);
        }
        let is_key = |at: u32| self.items[at as usize].key() == key;
        self.positions.find(hasher.hash_one(key), is_key).map(|at| at as usize)
    }

    /// Appends an item whose key is not there yet.
    pub(super) fn push(&mut self, item: T, hasher: &RandomState) {
        self.items.push(item);
        let last = self.items.len() - 1;
        let from = match self.positions.is_empty() {
            false => last,
            true if self.items.len() > SCAN_MAX => 0,
            true => return,
        };
        for (at, item) in self.items.iter().enumerate().skip(from) {
            self.positions.insert(hasher.hash_one(item.key()), at as u32);
        }
    }

    /// Takes an item out; the last one moves to its position.
    pub(super) fn swap_remove(&mut self, at: usize, hasher: &RandomState) -> T {
        let last = self.items.len() - 1;
        self.swap(at, last, hasher);
        let item = self.items.swap_remove(last);
        if last < SCAN_MAX / 2 {
            self.positions = IdTable::new();
        } else {
            self.positions.remove(hasher.hash_one(item.key()), last as u32);
        }
        if self.items.capacity() > 4 * last {
            self.items.shrink_to(2 * last);
        }
        item
    }

    /// Exchanges two items.
    pub(super) fn swap(&mut self, a: usize, b: usize, hasher: &RandomState) {
        if a == b {
            return;
        }
        self.items.swap(a, b);
        if !self.positions.is_empty() {
            for (to, from) in [(a, b), (b, a)] {
                let hash = hasher.hash_one(self.items[to].key());
                self.positions.renumber(hash, from as u32, to as u32);
            }
        }
    }
}

/// Longest list that is scanned: 512 bytes of subscribers.
const SCAN_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::table;

    impl Keyed for u32 {
        type Key = u32;

        fn key(&self) -> u32 {
            *self
        }
    }

    #[test]
    fn every_item_is_found_at_every_size() {
        let hasher = table::hasher(1);
        let mut roster = Roster::new();
        for n in 0..200 {
            roster.push(n, &hasher);
        }
        roster.swap(0, 150, &hasher);
        for n in 0..200 {
            for kept in n..200 {
                let at = roster.find(kept, &hasher).unwrap();
                assert_eq!(roster.as_slice()[at], kept);
            }
            let at = roster.find(n, &hasher).unwrap();
            assert_eq!(roster.swap_remove(at, &hasher), n);
            assert_eq!(roster.find(n, &hasher), None);
        }
        assert_eq!(roster.len(), 0);
    }
}
