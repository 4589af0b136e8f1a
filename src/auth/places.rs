//! Places in the process that clients take, counted by whom they have in common: an address, a user.
//!
//! A plain value that all shards share, touched when somebody comes and when it leaves. Nobody who has no place
//! is remembered, so it is bounded by what takes places.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use ahash::RandomState;

/// How many have a place, by key.
pub struct Places<K> {
    parts: [Mutex<HashMap<K, u32, RandomState>>; PARTS],
    hasher: RandomState,
    taken: AtomicU32,
    rule: Rule,
}

/// Who may have another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Whoever has fewer than so many.
    Each(u32),
    /// While there are any left of so many, whoever has fewer than are left: one who takes all it can get leaves
    /// half of them, and two leave a quarter.
    Fair(u32),
}

/// A place, given back when it is dropped.
pub struct Place<K: Hash + Eq> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// Nobody has one yet.
    pub fn new(rule: Rule) -> Arc<Self> {
        let parts = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { parts, hasher: RandomState::new(), taken: AtomicU32::new(0), rule })
    }

    /// A place for one more with this key, if it may have one.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Box<Place<K>>> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let max = match self.rule {
            Rule::Each(max) => max,
            Rule::Fair(max) => max.saturating_sub(taken),
        };
        let mut part = self.part(&key);
        let own = part.get(&key).copied().unwrap_or_default();
        if own >= max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        part.insert(key.clone(), own + 1);
        drop(part);
        Some(Box::new(Place { places: self.clone(), key }))
    }
}

impl<K: Hash + Eq> Places<K> {
    fn part(&self, key: &K) -> MutexGuard<'_, HashMap<K, u32, RandomState>> {
        let part = &self.parts[self.hasher.hash_one(key) as usize % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Place<K> {
    /// Whose it is.
    pub const fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        let mut part = self.places.part(&self.key);
        match part.get_mut(&self.key) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(part.remove(&self.key)),
        }
    }
}

impl<K: Hash + Eq + fmt::Debug> fmt::Debug for Place<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({:?})", self.key)
    }
}

/// Shards that let in clients at the same time mostly find different locks.
const PARTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_so_many_places_and_gets_back_what_it_gives_back() {
        let places = Places::new(Rule::Each(2));
        let first = places.take("a").unwrap();
        let second = places.take("a").unwrap();
        assert!(places.take("a").is_none() && places.take("a").is_none());
        assert!(places.take("b").is_some());
        assert_eq!(*second.key(), "a");
        drop(first);
        let third = places.take("a").unwrap();
        assert!(places.take("a").is_none());
        drop((second, third));
        assert!(places.parts.iter().all(|part| part.lock().unwrap().is_empty()));
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_takes_all_it_can_get_leaves_places_to_the_others() {
        let places = Places::new(Rule::Fair(16));
        let all_for = |key| std::iter::from_fn(|| places.take(key)).collect::<Vec<_>>();
        let (greedy, second, third) = (all_for("a"), all_for("b"), all_for("c"));
        assert_eq!([greedy.len(), second.len(), third.len()], [8, 4, 2]);
        drop(greedy);
        assert!(places.take("d").is_some() && places.take("b").is_some());
    }
}
