//! Large publications: a payload stays where it was received, and whoever gets it, waits for it or keeps it has a
//! share of that. Only the heads of packets are written for each taker.

use bytes::Bytes;

use crate::{
    base::{ConnId, SessionKey, limits},
    codec::{self, DecodeError, Version, next_frame},
    message::Delivery,
};

use super::{Broker, DropReason, Flow, connection::Connection, deliver::Outcome, packet_log};

impl Broker {
    /// Handles a PUBLISH with `packet` as its bytes, a part of `whole` if that can be shared.
    pub(super) fn large_publish(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        version: Version,
        packet: &[u8],
        whole: Option<&Bytes>,
    ) -> Result<Flow, DecodeError> {
        // All of a whole is kept for as long as somebody has a part of it.
        let packet = match whole.filter(|whole| packet.len() >= whole.len() / 2) {
            Some(whole) => whole.slice_ref(packet),
            None => Bytes::copy_from_slice(packet),
        };
        let Some(frame) = next_frame(&packet, u32::MAX)? else { return Ok(Flow::Continue) };
        let publish = codec::decode_publish(version, &frame)?;
        Ok(self.publish(conn, key, &publish, None, Some(&packet)))
    }

    /// Puts a PUBLISH into the output of the session's connection without copying its payload. Its topic is always
    /// named: an alias would save nothing worth it.
    pub(super) fn send_large(&mut self, key: SessionKey, delivery: &Delivery<'_>) -> Outcome {
        let conn = self.sessions.get(key).and_then(|session| session.conn);
        let Some(conn) = conn else { return Outcome::Offline };
        let Some(connection) = self.connections.writer(conn) else { return Outcome::Offline };
        let Connection { version, output, packet_bytes_max, .. } = connection;
        let mut bytes = delivery.size_max();
        if bytes <= limits::REMAINING_LENGTH_MAX as usize {
            let head = output.tail();
            let start = head.len();
            delivery.encode_head(*version, self.now, head);
            bytes = head.len() - start + delivery.message.payload.len();
            if bytes <= *packet_bytes_max as usize {
                output.share(delivery.message.shared_payload());
                self.counters.publishes_sent += 1;
                packet_log::sending_publish(&self.sessions, key, delivery);
                return Outcome::Encoded(conn);
            }
            head.truncate(start);
        }
        self.drop_unsent(key, DropReason::PacketTooLarge, delivery.qos, delivery.packet_id)
    }
}
