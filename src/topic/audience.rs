//! Who is behind one filter: sessions of this shard, other shards, groups. One
//! session or one shard and nobody else is by far the most common, and needs no
//! allocation. Knows no filter.

use ahash::RandomState;

use super::{
    Added, LocalMatch, Removed,
    slab::NIL,
    subscribers::{SubscriberKey, Subscribers},
};
use crate::base::{ShardId, ShardSet};

/// All that one filter leads to.
pub(super) enum Audience {
    Nobody,
    /// One session of this shard.
    Session(LocalMatch),
    /// One other shard.
    Shard(ShardId),
    Several(Box<Several>),
}

/// An index entry has to hold it a million times.
const _: () = assert!(size_of::<Audience>() == 16);

/// What is seldom there, or seldom alone.
pub(super) struct Several {
    local: Subscribers,
    shards: ShardSet,
    /// Shared subscriptions with this pattern: head of a list in [`super::share::Groups`], or [`NIL`].
    groups: u32,
}

impl Audience {
    pub(super) const fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// Sessions of this shard.
    pub(super) fn local(&self) -> &[LocalMatch] {
        match self {
            Self::Session(one) => std::slice::from_ref(one),
            Self::Several(several) => several.local.as_slice(),
            Self::Nobody | Self::Shard(_) => &[],
        }
    }

    /// Other shards with subscribers.
    pub(super) fn shards(&self) -> ShardSet {
        match self {
            Self::Shard(shard) => {
                let mut one = ShardSet::EMPTY;
                one.insert(*shard);
                one
            }
            Self::Several(several) => several.shards,
            Self::Nobody | Self::Session(_) => ShardSet::EMPTY,
        }
    }

    /// The head of the list of groups, or [`NIL`].
    pub(super) const fn groups(&self) -> u32 {
        match self {
            Self::Several(several) => several.groups,
            _ => NIL,
        }
    }

    /// The same, to be changed; [`settle`](Self::settle) follows.
    pub(super) fn groups_mut(&mut self) -> &mut u32 {
        &mut self.several().groups
    }

    /// One session of this shard.
    pub(super) fn find(&self, key: SubscriberKey, hasher: &RandomState) -> Option<&LocalMatch> {
        match self {
            Self::Several(several) => several.local.find(key, hasher),
            few => few.local().first().filter(|one| one.has_key(key)),
        }
    }

    /// Adds a session of this shard, or gives it other options.
    pub(super) fn insert(&mut self, new: LocalMatch, hasher: &RandomState) -> Added {
        if self.is_nobody() {
            *self = Self::Session(new);
            return Added::First;
        }
        let added = self.several().local.insert(new, hasher);
        self.settle();
        added
    }

    /// Takes a session of this shard out.
    pub(super) fn remove(&mut self, key: SubscriberKey, hasher: &RandomState) -> Removed {
        if self.find(key, hasher).is_none() {
            return Removed::Absent;
        }
        let removed = self.several().local.remove(key, hasher);
        self.settle();
        removed
    }

    /// Adds another shard, or takes it out.
    pub(super) fn set_shard(&mut self, shard: ShardId, is_in: bool) {
        match self {
            Self::Nobody if is_in => *self = Self::Shard(shard),
            _ if self.shards().contains(shard) == is_in => {}
            _ => {
                self.several().shards.set(shard, is_in);
                self.settle();
            }
        }
    }

    /// Returns to the smallest form after a change.
    pub(super) fn settle(&mut self) {
        let Self::Several(several) = self else { return };
        if several.groups != NIL {
            return;
        }
        let mut shards = several.shards.iter();
        let settled = match (several.local.as_slice(), shards.next(), shards.next()) {
            ([], None, _) => Self::Nobody,
            ([], Some(shard), None) => Self::Shard(shard),
            ([one], None, _) => Self::Session(*one),
            _ => return,
        };
        *self = settled;
    }

    fn several(&mut self) -> &mut Several {
        if !matches!(self, Self::Several(_)) {
            let local = match *self {
                Self::Session(one) => Subscribers::One(one),
                _ => Subscribers::Nobody,
            };
            *self = Self::Several(Box::new(Several { local, shards: self.shards(), groups: NIL }));
        }
        match self {
            Self::Several(several) => several,
            _ => unreachable!("it was made so"),
        }
    }
}
