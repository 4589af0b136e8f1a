//! A whole log read again, segment by segment: what it amounts to and where to go on, or where it is damaged.
//!
//! A batch is begun only when the one before is on disk. So if the beginning of a batch stands anywhere behind
//! a place that cannot be read, what stood there was committed, and is damaged. Otherwise that place belongs to
//! the batch that was under way at the end: it is torn, nothing of it was promised, and it is cut there.

use super::{
    Fold, Gap, LogId, LogSetup, Position, RecordError, RecoveredShard, SEGMENT_HEADER_BYTES,
    Scanned, SegmentEnd, SegmentScan, Target,
    frame::{Seal, SegmentHeader},
    scan::{NO_HEADER, skipped},
};
use crate::base::TimeOrigin;

/// Reads a log.
#[derive(Debug)]
pub struct LogReader {
    id: LogId,
    fold: Fold,
    targets: Vec<Target>,
    /// Number and end of the segments so far.
    segments: Vec<(u32, u32)>,
    /// The last batch of which something has been read.
    batch: u64,
    /// Where reading has ended: nothing behind it has been read, just searched.
    torn: Option<Damage>,
    /// It has been repaired: whatever was lost then is known.
    is_repaired: bool,
}

/// A place in a log that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("segment {} at byte {}: {why}; {skipped} bytes to the next whole record", at.segment, at.offset)]
pub struct Damage {
    /// Where it begins.
    pub at: Position,
    /// What is wrong there.
    pub why: RecordError,
    /// Bytes up to the next whole record of that segment, or to its end.
    pub skipped: u32,
}

/// A log that has been read.
#[derive(Debug)]
pub struct RecoveredLog {
    /// What it amounts to.
    pub shard: RecoveredShard,
    /// Number, bytes up to the end of the last record, and bytes that are needed of each segment.
    pub segments: Vec<(u32, u64, u64)>,
    /// A file that ends with something else than a whole record of this log, and that is to be cut there, or
    /// deleted if at offset 0 and not missing already; files of later segments are to be deleted, the last
    /// one first.
    pub torn: Option<Damage>,
    /// The first segment to write.
    pub next_segment: u32,
    /// The first batch to write.
    pub next_batch: u64,
    /// Deliveries that were lost in an earlier damage.
    pub gaps: Vec<Gap>,
}

impl RecoveredLog {
    /// How the log goes on.
    pub fn setup(&self, id: LogId, segment_bytes: u32, bytes_max: u64) -> LogSetup {
        LogSetup {
            id,
            segment_bytes,
            bytes_max,
            segments: self.segments.clone(),
            next_segment: self.next_segment,
            next_batch: self.next_batch,
        }
    }
}

impl LogReader {
    /// Before the first segment, in a process whose clock has begun at `origin`.
    pub fn new(id: LogId, origin: TimeOrigin) -> Self {
        Self {
            id,
            fold: Fold::new(origin),
            targets: Vec::new(),
            segments: Vec::new(),
            batch: 0,
            torn: None,
            is_repaired: false,
        }
    }

    /// Reads the next segment, all of its file. The oldest comes first, in the order of their numbers.
    ///
    /// # Errors
    /// If the log is damaged there or before.
    pub fn read(&mut self, segment: u32, bytes: &[u8]) -> Result<(), Damage> {
        let header = match SegmentHeader::decode(self.id, segment, bytes) {
            Ok(header) => header,
            Err(why) => return Err(Damage::new(segment, 0, why)),
        };
        if self.torn.is_none() {
            self.torn = self.check(segment, header.as_ref())?;
        }
        match (header, self.torn) {
            (Some(header), None) => self.scan(&header, bytes),
            (header, Some(torn)) => self.search(header, torn, segment, bytes),
            (None, None) => Ok(()),
        }
    }

    /// What all segments amount to.
    ///
    /// # Errors
    /// If no log can amount to that, or it lacks its oldest segments.
    pub fn finish(self) -> Result<RecoveredLog, Damage> {
        let (last, end) = self.segments.last().copied().unwrap_or_default();
        let gaps = self.fold.gaps();
        let shard = self.fold.finish().map_err(|why| Damage::new(last, end, why))?;
        let oldest = shard.boot.given_up.saturating_add(1);
        if self.segments.first().is_some_and(|(first, _)| *first > oldest) && !self.is_repaired {
            return Err(Damage::new(oldest, 0, MISSING));
        }
        let held = shard.held();
        let segments = self.segments.iter().map(|&(segment, end)| {
            (segment, u64::from(end), held.get(&segment).copied().unwrap_or_default())
        });
        // A file that is torn from its first byte on is deleted, and its number used again.
        let first = self.torn.map_or(1, |torn| torn.at.segment);
        Ok(RecoveredLog {
            shard,
            segments: segments.collect(),
            torn: self.torn,
            next_segment: if self.segments.is_empty() { first } else { last + 1 },
            next_batch: self.batch + 1,
            gaps,
        })
    }

    /// Whether a segment follows on what has been read: where it does not.
    fn check(
        &self,
        segment: u32,
        header: Option<&SegmentHeader>,
    ) -> Result<Option<Damage>, Damage> {
        if let Some(&(last, end)) = self.segments.last() {
            if segment != last + 1 {
                return Ok(Some(Damage::new(last + 1, 0, MISSING)));
            }
            if header.is_some_and(|header| header.previous_end > end) {
                return Ok(Some(Damage::new(last, end, RecordError("records are missing"))));
            }
            let follows = |header: &SegmentHeader| {
                let goes_on = u64::from(header.batch_begin.is_none());
                header.previous_end == end && header.batch >= self.batch + goes_on
            };
            if !header.is_none_or(follows) {
                let why = RecordError("segment does not go on where the one before ends");
                return Err(Damage::new(segment, 0, why));
            }
        }
        Ok(header.is_none().then_some(Damage::new(segment, 0, NO_HEADER)))
    }

    /// Adds the records of a segment up to its end.
    fn scan(&mut self, header: &SegmentHeader, bytes: &[u8]) -> Result<(), Damage> {
        let segment = header.segment;
        let mut scan = SegmentScan::behind(self.id, header, bytes);
        let end = loop {
            match scan.next(&mut self.targets) {
                Scanned::Record(at, len, record) => {
                    let applied = self.fold.apply(at, len, &record);
                    applied.map_err(|why| Damage::new(segment, at.offset, why))?;
                }
                Scanned::Batch(_) => {}
                Scanned::End(end) => break end,
            }
        };
        self.batch = scan.batch();
        self.is_repaired |= scan.has_void();
        self.segments.push((segment, scan.offset()));
        match end {
            SegmentEnd::Clean(_) => Ok(()),
            SegmentEnd::Foreign { offset, why } => Err(Damage::new(segment, offset, why)),
            SegmentEnd::Torn { offset, why } => {
                let seal = Seal::new(self.id, segment);
                let torn = Damage {
                    skipped: skipped(seal, bytes, offset).len() as u32,
                    ..Damage::new(segment, offset, why)
                };
                self.torn = Some(torn);
                if seal.finds_batch(bytes, offset) { Err(torn) } else { Ok(()) }
            }
        }
    }

    /// Looks behind a place that cannot be read for the beginning of a batch.
    fn search(
        &self,
        header: Option<SegmentHeader>,
        torn: Damage,
        segment: u32,
        bytes: &[u8],
    ) -> Result<(), Damage> {
        let begins_behind = header.is_some_and(|header| header.begin() > torn.at);
        let is_damage =
            begins_behind || Seal::new(self.id, segment).finds_batch(bytes, SEGMENT_HEADER_BYTES);
        if is_damage { Err(torn) } else { Ok(()) }
    }
}

impl Damage {
    const fn new(segment: u32, offset: u32, why: RecordError) -> Self {
        Self { at: Position { segment, offset }, why, skipped: 0 }
    }
}

const MISSING: RecordError = RecordError("segment is missing");
