//! One turn of a run: what has arrived, what is due, what goes out, and the sleep until there is more.
//!
//! There is one task, so a turn need not make way for anything: it awaits nothing but news.

use std::io;

use ringmq::shard::{Event, Filled, Received};

use super::{Failure, Run, conn_id, nanos};
use crate::{client::Notice, record::Stamp};

impl Run<'_> {
    /// Handles what has arrived, sends what is due, and sleeps until there is more or `wake_at`.
    pub(super) async fn turn(&mut self, wake_at: u64) -> Result<(), Failure> {
        self.ring.hush();
        let completions = self.ring.harvest(COMPLETIONS_PER_TURN);
        while let Some(event) = self.ring.next_event() {
            self.handle(event)?;
        }
        self.publish();
        self.start_sends();
        let now = self.now();
        if completions > 0 || now >= wake_at {
            // After a turn that found completions the next one enters, or has them already.
            if completions == 0 || self.ring.has_submissions() {
                self.ring.enter()?;
            }
            return Ok(());
        }
        self.set_timer(now, wake_at);
        self.ring.announce();
        self.ring.enter()?;
        let more = self.ring.has_completions()
            || self.ring.has_submissions()
            || self.ring.has_deferred_work();
        if !more {
            self.wake.read_at(0, 8).await.map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// Nanoseconds since the run's clock started.
    pub(super) fn now(&self) -> u64 {
        nanos(self.clock.elapsed())
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Received { conn, what, more } => {
                let slot = conn.slot as usize;
                match what {
                    Received::Bytes(filled) => {
                        let outcome = self.arrived(slot, &filled);
                        self.ring.give_back(filled);
                        outcome?;
                    }
                    Received::Nothing => {}
                    // The broker answers a DISCONNECT with the end of the connection.
                    Received::End | Received::Failed(_) if self.leaving => return Ok(()),
                    Received::End => return Err(Failure::Closed { client: self.name(slot) }),
                    Received::Failed(error) => return Err(self.socket_failure(slot, error)),
                }
                if !more {
                    self.ring.receive(conn, self.connections[slot].raw_fd());
                }
            }
            Event::Sent { conn, result, buffer } => {
                let slot = conn.slot as usize;
                self.connections[slot].sending = false;
                self.connections[slot].client.recycle(buffer);
                if let Err(error) = result
                    && !self.leaving
                {
                    return Err(self.socket_failure(slot, error));
                }
                self.to_send.push(conn.slot);
                if conn.slot < self.options.plan.publishers {
                    self.to_publish.push(conn.slot);
                }
            }
            Event::TimerFired => self.timer = None,
            Event::Accepted { .. } => debug_assert!(false, "nothing listens here"),
        }
        Ok(())
    }

    fn arrived(&mut self, slot: usize, filled: &Filled) -> Result<(), Failure> {
        let now = self.now();
        let Self { ring, options, connections, pacer, record, ready, to_publish, .. } = self;
        let plan = &options.plan;
        let mut may_publish = |publisher| {
            if to_publish.last() != Some(&publisher) {
                to_publish.push(publisher);
            }
        };
        let outcome = connections[slot].client.receive(ring.bytes(filled), |notice| match notice {
            Notice::Ready => *ready += 1,
            Notice::Acknowledged { step, intended, refused } => {
                record.acknowledged(step, intended, refused, now);
                may_publish(slot as u32);
            }
            Notice::Delivered(payload) => {
                let whole = payload.len() == options.payload_bytes;
                let stamp = Stamp::of(payload)
                    .filter(|stamp| whole && pacer.has_sent(stamp.publisher, stamp.sequence));
                // Publishers have no subscription, so their clients tell of no delivery.
                let subscriber = slot as u32 - plan.publishers;
                let stream = stamp
                    .and_then(|stamp| Some((plan.stream(stamp.publisher, subscriber)?, stamp)));
                let Some((stream, stamp)) = stream else { return record.stray() };
                let settled = record.delivered(stream, stamp, now);
                pacer.settled(stamp.publisher, settled);
                may_publish(stamp.publisher);
            }
        });
        self.to_send.push(slot as u32);
        outcome.map_err(|error| Failure::Client { client: self.name(slot), error })
    }

    /// Sends what is due and has room.
    fn publish(&mut self) {
        if self.leaving {
            return self.to_publish.clear();
        }
        let now = self.now();
        let to_publish = &mut self.to_publish;
        self.pacer.release(now, |publisher| to_publish.push(publisher));
        for publisher in self.to_publish.drain(..) {
            let client = &mut self.connections[publisher as usize].client;
            while client.has_room()
                && let Some(intended) = self.pacer.intended(publisher, now)
            {
                let sequence = self.pacer.sent(publisher);
                let stamp = Stamp { publisher, sequence, intended };
                client.publish(&self.templates[publisher as usize], stamp);
                self.record.sent(intended, now);
            }
            self.to_send.push(publisher);
        }
    }

    /// Starts sending what clients have to say and no send is in progress for.
    fn start_sends(&mut self) {
        for slot in self.to_send.drain(..) {
            let connection = &mut self.connections[slot as usize];
            if !connection.sending && connection.client.has_output() {
                connection.sending = true;
                let output = connection.client.take_output();
                self.ring.send(conn_id(slot as usize), connection.raw_fd(), output);
            }
        }
    }

    /// Makes the ring's timer fire at `at` or before.
    fn set_timer(&mut self, now: u64, at: u64) {
        let after = std::time::Duration::from_nanos(at - now);
        match self.timer {
            None => self.ring.set_timer(after),
            Some(earlier) if earlier <= at => return,
            Some(_) => self.ring.move_timer(after),
        }
        self.timer = Some(at);
    }

    fn name(&self, slot: usize) -> String {
        self.options.plan.client_id(slot as u32)
    }

    fn socket_failure(&self, slot: usize, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Failure::Closed { client: self.name(slot) }
            }
            _ => Failure::Socket { client: self.name(slot), error },
        }
    }
}

/// Completions handled before sending.
const COMPLETIONS_PER_TURN: usize = 256;
