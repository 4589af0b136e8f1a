//! What a crash may leave out, and what nothing may change.

use super::{
    super::{
        Batch, Delivery, DeliveryNumber, Gap, Hold, Log, LogReader, MessageRecord,
        PublicationRecord, Record, Repairer, SessionRecord, Target,
    },
    Random,
    record_tests::any,
    testing::{Disk, ID, ORIGIN, commit, cut, prefixes, read, setup, text, write},
};

use crate::base::{ClientId, QoS};

/// A log whose last batch is not committed.
struct Written {
    records: Vec<(Hold, Record<'static>)>,
    committed: usize,
    disk: Disk,
    last: Batch,
}

fn written(seed: u64) -> Written {
    let mut random = Random::new(seed);
    let mut log = Log::new(setup(600));
    let (mut records, mut disk) = (Vec::new(), Disk::new());
    let mut committed = 0;
    for batch in 0..6 {
        if batch > 0 {
            commit(&mut log, &mut disk);
            committed = records.len();
        }
        for _ in 0..=random.below(4) {
            let record = any(&mut random, 8);
            records.push((log.append(&record), record));
        }
    }
    let mut last = log.next_batch().expect("the last batch");
    log.batch_committed();
    // Large records may make more than one of them.
    while let Some(next) = log.next_batch() {
        last.writes.iter().for_each(|part| write(&mut disk, part, usize::MAX));
        let begin = (next.writes[0].segment, next.writes[0].offset);
        committed =
            records.iter().filter(|(hold, _)| (hold.at.segment, hold.at.offset) < begin).count();
        log.batch_committed();
        last = next;
    }
    Written { records, committed, disk, last }
}

#[test]
fn what_is_cut_anywhere_amounts_to_all_before_it() {
    for seed in 0..40 {
        let Written { records, committed, disk, last } = written(seed);
        let states = prefixes(&records);
        let bytes: Vec<u8> =
            last.writes.iter().flat_map(|part| part.bytes.clone().into_vec()).collect();
        let len = bytes.len();
        for kept in 0..=len {
            let mut torn = disk.clone();
            let mut rest = kept;
            for part in &last.writes {
                if rest > 0 {
                    write(&mut torn, part, rest);
                }
                rest = rest.saturating_sub(part.bytes.len());
            }
            // Zeros that were to be written are there anyway.
            let kept = kept + bytes[kept..].iter().take_while(|byte| **byte == 0).count();
            let whole = |(hold, _): &&(Hold, Record<'_>)| {
                let parts = last.writes.iter();
                let before = parts.take_while(|part| part.segment < hold.at.segment);
                let before = before.map(|part| part.bytes.len()).sum::<usize>();
                let part = last.writes.iter().find(|part| part.segment == hold.at.segment);
                let begin = part.expect("it is in this batch").offset;
                before + (hold.at.offset - begin + hold.bytes) as usize <= kept
            };
            let count = committed + records[committed..].iter().filter(whole).count();
            let recovered = read(&torn).expect("no damage");
            assert_eq!(text(&recovered.shard), states[count], "seed {seed}, {kept} of {len}");
            go_on(torn, &recovered, &states[count]);
        }
    }
}

/// After any crash the log goes on, and is not taken for damaged later.
fn go_on(mut disk: Disk, recovered: &super::super::RecoveredLog, state: &str) {
    cut(&mut disk, recovered);
    let mut log = Log::new(recovered.setup(ID, 600, 1 << 40));
    assert_eq!(log.live_bytes(), recovered.shard.held().values().sum::<u64>());
    for _ in 0..2 {
        log.append(&Record::Routed { stamp: 0 });
        commit(&mut log, &mut disk);
    }
    let again = read(&disk).expect("no damage");
    assert_eq!(text(&again.shard), state);
    assert!(again.torn.is_none());
}

#[test]
fn any_part_of_the_last_batch_may_be_missing() {
    for seed in 0..40 {
        let Written { records, committed, disk, last } = written(seed);
        let states = prefixes(&records);
        let mut random = Random::new(seed + 1000);
        for _ in 0..100 {
            let mut torn = disk.clone();
            for part in &last.writes {
                // A new file may be missing as a whole, or empty.
                match random.below(8) {
                    0 => continue,
                    1 if part.offset == 0 => _ = torn.insert(part.segment, Vec::new()),
                    _ => {
                        write(&mut torn, part, usize::MAX);
                        let from = random.below(part.bytes.len());
                        let len = random.below(part.bytes.len() - from + 1);
                        let from = part.offset as usize + from;
                        let file = torn.get_mut(&part.segment).expect("written");
                        file[from..from + len].fill(0);
                    }
                }
            }
            let recovered = read(&torn).unwrap_or_else(|damage| panic!("seed {seed}: {damage}"));
            let state = text(&recovered.shard);
            assert!(states[committed..].contains(&state), "seed {seed}");
            go_on(torn, &recovered, &state);
        }
    }
}

#[test]
fn no_changed_byte_of_what_was_committed_goes_unnoticed() {
    for seed in 0..12 {
        let Written { records, committed, mut disk, last } = written(seed);
        last.writes.iter().for_each(|part| write(&mut disk, part, usize::MAX));
        let states = prefixes(&records);
        let begin = (last.writes[0].segment, last.writes[0].offset);
        let ends = read(&disk).expect("no damage").segments;
        for (segment, end, _) in ends {
            for offset in 0..end as usize {
                let mut damaged = disk.clone();
                damaged.get_mut(&segment).expect("a file")[offset] ^= 1 << (offset % 8);
                match read(&damaged) {
                    Err(damage) => {
                        assert!(damage.at.segment == segment && damage.at.offset <= offset as u32);
                        repair(&damaged, &states[states.len() - 1]);
                    }
                    Ok(recovered) => {
                        assert!(
                            (segment, offset as u32) >= begin,
                            "seed {seed}, {segment}:{offset}"
                        );
                        assert!(states[committed..].contains(&text(&recovered.shard)));
                        assert!(recovered.torn.is_some());
                    }
                }
            }
        }
    }
}

/// One damage costs one frame: all else is there afterwards.
fn repair(damaged: &Disk, undamaged: &str) {
    let mut repairer = Repairer::new(ID);
    let mut repaired = Disk::new();
    let mut ranges = Vec::new();
    for (segment, bytes) in damaged {
        let next = damaged.get(&(segment + 1)).map(Vec::as_slice);
        let result = repairer.segment(*segment, bytes, next);
        assert_eq!(result.bytes.is_none(), result.unreadable.is_empty());
        ranges.extend(result.unreadable);
        repaired.insert(*segment, result.bytes.unwrap_or_else(|| bytes.clone()));
    }
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    let recovered = read(&repaired).unwrap_or_else(|damage| panic!("{damage} after {ranges:?}"));
    if ranges[0].start == 0 {
        assert_eq!(text(&recovered.shard), undamaged, "a header holds no record");
    }
    assert!(recovered.torn.is_none());
}

#[test]
fn a_missing_segment_is_damage_and_can_be_done_without() {
    let large = (0..40).map(written).find(|written| written.disk.len() > 3);
    let Written { mut disk, last, .. } = large.expect("a log of so many segments");
    last.writes.iter().for_each(|part| write(&mut disk, part, usize::MAX));
    let missing = disk.keys().copied().nth(1).expect("a segment");
    disk.remove(&missing);
    let damage = read(&disk).expect_err("damage");
    assert_eq!((damage.at.segment, damage.at.offset), (missing, 0));
    assert_eq!(damage.why.to_string(), "segment is missing");
    let mut repairer = Repairer::new(ID);
    let last = *disk.keys().last().expect("a segment");
    let mut repaired = Disk::new();
    for segment in 1..=last {
        let bytes = disk.get(&segment).cloned().unwrap_or_default();
        let next = disk.get(&(segment + 1)).map(Vec::as_slice);
        let result = repairer.segment(segment, &bytes, next);
        assert_eq!(result.bytes.is_some(), segment == missing);
        repaired.insert(segment, result.bytes.unwrap_or(bytes));
    }
    assert!(read(&repaired).expect("no damage").torn.is_none());
}

#[test]
fn a_repaired_log_tells_which_deliveries_it_lacks() {
    let mut random = Random::new(9);
    let session = loop {
        if let Record::Session(session) = any(&mut random, 1) {
            break session;
        }
    };
    let number = session.number;
    let none = SessionRecord { next: session.first, done: vec![], released: vec![], ..session };
    let first = none.first.0;
    let mut log = Log::new(setup(4096));
    let mut disk = Disk::new();
    log.append(&Record::Session(none.clone()));
    let mut holds = Vec::new();
    for delivery in first..first + 5 {
        let (delivery, identifiers) = (DeliveryNumber(delivery), Default::default());
        let qos = QoS::AtLeastOnce;
        let targets = &[Target { session: number, delivery, qos, retain: false, identifiers }];
        let (publisher, origin, is_retained) = (None, None, false);
        let record =
            PublicationRecord { message: MESSAGE, is_retained, publisher, origin, targets };
        holds.push(log.append(&Record::Publication(record)).at);
        commit(&mut log, &mut disk);
    }
    disk.get_mut(&1).expect("a file")[holds[2].offset as usize + 9] ^= 1;
    assert_eq!(read(&disk).expect_err("damage").at, holds[2]);
    let repaired = Repairer::new(ID).segment(1, &disk[&1], None);
    assert_eq!((repaired.records, repaired.unreadable.len()), (5, 1));
    disk.insert(1, repaired.bytes.expect("a repaired file"));
    let recovered = read(&disk).expect("no damage");
    let client = ClientId::new(none.client);
    assert_eq!(recovered.gaps, [Gap { client, deliveries: 1 }]);
    let slots = &recovered.shard.sessions[0].deliveries;
    let over = slots.iter().map(|slot| slot.get() == Delivery::Done);
    assert!(over.eq([false, false, true, false, false]));
}

const MESSAGE: MessageRecord<'_> = MessageRecord {
    topic: "t",
    properties: &[],
    payload: &[],
    shared: None,
    qos: QoS::AtLeastOnce,
    retain: false,
    expires_at: None,
};

#[test]
fn files_of_another_log_are_refused() {
    let Written { disk, .. } = written(3);
    let other = super::super::LogId { generation: 4, ..ID };
    let mut reader = LogReader::new(other, ORIGIN);
    let damage = reader.read(1, &disk[&1]).expect_err("another generation");
    assert_eq!(damage.why.to_string(), "file belongs to another log or place");
    let damage = LogReader::new(ID, ORIGIN).read(2, &disk[&1]).expect_err("another segment");
    assert_eq!(damage.why.to_string(), "file belongs to another log or place");
}
