//! What waits to be checked, by the address it comes from: each address gets its turn, and what does not fit
//! is taken from the one that most waits from.
//!
//! A plain value, bounded; knows not what waits in it: checks of credentials, TLS handshakes.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use ahash::RandomState;

use crate::base::{
    limits::{CHECKS_WAITING_BYTES_MAX, CHECKS_WAITING_MAX},
    source,
};

/// A line for each address.
#[derive(Debug)]
pub struct FairQueue<T> {
    lines: HashMap<Option<IpAddr>, VecDeque<(usize, T)>, RandomState>,
    /// Whose turn it is: every address with a line, once.
    turns: VecDeque<Option<IpAddr>>,
    waiting: usize,
    bytes: usize,
    /// How many may wait, and how many bytes of them.
    max: usize,
    bytes_max: usize,
}

/// With room for [`CHECKS_WAITING_MAX`] and [`CHECKS_WAITING_BYTES_MAX`].
impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self::bounded(CHECKS_WAITING_MAX, CHECKS_WAITING_BYTES_MAX)
    }
}

impl<T> FairQueue<T> {
    /// For what is bounded already.
    pub fn unbounded() -> Self {
        Self::bounded(usize::MAX, usize::MAX)
    }

    fn bounded(max: usize, bytes_max: usize) -> Self {
        let (lines, turns) = (HashMap::default(), VecDeque::new());
        Self { lines, turns, waiting: 0, bytes: 0, max, bytes_max }
    }

    /// Adds to the line of an address (all unix sockets together are one) what takes so many bytes. Returns what there is no room for any more:
    /// the latest of the longest line, which may be what was added.
    pub fn push(&mut self, address: Option<IpAddr>, bytes: usize, item: T) -> Option<T> {
        let address = address.map(source);
        let line = self.lines.entry(address).or_default();
        if line.is_empty() {
            self.turns.push_back(address);
        }
        line.push_back((bytes, item));
        self.waiting += 1;
        self.bytes += bytes;
        if self.waiting <= self.max && self.bytes <= self.bytes_max {
            return None;
        }
        let own = line.len();
        let longest = self.lines.iter().max_by_key(|(_, line)| line.len());
        // Of several that are as long, the one that has just grown.
        let full = longest.filter(|(_, line)| line.len() > own).map_or(address, |(full, _)| *full);
        let (bytes, dropped) = self.lines.get_mut(&full).and_then(VecDeque::pop_back)?;
        if self.note_taken(full, bytes) {
            self.turns.retain(|other| *other != full);
        }
        Some(dropped)
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<T> {
        let address = self.turns.pop_front()?;
        let (bytes, item) = self.lines.get_mut(&address).and_then(VecDeque::pop_front)?;
        if !self.note_taken(address, bytes) {
            self.turns.push_back(address);
        }
        Some(item)
    }

    /// How many wait.
    pub const fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether that was the last of its line.
    fn note_taken(&mut self, address: Option<IpAddr>, bytes: usize) -> bool {
        self.waiting -= 1;
        self.bytes -= bytes;
        let is_last = self.lines.get(&address).is_some_and(VecDeque::is_empty);
        if is_last {
            self.lines.remove(&address);
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        (text != "unix").then(|| text.parse().unwrap())
    }

    #[test]
    fn addresses_take_turns() {
        let mut queue = FairQueue::default();
        let push = |queue: &mut FairQueue<_>, from, item| {
            assert_eq!(queue.push(address(from), 1, item), None);
        };
        for (from, item) in [
            ("1.1.1.1", "a1"),
            ("1.1.1.1", "a2"),
            ("1.1.1.1", "a3"),
            ("2001:db8::1", "b1"),
            ("2001:db8::2", "b2"),
            ("2001:db8:0:1::2", "c1"),
            ("::ffff:1.1.1.1", "a4"),
            ("unix", "d1"),
        ] {
            push(&mut queue, from, item);
        }
        assert_eq!(queue.len(), 8);
        let taken: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(taken, ["a1", "b1", "c1", "d1", "a2", "b2", "a3", "a4"]);
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.turns.is_empty());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn who_floods_is_who_loses() {
        let mut queue = FairQueue::default();
        let (flood, other) = (address("1.1.1.1"), address("2.2.2.2"));
        for number in 0..CHECKS_WAITING_MAX {
            assert_eq!(queue.push(flood, 1, number), None);
        }
        assert_eq!(queue.push(flood, 1, 1_000_000), Some(1_000_000));
        assert_eq!(queue.push(other, 1, 2_000_000), Some(CHECKS_WAITING_MAX - 1));
        assert_eq!(
            (queue.len(), queue.pop(), queue.pop()),
            (CHECKS_WAITING_MAX, Some(0), Some(2_000_000))
        );
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut queue = FairQueue::default();
        let (flood, other) = (address("1.1.1.1"), address("2.2.2.2"));
        for number in 0..4 {
            assert_eq!(queue.push(flood, CHECKS_WAITING_BYTES_MAX / 4, number), None);
        }
        assert_eq!(queue.push(other, 1, 4), Some(3));
        assert_eq!(queue.len(), 4);
    }
}
