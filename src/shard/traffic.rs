//! What happens to connections: completions become the broker's input, its effects become operations.
//!
//! The one place that moves a connection from phase to phase. Each input to the broker is followed by
//! carrying out its effects, so the broker and the table never disagree about who is there.

use std::{io, net::Shutdown};

use socket2::SockRef;

use super::{
    Shard,
    buffers::{BULK, COMMON},
    connections::{Connection, Move, Phase, Socket},
    ring::{Event, Received},
};
use crate::{
    base::{ConnId, Output},
    broker::Effect,
    listener::Transport,
};

impl Shard {
    /// Takes in one completion.
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Ready { listener } => self.listener_is_ready(listener),
            Event::Received { conn, what, more } => self.received(conn, what, more),
            Event::Sent { conn, result, output } => self.sent(conn, result, output),
            Event::TimerFired => self.timer = None,
        }
    }

    /// Takes over a socket that was moved here, with what was read from it.
    pub(super) fn adopt(&mut self, socket: Socket, moved: Move) {
        let Move { origin, bytes, transport, .. } = moved;
        let conn = self.connections.insert(Connection::new(socket, transport));
        self.broker.open(self.now, conn, origin);
        self.broker.receive(self.now, conn, &bytes);
        self.apply_effects();
        self.take_in_kept(conn);
        self.to_receive.push(conn);
        // The last answers of its layers may be on their way with it.
        self.to_send.push(conn);
    }

    fn received(&mut self, conn: ConnId, what: Received, more: bool) {
        let Some(found) = self.connections.get(conn) else {
            debug_assert!(false, "a slot lives until its last completion");
            return;
        };
        if !more {
            found.receiving = false;
        }
        if let Received::Bytes(filled) = &what {
            let is_bulk = filled.len() >= BULK_BYTES_MIN;
            if !more {
                found.is_bulk = is_bulk;
            } else if is_bulk && !found.is_bulk {
                // What has been received by now, or is before the kernel knows, comes all the same.
                found.is_bulk = true;
                self.ring.cancel_receive(conn);
            }
        }
        if !more && found.is_bulk {
            self.to_receive_bulk.push_back(conn);
        } else if !more {
            self.to_receive.push(conn);
            if matches!(what, Received::Starved) {
                self.ring.lend_more();
            }
        }
        found.ended |= matches!(what, Received::End | Received::Failed(_));
        let paused = found.paused;
        match (what, &found.phase) {
            (Received::Bytes(filled), _) => {
                self.take_in(conn, &filled);
                self.ring.give_back(filled);
            }
            // The broker has yet to handle what came before the end; see `ResumeReading`.
            (Received::End, Phase::Open) if paused => {}
            (Received::End, Phase::Open) => self.peer_closed(conn),
            (Received::Failed(error), Phase::Open) => self.lost(conn, error),
            (Received::Failed(_), Phase::Draining { .. }) => self.close_now(conn),
            (Received::End | Received::Failed(_) | Received::Starved | Received::Nothing, _) => {}
        }
        self.apply_effects();
        self.proceed(conn);
    }

    fn sent(&mut self, conn: ConnId, result: io::Result<()>, output: Output) {
        let Some(found) = self.connections.get(conn) else {
            debug_assert!(false, "a slot lives until its last completion");
            return;
        };
        found.sending = None;
        match (result, found.is_open()) {
            (Ok(()), true) => {
                match self.has_unsent(conn) {
                    true => self.broker.recycle(output),
                    false => self.broker.written(self.now, conn, output),
                }
                self.to_send.push(conn);
            }
            (Err(error), true) => {
                self.broker.recycle(output);
                self.lost(conn, error);
            }
            (Ok(()), false) => self.broker.recycle(output),
            (Err(_), false) => {
                self.broker.recycle(output);
                self.close_now(conn);
            }
        }
        self.apply_effects();
        self.proceed(conn);
    }

    /// The peer sends no more, but may still read what the broker has for it.
    pub(super) fn peer_closed(&mut self, conn: ConnId) {
        let last = self.broker.take_output(conn);
        self.broker.disconnected(self.now, conn, None);
        self.drain(conn, last);
    }

    /// Ends a connection that means nothing any more.
    pub(super) fn lost(&mut self, conn: ConnId, error: io::Error) {
        self.broker.disconnected(self.now, conn, Some(error));
        self.close_now(conn);
    }

    /// Carries out what the broker asks for.
    pub(super) fn apply_effects(&mut self) {
        while let Some(effect) = self.broker.pop_effect() {
            let (Effect::Close { conn, .. }
            | Effect::Move { conn, .. }
            | Effect::PauseReading { conn }
            | Effect::ResumeReading { conn }
            | Effect::Check { conn, .. }) = effect;
            let Some(found) = self.connections.get(conn).filter(|found| found.is_open()) else {
                continue;
            };
            match effect {
                Effect::Close { last, .. } => self.drain(conn, last),
                Effect::Move { to, origin, bytes, .. } => {
                    let transport = std::mem::replace(&mut found.transport, Transport::Plain);
                    found.phase = Phase::Moving(Box::new(Move { to, origin, bytes, transport }));
                    if found.receiving {
                        self.ring.cancel_receive(conn);
                    }
                    self.proceed(conn);
                }
                Effect::PauseReading { .. } => {
                    found.paused = true;
                    if found.receiving {
                        self.ring.cancel_receive(conn);
                    }
                }
                Effect::Check { check, .. } => self.auth.submit(self.own, conn, check),
                Effect::ResumeReading { .. } => {
                    found.paused = false;
                    if found.ended || found.transport.has_ended() {
                        self.layers_ended(conn);
                    } else {
                        self.to_receive.push(conn);
                    }
                }
            }
        }
    }

    /// Begins the orderly end of a connection that the broker has forgotten.
    pub(super) fn drain(&mut self, conn: ConnId, mut last: Output) {
        let Some(found) = self.connections.get(conn) else { return };
        let layers = found.transport.layers();
        let is_layered = layers.is_some();
        if let Some(layers) = layers {
            layers.load(std::mem::take(&mut last));
        }
        let last = (is_layered || !last.is_empty()).then(|| Box::new(last));
        found.phase = Phase::Draining { last };
        self.draining.push_back((self.now.plus_millis(DRAIN_MILLIS_MAX), conn));
        // Input is discarded from here on, even if reading was paused.
        self.to_receive.push(conn);
        self.proceed(conn);
    }

    /// Takes a connection that the broker has forgotten as far towards its end as it can go now.
    fn proceed(&mut self, conn: ConnId) {
        let Some(found) = self.connections.get(conn) else { return };
        let busy = found.is_busy();
        match &found.phase {
            Phase::Open => {}
            Phase::Moving(_) | Phase::Closing if busy => {}
            Phase::Moving(_) => self.hand_over(conn),
            Phase::Draining { .. } if found.sending.is_some() => {}
            Phase::Draining { last: Some(_) } => {
                let last = self.take_last(conn);
                if let Some(found) = self.connections.get(conn).filter(|_| !last.is_empty()) {
                    found.sending = Some(self.ring.send(conn, found.raw_fd(), last));
                } else {
                    // The layers had nothing to say.
                    self.proceed(conn);
                }
            }
            Phase::Draining { last: None } => {
                // Fails if the peer has gone; then there is nothing to wait for either.
                let shut = SockRef::from(&found.socket.fd).shutdown(Shutdown::Write);
                found.ended |= shut.is_err();
                found.phase = Phase::Lingering;
                self.lingering.push_back((self.now.plus_millis(LINGER_MILLIS_MAX), conn));
                self.proceed(conn);
            }
            Phase::Lingering if found.ended => self.close_now(conn),
            Phase::Lingering => {}
            Phase::Closing => drop(self.connections.remove(conn)),
        }
    }

    fn hand_over(&mut self, conn: ConnId) {
        let Some(Connection { socket, phase: Phase::Moving(moving), .. }) =
            self.connections.remove(conn)
        else {
            return;
        };
        match self.lanes.iter_mut().find(|lane| lane.to == moving.to) {
            Some(lane) => lane.move_connection(socket, moving),
            None => debug_assert!(false, "a connection moves to another shard that exists"),
        }
    }

    /// Ends a connection as soon as the kernel lets go of it; its descriptor closes then.
    pub(super) fn close_now(&mut self, conn: ConnId) {
        let Some(found) = self.connections.get(conn) else { return };
        if matches!(found.phase, Phase::Closing) {
            return;
        }
        found.phase = Phase::Closing;
        if found.is_busy() {
            // Also ends an operation that is too far to be cancelled.
            let _ = SockRef::from(&found.socket.fd).shutdown(Shutdown::Both);
        }
        if found.receiving {
            self.ring.cancel_receive(conn);
        }
        if let Some(send) = found.sending {
            self.ring.cancel_send(send);
        }
        self.proceed(conn);
    }

    /// Starts the receives that are wanted and not in the kernel.
    pub(super) fn start_receives(&mut self) {
        while let Some(conn) = self.to_receive.pop() {
            self.start_receive(conn);
        }
    }

    /// The same for those who send much: as many as there are large buffers. The others wait for their turn.
    pub(super) fn start_bulk_receives(&mut self) {
        for _ in 0..BULK.buffers {
            let Some(conn) = self.to_receive_bulk.pop_front() else { return };
            self.start_receive(conn);
        }
    }

    fn start_receive(&mut self, conn: ConnId) {
        let running = self.is_running();
        let Some(found) = self.connections.get(conn) else { return };
        let wanted = match found.phase {
            // What waits for its turn comes first, so that it is bounded.
            Phase::Open => running && !found.paused && !found.transport.has_kept(),
            Phase::Draining { .. } | Phase::Lingering => true,
            Phase::Moving(_) | Phase::Closing => false,
        };
        if !wanted || found.receiving || found.ended {
            return;
        }
        found.receiving = true;
        let socket = found.raw_fd();
        // Until the home shard is known, a receive that ends by itself: a move needs no cancel. From unix
        // sockets always: a multishot one can miss the end of the stream (Linux 6.18).
        if found.is_open() && !self.broker.is_settled(conn) {
            self.ring.receive_once(conn, socket);
        } else if found.is_bulk {
            self.ring.receive_bulk(conn, socket);
        } else if found.socket.is_unix {
            self.ring.receive_once(conn, socket);
        } else {
            self.ring.receive(conn, socket);
        }
    }

    /// Starts sending what the broker has for connections without a send in progress.
    pub(super) fn start_sends(&mut self) {
        while let Some(conn) = self.broker.pop_dirty() {
            self.to_send.push(conn);
        }
        while let Some(conn) = self.to_send.pop() {
            let Some(found) = self.connections.get(conn) else { continue };
            if !found.is_open() || found.sending.is_some() {
                continue;
            }
            let output = self.take_out(conn);
            if let Some(found) = self.connections.get(conn).filter(|_| !output.is_empty()) {
                found.sending = Some(self.ring.send(conn, found.raw_fd(), output));
                self.stalls.note_send(self.now);
            }
        }
    }
}

/// Who sends as much at a time receives apart from all others.
const BULK_BYTES_MIN: usize = COMMON.buffer_bytes as usize;

/// Time for a peer to take the bytes of a connection that closes.
pub(super) const DRAIN_MILLIS_MAX: u64 = 5_000;

/// Time for a peer to close after we did.
const LINGER_MILLIS_MAX: u64 = 1_000;
