//! Connections to the broker: how its name is resolved and how they are opened.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use crate::client::Client;

/// One client with its socket.
pub(crate) struct Connection {
    socket: TcpStream,
    pub(crate) client: Client,
    /// A send is in the kernel.
    pub(crate) sending: bool,
}

impl Connection {
    /// Opens a connection and waits until it is there.
    pub(crate) fn open(address: &SocketAddr, client: Client) -> Result<Self, ConnectError> {
        let socket = TcpStream::connect_timeout(address, CONNECT_MAX)
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .map_err(|source| ConnectError::Connect { address: *address, source })?;
        Ok(Self { socket, client, sending: false })
    }

    /// Its descriptor, for an operation.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The first address of the host that a connection can be opened to.
pub(crate) fn resolve(host: &str, port: u16) -> Result<SocketAddr, ConnectError> {
    let unknown = |source| ConnectError::Resolve { host: host.to_owned(), source };
    let mut outcome = Err(unknown(io::ErrorKind::NotFound.into()));
    for address in (host, port).to_socket_addrs().map_err(unknown)? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => return Ok(address),
            Err(source) => outcome = Err(ConnectError::Connect { address, source }),
        }
    }
    outcome
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the host {host:?} is unknown: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("cannot connect to {address}: {source}{}", hint(source))]
    Connect { address: SocketAddr, source: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "; is a broker running there?",
        io::ErrorKind::AddrNotAvailable => "; all ports of this machine are in use",
        _ if error.raw_os_error() == Some(TOO_MANY_FILES) => "; raise that with `ulimit -n`",
        _ => "",
    }
}

/// Longest wait for one connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// EMFILE on Linux.
const TOO_MANY_FILES: i32 = 24;
