//! One turn of a thread: what has arrived, what is due, what goes out, and the wait until there is more.

use std::{io, time::Duration};

use ringmq::shard::{Event, Filled, Received};

use super::{
    orders::Order,
    peer::Doing,
    thread::{Failure, Phase, Thread, ThreadSetup, WAKE},
};
use crate::{
    client::{Client, Notice, Step},
    clock::Clock,
    plan::{Plan, Role, Streams},
    record::{Record, Stamp},
    result::LatencyName,
    transport::Transport,
};

impl Thread {
    /// Handles what has arrived, sends what is due, and waits until there is more or `wake_at`.
    pub(super) fn turn(&mut self, wake_at: u64) -> Result<(), Failure> {
        self.connect_next()?;
        self.publish();
        self.start_sends()?;
        self.tell_siblings();
        self.ring.enter()?;
        if !self.ring.has_completions() && !self.ring.has_submissions() {
            let before = self.clock.now();
            if let Some(left) = wake_at.checked_sub(before).filter(|left| *left > 0) {
                if self.setup.spins {
                    self.spin_until(wake_at)?;
                } else {
                    self.ring.wait(Duration::from_nanos(left))?;
                }
                self.waited += self.clock.now() - before;
            }
        }
        self.ring.harvest(COMPLETIONS_PER_TURN);
        while let Some(event) = self.ring.next_event() {
            self.handle(event)?;
        }
        Ok(())
    }

    /// Waits without sleep.
    fn spin_until(&mut self, wake_at: u64) -> Result<(), Failure> {
        while self.clock.now() < wake_at && !self.ring.has_completions() {
            self.ring.enter()?;
        }
        Ok(())
    }

    /// When the next client is to be connected, if one may be.
    pub(super) fn next_connect(&self) -> Option<u64> {
        self.to_connect.front()?;
        let rate = self.setup.scenario.connect_rate;
        if rate == 0.0 {
            return (self.connecting < CONNECTING_MAX).then_some(0);
        }
        let place = self.connects_started * self.setup.threads as u64 + self.setup.number as u64;
        Some(self.connect_from + (place as f64 / rate * 1e9) as u64)
    }

    fn connect_next(&mut self) -> Result<(), Failure> {
        while let Some(at) = self.next_connect() {
            let now = self.clock.now();
            if at > now || self.phase == Phase::Leaving {
                return Ok(());
            }
            let Some(slot) = self.to_connect.pop_front() else { return Ok(()) };
            self.connects_started += 1;
            self.connecting += 1;
            let peer = &mut self.peers[slot as usize];
            let socket = self.setup.route.open(slot)?;
            let filter = match peer.role {
                Role::Subscriber(number) => Some(self.plan.filter(number)),
                _ => None,
            };
            let client_id = self.plan.client_id(peer.number);
            peer.has_session = self.setup.keeps(peer.role);
            let setup = if peer.has_session { &self.setup.kept } else { &self.setup.client };
            let client = Client::new(setup, &client_id, filter.as_deref());
            let transport = Transport::new(&self.setup.transport)?;
            peer.connect((socket, transport), client, if at == 0 { now } else { at })?;
            if let Some((conn, fd)) = peer.connection(slot) {
                self.ring.receive(conn, fd);
            }
            self.to_send.push(slot);
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Received { conn, what, more } if conn == WAKE => {
                if let Received::Bytes(filled) = what {
                    self.ring.give_back(filled);
                }
                if !more {
                    self.rearm_wake();
                }
            }
            Event::Received { conn, what, more } => {
                let slot = conn.slot as usize;
                let current = self.peers[slot].is(conn);
                match what {
                    Received::Bytes(filled) => {
                        let outcome = if current { self.arrived(slot, &filled) } else { Ok(()) };
                        self.ring.give_back(filled);
                        outcome?;
                    }
                    // Of a connection that is closed.
                    _ if !current => return Ok(()),
                    Received::Starved => self.ring.lend_more(),
                    Received::Nothing => {}
                    Received::End => return self.ended(slot, None),
                    Received::Failed(error) => return self.ended(slot, Some(error)),
                }
                if !more && let Some((conn, fd)) = self.peers[slot].connection(conn.slot) {
                    self.ring.receive(conn, fd);
                }
            }
            Event::Sent { conn, result, output } => {
                let slot = conn.slot as usize;
                let peer = &mut self.peers[slot];
                peer.sent(output.into_room());
                if peer.has_ended {
                    return self.ended(slot, None);
                }
                if let Err(error) = result {
                    return self.ended(slot, Some(error));
                }
                self.to_send.push(conn.slot);
                if let Some(place) = self.publisher_at(slot) {
                    self.to_publish.push(place);
                }
            }
            Event::TimerFired | Event::Ready { .. } => {
                debug_assert!(false, "no timer runs and nothing listens here");
            }
        }
        Ok(())
    }

    /// A connection has ended: as it should, if its client is leaving.
    fn ended(&mut self, slot: usize, error: Option<io::Error>) -> Result<(), Failure> {
        let client = self.name(slot);
        let peer = &mut self.peers[slot];
        if peer.doing == Doing::Leaving || self.phase == Phase::Leaving {
            peer.has_ended = true;
            if !peer.sending {
                peer.close();
                self.leaving = self.leaving.saturating_sub(1);
                self.tell_if_ready();
            }
            return Ok(());
        }
        if let Err(error) = peer.why_ended() {
            return Err(Failure::Layer { client, error: error.into() });
        }
        Err(match error {
            None => Failure::Closed { client },
            Some(error) => match error.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Failure::Closed { client }
                }
                _ => Failure::Socket { client, error },
            },
        })
    }

    fn arrived(&mut self, slot: usize, filled: &Filled) -> Result<(), Failure> {
        if self.peers[slot].doing == Doing::Leaving {
            // The broker may answer what was sent before a DISCONNECT as it likes.
            return Ok(());
        }
        if self.peers[slot].doing == Doing::Forgetting {
            self.forget(slot, filled);
            return Ok(());
        }
        let now = self.clock.now();
        let peer = &mut self.peers[slot];
        let bytes = match peer.unwrap(self.ring.bytes(filled), &mut self.plain) {
            Ok(bytes) => bytes,
            Err(error) => {
                let error = error.into();
                return Err(Failure::Layer { client: self.name(slot), error });
            }
        };
        let Some(client) = peer.client.as_mut() else { return Ok(()) };
        let (role, taker, connect_at) = (peer.role, peer.taker, peer.connect_at);
        // At a rate each has a time of its own to return at; otherwise all mean to at once.
        let has_rate = self.setup.scenario.connect_rate > 0.0;
        let mut arrivals = Arrivals {
            now,
            now_unix_us: self.clock.to_unix_us(now),
            clock: self.clock,
            returned: self.returned.map(|all| if has_rate { connect_at } else { all }),
            setup: &self.setup,
            streams: &self.streams,
            record: &mut self.record,
            to_publish: &mut self.to_publish,
            opened: &mut self.opened,
            plan: &self.plan,
            refused: &mut self.refused,
            settled: (0, 0),
        };
        let mut is_ready = false;
        let outcome = client.receive(bytes, |notice| match notice {
            Notice::Delivered(payload) => arrivals.delivered(role, taker, payload),
            Notice::Acknowledged { step, intended, refused } => {
                arrivals.acknowledged(role, step, intended, refused);
            }
            Notice::Connected => {
                arrivals.record.took(LatencyName::ConnectToConnack, connect_at, now);
                peer.subscribe_at = now;
                is_ready = !matches!(role, Role::Subscriber(_));
            }
            Notice::Subscribed => {
                arrivals.record.took(LatencyName::SubscribeToSuback, peer.subscribe_at, now);
                is_ready = true;
            }
        });
        arrivals.settle();
        self.to_send.push(slot as u32);
        if is_ready {
            self.became_ready(slot);
        }
        outcome.map_err(|error| Failure::Client { client: self.name(slot), error })
    }

    fn became_ready(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        if peer.doing == Doing::Connecting {
            peer.doing = Doing::Ready;
            self.connecting -= 1;
            self.ready += 1;
            self.record.tally.counts.connected = self.ready as u64;
            if self.connecting == 0 {
                self.tell_if_ready();
            }
        }
    }

    /// Sends what is due and has room.
    fn publish(&mut self) {
        if self.phase == Phase::Waiting || self.phase == Phase::Leaving {
            return self.to_publish.clear();
        }
        let now = self.clock.now();
        let to_publish = &mut self.to_publish;
        self.pacer.release(now, |place| to_publish.push(place as u32));
        for place in self.to_publish.drain(..) {
            let publisher = &self.publishers[place as usize];
            let Some(client) = &mut self.peers[publisher.slot as usize].client else { continue };
            let place = place as usize;
            let mut sent = 0;
            while let Some(intended) = self.pacer.intended(place, now) {
                if !client.has_room() {
                    self.pacer.hold(place);
                    break;
                }
                let (sequence, was_held) = self.pacer.sent(place);
                let stamp = Stamp {
                    tag: self.setup.tag,
                    publisher: publisher.number,
                    sequence,
                    intended_unix_us: self.clock.to_unix_us(intended),
                };
                client.publish(&publisher.template, stamp, intended);
                if now > intended && !was_held {
                    self.record.late(intended, now);
                }
                sent += 1;
            }
            if sent > 0 {
                self.record.sent(sent, now);
                self.to_send.push(publisher.slot);
            }
        }
    }

    /// Starts sending what clients have to say and no send is in progress for.
    fn start_sends(&mut self) -> Result<(), Failure> {
        for slot in self.to_send.drain(..) {
            let peer = &mut self.peers[slot as usize];
            if let Some(output) = peer.take_output()?
                && let Some((conn, fd)) = peer.connection(slot)
            {
                peer.sending = true;
                self.ring.send(conn, fd, output.into());
            }
        }
        Ok(())
    }

    /// Tells the other threads which of their windows have opened.
    fn tell_siblings(&mut self) {
        for (opened, sibling) in self.opened.iter_mut().zip(&self.setup.siblings) {
            if !opened.is_empty() {
                opened.sort_unstable();
                opened.dedup();
                sibling.send(Order::MayPublish(std::mem::take(opened)));
            }
        }
    }

    fn publisher_at(&self, slot: usize) -> Option<u32> {
        match self.peers[slot].role {
            Role::Publisher(number) => Some(number / self.setup.threads as u32),
            _ => None,
        }
    }
}

/// What the bytes of one completion mean to the load.
struct Arrivals<'a> {
    now: u64,
    now_unix_us: u64,
    clock: Clock,
    returned: Option<u64>,
    setup: &'a ThreadSetup,
    streams: &'a Streams,
    record: &'a mut Record,
    to_publish: &'a mut Vec<u32>,
    opened: &'a mut [Vec<u32>],
    plan: &'a Plan,
    /// Deliveries that will not come, because the broker refused their message.
    refused: &'a mut u64,
    /// The publisher of the last messages, mostly the next one's too, and how many deliveries of its
    /// messages are settled with them.
    settled: (u32, u64),
}

impl Arrivals<'_> {
    #[inline]
    fn delivered(&mut self, role: Role, taker: u32, payload: &[u8]) {
        let Role::Subscriber(member) = role else { return self.record.stray() };
        let stamp = Stamp::of(payload, self.now_unix_us).filter(|one| one.tag == self.setup.tag);
        if !self.setup.scenario.checked {
            return match &stamp {
                Some(stamp) => self.record.arrived(self.intended(stamp), self.now),
                None => self.record.came(self.now),
            };
        }
        let whole = payload.len() == self.setup.scenario.payload_bytes;
        let stamp = stamp.filter(|_| whole);
        let found = stamp.and_then(|one| Some((self.streams.find(one.publisher, taker)?, one)));
        let Some((stream, stamp)) = found else { return self.record.stray() };
        let Stamp { publisher, sequence, .. } = stamp;
        let (at, now) = (self.intended(&stamp), self.now);
        let settled = if self.streams.is_group(taker) {
            self.record.delivered_to_member(stream, (member, publisher), sequence, at, now)
        } else {
            self.record.delivered(stream, sequence, at, now)
        };
        if publisher != self.settled.0 {
            self.settle();
            self.settled.0 = publisher;
        }
        self.settled.1 += settled;
    }

    /// Lets the publisher of the last messages go on.
    fn settle(&mut self) {
        let (publisher, deliveries) = std::mem::take(&mut self.settled);
        if deliveries > 0 {
            self.setup.settled.add(publisher, deliveries);
            self.opened(publisher);
        }
    }

    fn acknowledged(&mut self, role: Role, step: Step, intended: u64, refused: bool) {
        if !refused {
            self.record.took(step.latency(), intended, self.now);
        }
        if let Role::Publisher(number) = role {
            if refused {
                self.record.refused();
                let takers = self.plan.takers(number);
                *self.refused += takers;
                self.setup.settled.add(number, takers);
            }
            let place = number / self.setup.threads as u32;
            if self.to_publish.last() != Some(&place) {
                self.to_publish.push(place);
            }
        }
    }

    /// When the latency of a message begins.
    fn intended(&self, stamp: &Stamp) -> u64 {
        self.returned.unwrap_or_else(|| self.clock.of_unix_us(stamp.intended_unix_us))
    }

    /// The window of a publisher, of this thread or another, may have opened.
    fn opened(&mut self, publisher: u32) {
        let home = Plan::thread_of_publisher(publisher, self.setup.threads);
        if home == self.setup.number {
            self.to_publish.push(publisher / self.setup.threads as u32);
        } else if let Some(opened) = self.opened.get_mut(home.wrapping_sub(self.setup.first)) {
            opened.push(publisher);
        }
    }
}

impl Step {
    fn latency(self) -> LatencyName {
        match self {
            Self::PubAck => LatencyName::PublishToPuback,
            Self::PubRec => LatencyName::PublishToPubrec,
            Self::PubComp => LatencyName::PublishToPubcomp,
        }
    }
}

/// Completions handled before sending.
const COMPLETIONS_PER_TURN: usize = 256;

/// Clients of one thread that connect at the same time, if no rate is given.
pub(super) const CONNECTING_MAX: usize = 128;
