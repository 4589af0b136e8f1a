//! The state that all logs amount to, as logs for another number of shards: which record goes into which of them.
//! Where the old ones are read from and the new ones are written to, the caller knows.
//!
//! What is in memory of it is a batch for each new log. Sessions keep the numbers of their deliveries, and with
//! them their Packet Identifiers.

use std::{collections::HashMap, io};

use super::between;
use crate::{
    base::{ShardId, TimeOrigin, home_of},
    message::Publication,
    storage::{
        Boot, DelayedRecord, Delivery, DeliveryNumber, Log, LogId, LogSetup, MessageRecord,
        Position, PublicationRecord, Record, RecoveredDelayed, RecoveredSession, RecoveredShard,
        Scanned, SegmentScan, SessionNumber, SessionRecord, Target, WillRecord, Write,
    },
};

/// How the new logs are to be.
#[derive(Clone, Copy, Debug)]
pub struct NewLogs {
    /// Their generation: not that of the old ones.
    pub generation: u64,
    /// Says which shard a client or topic lives on.
    pub seed: u64,
    /// How many there are.
    pub shards: u16,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Bytes of each log.
    pub bytes_max: u64,
}

/// Takes what is to be written to the new log of a shard: each segment from its beginning to its end, one behind
/// the other. Until [`Resharding::finish`] has returned and all of it is on disk, the old logs hold.
pub type Put<'a> = dyn FnMut(ShardId, &Write) -> io::Result<()> + 'a;

/// The new logs in the making.
pub struct Resharding<'a> {
    seed: u64,
    pub(super) origin: TimeOrigin,
    old: &'a [RecoveredShard],
    logs: Vec<NewLog>,
    /// By shard and name in the old log: which of that shard's sessions it is, where it lives now, and its name
    /// there.
    homes: HashMap<(ShardId, SessionNumber), (usize, ShardId, SessionNumber)>,
    put: &'a mut Put<'a>,
}

impl<'a> Resharding<'a> {
    /// Begins with all that old logs amount to, but for the messages that sessions have yet to get: those come
    /// from [`Resharding::add_segment`].
    ///
    /// # Errors
    /// Those of `put`; here and below.
    pub fn new(
        old: &'a [RecoveredShard],
        new: NewLogs,
        origin: TimeOrigin,
        put: &'a mut Put<'a>,
    ) -> io::Result<Self> {
        let logs = (0..new.shards).map(|shard| NewLog::new(new, ShardId(shard))).collect();
        let mut resharding = Self { seed: new.seed, origin, old, logs, homes: HashMap::new(), put };
        for (shard, recovered) in old.iter().enumerate() {
            resharding.add_shard(ShardId(shard as u16), recovered)?;
        }
        Ok(resharding)
    }

    /// A segment of an old log, all of its file. Those of one log come oldest first.
    ///
    /// # Errors
    /// See [`Resharding::new`].
    pub fn add_segment(&mut self, old: LogId, segment: u32, bytes: &[u8]) -> io::Result<()> {
        // What ends early here has ended there when it was recovered.
        let Ok(mut scan) = SegmentScan::new(old, segment, bytes) else { return Ok(()) };
        let mut targets = Vec::new();
        loop {
            match scan.next(&mut targets) {
                Scanned::Record(at, _, Record::Publication(record)) => {
                    let targets = record.targets.iter();
                    let waiting = targets.filter(|target| self.is_waiting(old.shard, at, target));
                    let waiting: Vec<_> = waiting.cloned().collect();
                    self.add_deliveries(old.shard, record.message, &waiting)?;
                }
                Scanned::Record(..) | Scanned::Batch(_) => {}
                Scanned::End(_) => return Ok(()),
            }
        }
    }

    /// Ends what is between the old shards, and writes what is left to write.
    ///
    /// # Errors
    /// See [`Resharding::new`].
    pub fn finish(mut self) -> io::Result<()> {
        between::finish(self.seed, self.old, &mut self)?;
        self.logs.iter_mut().try_for_each(|log| log.finish(self.put))
    }

    fn home(&self, text: &str) -> ShardId {
        home_of(self.seed, self.logs.len() as u16, text)
    }

    /// All of an old shard but the deliveries of its sessions, and what is between it and others.
    fn add_shard(&mut self, old: ShardId, shard: &RecoveredShard) -> io::Result<()> {
        for (index, session) in shard.sessions.iter().enumerate() {
            let home = self.home(session.client.as_str());
            let boot = &mut self.logs[home.index()].boot;
            let number = SessionNumber(boot.next_session);
            boot.next_session += 1;
            self.homes.insert((old, session.number), (index, home, number));
            let record = Record::Session(session_record(number, session, self.origin));
            self.append(home, &record)?;
        }
        for retained in &shard.retained {
            self.add_retained(message_record(&retained.publication, self.origin))?;
        }
        shard.delayed.iter().try_for_each(|delayed| self.add_delayed(delayed))
    }

    /// In place of what the topic had before.
    pub(super) fn add_retained(&mut self, message: MessageRecord<'_>) -> io::Result<()> {
        let record = Record::Publication(PublicationRecord {
            message,
            is_retained: true,
            publisher: None,
            origin: None,
            targets: &[],
        });
        self.append(self.home(message.topic), &record)
    }

    fn add_delayed(&mut self, delayed: &RecoveredDelayed) -> io::Result<()> {
        let message = message_record(&delayed.publication, self.origin);
        let client = delayed.client.as_ref().map(|client| client.as_str());
        let home = self.home(client.unwrap_or(message.topic));
        let boot = &mut self.logs[home.index()].boot;
        boot.last_delayed += 1;
        let record = Record::Delayed(DelayedRecord {
            number: boot.last_delayed,
            due_at: delayed.due_at,
            client,
            publisher: None,
            will_of: None,
            message,
        });
        self.append(home, &record)
    }

    /// A message of an old shard, for those of its sessions that have yet to get it.
    pub(super) fn add_deliveries(
        &mut self,
        old: ShardId,
        message: MessageRecord<'_>,
        waiting: &[Target],
    ) -> io::Result<()> {
        let mut by_home: HashMap<ShardId, Vec<Target>> = HashMap::new();
        for target in waiting {
            if let Some(&(_, home, session)) = self.homes.get(&(old, target.session)) {
                by_home.entry(home).or_default().push(Target { session, ..target.clone() });
            }
        }
        for (home, targets) in by_home {
            let record = Record::Publication(PublicationRecord {
                message,
                is_retained: false,
                publisher: None,
                origin: None,
                targets: &targets,
            });
            self.append(home, &record)?;
        }
        Ok(())
    }

    /// Whether a session has yet to get a message, and that from this record.
    fn is_waiting(&self, old: ShardId, at: Position, target: &Target) -> bool {
        let Some((index, _, _)) = self.homes.get(&(old, target.session)) else { return false };
        let session = &self.old[old.index()].sessions[*index];
        let number = target.delivery.0.checked_sub(session.first.0);
        let slot = number.and_then(|number| session.deliveries.get(usize::try_from(number).ok()?));
        slot.is_some_and(|slot| matches!(slot.get(), Delivery::Message(hold) if hold.at == at))
    }

    fn append(&mut self, home: ShardId, record: &Record<'_>) -> io::Result<()> {
        self.logs[home.index()].append(record, self.put)
    }
}

/// One new log, written without hurry.
struct NewLog {
    shard: ShardId,
    log: Log,
    boot: Boot,
    pending_bytes: usize,
}

impl NewLog {
    fn new(new: NewLogs, shard: ShardId) -> Self {
        let log = Log::new(LogSetup {
            id: LogId { generation: new.generation, shard },
            segment_bytes: new.segment_bytes,
            bytes_max: new.bytes_max,
            segments: Vec::new(),
            next_segment: 1,
            next_batch: 1,
        });
        Self { shard, log, boot: Boot::default(), pending_bytes: 0 }
    }

    fn append(&mut self, record: &Record<'_>, put: &mut Put<'_>) -> io::Result<()> {
        self.pending_bytes += self.log.append(record).bytes as usize;
        if self.pending_bytes < BATCH_BYTES { Ok(()) } else { self.flush(put) }
    }

    fn flush(&mut self, put: &mut Put<'_>) -> io::Result<()> {
        self.pending_bytes = 0;
        while let Some(batch) = self.log.next_batch() {
            batch.writes.iter().try_for_each(|write| put(self.shard, write))?;
            self.log.batch_committed();
        }
        Ok(())
    }

    fn finish(&mut self, put: &mut Put<'_>) -> io::Result<()> {
        if self.log.appended() > 0 {
            let boot = Record::Boot(self.boot.clone());
            self.log.append(&boot);
        }
        self.flush(put)
    }
}

fn session_record(
    number: SessionNumber,
    session: &RecoveredSession,
    origin: TimeOrigin,
) -> SessionRecord<'_> {
    let numbered = |wanted: Delivery| {
        let slots = session.deliveries.iter().enumerate();
        let found = slots.filter(move |(_, slot)| slot.get() == wanted);
        found.map(|(at, _)| DeliveryNumber(session.first.0 + at as u64)).collect()
    };
    let will = session.will.as_ref().map(|will| WillRecord {
        message: message_record(&will.publication, origin),
        message_expiry_secs: will.message_expiry_secs,
        delay_secs: will.delay_secs,
        due_at: will.due_at,
    });
    let subscriptions = session.subscriptions.iter();
    SessionRecord {
        number,
        client: session.client.as_str(),
        user_name: session.user_name.as_deref(),
        is_proven: session.is_proven,
        groups: session.groups.iter().map(|group| &**group).collect(),
        address: session.address,
        expiry_secs: session.expiry_secs,
        detached_at: session.detached_at,
        will,
        subscriptions: subscriptions.map(|(filter, options)| (filter.as_str(), *options)).collect(),
        received: session.received.clone(),
        first: session.first,
        next: session.next(),
        sent: session.sent,
        done: numbered(Delivery::Done),
        released: numbered(Delivery::Received),
    }
}

fn message_record(publication: &Publication, origin: TimeOrigin) -> MessageRecord<'_> {
    MessageRecord::new(&publication.message(), origin)
}

/// Bytes of a batch.
const BATCH_BYTES: usize = 1024 * 1024;
