//! The send side of a session at rest: most sessions have nothing in flight and nothing that waits, and
//! keep no more of their [`Outbox`] than how far they have counted.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
};

use super::{Outbox, Outgoing};
use crate::{
    base::Time,
    storage::{DeliveryNumber, Hold, Slot},
};

/// An [`Outbox`] that is there from the first delivery on until the connection ends with none left.
/// Looked at before, it is an empty one; changed, it is made.
#[derive(Debug)]
pub struct Sending(State);

#[derive(Debug)]
enum State {
    /// Neither is anything in flight, nor does anything wait.
    AtRest {
        /// The next delivery at QoS > 0.
        next: DeliveryNumber,
        /// See [`Outbox::park`].
        is_parked: bool,
    },
    Busy(Box<Outbox>),
}

const _: () = assert!(size_of::<Sending>() == 16, "every session has one");

impl Default for Sending {
    fn default() -> Self {
        Self(State::AtRest { next: DeliveryNumber(0), is_parked: false })
    }
}

impl Sending {
    /// See [`Outbox::recovered`].
    pub fn recovered(first: DeliveryNumber, sent: DeliveryNumber, slots: VecDeque<Slot>) -> Self {
        let mut recovered = Self(State::Busy(Box::new(Outbox::recovered(first, sent, slots))));
        recovered.rest(true);
        recovered
    }

    /// See [`Outbox::reconnected`].
    pub fn reconnected(&mut self) {
        match &mut self.0 {
            State::AtRest { is_parked, .. } => *is_parked = false,
            State::Busy(outbox) => outbox.reconnected(),
        }
    }

    /// There is no connection any more. `is_logged`: all of the session is in the log, see
    /// [`Outbox::park`].
    pub fn disconnected(&mut self, is_logged: bool) {
        match &mut self.0 {
            State::AtRest { is_parked, .. } => *is_parked = is_logged,
            State::Busy(outbox) if is_logged => outbox.park(),
            State::Busy(_) => {}
        }
        self.rest(is_logged);
    }

    /// See [`Outbox::next`].
    pub fn next(&mut self, quota: u16, committed: u64, now: Time) -> Option<Outgoing> {
        match &mut self.0 {
            State::AtRest { .. } => None,
            State::Busy(outbox) => outbox.next(quota, committed, now),
        }
    }

    /// See [`Outbox::relocate`].
    pub fn relocate(&mut self, number: DeliveryNumber, hold: Hold) {
        if let State::Busy(outbox) = &mut self.0 {
            outbox.relocate(number, hold);
        }
    }

    /// See [`Outbox::next_number`].
    pub fn next_number(&self) -> DeliveryNumber {
        self.number(Outbox::next_number)
    }

    /// See [`Outbox::first_number`].
    pub fn first_number(&self) -> DeliveryNumber {
        self.number(Outbox::first_number)
    }

    /// See [`Outbox::sent_number`].
    pub fn sent_number(&self) -> DeliveryNumber {
        self.number(Outbox::sent_number)
    }

    /// See [`Outbox::parked_number`].
    pub fn parked_number(&self) -> DeliveryNumber {
        self.number(Outbox::parked_number)
    }

    /// At rest, all numbers are the same.
    fn number(&self, of: impl Fn(&Outbox) -> DeliveryNumber) -> DeliveryNumber {
        match &self.0 {
            State::AtRest { next, .. } => *next,
            State::Busy(outbox) => of(outbox),
        }
    }

    fn rest(&mut self, is_parked: bool) {
        if let State::Busy(outbox) = &self.0
            && outbox.is_at_rest()
        {
            self.0 = State::AtRest { next: outbox.next_number(), is_parked };
        }
    }
}

impl Deref for Sending {
    type Target = Outbox;

    fn deref(&self) -> &Outbox {
        match &self.0 {
            State::AtRest { .. } => Outbox::EMPTY,
            State::Busy(outbox) => outbox,
        }
    }
}

impl DerefMut for Sending {
    fn deref_mut(&mut self) -> &mut Outbox {
        if let State::AtRest { next, is_parked } = self.0 {
            let outbox = Outbox::at_rest(next, is_parked);
            self.0 = State::Busy(Box::new(outbox));
        }
        match &mut self.0 {
            State::Busy(outbox) => outbox,
            State::AtRest { .. } => unreachable!("it is busy now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::QoS,
        message::Publication,
        session::{QueueBounds, Queued},
        topic::TopicName,
    };
    use crate::{codec::Properties, message::Message};

    fn queued() -> Queued {
        let message = Message {
            topic: TopicName::parse("a").unwrap(),
            properties: Properties::EMPTY,
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: None,
            original: None,
            shared: None,
        };
        Queued {
            publication: Publication::new(&message),
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Default::default(),
            logged: None,
        }
    }

    #[test]
    fn numbers_go_on_after_a_rest() {
        let mut sending = Sending::default();
        let id = sending.start(queued());
        sending.disconnected(false);
        assert!(matches!(sending.0, State::Busy(_)), "it is in flight");
        sending.reconnected();
        assert!(sending.acknowledged(id).is_ok());
        sending.disconnected(false);
        assert!(matches!(sending.0, State::AtRest { .. }));
        assert_eq!((sending.first_number().0, sending.next_number().0), (1, 1));
        assert!(sending.has_room(1) && sending.next(1, 0, Time::default()).is_none());
        assert_ne!(sending.start(queued()), id);
        assert_eq!(sending.next_number().0, 2);
    }

    #[test]
    fn what_comes_to_a_session_that_rests_in_the_log_is_parked() {
        let mut sending = Sending::default();
        sending.disconnected(true);
        let bounds = QueueBounds { messages_max: 9, bytes_max: 999 };
        let hold = Hold { at: crate::storage::Position { segment: 1, offset: 8 }, bytes: 7 };
        let logged = Some(crate::session::Logged { hold, after: 0 });
        sending.queue(Queued { logged, ..queued() }, bounds).unwrap();
        assert_eq!((sending.parked().len(), sending.queue_len()), (1, 1));
    }
}
