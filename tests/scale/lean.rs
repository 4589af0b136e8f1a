//! A small blocking 3.1.1 connection: whole packets in, gathered packets out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection, from CONNECT on. Every packet of these tests is shorter than 128 bytes, so each
/// header is two bytes.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Up to here `input` has been handled.
    handled: usize,
    output: Vec<u8>,
}

/// What a broker sends to these clients.
#[derive(Debug)]
pub(crate) enum Received {
    Publish { dup: bool, qos: u8, packet_id: u16, payload: [u8; 8] },
    Ack { first_byte: u8, packet_id: u16 },
    Suback,
}

impl Connection {
    /// Connects and waits for the CONNACK; also returns Session Present.
    pub(crate) fn open(
        port: u16,
        id: &str,
        clean: bool,
        keep_alive: u16,
    ) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_MAX))?;
        stream.set_write_timeout(Some(STALL_MAX))?;
        let mut connection = Self { stream, input: Vec::new(), handled: 0, output: Vec::new() };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, if clean { 2 } else { 0 }];
        body.extend(keep_alive.to_be_bytes());
        body.extend((id.len() as u16).to_be_bytes());
        body.extend(id.as_bytes());
        connection.packet(0x10, &body);
        connection.flush()?;
        let mut connack = [0; 4];
        connection.stream.read_exact(&mut connack)?;
        assert_eq!([connack[0], connack[1], connack[3]], [0x20, 2, 0], "{connack:02x?}");
        Ok((connection, connack[2] == 1))
    }

    pub(crate) fn subscribe(&mut self, topic: &str, qos: u8) {
        let mut body = vec![0, 1];
        body.extend((topic.len() as u16).to_be_bytes());
        body.extend(topic.as_bytes());
        body.push(qos);
        self.packet(0x82, &body);
    }

    pub(crate) fn publish(&mut self, dup: bool, qos: u8, topic: &str, id: u16, payload: u64) {
        let mut body = Vec::with_capacity(64);
        body.extend((topic.len() as u16).to_be_bytes());
        body.extend(topic.as_bytes());
        body.extend(id.to_be_bytes());
        body.extend(payload.to_be_bytes());
        self.packet(0x30 | u8::from(dup) << 3 | qos << 1, &body);
    }

    /// A PUBLISH at QoS 1 with a payload of so many bytes, at least eight.
    pub(crate) fn publish_sized(&mut self, topic: &str, id: u16, number: u64, bytes: usize) {
        let mut body = Vec::with_capacity(128);
        body.extend((topic.len() as u16).to_be_bytes());
        body.extend(topic.as_bytes());
        body.extend(id.to_be_bytes());
        body.resize(body.len() + bytes - 8, b'.');
        body.extend(number.to_be_bytes());
        self.packet(0x32, &body);
    }

    /// A PUBLISH at QoS 1 with RETAIN.
    pub(crate) fn retain(&mut self, topic: &str, id: u16, payload: u64) {
        let start = self.output.len();
        self.publish(false, 1, topic, id, payload);
        self.output[start] |= 1;
    }

    /// The same with a payload of so many bytes, at least eight.
    pub(crate) fn retain_sized(&mut self, topic: &str, id: u16, number: u64, bytes: usize) {
        let start = self.output.len();
        self.publish_sized(topic, id, number, bytes);
        self.output[start] |= 1;
    }

    /// PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70.
    pub(crate) fn ack(&mut self, first_byte: u8, packet_id: u16) {
        self.packet(first_byte, &packet_id.to_be_bytes());
    }

    fn packet(&mut self, first_byte: u8, body: &[u8]) {
        assert!(body.len() < 128);
        self.output.extend([first_byte, body.len() as u8]);
        self.output.extend(body);
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Sends a part of what was gathered, as a connection does that breaks in the middle.
    pub(crate) fn break_off(mut self, sent_max: usize) {
        let sent = self.output.len().min(sent_max);
        // It ends either way.
        let _ = self.stream.write_all(&self.output[..sent]);
    }

    /// The next packet that has arrived completely; `None` when more has to be read.
    pub(crate) fn next(&mut self) -> Option<Received> {
        let rest = &self.input[self.handled..];
        let length = 2 + usize::from(*rest.get(1)?);
        let packet = rest.get(..length)?;
        self.handled += length;
        let id = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        Some(match packet[0] {
            0x90 => {
                assert!(packet[4] <= 2, "subscription refused: {packet:02x?}");
                Received::Suback
            }
            first_byte @ (0x40 | 0x50 | 0x62 | 0x70) => {
                Received::Ack { first_byte, packet_id: id(2) }
            }
            first_byte if first_byte >> 4 == 3 => Received::Publish {
                dup: first_byte & 8 != 0,
                qos: first_byte >> 1 & 3,
                packet_id: id(4 + usize::from(id(2))),
                payload: packet[length - 8..].try_into().expect("eight bytes"),
            },
            _ => panic!("unexpected packet {packet:02x?}"),
        })
    }

    /// Waits for bytes. An end of the stream or nothing for long is an error.
    pub(crate) fn read(&mut self) -> io::Result<()> {
        self.input.drain(..self.handled);
        self.handled = 0;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.input.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }

    /// Gathered packets out, the next packet in.
    pub(crate) fn exchange(&mut self) -> io::Result<Received> {
        self.flush()?;
        loop {
            if let Some(received) = self.next() {
                return Ok(received);
            }
            self.read()?;
        }
    }
}

/// Silence for so long is a lost message.
const STALL_MAX: Duration = Duration::from_secs(20);
