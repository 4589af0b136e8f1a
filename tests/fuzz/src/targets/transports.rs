//! A PROXY header, a WebSocket's request and its frames, in pieces: no panic, no more memory than came, and what comes
//! out does not depend on where it was cut. The first byte chooses the layers, the second the pieces.

use std::sync::Arc;

use ringmq::{
    base::{ListenerId, Peer},
    config::ProxySources,
    listener::{CloseCode, End, Listener, Room, Transport},
};

use crate::memory::peak_of;

pub(crate) fn run(bytes: &[u8]) {
    let [layers, chunk, rest @ ..] = bytes else { return };
    let has_proxy = layers & 1 != 0;
    let has_websocket = !has_proxy || layers & 2 != 0;
    let is_open = has_websocket && !has_proxy && layers & 4 != 0;
    let received = if is_open { [REQUEST, rest].concat() } else { rest.to_vec() };
    let listener = listener(has_proxy, has_websocket);
    let whole = carry(&listener, &received, received.len().max(1));
    let cut = carry(&listener, &received, usize::from(*chunk).max(1));
    assert_eq!(whole, cut);
}

fn listener(has_proxy: bool, has_websocket: bool) -> Listener {
    let mut proxies = ProxySources::default();
    if has_proxy {
        proxies.add("unix").expect("it is understood");
    }
    Listener {
        id: ListenerId(0),
        is_relaxed: false,
        tls: None,
        websocket: has_websocket.then(Arc::default),
        proxies,
    }
}

/// What came out, and how it ended.
fn carry(listener: &Listener, received: &[u8], chunk: usize) -> (Vec<u8>, Option<String>) {
    let mut transport = Transport::new(listener, Peer::Unix);
    let mut plain = Vec::new();
    let (end, peak) = peak_of(|| {
        let layers = transport.layers().expect("there are layers");
        let mut room = Room::default();
        for bytes in received.chunks(chunk) {
            layers.receive(bytes, &mut room);
            plain.extend_from_slice(room.received());
        }
        let mut out = Vec::new();
        layers.close(CloseCode::Normal, &mut out, &mut room);
        assert!(out.len() <= ANSWER_BYTES_MAX, "{} bytes of answers", out.len());
        layers.end().map(|end| match end {
            End::Orderly => "in order".to_owned(),
            End::Faulty(fault) => fault.to_string(),
        })
    });
    assert!(plain.len() <= received.len());
    assert!(peak <= 8 * received.len() + 64 * 1024, "{peak} bytes for {}", received.len());
    (plain, end)
}

const REQUEST: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";
/// The answer to the request, a few pongs and a close frame.
const ANSWER_BYTES_MAX: usize = 1024;
