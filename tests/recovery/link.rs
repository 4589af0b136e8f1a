//! One connection of a client that expects its broker to die: every failure is a value, and nothing
//! is answered here. 3.1.1 and 5.0; what a client remembers is kept by those who use this.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::fields;

/// Who connects, and how.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) client: String,
    /// 4 for 3.1.1, 5 for 5.0.
    pub(crate) version: u8,
    /// 5.0 only: Receive Maximum.
    pub(crate) receive_max: u16,
}

/// A TCP connection with an accepted CONNECT.
pub(crate) struct Link {
    stream: TcpStream,
    version: u8,
    input: Vec<u8>,
    /// Up to here `input` has been handled.
    handled: usize,
    output: Vec<u8>,
}

/// What a broker sends.
#[derive(Debug)]
pub(crate) enum Packet {
    Publish(Delivered),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack {
        kind: u8,
        packet_id: u16,
        reason: u8,
    },
    Suback(Vec<u8>),
    Other,
}

/// A PUBLISH from the broker.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    /// 0 at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) payload: Vec<u8>,
}

/// A PUBLISH to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: &'a str,
    pub(crate) packet_id: u16,
    pub(crate) payload: &'a [u8],
}

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const DISCONNECT: u8 = 0xe0;
pub(crate) const PUBCOMP: u8 = 0x70;

impl Link {
    /// Connects without Clean Start, the session to outlive its connection by an hour or, in 3.1.1,
    /// for ever. Also returns Session Present.
    pub(crate) fn open(port: u16, who: &Identity, clean: bool) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL_MAX))?;
        let (input, output) = (Vec::new(), Vec::new());
        let mut link = Self { stream, version: who.version, input, handled: 0, output };
        let mut body = text("MQTT");
        body.extend([who.version, if clean { 2 } else { 0 }, 0, 0]);
        if who.version == 5 {
            let expiry_secs: u32 = if clean { 0 } else { 3600 };
            body.extend([8, 0x11]);
            body.extend(expiry_secs.to_be_bytes());
            body.push(0x21);
            body.extend(who.receive_max.to_be_bytes());
        }
        body.extend(text(&who.client));
        link.packet(0x10, &body);
        link.flush()?;
        let Some((0x20, body)) = link.read_raw(STALL_MAX)? else {
            return Err(ErrorKind::TimedOut.into());
        };
        if body.get(1) != Some(&0) {
            return Err(io::Error::other(format!("CONNECT is refused: {body:02x?}")));
        }
        Ok((link, body[0] == 1))
    }

    pub(crate) fn subscribe<'f>(&mut self, filters: impl Iterator<Item = (&'f str, u8)>) {
        let mut body = vec![0xff, 0xff];
        if self.version == 5 {
            body.push(0);
        }
        for (filter, qos) in filters {
            body.extend(text(filter));
            body.push(qos);
        }
        self.packet(0x82, &body);
    }

    pub(crate) fn publish(&mut self, message: &Outgoing) {
        let mut body = text(message.topic);
        body.extend(message.packet_id.to_be_bytes());
        if self.version == 5 {
            body.push(0);
        }
        body.extend(message.payload);
        let flags = u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain);
        self.packet(0x30 | flags, &body);
    }

    pub(crate) fn ack(&mut self, kind: u8, packet_id: u16) {
        self.packet(kind, &packet_id.to_be_bytes());
    }

    /// DISCONNECT; the session stays.
    pub(crate) fn disconnect(mut self) {
        self.packet(0xe0, &[]);
        // The broker may be dead by now.
        let _ = self.flush();
    }

    /// Sends a part of what was gathered, as a client does that dies.
    pub(crate) fn break_off(mut self, sent_max: usize) {
        let sent = self.output.len().min(sent_max);
        // It ends either way.
        let _ = self.stream.write_all(&self.output[..sent]);
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// The next packet, if one comes within `time`.
    pub(crate) fn next(&mut self, time: Duration) -> io::Result<Option<Packet>> {
        let version = self.version;
        match self.read_raw(time)? {
            // The broker ends in order.
            Some((DISCONNECT, _)) => Err(ErrorKind::UnexpectedEof.into()),
            packet => Ok(packet.map(|(first_byte, body)| parse(version, first_byte, &body))),
        }
    }

    fn packet(&mut self, first_byte: u8, body: &[u8]) {
        self.output.push(first_byte);
        let mut left = body.len();
        loop {
            let low = (left % 128) as u8;
            left /= 128;
            self.output.push(if left == 0 { low } else { low | 0x80 });
            if left == 0 {
                break;
            }
        }
        self.output.extend(body);
    }

    fn read_raw(&mut self, time: Duration) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((first_byte, from, to)) = frame(&self.input[self.handled..]) {
                let body = self.input[self.handled + from..self.handled + to].to_vec();
                self.handled += to;
                return Ok(Some((first_byte, body)));
            }
            self.input.drain(..self.handled);
            self.handled = 0;
            let mut chunk = [0; 16 * 1024];
            self.stream.set_read_timeout(Some(time))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The first byte of the packet at the start of `bytes`, and where its body begins and ends.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let mut length = 0;
    for at in 0..4 {
        let byte = *bytes.get(1 + at)?;
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let (from, to) = (2 + at, 2 + at + length);
            return (bytes.len() >= to).then_some((bytes[0], from, to));
        }
    }
    panic!("no end of a Remaining Length: {bytes:02x?}");
}

fn parse(version: u8, first_byte: u8, body: &[u8]) -> Packet {
    let id = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match first_byte {
        first_byte if first_byte >> 4 == 3 => {
            let qos = first_byte >> 1 & 3;
            let topic_end = 2 + usize::from(id(0));
            let topic = std::str::from_utf8(&body[2..topic_end]).expect("UTF-8").to_owned();
            let packet_id = if qos > 0 { id(topic_end) } else { 0 };
            let rest = &body[topic_end + if qos > 0 { 2 } else { 0 }..];
            let payload = if version == 5 { fields(rest).1 } else { rest }.to_vec();
            let (dup, retain) = (first_byte & 8 != 0, first_byte & 1 != 0);
            Packet::Publish(Delivered { dup, qos, retain, topic, packet_id, payload })
        }
        PUBACK | PUBREC | PUBREL | PUBCOMP => Packet::Ack {
            kind: first_byte,
            packet_id: id(0),
            reason: body.get(2).copied().unwrap_or(0),
        },
        0x90 => {
            let rest = &body[2..];
            Packet::Suback(if version == 5 { fields(rest).1 } else { rest }.to_vec())
        }
        _ => Packet::Other,
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// An answer that takes longer never comes; the connection is given up and made again.
const STALL_MAX: Duration = Duration::from_secs(10);
