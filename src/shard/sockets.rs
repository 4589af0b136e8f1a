//! Listener sockets: how they are bound, one for each shard and address, and one for each path.
//!
//! Runs on the main thread before the shards start; knows nothing of what is accepted.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Opens one listening socket a shard for `address` and returns them with the address they share
/// (with port 0 the first socket is given a port and the others take the same).
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] also if the other user of the address would share it with us: two
/// brokers on one port would each get half of the clients.
pub(crate) fn listen(address: SocketAddr, shards: usize) -> io::Result<Sockets> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = bind(address, true)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        address = socket.local_addr()?.as_socket().unwrap_or(address);
        sockets.push(socket.into());
    }
    Ok(Sockets { address, sockets })
}

/// Whether `address` can be bound: see the errors of [`listen`].
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    // Without SO_REUSEPORT the kernel refuses an address that anybody listens on. SO_REUSEADDR still
    // lets us pass connections of an earlier run that are in TIME_WAIT.
    bind(address, false).map(drop)
}

/// The sockets of one address, one for each shard.
pub(crate) struct Sockets {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<OwnedFd>,
}

/// Opens a listening unix socket at `path`, which its file is deleted from with [`SocketFile`]. The file of a process
/// that is gone is replaced.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if somebody listens there, or if there is something else than a socket.
pub(crate) fn listen_unix(path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Ok(found) = fs::symlink_metadata(path) {
        let is_stale = found.file_type().is_socket()
            && Socket::new(Domain::UNIX, Type::STREAM, None)?
                .connect(&address)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !is_stale {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    socket.bind(&address)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), SocketFile(path.to_owned())))
}

/// The file of a unix socket, deleted when this is dropped: while it listens still, since later it may be another's.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What is left is replaced at the next start.
        let _ = fs::remove_file(&self.0);
    }
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
        let port = |socket: &OwnedFd| {
            let address = socket2::SockRef::from(socket).local_addr().unwrap();
            address.as_socket().unwrap().port()
        };
        let ports = listeners.sockets.iter().map(port);
        assert!(ports.into_iter().all(|port| port == listeners.address.port() && port != 0));
        let refused = probe(listeners.address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let address = listeners.address;
        drop(listeners);
        probe(address).unwrap();
    }

    #[test]
    fn the_file_of_a_unix_socket_is_replaced_if_nobody_listens_and_goes_with_its_owner() {
        let path = std::env::temp_dir().join(format!("ringmq-unix-{}", std::process::id()));
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let in_use = || listen_unix(&path, 0o600).unwrap_err().kind() == io::ErrorKind::AddrInUse;
        let (socket, file) = listen_unix(&path, 0o640).unwrap();
        assert!(mode() == 0o640 && in_use());
        drop(socket);
        std::mem::forget(file);
        let (_socket, file) = listen_unix(&path, 0o600).unwrap();
        assert_eq!(mode(), 0o600);
        drop(file);
        assert!(!path.exists());
        fs::write(&path, "no socket").unwrap();
        assert!(in_use());
        fs::remove_file(&path).unwrap();
    }
}
