//! The deliveries of one session while a log is folded: a slot for each number from the first that is
//! needed on.
//!
//! Numbers come in order but for those of moved records. There may be millions of slots, so room for more
//! of them grows by an eighth, not twofold.

use std::collections::VecDeque;

use super::{Delivery, DeliveryNumber, RecordError, Slot};
use crate::base::limits::LOG_DELIVERIES_MAX;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// Those before it are over, whatever still comes.
    floor: u64,
    /// Number of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    /// The number of the next delivery.
    next: u64,
}

impl Deliveries {
    /// The number of the next delivery, as far as is known.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// A snapshot of the session says which are over and which may be needed.
    pub(super) fn limit(&mut self, first: DeliveryNumber, next: DeliveryNumber) {
        self.floor = first.0;
        self.next = self.next.max(next.0).max(first.0);
        let over = usize::try_from(first.0.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.slots.drain(..over.min(self.slots.len()));
        self.base = self.base.max(first.0);
        self.trim();
    }

    /// What has become of one. Those that nothing is known of are over; one that is over stays so, since no
    /// record that was moved behind that names it any more.
    ///
    /// # Errors
    /// If more than [`LOG_DELIVERIES_MAX`] lie between it and another one.
    pub(super) fn set(
        &mut self,
        number: DeliveryNumber,
        delivery: Delivery,
    ) -> Result<(), RecordError> {
        let number = number.0;
        if number < self.floor {
            return Ok(());
        }
        self.next = self.next.max(number.checked_add(1).ok_or(OUT_OF_REACH)?);
        if delivery != Delivery::Done {
            self.reach(number)?;
        }
        let index = number.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) {
            *slot = delivery.into();
            self.trim();
        }
        Ok(())
    }

    /// The number of the first that is not over, and the slots from there to the last one.
    pub(super) fn finish(mut self) -> Result<(DeliveryNumber, VecDeque<Slot>), RecordError> {
        match self.next.checked_sub(1) {
            Some(last) if !self.slots.is_empty() => self.reach(last)?,
            _ => self.base = self.next,
        }
        Ok((DeliveryNumber(self.base), self.slots))
    }

    /// Makes sure that there is a slot for this number.
    fn reach(&mut self, number: u64) -> Result<(), RecordError> {
        if self.slots.is_empty() {
            self.base = number;
        }
        let end = self.base + self.slots.len() as u64;
        let (base, end) = (self.base.min(number), end.max(number + 1));
        if end - base > LOG_DELIVERIES_MAX {
            return Err(OUT_OF_REACH);
        }
        let len = (end - base) as usize;
        if len > self.slots.capacity() {
            self.slots.reserve_exact((len - self.slots.len()).max(self.slots.len() / 8));
        }
        for _ in base..self.base {
            self.slots.push_front(Delivery::Done.into());
        }
        self.base = base;
        self.slots.resize(len, Delivery::Done.into());
        Ok(())
    }

    /// Drops the slots before the first that is not over.
    fn trim(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.get() == Delivery::Done) {
            self.slots.pop_front();
            self.base += 1;
        }
    }
}

const OUT_OF_REACH: RecordError = RecordError("delivery numbers of one session are too far apart");
