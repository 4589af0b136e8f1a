//! Identifiers, each its own type so that none can be passed for another.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU64},
};

use super::{Text, limits::SHARDS_MAX};

/// One shard of the broker: one executor, one ring, one copy of the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// Position in tables that hold one element a shard.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One publication with RETAIN, among all that the shards have routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetainId {
    /// The shard that routed it: its publisher's.
    pub shard: ShardId,
    /// Grows with each that this shard routes.
    pub stamp: NonZeroU64,
}

/// A set of shards, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardSet(u128);

const _: () = assert!(SHARDS_MAX <= u128::BITS as usize);

impl ShardSet {
    /// No shard.
    pub const EMPTY: Self = Self(0);

    /// Adds a shard; true if it was not there.
    pub fn insert(&mut self, shard: ShardId) -> bool {
        let before = self.0;
        self.0 |= 1 << shard.0;
        before != self.0
    }

    /// Takes a shard out; true if it was there.
    pub fn remove(&mut self, shard: ShardId) -> bool {
        let before = self.0;
        self.0 &= !(1 << shard.0);
        before != self.0
    }

    /// Whether the shard is in the set.
    pub const fn contains(self, shard: ShardId) -> bool {
        self.0 >> shard.0 & 1 == 1
    }

    /// Whether no shard is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Every shard that is in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Every shard that is in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Adds a shard or takes it out.
    pub fn set(&mut self, shard: ShardId, is_in: bool) {
        if is_in {
            self.insert(shard);
        } else {
            self.remove(shard);
        }
    }

    /// The shards in ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let shard = u16::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)?;
            rest &= rest - 1;
            Some(ShardId(shard))
        })
    }
}

/// One network connection on its shard. The generation makes a late completion
/// or effect for a closed connection miss instead of reaching its successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ConnId {
    /// Index into the shard's connection tables.
    pub slot: u32,
    /// How often the slot has been used before.
    pub generation: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// One listener of the process, in the order of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct ListenerId(pub u16);

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One session on its home shard, stable for the session's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SessionKey {
    /// Index into the shard's session table.
    pub slot: u32,
    /// How often the slot has been used before.
    pub generation: u32,
}

/// Packet Identifier, never 0 (MQTT-2.2.1-3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The identifier, or `None` for 0.
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The first identifier that is ever used.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// The wire value.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The identifier after this one; 1 follows 65,535.
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(value) => Self(value),
            None => Self::FIRST,
        }
    }

    /// The identifier `steps` `next` steps after this one.
    pub const fn plus(self, steps: u16) -> Self {
        let zero_based = (self.get() as u32 - 1 + steps as u32) % 65_535;
        match NonZeroU16::new(zero_based as u16 + 1) {
            Some(value) => Self(value),
            None => unreachable!(),
        }
    }

    /// How many `next` steps lead from `earlier` to this one (0 to 65,534).
    pub const fn steps_since(self, earlier: Self) -> u16 {
        if self.get() >= earlier.get() {
            self.get() - earlier.get()
        } else {
            // One less than the wrapping difference: 0 is skipped.
            self.get().wrapping_sub(earlier.get()) - 1
        }
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Client Identifier; cheap to clone and to send to another shard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Text);

impl ClientId {
    /// The identifier as the client sent it or as the server assigned it.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl std::borrow::Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_skip_zero() {
        let last = PacketId::new(65_535).unwrap();
        assert_eq!(last.next(), PacketId::FIRST);
        assert_eq!(PacketId::FIRST.steps_since(last), 1);
        assert_eq!(PacketId::new(3).unwrap().steps_since(PacketId::new(65_534).unwrap()), 4);
        assert_eq!(last.steps_since(PacketId::FIRST), 65_534);
        assert_eq!(PacketId::new(0), None);
    }

    #[test]
    fn shard_set_iterates_in_order() {
        let mut set = ShardSet::EMPTY;
        for shard in [5, 0, 127, 5] {
            set.insert(ShardId(shard));
        }
        assert_eq!(set.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 5, 127]);
        assert!(set.remove(ShardId(5)) && !set.remove(ShardId(5)));
        assert!(!set.contains(ShardId(5)) && set.contains(ShardId(127)));
    }
}
