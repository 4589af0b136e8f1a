//! The end of the sessions that were to outlive their connections: nothing of a run is to be left in the
//! broker. Each of these clients connects once more with Clean Start, and leaves.
//!
//! Comes behind the result: what fails here is only counted.

use std::collections::VecDeque;

use ringmq::shard::Filled;

use super::{
    peer::{Doing, Peer},
    thread::{Failure, Thread, ThreadSetup},
    turn::CONNECTING_MAX,
};
use crate::{
    client::{Client, Notice},
    clock::SECOND,
    plan::Role,
    scenario::Persistent,
    transport::Transport,
};

impl ThreadSetup {
    /// Whether the session of such a client outlives its connection.
    pub(super) fn keeps(&self, role: Role) -> bool {
        match (self.scenario.persistent, role) {
            (Persistent::Nobody, _) | (_, Role::Idle(_)) => false,
            (Persistent::Everybody, _) => true,
            (Persistent::Subscribers, role) => matches!(role, Role::Subscriber(_)),
        }
    }
}

impl Thread {
    /// Ends the sessions that would outlive the run, and counts those that the broker keeps nevertheless.
    pub(super) fn end_sessions(&mut self) {
        if self.setup.scenario.persistent == Persistent::Nobody {
            return;
        }
        // An error is the ring's, or that the broker is gone: then no session can be ended.
        let _ = self.forget_all();
        let left = self.peers.iter().filter(|peer| peer.has_session).count();
        self.record.tally.counts.sessions_left = left as u64;
    }

    fn forget_all(&mut self) -> Result<(), Failure> {
        self.to_connect.clear();
        self.part(|_| true);
        let slots = (0..self.peers.len() as u32).filter(|at| self.peers[*at as usize].has_session);
        let mut to_forget: VecDeque<u32> = slots.collect();
        let mut left = to_forget.len() + self.busy();
        let mut deadline = self.clock.now() + STALLED_MAX;
        while left > 0 && self.clock.now() < deadline {
            // One whose connection is not closed yet is looked at again.
            for _ in 0..to_forget.len().min(CONNECTING_MAX) {
                let Some(slot) = to_forget.pop_front() else { break };
                if self.peers[slot as usize].doing == Doing::Absent {
                    self.connect_to_forget(slot)?;
                } else {
                    to_forget.push_back(slot);
                }
            }
            self.turn(self.clock.now() + LOOK_EVERY)?;
            let now_left = to_forget.len() + self.busy();
            if now_left != left {
                (left, deadline) = (now_left, self.clock.now() + STALLED_MAX);
            }
        }
        Ok(())
    }

    fn connect_to_forget(&mut self, slot: u32) -> Result<(), Failure> {
        let peer = &mut self.peers[slot as usize];
        let socket = self.setup.route.open(slot)?;
        let client = Client::new(&self.setup.client, &self.plan.client_id(peer.number), None);
        peer.connect((socket, Transport::new(&self.setup.transport)?), client, 0)?;
        peer.doing = Doing::Forgetting;
        if let Some((conn, fd)) = peer.connection(slot) {
            self.ring.receive(conn, fd);
        }
        self.to_send.push(slot);
        Ok(())
    }

    /// Bytes arrived for a client that ends its session.
    pub(super) fn forget(&mut self, slot: usize, filled: &Filled) {
        let peer = &mut self.peers[slot];
        let mut is_over = false;
        if let Ok(bytes) = peer.unwrap(self.ring.bytes(filled), &mut self.plain)
            && let Some(client) = &mut peer.client
        {
            // With Clean Start nothing is left by the time of the CONNACK (MQTT-3.1.4-4).
            let outcome = client.receive(bytes, |notice| is_over |= notice == Notice::Connected);
            is_over &= outcome.is_ok();
        }
        if is_over {
            peer.has_session = false;
            peer.disconnect();
        }
        self.to_send.push(slot as u32);
    }

    /// Connections in which a session is being ended, or the last bytes are on their way.
    fn busy(&self) -> usize {
        let is_busy = |peer: &&Peer| peer.doing == Doing::Forgetting || peer.is_sending();
        self.peers.iter().filter(is_busy).count()
    }
}

/// How long nothing may happen before the rest is given up.
const STALLED_MAX: u64 = 2 * SECOND;

/// How often the clients are looked at whatever arrives.
const LOOK_EVERY: u64 = SECOND / 100;
