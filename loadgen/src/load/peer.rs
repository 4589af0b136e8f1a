//! One client of a thread with its socket: where it stands between absent and ready.

use std::{
    net::Shutdown,
    os::fd::{AsRawFd, RawFd},
};

use ringmq::base::ConnId;
use socket2::Socket;

use crate::{
    client::Client,
    plan::Role,
    transport::{Transport, TransportError},
};

/// A client and what becomes of it over the run.
pub(super) struct Peer {
    /// In the whole run.
    pub(super) number: u32,
    pub(super) role: Role,
    /// The taker that it is, or belongs to, if it subscribes.
    pub(super) taker: u32,
    pub(super) doing: Doing,
    pub(super) client: Option<Box<Client>>,
    socket: Option<Socket>,
    transport: Transport,
    /// Bytes for the socket of a client whose packets do not go there as they are.
    wire: Vec<u8>,
    /// Tells its connections apart.
    generation: u32,
    /// A send is in the kernel.
    pub(super) sending: bool,
    /// The broker has closed the connection.
    pub(super) has_ended: bool,
    /// Its layers have taken leave.
    said_goodbye: bool,
    /// When it was meant to connect, and when it subscribed.
    pub(super) connect_at: u64,
    pub(super) subscribe_at: u64,
    /// The broker has a session of it that outlives the connection.
    pub(super) has_session: bool,
}

/// Where a client stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    Absent,
    /// Until it is connected and, if it subscribes, subscribed.
    Connecting,
    Ready,
    /// It connects only to end its session.
    Forgetting,
    /// From its DISCONNECT until the broker has closed the connection.
    Leaving,
}

impl Peer {
    /// One that is absent.
    pub(super) fn new(number: u32, role: Role, taker: u32) -> Self {
        Self {
            number,
            role,
            taker,
            doing: Doing::Absent,
            client: None,
            socket: None,
            transport: Transport::Plain,
            wire: Vec::new(),
            generation: 0,
            sending: false,
            has_ended: false,
            said_goodbye: false,
            connect_at: 0,
            subscribe_at: 0,
            has_session: false,
        }
    }

    /// Gives it a connection that is being opened.
    pub(super) fn connect(
        &mut self,
        (socket, mut transport): (Socket, Transport),
        client: Client,
        connect_at: u64,
    ) -> Result<(), TransportError> {
        self.wire.clear();
        transport.start(&mut self.wire)?;
        (self.socket, self.transport) = (Some(socket), transport);
        self.client = Some(Box::new(client));
        self.doing = Doing::Connecting;
        self.connect_at = connect_at;
        Ok(())
    }

    /// The connection's name and descriptor, for an operation.
    pub(super) fn connection(&self, slot: u32) -> Option<(ConnId, RawFd)> {
        let socket = self.socket.as_ref()?;
        Some((ConnId { slot, generation: self.generation }, socket.as_raw_fd()))
    }

    /// Whether an event is of the present connection.
    pub(super) fn is(&self, conn: ConnId) -> bool {
        self.generation == conn.generation && self.socket.is_some()
    }

    /// Bytes from the socket as the client is to get them: `plain` takes them if a layer is between.
    #[inline]
    pub(super) fn unwrap<'a>(
        &mut self,
        bytes: &'a [u8],
        plain: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], TransportError> {
        if matches!(self.transport, Transport::Plain) {
            return Ok(bytes);
        }
        plain.clear();
        self.transport.receive(bytes, plain, &mut self.wire)?;
        Ok(plain)
    }

    /// What is to be sent now. Nothing as long as a send is in the kernel.
    #[inline]
    pub(super) fn take_output(&mut self) -> Result<Option<Vec<u8>>, TransportError> {
        let Some(client) = self.client.as_mut().filter(|_| !self.sending) else { return Ok(None) };
        if matches!(self.transport, Transport::Plain) {
            return Ok(client.has_output().then(|| client.take_output()));
        }
        if client.has_output() {
            let packets = client.take_output();
            self.transport.send(&packets, &mut self.wire)?;
            client.recycle(packets);
        }
        if self.doing == Doing::Leaving && !self.said_goodbye {
            self.said_goodbye = true;
            self.transport.close(&mut self.wire);
        }
        Ok((!self.wire.is_empty()).then(|| std::mem::take(&mut self.wire)))
    }

    /// A send has ended. Gives its memory back.
    #[inline]
    pub(super) fn sent(&mut self, mut buffer: Vec<u8>) {
        self.sending = false;
        if !matches!(self.transport, Transport::Plain) {
            if self.wire.is_empty() {
                buffer.clear();
                self.wire = buffer;
            }
        } else if let Some(client) = &mut self.client {
            client.recycle(buffer);
        }
        if self.doing == Doing::Leaving && !self.is_sending() {
            self.hang_up();
        }
    }

    /// Ends its own direction behind a DISCONNECT: not every broker closes the connection after one.
    fn hang_up(&self) {
        if let Some(socket) = &self.socket {
            // Fails only if the broker has ended the connection.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// What it means that the connection has ended now, as far as its layers know.
    pub(super) fn why_ended(&self) -> Result<(), TransportError> {
        self.transport.ended()
    }

    /// Sends a DISCONNECT, if it is connected. Returns whether there is something to send now.
    pub(super) fn disconnect(&mut self) -> bool {
        let Some(client) = &mut self.client else { return false };
        if self.doing == Doing::Leaving {
            return false;
        }
        client.disconnect();
        self.doing = Doing::Leaving;
        true
    }

    /// Sends a PINGREQ, if it is connected. Returns whether there is something to send now.
    pub(super) fn ping(&mut self) -> bool {
        let Some(client) = self.client.as_mut().filter(|_| self.doing == Doing::Ready) else {
            return false;
        };
        client.ping();
        true
    }

    /// Messages whose last acknowledgement, or whose way to the socket, is not done.
    pub(super) fn unacknowledged(&self) -> usize {
        self.inflight() + usize::from(self.is_sending())
    }

    /// Messages whose last acknowledgement has not come.
    pub(super) fn inflight(&self) -> usize {
        self.client.as_ref().map_or(0, |client| client.inflight())
    }

    /// Lets go of the connection, which has ended. No send may be in the kernel any more.
    pub(super) fn close(&mut self) {
        self.socket = None;
        self.client = None;
        self.transport = Transport::Plain;
        self.said_goodbye = false;
        self.doing = Doing::Absent;
        self.has_ended = false;
        self.generation += 1;
    }

    /// Whether bytes are on their way to the broker.
    pub(super) fn is_sending(&self) -> bool {
        self.sending
            || !self.wire.is_empty()
            || self.client.as_ref().is_some_and(|client| client.has_output())
    }
}
