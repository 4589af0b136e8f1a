//! The log of a shard: records, and files of them that are damaged in any way.

use ringmq::{
    base::{Output, ShardId, TimeOrigin},
    storage::{
        Fold, Log, LogId, LogReader, LogSetup, Position, Record, Repairer, Scanned, SegmentScan,
    },
};

use crate::memory::peak_of;

const ID: LogId = LogId { generation: 1, shard: ShardId(0) };

/// Bytes are records, each behind its length (u8). Those that are, stand in a log then, of which the first
/// byte of the input says how it is damaged.
pub(crate) fn run(bytes: &[u8]) {
    let Some((&damage, bytes)) = bytes.split_first() else { return };
    let mut log = Log::new(LogSetup {
        id: ID,
        segment_bytes: 512,
        bytes_max: 1 << 30,
        segments: Vec::new(),
        next_segment: 1,
        next_batch: 1,
    });
    let mut rest = bytes;
    while let Some((&len, behind)) = rest.split_first() {
        let (body, behind) = behind.split_at(usize::from(len).min(behind.len()));
        rest = behind;
        add(&mut log, body);
    }
    let mut files: Vec<Vec<u8>> = Vec::new();
    while let Some(batch) = log.next_batch() {
        for write in batch.writes {
            files.resize_with(files.len().max(write.segment as usize), Vec::new);
            files[write.segment as usize - 1].extend(write.bytes.into_vec());
        }
        log.batch_committed();
    }
    check(&files, true);
    if let Some(at) = files.len().checked_sub(1).map(|last| usize::from(damage) % (last + 1)) {
        let place = usize::from(damage) * 31 % files[at].len();
        files[at][place] ^= damage | 1;
        check(&files, false);
    }
    // The input itself as a file.
    check(&[bytes.to_vec()], false);
}

fn add(log: &mut Log, body: &[u8]) {
    let mut targets = Vec::new();
    let decode = || Record::decode(body, &mut targets).is_ok();
    let (is_record, peak) = peak_of(decode);
    // A target of three bytes becomes one of some fifty, in a list that doubles.
    assert!(peak <= 100 * body.len() + 100, "{} bytes hold {peak}", body.len());
    if !is_record {
        return;
    }
    let record = Record::decode(body, &mut targets).expect("as before");
    let mut again = Output::default();
    record.encode(&mut again);
    let again = again.into_vec();
    assert_eq!(Record::decode(&again, &mut Vec::new()).as_ref(), Ok(&record));
    if is_modest(&record) {
        log.append(&record);
        log.hurry();
    }
}

/// Whether a fold may come to hold it: a session has as many slots as its delivery numbers are apart.
fn is_modest(record: &Record<'_>) -> bool {
    let is_near = |number: u64| number < 1_000;
    match record {
        Record::Session(session) => {
            let next = [session.first, session.next];
            let all = next.iter().chain(&session.done).chain(&session.released);
            all.into_iter().all(|delivery| is_near(delivery.0))
        }
        Record::Publication(publication) => {
            publication.targets.iter().all(|target| is_near(target.delivery.0))
        }
        Record::Done { delivery, .. } | Record::Received { delivery, .. } => is_near(delivery.0),
        _ => true,
    }
}

/// Reads, and if that cannot be, repairs and reads.
fn check(files: &[Vec<u8>], is_sound: bool) {
    let mut fold = Fold::new(TimeOrigin::default());
    for (segment, bytes) in (1..).zip(files) {
        let Ok(mut scan) = SegmentScan::new(ID, segment, bytes) else { continue };
        let mut targets = Vec::new();
        let mut last = Position { segment, offset: 0 };
        loop {
            match scan.next(&mut targets) {
                Scanned::Record(at, len, record) => {
                    assert!(at > last && (at.offset + len) as usize <= bytes.len());
                    last = at;
                    fold.apply(at, len, &record).expect("modest records");
                }
                Scanned::Batch(_) => {}
                Scanned::End(_) => break,
            }
        }
    }
    drop(fold.finish());
    if read(files) {
        return;
    }
    assert!(!is_sound, "what was written is read");
    let mut repairer = Repairer::new(ID);
    let repaired = (1..).zip(files).map(|(segment, bytes)| {
        let next = files.get(segment as usize).map(Vec::as_slice);
        repairer.segment(segment, bytes, next).bytes.unwrap_or_else(|| bytes.clone())
    });
    assert!(read(&repaired.collect::<Vec<_>>()), "what is repaired is read");
}

fn read(files: &[Vec<u8>]) -> bool {
    let mut reader = LogReader::new(ID, TimeOrigin::default());
    (1..).zip(files).all(|(segment, bytes)| reader.read(segment, bytes).is_ok())
        && reader.finish().is_ok()
}
