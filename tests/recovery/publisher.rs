//! A publisher that owns its messages until they are acknowledged, through any number of broken
//! connections (MQTT 5.0 sections 4.3 and 4.4).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::book::{Book, Fault, Message, Phase};
use crate::link::{Identity, Link, Outgoing, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet};
use crate::payload::Payload;
use crate::random::Random;

pub(crate) struct Publisher {
    book: Arc<Book>,
    port: u16,
    who: Identity,
    /// Its number in the book.
    number: usize,
    kind: Kind,
    random: Random,
    /// CONNACK has promised that there is a session.
    promised: bool,
    begun: u32,
    next_packet_id: u16,
    /// In the order of their first PUBLISH.
    in_flight: VecDeque<Flight>,
}

/// What it publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Plain,
    /// `$delayed/SECONDS/...`
    Delayed,
    /// With RETAIN, now and then empty.
    Retained,
}

struct Flight {
    packet_id: u16,
    sequence: u32,
    message: Message,
    /// What goes on the wire, where the message says what arrives.
    topic: String,
    payload: Vec<u8>,
    phase: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for PUBACK or PUBREC.
    Published,
    /// It waits for PUBCOMP.
    Released,
}

impl Publisher {
    pub(crate) fn new(book: &Arc<Book>, port: u16, number: usize, kind: Kind, seed: u64) -> Self {
        let version = if number.is_multiple_of(2) { 5 } else { 4 };
        Self {
            book: Arc::clone(book),
            port,
            who: Identity { client: format!("publisher-{number}"), version, receive_max: 20 },
            number,
            kind,
            random: Random::new(seed, 1000 + number as u64),
            promised: false,
            begun: 0,
            next_packet_id: 1,
            in_flight: VecDeque::new(),
        }
    }

    /// Until everything is sent and acknowledged, or the run is over.
    pub(crate) fn run(mut self) {
        loop {
            match self.book.phase() {
                Phase::End => return,
                Phase::Drain if self.in_flight.is_empty() && !self.may_begin() => return,
                Phase::Load | Phase::Drain => {}
            }
            if let Ok((link, present)) = Link::open(self.port, &self.who, false) {
                self.resume(present);
                // It breaks now and then; then a new one is made.
                let _ = self.serve(link);
            } else {
                std::thread::sleep(RECONNECT);
            }
        }
    }

    fn resume(&mut self, present: bool) {
        if self.promised && !present {
            self.book.fault(Fault::SessionLost, &self.who.client);
            // The session's state is gone on this side too (MQTT-3.2.2-5). What was not acknowledged
            // may have arrived or not: nothing is claimed of it.
            for flight in self.in_flight.drain(..) {
                self.book.give_up(self.number, flight.sequence);
            }
        }
        self.promised = true;
    }

    fn serve(&mut self, mut link: Link) -> io::Result<()> {
        // MQTT-4.4.0-1, MQTT-4.6.0-1
        for flight in &self.in_flight {
            match flight.phase {
                Stage::Published => {
                    self.book.resend(self.number, flight.sequence);
                    link.publish(&flight.packet(true));
                }
                Stage::Released => link.ack(PUBREL, flight.packet_id),
            }
        }
        loop {
            while self.may_begin() && self.in_flight.len() < WINDOW {
                let flight = self.begin();
                link.publish(&flight.packet(false));
                self.in_flight.push_back(flight);
                if self.random.one_in(CUT_ONE_IN) {
                    link.break_off(self.random.below(4000) as usize);
                    return Ok(());
                }
            }
            link.flush()?;
            match link.next(POLL)? {
                Some(packet) => self.handle(&mut link, packet),
                None if self.in_flight.is_empty() && self.book.phase() != Phase::Load => {
                    link.disconnect();
                    return Ok(());
                }
                None if self.book.phase() == Phase::End => return Ok(()),
                None => {}
            }
        }
    }

    fn may_begin(&self) -> bool {
        self.begun < self.book.quota() / if self.kind == Kind::Plain { 1 } else { SELDOM }
    }

    fn begin(&mut self) -> Flight {
        self.begun += 1;
        let mut qos = 1 + self.random.below(2) as u8;
        let (topic, wire_topic) = match self.kind {
            Kind::Plain => same(format!("r/{}/{}", self.number, self.random.below(3))),
            Kind::Delayed => {
                let topic = format!("r/{}/{}", self.number, self.random.below(3));
                let wire_topic = format!("$delayed/{}/{topic}", self.random.below(3));
                (topic, wire_topic)
            }
            Kind::Retained => {
                let topic = self.random.below(20);
                // Only messages of the same QoS keep their order.
                qos = 1 + (topic % 2) as u8;
                same(format!("keep/{}/{topic}", self.number))
            }
        };
        let retain = self.kind == Kind::Retained;
        let clears = retain && self.random.one_in(4);
        let message =
            Message { topic, qos, retain, clears, acked: None, resent: false, is_given_up: false };
        let sequence = self.book.begin(self.number, message.clone());
        let unordered = self.kind == Kind::Delayed;
        let payload = Payload { publisher: self.number as u16, sequence, unordered };
        let payload = if clears { Vec::new() } else { payload.write() };
        let packet_id = self.packet_id();
        let phase = Stage::Published;
        Flight { packet_id, sequence, message, topic: wire_topic, payload, phase }
    }

    /// One that is not in use.
    fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = id.checked_add(1).unwrap_or(1);
            if self.in_flight.iter().all(|flight| flight.packet_id != id) {
                return id;
            }
        }
    }

    fn handle(&mut self, link: &mut Link, packet: Packet) {
        let Packet::Ack { kind, packet_id, reason } = packet else {
            let what = format!("{}: unexpected: {packet:?}", self.who.client);
            return self.book.fault(Fault::Protocol, &what);
        };
        let at = self.in_flight.iter().position(|flight| flight.packet_id == packet_id);
        let Some(at) = at else {
            let what = format!("{}: {kind:02x} for {packet_id}, not in flight", self.who.client);
            return self.book.fault(Fault::Protocol, &what);
        };
        let flight = &mut self.in_flight[at];
        match (kind, flight.message.qos, flight.phase) {
            // Refused: it is over, and nobody gets it.
            (PUBACK | PUBREC, _, Stage::Published) if reason >= 0x80 => {
                self.book.give_up(self.number, flight.sequence);
                self.in_flight.remove(at);
            }
            (PUBACK, 1, Stage::Published) => {
                self.book.acknowledge(self.number, flight.sequence);
                self.in_flight.remove(at);
            }
            // A PUBREC may come twice, if PUBLISH has gone twice.
            (PUBREC, 2, _) => {
                self.book.acknowledge(self.number, flight.sequence);
                flight.phase = Stage::Released;
                link.ack(PUBREL, packet_id);
            }
            (PUBCOMP, 2, Stage::Released) => drop(self.in_flight.remove(at)),
            _ => {
                let what = format!("{}: {kind:02x} for {packet_id} too early", self.who.client);
                self.book.fault(Fault::Protocol, &what);
            }
        }
    }
}

impl Flight {
    fn packet(&self, dup: bool) -> Outgoing<'_> {
        Outgoing {
            dup,
            qos: self.message.qos,
            retain: self.message.retain,
            topic: &self.topic,
            packet_id: self.packet_id,
            payload: &self.payload,
        }
    }
}

fn same(topic: String) -> (String, String) {
    (topic.clone(), topic)
}

const WINDOW: usize = 12;
/// Delayed and retained publications are so much fewer.
const SELDOM: u32 = 4;
const CUT_ONE_IN: u64 = 400;
const POLL: Duration = Duration::from_millis(10);
const RECONNECT: Duration = Duration::from_millis(4);
