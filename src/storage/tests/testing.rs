//! Segments in memory, and a log that writes to them.

use std::collections::BTreeMap;

use super::super::{
    Damage, Fold, Hold, Log, LogId, LogReader, LogSetup, Record, RecoveredLog, RecoveredShard,
    Write,
};
use crate::base::{ShardId, TimeOrigin, WallTime};

pub(super) const ID: LogId = LogId { generation: 3, shard: ShardId(2) };
pub(super) const ORIGIN: TimeOrigin = TimeOrigin(WallTime(1_000_000));

pub(super) type Disk = BTreeMap<u32, Vec<u8>>;

pub(super) fn setup(segment_bytes: u32) -> LogSetup {
    LogSetup {
        id: ID,
        segment_bytes,
        bytes_max: 1 << 40,
        segments: Vec::new(),
        next_segment: 1,
        next_batch: 1,
    }
}

/// The first `len` bytes of a write.
pub(super) fn write(disk: &mut Disk, write: &Write, len: usize) {
    let file = disk.entry(write.segment).or_default();
    if write.offset == 0 {
        *file = vec![0; write.segment_bytes as usize];
    }
    let (at, len) = (write.offset as usize, len.min(write.bytes.len()));
    file[at..at + len].copy_from_slice(&write.bytes.clone().into_vec()[..len]);
}

/// Writes and commits all there is.
pub(super) fn commit(log: &mut Log, disk: &mut Disk) {
    while let Some(mut batch) = log.next_batch() {
        assert!(batch.writes.len() <= 2);
        batch.writes.iter_mut().for_each(Write::seal);
        batch.writes.iter().for_each(|part| write(disk, part, usize::MAX));
        log.batch_committed();
    }
    assert_eq!(log.appended(), log.committed());
    while let Some(segment) = log.pop_deletable() {
        disk.remove(&segment).expect("its file");
    }
}

pub(super) fn read(disk: &Disk) -> Result<RecoveredLog, Damage> {
    let mut reader = LogReader::new(ID, ORIGIN);
    for (segment, bytes) in disk {
        reader.read(*segment, bytes)?;
    }
    reader.finish()
}

/// Cuts what is torn, as the shell does.
pub(super) fn cut(disk: &mut Disk, recovered: &RecoveredLog) {
    if let Some(torn) = recovered.torn {
        disk.split_off(&(torn.at.segment + 1));
        if torn.at.offset == 0 {
            disk.remove(&torn.at.segment);
        } else if let Some(file) = disk.get_mut(&torn.at.segment) {
            file.truncate(torn.at.offset as usize);
        }
    }
}

pub(super) fn text(shard: &RecoveredShard) -> String {
    format!("{shard:?}")
}

/// What the first 0, 1, 2... of these records amount to.
pub(super) fn prefixes(records: &[(Hold, Record<'_>)]) -> Vec<String> {
    let state = |count| {
        let mut fold = Fold::new(ORIGIN);
        for (hold, record) in &records[..count] {
            fold.apply(hold.at, hold.bytes, record).expect("a possible record");
        }
        text(&fold.finish().expect("a possible log"))
    };
    (0..=records.len()).map(state).collect()
}
