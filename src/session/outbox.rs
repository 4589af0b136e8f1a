//! Send side of a session: the window of deliveries in flight (MQTT 5.0
//! sections 4.3, 4.4 and 4.9) and the queue behind it.
//!
//! Packet Identifiers are given out in sequence and an entry stays in the
//! window until all before it are done, so an identifier's entry is found by
//! subtraction and no identifier is in use twice.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    base::{PacketId, QoS, Time},
    message::{Identifiers, Publication},
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
}

impl Queued {
    /// Bytes that count against [`QueueBounds::bytes_max`].
    fn bytes(&self) -> u64 {
        (self.publication.size() + size_of_val(self.identifiers.as_slice())) as u64
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
    Expired(Queued),
}

/// Bounds of the queue, in messages and in bytes.
#[derive(Clone, Copy, Debug)]
pub struct QueueBounds {
    /// Messages at most.
    pub messages_max: usize,
    /// Bytes of topics, properties, payloads and identifiers at most.
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
#[derive(Debug)]
pub struct Outbox {
    window: VecDeque<InFlight>,
    /// Identifier of the window's first entry, or of the next one if it is empty.
    first: PacketId,
    /// Entries that are not [`Step::Done`].
    in_flight: usize,
    /// Entries before this position were sent on the present connection.
    sent: usize,
    /// PUBLISHes of the present connection that are not fully acknowledged:
    /// what counts against the client's Receive Maximum (MQTT-4.9.0-2).
    unacknowledged: u16,
    queue: VecDeque<Queued>,
    queue_bytes: u64,
    /// QoS 0 messages in the queue; while there are any, later ones go behind them.
    queue_qos0: usize,
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

impl Default for Outbox {
    fn default() -> Self {
        Self {
            window: VecDeque::new(),
            first: PacketId::FIRST,
            in_flight: 0,
            sent: 0,
            unacknowledged: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_qos0: 0,
        }
    }
}

impl Outbox {
    /// A new connection serves the session: all that is in flight goes out
    /// again before anything new does (MQTT-4.4.0-1).
    pub fn reconnected(&mut self) {
        self.sent = 0;
        self.unacknowledged = 0;
        self.window.iter_mut().for_each(|entry| entry.counted = false);
    }

    /// Whether a delivery at QoS > 0 may leave at once, ahead of nothing.
    pub fn has_room(&self, quota: u16) -> bool {
        self.queue.is_empty() && self.sent == self.window.len() && self.window_is_open(quota)
    }

    /// Whether a QoS 0 delivery may leave at once without passing an earlier one.
    pub const fn qos0_may_pass(&self) -> bool {
        self.queue_qos0 == 0
    }

    /// Puts a delivery at QoS > 0 in flight and gives it its identifier.
    pub fn start(&mut self, queued: Queued) -> PacketId {
        debug_assert!(queued.qos > QoS::AtMostOnce && self.sent == self.window.len());
        let id = self.id_at(self.window.len());
        self.window.push_back(InFlight { step: Step::Published(queued), counted: true });
        self.in_flight += 1;
        self.sent += 1;
        self.unacknowledged += 1;
        id
    }

    /// Lets a delivery wait.
    pub fn queue(&mut self, queued: Queued, bounds: QueueBounds) -> Result<(), Refused> {
        let bytes = self.queue_bytes + queued.bytes();
        if self.queue.len() >= bounds.messages_max {
            return Err(Refused::Messages);
        }
        if bytes > bounds.bytes_max {
            return Err(Refused::Bytes);
        }
        self.queue_bytes = bytes;
        self.queue_qos0 += usize::from(queued.qos == QoS::AtMostOnce);
        self.queue.push_back(queued);
        Ok(())
    }

    /// The next packet for the client, marked as sent; `None` when nothing
    /// waits or `quota` PUBLISHes are unacknowledged.
    pub fn next(&mut self, quota: u16, now: Time) -> Option<Outgoing> {
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
        let qos = self.queue.front()?.qos;
        if qos > QoS::AtMostOnce && !self.window_is_open(quota) {
            return None;
        }
        let queued = self.take_queued()?;
        if queued.publication.is_expired(now) {
            return Some(Outgoing::Expired(queued));
        }
        let packet_id = (qos > QoS::AtMostOnce).then(|| self.start(queued.clone()));
        Some(Outgoing::Publish { queued, packet_id, dup: false })
    }

    /// PUBACK: the end of a QoS 1 delivery.
    pub fn acknowledged(&mut self, id: PacketId) -> Result<(), AckError> {
        let at = self.position(id)?;
        match &self.window[at].step {
            Step::Published(queued) if queued.qos == QoS::AtLeastOnce => self.finish(at),
            Step::Done => return Err(AckError::Unknown),
            _ => return Err(AckError::WrongStep),
        }
        Ok(())
    }

    /// PUBREC: the client owns the message. With `refused` (a reason code of
    /// 0x80 or more) this is the end of the delivery; without, the caller
    /// answers with PUBREL.
    pub fn received(&mut self, id: PacketId, refused: bool) -> Result<(), AckError> {
        let at = self.position(id)?;
        match &self.window[at].step {
            Step::Published(queued) if queued.qos == QoS::ExactlyOnce => {
                if refused {
                    self.finish(at);
                } else {
                    self.window[at].step = Step::Released;
                }
                Ok(())
            }
            Step::Released => Ok(()),
            Step::Done => Err(AckError::Unknown),
            Step::Published(_) => Err(AckError::WrongStep),
        }
    }

    /// PUBCOMP: the end of a QoS 2 delivery.
    pub fn completed(&mut self, id: PacketId) -> Result<(), AckError> {
        let at = self.position(id)?;
        match &self.window[at].step {
            Step::Released => self.finish(at),
            Step::Done => return Err(AckError::Unknown),
            Step::Published(_) => return Err(AckError::WrongStep),
        }
        Ok(())
    }

    /// Ends a delivery that was started but cannot be sent: too large for the
    /// client (MQTT-3.1.2-25).
    pub fn abandon(&mut self, id: PacketId) {
        if let Ok(at) = self.position(id) {
            self.finish(at);
        }
    }

    /// Messages that wait behind the window.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Deliveries in flight and waiting.
    pub fn load(&self) -> usize {
        self.in_flight + self.queue.len()
    }

    fn window_is_open(&self, quota: u16) -> bool {
        self.unacknowledged < quota && self.window.len() < WINDOW_SPAN_MAX
    }

    fn take_queued(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queue_bytes -= queued.bytes();
        self.queue_qos0 -= usize::from(queued.qos == QoS::AtMostOnce);
        if self.queue.is_empty() {
            shrink(&mut self.queue);
        }
        Some(queued)
    }

    fn id_at(&self, position: usize) -> PacketId {
        self.first.plus(position as u16)
    }

    fn position(&self, id: PacketId) -> Result<usize, AckError> {
        let at = id.steps_since(self.first) as usize;
        if at < self.window.len() { Ok(at) } else { Err(AckError::Unknown) }
    }

    fn finish(&mut self, at: usize) {
        let entry = &mut self.window[at];
        self.unacknowledged -= u16::from(entry.counted);
        entry.counted = false;
        entry.step = Step::Done;
        self.in_flight -= 1;
        while let Some(InFlight { step: Step::Done, .. }) = self.window.front() {
            self.window.pop_front();
            self.first = self.first.next();
            self.sent = self.sent.saturating_sub(1);
        }
        if self.window.is_empty() {
            shrink(&mut self.window);
        }
    }
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
        };
        let publication = Publication::new(&message);
        Queued { publication, qos, retain: false, identifiers: Identifiers::new() }
    }

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    /// What goes out, as text: `P3` a PUBLISH with id 3, `D3` with DUP, `R3` a PUBREL.
    fn drain(outbox: &mut Outbox, quota: u16) -> String {
        let mut text = String::new();
        while let Some(outgoing) = outbox.next(quota, NOW) {
            text += &match outgoing {
                Outgoing::Publish { packet_id, dup, .. } => format!(
                    "{}{} ",
                    if dup { 'D' } else { 'P' },
                    packet_id.map_or(0, PacketId::get)
                ),
                Outgoing::Release(id) => format!("R{id} "),
                Outgoing::Expired(_) => "X ".to_owned(),
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
        assert_eq!((outbox.window.len(), outbox.first), (1, id(4)));
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
        assert_eq!(outbox.received(id(2), false), Ok(()), "a repeated PUBREC gets its PUBREL");
        assert_eq!(outbox.acknowledged(id(2)), Err(AckError::WrongStep));
        outbox.completed(id(2)).unwrap();
    }

    #[test]
    fn identifiers_wrap_past_zero() {
        let mut outbox = Outbox { first: id(65_535), ..Outbox::default() };
        assert_eq!(outbox.start(delivery(QoS::AtLeastOnce, None)), id(65_535));
        assert_eq!(outbox.start(delivery(QoS::AtLeastOnce, None)), id(1));
        outbox.acknowledged(id(1)).unwrap();
        outbox.acknowledged(id(65_535)).unwrap();
        assert!(outbox.window.is_empty() && outbox.queue.is_empty());
        assert_eq!(outbox.first, id(2));
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
        assert_eq!(drain(&mut outbox, 1), "X P0 P1 ");
        assert_eq!(outbox.queue_bytes, 0);
        assert!(outbox.qos0_may_pass());
    }
}
