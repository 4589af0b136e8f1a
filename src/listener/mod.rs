//! Transports: what lies between the bytes of a socket and those of MQTT, as plain values.
//!
//! A connection's layers (PROXY header, TLS, WebSocket) take received bytes and give what is in them, take what is to
//! be sent and give what that is on the socket. They know no socket, no clock, no file and no MQTT, so that they
//! work on any ring and move from shard to shard with their connection.

mod acceptor;
mod identity;
mod proxy;
mod tls;
mod upgrade;
mod websocket;

use std::sync::Arc;

use thiserror::Error;

pub use self::{
    acceptor::{TlsAcceptor, TlsFault},
    websocket::CloseCode,
};
use self::{proxy::ProxyHeader, tls::Tls, websocket::WebSocket};
use crate::{
    base::{
        ListenerId, Output, Peer, Text,
        limits::{LAYERED_BYTES_MAX, SPARE_BUFFER_BYTES_MAX},
    },
    config::{ProxySources, WebSocketRules},
};

/// One listener, as its connections see it. Shared by all shards.
#[derive(Debug)]
pub struct Listener {
    /// Which one.
    pub id: ListenerId,
    /// Whether what comes here is acknowledged before it is on disk.
    pub is_relaxed: bool,
    /// If TLS is spoken: with what.
    pub tls: Option<Arc<TlsAcceptor>>,
    /// If WebSocket is spoken: what a request must be.
    pub websocket: Option<Arc<WebSocketRules>>,
    /// Whose connections begin with a PROXY header.
    pub proxies: ProxySources,
}

/// What a connection's bytes pass through.
#[derive(Debug)]
pub enum Transport {
    /// Nothing: they are MQTT.
    Plain,
    /// Some layers.
    Layered(Box<Layers>),
}

impl Transport {
    /// The transport of a new connection from `peer`.
    pub fn new(listener: &Listener, peer: Peer) -> Self {
        let is_proxied = listener.proxies.contains(peer);
        if !is_proxied && listener.tls.is_none() && listener.websocket.is_none() {
            return Self::Plain;
        }
        Self::Layered(Box::new(Layers {
            proxy: is_proxied.then(ProxyHeader::default),
            tls: listener.tls.as_deref().map(Tls::new),
            websocket: listener.websocket.clone().map(WebSocket::new),
            kept: Vec::new(),
            answers: Vec::new(),
            unsent: Output::default(),
            unsent_at: 0,
            news: None,
            end: None,
        }))
    }

    /// Whether bytes wait for [`Layers::receive_kept`].
    pub fn has_kept(&self) -> bool {
        matches!(self, Self::Layered(layers) if !layers.kept.is_empty())
    }

    /// Whether a layer says that nothing more comes.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Layered(layers) if layers.end.is_some())
    }

    /// The layers, if there are any.
    pub fn layers(&mut self) -> Option<&mut Layers> {
        match self {
            Self::Plain => None,
            Self::Layered(layers) => Some(layers),
        }
    }
}

/// The layers of one connection, the outermost first.
#[derive(Debug)]
pub struct Layers {
    proxy: Option<ProxyHeader>,
    tls: Option<Tls>,
    websocket: Option<WebSocket>,
    /// Received, and yet to be looked at.
    kept: Vec<u8>,
    /// To be sent before all else.
    answers: Vec<u8>,
    /// To be sent behind that, and how far it has been.
    unsent: Output,
    unsent_at: usize,
    news: Option<News>,
    end: Option<End>,
}

/// What the layers have learned of the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Who the client is behind the proxy that the socket leads to.
    pub client: Option<Peer>,
    /// The user that its certificate names.
    pub user: Option<Text>,
}

/// Why nothing more comes from the other end.
#[derive(Debug)]
pub enum End {
    /// It has said so.
    Orderly,
    /// It broke the rules, or ours.
    Faulty(Fault),
}

/// What is wrong with what came.
#[derive(Debug, Error)]
pub enum Fault {
    /// With its PROXY header.
    #[error("PROXY protocol: {0}")]
    Proxy(&'static str),
    /// With TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// With its certificate.
    #[error("client certificate: {0}")]
    Certificate(&'static str),
    /// With its request for a WebSocket.
    #[error("WebSocket refused with HTTP status {0}")]
    Http(&'static str),
    /// With its frames.
    #[error("WebSocket: {0}")]
    WebSocket(&'static str),
}

/// Where bytes are between two layers, used by all connections of a shard in turn.
#[derive(Debug, Default)]
pub struct Room {
    /// TLS records as received, decrypted in place.
    records: Vec<u8>,
    /// WebSocket frames within TLS.
    frames: Vec<u8>,
    /// What was received, out of all layers.
    plain: Vec<u8>,
}

impl Room {
    /// What the last [`Layers::receive`] has brought.
    pub fn received(&self) -> &[u8] {
        &self.plain
    }
}

impl Layers {
    /// Takes received bytes. What they carry is in `room` then; [`Self::take_news`] and [`Self::end`] have the rest.
    pub fn receive(&mut self, bytes: &[u8], room: &mut Room) {
        room.plain.clear();
        if self.end.is_some() {
            return;
        }
        if let Err(fault) = self.unwrap(bytes, room) {
            self.end = Some(End::Faulty(fault));
        } else if self.tls.as_ref().is_some_and(Tls::has_ended)
            || self.websocket.as_ref().is_some_and(WebSocket::has_ended)
        {
            self.end = Some(End::Orderly);
        }
    }

    /// Keeps received bytes for [`Self::receive_kept`].
    pub fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
    }

    /// Takes what was kept, as [`Self::receive`] does.
    pub fn receive_kept(&mut self, room: &mut Room) {
        let kept = std::mem::take(&mut self.kept);
        self.receive(&kept, room);
    }

    /// Whether what comes next costs the time of a signature or a key exchange.
    pub fn is_costly(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::is_handshaking)
    }

    /// Whether no layer is left to do anything.
    pub fn are_spent(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && self.websocket.is_none() && self.end.is_none()
    }

    /// What was learned since it was asked last.
    pub fn take_news(&mut self) -> Option<News> {
        self.news.take()
    }

    /// Why nothing more comes, if so.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether [`Self::send`] has something to send of its own.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty() || self.websocket.as_ref().is_some_and(WebSocket::has_answers)
    }

    /// Takes over what is to be sent, behind what was.
    pub fn load(&mut self, output: Output) {
        self.unsent.append(output);
    }

    /// Whether [`Self::send`] has more of what was loaded.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Appends to `out` what the next bytes that were loaded are on the socket, up to [`LAYERED_BYTES_MAX`] of them,
    /// behind what the layers have to answer. Returns what was loaded when that was the last of it.
    pub fn send(&mut self, out: &mut Vec<u8>, room: &mut Room) -> Option<Output> {
        out.append(&mut self.answers);
        let Self { tls, websocket, unsent, unsent_at, .. } = self;
        wrap(tls, websocket, b"", out, room);
        let end = unsent.len().min(*unsent_at + LAYERED_BYTES_MAX);
        while *unsent_at < end {
            let piece = unsent.piece(*unsent_at);
            let piece = &piece[..piece.len().min(end - *unsent_at)];
            wrap(tls, websocket, piece, out, room);
            *unsent_at += piece.len();
        }
        (end == unsent.len()).then(|| {
            *unsent_at = 0;
            std::mem::take(unsent)
        })
    }

    /// Takes leave: nothing can be sent afterwards.
    pub fn close(&mut self, code: CloseCode, out: &mut Vec<u8>, room: &mut Room) {
        room.frames.clear();
        if let Some(websocket) = &mut self.websocket {
            websocket.close(code, &mut room.frames);
        }
        match &mut self.tls {
            Some(tls) => {
                tls.send(&room.frames, out);
                tls.close(out);
            }
            None => out.extend_from_slice(&room.frames),
        }
    }

    fn unwrap(&mut self, bytes: &[u8], room: &mut Room) -> Result<(), Fault> {
        let mut bytes = bytes;
        if let Some(header) = &mut self.proxy {
            let Some((used, client)) = header.receive(bytes)? else { return Ok(()) };
            bytes = &bytes[used..];
            self.proxy = None;
            self.news.get_or_insert_default().client = client;
        }
        let Self { tls, websocket, answers, news, .. } = self;
        let Room { records, frames, plain } = room;
        let Some(tls) = tls else {
            let Some(websocket) = websocket else {
                plain.extend_from_slice(bytes);
                return Ok(());
            };
            return websocket.receive(bytes, plain);
        };
        let was_handshaking = tls.is_handshaking();
        let Some(websocket) = websocket else {
            let outcome = tls.receive(bytes, records, plain, answers);
            return outcome.and_then(|()| learn_user(tls, was_handshaking, news));
        };
        frames.clear();
        // What came before a fault counts.
        let decrypted = tls.receive(bytes, records, frames, answers);
        let decoded = websocket.receive(frames, plain);
        decrypted.and_then(|()| learn_user(tls, was_handshaking, news)).and(decoded)
    }
}

/// Appends to `out` what `plain` is on the socket, and what a WebSocket has to answer before.
fn wrap(
    tls: &mut Option<Tls>,
    websocket: &mut Option<WebSocket>,
    plain: &[u8],
    out: &mut Vec<u8>,
    room: &mut Room,
) {
    match (tls, websocket) {
        (None, None) => out.extend_from_slice(plain),
        (Some(tls), None) => tls.send(plain, out),
        (None, Some(websocket)) => websocket.send(plain, out),
        (Some(tls), Some(websocket)) => {
            room.frames.clear();
            websocket.send(plain, &mut room.frames);
            tls.send(&room.frames, out);
            room.frames.clear();
            room.frames.shrink_to(SPARE_BUFFER_BYTES_MAX);
        }
    }
}

/// At the end of the handshake: who the certificate says the client is.
fn learn_user(tls: &mut Tls, was_handshaking: bool, news: &mut Option<News>) -> Result<(), Fault> {
    if was_handshaking
        && !tls.is_handshaking()
        && let Some(user) = tls.take_user()?
    {
        news.get_or_insert_default().user = Some(user);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
