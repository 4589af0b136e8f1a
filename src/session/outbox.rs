//! Send side of a session: the window of deliveries in flight (MQTT 5.0
//! sections 4.3, 4.4 and 4.9) and the queue behind it.
//!
//! Deliveries at QoS > 0 are numbered, and the Packet Identifier follows from the
//! number; an entry stays in the window until all before it are over. So an
//! identifier's entry is found by subtraction, no identifier is in use twice, and
//! after a restart a delivery has the one that it had.
//!
//! Deliveries that stand in the log need not be held here: past a bound, and
//! while there is no connection, only where they stand is (`parked.rs`).

use std::{collections::VecDeque, sync::Arc};

use super::parked::Parked;
use crate::{
    base::{PacketId, QoS, Time, limits},
    message::{Identifiers, Publication},
    storage::{Delivery, DeliveryNumber, Hold},
};

/// A delivery that waits or is in flight.
#[derive(Clone, Debug)]
pub struct Queued {
    /// What is delivered.
    pub publication: Arc<Publication>,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Subscription Identifiers of the delivery.
    pub identifiers: Identifiers,
    /// Where it stands in the log, if it does.
    pub logged: Option<Logged>,
}

/// A delivery in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Logged {
    /// Where.
    pub hold: Hold,
    /// It may not be sent before the log has committed so many records.
    pub after: u64,
}

impl Queued {
    /// Bytes that count against [`QueueBounds::bytes_max`].
    fn bytes(&self) -> u64 {
        (self.publication.size() + size_of_val(self.identifiers.as_slice())) as u64
    }

    fn is_numbered(&self) -> bool {
        self.qos > QoS::AtMostOnce
    }
}

/// What goes to the client next.
#[derive(Debug)]
pub enum Outgoing {
    /// A PUBLISH; `dup` if an earlier connection may have brought it already.
    Publish {
        /// What is delivered.
        queued: Queued,
        /// Its identifier, if QoS > 0.
        packet_id: Option<PacketId>,
        /// Whether this is a repetition.
        dup: bool,
    },
    /// A PUBREL that an earlier connection may have brought already.
    Release(PacketId),
    /// Not sent: its Message Expiry Interval passed while it waited.
    Expired(QoS, Option<Finished>),
}

/// A delivery whose message is needed no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finished {
    /// Its number.
    pub number: DeliveryNumber,
    /// Where it stands in the log, if it does.
    pub hold: Option<Hold>,
}

/// What a PUBREC has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// The delivery is over.
    Refused(Finished),
    /// The client owns the message: PUBREL is due.
    Owned(Finished),
    /// Nothing: PUBREL is due again.
    Again,
}

/// Bounds of the queue, in messages and in bytes.
#[derive(Clone, Copy, Debug)]
pub struct QueueBounds {
    /// Messages at most.
    pub messages_max: usize,
    /// Bytes at most: of topics, properties, payloads and identifiers, or of the log.
    pub bytes_max: u64,
}

/// Why a delivery was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// [`QueueBounds::messages_max`] is reached.
    Messages,
    /// [`QueueBounds::bytes_max`] would be passed.
    Bytes,
}

/// Why an acknowledgement was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckError {
    /// No delivery has this identifier: left over from a session that ended.
    Unknown,
    /// The delivery has another QoS, or is at another step.
    WrongStep,
}

/// Deliveries in flight and waiting.
#[derive(Debug, Default)]
pub struct Outbox {
    window: VecDeque<InFlight>,
    /// Number of the window's first entry, or of what comes first behind it.
    first: u64,
    /// Entries that are not [`Step::Done`].
    in_flight: usize,
    /// Entries before this position were sent on the present connection.
    sent: usize,
    /// PUBLISHes of the present connection that are not fully acknowledged:
    /// what counts against the client's Receive Maximum (MQTT-4.9.0-2).
    unacknowledged: u16,
    queue: VecDeque<Waiting>,
    /// Of what waits in memory, here and with the parked ones.
    queue_bytes: u64,
    /// QoS 0 messages in the queue; while there are any, later ones go behind them.
    queue_qos0: usize,
    /// What comes behind the queue and is only in the log.
    parked: Parked,
}

#[derive(Debug)]
struct InFlight {
    step: Step,
    /// Whether it counts in [`Outbox::unacknowledged`].
    counted: bool,
}

#[derive(Debug)]
enum Step {
    /// PUBLISH sent: waits for PUBACK or PUBREC.
    Published(Queued),
    /// PUBREL sent: waits for PUBCOMP.
    Released,
    /// Acknowledged; leaves the window when all before it are.
    Done,
}

/// What waits behind the window.
#[derive(Debug)]
enum Waiting {
    Message(Queued),
    /// PUBREC came on an earlier connection.
    Received,
    /// Over since an earlier connection; it had a number.
    Done,
}

impl Outbox {
    /// One for all that have nothing to look at.
    pub(super) const EMPTY: &Self = &Self {
        window: VecDeque::new(),
        first: 0,
        in_flight: 0,
        sent: 0,
        unacknowledged: 0,
        queue: VecDeque::new(),
        queue_bytes: 0,
        queue_qos0: 0,
        parked: Parked::EMPTY,
    };

    /// Without any delivery, `next` being the number of the first. `is_parked`: as [`park`](Self::park)
    /// leaves it.
    pub(super) fn at_rest(next: DeliveryNumber, is_parked: bool) -> Self {
        let mut outbox = Self { first: next.0, ..Self::default() };
        if is_parked {
            outbox.park();
        }
        outbox
    }

    /// Whether nothing is in flight and nothing waits, so that no more than a number has to be kept.
    pub(super) fn is_at_rest(&self) -> bool {
        self.window.is_empty() && self.queue_len() == 0 && !self.parked.is_reading()
    }

    /// What a restart has found: see [`Parked::recovered`].
    pub fn recovered(
        first: DeliveryNumber,
        sent: DeliveryNumber,
        slots: VecDeque<crate::storage::Slot>,
    ) -> Self {
        Self { first: first.0, parked: Parked::recovered(sent, slots), ..Self::default() }
    }

    /// A new connection serves the session: all that is in flight goes out
    /// again before anything new does (MQTT-4.4.0-1).
    pub fn reconnected(&mut self) {
        self.sent = 0;
        self.unacknowledged = 0;
        self.window.iter_mut().for_each(|entry| entry.counted = false);
        self.parked.go_online();
        self.admit_late();
    }

    /// There is no connection any more, and all of the session is in the log:
    /// only where it stands is kept here.
    pub fn park(&mut self) {
        self.parked.go_offline(self.first + self.window.len() as u64);
        let mut number = self.parked_number().0;
        for waiting in std::mem::take(&mut self.queue).into_iter().rev() {
            number -= u64::from(waiting.is_numbered());
            match waiting {
                Waiting::Message(queued) if !queued.is_numbered() => {
                    self.parked.push_late_front(number, queued);
                }
                Waiting::Message(queued) => {
                    self.queue_bytes -= queued.bytes();
                    self.parked.push_front(parked_form(&queued));
                }
                Waiting::Received => self.parked.push_front(Delivery::Received),
                Waiting::Done => self.parked.push_front(Delivery::Done),
            }
        }
        self.queue_qos0 = 0;
        for entry in std::mem::take(&mut self.window).into_iter().rev() {
            self.parked.push_front(match entry.step {
                Step::Published(queued) => parked_form(&queued),
                Step::Released => Delivery::Received,
                Step::Done => Delivery::Done,
            });
        }
        (self.in_flight, self.sent, self.unacknowledged) = (0, 0, 0);
    }

    /// Whether a delivery at QoS > 0 may leave at once, ahead of nothing.
    pub fn has_room(&self, quota: u16) -> bool {
        self.queue.is_empty()
            && self.parked.is_empty()
            && self.sent == self.window.len()
            && self.window_is_open(quota)
    }

    /// Whether a QoS 0 delivery may leave at once without passing an earlier one.
    pub fn qos0_may_pass(&self) -> bool {
        self.queue_qos0 == 0 && self.parked.late_len() == 0
    }

    /// The number that the next delivery at QoS > 0 gets.
    pub fn next_number(&self) -> DeliveryNumber {
        let queued = self.queue.len() - self.queue_qos0 + self.parked.len();
        DeliveryNumber(self.first + (self.window.len() + queued) as u64)
    }

    /// The number of the first delivery that is not over.
    pub const fn first_number(&self) -> DeliveryNumber {
        DeliveryNumber(self.first)
    }

    /// Deliveries before this number may have been sent.
    pub fn sent_number(&self) -> DeliveryNumber {
        DeliveryNumber(self.parked.sent().max(self.first + self.window.len() as u64))
    }

    /// Puts a delivery at QoS > 0 in flight and gives it its identifier.
    pub fn start(&mut self, queued: Queued) -> PacketId {
        debug_assert!(queued.is_numbered() && self.sent == self.window.len());
        let id = self.id_at(self.window.len());
        self.window.push_back(InFlight { step: Step::Published(queued), counted: true });
        self.in_flight += 1;
        self.sent += 1;
        self.unacknowledged += 1;
        id
    }

    /// Whether a delivery of so many bytes may wait.
    pub fn admits(&self, bytes: u64, bounds: QueueBounds) -> Result<(), Refused> {
        if self.queue_len() >= bounds.messages_max {
            Err(Refused::Messages)
        } else if self.queue_bytes + self.parked.bytes() + bytes > bounds.bytes_max {
            Err(Refused::Bytes)
        } else {
            Ok(())
        }
    }

    /// Lets a delivery wait.
    pub fn queue(&mut self, queued: Queued, bounds: QueueBounds) -> Result<(), Refused> {
        let bytes = queued.bytes();
        self.admits(bytes, bounds)?;
        let has_room = self.queue.len() < limits::QUEUE_MEMORY_MESSAGES
            && self.queue_bytes + bytes <= limits::QUEUE_MEMORY_BYTES;
        match queued.logged {
            Some(logged) if !has_room || !self.parked.is_empty() || self.parked.is_offline() => {
                self.parked.push_back(logged.hold);
            }
            None if !self.parked.is_empty() || self.parked.is_offline() => {
                self.queue_bytes += bytes;
                self.parked.push_late(self.next_number().0, queued);
            }
            _ => self.push_queued(queued),
        }
        Ok(())
    }

    /// The next packet for the client, marked as sent; `None` when nothing
    /// waits, `quota` PUBLISHes are unacknowledged, or what is next may not be
    /// sent before the log has committed more than `committed` records.
    pub fn next(&mut self, quota: u16, committed: u64, now: Time) -> Option<Outgoing> {
        while self.sent < self.window.len() {
            let packet_id = self.id_at(self.sent);
            let is_open = self.unacknowledged < quota;
            let entry = &mut self.window[self.sent];
            match &entry.step {
                Step::Published(_) if !is_open => return None,
                Step::Published(queued) => {
                    let queued = queued.clone();
                    entry.counted = true;
                    self.unacknowledged += 1;
                    self.sent += 1;
                    let packet_id = Some(packet_id);
                    return Some(Outgoing::Publish { queued, packet_id, dup: true });
                }
                Step::Released => {
                    self.sent += 1;
                    return Some(Outgoing::Release(packet_id));
                }
                Step::Done => self.sent += 1,
            }
        }
        loop {
            match self.queue.front()? {
                Waiting::Done => {
                    if self.window.len() >= WINDOW_SPAN_MAX {
                        return None;
                    }
                    self.queue.pop_front();
                    self.push_in_window(Step::Done, false);
                    self.trim();
                }
                Waiting::Received => {
                    if self.window.len() >= WINDOW_SPAN_MAX {
                        return None;
                    }
                    self.queue.pop_front();
                    let id = self.id_at(self.window.len());
                    self.push_in_window(Step::Released, false);
                    self.in_flight += 1;
                    return Some(Outgoing::Release(id));
                }
                Waiting::Message(queued) => {
                    let is_numbered = queued.is_numbered();
                    let is_held = queued.logged.is_some_and(|logged| logged.after > committed);
                    if is_held || is_numbered && !self.window_is_open(quota) {
                        return None;
                    }
                    return self.take_queued().map(|queued| self.send_queued(queued, now));
                }
            }
        }
    }

    /// PUBACK: the end of a QoS 1 delivery.
    pub fn acknowledged(&mut self, id: PacketId) -> Result<Finished, AckError> {
        let at = self.position(id)?;
        match &self.window[at].step {
            Step::Published(queued) if queued.qos == QoS::AtLeastOnce => Ok(self.finish(at)),
            Step::Done => Err(AckError::Unknown),
            _ => Err(AckError::WrongStep),
        }
    }

    /// PUBREC: the client owns the message. With `refused` (a reason code of
    /// 0x80 or more) this is the end of the delivery; without, the caller
    /// answers with PUBREL.
    pub fn received(&mut self, id: PacketId, refused: bool) -> Result<Received, AckError> {
        let at = self.position(id)?;
        match &self.window[at].step {
            Step::Published(queued) if queued.qos == QoS::ExactlyOnce => {
                if refused {
                    Ok(Received::Refused(self.finish(at)))
                } else {
                    let finished = self.finished(at);
                    self.window[at].step = Step::Released;
                    Ok(Received::Owned(finished))
                }
            }
            Step::Released => Ok(Received::Again),
            Step::Done => Err(AckError::Unknown),
            Step::Published(_) => Err(AckError::WrongStep),
        }
    }

    /// PUBCOMP: the end of a QoS 2 delivery.
    pub fn completed(&mut self, id: PacketId) -> Result<Finished, AckError> {
        let at = self.position(id)?;
        match &self.window[at].step {
            Step::Released => Ok(self.finish(at)),
            Step::Done => Err(AckError::Unknown),
            Step::Published(_) => Err(AckError::WrongStep),
        }
    }

    /// Ends a delivery that was started but cannot be sent: too large for the
    /// client (MQTT-3.1.2-25).
    pub fn abandon(&mut self, id: PacketId) -> Option<Finished> {
        self.position(id).ok().map(|at| self.finish(at))
    }

    /// Messages that wait behind the window.
    pub fn queue_len(&self) -> usize {
        self.queue.len() + self.parked.late_len() + self.parked.len()
    }

    /// Whether nothing that is in memory waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of the messages that are in flight or wait here, which others may hold as well.
    pub fn bytes_in_memory(&self) -> usize {
        let in_flight = self.window.iter().filter_map(|entry| entry.step.message());
        (in_flight.map(Queued::bytes).sum::<u64>() + self.queue_bytes) as usize
    }

    /// Deliveries in flight and waiting.
    pub fn load(&self) -> usize {
        self.in_flight + self.queue_len()
    }

    /// What is only in the log.
    pub const fn parked(&self) -> &Parked {
        &self.parked
    }

    /// The same, to take note of a read.
    pub const fn parked_mut(&mut self) -> &mut Parked {
        &mut self.parked
    }

    /// The number of the first delivery that is only in the log.
    pub fn parked_number(&self) -> DeliveryNumber {
        DeliveryNumber(self.next_number().0 - self.parked.len() as u64)
    }

    /// Whether so little is left in memory that what comes behind it is to be read.
    pub fn wants_more(&self) -> bool {
        self.queue.len() < limits::QUEUE_MEMORY_MESSAGES / 2
            && self.queue_bytes < limits::QUEUE_MEMORY_BYTES / 2
    }

    /// Takes the first delivery that is only in the log back into memory, or what is known of it. A
    /// message that could not be read is over.
    pub fn unpark(&mut self, queued: Option<Queued>) {
        self.admit_late();
        match (self.parked.pop_front(), queued) {
            (Some(Delivery::Message(_)), Some(queued)) => self.push_queued(queued),
            (Some(Delivery::Received), _) => self.queue.push_back(Waiting::Received),
            (Some(_), _) => self.queue.push_back(Waiting::Done),
            (None, _) => {}
        }
        self.admit_late();
    }

    /// Lets those QoS 0 messages into the queue that wait for nothing more.
    fn admit_late(&mut self) {
        while let Some(queued) = self.parked.pop_late(self.parked_number().0) {
            self.queue_bytes -= queued.bytes();
            self.push_queued(queued);
        }
    }

    /// The state of a delivery.
    pub fn delivery(&self, number: DeliveryNumber) -> Delivery {
        let Some(at) = number.0.checked_sub(self.first) else { return Delivery::Done };
        let at = at as usize;
        if let Some(entry) = self.window.get(at) {
            return match &entry.step {
                Step::Published(queued) => parked_form(queued),
                Step::Released => Delivery::Received,
                Step::Done => Delivery::Done,
            };
        }
        let at = at - self.window.len();
        let numbered = self.queue.len() - self.queue_qos0;
        if at >= numbered {
            return self.parked.get(at - numbered);
        }
        match self.queue.iter().filter(|waiting| waiting.is_numbered()).nth(at) {
            Some(Waiting::Message(queued)) => parked_form(queued),
            Some(Waiting::Received) => Delivery::Received,
            _ => Delivery::Done,
        }
    }

    /// The message of a delivery stands elsewhere in the log now.
    pub fn relocate(&mut self, number: DeliveryNumber, hold: Hold) {
        let Some(at) = number.0.checked_sub(self.first) else { return };
        let at = at as usize;
        if let Some(entry) = self.window.get_mut(at) {
            if let Step::Published(Queued { logged: Some(logged), .. }) = &mut entry.step {
                logged.hold = hold;
            }
            return;
        }
        let at = at - self.window.len();
        let numbered = self.queue.len() - self.queue_qos0;
        if at >= numbered {
            return self.parked.relocate(at - numbered, hold);
        }
        let waiting = self.queue.iter_mut().filter(|waiting| waiting.is_numbered()).nth(at);
        if let Some(Waiting::Message(Queued { logged: Some(logged), .. })) = waiting {
            logged.hold = hold;
        }
    }

    /// All that the deliveries keep of the log.
    pub fn holds(&self) -> impl Iterator<Item = Hold> {
        let window = self.window.iter().filter_map(|entry| entry.step.message()?.logged);
        let queue = self.queue.iter().filter_map(|waiting| match waiting {
            Waiting::Message(queued) => queued.logged,
            _ => None,
        });
        window.chain(queue).map(|logged| logged.hold).chain(self.parked.holds())
    }

    fn window_is_open(&self, quota: u16) -> bool {
        self.unacknowledged < quota && self.window.len() < WINDOW_SPAN_MAX
    }

    fn push_queued(&mut self, queued: Queued) {
        self.queue_bytes += queued.bytes();
        self.queue_qos0 += usize::from(!queued.is_numbered());
        self.queue.push_back(Waiting::Message(queued));
    }

    fn take_queued(&mut self) -> Option<Queued> {
        let Waiting::Message(queued) = self.queue.pop_front()? else { return None };
        self.queue_bytes -= queued.bytes();
        self.queue_qos0 -= usize::from(!queued.is_numbered());
        if self.queue.is_empty() {
            shrink(&mut self.queue);
        }
        Some(queued)
    }

    fn send_queued(&mut self, queued: Queued, now: Time) -> Outgoing {
        let is_numbered = queued.is_numbered();
        let dup = is_numbered && self.first + (self.window.len() as u64) < self.parked.sent();
        // MQTT-3.3.2-5: not if its delivery has begun.
        if !dup && queued.publication.is_expired(now) {
            let qos = queued.qos;
            let finished = is_numbered.then(|| {
                let at = self.window.len();
                self.start(queued);
                self.finish(at)
            });
            return Outgoing::Expired(qos, finished);
        }
        let packet_id = is_numbered.then(|| self.start(queued.clone()));
        Outgoing::Publish { queued, packet_id, dup }
    }

    fn push_in_window(&mut self, step: Step, counted: bool) {
        self.window.push_back(InFlight { step, counted });
        self.sent += 1;
    }

    fn id_at(&self, position: usize) -> PacketId {
        let number = self.first + position as u64;
        PacketId::FIRST.plus((number % u64::from(u16::MAX)) as u16)
    }

    fn position(&self, id: PacketId) -> Result<usize, AckError> {
        let at = id.steps_since(self.id_at(0)) as usize;
        if at < self.window.len() { Ok(at) } else { Err(AckError::Unknown) }
    }

    fn finished(&self, at: usize) -> Finished {
        let hold = self.window[at].step.message().and_then(|queued| Some(queued.logged?.hold));
        Finished { number: DeliveryNumber(self.first + at as u64), hold }
    }

    fn finish(&mut self, at: usize) -> Finished {
        let finished = self.finished(at);
        let entry = &mut self.window[at];
        self.unacknowledged -= u16::from(entry.counted);
        entry.counted = false;
        entry.step = Step::Done;
        self.in_flight -= 1;
        self.trim();
        finished
    }

    fn trim(&mut self) {
        while let Some(InFlight { step: Step::Done, .. }) = self.window.front() {
            self.window.pop_front();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
        if self.window.is_empty() {
            shrink(&mut self.window);
        }
    }
}

impl Step {
    fn message(&self) -> Option<&Queued> {
        if let Self::Published(queued) = self { Some(queued) } else { None }
    }
}

impl Waiting {
    fn is_numbered(&self) -> bool {
        match self {
            Self::Message(queued) => queued.is_numbered(),
            Self::Received | Self::Done => true,
        }
    }
}

/// A delivery that is not in the log, which those of a session that is do not lack, is over.
fn parked_form(queued: &Queued) -> Delivery {
    queued.logged.map_or(Delivery::Done, |logged| Delivery::Message(logged.hold))
}

/// Gives back the memory of a burst; what steady traffic needs is kept.
fn shrink<T>(deque: &mut VecDeque<T>) {
    if deque.capacity() > KEPT_CAPACITY {
        *deque = VecDeque::new();
    }
}

/// Entries that an empty window or queue keeps room for.
const KEPT_CAPACITY: usize = 64;

/// Entries in the window, finished ones included. A client that leaves one
/// delivery unacknowledged while 65,000 later ones pass gets no further ones
/// until it acknowledges it.
const WINDOW_SPAN_MAX: usize = 65_000;

// Every entry of the window has an identifier of its own.
const _: () = assert!(WINDOW_SPAN_MAX < u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Properties, message::Message, topic::TopicName};

    const NOW: Time = Time::from_millis(1_000);
    const BOUNDS: QueueBounds = QueueBounds { messages_max: 3, bytes_max: 100 };

    fn delivery(qos: QoS, expires_at: Option<Time>) -> Queued {
        let message = Message {
            topic: TopicName::parse("t").unwrap(),
            properties: Properties::EMPTY,
            payload: b"0123456789",
            qos,
            retain: false,
            expires_at,
            original: None,
            shared: None,
        };
        let publication = Publication::new(&message);
        Queued { publication, qos, retain: false, identifiers: Identifiers::new(), logged: None }
    }

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    /// What goes out, as text: `P3` a PUBLISH with id 3, `D3` with DUP, `R3` a PUBREL.
    fn drain(outbox: &mut Outbox, quota: u16) -> String {
        let mut text = String::new();
        while let Some(outgoing) = outbox.next(quota, 0, NOW) {
            text += &match outgoing {
                Outgoing::Publish { packet_id, dup, .. } => format!(
                    "{}{} ",
                    if dup { 'D' } else { 'P' },
                    packet_id.map_or(0, PacketId::get)
                ),
                Outgoing::Release(id) => format!("R{id} "),
                Outgoing::Expired(..) => "X ".to_owned(),
            };
        }
        text
    }

    #[test]
    fn resends_in_order_with_the_same_identifiers() {
        let mut outbox = Outbox::default();
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce] {
            outbox.start(delivery(qos, None));
        }
        outbox.received(id(2), false).unwrap();
        outbox.queue(delivery(QoS::AtLeastOnce, None), BOUNDS).unwrap();
        outbox.reconnected();
        assert!(!outbox.has_room(10));
        assert_eq!(drain(&mut outbox, 10), "D1 R2 D3 D4 P5 ");
        assert_eq!(drain(&mut outbox, 10), "");
    }

    #[test]
    fn quota_holds_back_repetitions_too() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.start(delivery(QoS::ExactlyOnce, None));
        }
        outbox.reconnected();
        assert_eq!(drain(&mut outbox, 2), "D1 D2 ");
        outbox.received(id(1), false).unwrap();
        assert_eq!(drain(&mut outbox, 2), "", "PUBREC does not return quota");
        outbox.completed(id(1)).unwrap();
        assert_eq!(drain(&mut outbox, 2), "D3 ");
        outbox.received(id(2), true).unwrap();
        assert_eq!(outbox.unacknowledged, 1, "a refusing PUBREC does");
    }

    #[test]
    fn acknowledgements_out_of_order_keep_identifiers_apart() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.start(delivery(QoS::AtLeastOnce, None));
        }
        outbox.acknowledged(id(3)).unwrap();
        outbox.acknowledged(id(2)).unwrap();
        assert_eq!(outbox.acknowledged(id(2)), Err(AckError::Unknown));
        assert_eq!(outbox.start(delivery(QoS::AtLeastOnce, None)), id(4));
        outbox.acknowledged(id(1)).unwrap();
        assert_eq!((outbox.window.len(), outbox.first), (1, 3));
        assert_eq!(outbox.load(), 1);
        assert_eq!(outbox.acknowledged(id(9)), Err(AckError::Unknown));
    }

    #[test]
    fn steps_of_another_qos_are_refused() {
        let mut outbox = Outbox::default();
        outbox.start(delivery(QoS::AtLeastOnce, None));
        outbox.start(delivery(QoS::ExactlyOnce, None));
        assert_eq!(outbox.received(id(1), false), Err(AckError::WrongStep));
        assert_eq!(outbox.acknowledged(id(2)), Err(AckError::WrongStep));
        assert_eq!(outbox.completed(id(2)), Err(AckError::WrongStep));
        outbox.received(id(2), false).unwrap();
        assert_eq!(
            outbox.received(id(2), false),
            Ok(Received::Again),
            "a repeated PUBREC gets its PUBREL"
        );
        assert_eq!(outbox.acknowledged(id(2)), Err(AckError::WrongStep));
        outbox.completed(id(2)).unwrap();
    }

    #[test]
    fn identifiers_wrap_past_zero() {
        let mut outbox = Outbox { first: 65_534, ..Outbox::default() };
        assert_eq!(outbox.start(delivery(QoS::AtLeastOnce, None)), id(65_535));
        assert_eq!(outbox.start(delivery(QoS::AtLeastOnce, None)), id(1));
        outbox.acknowledged(id(1)).unwrap();
        outbox.acknowledged(id(65_535)).unwrap();
        assert!(outbox.window.is_empty() && outbox.queue.is_empty());
        assert_eq!(outbox.first_number().0, 65_536);
    }

    #[test]
    fn the_queue_is_bounded_and_expires() {
        let mut outbox = Outbox::default();
        let past = Some(Time::from_millis(999));
        outbox.queue(delivery(QoS::AtLeastOnce, past), BOUNDS).unwrap();
        outbox.queue(delivery(QoS::AtMostOnce, None), BOUNDS).unwrap();
        assert!(!outbox.qos0_may_pass());
        outbox.queue(delivery(QoS::ExactlyOnce, None), BOUNDS).unwrap();
        let more = delivery(QoS::AtLeastOnce, None);
        assert_eq!(outbox.queue(more.clone(), BOUNDS), Err(Refused::Messages));
        let bounds = QueueBounds { messages_max: 9, bytes_max: 43 };
        assert_eq!(outbox.queue(more, bounds), Err(Refused::Bytes));
        assert_eq!(drain(&mut outbox, 1), "X P0 P2 ", "what has expired had a number");
        assert_eq!(outbox.queue_bytes, 0);
        assert!(outbox.qos0_may_pass());
    }
}
