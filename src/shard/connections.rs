//! The shard's table of connections: what the shell knows of a socket.
//!
//! A connection is a slab entry: no task, no future, no buffer. Knows no protocol and does no I/O;
//! `turn` decides what happens to a connection, this module only keeps it.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    gate::{AddressPlace, HandshakePlace},
    ring::{GENERATION_MAX, SendId},
};
use crate::{
    base::{ConnId, Output, Peer, ShardId},
    broker::Origin,
    listener::Transport,
};

/// One socket with its place in the count of open connections.
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    /// Counts the connection until the socket closes, wherever that happens.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Permit,
    /// The same among those of its address.
    pub(super) place: AddressPlace,
    /// It is no TCP socket.
    pub(super) is_unix: bool,
}

/// One connection of this shard.
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// What its bytes pass through.
    pub(super) transport: Transport,
    pub(super) phase: Phase,
    /// A receive is in the kernel. The slot must not be freed before its last completion.
    pub(super) receiving: bool,
    /// The send that is in the kernel; the same.
    pub(super) sending: Option<SendId>,
    /// It has sent much at once: its next receive takes a large buffer, and is one of a turn.
    pub(super) is_bulk: bool,
    /// The broker wants no more input for now.
    pub(super) paused: bool,
    /// The peer sends no more.
    pub(super) ended: bool,
    /// Its place among the TLS handshakes that are under way.
    pub(super) handshake: HandshakePlace,
}

/// How far along its life a connection is. The broker knows of it only while it is `Open`.
pub(super) enum Phase {
    /// Bytes go to and come from the broker.
    Open,
    /// To be handed to another shard once no operation is left.
    Moving(Box<Move>),
    /// What is being sent goes out, then these last bytes, which may wait in the layers, and the leave that those
    /// take, then the end of our stream.
    Draining { last: Option<Box<Output>> },
    /// Everything is sent. Reads on until the peer has closed: closing with unread input would make
    /// the kernel send a reset, which can destroy those last bytes on their way.
    Lingering,
    /// Only waits for the last completion.
    Closing,
}

/// What goes to another shard with a socket.
pub(super) struct Move {
    pub(super) to: ShardId,
    pub(super) origin: Origin,
    /// What was read from it so far, out of all layers.
    pub(super) bytes: Vec<u8>,
    /// The layers, with what they have yet to give.
    pub(super) transport: Transport,
}

impl Connection {
    /// A connection at its start, with nothing in the kernel.
    pub(super) fn new(socket: Socket, transport: Transport) -> Self {
        Self {
            socket,
            transport,
            phase: Phase::Open,
            receiving: false,
            is_bulk: false,
            sending: None,
            paused: false,
            ended: false,
            handshake: None,
        }
    }

    /// Its descriptor, for an operation.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.socket.fd.as_raw_fd()
    }

    /// Whether the broker knows of it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether the kernel has an operation on it.
    pub(super) fn is_busy(&self) -> bool {
        self.receiving || self.sending.is_some()
    }
}

/// Connections by slot. A slot is used again only after [`Connections::remove`], with the next
/// generation, so an old [`ConnId`] finds nothing.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl Connections {
    /// Gives the connection an identifier.
    pub(super) fn insert(&mut self, connection: Connection) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        debug_assert!(place.connection.is_none());
        place.connection = Some(connection);
        ConnId { slot, generation: place.generation }
    }

    /// The connection, unless it is gone.
    pub(super) fn get(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let place = self.slots.get_mut(conn.slot as usize)?;
        place.connection.as_mut().filter(|_| place.generation == conn.generation)
    }

    /// Takes the connection out. Nothing of it may be left in the kernel.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Connection> {
        let place = self.slots.get_mut(conn.slot as usize)?;
        let connection = place.connection.take_if(|_| place.generation == conn.generation)?;
        debug_assert!(!connection.is_busy());
        place.generation = (place.generation + 1) & GENERATION_MAX;
        self.free.push(conn.slot);
        Some(connection)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// Identifiers of all connections there are now.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        let used = |(slot, place): (usize, &Slot)| {
            let generation = place.generation;
            place.connection.as_ref().map(|_| ConnId { slot: slot as u32, generation })
        };
        self.slots.iter().enumerate().filter_map(used).collect()
    }

    /// Whether a connection that the broker knows of may still produce input.
    pub(super) fn any_reading(&self) -> bool {
        let mut connections = self.slots.iter().filter_map(|place| place.connection.as_ref());
        connections.any(|connection| connection.is_open() && connection.receiving)
    }
}

/// The process-wide count of open connections.
pub(crate) struct ConnectionCount {
    open: AtomicU32,
    max: u32,
}

impl ConnectionCount {
    /// Counts up to `max`.
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { open: AtomicU32::new(0), max })
    }

    /// Counts one more connection, unless there are `max`.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Permit> {
        // The permit that fails takes itself off the count again.
        let permit = Permit(self.clone());
        (self.open.fetch_add(1, Ordering::Relaxed) < self.max).then_some(permit)
    }
}

/// One counted connection.
pub(super) struct Permit(Arc<ConnectionCount>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who is at the other end of an accepted socket, and whether that is this machine.
pub(super) fn ends(
    socket: &socket2::Socket,
    peer: &socket2::SockAddr,
) -> std::io::Result<(Peer, bool)> {
    if peer.is_unix() {
        return Ok((Peer::Unix, true));
    }
    let address = |address: &socket2::SockAddr| {
        address.as_socket().ok_or(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable))
    };
    let local = address(&socket.local_addr()?)?;
    let is_local = local.ip().to_canonical().is_loopback();
    address(peer).map(|peer| (peer.into(), is_local))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(count: &Arc<ConnectionCount>) -> Option<Connection> {
        let permit = count.admit()?;
        let fd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        Some(Connection::new(Socket { fd, permit, place: None, is_unix: false }, Transport::Plain))
    }

    #[test]
    fn a_reused_slot_has_another_generation() {
        let count = ConnectionCount::new(10);
        let mut table = Connections::default();
        let first = table.insert(connection(&count).unwrap());
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        assert!(table.is_empty());
        let second = table.insert(connection(&count).unwrap());
        assert_eq!((second.slot, second.generation), (first.slot, first.generation + 1));
        assert!(table.get(first).is_none() && table.get(second).is_some());
        assert_eq!(table.ids(), [second]);
    }

    #[test]
    fn the_count_refuses_beyond_its_maximum_and_frees_places() {
        let count = ConnectionCount::new(2);
        let first = connection(&count).unwrap();
        let _second = connection(&count).unwrap();
        assert!(connection(&count).is_none() && connection(&count).is_none());
        drop(first);
        assert!(connection(&count).is_some());
    }
}
