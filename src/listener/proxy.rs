//! The header that a proxy puts in front of a connection (PROXY protocol, versions 1 and 2): who the client is.
//!
//! Bounded before it is parsed, and read only from addresses that are trusted: to all others it is what it looks
//! like, no CONNECT. Knows nothing of what follows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Fault;
use crate::base::{Peer, limits::PROXY_HEADER_BYTES_MAX};

/// A header that is awaited.
#[derive(Debug, Default)]
pub(super) struct ProxyHeader {
    received: Vec<u8>,
}

impl ProxyHeader {
    /// Takes received bytes. Once the header is whole: how many of them belonged to it, and the client, unless the
    /// proxy speaks for itself or does not know.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Option<(usize, Option<Peer>)>, Fault> {
        let before = self.received.len();
        let room = PROXY_HEADER_BYTES_MAX - before;
        self.received.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let parsed = parse(&self.received).map_err(Fault::Proxy)?;
        Ok(parsed.map(|(header_bytes, client)| (header_bytes - before, client)))
    }
}

/// The header's length and the client, once all of it is there.
fn parse(received: &[u8]) -> Result<Option<(usize, Option<Peer>)>, &'static str> {
    let starts = |signature: &[u8]| {
        let common = received.len().min(signature.len());
        received[..common] == signature[..common]
    };
    if starts(SIGNATURE_2) {
        parse_2(received)
    } else if starts(SIGNATURE_1) {
        parse_1(received)
    } else {
        Err("a connection of a trusted proxy without a header")
    }
}

/// Version 1: a line of text.
fn parse_1(received: &[u8]) -> Result<Option<(usize, Option<Peer>)>, &'static str> {
    let line = &received[..received.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return if line.len() < LINE_BYTES_MAX { Ok(None) } else { Err("a line without end") };
    };
    let wrong = "a line that is not in its form";
    let line = std::str::from_utf8(&line[..end]).map_err(|_| wrong)?;
    let mut fields = line.split(' ').skip(1);
    let family = fields.next().ok_or(wrong)?;
    if family == "UNKNOWN" {
        return Ok(Some((end + 2, None)));
    }
    let mut address = || -> Option<IpAddr> {
        let text = fields.next()?;
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, _) = address().zip(address()).ok_or(wrong)?;
    let mut port = || fields.next().filter(|text| is_number(text))?.parse::<u16>().ok();
    let (source_port, _) = port().zip(port()).ok_or(wrong)?;
    if fields.next().is_some() {
        return Err(wrong);
    }
    Ok(Some((end + 2, Some(SocketAddr::new(source, source_port).into()))))
}

/// Decimal digits without a sign or leading zeros.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'))
}

/// Version 2: binary.
fn parse_2(received: &[u8]) -> Result<Option<(usize, Option<Peer>)>, &'static str> {
    let Some((head, rest)) = received.split_first_chunk::<16>() else { return Ok(None) };
    let [.., version_command, family, high, low] = *head;
    let body_bytes = usize::from(u16::from_be_bytes([high, low]));
    let header_bytes = head.len() + body_bytes;
    if header_bytes > PROXY_HEADER_BYTES_MAX {
        return Err("a header that is too long");
    }
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err("an unknown version or command"),
    };
    let Some(body) = rest.get(..body_bytes) else { return Ok(None) };
    let short = "addresses that are cut off";
    let (client, address_bytes) = match family {
        0x11 => {
            let ([source, port], bytes) = ([0..4, 8..10].map(|at| body.get(at)), 12);
            let source: [u8; 4] = field(source).ok_or(short)?;
            let port = field(port).map(u16::from_be_bytes).ok_or(short)?;
            (Some(Peer::from((Ipv4Addr::from(source), port))), bytes)
        }
        0x21 => {
            let ([source, port], bytes) = ([0..16, 32..34].map(|at| body.get(at)), 36);
            let source: [u8; 16] = field(source).ok_or(short)?;
            let port = field(port).map(u16::from_be_bytes).ok_or(short)?;
            (Some(Peer::from((Ipv6Addr::from(source), port))), bytes)
        }
        0x31 => (Some(Peer::Unix), 216),
        0x00 => (None, 0),
        _ if is_local => (None, 0),
        _ => return Err("neither TCP nor a unix stream"),
    };
    // A proxy that speaks for itself may leave out what it says is there.
    match body.get(address_bytes..) {
        Some(values) if family != 0 => check_values(values)?,
        Some(_) => {}
        None if is_local => {}
        None => return Err(short),
    }
    Ok(Some((header_bytes, client.filter(|_| !is_local))))
}

fn field<const N: usize>(bytes: Option<&[u8]>) -> Option<[u8; N]> {
    bytes?.try_into().ok()
}

/// Checks what follows the addresses: types, lengths and values that fill the header, text in those that are text.
fn check_values(values: &[u8]) -> Result<(), &'static str> {
    let mut rest = values;
    while let Some((kind, value, behind)) = split_value(rest)? {
        rest = behind;
        match kind {
            HOST | NAMESPACE => check_text(value)?,
            CHECKSUM if value.len() != 4 => return Err("a checksum that is not four bytes"),
            UNIQUE_ID if value.len() > 128 => return Err("an id of more than 128 bytes"),
            TLS => {
                // A byte of flags, four of the verification's outcome, then values again.
                let mut inner = value.get(5..).ok_or("values that are cut off")?;
                while let Some((_, value, behind)) = split_value(inner)? {
                    check_text(value)?;
                    inner = behind;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A value's type, the value, and what stands behind it.
type Value<'a> = (u8, &'a [u8], &'a [u8]);

/// The first of the values.
fn split_value(values: &[u8]) -> Result<Option<Value<'_>>, &'static str> {
    let cut_off = "values that are cut off";
    let Some((head, rest)) = values.split_first_chunk::<3>() else {
        return if values.is_empty() { Ok(None) } else { Err(cut_off) };
    };
    let bytes = usize::from(u16::from_be_bytes([head[1], head[2]]));
    let (value, behind) = rest.split_at_checked(bytes).ok_or(cut_off)?;
    Ok(Some((head[0], value, behind)))
}

fn check_text(value: &[u8]) -> Result<(), &'static str> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(char::is_control) => Ok(()),
        Ok(_) => Err("control characters in a value"),
        Err(_) => Err("a value that is not UTF-8"),
    }
}

const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
/// Types of values.
const HOST: u8 = 0x02;
const CHECKSUM: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const TLS: u8 = 0x20;
const NAMESPACE: u8 = 0x30;

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [SIGNATURE_2, &[command, family], &length, body].concat()
    }

    /// The client and what was used, or what is wrong, however the bytes are cut.
    #[track_caller]
    fn outcome(header: &[u8]) -> Result<Option<String>, &'static str> {
        let received = [header, b"\x10\x0c"].concat();
        let mut outcomes = (1..=received.len()).map(|chunk| {
            let mut proxy = ProxyHeader::default();
            let mut used = 0;
            for bytes in received.chunks(chunk) {
                match proxy.receive(bytes) {
                    Ok(None) => used += bytes.len(),
                    Ok(Some((last, client))) => {
                        assert_eq!(used + last, header.len(), "by {chunk}");
                        return Ok(client.map(|client| client.to_string()));
                    }
                    Err(Fault::Proxy(why)) => return Err(why),
                    Err(other) => panic!("{other}"),
                }
            }
            Err("no end")
        });
        let first = outcomes.next().unwrap();
        assert!(outcomes.all(|outcome| outcome == first));
        first
    }

    #[test]
    fn lines_of_version_1_name_the_client() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5555 1883\r\n", Ok(Some("192.0.2.1:5555"))),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Ok(Some("[2001:db8::1]:1"))),
            ("PROXY UNKNOWN\r\n", Ok(None)),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Ok(None)),
        ] {
            assert_eq!(
                outcome(line.as_bytes()),
                expected.map(|it| it.map(str::to_owned)),
                "{line}"
            );
        }
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 5555\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5555 1883 1\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 5555 1883\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 1883\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 1883\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 1883\r\n",
            "PROXY TCP4 ::1 ::1 1 1883\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 1883\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 1883\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5\x001 1883\r\n",
            "PROXY TCP4 192.0.2.\u{e4} 192.0.2.2 5 1883\r\n",
        ] {
            assert_eq!(outcome(line.as_bytes()), Err("a line that is not in its form"), "{line}");
        }
        let endless = format!("PROXY TCP4 {}", "1".repeat(200));
        assert_eq!(outcome(endless.as_bytes()), Err("a line without end"));
        for other in ["PROXX", "GET / ", "\x10\x0c\0\x04MQTT", "\r\n\r\n\0\r\nQUIX"] {
            let expected = Err("a connection of a trusted proxy without a header");
            assert_eq!(outcome(other.as_bytes()), expected, "{other}");
        }
    }

    #[test]
    fn version_2_names_the_client() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x15, 0xB3, 7, 0x5B];
        let v6 = [&[0x20, 1, 13, 0xB8][..], &[0; 28], &[0, 1, 0, 2]].concat();
        let values =
            b"\x01\0\x04mqtt\x02\0\x06a.test\x20\0\x0d\x01\0\0\0\0\x22\0\x05ann\xc3\xa9\x04\0\0";
        for (header, expected) in [
            (version_2(0x21, 0x11, &v4), Some("192.0.2.1:5555")),
            (version_2(0x21, 0x11, &[&v4[..], values].concat()), Some("192.0.2.1:5555")),
            (version_2(0x21, 0x21, &v6), Some("[2001:db8::]:1")),
            (version_2(0x21, 0x31, &[0; 216]), Some("unix")),
            (version_2(0x21, 0x00, b"whatever"), None),
            (version_2(0x20, 0x00, b""), None),
            (version_2(0x20, 0x11, &v4), None),
        ] {
            assert_eq!(outcome(&header), Ok(expected.map(str::to_owned)));
        }
    }

    #[test]
    fn hostile_headers_of_version_2_are_refused() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x15, 0xB3, 7, 0x5B];
        let with = |values: &[u8]| version_2(0x21, 0x11, &[&v4[..], values].concat());
        let control = "control characters in a value";
        let cut_off = "values that are cut off";
        for (header, expected) in [
            (version_2(0x21, 0x11, &v4[..11]), "addresses that are cut off"),
            (version_2(0x21, 0x21, &v4), "addresses that are cut off"),
            (version_2(0x21, 0x31, &[0; 215]), "addresses that are cut off"),
            (version_2(0x21, 0x12, &v4), "neither TCP nor a unix stream"),
            (version_2(0x22, 0x11, &v4), "an unknown version or command"),
            (version_2(0x11, 0x11, &v4), "an unknown version or command"),
            (version_2(0x21, 0x11, &[0; PROXY_HEADER_BYTES_MAX]), "a header that is too long"),
            (with(b"\x02\0"), cut_off),
            (with(b"\x02\0\x05ab"), cut_off),
            (with(b"\x02\xff\xffab"), cut_off),
            (with(b"\x02\0\x03a\0b"), control),
            (with(b"\x02\0\x03a\nb"), control),
            (with(b"\x30\0\x01\x7f"), control),
            (with(b"\x02\0\x02\xc2\x85"), control),
            (with(b"\x02\0\x01\xff"), "a value that is not UTF-8"),
            (with(b"\x20\0\x09\x01\0\0\0\0\x22\0\x01\x1b"), control),
            (with(b"\x20\0\x08\x01\0\0\0\0\x22\0\x01"), cut_off),
            (with(b"\x20\0\x02\x01\0"), cut_off),
            (with(b"\x03\0\x01a"), "a checksum that is not four bytes"),
            (with(&[&[5, 0, 129][..], &[0; 129]].concat()), "an id of more than 128 bytes"),
        ] {
            assert_eq!(outcome(&header), Err(expected), "{header:02x?}");
        }
    }
}
