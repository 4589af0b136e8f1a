//! TLS of one connection: records in, bytes out, and the other way round.
//!
//! rustls without its buffers: it decrypts where the records lie and encrypts into the buffer that is sent, so an
//! idle connection holds keys and nothing else. Knows no certificate file and nothing of what is carried.

use std::fmt;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::{Fault, acceptor::TlsAcceptor, identity};
use crate::{base::Text, config::UserFrom};

/// TLS of one connection, the server's side.
pub(super) struct Tls {
    /// None if it could not be made; see `failed`.
    connection: Option<UnbufferedServerConnection>,
    failed: Option<rustls::Error>,
    /// Received bytes that make no whole record or handshake message yet. rustls bounds both.
    rest: Vec<u8>,
    user_from: UserFrom,
    has_ended: bool,
}

impl Tls {
    pub(super) fn new(acceptor: &TlsAcceptor) -> Self {
        let (connection, failed) = match UnbufferedServerConnection::new(acceptor.config()) {
            Ok(connection) => (Some(connection), None),
            Err(error) => (None, Some(error)),
        };
        let (user_from, has_ended) = (acceptor.user_from(), false);
        Self { connection, failed, rest: Vec::new(), user_from, has_ended }
    }

    /// Whether the other end has yet to prove that it has the keys.
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.is_handshaking())
    }

    /// Whether the other end has said that nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes received bytes: what they carry is appended to `plain`, what is to be answered to `out`, alerts about an
    /// error included. `records` is room to decrypt in.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        records: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        records.clear();
        records.append(&mut self.rest);
        records.extend_from_slice(bytes);
        self.rest = Vec::new();
        let (used, outcome) = self.process(records, plain, out);
        if outcome.is_err() {
            // What was to be sent, the alert that tells why at its end. Nothing is asked again: the answer would be
            // another alert.
            let mut connection = self.connection.take();
            while let Some(connection) = connection.as_mut().filter(|it| it.wants_write())
                && let Ok(ConnectionState::EncodeTlsData(data)) =
                    connection.process_tls_records(&mut records[used..]).state
            {
                encode(data, out);
            }
        } else if used < records.len() {
            self.rest.extend_from_slice(&records[used..]);
        }
        outcome.map_err(Fault::Tls)
    }

    /// Appends the records for `plain`. In a handshake there is nothing that could be sent.
    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if plain.is_empty() {
            return;
        }
        let records = plain.len() / RECORD_BYTES_MAX + 1;
        let room = plain.len() + records * RECORD_OVERHEAD_MAX + KEY_UPDATE_BYTES_MAX;
        self.write(out, room, |traffic, out| traffic.encrypt(plain, out));
    }

    /// Appends a close_notify, unless the handshake is not over.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if !self.is_handshaking() {
            self.write(out, RECORD_OVERHEAD_MAX, |traffic, out| traffic.queue_close_notify(out));
        }
    }

    /// The user that the client's certificate names, if that is asked for.
    pub(super) fn take_user(&mut self) -> Result<Option<Text>, Fault> {
        let certificates = self.connection.as_ref().and_then(|it| it.peer_certificates());
        match certificates.and_then(<[_]>::first) {
            Some(certificate) => identity::user_of(certificate, self.user_from),
            None => Ok(None),
        }
    }

    /// Handles what `records` holds; returns how many bytes of it are done with.
    fn process(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<(), rustls::Error>) {
        let Some(connection) = &mut self.connection else {
            return (0, self.failed.take().map_or(Ok(()), Err));
        };
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                connection.process_tls_records(&mut records[used..]);
            let mut is_done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                // Early data is not offered: it can be replayed.
                Ok(_) => is_done = true,
                Err(error) => return (used + discard, Err(error)),
            }
            used += discard;
            if is_done {
                return (used, Ok(()));
            }
        }
    }

    /// Has rustls write into `out`, with `room` bytes at first.
    fn write(&mut self, out: &mut Vec<u8>, room: usize, mut encrypt: impl Encrypt) {
        // What is there to be sent first, such as new keys. It is shown what it has seen of a message already: without
        // that it would panic.
        let mut rest = std::mem::take(&mut self.rest);
        let (used, _) = self.process(&mut rest, &mut Vec::new(), out);
        rest.drain(..used);
        self.rest = rest;
        let Some(connection) = &mut self.connection else { return };
        let status = connection.process_tls_records(&mut self.rest);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else { return };
        let start = out.len();
        out.resize(start + room, 0);
        let mut written = encrypt(&mut traffic, &mut out[start..]);
        if let Err(EncryptError::InsufficientSize(size)) = written {
            out.resize(start + size.required_size, 0);
            written = encrypt(&mut traffic, &mut out[start..]);
        }
        // Keys that are used up: what cannot be sent is not, and the connection ends at the keep-alive.
        out.truncate(start + written.unwrap_or(0));
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Appends what rustls has to say of its own.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        out.resize(start + size.required_size, 0);
        let written = data.encode(&mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
    }
}

type Traffic<'c> = WriteTraffic<'c, ServerConnectionData>;

/// What writes records: called again with more room where that was too small.
trait Encrypt: FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError> {}
impl<F: FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>> Encrypt for F {}

/// Bytes in one record (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What a record adds in any version and cipher that rustls has: header, nonce, type and tag.
const RECORD_OVERHEAD_MAX: usize = 64;
/// A record that announces new keys.
const KEY_UPDATE_BYTES_MAX: usize = 64;
