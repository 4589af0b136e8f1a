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

/// An index entry has to hold it a million times.
const _: () = assert!(size_of::<Subscribers>() == 16);

impl Subscribers {
    /// All of them.
    pub(super) fn as_slice(&self) -> &[LocalMatch] {
        match self {
            Self::Nobody => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many.as_slice(),
        }
    }

    /// Adds a session, or gives it other options.
    pub(super) fn insert(&mut self, new: LocalMatch, hasher: &RandomState) -> Added {
        match self {
            Self::Nobody => {
                *self = Self::One(new);
                Added::First
            }
            Self::One(one) if one.session == new.session => {
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
            Self::Many(many) => match many.find(new.session, hasher) {
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
    pub(super) fn remove(&mut self, session: SessionKey, hasher: &RandomState) -> Removed {
        match self {
            Self::One(one) if one.session == session => {
                *self = Self::Nobody;
                Removed::Last
            }
            Self::Many(many) => {
                let Some(at) = many.find(session, hasher) else { return Removed::Absent };
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

impl Keyed for LocalMatch {
    type Key = SessionKey;

    fn key(&self) -> SessionKey {
        self.session
    }
}
