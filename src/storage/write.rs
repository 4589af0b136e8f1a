//! Bytes on their way to the disk: frames, of which large ones have a payload that is not copied, and get their
//! checksum when they are about to be written. So no shard spends its time on either.

use super::frame::{FRAME_HEAD_BYTES, Seal};
use crate::base::Output;

/// What is written and then synced at once.
#[derive(Debug)]
pub struct Batch {
    /// In their order; two if a segment ends in between.
    pub writes: Vec<Write>,
}

/// Bytes for one segment.
#[derive(Clone, Debug)]
pub struct Write {
    /// The segment.
    pub segment: u32,
    /// 0: the segment is new, and its file is to be made with room for `segment_bytes` first.
    pub offset: u32,
    /// Room that the segment's file is to have.
    pub segment_bytes: u32,
    /// What is written there, the header of a new segment included.
    pub bytes: Output,
    /// Frames in it that lack their checksum; see [`Write::seal`].
    pub unsealed: Vec<Unsealed>,
}

/// A frame without its checksum.
#[derive(Clone, Debug)]
pub struct Unsealed {
    seal: Seal,
    /// Where it will stand in the segment.
    offset: u32,
    /// Where it begins in the bytes of its write, and how long it is.
    at: usize,
    len: usize,
}

impl Write {
    /// Gives all frames their checksums. Before that it is not to be written.
    pub fn seal(&mut self) {
        for Unsealed { seal, offset, at, len } in std::mem::take(&mut self.unsealed) {
            let end = at + len;
            let mut checksum = seal.begin(offset, len - FRAME_HEAD_BYTES);
            let mut from = at + FRAME_HEAD_BYTES;
            while from < end {
                let piece = self.bytes.piece(from);
                let piece = &piece[..piece.len().min(end - from)];
                checksum.update(piece);
                from += piece.len();
            }
            Seal::put_checksum(self.bytes.own_piece(at), checksum);
        }
    }
}

/// Completes the frame from `at` on, which will stand at `offset`: at once if it lies together.
pub(super) fn close(
    seal: Seal,
    offset: u32,
    bytes: &mut Output,
    at: usize,
    unsealed: &mut Vec<Unsealed>,
) {
    let len = bytes.len() - at;
    let frame = bytes.own_piece(at);
    if frame.len() == len {
        return seal.close(offset, frame);
    }
    Seal::put_len(frame, len - FRAME_HEAD_BYTES);
    unsealed.push(Unsealed { seal, offset, at, len });
}
