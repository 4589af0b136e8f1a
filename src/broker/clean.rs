//! Cleaning the log: what is still needed of its oldest segment is appended again, so that the
//! segment can be given up. One piece is read at a time, between the turns of everything else.

use std::io;

use crate::{
    base::{SessionKey, ShardId, limits},
    storage::{
        Boot, DelayedRecord, Delivery, Intake, Position, PublicationRecord, ReadRecord, Record,
        SEGMENT_HEADER_BYTES, SessionNumber, Source, Target,
    },
    topic::TopicName,
};

use super::{
    Broker,
    durable::{Durable, LogRead, Reader},
};

/// The cleaning that is under way.
#[derive(Debug)]
pub(super) struct Cleaning {
    segment: u32,
    bytes: u32,
    /// What lies before is done.
    next: u32,
    /// Whether a piece is being read.
    tag: Option<u64>,
}

impl Broker {
    /// Begins a cleaning, or goes on with it, if it is worth it.
    pub(super) fn clean(&mut self) {
        if !self.may_clean() {
            return;
        }
        let Some(durable) = &mut self.durable else { return };
        if durable.cleaning.is_none() {
            let Some((segment, bytes)) = durable.log.to_clean() else { return };
            let next = SEGMENT_HEADER_BYTES;
            durable.cleaning = Some(Cleaning { segment, bytes, next, tag: None });
        }
        let Some(cleaning) = &mut durable.cleaning else { return };
        if cleaning.tag.is_some() {
            return;
        }
        let at = Position { segment: cleaning.segment, offset: cleaning.next };
        // A segment that holds nothing need not be read.
        if cleaning.next >= cleaning.bytes || !durable.log.holds_any(cleaning.segment) {
            return self.end_cleaning();
        }
        let bytes = limits::LOG_READ_BYTES.min(cleaning.bytes - cleaning.next);
        let tag = durable.read(at, bytes, Reader::Cleaner);
        if let Some(cleaning) = &mut durable.cleaning {
            cleaning.tag = Some(tag);
        }
    }

    /// Whether [`clean`](Self::clean) has something to do.
    pub(super) fn can_clean(&self) -> bool {
        let durable = self.durable.as_ref();
        self.may_clean()
            && durable.is_some_and(|durable| match &durable.cleaning {
                Some(cleaning) => cleaning.tag.is_none(),
                None => durable.log.to_clean().is_some(),
            })
    }

    /// Whether what is moved to the head would get there: it waits in memory until it does.
    fn may_clean(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| {
            !durable.keeps_tail && durable.log.pending_bytes() <= limits::LOG_PENDING_BYTES_MAX
        })
    }

    /// Takes in a piece of the segment.
    pub(super) fn clean_bytes(&mut self, read: &LogRead, result: io::Result<Vec<u8>>) {
        let Some(durable) = &mut self.durable else { return };
        let Some(cleaning) = durable.cleaning.as_mut().filter(|one| one.tag == Some(read.tag))
        else {
            return;
        };
        cleaning.tag = None;
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(at = ?read.at, %error, "cannot clean the log: its oldest segments are kept");
                return durable.keep_tail();
            }
        };
        let mut done = 0;
        loop {
            let mut targets = Vec::new();
            let Some(durable) = &mut self.durable else { return };
            let at = Position { offset: read.at.offset + done, ..read.at };
            let Some(rest) = bytes.get(done as usize..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            match durable.log.id().read_next(at, rest, &mut targets) {
                ReadRecord::Whole(record, length) => {
                    done += length;
                    if let Some(record) = record {
                        self.move_record(at, record);
                    }
                }
                ReadRecord::Needs(more) if done == 0 => {
                    let tag = durable.read(at, more, Reader::Cleaner);
                    if let Some(cleaning) = &mut durable.cleaning {
                        cleaning.tag = Some(tag);
                    }
                    return;
                }
                ReadRecord::Needs(_) => break,
                ReadRecord::Damaged(why) => {
                    tracing::error!(?at, %why, "the log is damaged: its oldest segments are kept");
                    return durable.keep_tail();
                }
            }
        }
        if let Some(Durable { cleaning: Some(cleaning), .. }) = self.durable.as_deref_mut() {
            cleaning.next += done;
        }
    }

    fn end_cleaning(&mut self) {
        let Some(durable) = &mut self.durable else { return };
        let Some(Cleaning { segment, .. }) = durable.cleaning.take() else { return };
        let taken = durable.taken.iter().enumerate().filter(|(_, stamp)| **stamp > 0);
        let boot = Boot {
            next_session: durable.next_session,
            last_delayed: self.delayed.last_number(),
            stamp: durable.intakes.last_stamp,
            routed: durable.intakes.resolved,
            taken: taken.map(|(shard, stamp)| (ShardId(shard as u16), *stamp)).collect(),
            given_up: segment,
        };
        self.append(&Record::Boot(boot));
        if let Some(durable) = &mut self.durable {
            durable.log.cleaned(segment);
            durable.commit();
        }
    }

    /// Appends again what is needed of a record.
    fn move_record(&mut self, at: Position, record: Record<'_>) {
        match record {
            Record::Session(record) => {
                let key = self.key_of(record.number);
                let session = key.and_then(|key| self.sessions.get(key));
                let is_last = session
                    .and_then(|session| session.durable)
                    .is_some_and(|durable| durable.hold.at == at);
                if let Some(key) = key.filter(|_| is_last) {
                    self.log_session(key, record.number);
                }
            }
            Record::Publication(record) => self.move_publication(at, &record),
            Record::Intake(record) => self.move_intake(at, record),
            Record::Delayed(record) => self.move_delayed(at, record),
            // What these say is in the sessions' records, or about what was before.
            _ => {}
        }
    }

    fn move_publication(&mut self, at: Position, record: &PublicationRecord<'_>) {
        let Ok(topic) = TopicName::parse(record.message.topic) else { return };
        let keeps = record.is_retained
            && self
                .retained
                .get(topic)
                .and_then(|stored| stored.hold)
                .is_some_and(|hold| hold.at == at);
        let is_needed = |target: &&Target| {
            let session = self.key_of(target.session).and_then(|key| self.sessions.get(key));
            let delivery = session.map(|session| session.outbox.delivery(target.delivery));
            matches!(delivery, Some(Delivery::Message(hold)) if hold.at == at)
        };
        let targets: Vec<Target> = record.targets.iter().filter(is_needed).cloned().collect();
        if targets.is_empty() && !keeps {
            return;
        }
        let moved = PublicationRecord {
            message: record.message,
            is_retained: keeps,
            publisher: None,
            origin: None,
            targets: &targets,
        };
        let Some(whole) = self.append(&Record::Publication(moved)) else { return };
        let share = whole.share(targets.len() + usize::from(keeps));
        for target in &targets {
            let Some(key) = self.key_of(target.session) else { continue };
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let before = session.outbox.delivery(target.delivery);
            session.outbox.relocate(target.delivery, share);
            if let (Some(durable), Delivery::Message(before)) = (&mut self.durable, before) {
                durable.move_hold(before, share);
            }
        }
        if keeps
            && let Some(durable) = &mut self.durable
            && let Some(hold) = self.retained.get_mut(topic).and_then(|stored| stored.hold.as_mut())
        {
            durable.move_hold(std::mem::replace(hold, share), share);
        }
    }

    fn move_intake(&mut self, at: Position, record: Intake<'_>) {
        let Some(durable) = &self.durable else { return };
        let is_needed = durable.intakes.open.iter().any(|taken| taken.hold.at == at);
        if !is_needed {
            return;
        }
        let stamp = record.stamp;
        let moved = Record::Intake(Intake { source: Source::PassedOn(None), ..record });
        let Some(hold) = self.append(&moved) else { return };
        let Some(durable) = &mut self.durable else { return };
        let mut open = durable.intakes.open.iter_mut();
        if let Some(taken) = open.find(|taken| taken.stamp == stamp) {
            let before = std::mem::replace(&mut taken.hold, hold);
            durable.move_hold(before, hold);
        }
    }

    fn move_delayed(&mut self, at: Position, record: DelayedRecord<'_>) {
        let Some(durable) = &self.durable else { return };
        let due_at = durable.origin.time(record.due_at);
        let number = record.number;
        if self.delayed.hold(due_at, number).is_none_or(|hold| hold.at != at) {
            return;
        }
        let moved = Record::Delayed(DelayedRecord { publisher: None, will_of: None, ..record });
        let Some(hold) = self.append(&moved) else { return };
        let before = self.delayed.relocate(due_at, number, hold);
        if let (Some(durable), Some(before)) = (&mut self.durable, before) {
            durable.move_hold(before, hold);
        }
    }

    fn key_of(&self, number: SessionNumber) -> Option<SessionKey> {
        self.sessions.find_logged(number)
    }
}
