//! The seam between sockets and the layers of their connections: TLS, WebSocket, PROXY headers.
//!
//! What is received goes through it to the broker, what the broker has goes through it to the ring. A TLS handshake
//! costs as much as thousands of messages, so those wait in line and have a bounded time of each turn.

use std::{
    io,
    time::{Duration, Instant},
};

use tracing::info;

use super::{
    Shard,
    buffers::Filled,
    connections::{Connection, Phase},
};
use crate::{
    auth::queue::FairQueue,
    base::{ConnId, Output, Peer, limits::HANDSHAKE_MICROS_PER_TURN},
    listener::{CloseCode, End, News, Room, Transport},
};

/// What a shard needs for layers, whoever's they are.
pub(super) struct Seam {
    room: Room,
    /// Connections whose TLS handshake has something to do. Addresses take turns: one that floods waits for itself.
    handshakes: FairQueue<ConnId>,
}

impl Default for Seam {
    fn default() -> Self {
        Self { room: Room::default(), handshakes: FairQueue::unbounded() }
    }
}

impl Seam {
    /// Whether a handshake waits for the next turn.
    pub(super) fn has_work(&self) -> bool {
        !self.handshakes.is_empty()
    }
}

impl Shard {
    /// Takes received bytes to the broker, out of all layers.
    pub(super) fn take_in(&mut self, conn: ConnId, filled: &Filled) {
        let Some(found) = self.connections.get(conn) else { return };
        let bytes = self.ring.bytes(filled);
        match (&mut found.transport, &mut found.phase) {
            (Transport::Plain, Phase::Open) => self.broker.receive(self.now, conn, bytes),
            // The other shard goes on with it.
            (_, Phase::Moving(moving)) => match moving.transport.layers() {
                Some(layers) => layers.keep(bytes),
                None => moving.bytes.extend(bytes),
            },
            (Transport::Layered(layers), Phase::Open) if layers.is_costly() => {
                layers.keep(bytes);
                let address = self.broker.peer(conn).and_then(Peer::ip);
                self.seam.handshakes.push(address, 0, conn);
            }
            (Transport::Layered(layers), Phase::Open) => {
                layers.receive(bytes, &mut self.seam.room);
                self.layers_brought(conn);
            }
            (_, Phase::Draining { .. } | Phase::Lingering | Phase::Closing) => {}
        }
    }

    /// Goes on with what a connection has brought from another shard besides its bytes.
    pub(super) fn take_in_kept(&mut self, conn: ConnId) {
        let Some(found) = self.connections.get(conn).filter(|found| found.is_open()) else {
            return;
        };
        if let Some(layers) = found.transport.layers() {
            layers.receive_kept(&mut self.seam.room);
            self.layers_brought(conn);
        }
    }

    /// Goes on with TLS handshakes, one at least, for a bounded time.
    pub(super) fn take_handshakes(&mut self) {
        if self.seam.handshakes.is_empty() {
            return;
        }
        let started = Instant::now();
        while let Some(conn) = self.seam.handshakes.pop() {
            self.take_in_kept(conn);
            self.to_receive.push(conn);
            if started.elapsed() >= HANDSHAKE_TIME {
                break;
            }
        }
    }

    /// What is to be sent to an open connection now, as it is on its socket.
    pub(super) fn take_out(&mut self, conn: ConnId) -> Output {
        let Some(found) = self.connections.get(conn) else { return Output::default() };
        let Some(layers) = found.transport.layers() else { return self.broker.take_output(conn) };
        if !layers.has_unsent() {
            layers.load(self.broker.take_output(conn));
        }
        if !layers.has_unsent() && !layers.has_answers() {
            return Output::default();
        }
        let mut out = self.broker.spare();
        if let Some(loaded) = layers.send(&mut out, &mut self.seam.room) {
            self.broker.recycle(loaded);
        }
        out.into()
    }

    /// The next of the last bytes to a connection as they are on its socket, with the leave that its layers take at
    /// their end; empty behind that.
    pub(super) fn take_last(&mut self, conn: ConnId) -> Output {
        let code = if self.is_running() { CloseCode::Normal } else { CloseCode::GoingAway };
        let Some(Connection { transport, phase: Phase::Draining { last }, .. }) =
            self.connections.get(conn)
        else {
            return Output::default();
        };
        let Some(layers) = transport.layers().filter(|_| last.is_some()) else {
            return last.take().map(|last| *last).unwrap_or_default();
        };
        let mut out = self.broker.spare();
        if let Some(loaded) = layers.send(&mut out, &mut self.seam.room) {
            self.broker.recycle(loaded);
            *last = None;
            layers.close(code, &mut out, &mut self.seam.room);
        }
        out.into()
    }

    /// Whether the layers of a connection have more of what the broker takes to be under way.
    pub(super) fn has_unsent(&mut self, conn: ConnId) -> bool {
        let found = self.connections.get(conn);
        found.and_then(|found| found.transport.layers()).is_some_and(|layers| layers.has_unsent())
    }

    /// What the layers make of the end: whether it was in order, and how the broker is told.
    pub(super) fn layers_ended(&mut self, conn: ConnId) {
        let Some(found) = self.connections.get(conn) else { return };
        match found.transport.layers().and_then(|layers| layers.end()) {
            Some(End::Faulty(fault)) => {
                let error = io::Error::other(fault.to_string());
                if let Some(suppressed) = self.faulty.admit(self.now) {
                    let peer = self.broker.peer(conn).map(tracing::field::display);
                    let reason = error.to_string();
                    info!(
                        peer,
                        reason, suppressed, "connection ended: it broke the rules of its transport"
                    );
                }
                let last = self.broker.take_output(conn);
                self.broker.disconnected(self.now, conn, Some(error));
                self.drain(conn, last);
            }
            Some(End::Orderly) | None => self.peer_closed(conn),
        }
    }

    /// Takes what has just come out of the layers to the broker.
    fn layers_brought(&mut self, conn: ConnId) {
        let Some(Connection { transport, handshake, .. }) = self.connections.get(conn) else {
            return;
        };
        let Some(layers) = transport.layers() else { return };
        if !layers.is_costly() {
            *handshake = None;
        }
        if layers.has_answers() {
            self.to_send.push(conn);
        }
        let news = layers.take_news();
        if layers.are_spent() {
            *transport = Transport::Plain;
        }
        if let Some(News { client, user }) = news {
            if client.is_some_and(|client| !self.admit_behind_proxy(conn, client)) {
                return;
            }
            self.broker.introduce(conn, client, user);
        }
        if !self.seam.room.received().is_empty() {
            self.broker.receive(self.now, conn, self.seam.room.received());
            self.apply_effects();
        }
        let Some(found) = self.connections.get(conn).filter(|found| found.is_open()) else {
            return;
        };
        // What came before the end may wait in the broker; see `ResumeReading`.
        if found.transport.has_ended() && !found.paused {
            self.layers_ended(conn);
        }
    }
}

const HANDSHAKE_TIME: Duration = Duration::from_micros(HANDSHAKE_MICROS_PER_TURN);
