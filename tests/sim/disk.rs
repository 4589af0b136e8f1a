//! The disk of one simulated shard: what is written is there for certain once it is synced. When the
//! power fails, any of the sectors of what was under way may be there or not.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use ringmq::{
    base::TimeOrigin,
    broker::LogRead,
    storage::{Batch, LogId, LogReader, RecoveredLog, Write},
};

use crate::random::Random;

pub(crate) struct Disk {
    pub(crate) id: LogId,
    files: BTreeMap<u32, Vec<u8>>,
    /// What is being written.
    batch: Option<Batch>,
    /// Reads and deletions in their order.
    jobs: VecDeque<Job>,
    /// Steps from which on it goes on with either.
    syncs_from: u64,
    works_from: u64,
    /// Step until which it refuses to write.
    refuses_until: Option<u64>,
    /// Steps that a sync takes at most.
    pace: usize,
}

enum Job {
    Read(LogRead),
    Delete(u32),
}

impl Disk {
    pub(crate) fn new(id: LogId, pace: usize) -> Self {
        Self {
            id,
            files: BTreeMap::new(),
            batch: None,
            jobs: VecDeque::new(),
            syncs_from: 0,
            works_from: 0,
            refuses_until: None,
            pace,
        }
    }

    /// The shell begins to write.
    pub(crate) fn write(&mut self, batch: Batch, step: u64, random: &mut Random) {
        assert!(self.batch.is_none(), "one batch at a time");
        assert!((1..=2).contains(&batch.writes.len()), "{} segments at once", batch.writes.len());
        self.syncs_from = step + random.below(self.pace) as u64;
        self.batch = Some(batch);
    }

    pub(crate) fn read(&mut self, read: LogRead) {
        self.jobs.push_back(Job::Read(read));
    }

    pub(crate) fn delete(&mut self, segment: u32) {
        self.jobs.push_back(Job::Delete(segment));
    }

    /// From now on it writes nothing for a while.
    pub(crate) fn refuse(&mut self, until: u64) {
        self.refuses_until = Some(until);
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.refuses_until.is_some()
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.batch.is_some()
    }

    /// Nothing is held up any more.
    pub(crate) fn thaw(&mut self) {
        (self.syncs_from, self.works_from) = (0, 0);
        self.refuses_until = self.refuses_until.map(|_| 0);
    }

    /// Steps at which something that is held up can go on.
    pub(crate) fn thaws_at(&self) -> impl Iterator<Item = u64> {
        let writes = self.batch.is_some().then_some(self.syncs_from);
        let works = (!self.jobs.is_empty()).then_some(self.works_from);
        writes.into_iter().chain(works).chain(self.refuses_until)
    }

    pub(crate) fn can_heal(&self, step: u64) -> bool {
        self.refuses_until.is_some_and(|until| until <= step)
    }

    pub(crate) fn heal(&mut self) {
        self.refuses_until = None;
    }

    pub(crate) fn can_sync(&self, step: u64) -> bool {
        self.batch.is_some() && self.syncs_from <= step && self.refuses_until.is_none()
    }

    pub(crate) fn can_work(&self, step: u64) -> bool {
        !self.jobs.is_empty() && self.works_from <= step
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_none() && self.jobs.is_empty() && self.refuses_until.is_none()
    }

    /// All of the batch is on disk.
    pub(crate) fn sync(&mut self) {
        for write in self.batch.take().into_iter().flat_map(|batch| batch.writes) {
            let end = write.offset as usize + write.bytes.len();
            let file = self.file_for(&write);
            assert!(end <= file.len(), "written past the end of the file");
            file[write.offset as usize..end].copy_from_slice(&write.bytes.into_vec());
        }
    }

    /// Does the next read or deletion; the bytes if it was a read.
    pub(crate) fn work(&mut self, step: u64, random: &mut Random) -> Option<(LogRead, Vec<u8>)> {
        self.works_from = step + random.below(self.pace) as u64;
        match self.jobs.pop_front()? {
            Job::Delete(segment) => {
                let oldest = self.files.pop_first().map(|(oldest, _)| oldest);
                assert_eq!(oldest, Some(segment), "only the oldest segment is given up");
                None
            }
            Job::Read(read) => {
                let file = &self.files[&read.at.segment];
                let start = read.at.offset as usize;
                let bytes = file[start..start + read.bytes as usize].to_vec();
                Some((read, bytes))
            }
        }
    }

    /// The power fails, or the process alone ends: of what was under way, any part may be there.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.jobs.clear();
        self.refuses_until = None;
        (self.syncs_from, self.works_from) = (0, 0);
        let Some(batch) = self.batch.take() else { return };
        match random.below(10) {
            0 | 1 => {}
            2 | 3 => {
                self.batch = Some(batch);
                self.sync();
            }
            4 | 5 => self.keep_front(&batch, random),
            _ => self.keep_some(&batch, random),
        }
    }

    /// It was written in its order and not to its end.
    fn keep_front(&mut self, batch: &Batch, random: &mut Random) {
        let bytes = batch.writes.iter().map(|write| write.bytes.len()).sum::<usize>();
        let mut left = random.below(bytes + 1);
        for write in &batch.writes {
            let len = left.min(write.bytes.len());
            self.put(write, 0..len);
            left -= len;
            if left == 0 {
                return;
            }
        }
    }

    /// Any of the sectors were written, of a new file even its length.
    fn keep_some(&mut self, batch: &Batch, random: &mut Random) {
        let percent = random.pick(&[5, 50, 95]);
        for write in &batch.writes {
            let is_new = write.offset == 0;
            match random.below(6) {
                0 if is_new => continue,
                1 if is_new => _ = self.files.insert(write.segment, Vec::new()),
                _ => self.keep_sectors(write, percent, random),
            }
        }
    }

    fn keep_sectors(&mut self, write: &Write, percent: usize, random: &mut Random) {
        let start = write.offset as usize;
        let end = start + write.bytes.len();
        self.put(write, 0..0);
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            if random.chance(percent) {
                let from = (sector * SECTOR_BYTES).max(start) - start;
                let to = ((sector + 1) * SECTOR_BYTES).min(end) - start;
                self.put(write, from..to);
            }
        }
    }

    fn put(&mut self, write: &Write, range: Range<usize>) {
        let start = write.offset as usize;
        let file = self.file_for(write);
        file[start + range.start..start + range.end]
            .copy_from_slice(&write.bytes.clone().into_vec()[range]);
    }

    /// The file for a write, which is made with the first one.
    fn file_for(&mut self, write: &Write) -> &mut Vec<u8> {
        let file = self.files.entry(write.segment).or_default();
        if write.offset == 0 && file.is_empty() {
            file.resize(write.segment_bytes as usize, 0);
        }
        file
    }

    /// Its segments, oldest first.
    pub(crate) fn files(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.files.iter().map(|(segment, bytes)| (*segment, &bytes[..]))
    }

    /// Before the brokers start: part of a new log, which is there for certain when all of it is.
    pub(crate) fn store(&mut self, write: &Write) {
        let file = self.files.entry(write.segment).or_default();
        assert_eq!(file.len(), write.offset as usize, "a segment from its beginning to its end");
        file.extend(write.bytes.clone().into_vec());
    }

    /// What the log amounts to. What is torn is cut off, as the shell does.
    pub(crate) fn recover(&mut self, origin: TimeOrigin) -> RecoveredLog {
        let mut reader = LogReader::new(self.id, origin);
        for (&segment, bytes) in &self.files {
            let result = reader.read(segment, bytes);
            result.unwrap_or_else(|damage| panic!("rule 18: {:?} is damaged: {damage}", self.id));
        }
        let log = reader.finish().unwrap_or_else(|damage| panic!("rule 18: {damage}"));
        if let Some(torn) = log.torn {
            self.files.split_off(&(torn.at.segment + 1));
            if torn.at.offset == 0 {
                self.files.remove(&torn.at.segment);
            } else if let Some(file) = self.files.get_mut(&torn.at.segment) {
                file.truncate(torn.at.offset as usize);
            }
        }
        log
    }
}

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;
