//! A subscriber whose session and own state outlive any number of broken connections
//! (MQTT 5.0 sections 4.3 and 4.4).

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use crate::book::{Book, Fault, Phase};
use crate::link::{Delivered, Identity, Link, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet};
use crate::random::Random;

pub(crate) struct Subscriber {
    book: Arc<Book>,
    port: u16,
    who: Identity,
    filters: Vec<(String, u8)>,
    /// Its number in the book, alone or with the other members of its group.
    taker: usize,
    habit: Habit,
    random: Random,
    /// CONNACK has promised that there is a session.
    promised: bool,
    /// SUBACK has promised that there are its subscriptions.
    subscribed: bool,
    connections: u32,
    /// QoS 2 identifiers received and not yet released, and what came with them.
    unreleased: HashMap<u16, Vec<u8>>,
}

/// How it behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Habit {
    /// Connected whenever there is a broker.
    Steady,
    /// Acknowledges late, and in bursts.
    Slow,
    /// Breaks its connection every few hundred packets, in the middle of one as often as not.
    Flapping,
    /// Away from its SUBACK until nothing more is published.
    Away,
    /// Subscribes after so many kills.
    Late(u32),
}

impl Subscriber {
    pub(crate) fn new(
        book: &Arc<Book>,
        port: u16,
        taker: usize,
        (who, filters): (Identity, &[(&str, u8)]),
        habit: Habit,
        random: Random,
    ) -> Self {
        let filters = filters.iter().map(|(filter, qos)| ((*filter).to_owned(), *qos)).collect();
        Self {
            book: Arc::clone(book),
            port,
            who,
            filters,
            taker,
            habit,
            random,
            promised: false,
            subscribed: false,
            connections: 0,
            unreleased: HashMap::new(),
        }
    }

    /// Until the run is over.
    pub(crate) fn run(mut self) {
        while self.book.phase() != Phase::End {
            if self.is_away() {
                std::thread::sleep(POLL);
            } else if self.connect_and_serve().is_err() {
                std::thread::sleep(RECONNECT);
            }
        }
    }

    fn is_away(&self) -> bool {
        match self.habit {
            Habit::Away => self.subscribed && self.book.phase() == Phase::Load,
            Habit::Late(kills) => self.book.kills() < kills && self.book.phase() == Phase::Load,
            Habit::Steady | Habit::Slow | Habit::Flapping => false,
        }
    }

    fn connect_and_serve(&mut self) -> io::Result<()> {
        let (mut link, present) = Link::open(self.port, &self.who, false)?;
        self.connections += 1;
        if self.promised && !present {
            self.book.fault(Fault::SessionLost, &self.who.client);
            // The session's state is gone on this side too (MQTT-3.2.2-5).
            self.unreleased.clear();
            self.subscribed = false;
        }
        self.promised = true;
        if !self.subscribed {
            link.subscribe(self.filters.iter().map(|(filter, qos)| (filter.as_str(), *qos)));
        }
        self.serve(link)
    }

    fn serve(&mut self, mut link: Link) -> io::Result<()> {
        let mut held: VecDeque<(u8, u16)> = VecDeque::new();
        loop {
            if self.book.phase() == Phase::End || self.is_away() {
                held.drain(..).for_each(|(kind, id)| link.ack(kind, id));
                link.disconnect();
                return Ok(());
            }
            if self.habit == Habit::Flapping && self.random.one_in(FLAP_ONE_IN) {
                link.break_off(self.random.below(64) as usize);
                return Ok(());
            }
            let packet = link.next(POLL)?;
            let is_idle = packet.is_none();
            if let Some(packet) = packet {
                held.extend(self.handle(packet)?);
            }
            let held_max = if self.habit == Habit::Slow { HELD_MAX } else { 0 };
            if is_idle || held.len() > held_max {
                held.drain(..).for_each(|(kind, id)| link.ack(kind, id));
                link.flush()?;
            }
        }
    }

    /// What is to be answered.
    fn handle(&mut self, packet: Packet) -> io::Result<Option<(u8, u16)>> {
        match packet {
            Packet::Suback(codes) if codes.iter().all(|code| *code <= 2) => {
                self.subscribed = true;
                self.book.subscribed(self.taker);
                Ok(None)
            }
            Packet::Publish(delivered) => Ok(self.receive(&delivered)),
            Packet::Ack { kind: PUBREL, packet_id, .. } => {
                self.unreleased.remove(&packet_id);
                Ok(Some((PUBCOMP, packet_id)))
            }
            other => {
                self.book.fault(Fault::Protocol, &format!("{}: {other:?}", self.who.client));
                Err(ErrorKind::InvalidData.into())
            }
        }
    }

    fn receive(&mut self, delivered: &Delivered) -> Option<(u8, u16)> {
        let id = delivered.packet_id;
        match (delivered.qos, self.unreleased.get(&id)) {
            (2, None) => {
                self.unreleased.insert(id, delivered.payload.clone());
                self.book.deliver(self.taker, self.connections, delivered);
                Some((PUBREC, id))
            }
            (2, Some(known)) => {
                if !delivered.dup || *known != delivered.payload {
                    let what = format!("{}: {id} is in use: {delivered:?}", self.who.client);
                    self.book.fault(Fault::Protocol, &what);
                }
                Some((PUBREC, id))
            }
            (1, _) => {
                self.book.deliver(self.taker, self.connections, delivered);
                Some((PUBACK, id))
            }
            _ => {
                let what = format!("{}: QoS 0: {delivered:?}", self.who.client);
                self.book.fault(Fault::Protocol, &what);
                None
            }
        }
    }
}

const FLAP_ONE_IN: u64 = 300;
/// Less than any window, so that the next delivery or a pause sets them free.
const HELD_MAX: usize = 7;
const POLL: Duration = Duration::from_millis(10);
const RECONNECT: Duration = Duration::from_millis(4);
