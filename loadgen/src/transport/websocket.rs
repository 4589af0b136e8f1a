//! WebSocket of one connection (RFC 6455), and what its handshake asks for.
//!
//! Owns the framing; knows nothing of what is carried, nor whether there is TLS below.

use std::io::{self, Cursor, Read, Write};

use tungstenite::{
    ClientRequestBuilder, Error, HandshakeError, Message,
    client::IntoClientRequest,
    handshake::{MidHandshake, client::ClientHandshake},
    http::Uri,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

use super::{EARLY_BYTES_MAX, TransportError};

/// How WebSockets are made.
#[derive(Clone)]
pub(super) struct WebSocketSetup {
    uri: Uri,
}

impl WebSocketSetup {
    pub(super) fn new(host: &str, port: u16, path: &str) -> Result<Self, TransportError> {
        let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path || path.contains('#') {
            return Err(TransportError::WebSocketPath(path.to_owned()));
        }
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // The scheme does not get into the request; whether there is TLS makes no difference here.
        let uri = Uri::builder().scheme("ws").authority(authority).path_and_query(path).build();
        match uri {
            Ok(uri) if !host.is_empty() => Ok(Self { uri }),
            _ => Err(TransportError::WebSocketHost(host.to_owned())),
        }
    }
}

/// WebSocket of one connection.
pub(crate) struct WebSocket {
    /// Until the handshake is done.
    opening: Option<Box<Opening>>,
    context: WebSocketContext,
}

/// A handshake.
struct Opening {
    handshake: MidHandshake<ClientHandshake<OwnedPipe>>,
    /// What has been received of the server's answer. It is given to the handshake whole, which
    /// takes many small pieces for an attack.
    head: Vec<u8>,
    /// What is to be sent when the handshake is done.
    early: Vec<u8>,
}

impl WebSocket {
    pub(super) fn new(setup: &WebSocketSetup) -> Result<Self, TransportError> {
        let request = ClientRequestBuilder::new(setup.uri.clone())
            .with_sub_protocol(SUBPROTOCOL)
            .into_client_request();
        let handshake = request
            .and_then(|request| ClientHandshake::start(OwnedPipe::default(), request, None))
            .map_err(TransportError::WebSocketSetup)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let handshake = match handshake.handshake() {
            Err(HandshakeError::Interrupted(handshake)) => handshake,
            Err(HandshakeError::Failure(error)) => {
                return Err(TransportError::WebSocketSetup(error));
            }
            Ok(_) => unreachable!("the request is written, and there is no answer to be read yet"),
        };
        let opening = Opening { handshake, head: Vec::new(), early: Vec::new() };
        let context = WebSocketContext::new(Role::Client, Some(config));
        Ok(Self { opening: Some(Box::new(opening)), context })
    }

    pub(super) fn start(&mut self, out: &mut Vec<u8>) {
        if let Some(opening) = &mut self.opening {
            out.append(&mut opening.handshake.get_mut().get_mut().output);
        }
    }

    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let mut bytes = bytes;
        if let Some(mut opening) = self.opening.take() {
            if !opening.read_head(&mut bytes)? {
                self.opening = Some(opening);
                return Ok(());
            }
            let early = opening.finish()?;
            self.send(&early, out)?;
        }
        self.read_frames(bytes, plain, out)
    }

    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TransportError> {
        if let Some(opening) = &mut self.opening {
            if opening.early.len() + plain.len() > EARLY_BYTES_MAX {
                return Err(TransportError::TooMuchTooEarly);
            }
            opening.early.extend_from_slice(plain);
            return Ok(());
        }
        // Past a close frame, of whichever side, nothing may be sent.
        if !self.context.can_write() {
            return Ok(());
        }
        let mut pipe = Pipe { input: io::empty(), output: out };
        for chunk in plain.chunks(FRAME_BYTES_MAX) {
            let frame = Message::binary(chunk.to_vec());
            self.context.write(&mut pipe, frame).map_err(TransportError::websocket)?;
        }
        Ok(())
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.opening.is_none() && self.context.can_write() {
            let frame = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
            // Nothing is left to do if that cannot be said.
            let _ = self.context.close(&mut Pipe { input: io::empty(), output: out }, Some(frame));
        }
    }

    pub(super) fn ended(&self) -> Result<(), TransportError> {
        match self.opening {
            Some(_) => Err(TransportError::EndedInWebSocketHandshake),
            None => Ok(()),
        }
    }

    fn read_frames(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let mut pipe = Pipe { input: bytes, output: out };
        // Behind a close frame nothing counts.
        while self.context.can_read() {
            match self.context.read(&mut pipe) {
                Ok(Message::Binary(payload)) => plain.extend_from_slice(&payload),
                Ok(Message::Text(_)) => return Err(TransportError::TextFrame),
                // The next read sends a pong.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(frame)) => {
                    self.context.flush(&mut pipe).map_err(TransportError::websocket)?;
                    return TransportError::websocket_closed(frame.as_ref());
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(TransportError::websocket(error)),
            }
        }
        Ok(())
    }
}

impl Opening {
    /// Takes the bytes up to the end of the answer's head, and tells whether that was among them.
    fn read_head(&mut self, bytes: &mut &[u8]) -> Result<bool, TransportError> {
        let known = self.head.len();
        let room = HEAD_BYTES_MAX - known;
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // Told by the first bytes, because a server of another protocol says no more than those.
        if !self.head.iter().zip(HEAD_START).all(|(got, expected)| got == expected) {
            return Err(TransportError::not_websocket(self.head.first()));
        }
        let search_from = known.saturating_sub(HEAD_END.len() - 1);
        let found = self.head[search_from..].windows(HEAD_END.len()).position(|at| at == HEAD_END);
        match found {
            Some(at) => {
                self.head.truncate(search_from + at + HEAD_END.len());
                *bytes = &bytes[self.head.len() - known..];
                Ok(true)
            }
            None if self.head.len() == HEAD_BYTES_MAX => Err(TransportError::WebSocketHeadTooLong),
            None => Ok(false),
        }
    }

    /// Checks the answer. Returns what is to be sent now.
    fn finish(mut self) -> Result<Vec<u8>, TransportError> {
        self.handshake.get_mut().get_mut().input = Cursor::new(self.head);
        match self.handshake.handshake() {
            Ok(_) => Ok(self.early),
            Err(HandshakeError::Failure(error)) => Err(TransportError::websocket_handshake(error)),
            Err(HandshakeError::Interrupted(_)) => Err(TransportError::not_websocket(None)),
        }
    }
}

/// A stream in memory: what has been received, and where to put what is to be sent.
#[derive(Default)]
struct Pipe<I, O> {
    input: I,
    output: O,
}

type OwnedPipe = Pipe<Cursor<Vec<u8>>, Vec<u8>>;

impl<I: Read, O> Read for Pipe<I, O> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            // The end of what has been received so far is not the end of the stream.
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl<I, O: Write> Write for Pipe<I, O> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What MQTT calls itself in the handshake (MQTT-6.0.0-3, MQTT-6.0.0-4).
const SUBPROTOCOL: &str = "mqtt";

const HEAD_START: &[u8] = b"HTTP/";

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest message and frame to be received: several times the largest payload of a load.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest frame to be sent. A connection holds on to a buffer of the longest it has sent; a
/// packet may be spread over several (MQTT-6.0.0-2).
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Held by each connection, and as much is zeroed for each read.
const READ_BUFFER_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use tungstenite::handshake::derive_accept_key;

    use super::*;

    fn started() -> (WebSocket, String) {
        let setup = WebSocketSetup::new("broker.test", 8083, "/mqtt").expect("valid");
        let mut websocket = WebSocket::new(&setup).expect("valid");
        let mut request = Vec::new();
        websocket.start(&mut request);
        (websocket, String::from_utf8(request).expect("text"))
    }

    fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The answer of a server with this line about the subprotocol.
    fn answer(request: &str, subprotocol: &str) -> Vec<u8> {
        let key = header(request, "Sec-WebSocket-Key").expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
        )
        .into_bytes()
    }

    const AGREED: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

    fn open() -> WebSocket {
        let (mut websocket, request) = started();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let answer = answer(&request, AGREED);
        websocket.receive(&answer, &mut plain, &mut out).expect("agreed");
        assert!(plain.is_empty() && out.is_empty() && websocket.ended().is_ok());
        websocket
    }

    /// What a frame in `out` says: its first byte and its payload.
    fn unmasked(out: &[u8]) -> (u8, Vec<u8>) {
        assert_eq!(out[1] & 0x80, 0x80, "a client has to mask");
        assert_eq!(out.len(), 6 + usize::from(out[1] & 0x7F), "a whole small frame");
        let payload = out[6..].iter().zip(out[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask);
        (out[0], payload.collect())
    }

    fn refusal(received: &[u8]) -> String {
        let (mut websocket, _) = started();
        let outcome = websocket.receive(received, &mut Vec::new(), &mut Vec::new());
        outcome.expect_err("refused").to_string()
    }

    #[test]
    fn the_handshake_asks_for_mqtt_on_the_path() {
        let (_, request) = started();
        assert!(request.starts_with("GET /mqtt HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"), "{request}");
        for (name, value) in [
            ("Host", "broker.test:8083"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "mqtt"),
        ] {
            assert_eq!(header(&request, name), Some(value), "{name} in {request}");
        }
        let (_, other) = started();
        assert_ne!(header(&request, "Sec-WebSocket-Key"), header(&other, "Sec-WebSocket-Key"));
    }

    #[test]
    fn an_address_of_ip_version_6_stands_in_brackets() {
        let setup = WebSocketSetup::new("::1", 80, "/").expect("valid");
        assert_eq!(setup.uri.to_string(), "ws://[::1]:80/");
    }

    #[test]
    fn what_cannot_stand_in_a_request_is_refused_before_any_connection() {
        for path in ["", "mqtt", "/a b", "/a\r\nHost: other", "/mqtt#part", "/\u{e4}"] {
            let error = WebSocketSetup::new("localhost", 80, path).err().expect("refused");
            assert!(matches!(error, TransportError::WebSocketPath(_)), "{path:?}: {error}");
        }
        for host in ["", "a b", "a\r\nb", "a/b"] {
            let error = WebSocketSetup::new(host, 80, "/mqtt").err().expect("refused");
            assert!(matches!(error, TransportError::WebSocketHost(_)), "{host:?}: {error}");
        }
    }

    #[test]
    fn a_server_that_does_not_offer_mqtt_is_told_apart() {
        let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
        for (received, said) in [
            (status("404 Not Found"), "\"404 Not Found\": is the path right?"),
            (status("400 Bad Request"), "\"400 Bad Request\""),
            (status("200 OK"), "\"200 OK\""),
            ("SSH-2.0-OpenSSH\r\n".to_owned(), "does not speak WebSocket on this port"),
            ("\x15\x03\x01\0\x02\x02\x16".to_owned(), "it speaks TLS"),
            ("\x20\x02\0\x01".to_owned(), "it speaks MQTT without WebSocket"),
            (format!("HTTP/1.1 101 X\r\nA: {}", "a".repeat(HEAD_BYTES_MAX)), "has no end"),
            ("HTTP/1.1 101 X\r\n\r\n".to_owned(), "No \"Upgrade: websocket\" header"),
            ("HTTP/\0\r\n\r\n".to_owned(), "broke the rules of WebSocket"),
        ] {
            let error = refusal(received.as_bytes());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_server_has_to_agree_to_the_subprotocol() {
        for subprotocol in ["", "Sec-WebSocket-Protocol: chat\r\n"] {
            let (mut websocket, request) = started();
            let answer = answer(&request, subprotocol);
            let outcome = websocket.receive(&answer, &mut Vec::new(), &mut Vec::new());
            assert!(matches!(outcome, Err(TransportError::SubprotocolRefused)), "{outcome:?}");
        }
    }

    #[test]
    fn the_answer_to_another_key_is_refused() {
        let (_, other_request) = started();
        let (mut websocket, _) = started();
        let answer = answer(&other_request, AGREED);
        let outcome = websocket.receive(&answer, &mut Vec::new(), &mut Vec::new());
        let error = outcome.expect_err("refused").to_string();
        assert!(error.contains("Sec-WebSocket-Accept"), "{error}");
    }

    #[test]
    fn the_end_of_the_connection_is_an_error_before_the_end_of_the_handshake() {
        let (mut websocket, request) = started();
        let answer = answer(&request, AGREED);
        let (head, last) = answer.split_at(answer.len() - 1);
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        websocket.receive(head, &mut plain, &mut out).expect("so far good");
        assert!(matches!(websocket.ended(), Err(TransportError::EndedInWebSocketHandshake)));
        websocket.receive(last, &mut plain, &mut out).expect("good");
        assert!(websocket.ended().is_ok());
    }

    #[test]
    fn early_bytes_go_out_with_the_end_of_the_handshake_and_frames_behind_it_are_read() {
        let (mut websocket, request) = started();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        websocket.send(b"early ", &mut out).expect("kept");
        websocket.send(b"bird", &mut out).expect("kept");
        assert!(out.is_empty());
        let mut received = answer(&request, AGREED);
        received.extend_from_slice(b"\x82\x04worm");
        websocket.receive(&received, &mut plain, &mut out).expect("good");
        assert_eq!(unmasked(&out), (0x82, b"early bird".to_vec()));
        assert_eq!(plain, b"worm");
    }

    #[test]
    fn early_bytes_are_bounded() {
        let (mut websocket, _) = started();
        let (most, mut out) = (vec![0; EARLY_BYTES_MAX], Vec::new());
        websocket.send(&most, &mut out).expect("room");
        let outcome = websocket.send(b"x", &mut out);
        assert!(matches!(outcome, Err(TransportError::TooMuchTooEarly)), "{outcome:?}");
    }

    #[test]
    fn packets_may_be_joined_in_frames_and_split_across_them() {
        for received in [
            &b"\x82\x06packet"[..],
            b"\x82\x03pac\x82\x03ket",
            b"\x02\x03pac\x80\x03ket",
            b"\x02\x03pac\x89\0\x00\0\x8A\0\x80\x03ket",
        ] {
            for chunk in [1, 2, received.len()] {
                let mut websocket = open();
                let (mut plain, mut out) = (Vec::new(), Vec::new());
                for bytes in received.chunks(chunk) {
                    websocket.receive(bytes, &mut plain, &mut out).expect("valid");
                }
                assert_eq!(plain, b"packet", "{received:?} by {chunk}");
            }
        }
    }

    #[test]
    fn each_send_is_a_frame_and_a_long_one_several() {
        let mut websocket = open();
        let mut out = Vec::new();
        websocket.send(b"", &mut out).expect("open");
        assert!(out.is_empty());
        websocket.send(b"packet", &mut out).expect("open");
        assert_eq!(unmasked(&out), (0x82, b"packet".to_vec()));
        out.clear();
        websocket.send(&vec![0; FRAME_BYTES_MAX + 1], &mut out).expect("open");
        assert_eq!(out.len(), (2 + 8 + 4 + FRAME_BYTES_MAX) + (2 + 4 + 1));
    }

    #[test]
    fn each_ping_is_answered_with_its_payload() {
        let mut websocket = open();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        websocket.receive(b"\x89\x02hi\x82\x01p", &mut plain, &mut out).expect("valid");
        assert_eq!((unmasked(&out), plain), ((0x8A, b"hi".to_vec()), b"p".to_vec()));
    }

    #[test]
    fn a_close_frame_is_answered_and_nothing_sent_or_read_behind_it() {
        let mut websocket = open();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        websocket
            .receive(b"\x82\x01p\x88\x02\x03\xE8\x82\x01q", &mut plain, &mut out)
            .expect("in order");
        assert_eq!((unmasked(&out), &plain[..]), ((0x88, vec![0x03, 0xE8]), &b"p"[..]));
        out.clear();
        websocket.receive(b"\x82\x01q", &mut plain, &mut out).expect("ignored");
        websocket.send(b"late", &mut out).expect("dropped");
        websocket.close(&mut out);
        assert_eq!((out, plain), (vec![], b"p".to_vec()));
    }

    #[test]
    fn a_close_frame_that_blames_somebody_is_an_error() {
        let mut websocket = open();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let outcome = websocket.receive(b"\x88\x05\x03\xEAwhy", &mut plain, &mut out);
        let error = outcome.expect_err("blamed").to_string();
        assert_eq!(error, "the server closed the WebSocket with 1002 (\"why\")");
        assert_eq!(unmasked(&out), (0x88, b"\x03\xEAwhy".to_vec()));
    }

    #[test]
    fn closing_sends_one_close_frame_and_takes_the_answer() {
        let mut websocket = open();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        websocket.close(&mut out);
        websocket.close(&mut out);
        assert_eq!(unmasked(&out), (0x88, vec![0x03, 0xE8]));
        websocket
            .receive(b"\x82\x01p\x88\x02\x03\xE8", &mut plain, &mut out)
            .expect("as it should be");
        assert_eq!(plain, b"p");
    }

    #[test]
    fn what_breaks_the_rules_is_an_error() {
        let mut too_long = b"\x82\x7F".to_vec();
        too_long.extend_from_slice(&(MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes());
        for (received, said) in [
            (&b"\x81\x02hi"[..], "text frame"),
            (b"\x82\x81\0\0\0\0a", "masked"),
            (b"\xC2\x01a", "Reserved bits"),
            (b"\x80\x01a", "nothing to continue"),
            (b"\x83\x01a", "broke the rules of WebSocket"),
            (b"\x09\0", "Fragmented control frame"),
            (b"\x89\x7E\0\x7E", "broke the rules of WebSocket"),
            (&too_long, "too long a WebSocket message"),
        ] {
            let mut padded = received.to_vec();
            padded.resize(received.len() + 200, 0);
            let outcome = open().receive(&padded, &mut Vec::new(), &mut Vec::new());
            let error = outcome.expect_err(said).to_string();
            assert!(error.contains(said), "{error}, not {said}");
        }
    }
}
