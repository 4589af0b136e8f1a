//! WebSocket of one connection (RFC 6455): frames in, bytes out, and the other way round.
//!
//! A parser of hostile input that holds nothing: what a frame carries is passed on as it comes, whatever length it
//! claims to have; only control frames, of at most 125 bytes, are kept until they are whole. MQTT does not care
//! where frames begin (MQTT-6.0.0-2).

use std::sync::Arc;

use super::{Fault, upgrade::Upgrade};
use crate::{base::limits::WEBSOCKET_FRAME_BYTES_MAX, config::WebSocketRules};

/// Why a WebSocket is closed (RFC 6455 section 7.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum CloseCode {
    /// MQTT has come to its end on the connection.
    Normal = 1000,
    /// The server ends.
    GoingAway = 1001,
    /// The client broke the rules of WebSocket.
    ProtocolError = 1002,
    /// A text frame (MQTT-6.0.0-1).
    Unsupported = 1003,
    /// Text that is not UTF-8.
    InvalidText = 1007,
}

/// WebSocket of one connection, the server's side.
#[derive(Debug)]
pub(super) struct WebSocket {
    phase: Phase,
    /// The start of a frame, as far as it has come: header, extended length, key.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    /// The frame that is under way.
    frame: Option<Frame>,
    /// A message in fragments is under way.
    is_fragmented: bool,
    /// What has come of a control frame's payload.
    control: Vec<u8>,
    /// To be sent before all else: the answer to the request, or to the last ping.
    answer: Vec<u8>,
    /// How we are to close, if the client has given reason to.
    close_with: Option<u16>,
}

#[derive(Debug)]
enum Phase {
    /// The client's request is awaited.
    Upgrading(Box<Upgrade>),
    Open,
    /// The client has closed, or broken the rules.
    Over,
    /// Our close frame is sent.
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    left: u64,
    /// The key, its next byte first.
    key: [u8; 4],
}

impl WebSocket {
    pub(super) fn new(rules: Arc<WebSocketRules>) -> Self {
        Self {
            phase: Phase::Upgrading(Box::new(Upgrade::new(rules))),
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: None,
            is_fragmented: false,
            control: Vec::new(),
            answer: Vec::new(),
            close_with: None,
        }
    }

    /// Whether nothing more comes from the client.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Over | Phase::Closed)
    }

    /// Whether [`Self::send`] has something of its own.
    pub(super) fn has_answers(&self) -> bool {
        !self.answer.is_empty()
    }

    /// Takes received bytes: what they carry is appended to `plain`.
    pub(super) fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Fault> {
        let mut rest = bytes;
        if let Phase::Upgrading(upgrade) = &mut self.phase {
            let Some(used) = upgrade.receive(rest, &mut self.answer).inspect_err(|_| {
                // Said in HTTP already.
                self.phase = Phase::Closed;
            })?
            else {
                return Ok(());
            };
            rest = &rest[used..];
            self.phase = Phase::Open;
        }
        while !rest.is_empty() && matches!(self.phase, Phase::Open) {
            let outcome = match self.frame {
                None => self.take_header(&mut rest),
                Some(frame) => self.take_payload(frame, &mut rest, plain),
            };
            if let Err((code, why)) = outcome {
                self.phase = Phase::Over;
                self.close_with = Some(code as u16);
                return Err(Fault::WebSocket(why));
            }
        }
        Ok(())
    }

    /// Appends what is to be answered, then `plain` in frames.
    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.answer);
        if matches!(self.phase, Phase::Open | Phase::Over) {
            for payload in plain.chunks(WEBSOCKET_FRAME_BYTES_MAX) {
                push_frame(BINARY, payload, out);
            }
        }
    }

    /// Appends what is to be answered and a close frame, once.
    pub(super) fn close(&mut self, code: CloseCode, out: &mut Vec<u8>) {
        out.append(&mut self.answer);
        if matches!(self.phase, Phase::Open | Phase::Over) {
            let code = self.close_with.unwrap_or(code as u16);
            push_frame(CLOSE, &code.to_be_bytes(), out);
        }
        self.phase = Phase::Closed;
    }

    /// Takes as much of a frame's start as there is, and checks it as soon as it can be.
    fn take_header(&mut self, rest: &mut &[u8]) -> Result<(), Refusal> {
        let have = usize::from(self.header_bytes);
        let needed = if have < 2 { 2 } else { header_bytes(self.header[1]) };
        let taken = rest.len().min(needed - have);
        let (now, later) = rest.split_at(taken);
        self.header[have..have + taken].copy_from_slice(now);
        *rest = later;
        self.header_bytes += taken as u8;
        if have + taken < needed {
            return Ok(());
        }
        if needed == 2 {
            // Every header of a client has a key behind these two.
            return self.check_start(self.header[0], self.header[1]);
        }
        let (length, key) = self.header[2..needed].split_at(needed - 6);
        let left = match *length {
            [] => u64::from(self.header[1] & LENGTH_BITS),
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let is_minimal = match length.len() {
            0 => true,
            2 => left > u64::from(CONTROL_BYTES_MAX),
            _ => left > u64::from(u16::MAX) && left >> 63 == 0,
        };
        if !is_minimal {
            return Err((CloseCode::ProtocolError, "a length in the wrong form"));
        }
        let opcode = self.header[0] & OPCODE_BITS;
        self.header_bytes = 0;
        let frame = Frame { opcode, left, key: [key[0], key[1], key[2], key[3]] };
        if left > 0 {
            self.frame = Some(frame);
            return Ok(());
        }
        self.frame_ended(opcode)
    }

    /// Checks the first two bytes of a frame.
    fn check_start(&mut self, first: u8, second: u8) -> Result<(), Refusal> {
        let refuse = |why| Err((CloseCode::ProtocolError, why));
        if first & RESERVED_BITS != 0 {
            return refuse("reserved bits are set");
        }
        if second & MASKED == 0 {
            return refuse("a frame of a client without a mask");
        }
        let is_final = first & FINAL != 0;
        match first & OPCODE_BITS {
            CONTINUATION if !self.is_fragmented => refuse("nothing is there to be continued"),
            BINARY if self.is_fragmented => refuse("a message within another"),
            CONTINUATION | BINARY => {
                self.is_fragmented = !is_final;
                Ok(())
            }
            TEXT => Err((CloseCode::Unsupported, "a text frame (MQTT-6.0.0-1)")),
            CLOSE | PING | PONG if !is_final => refuse("a control frame in fragments"),
            CLOSE | PING | PONG if second & LENGTH_BITS > CONTROL_BYTES_MAX => {
                refuse("a control frame of more than 125 bytes")
            }
            CLOSE | PING | PONG => Ok(()),
            _ => refuse("an unknown kind of frame"),
        }
    }

    fn take_payload(
        &mut self,
        mut frame: Frame,
        rest: &mut &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let taken = usize::try_from(frame.left).unwrap_or(usize::MAX).min(rest.len());
        let (now, later) = rest.split_at(taken);
        *rest = later;
        let target = if frame.opcode & CONTROL == 0 { plain } else { &mut self.control };
        let start = target.len();
        target.extend_from_slice(now);
        unmask(&mut target[start..], frame.key);
        frame.key.rotate_left(taken % 4);
        frame.left -= taken as u64;
        self.frame = (frame.left > 0).then_some(frame);
        if frame.left == 0 { self.frame_ended(frame.opcode) } else { Ok(()) }
    }

    fn frame_ended(&mut self, opcode: u8) -> Result<(), Refusal> {
        if opcode & CONTROL == 0 {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.control);
        match opcode {
            PING => {
                // The last one counts (section 5.5.3), so that pings that nobody reads the answers of cost nothing.
                // An answer to the request is not passed by.
                let is_pong = self.answer.first() == Some(&(FINAL | PONG));
                if is_pong {
                    self.answer.clear();
                }
                if self.answer.len() <= ANSWER_BYTES_MAX {
                    push_frame(PONG, &payload, &mut self.answer);
                }
            }
            CLOSE => {
                self.close_with = Some(answer_to_close(&payload)?);
                self.phase = Phase::Over;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Why a frame is refused, for the client and for the log.
type Refusal = (CloseCode, &'static str);

/// The code that answers a close frame with this payload: its own.
fn answer_to_close(payload: &[u8]) -> Result<u16, Refusal> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(CloseCode::Normal as u16),
            _ => Err((CloseCode::ProtocolError, "a close frame with half a code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err((CloseCode::ProtocolError, "a close frame with a code that is none"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) => Err((CloseCode::InvalidText, "a close frame whose reason is not UTF-8")),
    }
}

/// Bytes of a frame's start whose second byte is this one.
fn header_bytes(second: u8) -> usize {
    let extended = match second & LENGTH_BITS {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + extended + 4
}

/// Takes the mask off, eight bytes at a time.
fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

fn push_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(FINAL | opcode);
    match payload.len() {
        bytes if bytes <= usize::from(CONTROL_BYTES_MAX) => out.push(bytes as u8),
        bytes => match u16::try_from(bytes) {
            Ok(bytes) => {
                out.push(126);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Err(_) => {
                out.push(127);
                out.extend_from_slice(&(bytes as u64).to_be_bytes());
            }
        },
    }
    out.extend_from_slice(payload);
}

const FINAL: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0F;
const MASKED: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7F;
/// Set in the opcodes of control frames.
const CONTROL: u8 = 0x8;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// Payload bytes of a control frame (section 5.5).
const CONTROL_BYTES_MAX: u8 = 125;
/// Two bytes, an extended length and a key.
const HEADER_BYTES_MAX: usize = 14;
/// Of answers that are not sent yet, above which a ping has none: more than that to the request has.
const ANSWER_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests;
