//! Values at stable `u32` ids, in pages that never move: growing copies
//! nothing, so that no publication waits for a table of millions to be moved.
//! Knows nothing of what it holds.

use std::ops;

/// No id: the end of a list, or nothing there.
pub(super) const NIL: u32 = u32::MAX;

/// A paged slab with a free list.
pub(super) struct Slab<T> {
    pages: Vec<Vec<Slot<T>>>,
    /// The free slot to use next, or [`NIL`].
    free: u32,
    len: usize,
}

pub(super) enum Slot<T> {
    Used(T),
    /// The next free slot, or [`NIL`].
    Free(u32),
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { pages: Vec::new(), free: NIL, len: 0 }
    }

    /// Values held.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Stores a value; its id stays the same until it is removed.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let id = if self.free == NIL { self.grow() } else { self.free };
        let slot = self.slot_mut(id);
        let Slot::Free(next) = *slot else { unreachable!("the free list holds free slots only") };
        *slot = Slot::Used(value);
        self.free = next;
        self.len += 1;
        id
    }

    /// Takes out the value that `insert` gave this id.
    pub(super) fn remove(&mut self, id: u32) -> T {
        let free = std::mem::replace(&mut self.free, id);
        match std::mem::replace(self.slot_mut(id), Slot::Free(free)) {
            Slot::Used(value) => {
                self.len -= 1;
                value
            }
            Slot::Free(_) => unreachable!("ids are dropped when their value is removed"),
        }
    }

    /// One more slot behind the last.
    fn grow(&mut self) -> u32 {
        if self.pages.last().is_none_or(|page| page.len() == PAGE_SLOTS) {
            self.pages.push(Vec::with_capacity(PAGE_SLOTS));
        }
        let page = self.pages.len() - 1;
        let slots = &mut self.pages[page];
        let id = page * PAGE_SLOTS + slots.len();
        slots.push(Slot::Free(NIL));
        u32::try_from(id).expect("memory ends long before 2^32 slots")
    }

    fn slot_mut(&mut self, id: u32) -> &mut Slot<T> {
        &mut self.pages[id as usize / PAGE_SLOTS][id as usize % PAGE_SLOTS]
    }
}

impl<T> ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        match &self.pages[id as usize / PAGE_SLOTS][id as usize % PAGE_SLOTS] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("ids are dropped when their value is removed"),
        }
    }
}

impl<T> ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        match self.slot_mut(id) {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("ids are dropped when their value is removed"),
        }
    }
}

/// Slots of one page: large enough that the list of pages for a million values stays in the first
/// cache. An empty shard pays for no more of it than it uses: the rest is never touched.
const PAGE_SLOTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_slots_are_used_again() {
        let mut slab = Slab::new();
        let ids: Vec<_> = (0..3000).map(|n| slab.insert(n)).collect();
        assert!(ids.iter().enumerate().all(|(n, &id)| slab[id] == n));
        assert_eq!(slab.remove(ids[3]), 3);
        assert_eq!(slab.remove(ids[700]), 700);
        assert_eq!(slab.len(), 2998);
        assert_eq!((slab.insert(1), slab.insert(2)), (ids[700], ids[3]));
        assert_eq!(slab.insert(3), ids.len() as u32);
    }
}
