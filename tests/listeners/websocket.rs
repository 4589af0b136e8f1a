//! WebSocket in literal bytes: the request, frames, and what ends the connection.

use crate::common::{Broker, RawClient, each, free_port, wire};
use crate::files::{Files, SERVER};
use crate::packages::{packages, run};

/// A broker with a WebSocket, and its port.
fn broker(shards: usize, settings: &str) -> (Files, Broker, u16) {
    let files = Files::new();
    let (broker, port) = files.broker(shards, "ws", settings);
    (files, broker, port)
}

fn request(path: &str, fields: &str) -> String {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n{fields}\r\n"
    );
    head.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A WebSocket that is open.
#[track_caller]
fn open(port: u16) -> RawClient {
    let mut client = RawClient::connect(port);
    client.send(&request("/mqtt", ""));
    expect_open(&mut client);
    client
}

#[track_caller]
fn expect_open(client: &mut RawClient) {
    client.expect(
        "`HTTP/1.1 101 Switching Protocols`0d0a `Upgrade: websocket`0d0a\
         `Sec-WebSocket-Version: 13`0d0a `Connection: Upgrade`0d0a\
         `Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=`0d0a\
         `Sec-WebSocket-Protocol: mqtt`0d0a 0d0a",
    );
}

/// What the next binary frames carry together, and the pongs among them.
#[track_caller]
fn expect_frames(client: &mut RawClient, carried: &str, pongs: &str) {
    let (mut left, mut pongs) = (wire(carried).len(), pongs.to_owned());
    let mut payloads = String::new();
    while left > 0 || !pongs.is_empty() {
        let head = client.expect("?? ??");
        let bytes = usize::from_str_radix(&head[2..], 16).expect("two digits");
        let payload = client.expect(&"??".repeat(bytes));
        if head.starts_with("8a") {
            assert_eq!(format!("{head}{payload}"), pongs.replace(' ', ""));
            pongs.clear();
        } else {
            assert!(head.starts_with("82") && bytes <= left, "{head}{payload}");
            left -= bytes;
            payloads += &payload;
        }
    }
    assert_eq!(wire(&payloads), wire(carried));
}

/// A frame with this first byte, masked.
fn frame(first: &str, payload: &str) -> String {
    let payload = wire(payload);
    assert!(payload.len() < 126, "a short frame");
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let masked =
        payload.iter().zip(key.iter().cycle()).map(|(byte, key)| format!("{:02x}", byte ^ key));
    format!("{first} {:02x} 37fa213d {}", 0x80 | payload.len(), masked.collect::<String>())
}

const CONNECT: &str = "10 ( 'MQTT' 04 02 003c 'c' )";

/// Clause: MQTT-6.0.0-4, MQTT-6.0.0-2.
#[test]
fn packets_go_in_frames_and_across_them_on_one_shard_and_on_four() {
    for shards in [1, 4] {
        let (_files, _broker, port) = broker(shards, "");
        for id in ["a", "b", "c", "d"] {
            let mut client = open(port);
            client.send(&frame("82", &CONNECT.replace("'c'", &format!("'{id}'"))));
            client.expect("82 04 20 02 00 00");
            // Two and a half packets in one frame, the rest in two fragments with a ping between.
            client.send(&frame("82", "c0 00 c0 00 c0"));
            client.send(&frame("02", ""));
            client.send(&frame("89", "`hi`"));
            client.send(&frame("80", "00"));
            expect_frames(&mut client, "d0 00 d0 00 d0 00", "8a 02 6869");
            client.send(&frame("82", "e0 00"));
            client.expect("88 02 03e8");
            client.expect_closed();
        }
        // All at once: the request, CONNECT and a PINGREQ.
        let mut client = RawClient::connect(port);
        client.send(&format!("{} {}", request("/", ""), frame("82", &format!("{CONNECT} c0 00"))));
        expect_open(&mut client);
        expect_frames(&mut client, "20 02 00 00 d0 00", "");
    }
}

/// Clause: MQTT-6.0.0-1.
#[test]
fn frames_that_break_the_rules_end_the_connection_with_a_code() {
    let (_files, broker, port) = broker(1, "");
    each(
        [
            (frame("81", CONNECT), "03eb"),
            (frame("80", CONNECT), "03ea"),
            (frame("c2", CONNECT), "03ea"),
            (frame("83", CONNECT), "03ea"),
            ("82 02 c0 00".to_owned(), "03ea"),
            ("82 ff ffffffffffffffff 00000000".to_owned(), "03ea"),
            ("89 fe 007e 00000000".to_owned(), "03ea"),
            (frame("09", ""), "03ea"),
            (frame("88", "03"), "03ea"),
        ],
        |(bytes, code)| {
            let mut client = open(port);
            client.send(bytes);
            client.expect(&format!("88 02 {code}"));
            client.expect_closed();
        },
    );
    broker.wait_for_log(&["WebSocket: a text frame (MQTT-6.0.0-1)"]);
}

/// The will is sent: an end without DISCONNECT.
#[test]
fn a_close_frame_is_answered_and_ends_the_connection_like_any_loss() {
    let (_files, _broker, port) = broker(4, "");
    let mut watcher = open(port);
    watcher.send(&frame("82", &format!("{CONNECT} 82 ( 0001 'w' 00 )")));
    expect_frames(&mut watcher, "20 02 00 00 90 03 0001 00", "");
    let mut client = open(port);
    client.send(&frame("82", "10 ( 'MQTT' 04 06 003c 'x' 'w' 'gone' )"));
    client.expect("82 04 20 02 00 00");
    client.send(&frame("88", "03e9"));
    client.expect("88 02 03e9");
    client.expect_closed();
    expect_frames(&mut watcher, "30 ( 'w' `gone` )", "");
}

#[test]
fn only_pages_of_allowed_origins_may_connect() {
    let (_files, _broker, port) =
        broker(1, "origins = [\"https://a.example\"]\nwebsocket_paths = [\"/x\"]\n");
    each(
        [
            ("/x", "", "101"),
            ("/x", "Origin: https://a.example\r\n", "101"),
            ("/x", "Origin: https://b.example\r\n", "403"),
            ("/x", "Origin: https://a.example.evil.example\r\n", "403"),
            ("/x", "Origin: null\r\n", "403"),
            ("/mqtt", "", "404"),
        ],
        |(path, fields, status)| {
            let mut client = RawClient::connect(port);
            client.send(&request(path, fields));
            client.expect(&format!("`HTTP/1.1 {status} `"));
        },
    );
}

#[test]
fn the_end_of_the_broker_says_that_it_goes_away() {
    let (_files, broker, port) = broker(1, "");
    let mut client = open(port);
    client.send(&frame("82", CONNECT));
    client.expect("82 04 20 02 00 00");
    broker.signal("TERM");
    client.expect("88 02 03e9");
    client.expect_closed();
}

/// paho in Python, over WebSocket in TLS.
#[test]
fn paho_talks_over_websocket_in_tls() {
    for shards in [1, 4] {
        let files = Files::new();
        let port = free_port();
        let url = format!("[[listener]]\nurl = \"wss://127.0.0.1:{port}\"\n");
        let _broker = files.broker_with(shards, &format!("{url}{}", SERVER));
        let python = packages().join("venv/bin/python");
        let python = python.to_str().expect("an ordinary path");
        run(python, "../listeners/paho_wss.py", &[&port.to_string(), &files.path("ca.pem")]);
    }
}
