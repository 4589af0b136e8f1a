//! Clients that come again and again: counted, and banned for a while when it is too often.
//!
//! A client is known by its Client Identifier and by what it has proven, or else by its address, so that nobody gets
//! another client banned under whose name it comes. All connections of a Client Identifier come to its home
//! shard: what is counted here is all there is of them.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use ahash::RandomState;

use crate::{
    base::{ClientId, Time, limits::FLAPPING_CLIENTS_MAX},
    config::Limits,
};

/// Who comes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) client: ClientId,
    pub(super) known_by: KnownBy,
}

/// What else tells a client from others of its name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum KnownBy {
    /// The user it has proven to be.
    User(Box<str>),
    /// Where it comes from, if it has proven nothing; a unix socket has no address.
    Address(Option<IpAddr>),
}

/// What becomes of one that comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coming {
    Welcome,
    /// From now on.
    BannedNow,
    Banned,
}

/// How often clients have come of late, and who is banned for that.
#[derive(Debug, Default)]
pub(super) struct Flapping {
    connects: Lapsing<u32>,
    bans: Lapsing<()>,
}

impl Flapping {
    /// Whether a client is banned.
    pub(super) fn is_banned(&mut self, now: Time, key: impl FnOnce() -> Key) -> bool {
        self.bans.lapse(now);
        !self.bans.is_empty() && self.bans.get(&key()).is_some()
    }

    /// Counts a client that comes.
    pub(super) fn note(&mut self, now: Time, key: Key, limits: &Limits) -> Coming {
        self.bans.lapse(now);
        self.connects.lapse(now);
        if self.bans.get(&key).is_some() {
            return Coming::Banned;
        }
        let Some(count) = self.connects.get(&key) else {
            self.connects.insert(now.plus_secs(limits.flapping_secs.into()), key, 1);
            return Coming::Welcome;
        };
        *count = count.saturating_add(1);
        if *count <= limits.flapping_connects_max {
            return Coming::Welcome;
        }
        self.connects.remove(&key);
        self.bans.insert(now.plus_secs(limits.ban_secs.into()), key, ());
        Coming::BannedNow
    }
}

/// What is remembered of clients for a time that is the same for all: the oldest lapses first. Where there are too
/// many, it does so early.
#[derive(Debug)]
struct Lapsing<V> {
    values: HashMap<Key, (Time, V), RandomState>,
    /// In the order of the times; one whose value has another time, or none, means nothing.
    order: VecDeque<(Time, Key)>,
}

impl<V> Default for Lapsing<V> {
    fn default() -> Self {
        Self { values: HashMap::default(), order: VecDeque::new() }
    }
}

impl<V> Lapsing<V> {
    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn get(&mut self, key: &Key) -> Option<&mut V> {
        self.values.get_mut(key).map(|(_, value)| value)
    }

    fn insert(&mut self, until: Time, key: Key, value: V) {
        if self.order.len() >= FLAPPING_CLIENTS_MAX {
            self.forget_oldest();
        }
        self.order.push_back((until, key.clone()));
        self.values.insert(key, (until, value));
    }

    fn remove(&mut self, key: &Key) {
        self.values.remove(key);
    }

    /// Forgets what is over.
    fn lapse(&mut self, now: Time) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((until, key)) = self.order.pop_front() else { return };
        if self.values.get(&key).is_some_and(|(at, _)| *at == until) {
            self.values.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(client: &str, user: &str) -> Key {
        Key { client: ClientId::new(client), known_by: KnownBy::User(user.into()) }
    }

    fn from(client: &str, address: &str) -> Key {
        let address = Some(address.parse().unwrap());
        Key { client: ClientId::new(client), known_by: KnownBy::Address(address) }
    }

    fn limits() -> Limits {
        Limits { flapping_connects_max: 2, flapping_secs: 10, ban_secs: 100, ..Limits::default() }
    }

    fn at(secs: u64) -> Time {
        Time::from_millis(1000 * secs)
    }

    #[test]
    fn who_comes_too_often_is_banned_for_a_while_and_nobody_else() {
        let mut flapping = Flapping::default();
        let limits = limits();
        let mut note = |secs, key: &Key| flapping.note(at(secs), key.clone(), &limits);
        let flapper = from("c", "192.0.2.1");
        assert_eq!([0, 1, 2, 3].map(|secs| note(secs, &flapper)), {
            use Coming::{Banned, BannedNow, Welcome};
            [Welcome, Welcome, BannedNow, Banned]
        });
        for other in [from("c", "192.0.2.2"), from("d", "192.0.2.1"), user("c", "ann")] {
            assert_eq!(note(4, &other), Coming::Welcome, "{other:?}");
        }
        assert_eq!((note(101, &flapper), note(102, &flapper)), (Coming::Banned, Coming::Welcome));
        assert!(!flapping.is_banned(at(102), || user("c", "ann")));
    }

    #[test]
    fn what_is_spread_over_more_than_the_time_is_not_too_often() {
        let mut flapping = Flapping::default();
        for secs in 0..100 {
            let coming = flapping.note(at(5 * secs), user("c", "ann"), &limits());
            assert_eq!(coming, Coming::Welcome, "{secs}");
        }
        assert_eq!(flapping.connects.order.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut flapping = Flapping::default();
        let limits = Limits { flapping_connects_max: 0, ..limits() };
        for number in 0..FLAPPING_CLIENTS_MAX + 3 {
            let key = user(&number.to_string(), "ann");
            flapping.note(at(1), key.clone(), &limits);
            assert_eq!(flapping.note(at(1), key, &limits), Coming::BannedNow);
        }
        let Flapping { connects, bans } = &flapping;
        assert!(connects.values.is_empty() && connects.order.len() == FLAPPING_CLIENTS_MAX);
        assert!(bans.values.len() == FLAPPING_CLIENTS_MAX);
        assert!(!flapping.is_banned(at(1), || user("2", "ann")));
        assert!(flapping.is_banned(at(1), || user("3", "ann")));
        assert!(!flapping.is_banned(at(101), || user("3", "ann")));
    }
}
