//! How a client's bytes travel: as they are, in TLS, in WebSocket frames, or in frames within TLS.
//!
//! Owns the layers between a socket and MQTT as values: bytes in, bytes out. Knows no socket, no
//! clock and no MQTT.

mod error;
mod tls;
mod websocket;

pub(crate) use self::{error::TransportError, tls::TlsOptions};

use self::{
    tls::{Tls, TlsSetup},
    websocket::{WebSocket, WebSocketSetup},
};

/// How connections are to be made. Made once; clones share what is large.
#[derive(Clone)]
pub(crate) struct TransportSetup {
    tls: Option<TlsSetup>,
    websocket: Option<WebSocketSetup>,
}

impl TransportSetup {
    /// Reads the files that `tls` names. `None` leaves a layer out.
    pub(crate) fn new(
        host: &str,
        port: u16,
        tls: Option<&TlsOptions>,
        websocket_path: Option<&str>,
    ) -> Result<Self, TransportError> {
        let tls = tls.map(|options| TlsSetup::new(host, options)).transpose()?;
        let websocket =
            websocket_path.map(|path| WebSocketSetup::new(host, port, path)).transpose()?;
        Ok(Self { tls, websocket })
    }
}

/// One connection's layers. After an error the connection is of no use.
pub(crate) enum Transport {
    Plain,
    Tls(Box<Tls>),
    WebSocket(Box<WebSocket>),
    WebSocketInTls(Box<WebSocketInTls>),
}

impl Transport {
    /// The layers of a connection that is yet to be started.
    pub(crate) fn new(setup: &TransportSetup) -> Result<Self, TransportError> {
        Ok(match (&setup.tls, &setup.websocket) {
            (None, None) => Self::Plain,
            (Some(tls), None) => Self::Tls(Box::new(Tls::new(tls)?)),
            (None, Some(websocket)) => Self::WebSocket(Box::new(WebSocket::new(websocket)?)),
            (Some(tls), Some(websocket)) => Self::WebSocketInTls(Box::new(WebSocketInTls {
                tls: Tls::new(tls)?,
                websocket: WebSocket::new(websocket)?,
            })),
        })
    }

    /// Starts the handshake: what has to be sent first goes to `out`.
    pub(crate) fn start(&mut self, out: &mut Vec<u8>) -> Result<(), TransportError> {
        match self {
            Self::Plain => {}
            Self::Tls(tls) => tls.start(out),
            Self::WebSocket(websocket) => websocket.start(out),
            Self::WebSocketInTls(both) => both.start(out)?,
        }
        Ok(())
    }

    /// Takes received bytes: what they carry is appended to `plain`, what a layer has to answer to
    /// `out`. Both hold something to be used after an error too: what came before it, and what
    /// tells the server about it.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        match self {
            Self::Plain => {
                plain.extend_from_slice(bytes);
                Ok(())
            }
            Self::Tls(tls) => tls.receive(bytes, plain, out),
            Self::WebSocket(websocket) => websocket.receive(bytes, plain, out),
            Self::WebSocketInTls(both) => both.receive(bytes, plain, out),
        }
    }

    /// Takes what is to be sent, and appends what that is on the socket. What is given before the
    /// end of the handshake, at most [`EARLY_BYTES_MAX`], goes out with its last answer.
    pub(crate) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TransportError> {
        match self {
            Self::Plain => {
                out.extend_from_slice(plain);
                Ok(())
            }
            Self::Tls(tls) => tls.send(plain, out),
            Self::WebSocket(websocket) => websocket.send(plain, out),
            Self::WebSocketInTls(both) => both.send(plain, out),
        }
    }

    /// Takes leave in order. What is given to be sent afterwards may be dropped.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
            Self::Tls(tls) => tls.close(out),
            Self::WebSocket(websocket) => websocket.close(out),
            Self::WebSocketInTls(both) => both.close(out),
        }
    }

    /// What it means that the server ended or reset the connection now: an error in a handshake,
    /// which a server ends like this if it expects something else on its port.
    pub(crate) fn ended(&self) -> Result<(), TransportError> {
        match self {
            Self::Plain => Ok(()),
            Self::Tls(tls) => tls.ended(),
            Self::WebSocket(websocket) => websocket.ended(),
            Self::WebSocketInTls(both) => both.tls.ended().and_then(|()| both.websocket.ended()),
        }
    }
}

/// WebSocket frames within TLS records.
pub(crate) struct WebSocketInTls {
    tls: Tls,
    websocket: WebSocket,
}

impl WebSocketInTls {
    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), TransportError> {
        self.tls.start(out);
        let mut request = Vec::new();
        self.websocket.start(&mut request);
        self.tls.send(&request, out)
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        // Allocated each time: next to a decryption that is little, and nothing is held while idle.
        let (mut frames, mut answers) = (Vec::new(), Vec::new());
        let decrypted = self.tls.receive(bytes, &mut frames, out);
        let decoded = self.websocket.receive(&frames, plain, &mut answers);
        let answered = self.tls.send(&answers, out);
        decrypted.and(decoded).and(answered)
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TransportError> {
        let mut frames = Vec::new();
        self.websocket.send(plain, &mut frames)?;
        self.tls.send(&frames, out)
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let mut frame = Vec::new();
        self.websocket.close(&mut frame);
        // Fails only in a handshake, of which there is no leave to take.
        let _ = self.tls.send(&frame, out);
        self.tls.close(out);
    }
}

/// Bytes that wait for the end of a handshake: room for a CONNECT, not for a load.
const EARLY_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
