//! What is kept on disk, as values: the records of a shard's log, where they stand in it, and what a
//! log that is read again amounts to.
//!
//! A log is a sequence of segments, written at its head and given up at its tail; it means what its
//! records make of an empty shard, in their order. Knows no file, no thread and no clock: the shell
//! writes and reads what it is asked to, and the simulator does so on a disk that fails.

mod decoding;
mod deliveries;
mod encoding;
mod fold;
mod frame;
mod log;
mod reader;
mod record;
mod recover;
mod repair;
mod scan;
mod slot;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub use decoding::RecordError;
pub use fold::{Fold, Gap};
pub use frame::{LogId, ReadRecord, SEGMENT_HEADER_BYTES};
pub use log::{Log, LogCounters, LogSetup, LogState};
pub use reader::{Damage, LogReader, RecoveredLog};
pub use record::{
    Attached, Boot, DelayedRecord, Intake, MessageRecord, PublicationRecord, Record, SessionRecord,
    Source, Target, WillRecord,
};
pub use recover::{
    RecoveredDelayed, RecoveredIntake, RecoveredRetained, RecoveredSession, RecoveredShard,
    RecoveredWill,
};
pub use repair::{Repaired, Repairer};
pub use scan::{Scanned, SegmentEnd, SegmentScan};
pub use slot::{Delivery, Slot};
pub use write::{Batch, Unsealed, Write};

/// Names a session in the log of its shard; never used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct SessionNumber(pub u64);

/// Names a delivery at QoS > 0 of one session: they are counted from 0, and the Packet Identifier
/// follows from the count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct DeliveryNumber(pub u64);

/// Where a record begins in a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Position {
    /// Segments are counted from 1.
    pub segment: u32,
    /// Byte in its file.
    pub offset: u32,
}

/// Something in a record that is still needed, and the bytes of the log that it keeps from being
/// given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// The record.
    pub at: Position,
    /// Its share of the record's bytes.
    pub bytes: u32,
}

impl Hold {
    /// The share of one of `parts` that are needed of the record; at least one.
    #[must_use]
    pub const fn share(self, parts: usize) -> Self {
        let parts = if parts == 0 { 1 } else { parts as u32 };
        let bytes = self.bytes / parts;
        Self { at: self.at, bytes: if bytes == 0 { 1 } else { bytes } }
    }
}
