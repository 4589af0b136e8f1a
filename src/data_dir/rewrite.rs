//! The state that all logs amount to, written as the logs of another generation for another number of shards.
//!
//! All that is written is on disk before `meta` names the new generation; what is in memory of it is a batch for
//! each new log and a segment of an old one. Sessions keep the numbers of their deliveries, and with them their
//! Packet Identifiers.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    DataDir, DataDirError, META, Meta, between, create_generation,
    error::At,
    generation_path,
    recover::{Layout, read_file},
};
use crate::{
    base::{ShardId, TimeOrigin, home_of},
    message::Publication,
    shard::{segment_path, sync_directory},
    storage::{
        Boot, DelayedRecord, Delivery, DeliveryNumber, Log, LogId, LogSetup, MessageRecord,
        PublicationRecord, Record, RecoveredDelayed, RecoveredSession, RecoveredShard, Scanned,
        SegmentScan, SessionNumber, SessionRecord, Target, WillRecord,
    },
};

impl DataDir {
    /// Writes what the logs amount to anew, and lets the new ones take the place of the old ones.
    pub(super) fn rewrite(
        &mut self,
        shards: Vec<RecoveredShard>,
        layout: Layout,
        origin: TimeOrigin,
    ) -> Result<(), DataDirError> {
        let meta =
            Meta { shards: layout.shards, generation: self.meta.generation + 1, ..self.meta };
        let directory = create_generation(&self.path, meta.generation)?;
        let mut rewriting = Rewriting::new(&directory, meta, layout, origin);
        for (shard, recovered) in shards.iter().enumerate() {
            rewriting.add_shard(ShardId(shard as u16), recovered).at(&directory)?;
        }
        self.copy_deliveries(&shards, &mut rewriting)?;
        between::finish(meta.seed, &shards, &mut rewriting).at(&directory)?;
        rewriting.finish().at(&directory)?;
        sync_directory(&directory).at(&directory)?;
        meta.write(&self.path).at(&self.path.join(META))?;
        let old = generation_path(&self.path, self.meta.generation);
        self.meta = meta;
        // A crash before this leaves it to the next start.
        fs::remove_dir_all(&old).at(&old)?;
        sync_directory(&self.path).at(&self.path)
    }

    /// Walks through the old logs for the messages that sessions have yet to get.
    fn copy_deliveries(
        &self,
        shards: &[RecoveredShard],
        rewriting: &mut Rewriting<'_>,
    ) -> Result<(), DataDirError> {
        let (mut buffer, mut targets) = (Vec::new(), Vec::new());
        for (shard, files) in self.files()?.iter().enumerate() {
            let id = self.log_id(ShardId(shard as u16));
            for file in files {
                read_file(&file.path, &mut buffer).at(&file.path)?;
                // What ends early here has ended there when it was recovered.
                let Ok(mut scan) = SegmentScan::new(id, file.segment, &buffer) else { continue };
                loop {
                    match scan.next(&mut targets) {
                        Scanned::Record(at, _, Record::Publication(record)) => {
                            let is_waiting = |target: &Target| {
                                let (index, _, _) =
                                    rewriting.homes.get(&(id.shard, target.session))?;
                                let session = &shards[shard].sessions[*index];
                                let number = target.delivery.0.checked_sub(session.first.0)?;
                                let slot = session.deliveries.get(usize::try_from(number).ok()?)?;
                                match slot.get() {
                                    Delivery::Message(hold) if hold.at == at => Some(()),
                                    _ => None,
                                }
                            };
                            let waiting: Vec<_> = record
                                .targets
                                .iter()
                                .filter(|target| is_waiting(target).is_some())
                                .cloned()
                                .collect();
                            rewriting
                                .add_deliveries(id.shard, record.message, &waiting)
                                .at(&file.path)?;
                        }
                        Scanned::Record(..) | Scanned::Batch(_) => {}
                        Scanned::End(_) => break,
                    }
                }
            }
        }
        Ok(())
    }
}

/// The new logs in the making.
pub(super) struct Rewriting<'a> {
    directory: &'a Path,
    meta: Meta,
    pub(super) origin: TimeOrigin,
    logs: Vec<NewLog>,
    /// By shard and name in the old log: which of that shard's sessions it is, where it lives now, and its name
    /// there.
    homes: HashMap<(ShardId, SessionNumber), (usize, ShardId, SessionNumber)>,
}

impl<'a> Rewriting<'a> {
    fn new(directory: &'a Path, meta: Meta, layout: Layout, origin: TimeOrigin) -> Self {
        let log = |shard| {
            NewLog::new(LogSetup {
                id: LogId { generation: meta.generation, shard: ShardId(shard) },
                segment_bytes: layout.segment_bytes(),
                bytes_max: layout.bytes_max_per_shard(),
                segments: Vec::new(),
                next_segment: 1,
                next_batch: 1,
            })
        };
        let logs = (0..meta.shards).map(log).collect();
        Self { directory, meta, origin, logs, homes: HashMap::new() }
    }

    fn home(&self, text: &str) -> ShardId {
        home_of(self.meta.seed, self.meta.shards, text)
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

    fn append(&mut self, home: ShardId, record: &Record<'_>) -> io::Result<()> {
        self.logs[home.index()].append(self.directory, record)
    }

    fn finish(&mut self) -> io::Result<()> {
        let directory = self.directory;
        self.logs.iter_mut().try_for_each(|log| log.finish(directory))
    }
}

/// One new log, written without hurry.
struct NewLog {
    shard: ShardId,
    log: Log,
    boot: Boot,
    pending_bytes: usize,
    /// The segment that is written to, and its file.
    head: Option<(u32, File)>,
}

impl NewLog {
    fn new(setup: LogSetup) -> Self {
        let shard = setup.id.shard;
        Self { shard, log: Log::new(setup), boot: Boot::default(), pending_bytes: 0, head: None }
    }

    fn append(&mut self, directory: &Path, record: &Record<'_>) -> io::Result<()> {
        self.pending_bytes += self.log.append(record).bytes as usize;
        if self.pending_bytes < BATCH_BYTES { Ok(()) } else { self.flush(directory) }
    }

    fn flush(&mut self, directory: &Path) -> io::Result<()> {
        self.pending_bytes = 0;
        while let Some(batch) = self.log.next_batch() {
            for write in &batch.writes {
                if self.head.as_ref().is_none_or(|(segment, _)| *segment != write.segment) {
                    self.sync()?;
                    let path = segment_path(directory, self.shard, write.segment);
                    self.head = Some((write.segment, create_file(&path)?));
                }
                if let Some((_, file)) = &self.head {
                    file.write_all_at(&write.bytes, write.offset.into())?;
                }
            }
            self.log.batch_committed();
        }
        Ok(())
    }

    fn finish(&mut self, directory: &Path) -> io::Result<()> {
        if self.log.has_pending() || self.head.is_some() {
            let boot = Record::Boot(self.boot.clone());
            self.log.append(&boot);
        }
        self.flush(directory)?;
        self.sync()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.head.take().map_or(Ok(()), |(_, file)| file.sync_all())
    }
}

fn create_file(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
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
