//! What was read from connections: whole packets are handled, the rest is kept, and nothing is
//! looked at while a connection is paused.

use bytes::Bytes;

use crate::{
    base::{ConnId, SessionKey, limits, share_buffer},
    codec::{self, Frame, Original, Packet, PacketType, ReasonCode, frame_len, next_frame},
};

use super::{Broker, Effect, Flow, close::Cause, connection::Connection, packet_log};

impl Broker {
    /// Handles the whole packets at the start of `bytes`, which are `whole` if they can be shared; returns how many
    /// bytes they were. Stops early where the connection is paused.
    pub(super) fn read_packets(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        whole: Option<&Bytes>,
    ) -> usize {
        let mut used = 0;
        loop {
            let Some(connection) = self.connections.get_mut(conn) else { return bytes.len() };
            if self.peers.any_full() && !connection.paused.lanes {
                connection.paused.lanes = true;
                self.paused.push(conn);
            }
            self.memory.consider(conn, connection, &bytes[used..]);
            connection.paused.replies = connection.reply_bytes >= limits::REPLY_BYTES_MAX;
            if connection.paused.any() {
                // The end of one that waits for a verdict is worth knowing: nothing has to be checked then.
                if !connection.paused.verdict || used < bytes.len() {
                    self.effects.push_back(Effect::PauseReading { conn });
                }
                return used;
            }
            let packet_bytes_max =
                packet_bytes_max(connection, self.policy.limits.packet_bytes_max);
            let rest = &bytes[used..];
            let flow = match next_frame(rest, packet_bytes_max) {
                Ok(None) => return used,
                Ok(Some(frame))
                    if frame.packet_type() == Some(PacketType::Disconnect)
                        && (!connection.ack_line.is_empty() || connection.is_held()) =>
                {
                    connection.paused.farewell = true;
                    self.effects.push_back(Effect::PauseReading { conn });
                    return used;
                }
                Ok(Some(frame))
                    if connection.terms.is_some()
                        && frame.packet_type() == Some(PacketType::Publish)
                        && let Err(flow) = self.spend_publish(conn, frame.len) =>
                {
                    return if flow == Flow::Gone { bytes.len() } else { used };
                }
                Ok(Some(frame)) => {
                    used += frame.len;
                    self.packet(conn, &frame, rest, whole)
                }
                Err(error) => {
                    self.close(conn, Cause::Faulty(error));
                    Flow::Gone
                }
            };
            if flow == Flow::Gone {
                return bytes.len();
            }
        }
    }

    /// Keeps what does not make a whole packet yet.
    pub(super) fn keep_input(&mut self, conn: ConnId, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let mut input = match frame_len(rest) {
            Some(len) if len >= limits::SHARED_BYTES_MIN => Vec::new(),
            _ => self.connections.spare(),
        };
        input.extend_from_slice(rest);
        match self.connections.get_mut(conn) {
            Some(connection) => connection.input = input,
            None => self.connections.recycle(input),
        }
    }

    /// Takes bytes that stand behind others. A large packet gets a buffer of its own, which is exactly as long, so that
    /// it can be kept as it is.
    pub(super) fn receive_behind(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let bytes_max = packet_bytes_max(connection, self.policy.limits.packet_bytes_max);
        let input = &mut connection.input;
        let large = frame_len(input).filter(|len| {
            (limits::SHARED_BYTES_MIN..=bytes_max as usize).contains(len) && input.len() < *len
        });
        let Some(len) = large.filter(|_| !connection.paused.any()) else {
            input.extend_from_slice(bytes);
            return self.read_input(conn);
        };
        let missing = len - input.len();
        let (now, later) = bytes.split_at(missing.min(bytes.len()));
        make_room(input, now.len(), len);
        input.extend_from_slice(now);
        if now.len() == missing {
            self.read_input(conn);
            if !later.is_empty() {
                self.receive(self.now, conn, later);
            }
        }
    }

    /// Handles what was kept, unless reading is still paused.
    pub(super) fn read_input(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.paused.any() {
            if connection.paused.verdict {
                self.effects.push_back(Effect::PauseReading { conn });
            }
            return;
        }
        let mut input = std::mem::take(&mut connection.input);
        let is_large = |len| (limits::SHARED_BYTES_MIN..=input.len()).contains(&len);
        // What has to wait for a lane stays as it is.
        if !self.peers.any_full() && frame_len(&input).is_some_and(is_large) {
            return self.read_large_input(conn, input);
        }
        let used = self.read_packets(conn, &input, None);
        if used < input.len()
            && let Some(connection) = self.connections.get_mut(conn)
        {
            input.drain(..used);
            connection.input = input;
        } else {
            self.connections.recycle(input);
        }
    }

    /// The same for what begins with a large packet, which is shared with whoever gets its payload.
    fn read_large_input(&mut self, conn: ConnId, mut input: Vec<u8>) {
        if input.capacity() > 2 * input.len() {
            input.shrink_to_fit();
        }
        let whole = share_buffer(input);
        let used = self.read_packets(conn, &whole, Some(&whole));
        if used < whole.len()
            && let Some(connection) = self.connections.get_mut(conn)
        {
            connection.input = whole[used..].to_vec();
        }
    }

    /// Reads on where a pause may have ended.
    pub(super) fn resume(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.paused.any() {
            return;
        }
        connection.last_packet_at = self.now;
        self.read_input(conn);
        if self.connections.get(conn).is_some_and(|connection| !connection.paused.any()) {
            self.effects.push_back(Effect::ResumeReading { conn });
        }
    }

    /// Reads on from the connections that waited for the lanes, as long as these have room.
    pub(super) fn resume_paused(&mut self) {
        if self.peers.any_full() {
            return;
        }
        for conn in std::mem::take(&mut self.paused) {
            if let Some(connection) = self.connections.get_mut(conn) {
                connection.paused.lanes = false;
                self.resume(conn);
            }
        }
    }

    /// Handles one packet. `rest` is what was read from its first byte on, a part of `whole` if that can be shared.
    fn packet(
        &mut self,
        conn: ConnId,
        frame: &Frame<'_>,
        rest: &[u8],
        whole: Option<&Bytes>,
    ) -> Flow {
        let Some(connection) = self.connections.get_mut(conn) else { return Flow::Gone };
        let Some(key) = connection.session else { return self.first_packet(conn, frame, rest) };
        connection.last_packet_at = self.now;
        let version = connection.version;
        packet_log::received(&self.sessions, key, version, frame);
        // The frequent ones apart: a `Packet` has room for a CONNECT, and moving it costs more than
        // decoding them.
        let handled = match frame.packet_type() {
            Some(PacketType::Publish) if frame.len >= limits::SHARED_BYTES_MIN => {
                self.large_publish(conn, key, version, &rest[..frame.len], whole)
            }
            Some(PacketType::Publish) => codec::decode_publish(version, frame).map(|publish| {
                let original = Original::new(version, frame, &rest[..frame.len]);
                self.publish(conn, key, &publish, original, None)
            }),
            Some(
                kind @ (PacketType::PubAck
                | PacketType::PubRec
                | PacketType::PubRel
                | PacketType::PubComp),
            ) => codec::decode_ack(version, kind, frame).map(|ack| match kind {
                PacketType::PubAck => self.puback(conn, key, &ack),
                PacketType::PubRec => self.pubrec(conn, key, &ack),
                PacketType::PubRel => self.pubrel(conn, key, &ack),
                _ => self.pubcomp(conn, key, &ack),
            }),
            _ => codec::decode_from_client(version, frame)
                .map(|packet| self.session_packet(conn, key, packet)),
        };
        handled.unwrap_or_else(|error| self.close(conn, Cause::Faulty(error)))
    }

    /// Handles one packet of a client whose CONNECT was accepted, if it is neither a PUBLISH nor an
    /// acknowledgement of one.
    fn session_packet(&mut self, conn: ConnId, key: SessionKey, packet: Packet<'_>) -> Flow {
        match packet {
            Packet::Subscribe(subscribe) => self.subscribe(conn, key, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(conn, key, &unsubscribe),
            Packet::PingReq => {
                self.reply(conn, key, &Packet::PingResp);
                Flow::Continue
            }
            Packet::Auth(auth) => self.authenticate_again(conn, key, &auth),
            Packet::Disconnect(disconnect) => self.client_disconnect(conn, key, &disconnect),
            _ => self.close(conn, Cause::Refused(ReasonCode::ProtocolError, "unexpected packet")),
        }
    }
}

/// The largest packet that is taken from a connection: less while nobody knows who it is.
fn packet_bytes_max(connection: &Connection, bytes_max: u32) -> u32 {
    match connection.session {
        Some(_) => bytes_max,
        None => bytes_max.min(limits::CONNECT_BYTES_MAX),
    }
}

/// Makes room for `more` bytes of a packet of `packet_bytes`, and for what comes then: first for as much again as has
/// come, so that nothing is had for a claim, then for all of it, so that little is ever copied.
fn make_room(input: &mut Vec<u8>, more: usize, packet_bytes: usize) {
    let needed = input.len() + more;
    if needed <= input.capacity() {
        return;
    }
    let ahead = if needed < limits::INPUT_PROOF_BYTES { 2 * needed } else { packet_bytes };
    let room = ahead.min(packet_bytes).max(needed);
    // Where so much address space cannot be had, it grows with what comes all the same.
    let _ = input.try_reserve_exact(room - input.len());
}
