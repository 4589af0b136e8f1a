//! Packet identifiers in use, in both directions of one connection.

use ringmq::base::PacketId;

/// Publications on their way, by packet identifier.
pub(crate) struct Outgoing {
    /// By identifier less 1; grows to the most that were on their way at once.
    places: Vec<Option<Inflight>>,
    free: Vec<u16>,
    max: u16,
}

#[derive(Clone, Copy)]
struct Inflight {
    intended: u64,
    /// PUBREC has come; PUBCOMP is next.
    received: bool,
}

impl Outgoing {
    /// At most `max` of them at once.
    pub(crate) fn new(max: u16) -> Self {
        Self { places: Vec::new(), free: Vec::new(), max }
    }

    /// The broker's Receive Maximum.
    pub(crate) fn lower_max(&mut self, max: u16) {
        self.max = self.max.min(max);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether no other may begin.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.max.into()
    }

    /// A new publication, meant to be sent at `intended`, and its identifier. There must be room.
    pub(crate) fn begin(&mut self, intended: u64) -> PacketId {
        debug_assert!(!self.is_full());
        let id = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u16
        });
        self.places[usize::from(id) - 1] = Some(Inflight { intended, received: false });
        PacketId::new(id).expect("identifiers start at 1")
    }

    /// Marks a publication as received by the broker; its intended time if it was not yet.
    pub(crate) fn receive(&mut self, id: PacketId) -> Option<u64> {
        let place = self.places.get_mut(usize::from(id.get()) - 1)?.as_mut()?;
        let first = !std::mem::replace(&mut place.received, true);
        first.then_some(place.intended)
    }

    /// Ends a publication that is so far; its intended time.
    pub(crate) fn end(&mut self, id: PacketId, received: bool) -> Option<u64> {
        let place = self.places.get_mut(usize::from(id.get()) - 1)?;
        let ended = place.take_if(|inflight| inflight.received == received)?;
        self.free.push(id.get());
        Some(ended.intended)
    }
}

/// Packet identifiers, one bit each.
#[derive(Default)]
pub(crate) struct IdSet(Vec<u64>);

impl IdSet {
    /// Puts it in. True if it was not there.
    pub(crate) fn insert(&mut self, id: PacketId) -> bool {
        let (word, bit) = Self::place(id);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word];
        self.0[word] |= bit;
        before & bit == 0
    }

    /// Takes it out, if it is there.
    pub(crate) fn remove(&mut self, id: PacketId) {
        let (word, bit) = Self::place(id);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    fn place(id: PacketId) -> (usize, u64) {
        (usize::from(id.get() / 64), 1 << (id.get() % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_used_again_once_they_are_free() {
        let mut outgoing = Outgoing::new(3);
        let ids: Vec<u16> = (0..3).map(|intended| outgoing.begin(intended).get()).collect();
        assert_eq!((ids.as_slice(), outgoing.is_full()), (&[1, 2, 3][..], true));
        let second = PacketId::new(2).unwrap();
        assert_eq!(outgoing.end(second, true), None, "PUBCOMP before PUBREC");
        assert_eq!((outgoing.receive(second), outgoing.receive(second)), (Some(1), None));
        assert_eq!(outgoing.end(second, false), None, "PUBACK after PUBREC");
        assert_eq!((outgoing.end(second, true), outgoing.end(second, true)), (Some(1), None));
        assert_eq!((outgoing.len(), outgoing.begin(9)), (2, second));
        assert_eq!(outgoing.end(PacketId::new(u16::MAX).unwrap(), false), None);
    }

    #[test]
    fn a_set_holds_any_identifier() {
        let mut set = IdSet::default();
        for id in [1, 63, 64, u16::MAX].map(|id| PacketId::new(id).unwrap()) {
            assert!(set.insert(id) && !set.insert(id));
            set.remove(id);
            assert!(set.insert(id));
        }
    }
}
