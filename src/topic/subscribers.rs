//! The sessions of this shard behind one filter. One is by far the most common
//! number and needs no allocation. Knows no filter.

use ahash::RandomState;

use super::{
    Added, LocalMatch, Removed,
    roster::{Keyed, Roster},
};
use crate::base::SessionKey;

/// Local subscribers of one filter.
pub(super) enum Subscribers {
    Nobody,
    One(LocalMatch),
    /// Two or more.
    Many(Box<Roster<LocalMatch>>),
}

impl Subscribers {
    /// All of them.
    pub(super) fn as_slice(&self) -> &[LocalMatch] {
        match self {
            Self::Nobody => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many.as_slice(),
        }
    }

    /// One of them.
    pub(super) fn find(&self, key: SubscriberKey, hasher: &RandomState) -> Option<&LocalMatch> {
        match self {
            Self::Many(many) => many.find(key, hasher).map(|at| &many.as_slice()[at]),
            few => few.as_slice().first().filter(|one| one.key() == key),
        }
    }

    /// Adds a session, or gives it other options.
    pub(super) fn insert(&mut self, new: LocalMatch, hasher: &RandomState) -> Added {
        match self {
            Self::Nobody => {
                *self = Self::One(new);
                Added::First
            }
            Self::One(one) if one.key() == new.key() => {
                *one = new;
                Added::Replaced
            }
            Self::One(one) => {
                let mut many = Roster::new();
                many.push(*one, hasher);
                many.push(new, hasher);
                *self = Self::Many(Box::new(many));
                Added::Another
            }
            Self::Many(many) => match many.find(new.key(), hasher) {
                Some(at) => {
                    *many.at_mut(at) = new;
                    Added::Replaced
                }
                None => {
                    many.push(new, hasher);
                    Added::Another
                }
            },
        }
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, key: SubscriberKey, hasher: &RandomState) -> Removed {
        match self {
            Self::One(one) if one.key() == key => {
                *self = Self::Nobody;
                Removed::Last
            }
            Self::Many(many) => {
                let Some(at) = many.find(key, hasher) else { return Removed::Absent };
                many.swap_remove(at, hasher);
                if let [one] = *many.as_slice() {
                    *self = Self::One(one);
                }
                Removed::NotLast
            }
            _ => Removed::Absent,
        }
    }
}

/// A session, and whether its filter is exclusive: it may have an ordinary one beside it.
pub(super) type SubscriberKey = (SessionKey, bool);

impl LocalMatch {
    /// Whether this is the one with that key.
    pub(super) fn has_key(&self, key: SubscriberKey) -> bool {
        self.key() == key
    }
}

impl Keyed for LocalMatch {
    type Key = SubscriberKey;

    fn key(&self) -> SubscriberKey {
        (self.session, self.options.marks.is_exclusive())
    }
}
