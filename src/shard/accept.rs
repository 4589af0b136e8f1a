//! Who comes in: connections are taken from listeners, a few in a turn, and closed again at once if they are too many,
//! come too fast or come from where nobody may.
//!
//! What waits stays in the kernel: a herd that comes back at once costs those who are connected a bounded part of
//! each turn, and none of it has to come twice.

use std::{io, net::IpAddr, os::fd::AsRawFd};

use socket2::SockRef;
use tracing::{debug, warn};

use super::{
    Milestone, Shard,
    connections::{Connection, Socket, ends},
    gate::AddressPlace,
};
use crate::{
    base::{ConnId, Peer, limits::ACCEPTS_PER_TURN},
    broker::Origin,
    listener::Transport,
};

impl Shard {
    /// The sockets have been listening since they were bound: from here on, clients are served.
    pub(super) fn serve(&mut self) {
        self.broker.start(self.now);
        self.start_accepts();
        (self.report)(Milestone::Accepting);
    }

    /// Somebody waits at a listener, or the look at it has ended.
    pub(super) fn listener_is_ready(&mut self, number: u32) {
        if let Some(listener) = self.listeners.get_mut(number as usize) {
            listener.is_watched = false;
            listener.is_ready = true;
        }
    }

    /// Whether a connection may wait that may be taken.
    pub(super) fn can_accept(&self) -> bool {
        self.is_running()
            && self.accept_again.is_none()
            && self.listeners.iter().any(|listener| listener.is_ready)
    }

    /// Takes some of the connections that wait.
    pub(super) fn accept(&mut self) {
        if self.accept_again.is_some_and(|again| self.now >= again) {
            self.accept_again = None;
        }
        if !self.can_accept() {
            return;
        }
        // Each turn begins with another one: where there is little to take, all get of it.
        let count = self.listeners.len();
        self.first_listener = (self.first_listener + 1) % count;
        for at in 0..count {
            let number = (self.first_listener + at) % count;
            for _ in 0..ACCEPTS_PER_TURN {
                self.accept_again = self.accept_again.or_else(|| self.gate.next_accept(self.now));
                if self.accept_again.is_some() || !self.listeners[number].is_ready {
                    break;
                }
                self.accept_one(number);
            }
        }
    }

    /// Has the ring look at listeners where nobody waits.
    pub(super) fn start_accepts(&mut self) {
        if !self.is_running() {
            return;
        }
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            if !listener.is_watched && !listener.is_ready {
                listener.is_watched = true;
                self.ring.poll(number as u32, listener.socket.as_raw_fd());
            }
        }
    }

    /// Who a proxy has brought is let in by its own address. Whether it is.
    pub(super) fn admit_behind_proxy(&mut self, conn: ConnId, client: Peer) -> bool {
        let admitted = self.admit_address(client.ip());
        let Some(found) = self.connections.get(conn) else { return false };
        match admitted {
            Ok(place) => {
                found.socket.place = place;
                true
            }
            Err(why) => {
                self.lost(conn, io::Error::other(why));
                self.turn_away(why);
                false
            }
        }
    }

    fn accept_one(&mut self, number: usize) {
        let listener = &mut self.listeners[number];
        match SockRef::from(&listener.socket).accept() {
            Ok((socket, peer)) => {
                self.gate.note_accept(self.now);
                // An error about its addresses means that the peer has gone already.
                if let Ok((peer, is_local)) = ends(&socket, &peer)
                    && let Err(why) = self.admit(socket, (peer, is_local), number)
                {
                    self.turn_away(why);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.is_ready = false,
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Mostly descriptors or memory: trying at once would spin.
                self.accept_again = Some(self.now.plus_millis(ACCEPT_PAUSE_MILLIS));
                if let Some(suppressed) = self.accept_failed.admit(self.now) {
                    warn!(%error, suppressed, "cannot accept connections, trying again shortly");
                }
            }
        }
    }

    /// Lets a connection in, or says why not.
    fn admit(
        &mut self,
        socket: socket2::Socket,
        (peer, is_local): (Peer, bool),
        number: usize,
    ) -> Result<(), &'static str> {
        let listener = self.listeners[number].rules.clone();
        let permit = self.gate.admit()?;
        // Who comes through a proxy is told by its header.
        let place = match listener.proxies.contains(peer) {
            true => None,
            false => self.admit_address(peer.ip())?,
        };
        let handshake = match listener.tls {
            Some(_) => self.gate.admit_handshake(peer)?,
            None => None,
        };
        if peer != Peer::Unix && socket.set_tcp_nodelay(true).is_err() {
            // Gone already.
            return Ok(());
        }
        debug!(%peer, "New connection");
        let (listener_id, is_relaxed) = (listener.id, listener.is_relaxed);
        let origin = Origin { listener: listener_id, is_relaxed, ..Origin::new(peer, is_local) };
        let socket = Socket { fd: socket.into(), permit, place, is_unix: peer == Peer::Unix };
        let connection = Connection::new(socket, Transport::new(&listener, peer));
        let conn = self.connections.insert(Connection { handshake, ..connection });
        self.broker.open(self.now, conn, origin);
        self.to_receive.push(conn);
        Ok(())
    }

    /// Whether somebody may come from an address; unix sockets have none.
    fn admit_address(&self, address: Option<IpAddr>) -> Result<AddressPlace, &'static str> {
        let Some(address) = address else { return Ok(None) };
        if self.broker.bans().has_address(address) {
            return Err("its address is banned");
        }
        self.gate.admit_address(address, self.now)
    }

    /// Counts a connection that is closed as it comes: there is no word for it before MQTT is spoken.
    fn turn_away(&mut self, why: &'static str) {
        self.broker.note_turned_away();
        if let Some(suppressed) = self.refused.admit(self.now) {
            warn!(suppressed, "connection refused: {why}");
        }
    }
}

/// Whether an accept failed because of the connection it would have returned (see accept(2)); the next one can be
/// tried at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
        )
    )
}

/// Pause after accept ran out of descriptors or memory.
const ACCEPT_PAUSE_MILLIS: u64 = 100;
