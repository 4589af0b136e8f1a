//! All layers against a client in memory, rustls on its side, with bytes cut at every place.

use std::{
    io::{Read, Write},
    path::Path,
};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

use super::*;
use crate::config::{CertificateFiles, ClientCertificates, TlsSettings, UserFrom};

/// A listener with TLS, WebSocket and PROXY headers, each or not, and a client's view of its TLS.
struct Side {
    listener: Listener,
    client: Option<Arc<ClientConfig>>,
}

fn side(has_tls: bool, has_websocket: bool, tls_1_3: bool) -> Side {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let text = format!("{}{}", certificate.pem(), key.serialize_pem());
    let read = move |_: &Path| Ok(text.clone().into_bytes());
    let settings = TlsSettings {
        certificates: vec![CertificateFiles { certificate: "a".into(), key: "a".into() }],
        client: ClientCertificates::None,
        client_ca: None,
        crls: Vec::new(),
        user_from: UserFrom::None,
        tls_1_3_only: tls_1_3,
        is_websocket: has_websocket,
    };
    let tls = has_tls.then(|| Arc::new(TlsAcceptor::new(&settings, &read).unwrap()));
    let client = has_tls.then(|| {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let version = if tls_1_3 { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    });
    let listener = Listener {
        id: ListenerId(0),
        is_relaxed: false,
        tls,
        websocket: has_websocket.then(Arc::default),
        proxies: ProxySources::default(),
    };
    Side { listener, client }
}

/// A connection and its client, with all that the layers have brought.
struct Link {
    transport: Transport,
    tls: Option<ClientConnection>,
    room: Room,
    chunk: usize,
    brought: Vec<u8>,
    /// What the client has received, out of TLS.
    received: Vec<u8>,
}

impl Link {
    fn new(side: &Side, chunk: usize) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let client = side.client.clone();
        let tls = client.map(|config| ClientConnection::new(config, name).unwrap());
        let peer = ([127, 0, 0, 1], 1).into();
        let transport = Transport::new(&side.listener, peer);
        let (brought, received) = (Vec::new(), Vec::new());
        Self { transport, tls, room: Room::default(), chunk, brought, received }
    }

    fn layers(&mut self) -> &mut Layers {
        self.transport.layers().expect("there are layers")
    }

    /// The client sends, and both answer until there is nothing left to say.
    fn client_sends(&mut self, bytes: &[u8]) {
        let mut on_its_way = Vec::new();
        match &mut self.tls {
            Some(tls) => {
                tls.set_buffer_limit(None);
                tls.writer().write_all(bytes).unwrap();
            }
            None => on_its_way.extend_from_slice(bytes),
        }
        loop {
            if let Some(tls) = &mut self.tls {
                while tls.wants_write() {
                    tls.write_tls(&mut on_its_way).unwrap();
                }
            }
            if on_its_way.is_empty() {
                return;
            }
            for bytes in std::mem::take(&mut on_its_way).chunks(self.chunk) {
                let Self { transport, room, .. } = self;
                let layers = transport.layers().expect("there are layers");
                layers.receive(bytes, room);
                self.brought.extend_from_slice(room.received());
            }
            self.server_sends(b"");
        }
    }

    fn server_sends(&mut self, bytes: &[u8]) {
        let Self { transport, room, .. } = self;
        let mut out = Vec::new();
        let layers = transport.layers().expect("there are layers");
        layers.load(bytes.to_vec().into());
        while layers.send(&mut out, room).is_none() {}
        self.client_receives(&out);
    }

    fn client_receives(&mut self, bytes: &[u8]) {
        let Some(tls) = &mut self.tls else {
            self.received.extend_from_slice(bytes);
            return;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            tls.read_tls(&mut rest).unwrap();
            tls.process_new_packets().unwrap();
            // WouldBlock is what there is at its end.
            let _ = tls.reader().read_to_end(&mut self.received);
        }
    }
}

const REQUEST: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

#[test]
fn bytes_get_through_all_layers_both_ways_however_they_are_cut_and_wherever_they_move() {
    for (has_tls, has_websocket, tls_1_3) in
        [(true, false, true), (true, false, false), (true, true, true), (false, true, true)]
    {
        let side = side(has_tls, has_websocket, tls_1_3);
        for (chunk, bytes) in [(1, 100), (3, 20_000), (usize::MAX, 200_000)] {
            let mut link = Link::new(&side, chunk);
            let payload: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            if has_websocket {
                link.client_sends(REQUEST);
                assert!(link.received.starts_with(b"HTTP/1.1 101 "));
                link.received.clear();
                for part in payload.chunks(1000) {
                    let key = [0; 4];
                    let head =
                        [&[0x82, 0xFE][..], &(part.len() as u16).to_be_bytes(), &key].concat();
                    let short = [&[0x82, 0x80 | part.len() as u8][..], &key].concat();
                    link.client_sends(if part.len() < 126 { &short } else { &head });
                    link.client_sends(part);
                }
            } else {
                link.client_sends(&payload);
            }
            assert_eq!(link.brought, payload, "{has_tls} {has_websocket} by {chunk}");
            // Another thread goes on with it.
            let mut link = std::thread::scope(|scope| scope.spawn(move || link).join().unwrap());
            assert!(!link.layers().is_costly() && !link.transport.has_ended());
            link.server_sends(&payload);
            let got = link.received.iter().copied().filter(|_| !has_websocket).collect::<Vec<_>>();
            assert!(has_websocket || got == payload);
            assert!(link.received.len() >= payload.len());
        }
    }
}

#[test]
fn an_end_that_is_told_is_told_back() {
    let side = side(true, true, true);
    let mut link = Link::new(&side, 1);
    link.client_sends(REQUEST);
    link.received.clear();
    link.client_sends(b"\x88\x82\0\0\0\0\x03\xE8");
    assert!(matches!(link.layers().end(), Some(End::Orderly)));
    let mut out = Vec::new();
    let Link { transport, room, .. } = &mut link;
    transport.layers().unwrap().close(CloseCode::Normal, &mut out, room);
    link.client_receives(&out);
    assert_eq!(link.received, b"\x88\x02\x03\xE8");
    let state = link.tls.as_mut().unwrap().process_new_packets().unwrap();
    assert!(state.peer_has_closed(), "close_notify");
}

#[test]
fn what_is_no_tls_is_answered_with_an_alert_and_costs_little() {
    let side = side(true, false, true);
    for (start, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], true),
        (b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0", true),
        (b"\x16\x03\x01\xff\xff\x01\xff\xff\xff", true),
        (b"\x16\x03\x01\x40\0\x01\0\x3f\xfc", false),
    ] {
        for chunk in [1, start.len()] {
            let mut link = Link::new(&side, chunk);
            let Link { transport, room, .. } = &mut link;
            let layers = transport.layers().unwrap();
            for bytes in start.chunks(chunk) {
                layers.receive(bytes, room);
            }
            assert_eq!(
                matches!(layers.end(), Some(End::Faulty(Fault::Tls(_)))),
                expected,
                "{start:?}"
            );
            let mut out = Vec::new();
            layers.close(CloseCode::Normal, &mut out, room);
            layers.send(&mut out, room);
            assert!(!expected || out.starts_with(b"\x15\x03"), "{out:02x?}");
        }
    }
}

/// What rustls has seen of a record already, it has to be shown again.
#[test]
fn half_a_record_does_not_keep_the_broker_from_sending() {
    let side = side(true, false, true);
    let mut link = Link::new(&side, usize::MAX);
    link.client_sends(b"connect");
    let tls = link.tls.as_mut().unwrap();
    tls.refresh_traffic_keys().unwrap();
    let mut update = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut update).unwrap();
    }
    let (half, rest) = update.split_at(update.len() / 2);
    for bytes in [half, rest] {
        let Link { transport, room, .. } = &mut link;
        transport.layers().unwrap().receive(bytes, room);
        link.server_sends(b"meanwhile");
    }
    link.client_sends(b"with new keys");
    assert_eq!(
        (&link.brought[..], &link.received[..]),
        (&b"connectwith new keys"[..], &b"meanwhilemeanwhile"[..])
    );
}

#[test]
fn a_record_without_end_is_kept_only_as_far_as_rustls_allows() {
    let side = side(true, false, true);
    let mut link = Link::new(&side, 1);
    // Records of a handshake message of 64 KiB, which nobody sends.
    let record = [&[0x16, 3, 1, 0x40, 0][..], &[1, 0, 0xff, 0xff], &[0; 0x4000 - 4]].concat();
    let Link { transport, room, .. } = &mut link;
    let layers = transport.layers().unwrap();
    for _ in 0..20 {
        layers.receive(&record, room);
    }
    assert!(matches!(layers.end(), Some(End::Faulty(_))));
}
