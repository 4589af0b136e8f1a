//! Deliveries that are only in the log, on their way back: read in pieces ahead of what the client
//! takes, each piece as many as lie together.

use std::io;

use bytes::Bytes;

use crate::{
    base::{QoS, SessionKey, TimeOrigin, limits, share_buffer},
    message::Publication,
    session::{Finished, Logged, Queued},
    storage::{
        Delivery, DeliveryNumber, Hold, Position, PublicationRecord, ReadRecord, Record,
        SessionNumber,
    },
};

use super::{
    Broker, DropReason,
    durable::{LogRead, Reader},
};

impl Broker {
    /// Has more of what waits for a client read, if there is and little is left in memory; true if
    /// there is something to be sent before.
    pub(super) fn read_ahead(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        if session.conn.is_none() || session.outbox.parked().is_reading() {
            return false;
        }
        let mut is_refilled = false;
        while session.outbox.wants_more()
            && let Some(first) = session.outbox.parked().first()
        {
            let Delivery::Message(hold) = first else {
                session.outbox.unpark(None);
                is_refilled = true;
                continue;
            };
            let Some(durable) = &mut self.durable else { return false };
            if durable.log.is_readable(hold.at) {
                let tag = durable.read(hold.at, limits::LOG_READ_BYTES, Reader::Session(key));
                session.outbox.parked_mut().reading(tag);
            } else {
                durable.hold_back(key);
            }
            break;
        }
        is_refilled
    }

    /// Takes in what was read for a session, and sends of it what the client takes.
    pub(super) fn refill(&mut self, key: SessionKey, read: &LogRead, result: io::Result<Vec<u8>>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.outbox.parked_mut().end_read(read.tag) {
            return;
        }
        let bytes = match result {
            Ok(bytes) => share_buffer(bytes),
            Err(error) => {
                // Nothing is lost: it is tried again when the client acknowledges something or connects.
                tracing::error!(client = %session.client, at = ?read.at, %error, "cannot read the log");
                return self.end_refill_pause(key);
            }
        };
        let Some(number) = session.durable.map(|durable| durable.number) else { return };
        let mut is_first = true;
        loop {
            let Some(session) = self.sessions.get(key) else { return };
            let hold = match session.outbox.parked().first() {
                Some(Delivery::Message(hold)) if session.outbox.wants_more() || is_first => hold,
                Some(Delivery::Received | Delivery::Done) => {
                    self.unpark(key, None);
                    continue;
                }
                _ => break,
            };
            let wanted = (number, session.outbox.parked_number());
            match self.delivery_at(hold, wanted, read.at, &bytes) {
                Found::Whole(queued) => self.unpark(key, Some(queued)),
                // The next piece has it, or the cleaner has moved it meanwhile: it is read from there.
                Found::Elsewhere => break,
                Found::Needs(bytes) if is_first && bytes > read.bytes => {
                    let Some(durable) = &mut self.durable else { return };
                    let tag = durable.read(hold.at, bytes, Reader::Session(key));
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.outbox.parked_mut().reading(tag);
                    }
                    return;
                }
                // The next piece has it whole.
                Found::Needs(_) if !is_first => break,
                _ => self.lose(key, hold),
            }
            is_first = false;
        }
        self.pump(key);
        self.end_refill_pause(key);
    }

    /// What the client has sent since it connected is looked at now.
    fn end_refill_pause(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(conn) = session.conn else { return };
        if session.outbox.is_idle() && !session.outbox.parked().is_empty() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(conn)
            && connection.paused.refill
        {
            connection.paused.refill = false;
            self.resume(conn);
        }
    }

    fn delivery_at(
        &self,
        hold: Hold,
        wanted: (SessionNumber, DeliveryNumber),
        start: Position,
        bytes: &Bytes,
    ) -> Found {
        let Some(durable) = &self.durable else { return Found::Lost };
        let from = hold.at.offset.checked_sub(start.offset);
        let rest = from.and_then(|from| bytes.get(from as usize..));
        let Some(rest) = rest.filter(|_| hold.at.segment == start.segment) else {
            return Found::Elsewhere;
        };
        let mut targets = Vec::new();
        match durable.log.id().read_record(hold.at, rest, &mut targets) {
            ReadRecord::Whole(Record::Publication(mut record), _) => {
                // Not if much else would be kept for it.
                let whole = Some(bytes).filter(|_| record.message.payload.len() >= bytes.len() / 2);
                record.message.shared = whole;
                let Some(queued) = queued(&record, wanted, hold, durable.origin) else {
                    return Found::Lost;
                };
                Found::Whole(queued)
            }
            ReadRecord::Needs(bytes) => Found::Needs(bytes),
            _ => Found::Lost,
        }
    }

    fn unpark(&mut self, key: SessionKey, queued: Option<Queued>) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.outbox.unpark(queued);
        }
    }

    /// The log does not give a delivery back: the disk fails.
    fn lose(&mut self, key: SessionKey, hold: Hold) {
        if let Some(session) = self.sessions.get(key) {
            tracing::error!(client = %session.client, at = ?hold.at, "a message in the log is unreadable");
        }
        self.count_session_drop(key, DropReason::Storage, QoS::AtLeastOnce);
        let number = self.sessions.get(key).map(|session| session.outbox.parked_number());
        let finished = number.map(|number| Finished { number, hold: Some(hold) });
        self.finish_delivery(key, finished);
        self.unpark(key, None);
    }
}

enum Found {
    Whole(Queued),
    /// So many bytes from its start are needed.
    Needs(u32),
    /// It is not in these bytes.
    Elsewhere,
    Lost,
}

fn queued(
    record: &PublicationRecord<'_>,
    wanted: (SessionNumber, DeliveryNumber),
    hold: Hold,
    origin: TimeOrigin,
) -> Option<Queued> {
    let mut targets = record.targets.iter();
    let target = targets.find(|target| (target.session, target.delivery) == wanted)?;
    let publication = Publication::new(&record.message.message(origin));
    Some(Queued {
        publication,
        qos: target.qos,
        retain: target.retain,
        identifiers: target.identifiers.clone(),
        logged: Some(Logged { hold, after: 0 }),
    })
}
