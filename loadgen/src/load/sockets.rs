//! Sockets to the broker: how its name is resolved, and how connections are opened from which address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Where connections go to and come from.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The broker.
    pub(crate) to: SocketAddr,
    /// Source addresses, used in turn; the kernel chooses if there are none.
    from: Vec<IpAddr>,
}

/// How many connections this process opens, and which of several it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// From 1.
    pub(crate) worker: u32,
    pub(crate) clients: u32,
    /// Of all workers together.
    pub(crate) all_clients: u32,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the host {host:?} is unknown: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("cannot connect to {to}: {source}{}", hint(source))]
    Connect { to: SocketAddr, source: io::Error },
    #[error("cannot connect from {from}: {source}")]
    From { from: IpAddr, source: io::Error },
    #[error("{from} and {to} are not of the same address family")]
    Family { from: IpAddr, to: SocketAddr },
}

impl Route {
    /// The first address of the first of `hosts` that a connection can be opened to. If one source address
    /// has not ports enough for all clients, there are more.
    pub(crate) fn find(
        hosts: &[String],
        port: u16,
        from: &[IpAddr],
        share: Share,
    ) -> Result<Self, ConnectError> {
        let mut outcome = None;
        for host in hosts {
            match Self::probe(host, port) {
                Ok(to) => {
                    outcome = Some(Ok(to));
                    break;
                }
                Err(error) => outcome = Some(Err(error)),
            }
        }
        let missing = io::ErrorKind::NotFound.into();
        let to = outcome
            .unwrap_or(Err(ConnectError::Resolve { host: String::new(), source: missing }))?;
        if let Some(from) = from.iter().find(|from| from.is_ipv4() != to.is_ipv4()) {
            return Err(ConnectError::Family { from: *from, to });
        }
        let mut from = from.to_vec();
        if from.is_empty() && to.ip().is_loopback() && to.is_ipv4() {
            from = share.loopback_addresses();
        }
        Ok(Self { to, from })
    }

    fn probe(host: &str, port: u16) -> Result<SocketAddr, ConnectError> {
        let unknown = |source| ConnectError::Resolve { host: host.to_owned(), source };
        let mut outcome = Err(unknown(io::ErrorKind::NotFound.into()));
        for to in (host, port).to_socket_addrs().map_err(unknown)? {
            match TcpStream::connect_timeout(&to, CONNECT_MAX) {
                Ok(_) => return Ok(to),
                Err(source) => outcome = Err(ConnectError::Connect { to, source }),
            }
        }
        outcome
    }

    /// Starts to open a connection, from the address whose turn it is at that `place`. What is sent on it
    /// goes out when it is there; if it cannot be opened the first operation on it fails.
    pub(crate) fn open(&self, place: u32) -> Result<Socket, ConnectError> {
        let to = self.to;
        let failed = |source| ConnectError::Connect { to, source };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP));
        let socket = socket.map_err(failed)?;
        socket.set_tcp_nodelay(true).map_err(failed)?;
        if !self.from.is_empty() {
            let from = self.from[place as usize % self.from.len()];
            let address = SocketAddr::new(from, 0).into();
            socket.bind(&address).map_err(|source| ConnectError::From { from, source })?;
        }
        socket.set_nonblocking(true).map_err(failed)?;
        match socket.connect(&to.into()) {
            Err(source) if source.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(failed(source));
            }
            _ => {}
        }
        // The ring waits for what a blocking socket would block for.
        socket.set_nonblocking(false).map_err(failed)?;
        Ok(socket)
    }
}

impl Share {
    /// Enough of them, and none that another worker takes; none if the usual one is enough for all.
    fn loopback_addresses(self) -> Vec<IpAddr> {
        if self.all_clients <= CLIENTS_PER_ADDRESS {
            return Vec::new();
        }
        // Every 127.x.y.z is this machine.
        let [.., high, low] = self.worker.to_be_bytes();
        let address = |last| IpAddr::V4(Ipv4Addr::new(127, high, low, last));
        let needed = (self.clients / CLIENTS_PER_ADDRESS + 1).min(ADDRESSES_MAX.into()) as u8;
        (1..=needed).map(address).collect()
    }
}

/// What may help against the error.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "; is a broker running there?",
        io::ErrorKind::AddrNotAvailable => "; all ports are in use: give more addresses (--ifaddr)",
        _ if error.raw_os_error() == Some(libc::EMFILE) => "; raise that with `ulimit -n`",
        _ => "",
    }
}

/// Longest wait for the first connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The default range of local ports has 28,232.
const CLIENTS_PER_ADDRESS: u32 = 25_000;

/// One worker's addresses differ in their last byte.
const ADDRESSES_MAX: u8 = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_have_addresses_of_their_own_and_enough_of_them() {
        for (worker, clients, all_clients, count, last) in [
            (1, 25_000, 25_000, 0, None),
            (1, 25_001, 25_001, 2, Some([127, 0, 1, 2])),
            (2, 10_000, 30_000, 1, Some([127, 0, 2, 1])),
            (3, 60_000, 180_000, 3, Some([127, 0, 3, 3])),
            (1024, 20_000_000, 30_000_000, 250, Some([127, 4, 0, 250])),
        ] {
            let addresses = Share { worker, clients, all_clients }.loopback_addresses();
            assert_eq!(addresses.len(), count, "{worker}");
            assert_eq!(addresses.last().copied(), last.map(IpAddr::from), "{worker}");
        }
    }
}
