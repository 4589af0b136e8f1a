//! A client that says exactly what it is told to, and checks what comes back
//! byte by byte. It answers nothing by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::notation::{pattern, wire};
use super::wire::{difference, fields, hex, read_variable_byte_integer};

/// One TCP connection to the broker. Dropping it closes the connection without a DISCONNECT.
pub(crate) struct RawClient {
    stream: TcpStream,
    /// Received, not yet looked at.
    received: Vec<u8>,
    /// The broker closed its side.
    ended: bool,
}

/// A CONNACK taken apart; v5 brokers choose which properties they send.
#[derive(Debug)]
pub(crate) struct Connack {
    pub(crate) session_present: bool,
    pub(crate) reason: u8,
    pub(crate) properties: Vec<(u8, Vec<u8>)>,
}

impl Connack {
    /// The value bytes of a property, if the broker sent it.
    pub(crate) fn property(&self, identifier: u8) -> Option<&[u8]> {
        self.properties.iter().find(|(id, _)| *id == identifier).map(|(_, value)| value.as_slice())
    }
}

impl RawClient {
    /// A TCP connection; nothing is sent yet.
    #[track_caller]
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
        Self::over(stream)
    }

    /// The same from another address of this machine, all of 127.0.0.0/8 being one.
    #[track_caller]
    pub(crate) fn connect_from(address: [u8; 4], port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of this machine");
        let broker = SocketAddr::from(([127, 0, 0, 1], port));
        socket.connect(&broker.into()).expect("the broker accepts");
        Self::over(socket.into())
    }

    /// The same over a connection that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, received: Vec::new(), ended: false }
    }

    /// A 3.1.1 client with Clean Session 1, connected.
    #[track_caller]
    pub(crate) fn v311(port: u16, id: &str) -> Self {
        let mut client = Self::connect(port);
        client.send(&format!("10 ( 'MQTT' 04 02 003c '{id}' )"));
        client.expect("20 02 00 00");
        client
    }

    /// A 3.1.1 client with Clean Session 0, connected; and whether a session was present.
    #[track_caller]
    pub(crate) fn v311_resume(port: u16, id: &str) -> (Self, bool) {
        let mut client = Self::connect(port);
        client.send(&format!("10 ( 'MQTT' 04 00 003c '{id}' )"));
        let present = client.expect("20 02 ?? 00");
        (client, present == "01")
    }

    /// A v5 client with Clean Start 1 and a session that ends with the connection.
    #[track_caller]
    pub(crate) fn v5(port: u16, id: &str) -> Self {
        let mut client = Self::connect(port);
        client.send(&format!("10 ( 'MQTT' 05 02 003c () '{id}' )"));
        client.expect_accepted();
        client
    }

    /// A v5 client with Clean Start 0 and a session that outlives its connection
    /// by five minutes; and whether a session was present.
    #[track_caller]
    pub(crate) fn v5_resume(port: u16, id: &str) -> (Self, bool) {
        let mut client = Self::connect(port);
        client.send(&format!("10 ( 'MQTT' 05 00 003c ( 11 0000012c ) '{id}' )"));
        let present = client.expect_accepted().session_present;
        (client, present)
    }

    /// Sends what the notation of [`wire`] says.
    #[track_caller]
    pub(crate) fn send(&mut self, notation: &str) {
        self.send_bytes(&wire(notation));
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(REPLY_MAX)).expect("a positive time");
        if let Err(error) = self.stream.write_all(bytes) {
            panic!("sending {}: {error}", hex(bytes));
        }
    }

    /// Sends bytes of which the broker may refuse a part by closing the connection.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.set_write_timeout(Some(REPLY_MAX)).expect("a positive time");
        self.stream.write_all(bytes).is_ok()
    }

    /// The next bytes are exactly these. Returns what stood for `??`, as hexadecimal digits.
    #[track_caller]
    pub(crate) fn expect(&mut self, notation: &str) -> String {
        let expected = pattern(notation);
        let complete = self.fill(expected.len(), REPLY_MAX);
        let seen = &self.received[..self.received.len().min(expected.len())];
        let equal =
            |(expected, seen): (&Option<u8>, &u8)| expected.is_none_or(|byte| byte == *seen);
        if !complete || !expected.iter().zip(seen).all(equal) {
            let missing = if complete { "" } else { self.why_no_more() };
            self.fill(usize::MAX, Duration::from_millis(100));
            panic!("{notation} {missing}\n{}", difference(&expected, &self.received));
        }
        let seen: Vec<u8> = self.received.drain(..expected.len()).collect();
        let free = expected.iter().zip(seen).filter(|(expected, _)| expected.is_none());
        free.map(|(_, byte)| format!("{byte:02x}")).collect()
    }

    /// The next packets are these, in whichever order.
    #[track_caller]
    pub(crate) fn expect_in_any_order(&mut self, notations: &[&str]) {
        let mut left: Vec<Vec<Option<u8>>> = notations.iter().map(|n| pattern(n)).collect();
        while !left.is_empty() {
            let packet = self.read_packet();
            let fits = |expected: &Vec<Option<u8>>| {
                expected.len() == packet.len()
                    && expected.iter().zip(&packet).all(|(e, p)| e.is_none_or(|byte| byte == *p))
            };
            let Some(at) = left.iter().position(fits) else {
                panic!("none of {notations:?} is\n{}", hex(&packet));
            };
            left.remove(at);
        }
    }

    /// The same, or nothing when the broker closes instead.
    pub(crate) fn try_read_packet(&mut self) -> Option<Vec<u8>> {
        self.fill(1, REPLY_MAX).then(|| self.read_packet())
    }

    /// One whole packet, fixed header included.
    #[track_caller]
    pub(crate) fn read_packet(&mut self) -> Vec<u8> {
        let mut header = 1;
        loop {
            header += 1;
            let complete = self.fill(header, REPLY_MAX);
            assert!(complete, "no packet {}: {}", self.why_no_more(), hex(&self.received));
            if self.received[header - 1] & 0x80 == 0 {
                break;
            }
        }
        let length = header + read_variable_byte_integer(&self.received[1..]).0;
        let complete = self.fill(length, REPLY_MAX);
        assert!(complete, "half a packet {}: {}", self.why_no_more(), hex(&self.received));
        self.received.drain(..length).collect()
    }

    /// A v5 CONNACK, whatever it says.
    #[track_caller]
    pub(crate) fn connack(&mut self) -> Connack {
        let packet = self.read_packet();
        assert_eq!(packet[0], 0x20, "no CONNACK: {}", hex(&packet));
        let body = &packet[1 + read_variable_byte_integer(&packet[1..]).1..];
        let (properties, rest) = fields(&body[2..]);
        assert!(rest.is_empty(), "bytes after the properties: {}", hex(&packet));
        assert!(body[0] <= 1, "reserved CONNACK flags: {}", hex(&packet));
        Connack { session_present: body[0] == 1, reason: body[1], properties }
    }

    /// A v5 CONNACK with reason code 0x00.
    #[track_caller]
    pub(crate) fn expect_accepted(&mut self) -> Connack {
        let connack = self.connack();
        assert_eq!(connack.reason, 0, "refused: {connack:02x?}");
        connack
    }

    /// A v5 acknowledgement (PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70) that is no error,
    /// short or long form: 0x10 (No matching subscribers) may be told or not.
    #[track_caller]
    pub(crate) fn expect_ack(&mut self, first_byte: u8, packet_id: &str) {
        let reason = self.ack_reason(first_byte, packet_id);
        assert!(reason == 0x00 || reason == 0x10, "{first_byte:02x} {packet_id}: {reason:#04x}");
    }

    /// The reason code of the v5 acknowledgement that comes next.
    #[track_caller]
    pub(crate) fn ack_reason(&mut self, first_byte: u8, packet_id: &str) -> u8 {
        let packet = self.read_packet();
        let expected = wire(&format!("{first_byte:02x} 00 {packet_id}"));
        let fits = packet[0] == expected[0] && packet[2..4] == expected[2..4];
        assert!(fits, "expected {first_byte:02x} for {packet_id}, received {}", hex(&packet));
        packet.get(4).copied().unwrap_or(0)
    }

    /// A v5 DISCONNECT with this reason code, and the end of the connection.
    #[track_caller]
    pub(crate) fn expect_disconnect(&mut self, reason: u8) {
        self.expect_disconnect_with(&[reason]);
    }

    /// The same where the standard leaves the choice of the reason code.
    #[track_caller]
    pub(crate) fn expect_disconnect_with(&mut self, reasons: &[u8]) {
        let packet = self.read_packet();
        let reason = packet.get(2).copied().unwrap_or(0);
        let fits = packet[0] == 0xe0 && reasons.contains(&reason);
        assert!(fits, "expected DISCONNECT {reasons:02x?}, received {}", hex(&packet));
        self.expect_closed();
    }

    /// A CONNECT is refused: with a v5 CONNACK with one of these reason codes and Session Present 0,
    /// or without a word.
    #[track_caller]
    pub(crate) fn expect_refused(&mut self, reasons: &[u8]) {
        if self.fill(1, REPLY_MAX) {
            let connack = self.connack();
            let fits = reasons.contains(&connack.reason) && !connack.session_present;
            assert!(fits, "{reasons:02x?}: {connack:02x?}");
        }
        self.expect_closed();
    }

    /// The same where the version is not settled: a 3.x return code 0x01 or v5 0x84, or no word.
    #[track_caller]
    pub(crate) fn expect_refused_in_any_version(&mut self) {
        if self.fill(1, REPLY_MAX) {
            let packet = self.read_packet();
            let known = packet == [0x20, 2, 0, 1] || packet.get(3) == Some(&0x84);
            assert!(known, "neither 0x01 nor 0x84: {}", hex(&packet));
        }
        self.expect_closed();
    }

    /// The broker closes the connection and says nothing more.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        self.expect_closed_within(REPLY_MAX);
    }

    #[track_caller]
    pub(crate) fn expect_closed_within(&mut self, time: Duration) {
        if self.fill(1, time) {
            self.fill(usize::MAX, Duration::from_millis(100));
            panic!("expected the end of the connection, received {}", hex(&self.received));
        }
        assert!(self.ended, "the connection is still open after {time:?}");
    }

    /// Nothing comes for so long. Only where time itself is tested; otherwise see [`Self::ping`].
    #[track_caller]
    pub(crate) fn expect_silence(&mut self, time: Duration) {
        assert!(!self.fill(1, time), "unexpected: {}", hex(&self.received));
        assert!(!self.ended, "the connection was closed");
    }

    /// A barrier: what was sent before is handled, and nothing but its answer comes back.
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.send("c0 00");
        self.expect("d0 00");
    }

    /// Ends the connection with a reset, as a machine does that knows nothing of it.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an open socket");
    }

    /// Closes the sending half; the broker sees the end of the stream.
    pub(crate) fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("an open socket");
    }

    /// Throws away what the broker sends until `time` is over; false when the connection ended.
    pub(crate) fn discard(&mut self, time: Duration) -> bool {
        self.fill(usize::MAX, time);
        self.received.clear();
        !self.ended
    }

    fn why_no_more(&self) -> &'static str {
        if self.ended { "(the connection was closed)" } else { "(and no more came)" }
    }

    /// Reads until `count` bytes are there; false when the time or the stream ended before.
    fn fill(&mut self, count: usize, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut chunk = [0; 16 * 1024];
        while self.received.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.stream.set_read_timeout(Some(left)).expect("a positive time");
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    return false;
                }
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // The broker closed while bytes of ours were under way.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.ended = true;
                    return false;
                }
                Err(error) => panic!("receiving: {error}"),
            }
        }
        true
    }
}

/// Longer than anything takes on a busy machine, short enough to fail in.
const REPLY_MAX: Duration = Duration::from_secs(8);
