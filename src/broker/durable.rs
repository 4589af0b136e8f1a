//! The broker's side of its log: what is appended, what waits until it is on disk, and what is read
//! back. Without a log nothing here happens.
//!
//! Records are counted as they are appended; whatever waits for one remembers the count behind it
//! and goes on when so many are committed.

use std::{
    collections::{HashMap, VecDeque},
    io,
};

use ahash::RandomState;

use crate::{
    base::{ClientId, ConnId, SessionKey, Time, TimeOrigin, limits::LOG_PENDING_BYTES_MAX},
    config::Durability,
    message::Message,
    storage::{Batch, Hold, Log, LogState, MessageRecord, Position, Record},
    topic::TopicName,
};

use super::{
    Broker,
    ack_line::Waits,
    clean::Cleaning,
    intake::Intakes,
    log_room::RoomNotice,
    mesh::{Mesh, PeerStorage},
};

/// What a broker with a log has more.
pub(super) struct Durable {
    pub(super) log: Log,
    pub(super) origin: TimeOrigin,
    pub(super) next_session: u64,
    /// Clients whose sessions have ended, and how many records are to be on disk before it is so for good.
    pub(super) ended: HashMap<ClientId, u64, RandomState>,
    /// Sessions with deliveries that wait for a commit.
    held: VecDeque<(u64, SessionKey)>,
    pub(super) intakes: Intakes,
    /// By shard, the stamp of its last intake that was taken here.
    pub(super) taken: Vec<u64>,
    /// Subscriptions of durable sessions of this shard.
    pub(super) subscriptions: u64,
    /// What the other shards were told last.
    told: PeerStorage,
    /// Reads that the shell has not taken yet.
    reads: VecDeque<LogRead>,
    last_read: u64,
    pub(super) cleaning: Option<Cleaning>,
    /// Its oldest segment could not be read: none is given up any more.
    pub(super) keeps_tail: bool,
    /// Segments that have been given up, and whose files the shell has not been told to delete.
    deletable: VecDeque<u32>,
    pub(super) room: RoomNotice,
    /// How long what nobody waits for may take to be committed, and when that is.
    lazy_millis: u64,
    lazy_at: Option<Time>,
    is_writing: bool,
}

/// Bytes of the log that the broker wants back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRead {
    /// From where.
    pub at: Position,
    /// So many, or less at the end of the segment.
    pub bytes: u32,
    /// Names the read.
    pub(super) tag: u64,
    pub(super) reader: Reader,
}

/// Who wants them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reader {
    Session(SessionKey),
    Cleaner,
}

impl Durable {
    pub(super) fn new(log: Log, origin: TimeOrigin, shards: u16, policy: &Durability) -> Self {
        Self {
            log,
            origin,
            next_session: 1,
            ended: HashMap::default(),
            held: VecDeque::new(),
            intakes: Intakes::default(),
            taken: vec![0; shards.into()],
            subscriptions: 0,
            told: PeerStorage::default(),
            reads: VecDeque::new(),
            last_read: 0,
            cleaning: None,
            keeps_tail: false,
            deletable: VecDeque::new(),
            room: RoomNotice::default(),
            lazy_millis: policy.relaxed_millis_max.into(),
            lazy_at: None,
            is_writing: false,
        }
    }

    /// Asks for bytes of the log. Returns the name of the read.
    pub(super) fn read(&mut self, at: Position, bytes: u32, reader: Reader) -> u64 {
        self.last_read += 1;
        let tag = self.last_read;
        let bytes = self.log.readable(at, bytes);
        self.reads.push_back(LogRead { at, bytes, tag, reader });
        tag
    }

    /// Adds a record that somebody may wait for; otherwise it is committed after a while.
    pub(super) fn append(&mut self, now: Time, record: &Record<'_>) -> Hold {
        self.lazy_at.get_or_insert(now.plus_millis(self.lazy_millis));
        self.log.append(record)
    }

    /// The same, of which all is needed.
    pub(super) fn append_held(&mut self, now: Time, record: &Record<'_>) -> Hold {
        let hold = self.append(now, record);
        self.log.hold(hold);
        hold
    }

    /// What was needed stands elsewhere now.
    pub(super) fn move_hold(&mut self, before: Hold, now: Hold) {
        self.log.hold(now);
        self.log.release(before);
    }

    /// The oldest segment cannot be read: it stays, and all behind it.
    pub(super) fn keep_tail(&mut self) {
        self.keeps_tail = true;
        self.cleaning = None;
    }

    /// Has what was appended committed soon. Returns the count to wait for.
    pub(super) fn commit(&mut self) -> u64 {
        self.log.hurry();
        self.log.appended()
    }

    /// The shell waits for what was appended, and for what other shards still bring.
    pub(super) fn end(&mut self) {
        self.lazy_millis = 0;
        self.log.hurry();
    }

    /// The session's next delivery waits for the log.
    pub(super) fn hold_back(&mut self, key: SessionKey) {
        let count = self.log.appended();
        if self.held.back() != Some(&(count, key)) {
            self.held.push_back((count, key));
        }
    }

    pub(super) fn message<'a>(&self, message: &Message<'a>) -> MessageRecord<'a> {
        MessageRecord::new(message, self.origin)
    }
}

impl Broker {
    /// What the shell is to write and sync now; nothing while it does so with an earlier batch.
    pub fn next_batch(&mut self, now: Time) -> Option<Batch> {
        let durable = self.durable.as_mut()?;
        let is_due = durable.lazy_at.is_some_and(|at| at <= now);
        if durable.is_writing || !(durable.log.is_urgent() || is_due) {
            return None;
        }
        let batch = durable.log.next_batch();
        // What does not fit into two segments waits for the next batch, and for nothing else.
        durable.lazy_at = durable.log.has_pending().then_some(now);
        durable.is_writing = batch.is_some();
        batch
    }

    /// Records that the log took; 0 without one.
    pub fn records_logged(&self) -> u64 {
        self.durable.as_ref().map_or(0, |durable| durable.log.counters().records)
    }

    /// The batch is on disk.
    pub fn batch_committed(&mut self, now: Time) {
        self.now = now;
        let Some(durable) = &mut self.durable else { return };
        durable.is_writing = false;
        durable.log.batch_committed();
        // Before the others are told whether there is room.
        durable.deletable.extend(std::iter::from_fn(|| durable.log.pop_deletable()));
        let committed = durable.log.committed();
        durable.ended.retain(|_, commit| *commit > committed);
        self.release_publish_acks();
        self.release_answers();
        self.finish_closing();
        self.route_intakes();
        self.peers.confirm_taken(committed);
        self.after_taken();
        while let Some(durable) = &mut self.durable
            && let Some((count, key)) = durable.held.front().copied()
            && count <= committed
        {
            durable.held.pop_front();
            self.pump(key);
        }
        self.tell_storage();
    }

    /// The disk refuses what it was given, and is tried again; or it no longer does.
    pub fn disk_failing(&mut self, now: Time, is_failing: bool) {
        self.now = now;
        if let Some(durable) = &mut self.durable {
            durable.log.disk_failed(is_failing);
        }
        self.tell_storage();
    }

    /// Whether all that was put into the log is on disk.
    pub fn is_on_disk(&self) -> bool {
        self.committed() >= self.appended()
    }

    /// What the shell is to read.
    pub fn pop_read(&mut self) -> Option<LogRead> {
        self.durable.as_mut()?.reads.pop_front()
    }

    /// What was read, or why it was not.
    pub fn read_done(&mut self, now: Time, read: &LogRead, result: io::Result<Vec<u8>>) {
        self.now = now;
        match read.reader {
            Reader::Session(key) => self.refill(key, read, result),
            Reader::Cleaner => self.clean_bytes(read, result),
        }
    }

    /// A segment of the log whose file is to be deleted.
    pub fn pop_deletable(&mut self) -> Option<u32> {
        self.durable.as_mut()?.deletable.pop_front()
    }

    /// When the log wants something to be done.
    pub(super) fn log_deadline(&self) -> Option<Time> {
        let durable = self.durable.as_ref().filter(|durable| !durable.is_writing)?;
        if durable.log.is_urgent() { Some(self.now) } else { durable.lazy_at }
    }

    /// Records appended so far.
    pub(super) fn appended(&self) -> u64 {
        self.durable.as_ref().map_or(0, |durable| durable.log.appended())
    }

    /// Records on disk so far.
    pub(super) fn committed(&self) -> u64 {
        self.durable.as_ref().map_or(u64::MAX, |durable| durable.log.committed())
    }

    /// Whether new publications for durable sessions are to be refused.
    pub(super) fn log_refuses(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.log.state() != LogState::Ready)
    }

    /// Whether so much waits for a disk that refuses it that nobody may add to it.
    pub(super) fn log_is_clogged(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| {
            durable.log.state() == LogState::Failing
                && durable.log.pending_bytes() > LOG_PENDING_BYTES_MAX
        })
    }

    /// Adds a record, if there is a log.
    pub(super) fn append(&mut self, record: &Record<'_>) -> Option<Hold> {
        let durable = self.durable.as_mut()?;
        Some(durable.append(self.now, record))
    }

    /// What an answer waits for that promises what was appended so far.
    pub(super) fn commit(&mut self) -> Waits {
        let is_relaxed = self.policy.durability.relaxed;
        match &mut self.durable {
            Some(durable) if !is_relaxed => Waits { commit: durable.commit(), ..Waits::default() },
            _ => Waits::default(),
        }
    }

    /// Whether what an acknowledgement waits for has happened.
    pub(super) fn is_over(&self, waits: &Waits) -> bool {
        self.peers.is_over(waits, self.committed())
    }

    /// How many records are to be on disk before an answer to a client about its session; 0 if the
    /// log has nothing of that.
    pub(super) fn commit_for(&mut self, key: SessionKey) -> u64 {
        if self.is_durable(key) { self.commit().commit } else { 0 }
    }

    /// Gives up a part of the log.
    pub(super) fn release_hold(&mut self, hold: Option<Hold>) {
        if let (Some(durable), Some(hold)) = (&mut self.durable, hold) {
            durable.log.release(hold);
        }
    }

    /// Another shard, or the own log, has taken something.
    pub(super) fn after_taken(&mut self) {
        self.release_publish_acks();
        self.resolve_intakes();
    }

    /// Tells the other shards what they have to know of this one's log. They have applied it when
    /// they confirm the index changes so far.
    pub(super) fn tell_storage(&mut self) {
        self.note_room();
        let refuses = self.log_refuses();
        let Some(durable) = &mut self.durable else { return };
        let storage = PeerStorage { is_durable: durable.subscriptions > 0, refuses };
        if durable.told != storage {
            durable.told = storage;
            self.peers.broadcast_change(|stamp| Mesh::Storage { storage, stamp });
        }
    }

    /// Whether an acknowledgement of this message may leave before it is on disk.
    pub(super) fn is_relaxed(&self, topic: TopicName<'_>, conn: Option<ConnId>) -> bool {
        let Durability { relaxed, relaxed_topics, .. } = &self.policy.durability;
        let found = conn.and_then(|conn| self.connections.get(conn));
        *relaxed
            || found.is_some_and(|found| found.origin.is_relaxed)
            || relaxed_topics.iter().any(|filter| filter.matches(topic))
    }
}
