//! Clients that take their time before CONNECT: half packets, handshakes and requests, one byte a second. They are
//! closed after the connect timeout, cost little until then, and do not keep others out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::{RawClient, wire};
use crate::files::{Files, SERVER};

const CLIENTS: usize = 200;

/// Sends what is given, then a byte now and then, until the broker closes. Returns how long that took.
fn crawl(port: u16, start: &[u8]) -> Vec<(TcpStream, Instant)> {
    let open = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
        stream.write_all(start).expect("open");
        (stream, Instant::now())
    };
    (0..CLIENTS).map(open).collect()
}

fn check(scheme: &str, settings: &str, start: &[u8], next: u8) {
    let files = Files::new();
    let port = crate::common::free_port();
    let config = format!(
        "[limits]\nconnect_timeout_secs = 3\n[[listener]]\nurl = \"{scheme}://127.0.0.1:{port}\"\n{settings}"
    );
    let broker = files.broker_with(4, &config);
    let before = broker.rss_kib();
    let mut clients = crawl(port, start);
    // Meanwhile somebody else comes in.
    RawClient::v311(broker.port, "ordinary").ping();
    let mut highest = 0;
    while !clients.is_empty() {
        std::thread::sleep(Duration::from_secs(1));
        highest = highest.max(broker.rss_kib());
        clients.retain_mut(|(stream, since)| {
            let age = since.elapsed();
            stream.set_nonblocking(true).expect("a socket");
            let is_closed =
                matches!(stream.read(&mut [0; 4096]), Ok(0)) || stream.write_all(&[next]).is_err();
            assert!(
                is_closed || age < Duration::from_secs(8),
                "{scheme}: still open after {age:?}"
            );
            assert!(
                !is_closed || age > Duration::from_millis(2500),
                "{scheme}: closed after {age:?}"
            );
            !is_closed
        });
    }
    let kib_each = highest.saturating_sub(before) / CLIENTS as u64;
    assert!(kib_each < 48, "{scheme}: {kib_each} KiB for each of them");
}

#[test]
fn half_packets_over_tcp() {
    check("mqtt", "", &wire("10 ff ff 03 0004"), b'M');
}

#[test]
fn half_handshakes_over_tls() {
    // The head of a record of 512 bytes, and of a ClientHello that fills it.
    check("mqtts", SERVER, &wire("16 0301 0200 01 0001fc 0303"), 7);
}

#[test]
fn half_requests_over_websocket() {
    check("ws", "", b"GET /mqtt HTTP/1.1\r\nHost: a\r\nX: ", b'x');
}

#[test]
fn half_requests_over_websocket_in_tls_and_silence() {
    check("wss", SERVER, b"", 0x16);
}
