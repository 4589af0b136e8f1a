//! The head of a log: records in batches that are written and synced one at a time, what of the log is
//! still needed, and what can be given up.
//!
//! A record is encoded into the bytes that will be written, once, but for a large payload, which is not copied. A batch is closed when it is handed out,
//! or would need a third segment.

use std::{collections::VecDeque, mem};

use super::{
    Batch, Hold, LogId, Position, Record, SEGMENT_HEADER_BYTES, Unsealed, Write,
    frame::{FRAME_HEAD_BYTES, Seal, SegmentHeader},
    write,
};
use crate::base::{Output, limits::LOG_RECORD_BYTES_MAX};

/// How a log begins or goes on.
#[derive(Clone, Debug)]
pub struct LogSetup {
    /// Which log it is.
    pub id: LogId,
    /// Bytes of a segment; a record that needs more gets a segment of its own.
    pub segment_bytes: u32,
    /// Bytes of this shard's part of `storage_bytes_max`.
    pub bytes_max: u64,
    /// Segments that are there: number, bytes up to the end of the last record, bytes that holds keep. Oldest
    /// first, none missing in between.
    pub segments: Vec<(u32, u64, u64)>,
    /// Number of the first segment to write: that after the last one that is there, at least 1.
    pub next_segment: u32,
    /// Number of the first batch to write.
    pub next_batch: u64,
}

/// What new durable publications have to expect of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogState {
    /// All is well.
    Ready,
    /// `bytes_max` is reached but for a reserve of two segments: small records that free some are
    /// still taken.
    Full,
    /// The disk refuses: what is under way is tried again.
    Failing,
}

/// What a log has done since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogCounters {
    /// Records added.
    pub records: u64,
    /// Batches handed out to be written.
    pub batches: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Segments given up.
    pub segments_deleted: u64,
}

/// The head of one shard's log.
#[derive(Debug)]
pub struct Log {
    id: LogId,
    segment_bytes: u32,
    bytes_max: u64,
    /// Oldest first, their numbers without gaps. The last one is written to if `head` is there.
    segments: VecDeque<Segment>,
    /// What makes checksums of the segment that is written to, once one is.
    head: Option<Seal>,
    next_segment: u32,
    /// For each of the first segments that is cleaned: how many records must be committed before it goes.
    cleaned: VecDeque<u64>,
    /// Sum over all segments.
    room: u64,
    /// Sums over all segments that are not cleaned.
    written: u64,
    live: u64,
    next_batch: u64,
    /// Those before `open` that are not handed out yet.
    closed: VecDeque<Closed>,
    open: Option<Open>,
    under_way: Option<Mark>,
    /// Up to where it is on disk.
    committed: Mark,
    /// Counts of records: added, handed out, added when something began to wait for them.
    appended: u64,
    taken: u64,
    hurried: u64,
    is_failing: bool,
    counters: LogCounters,
}

#[derive(Debug)]
struct Segment {
    number: u32,
    /// Bytes of its file.
    room: u32,
    /// Where the next record would go.
    end: u32,
    /// Bytes that holds keep.
    live: u64,
}

/// The batch that records are added to.
#[derive(Debug)]
struct Open {
    number: u64,
    /// What goes to the segment before the last one, if the batch has begun there.
    writes: Vec<Write>,
    /// Where in the last segment `bytes` go.
    offset: u32,
    bytes: Output,
    unsealed: Vec<Unsealed>,
}

/// A batch that is complete.
#[derive(Debug)]
struct Closed {
    writes: Vec<Write>,
    /// Records up to its end.
    appended: u64,
}

/// A place between two records.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// How many were added before it.
    appended: u64,
    at: Position,
}

impl Log {
    /// A log that goes on in a new segment.
    pub fn new(setup: LogSetup) -> Self {
        let segment = |&(number, bytes, live): &(u32, u64, u64)| {
            let end = u32::try_from(bytes).unwrap_or(u32::MAX);
            Segment { number, room: end, end, live }
        };
        let segments: VecDeque<_> = setup.segments.iter().map(segment).collect();
        debug_assert!(segments.back().is_none_or(|last| last.number + 1 == setup.next_segment));
        let written = segments.iter().map(|segment| u64::from(segment.end)).sum();
        Self {
            id: setup.id,
            segment_bytes: setup.segment_bytes,
            bytes_max: setup.bytes_max,
            room: written,
            written,
            live: segments.iter().map(|segment| segment.live).sum(),
            segments,
            head: None,
            next_segment: setup.next_segment,
            cleaned: VecDeque::new(),
            next_batch: setup.next_batch,
            closed: VecDeque::new(),
            open: None,
            under_way: None,
            committed: Mark {
                appended: 0,
                at: Position { segment: setup.next_segment, offset: 0 },
            },
            appended: 0,
            taken: 0,
            hurried: 0,
            is_failing: false,
            counters: LogCounters::default(),
        }
    }

    /// Adds a record. Returns where it stands and how many bytes it takes. Bytes of a publication are
    /// to be held by [`Hold`]s whose shares are together no more than that.
    pub fn append(&mut self, record: &Record<'_>) -> Hold {
        let mut batch = self.open.take().unwrap_or_else(|| self.begin_batch());
        let mut start = batch.bytes.len();
        batch.bytes.tail().extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        record.encode(&mut batch.bytes);
        let bytes = batch.bytes.len() - start;
        debug_assert!(bytes <= LOG_RECORD_BYTES_MAX as usize);
        if !self.has_room(&batch) {
            start = self.change_segment(&mut batch, start);
        }
        let at = self.seal(&mut batch, start);
        self.open = Some(batch);
        self.appended += 1;
        self.counters.records += 1;
        Hold { at, bytes: bytes as u32 }
    }

    /// Something waits for the records so far: they are to be committed as soon as can be.
    pub const fn hurry(&mut self) {
        self.hurried = self.appended;
    }

    /// How many records have been added. What is to wait for a record waits for the count after it.
    pub const fn appended(&self) -> u64 {
        self.appended
    }

    /// How many of them are on disk.
    pub const fn committed(&self) -> u64 {
        self.committed.appended
    }

    /// A part of a record is needed.
    pub fn hold(&mut self, hold: Hold) {
        if let Some(segment) = self.held(hold.at) {
            segment.live += u64::from(hold.bytes);
            self.live += u64::from(hold.bytes);
        }
    }

    /// It is not any more.
    pub fn release(&mut self, hold: Hold) {
        if let Some(segment) = self.held(hold.at) {
            debug_assert!(segment.live >= u64::from(hold.bytes), "released more than was held");
            let bytes = segment.live.min(hold.bytes.into());
            segment.live -= bytes;
            self.live -= bytes;
        }
    }

    /// What new durable publications have to expect.
    pub const fn state(&self) -> LogState {
        if self.is_failing {
            LogState::Failing
        } else if self.is_full() {
            LogState::Full
        } else {
            LogState::Ready
        }
    }

    /// Whether only the reserve is left, be the disk as it may.
    pub const fn is_full(&self) -> bool {
        self.is_within(RESERVE_SEGMENTS)
    }

    /// Whether records wait for [`next_batch`](Self::next_batch), and something waits for them.
    pub const fn is_urgent(&self) -> bool {
        self.hurried > self.taken
    }

    /// Whether any records wait for it.
    pub fn has_pending(&self) -> bool {
        self.open.is_some() || !self.closed.is_empty()
    }

    /// Bytes of records that have not been handed out to be written.
    pub fn pending_bytes(&self) -> u64 {
        let closed = self.closed.iter().flat_map(|batch| &batch.writes);
        let open = self.open.iter().flat_map(|batch| &batch.writes);
        let ended: u64 = closed.chain(open).map(|write| write.bytes.len() as u64).sum();
        ended + self.open.as_ref().map_or(0, |batch| batch.bytes.len() as u64)
    }

    /// What is to be written next; `None` while a batch is under way or there is nothing.
    pub fn next_batch(&mut self) -> Option<Batch> {
        if self.under_way.is_some() {
            return None;
        }
        let Closed { writes, appended } = self.take_batch()?;
        let last = writes.last()?;
        let at = Position { segment: last.segment, offset: last.offset + last.bytes.len() as u32 };
        self.taken = appended;
        self.under_way = Some(Mark { appended, at });
        self.counters.batches += 1;
        self.counters.bytes += writes.iter().map(|write| write.bytes.len() as u64).sum::<u64>();
        Some(Batch { writes })
    }

    /// The batch under way is on disk.
    pub const fn batch_committed(&mut self) {
        if let Some(mark) = self.under_way.take() {
            self.committed = mark;
        }
    }

    /// The disk refuses the batch under way, which is tried again; or no new segment can be had.
    pub const fn disk_failed(&mut self, is_failing: bool) {
        self.is_failing = is_failing;
    }

    /// Whether the record there can be read: it is committed.
    pub fn is_readable(&self, at: Position) -> bool {
        at < self.committed.at
    }

    /// The segment at the tail, if it is worth to have what is needed of it moved to the head, and
    /// its bytes: none if nothing of it is needed, so that it need not be read. What is counted
    /// ([`Record::Boot`]) has to be added in either case before it is [`cleaned`](Self::cleaned).
    pub fn to_clean(&self) -> Option<(u32, u32)> {
        let oldest = self.segments.get(self.cleaned.len())?;
        // All of it is on disk, and nothing is written to it any more.
        if oldest.number >= self.committed.at.segment {
            return None;
        }
        if oldest.live == 0 {
            return Some((oldest.number, 0));
        }
        let unneeded = self.written.saturating_sub(self.live);
        let is_mostly_unneeded = unneeded > self.live + 2 * u64::from(self.segment_bytes);
        let is_short = self.is_within(2 * RESERVE_SEGMENTS) && unneeded >= self.written / 4;
        (is_mostly_unneeded || is_short).then_some((oldest.number, oldest.end))
    }

    /// All that is needed of the oldest segment has been added again. It is deleted when that is
    /// committed; see [`pop_deletable`](Self::pop_deletable). Holds on it do not count from now on.
    pub fn cleaned(&mut self, segment: u32) {
        let Some(oldest) = self.segments.get_mut(self.cleaned.len()) else { return };
        debug_assert_eq!(oldest.number, segment, "only the oldest segment is ever given up");
        self.written -= u64::from(oldest.end);
        self.live -= mem::take(&mut oldest.live);
        self.cleaned.push_back(self.appended);
    }

    /// A segment whose file is to be deleted.
    pub fn pop_deletable(&mut self) -> Option<u32> {
        if *self.cleaned.front()? > self.committed() {
            return None;
        }
        self.cleaned.pop_front();
        let segment = self.segments.pop_front()?;
        self.room -= u64::from(segment.room);
        self.counters.segments_deleted += 1;
        Some(segment.number)
    }

    /// Which log it is.
    pub const fn id(&self) -> LogId {
        self.id
    }

    /// How many bytes of a segment can be read from `at` on, no more than `max`.
    pub fn readable(&self, at: Position, max: u32) -> u32 {
        let committed = self.committed.at;
        let end = match self.held_at(at) {
            Some(segment) if at.segment < committed.segment => segment.end,
            _ if at.segment == committed.segment => committed.offset,
            _ => 0,
        };
        end.saturating_sub(at.offset).min(max)
    }

    /// Whether anything of a segment is needed.
    pub fn holds_any(&self, segment: u32) -> bool {
        self.held_at(Position { segment, offset: 0 }).is_some_and(|segment| segment.live > 0)
    }

    /// What it has done since it was made.
    pub const fn counters(&self) -> LogCounters {
        self.counters
    }

    /// Segments that take room on disk, those to be written included.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Bytes that they take.
    pub const fn bytes(&self) -> u64 {
        self.room
    }

    /// Bytes that they may take.
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes of them that holds keep.
    pub const fn live_bytes(&self) -> u64 {
        self.live
    }

    /// Whether no more than so many further segments stay below `bytes_max`.
    const fn is_within(&self, segments: u64) -> bool {
        self.room + segments * self.segment_bytes as u64 > self.bytes_max
    }

    fn held_at(&self, at: Position) -> Option<&Segment> {
        let index = at.segment.checked_sub(self.segments.front()?.number)?;
        self.segments.get(index as usize)
    }

    /// The segment that a hold is on, if that counts.
    fn held(&mut self, at: Position) -> Option<&mut Segment> {
        let index = at.segment.checked_sub(self.segments.front()?.number)? as usize;
        if index < self.cleaned.len() { None } else { self.segments.get_mut(index) }
    }

    /// Whether the batch fits into the segment that is written to.
    fn has_room(&self, batch: &Open) -> bool {
        let end = u64::from(batch.offset) + batch.bytes.len() as u64;
        let room = self.segments.back().map_or(0, |segment| segment.room);
        self.head.is_some() && end <= u64::from(room)
    }

    /// Completes the frame of the last record, which stands at `start` of the batch's bytes.
    fn seal(&mut self, batch: &mut Open, start: usize) -> Position {
        let (Some(seal), Some(segment)) = (self.head, self.segments.back_mut()) else {
            unreachable!("a record has been added, so there is a segment for it");
        };
        let at = Position { segment: segment.number, offset: batch.offset + start as u32 };
        write::close(seal, at.offset, &mut batch.bytes, start, &mut batch.unsealed);
        let end = batch.offset + batch.bytes.len() as u32;
        self.written += u64::from(end - segment.end);
        segment.end = end;
        at
    }

    /// A batch without records that begins where the log ends.
    fn begin_batch(&mut self) -> Open {
        let mut batch = Open {
            number: self.next_batch,
            writes: Vec::new(),
            offset: 0,
            bytes: Vec::with_capacity(BATCH_BYTES_EXPECTED).into(),
            unsealed: Vec::new(),
        };
        self.next_batch += 1;
        if let (Some(seal), Some(segment)) = (self.head, self.segments.back()) {
            batch.offset = segment.end;
            seal.put_batch(segment.end, batch.number, batch.bytes.tail());
        }
        batch
    }

    /// Moves the record at the end of the batch, at `start` of its bytes, to a new segment. Returns where
    /// it begins in the bytes for that.
    fn change_segment(&mut self, batch: &mut Open, start: usize) -> usize {
        let record = batch.bytes.split_off(start);
        let previous_end = self.segments.back().map_or(0, |segment| segment.end);
        // Else the batch has no record in the segment that ends, just its beginning.
        if self.head.is_some() && previous_end > batch.offset {
            let (bytes, unsealed) = (mem::take(&mut batch.bytes), mem::take(&mut batch.unsealed));
            batch.writes.extend(self.write(batch.offset, bytes, unsealed));
        }
        if batch.writes.len() == BATCH_SEGMENTS_MAX {
            let writes = mem::take(&mut batch.writes);
            self.closed.push_back(Closed { writes, appended: self.appended });
            batch.number = self.next_batch;
            self.next_batch += 1;
        }
        let header = SegmentHeader {
            segment: self.next_segment,
            previous_end,
            batch: batch.number,
            batch_begin: batch.writes.first().map(|write| write.offset),
        };
        let start = SEGMENT_HEADER_BYTES as usize;
        batch.offset = 0;
        batch.bytes = header.encode(self.id).to_vec().into();
        batch.bytes.append(record);
        let room = self.segment_bytes.max(batch.bytes.len() as u32);
        self.segments.push_back(Segment { number: header.segment, room, end: 0, live: 0 });
        self.room += u64::from(room);
        self.head = Some(Seal::new(self.id, header.segment));
        self.next_segment += 1;
        start
    }

    /// A write to the last segment.
    fn write(&self, offset: u32, bytes: Output, unsealed: Vec<Unsealed>) -> Option<Write> {
        let &Segment { number, room, .. } = self.segments.back()?;
        Some(Write { segment: number, offset, segment_bytes: room, bytes, unsealed })
    }

    /// The batch that is to be written next, closed.
    fn take_batch(&mut self) -> Option<Closed> {
        if let Some(closed) = self.closed.pop_front() {
            return Some(closed);
        }
        let Open { mut writes, offset, bytes, unsealed, .. } = self.open.take()?;
        writes.extend(self.write(offset, bytes, unsealed));
        Some(Closed { writes, appended: self.appended })
    }
}

/// Segments that one batch is written to: a crash leaves no more than the last two unfinished.
const BATCH_SEGMENTS_MAX: usize = 2;
/// Segments below `bytes_max` that are left to records that free some.
const RESERVE_SEGMENTS: u64 = 2;
/// Most batches need no more than this.
const BATCH_BYTES_EXPECTED: usize = 4096;
