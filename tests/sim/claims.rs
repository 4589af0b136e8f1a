//! Who may have an exclusive filter, as the clients know it: never two at a time, and nobody is
//! refused what is free.

use crate::{book::Book, world::World};

/// A client has asked for an exclusive filter.
#[derive(Debug)]
struct Claim {
    client: usize,
    filter: usize,
    /// Of the session that it was for.
    serial: u64,
    /// Step of its last SUBSCRIBE.
    asked: u64,
    /// SUBACK has come.
    is_granted: bool,
    /// UNSUBSCRIBE was sent.
    is_leaving: bool,
    /// The session has ended; what it gives back may be on its way.
    has_ended: bool,
    /// Step from which on it stands in nobody's way.
    freed: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Claims(Vec<Claim>);

impl Claims {
    /// A client sends SUBSCRIBE.
    pub(crate) fn ask(&mut self, client: usize, filter: usize, serial: u64, step: u64) {
        let open = self.0.iter_mut().find(|one| one.is_of(client, filter) && one.serial == serial);
        if let Some(open) = open {
            open.asked = step;
            return;
        }
        self.0.push(Claim {
            client,
            filter,
            serial,
            asked: step,
            is_granted: false,
            is_leaving: false,
            has_ended: false,
            freed: None,
        });
    }

    /// SUBACK grants it.
    pub(crate) fn grant(&mut self, client: usize, filter: usize, book: &Book) {
        let own = self.0.iter_mut().find(|one| one.is_of(client, filter) && one.is_current(book));
        // It has come late: the session has ended since.
        let Some(own) = own else { return };
        own.is_granted = true;
        let mut others = self.0.iter().filter(|one| one.filter == filter && one.client != client);
        let other = others.find(|one| one.holds() && one.is_current(book));
        assert!(other.is_none(), "rule 15: client {client} got filter {filter} of {other:?}");
    }

    /// SUBACK refuses it: somebody else must have had it since it was asked for.
    pub(crate) fn refuse(&mut self, client: usize, filter: usize, step: u64) {
        let mut own = self.0.iter_mut().rev().filter(|one| one.filter == filter);
        let own = own.find(|one| one.client == client).expect("a refusal of what was asked for");
        // Before that, if its session has ended since.
        own.freed.get_or_insert(step);
        let asked = own.asked;
        let mut others = self.0.iter().filter(|one| one.filter == filter && one.client != client);
        assert!(
            others.any(|one| one.freed.is_none_or(|freed| freed >= asked)),
            "rule 15: client {client} was refused filter {filter}, asked at {asked}, now {step}: {:?}",
            self.0
        );
    }

    /// UNSUBSCRIBE is sent.
    pub(crate) fn leave(&mut self, client: usize, filter: usize) {
        let same = self.0.iter_mut().filter(|one| one.is_of(client, filter));
        same.for_each(|one| one.is_leaving = true);
    }

    /// UNSUBACK has come: it is free.
    pub(crate) fn free(&mut self, client: usize, filter: usize, step: u64) {
        let same = self.0.iter_mut().filter(|one| one.is_of(client, filter));
        same.for_each(|one| one.freed = Some(step));
    }

    /// The power has failed: sessions that had ended may be back.
    pub(crate) fn survive(&mut self, book: &Book) {
        for one in self.0.iter_mut().filter(|one| one.has_ended && one.is_current(book)) {
            one.has_ended = false;
            one.freed = None;
        }
    }

    /// Something has happened: sessions may have ended, and the lanes may be empty.
    pub(crate) fn look_around(&mut self, world: &World) {
        if self.0.is_empty() {
            return;
        }
        let are_lanes_empty = world.are_lanes_empty();
        for one in self.0.iter_mut().filter(|one| one.freed.is_none()) {
            if are_lanes_empty && one.has_ended {
                one.freed = Some(world.step);
            }
            one.has_ended |= !one.is_current(&world.book);
        }
    }
}

impl Claim {
    fn is_of(&self, client: usize, filter: usize) -> bool {
        (self.client, self.filter) == (client, filter) && self.freed.is_none()
    }

    fn holds(&self) -> bool {
        self.is_granted && !self.is_leaving && self.freed.is_none()
    }

    fn is_current(&self, book: &Book) -> bool {
        book.serial(self.client) == Some(self.serial)
    }
}
