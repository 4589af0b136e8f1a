//! What was read from connections: whole packets are handled, the rest is kept, and nothing is
//! looked at while a connection is paused.

use crate::{
    base::{ConnId, SessionKey, limits},
    codec::{self, Frame, Original, Packet, PacketType, ReasonCode, next_frame},
};

use super::{Broker, Effect, Flow, close::Cause, packet_log};

impl Broker {
    /// Handles the whole packets at the start of `bytes`; returns how many
    /// bytes they were. Stops early where the connection is paused.
    pub(super) fn read_packets(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
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
            let packet_bytes_max = match connection.session {
                Some(_) => self.policy.limits.packet_bytes_max,
                None => self.policy.limits.packet_bytes_max.min(limits::CONNECT_BYTES_MAX),
            };
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
                    self.packet(conn, &frame, rest)
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
        let mut input = self.connections.spare();
        input.extend_from_slice(rest);
        match self.connections.get_mut(conn) {
            Some(connection) => connection.input = input,
            None => self.connections.recycle(input),
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
        let used = self.read_packets(conn, &input);
        if used < input.len()
            && let Some(connection) = self.connections.get_mut(conn)
        {
            input.drain(..used);
            connection.input = input;
        } else {
            self.connections.recycle(input);
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

    /// Handles one packet. `rest` is what was read from its first byte on.
    fn packet(&mut self, conn: ConnId, frame: &Frame<'_>, rest: &[u8]) -> Flow {
        let Some(connection) = self.connections.get_mut(conn) else { return Flow::Gone };
        let Some(key) = connection.session else { return self.first_packet(conn, frame, rest) };
        connection.last_packet_at = self.now;
        let version = connection.version;
        packet_log::received(&self.sessions, key, version, frame);
        // The frequent ones apart: a `Packet` has room for a CONNECT, and moving it costs more than
        // decoding them.
        let handled = match frame.packet_type() {
            Some(PacketType::Publish) => codec::decode_publish(version, frame).map(|publish| {
                let original = Original::new(version, frame, &rest[..frame.len]);
                self.publish(conn, key, &publish, original)
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
