//! Listener sockets: how they are bound, one for each shard and address.
//!
//! Runs on the main thread before the shards start; knows nothing of what is accepted.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Opens one listening socket a shard for `address` and returns them with the address they share
/// (with port 0 the first socket is given a port and the others take the same).
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] also if the other user of the address would share it with us: two
/// brokers on one port would each get half of the clients.
pub(crate) fn listen(address: SocketAddr, shards: usize) -> io::Result<Listeners> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = bind(address, true)?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(Listeners { address, sockets, is_relaxed: false })
}

/// Whether `address` can be bound: see the errors of [`listen`].
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    // Without SO_REUSEPORT the kernel refuses an address that anybody listens on. SO_REUSEADDR still
    // lets us pass connections of an earlier run that are in TIME_WAIT.
    bind(address, false).map(drop)
}

/// The sockets of one address, one for each shard.
pub(crate) struct Listeners {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
    /// Whether what comes there is acknowledged before it is on disk.
    pub(crate) is_relaxed: bool,
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // IPv4 has listeners of its own; a dual-stack one would clash with them.
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Connections that wait for accept on one socket; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_port_0_share_one_port_and_a_second_user_is_refused() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = listen(loopback, 3).unwrap();
        let ports = listeners.sockets.iter().map(|socket| socket.local_addr().unwrap().port());
        assert!(ports.into_iter().all(|port| port == listeners.address.port() && port != 0));
        let refused = probe(listeners.address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let address = listeners.address;
        drop(listeners);
        probe(address).unwrap();
    }
}
