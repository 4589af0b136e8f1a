//! How records stand in a segment's file: the header of the file, the frame of a record, the beginning
//! of a batch.
//!
//! A file is a header of [`SEGMENT_HEADER_BYTES`], then frames: length u32, CRC-32 u32, and as many bytes as
//! the length says, which are a record (`encoding.rs`) or the number of the batch that begins. A length of 0
//! ends it. All numbers are little-endian. A checksum covers where its frame stands as well: in which log,
//! segment and place. So what is left of another file is never valid.

use std::ops::Range;

use super::{
    MessageRecord, Position, Record, RecordError, Target,
    encoding::kind,
    wire::{Put, Reader},
};
use crate::base::{ShardId, limits::LOG_RECORD_BYTES_MAX};

/// Which log of a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogId {
    /// Grows whenever all logs are written anew.
    pub generation: u64,
    /// Whose log it is.
    pub shard: ShardId,
}

impl LogId {
    /// Reads the record at `at`, of whose file `bytes` are a piece that begins there. Targets of a
    /// publication are put into `targets`.
    pub fn read_record<'a>(
        self,
        at: Position,
        bytes: &'a [u8],
        targets: &'a mut Vec<Target>,
    ) -> ReadRecord<Record<'a>> {
        self.read(at, bytes, |content| Record::decode(content, targets))
    }

    /// The same for whatever stands there: `None` is the beginning of a batch, or unreadable since a repair.
    pub fn read_next<'a>(
        self,
        at: Position,
        bytes: &'a [u8],
        targets: &'a mut Vec<Target>,
    ) -> ReadRecord<Option<Record<'a>>> {
        self.read(at, bytes, |frame| match content(frame)? {
            Content::Batch(_) | Content::Void => Ok(None),
            Content::Record => Record::decode(frame, targets).map(Some),
        })
    }

    /// Reads no more than the message of the record at `at`, which is a publication, an intake or a delayed
    /// one: its targets, of which there may be many, are not looked at.
    pub fn read_message(self, at: Position, bytes: &[u8]) -> ReadRecord<MessageRecord<'_>> {
        self.read(at, bytes, MessageRecord::decode_from)
    }

    fn read<'a, T>(
        self,
        at: Position,
        bytes: &'a [u8],
        decode: impl FnOnce(&'a [u8]) -> Result<T, RecordError>,
    ) -> ReadRecord<T> {
        match Seal::new(self, at.segment).open(at.offset, bytes) {
            Frame::Whole(content) => match decode(content) {
                Ok(record) => ReadRecord::Whole(record, frame_len(content)),
                Err(error) => ReadRecord::Damaged(error),
            },
            Frame::Needs(needed) => ReadRecord::Needs(needed),
            Frame::End => ReadRecord::Damaged(RecordError("no record begins there")),
            Frame::Damaged(why) => ReadRecord::Damaged(why),
        }
    }
}

/// What stands at a position, as far as it has been read.
#[derive(PartialEq, Eq, Debug)]
pub enum ReadRecord<T> {
    /// A record, and its bytes in the file.
    Whole(T, u32),
    /// So many bytes of the file from there on are needed to know; at most [`LOG_RECORD_BYTES_MAX`].
    Needs(u32),
    /// No record of this log.
    Damaged(RecordError),
}

/// What makes the checksums of one segment its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal(u32);

/// What stands at an offset.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    /// The checksum is right: what is in the frame.
    Whole(&'a [u8]),
    /// It may be one of so many bytes.
    Needs(u32),
    /// Nothing any more.
    End,
    Damaged(RecordError),
}

impl Seal {
    pub(super) fn new(log: LogId, segment: u32) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&log.generation.to_le_bytes());
        hasher.update(&log.shard.0.to_le_bytes());
        hasher.update(&segment.to_le_bytes());
        Self(hasher.finalize())
    }

    /// Begins the checksum of a frame at this offset, which goes on with its content of so many bytes.
    pub(super) fn begin(self, offset: u32, content_len: usize) -> crc32fast::Hasher {
        let mut place = [0; 8];
        place[..4].copy_from_slice(&offset.to_le_bytes());
        place[4..].copy_from_slice(&(content_len as u32).to_le_bytes());
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&place);
        hasher
    }

    /// Of a frame at this offset.
    fn checksum(self, offset: u32, content: &[u8]) -> u32 {
        let mut hasher = self.begin(offset, content.len());
        hasher.update(content);
        hasher.finalize()
    }

    /// Fills in the length of what follows the head of a frame.
    pub(super) fn put_len(head: &mut [u8], content_len: usize) {
        head[..4].copy_from_slice(&(content_len as u32).to_le_bytes());
    }

    /// Fills in the checksum.
    pub(super) fn put_checksum(head: &mut [u8], checksum: crc32fast::Hasher) {
        head[4..FRAME_HEAD_BYTES].copy_from_slice(&checksum.finalize().to_le_bytes());
    }

    /// Fills in the frame that is the whole of `frame`, with room for length and checksum before its
    /// content.
    pub(super) fn close(self, offset: u32, frame: &mut [u8]) {
        let (head, content) = frame.split_at_mut(FRAME_HEAD_BYTES);
        head[..4].copy_from_slice(&(content.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&self.checksum(offset, content).to_le_bytes());
    }

    /// What stands at this offset, where `bytes` begin.
    pub(super) fn open(self, offset: u32, bytes: &[u8]) -> Frame<'_> {
        let Some((len, rest)) = split_u32(bytes) else {
            return Frame::Needs(FRAME_HEAD_BYTES as u32);
        };
        if len == 0 {
            return Frame::End;
        }
        if len > LOG_RECORD_BYTES_MAX - FRAME_HEAD_BYTES as u32 {
            return Frame::Damaged(RecordError("length is out of bounds"));
        }
        let needed = FRAME_HEAD_BYTES as u32 + len;
        let Some((checksum, rest)) = split_u32(rest) else { return Frame::Needs(needed) };
        match rest.get(..len as usize) {
            None => Frame::Needs(needed),
            Some(content) if self.checksum(offset, content) == checksum => Frame::Whole(content),
            Some(_) => Frame::Damaged(RecordError("checksum is wrong")),
        }
    }

    /// Appends the beginning of a batch, which will stand at this offset.
    pub(super) fn put_batch(self, offset: u32, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_raw(&[0; FRAME_HEAD_BYTES]);
        out.put_u8(kind::BATCH);
        out.put_raw(&number.to_le_bytes());
        self.close(offset, &mut out[start..]);
    }

    /// Writes frames that say nothing over this range of a segment's bytes, which is not shorter than
    /// [`SMALLEST_FRAME_BYTES`].
    pub(super) fn put_void(self, bytes: &mut [u8], range: Range<u32>) {
        let mut at = range.start;
        while at < range.end {
            let len = match range.end - at {
                rest @ ..=LOG_RECORD_BYTES_MAX => rest,
                _ => LOG_RECORD_BYTES_MAX / 2,
            };
            let frame = &mut bytes[at as usize..(at + len) as usize];
            frame.fill(0);
            frame[FRAME_HEAD_BYTES] = kind::VOID;
            self.close(at, frame);
            at += len;
        }
    }

    /// Whether the beginning of a batch stands anywhere in a segment's `bytes` from this offset on. Looks
    /// at each byte once.
    pub(super) fn finds_batch(self, bytes: &[u8], from: u32) -> bool {
        let mut at = from as usize;
        // The length of such a frame is its first byte.
        while let Some(found) = bytes.get(at..).and_then(|rest| find(rest, BATCH_BYTES as u8)) {
            at += found;
            let is_batch = |frame: &[u8]| {
                matches!(self.open(at as u32, frame), Frame::Whole([kind::BATCH, ..]))
            };
            if bytes.get(at..at + FRAME_HEAD_BYTES + BATCH_BYTES).is_some_and(is_batch) {
                return true;
            }
            at += 1;
        }
        false
    }
}

/// What a whole frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Record,
    /// The batch of this number begins.
    Batch(u64),
    /// In place of what could not be read.
    Void,
}

pub(super) fn content(frame: &[u8]) -> Result<Content, RecordError> {
    match frame {
        [kind::BATCH, number @ ..] => {
            let mut reader = Reader::new(number);
            let number = reader.fixed_u64()?;
            reader.finish()?;
            Ok(Content::Batch(number))
        }
        [kind::VOID, ..] => Ok(Content::Void),
        _ => Ok(Content::Record),
    }
}

/// Bytes in the file of a frame with this content.
pub(super) const fn frame_len(content: &[u8]) -> u32 {
    (FRAME_HEAD_BYTES + content.len()) as u32
}

/// The header of a segment's file. It makes up for what a crash may leave out between two segments:
/// where the one before ends, and where the batch has begun that goes on here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    /// The segment.
    pub(super) segment: u32,
    /// Where the records of the segment before end; 0 if there was none.
    pub(super) previous_end: u32,
    /// Number of the batch that the first record belongs to.
    pub(super) batch: u64,
    /// Where in the segment before that batch begins, if it does not begin here.
    pub(super) batch_begin: Option<u32>,
}

impl SegmentHeader {
    pub(super) fn encode(&self, log: LogId) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        header.put_raw(MAGIC);
        header.put_raw(&FORMAT_VERSION.to_le_bytes());
        header.put_raw(&u32::from(log.shard.0).to_le_bytes());
        header.put_raw(&log.generation.to_le_bytes());
        header.put_raw(&self.batch.to_le_bytes());
        header.put_raw(&self.segment.to_le_bytes());
        header.put_raw(&self.previous_end.to_le_bytes());
        header.put_raw(&self.batch_begin.unwrap_or(BEGINS_HERE).to_le_bytes());
        header.put_raw(&crc32fast::hash(&header).to_le_bytes());
        header.try_into().expect("eight fields of this size together")
    }

    /// The header at the beginning of a file that should be this segment of this log, if there is one.
    pub(super) fn decode(
        log: LogId,
        segment: u32,
        bytes: &[u8],
    ) -> Result<Option<Self>, RecordError> {
        let Some(header) = bytes.get(..SEGMENT_HEADER_BYTES as usize) else { return Ok(None) };
        let (fields, checksum) = header.split_at(SEGMENT_HEADER_BYTES as usize - 4);
        if crc32fast::hash(fields).to_le_bytes() != checksum {
            return Ok(None);
        }
        let u32_at = |at: usize| u32::from_le_bytes(field(fields, at));
        let found = Self {
            segment: u32_at(32),
            previous_end: u32_at(36),
            batch: u64::from_le_bytes(field(fields, 24)),
            batch_begin: Some(u32_at(40)).filter(|begin| *begin != BEGINS_HERE),
        };
        if fields[..8] != *MAGIC || u32_at(8) != FORMAT_VERSION {
            return Err(RecordError("file is of another format or version"));
        }
        let is_ours = u32_at(12) == u32::from(log.shard.0)
            && u64::from_le_bytes(field(fields, 16)) == log.generation
            && found.segment == segment;
        if is_ours {
            Ok(Some(found))
        } else {
            Err(RecordError("file belongs to another log or place"))
        }
    }

    /// Where its first batch begins.
    pub(super) const fn begin(&self) -> Position {
        match self.batch_begin {
            None => Position { segment: self.segment, offset: 0 },
            Some(offset) => Position { segment: self.segment.saturating_sub(1), offset },
        }
    }
}

fn field<const N: usize>(fields: &[u8], at: usize) -> [u8; N] {
    *fields[at..].first_chunk().expect("a field of the header")
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (taken, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*taken), rest))
}

fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    bytes.iter().position(|found| *found == byte)
}

/// Bytes of the header of a segment's file; the first record stands behind it.
pub const SEGMENT_HEADER_BYTES: u32 = 48;
/// Length and checksum before each record.
pub(super) const FRAME_HEAD_BYTES: usize = 8;
/// A frame holds at least the byte that says what it is.
pub(super) const SMALLEST_FRAME_BYTES: u32 = FRAME_HEAD_BYTES as u32 + 1;
/// Bytes in the frame of a batch's beginning.
const BATCH_BYTES: usize = 9;
/// No offset in a segment.
const BEGINS_HERE: u32 = u32::MAX;
const MAGIC: &[u8; 8] = b"ringmq\x00L";
const FORMAT_VERSION: u32 = 1;
