//! A walk through the bytes of one segment, frame by frame.
//!
//! It yields only what a whole file would yield at that place: frames without a gap from the header on.

use std::ops::Range;

use super::{
    LogId, Position, Record, RecordError, SEGMENT_HEADER_BYTES, Target,
    encoding::kind,
    frame::{
        Content, FRAME_HEAD_BYTES, Frame, SMALLEST_FRAME_BYTES, Seal, SegmentHeader, content,
        frame_len,
    },
};

/// A walk through one segment.
#[derive(Debug)]
pub struct SegmentScan<'a> {
    seal: Seal,
    segment: u32,
    bytes: &'a [u8],
    at: u32,
    batch: u64,
    has_void: bool,
}

/// What a walk comes to next.
#[derive(PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "it is nearly always the largest, and never kept")]
pub enum Scanned<'a> {
    /// A record: where it stands, its bytes there, what it says.
    Record(Position, u32, Record<'a>),
    /// The batch of this number begins.
    Batch(u64),
    /// The end of the records at this offset.
    End(SegmentEnd),
}

/// How the records of a segment end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentEnd {
    /// Nothing but zeros from this offset on.
    Clean(u32),
    /// No whole record stands at this offset, of a file that is not at its end.
    Torn {
        /// From there on nothing has been read.
        offset: u32,
        /// What is wrong.
        why: RecordError,
    },
    /// The bytes there are as they were written and still make no sense: another version, or a fault of the
    /// program.
    Foreign {
        /// Where they stand.
        offset: u32,
        /// What is wrong.
        why: RecordError,
    },
}

impl<'a> SegmentScan<'a> {
    /// Begins at the first record. A file without the header of this segment ends there at once.
    pub fn new(log: LogId, segment: u32, bytes: &'a [u8]) -> Result<Self, SegmentEnd> {
        match SegmentHeader::decode(log, segment, bytes) {
            Ok(Some(header)) => Ok(Self::behind(log, &header, bytes)),
            Ok(None) => Err(SegmentEnd::Torn { offset: 0, why: NO_HEADER }),
            Err(why) => Err(SegmentEnd::Foreign { offset: 0, why }),
        }
    }

    /// Begins behind a header.
    pub(super) fn behind(log: LogId, header: &SegmentHeader, bytes: &'a [u8]) -> Self {
        let seal = Seal::new(log, header.segment);
        Self {
            seal,
            segment: header.segment,
            bytes,
            at: SEGMENT_HEADER_BYTES,
            batch: header.batch,
            has_void: false,
        }
    }

    /// What comes next; targets of a publication are put into `targets`. Its end comes again and again.
    pub fn next<'b>(&mut self, targets: &'b mut Vec<Target>) -> Scanned<'b>
    where
        'a: 'b,
    {
        loop {
            let at = self.at;
            let frame = match self.frame() {
                Ok(frame) => frame,
                Err(end) => return Scanned::End(end),
            };
            let foreign =
                |why| -> Scanned<'b> { Scanned::End(SegmentEnd::Foreign { offset: at, why }) };
            match content(frame) {
                Err(why) => return foreign(why),
                Ok(Content::Batch(number)) if number <= self.batch => {
                    return foreign(RecordError("batches are not in their order"));
                }
                Ok(Content::Batch(number)) => {
                    self.batch = number;
                    self.at += frame_len(frame);
                    return Scanned::Batch(number);
                }
                Ok(Content::Void) => {
                    self.has_void = true;
                    self.at += frame_len(frame);
                }
                Ok(Content::Record) => match Record::decode(frame, targets) {
                    Err(why) => return foreign(why),
                    Ok(record) => {
                        self.at += frame_len(frame);
                        let at = Position { segment: self.segment, offset: at };
                        return Scanned::Record(at, frame_len(frame), record);
                    }
                },
            }
        }
    }

    /// Number of the batch that it is in.
    pub const fn batch(&self) -> u64 {
        self.batch
    }

    /// Whether it has come by what a repair has put there.
    pub(super) const fn has_void(&self) -> bool {
        self.has_void
    }

    /// How far it has come.
    pub(super) const fn offset(&self) -> u32 {
        self.at
    }

    /// The frame that it has come to.
    fn frame(&self) -> Result<&'a [u8], SegmentEnd> {
        let rest = self.bytes.get(self.at as usize..).unwrap_or_default();
        let why = match self.seal.open(self.at, rest) {
            Frame::Whole(content) => return Ok(content),
            _ if is_zero(rest) => return Err(SegmentEnd::Clean(self.at)),
            Frame::Damaged(why) => why,
            Frame::End => RecordError("zeros before the end of the file"),
            Frame::Needs(_) => RecordError("file ends within a record"),
        };
        Err(SegmentEnd::Torn { offset: self.at, why })
    }
}

/// The bytes of a segment from a place that cannot be read to the next whole frame, or to the end.
pub(super) fn skipped(seal: Seal, bytes: &[u8], from: u32) -> Range<u32> {
    let mut budget = SEARCH_BYTES_MAX;
    let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let next = (from.saturating_add(SMALLEST_FRAME_BYTES)..end).find(|&at| {
        let rest = &bytes[at as usize..];
        is_plausible(rest, &mut budget) && matches!(seal.open(at, rest), Frame::Whole(_))
    });
    from..next.unwrap_or(end)
}

/// Whether it is worth computing a checksum over the frame that may stand at the beginning of `rest`. Any
/// bytes can look like the beginning of a large one, and one behind every byte would take days: so a large
/// one counts only with the beginning of another one behind it, and as long as `budget` lasts.
fn is_plausible(rest: &[u8], budget: &mut u64) -> bool {
    let Some(len) = len_at(rest) else { return false };
    let fits = len > 0 && rest.len() >= FRAME_HEAD_BYTES + len;
    if !fits || !(kind::SESSION..=kind::VOID).contains(&rest[FRAME_HEAD_BYTES]) {
        return false;
    }
    if len > SMALL_BYTES {
        let behind = &rest[FRAME_HEAD_BYTES + len..];
        let is_chained = len_at(behind).is_none_or(|next| next <= behind.len());
        if !is_chained || *budget < len as u64 {
            return false;
        }
        *budget -= len as u64;
    }
    true
}

fn len_at(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|len| u32::from_le_bytes(*len) as usize)
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

pub(super) const NO_HEADER: RecordError = RecordError("file has no valid header");
/// Frames up to this content are looked at wherever they may stand.
const SMALL_BYTES: usize = 4096;
/// Bytes of larger frames whose checksums are computed in search of the next whole one: a second or two.
const SEARCH_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
