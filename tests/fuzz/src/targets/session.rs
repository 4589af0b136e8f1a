//! Acknowledgements in any order, resumptions and a queue: an outbox and an inbox compared to lists.

use std::{collections::BTreeSet, sync::Arc};

use ringmq::{
    base::{PacketId, QoS, Time},
    message::{Identifiers, Message, Publication},
    session::{AckError, Inbox, Outbox, Outgoing, QueueBounds, Queued, Received, Refused},
    topic::TopicName,
};

use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut model = Model::new(&mut input);
    let (mut inbox, mut received) = (Inbox::default(), BTreeSet::new());
    while !input.is_empty() {
        match input.u8() % 10 {
            0 | 1 => model.queue(&mut input),
            2 => model.start(&mut input),
            3 => model.send(usize::from(input.u8())),
            4..=6 => model.acknowledge(&mut input),
            7 => model.reconnect(),
            8 => model.now = model.now.plus_millis(u64::from(input.u8())),
            _ => check_inbox(&mut inbox, &mut received, &mut input),
        }
        assert_eq!(model.outbox.queue_len(), model.waiting.len());
        model.check_room();
    }
    model.finish();
}

fn check_inbox(inbox: &mut Inbox, received: &mut BTreeSet<u16>, input: &mut Input<'_>) {
    let (release, id) = (input.u8() & 1 == 1, u16::from(input.u8()) + 1);
    let packet_id = PacketId::new(id).expect("not 0");
    assert_eq!(inbox.contains(packet_id), received.contains(&id));
    if release {
        // None of them is in a log.
        assert_eq!(inbox.release(packet_id), received.remove(&id).then_some(false));
    } else {
        assert_eq!(inbox.receive(packet_id), received.insert(id));
    }
    assert_eq!(inbox.len(), received.len());
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Published,
    Released,
}

/// A delivery that is not acknowledged to its end.
#[derive(Debug)]
struct Flight {
    id: PacketId,
    number: u32,
    qos: QoS,
    state: State,
    /// On the present connection; a PUBLISH counts against its quota until the end.
    is_sent: bool,
    counts: bool,
}

/// What the outbox should hold. Payloads are numbers that tell deliveries apart.
struct Model {
    outbox: Outbox,
    bounds: QueueBounds,
    quota: u16,
    now: Time,
    flights: Vec<Flight>,
    /// Number, QoS, size and expiry.
    waiting: Vec<(u32, QoS, u64, Option<Time>)>,
    /// The identifier that is given out next.
    next: PacketId,
    numbers: u32,
}

impl Model {
    fn new(input: &mut Input<'_>) -> Self {
        let outbox = Outbox::default();
        let bounds = QueueBounds {
            messages_max: usize::from(input.u8()) + 1,
            bytes_max: u64::from(input.u16()) + 1,
        };
        let quota = u16::from(input.u8()) + 1;
        let mut model = Self {
            outbox,
            bounds,
            quota,
            now: Time::from_millis(1),
            flights: Vec::new(),
            waiting: Vec::new(),
            next: PacketId::FIRST,
            numbers: 0,
        };
        // Identifiers come round sooner, but that takes a while.
        if input.u8() == 0xFF {
            model.pass_over(65_000);
        }
        model
    }

    /// Gives out identifiers and acknowledges them at once.
    fn pass_over(&mut self, count: u16) {
        let (queued, _) = self.message(QoS::AtLeastOnce, 0, None);
        for _ in 0..count {
            let id = self.outbox.start(queued.clone());
            assert_eq!(id, self.next);
            assert!(self.outbox.acknowledged(id).is_ok());
            self.next = self.next.next();
        }
    }

    fn message(&mut self, qos: QoS, len: u8, expires_at: Option<Time>) -> (Queued, u64) {
        self.numbers += 1;
        let mut payload = vec![0; usize::from(len)];
        payload.extend(self.numbers.to_be_bytes());
        let publication = Publication::new(&Message {
            topic: TopicName::parse("t").expect("a topic"),
            properties: ringmq::codec::Properties::EMPTY,
            payload: &payload,
            qos,
            retain: false,
            expires_at,
            original: None,
            shared: None,
        });
        let bytes = publication.size() as u64;
        let identifiers = Identifiers::new();
        (Queued { publication, qos, retain: false, identifiers, logged: None }, bytes)
    }

    fn queue(&mut self, input: &mut Input<'_>) {
        let qos = input.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let len = input.u8();
        let expires_at = (len.is_multiple_of(3)).then(|| self.now.plus_millis(u64::from(len)));
        let (queued, bytes) = self.message(qos, len, expires_at);
        let used: u64 = self.waiting.iter().map(|(_, _, bytes, _)| bytes).sum();
        let expected = if self.waiting.len() >= self.bounds.messages_max {
            Err(Refused::Messages)
        } else if used + bytes > self.bounds.bytes_max {
            Err(Refused::Bytes)
        } else {
            self.waiting.push((self.numbers, qos, bytes, expires_at));
            Ok(())
        };
        assert_eq!(self.outbox.queue(queued, self.bounds), expected);
    }

    /// A delivery that does not have to wait.
    fn start(&mut self, input: &mut Input<'_>) {
        if !self.outbox.has_room(self.quota) {
            return;
        }
        let qos = input.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let (queued, _) = self.message(qos, 0, None);
        let id = self.outbox.start(queued);
        self.started(id, self.numbers, qos);
        if input.u8() == 0 {
            // Too large for the client.
            self.outbox.abandon(id);
            self.flights.pop();
        }
    }

    fn started(&mut self, id: PacketId, number: u32, qos: QoS) {
        assert!(self.flights.iter().all(|flight| flight.id != id), "{id} is in use twice");
        assert_eq!(id, self.next);
        self.next = self.next.next();
        self.flights.push(Flight {
            id,
            number,
            qos,
            state: State::Published,
            is_sent: true,
            counts: true,
        });
        assert!(self.unacknowledged() <= usize::from(self.quota), "more than the Receive Maximum");
    }

    fn unacknowledged(&self) -> usize {
        self.flights.iter().filter(|flight| flight.counts).count()
    }

    /// What goes out next, at most `count` packets of it.
    fn send(&mut self, count: usize) {
        for _ in 0..count {
            match self.outbox.next(self.quota, 0, self.now) {
                Some(outgoing) => self.check_sent(outgoing),
                None => return self.check_nothing_may_go(),
            }
        }
    }

    fn check_sent(&mut self, outgoing: Outgoing) {
        let resent = self.flights.iter().position(|flight| !flight.is_sent);
        match outgoing {
            Outgoing::Publish { queued, packet_id: Some(id), dup: true } => {
                let flight = &mut self.flights[resent.expect("something to repeat")];
                assert_eq!((flight.id, flight.state), (id, State::Published));
                assert_eq!((flight.number, flight.qos), (number(&queued.publication), queued.qos));
                (flight.is_sent, flight.counts) = (true, true);
                assert!(self.unacknowledged() <= usize::from(self.quota));
            }
            Outgoing::Release(id) => {
                let flight = &mut self.flights[resent.expect("something to repeat")];
                assert_eq!((flight.id, flight.state), (id, State::Released));
                flight.is_sent = true;
            }
            Outgoing::Publish { queued, packet_id, dup } => {
                assert!(!dup && resent.is_none());
                let (expected, qos, _, expires_at) = self.waiting.remove(0);
                assert_eq!((number(&queued.publication), queued.qos), (expected, qos));
                assert!(expires_at.is_none_or(|at| at > self.now), "sent although expired");
                assert_eq!(packet_id.is_some(), qos > QoS::AtMostOnce);
                if let Some(id) = packet_id {
                    self.started(id, expected, qos);
                }
            }
            Outgoing::Expired(qos, finished) => {
                let (_, expected, _, expires_at) = self.waiting.remove(0);
                assert_eq!((qos, finished.is_some()), (expected, expected > QoS::AtMostOnce));
                assert!(expires_at.is_some_and(|at| at <= self.now), "dropped before its time");
                if finished.is_some() {
                    // It had an identifier all the same.
                    self.next = self.next.next();
                }
            }
        }
    }

    fn check_nothing_may_go(&self) {
        let is_full = self.unacknowledged() >= usize::from(self.quota);
        match self.flights.iter().find(|flight| !flight.is_sent) {
            Some(flight) => assert!(is_full && flight.state == State::Published),
            None => assert!(self.waiting.first().is_none_or(|(_, qos, ..)| {
                *qos > QoS::AtMostOnce && (is_full || self.window_is_long())
            })),
        }
    }

    /// Whether the identifiers from the oldest delivery on are nearly used up.
    fn window_is_long(&self) -> bool {
        self.flights.first().is_some_and(|oldest| self.next.steps_since(oldest.id) >= 65_000)
    }

    fn check_room(&self) {
        let has_room = self.waiting.is_empty()
            && self.flights.iter().all(|flight| flight.is_sent)
            && self.unacknowledged() < usize::from(self.quota)
            && !self.window_is_long();
        // Finished deliveries behind unfinished ones may stand between: then it says no for longer.
        assert!(has_room || !self.outbox.has_room(self.quota));
        let qos0_waits = self.waiting.iter().any(|(_, qos, ..)| *qos == QoS::AtMostOnce);
        assert_eq!(self.outbox.qos0_may_pass(), !qos0_waits);
    }

    fn acknowledge(&mut self, input: &mut Input<'_>) {
        let (kind, which) = (input.u8(), usize::from(input.u8()));
        let known = self.flights.get(which % (self.flights.len() + 1)).map(|flight| flight.id);
        let id = known.or(PacketId::new(which as u16)).unwrap_or(self.next);
        let at = self.flights.iter().position(|flight| flight.id == id);
        let step = at.map(|at| (self.flights[at].qos, self.flights[at].state));
        use State::{Published, Released};
        // What the outbox says, what it should, and whether that was the delivery's end.
        let (found, expected, is_end) = match kind % 4 {
            0 => {
                let fits = step == Some((QoS::AtLeastOnce, Published));
                (self.outbox.acknowledged(id).map(drop), fits, true)
            }
            1 | 2 => {
                let refused = kind % 4 == 2;
                let is_published = step == Some((QoS::ExactlyOnce, Published));
                let fits = is_published || step == Some((QoS::ExactlyOnce, Released));
                let found = self.outbox.received(id, refused);
                if let Ok(what) = found {
                    assert_eq!(matches!(what, Received::Refused(_)), refused && is_published);
                    assert_eq!(what == Received::Again, !is_published);
                }
                (found.map(drop), fits, refused && is_published)
            }
            _ => {
                let fits = step == Some((QoS::ExactlyOnce, Released));
                (self.outbox.completed(id).map(drop), fits, true)
            }
        };
        match (at, expected) {
            (None, _) => assert_eq!(found, Err(AckError::Unknown)),
            (Some(_), false) => assert_eq!(found, Err(AckError::WrongStep)),
            (Some(at), true) => {
                assert_eq!(found, Ok(()));
                if is_end {
                    self.flights.remove(at);
                } else {
                    self.flights[at].state = Released;
                }
            }
        }
    }

    fn reconnect(&mut self) {
        self.outbox.reconnected();
        for flight in &mut self.flights {
            (flight.is_sent, flight.counts) = (false, false);
        }
    }

    /// Everything is acknowledged in order: nothing may be left.
    fn finish(mut self) {
        let steps_max = self.flights.len() + self.waiting.len() + 1;
        for _ in 0..steps_max {
            self.send(usize::MAX);
            for flight in std::mem::take(&mut self.flights) {
                let ended = match (flight.qos, flight.state) {
                    (QoS::ExactlyOnce, State::Published) => self
                        .outbox
                        .received(flight.id, false)
                        .and_then(|_| self.outbox.completed(flight.id)),
                    (QoS::ExactlyOnce, State::Released) => self.outbox.completed(flight.id),
                    _ => self.outbox.acknowledged(flight.id),
                };
                assert!(ended.is_ok(), "{flight:?}: {ended:?}");
            }
        }
        assert!(self.waiting.is_empty() && self.outbox.queue_len() == 0, "some still wait");
        assert!(self.outbox.next(self.quota, 0, self.now).is_none());
    }
}

fn number(publication: &Arc<Publication>) -> u32 {
    let payload = publication.message().payload;
    let number = payload.last_chunk().expect("a number behind the filling");
    u32::from_be_bytes(*number)
}
