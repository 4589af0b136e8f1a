//! A damaged log made readable again: what cannot be read is written over by frames that say nothing.
//!
//! All records keep their places. What was lost shows when the repaired log is read: as ranges of bytes here,
//! and as deliveries that sessions lack ([`super::RecoveredLog::gaps`]).

use std::ops::Range;

use super::{
    LogId, Record, SEGMENT_HEADER_BYTES, Target,
    frame::{Content, Frame, SMALLEST_FRAME_BYTES, Seal, SegmentHeader, content, frame_len},
    scan::{is_zero, skipped},
};

/// Repairs the segments of one log, in their order.
#[derive(Debug)]
pub struct Repairer {
    id: LogId,
    targets: Vec<Target>,
    /// Where the segment before ends now, and its last batch.
    last: Option<(u32, u64)>,
}

/// What a segment is to be.
#[derive(PartialEq, Eq, Debug)]
pub struct Repaired {
    /// Bytes that cannot be read.
    pub unreadable: Vec<Range<u32>>,
    /// Records that can.
    pub records: u64,
    /// The whole file, if it has to be written anew.
    pub bytes: Option<Vec<u8>>,
}

impl Repairer {
    /// Before the first segment.
    pub const fn new(id: LogId) -> Self {
        Self { id, targets: Vec::new(), last: None }
    }

    /// The next segment. Without bytes if its file is missing; `next` is the beginning of the file of the
    /// segment behind, if there is one.
    pub fn segment(&mut self, segment: u32, bytes: &[u8], next: Option<&[u8]>) -> Repaired {
        let seal = Seal::new(self.id, segment);
        let (last_end, last_batch) = self.last.unwrap_or_default();
        let header = self.header(segment, bytes).filter(|header| {
            self.last.is_none() || header.previous_end == last_end && header.batch >= last_batch
        });
        let walk = self.walk(seal, bytes);
        let mut unreadable = walk.unreadable;
        let mut end = walk.end;
        let next = next.and_then(|next| self.header(segment.checked_add(1)?, next));
        if let Some(next) = next
            && next.previous_end.checked_sub(end).is_some_and(|lost| lost >= SMALLEST_FRAME_BYTES)
        {
            unreadable.push(end..next.previous_end);
            end = next.previous_end;
        }
        let is_torn = bytes.get(end as usize..).is_some_and(|rest| !is_zero(rest));
        let is_sound = header.is_some() && unreadable.is_empty() && !is_torn;
        // Where its own header is lost, it goes on in the last batch that is known.
        let made = SegmentHeader {
            segment,
            previous_end: last_end,
            batch: self.last.map_or(walk.first_batch.saturating_sub(1), |_| last_batch),
            batch_begin: self.last.map(|_| last_end),
        };
        let header_bytes = header.unwrap_or(made).encode(self.id);
        let mut file = Vec::new();
        if !is_sound {
            file.extend_from_slice(&bytes[..bytes.len().min(end as usize)]);
            file.resize(end as usize, 0);
            file[..SEGMENT_HEADER_BYTES as usize].copy_from_slice(&header_bytes);
            unreadable.iter().for_each(|range| seal.put_void(&mut file, range.clone()));
        }
        if header.is_none() {
            unreadable.insert(0, 0..SEGMENT_HEADER_BYTES);
        }
        if is_torn {
            unreadable.push(end..u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        let batch = walk.last_batch.max(header.unwrap_or(made).batch);
        self.last = Some((end, batch));
        Repaired { unreadable, records: walk.records, bytes: (!is_sound).then_some(file) }
    }

    fn header(&self, segment: u32, bytes: &[u8]) -> Option<SegmentHeader> {
        SegmentHeader::decode(self.id, segment, bytes).ok().flatten()
    }

    /// Finds what can be read of a segment.
    fn walk(&mut self, seal: Seal, bytes: &[u8]) -> Walk {
        let mut walk = Walk { end: SEGMENT_HEADER_BYTES, ..Walk::default() };
        loop {
            let rest = bytes.get(walk.end as usize..).unwrap_or_default();
            if let Frame::Whole(frame) = seal.open(walk.end, rest) {
                let end = walk.end + frame_len(frame);
                if !walk.add(frame, &mut self.targets) {
                    walk.unreadable.push(walk.end..end);
                }
                walk.end = end;
                continue;
            }
            let range = skipped(seal, bytes, walk.end);
            // At the end, `skipped` finds nothing more. What is there may be torn only.
            if is_zero(rest) || range.end as usize >= bytes.len() {
                return walk;
            }
            walk.end = range.end;
            walk.unreadable.push(range);
        }
    }
}

/// What can be read of a segment, and what cannot.
#[derive(Debug, Default)]
struct Walk {
    unreadable: Vec<Range<u32>>,
    records: u64,
    /// 0 if none begins there.
    first_batch: u64,
    last_batch: u64,
    /// Behind the last whole frame.
    end: u32,
}

impl Walk {
    /// Counts a whole frame. Returns whether it makes sense.
    fn add(&mut self, frame: &[u8], targets: &mut Vec<Target>) -> bool {
        match content(frame) {
            Ok(Content::Record) => {
                let is_valid = Record::decode(frame, targets).is_ok();
                self.records += u64::from(is_valid);
                is_valid
            }
            Ok(Content::Batch(number)) => {
                if self.first_batch == 0 {
                    self.first_batch = number;
                }
                self.last_batch = self.last_batch.max(number);
                true
            }
            Ok(Content::Void) => true,
            Err(_) => false,
        }
    }
}
