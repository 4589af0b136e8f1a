//! Large messages through TLS and WebSocket: their payload comes to the layers in pieces, and leaves them in others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::common::{payload, publish, wire};
use crate::files::{Files, SERVER};

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A client of any listener.
struct Client {
    stream: Box<dyn Stream>,
    is_websocket: bool,
    /// Received, and yet to be looked at.
    received: Vec<u8>,
}

impl Client {
    fn open(files: &Files, scheme: &str, port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a socket");
        let mut stream: Box<dyn Stream> = match scheme {
            "mqtts" | "wss" => Box::new(StreamOwned::new(tls(files), stream)),
            _ => Box::new(stream),
        };
        let is_websocket = scheme.starts_with("ws");
        if is_websocket {
            let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("open");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(0);
                let last = head.len() - 1;
                stream.read_exact(&mut head[last..]).expect("the head of an answer");
            }
        }
        Self { stream, is_websocket, received: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.is_websocket {
            let key = [1, 2, 3, 4];
            let mut frame = vec![0x82, 0xFF];
            frame.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            if bytes.len() <= usize::from(u16::MAX) {
                frame.truncate(1);
                match bytes.len() {
                    short @ ..126 => frame.push(0x80 | short as u8),
                    long => {
                        frame.push(0xFE);
                        frame.extend_from_slice(&(long as u16).to_be_bytes());
                    }
                }
            }
            frame.extend_from_slice(&key);
            frame.extend(bytes.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            self.stream.write_all(&frame).expect("open");
        } else {
            self.stream.write_all(bytes).expect("open");
        }
        self.stream.flush().expect("open");
    }

    /// Reads so many bytes of MQTT, `step` of them at a time at most where nothing is framed.
    fn read(&mut self, count: usize, step: usize) -> Vec<u8> {
        while self.received.len() < count {
            let start = self.received.len();
            let bytes = match self.is_websocket {
                true => self.frame_len(),
                false => step.min(count - start),
            };
            self.received.resize(start + bytes, 0);
            for piece in self.received[start..].chunks_mut(step) {
                self.stream.read_exact(piece).expect("more");
            }
        }
        self.received.drain(..count).collect()
    }

    fn frame_len(&mut self) -> usize {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame");
        assert_eq!(head[0], 0x82);
        let mut extended = [0; 8];
        let bytes = match head[1] {
            126 => 2,
            127 => 8,
            short => return usize::from(short),
        };
        self.stream.read_exact(&mut extended[8 - bytes..]).expect("a frame");
        u64::from_be_bytes(extended) as usize
    }
}

fn tls(files: &Files) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let ca = std::fs::read(files.path("ca.pem")).expect("the CA's certificate");
    roots.add(CertificateDer::from_pem_slice(&ca).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

fn connect(files: &Files, scheme: &str, port: u16, id: &str, qos: u8) -> Client {
    let mut client = Client::open(files, scheme, port);
    client.send(&wire(&format!("10 ( 'MQTT' 04 02 003c '{id}' )")));
    assert_eq!(client.read(4, 4), [0x20, 2, 0, 0]);
    client.send(&wire(&format!("82 ( 0001 'in' 0{qos} )")));
    assert_eq!(client.read(5, 5), [0x90, 3, 0, 1, qos]);
    client
}

fn check(scheme: &str) {
    let settings = if scheme == "ws" { "" } else { SERVER };
    for shards in [1, 4] {
        let files = Files::new();
        let (broker, port) = files.broker(shards, scheme, settings);
        let mut layered = connect(&files, scheme, port, "layered", 1);
        let mut plain = connect(&files, "mqtt", broker.port, "plain", 1);
        for (seed, bytes) in
            [1 << 10, 64 << 10, (1 << 20) + 1, 20_000, 64 << 20].into_iter().enumerate()
        {
            let payload = payload(bytes, seed as u8);
            let id = seed as u16 + 1;
            layered.send(&publish(0x32, "in", id, false, &payload));
            let (step, expected) = (1 << 20, publish(0x32, "in", id, false, &payload));
            // PUBACK may come on either side of the message.
            let got = layered.read(expected.len() + 4, step);
            let ack = [0x40, 2, 0, id as u8];
            let is_first = got[..4] == ack;
            let message = if is_first { &got[4..] } else { &got[..expected.len()] };
            assert!(message == expected, "{scheme}: {bytes} bytes, {shards} shards");
            assert!(is_first || got[expected.len()..] == ack);
            assert!(plain.read(expected.len(), step) == expected);
            for client in [&mut layered, &mut plain] {
                client.send(&[0x40, 2, 0, id as u8]);
            }
        }
    }
}

#[test]
fn they_go_through_tls() {
    check("mqtts");
}

#[test]
fn they_go_through_a_websocket() {
    check("ws");
}

#[test]
fn they_go_through_a_websocket_in_tls() {
    check("wss");
}

/// What is left of a large output when the connection is closed goes out before the layers take their leave.
#[test]
fn what_is_under_way_comes_before_the_leave() {
    for (scheme, settings) in [("ws", ""), ("wss", SERVER)] {
        let files = Files::new();
        let (broker, port) = files.broker(1, scheme, settings);
        let mut slow = connect(&files, scheme, port, "slow", 0);
        let mut publisher = connect(&files, "mqtt", broker.port, "publisher", 0);
        let payload = payload(10 << 20, 3);
        let packet = publish(0x30, "in", 0, false, &payload);
        publisher.send(&packet);
        publisher.read(packet.len(), 1 << 20);
        // Not another word is read of it, and what has come goes out.
        slow.send(&wire("e0 00"));
        assert!(slow.read(packet.len(), 5003) == packet, "{scheme}");
        let mut leave = [0; 4];
        slow.stream.read_exact(&mut leave).expect("a close frame");
        assert_eq!(leave, [0x88, 2, 3, 0xE8]);
    }
}

/// Small reads, so that the broker is always held up in the middle of something.
#[test]
fn they_can_be_split_anywhere() {
    for (scheme, settings) in [("ws", ""), ("wss", SERVER), ("mqtts", SERVER)] {
        let files = Files::new();
        let (broker, port) = files.broker(1, scheme, settings);
        let mut slow = connect(&files, scheme, port, "slow", 0);
        let mut publisher = connect(&files, "mqtt", broker.port, "publisher", 0);
        let mut expected = Vec::new();
        for (seed, bytes) in [20_000, 5, 300_000, 17_000].into_iter().enumerate() {
            expected.extend(publish(0x30, "in", 0, false, &payload(bytes, seed as u8)));
        }
        for piece in expected.chunks(4099) {
            publisher.send(piece);
        }
        assert!(publisher.read(expected.len(), 1 << 16) == expected);
        assert!(slow.read(expected.len(), 1) == expected, "{scheme}");
    }
}
