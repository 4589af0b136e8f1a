//! Deliveries of a session that are only in the log: where each stands, 12 bytes of memory. They come
//! behind those that are in memory, and are read in their order while these leave. What the log does
//! not have and must not pass them waits with them.

use std::collections::VecDeque;

use super::Queued;
use crate::storage::{Delivery, DeliveryNumber, Hold, Slot};

/// Costs a pointer until something has been parked.
#[derive(Debug, Default)]
pub struct Parked(Option<Box<Lot>>);

#[derive(Debug, Default)]
struct Lot {
    slots: VecDeque<Slot>,
    bytes: u64,
    /// QoS 0 messages, each with the number of the delivery that it comes before.
    late: VecDeque<(u64, Queued)>,
    /// Deliveries before this number may have been sent on an earlier connection.
    sent: u64,
    /// Whether there is no connection: nothing is kept in memory that is in the log.
    is_offline: bool,
    /// Names the read that is under way.
    read: Option<u64>,
}

impl Parked {
    pub(super) const EMPTY: Self = Self(None);

    /// What a restart has found. `sent`: those before this number may have been sent.
    pub(super) fn recovered(sent: DeliveryNumber, slots: VecDeque<Slot>) -> Self {
        let lot = Lot { slots, sent: sent.0, is_offline: true, ..Lot::default() };
        let mut parked = Self(Some(Box::new(lot)));
        let bytes = parked.holds().map(|hold| u64::from(hold.bytes)).sum();
        parked.lot().bytes = bytes;
        parked
    }

    /// How many deliveries there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |lot| lot.slots.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the log that they keep.
    pub(super) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |lot| lot.bytes)
    }

    /// The first of them.
    pub fn first(&self) -> Option<Delivery> {
        self.0.as_ref()?.slots.front().map(|slot| slot.get())
    }

    /// Whether a read is under way.
    pub fn is_reading(&self) -> bool {
        self.0.as_ref().is_some_and(|lot| lot.read.is_some())
    }

    /// A read is under way, named by a number that is used for no other.
    pub fn reading(&mut self, read: u64) {
        self.lot().read = Some(read);
    }

    /// A read has ended; false if nobody waits for it any more.
    pub fn end_read(&mut self, read: u64) -> bool {
        let mut lot = self.0.as_mut();
        lot.as_mut().is_some_and(|lot| lot.read.take_if(|under_way| *under_way == read).is_some())
    }

    pub(super) fn is_offline(&self) -> bool {
        self.0.as_ref().is_some_and(|lot| lot.is_offline)
    }

    /// There is no connection any more, which has sent the deliveries before this number.
    pub(super) fn go_offline(&mut self, sent: u64) {
        let lot = self.lot();
        lot.is_offline = true;
        lot.read = None;
        lot.sent = sent.max(lot.sent);
    }

    pub(super) fn go_online(&mut self) {
        if let Some(lot) = &mut self.0 {
            lot.is_offline = false;
        }
    }

    /// Deliveries before this number may have been sent on an earlier connection.
    pub(super) fn sent(&self) -> u64 {
        self.0.as_ref().map_or(0, |lot| lot.sent)
    }

    pub(super) fn get(&self, at: usize) -> Delivery {
        let slot = self.0.as_ref().and_then(|lot| lot.slots.get(at));
        slot.map_or(Delivery::Done, |slot| slot.get())
    }

    pub(super) fn push_back(&mut self, hold: Hold) {
        let lot = self.lot();
        lot.bytes += u64::from(hold.bytes);
        lot.slots.push_back(Delivery::Message(hold).into());
    }

    pub(super) fn push_front(&mut self, delivery: Delivery) {
        let lot = self.lot();
        lot.bytes += bytes_of(delivery);
        lot.slots.push_front(delivery.into());
    }

    pub(super) fn pop_front(&mut self) -> Option<Delivery> {
        let lot = self.0.as_mut()?;
        let delivery = lot.slots.pop_front()?.get();
        lot.bytes -= bytes_of(delivery);
        if lot.slots.is_empty() {
            lot.slots = VecDeque::new();
        }
        Some(delivery)
    }

    pub(super) fn relocate(&mut self, at: usize, hold: Hold) {
        if let Some(lot) = &mut self.0
            && let Some(slot) = lot.slots.get_mut(at)
        {
            lot.bytes = lot.bytes - bytes_of(slot.get()) + u64::from(hold.bytes);
            *slot = Delivery::Message(hold).into();
        }
    }

    pub(super) fn holds(&self) -> impl Iterator<Item = Hold> {
        let slots = self.0.iter().flat_map(|lot| lot.slots.iter());
        slots.filter_map(|slot| match slot.get() {
            Delivery::Message(hold) => Some(hold),
            Delivery::Received | Delivery::Done => None,
        })
    }

    /// QoS 0 messages that wait.
    pub(super) fn late_len(&self) -> usize {
        self.0.as_ref().map_or(0, |lot| lot.late.len())
    }

    /// A QoS 0 message waits until the delivery of this number is next.
    pub(super) fn push_late(&mut self, number: u64, queued: Queued) {
        self.lot().late.push_back((number, queued));
    }

    /// The same, before all others.
    pub(super) fn push_late_front(&mut self, number: u64, queued: Queued) {
        self.lot().late.push_front((number, queued));
    }

    /// The next QoS 0 message, if the delivery of this number is next.
    pub(super) fn pop_late(&mut self, number: u64) -> Option<Queued> {
        let late = &mut self.0.as_mut()?.late;
        let (before, _) = late.front()?;
        if *before > number {
            return None;
        }
        late.pop_front().map(|(_, queued)| queued)
    }

    fn lot(&mut self) -> &mut Lot {
        self.0.get_or_insert_default()
    }
}

fn bytes_of(delivery: Delivery) -> u64 {
    match delivery {
        Delivery::Message(hold) => hold.bytes.into(),
        Delivery::Received | Delivery::Done => 0,
    }
}
