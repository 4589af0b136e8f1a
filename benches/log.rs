//! What the log costs: a record on its way into a batch, a batch, and reading millions of records again.

mod support;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use ringmq::{
    base::{QoS, ShardId, TimeOrigin},
    message::Identifiers,
    storage::{
        DeliveryNumber, Log, LogId, LogReader, LogSetup, MessageRecord, PublicationRecord, Record,
        SessionNumber, SessionRecord, Target,
    },
};

fn main() {
    let mut criterion = support::criterion();
    bench_append(&mut criterion);
    bench_batch(&mut criterion);
    bench_read(&mut criterion);
    criterion.final_summary();
}

const ID: LogId = LogId { generation: 1, shard: ShardId(0) };
const SEGMENT_BYTES: u32 = 64 * 1024 * 1024;
/// Records of one batch where many are measured at once.
const BATCH_RECORDS: u64 = 1_000;
/// Deliveries of one session in the log that is read.
const DELIVERIES: u64 = 1_000_000;

/// Into a batch that is thrown away when it is large.
fn bench_append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log/append");
    for targets in [1, 1_000] {
        let targets = targets_of(targets);
        let record = publication(&targets);
        let id = BenchmarkId::new("publication/targets", targets.len());
        let mut log = log();
        group.bench_function(id, |bencher| bencher.iter(|| append(&mut log, &record)));
    }
    let done = Record::Done { session: SessionNumber(20_000), delivery: DeliveryNumber(10_000) };
    let mut log = log();
    group.bench_function("done", |bencher| bencher.iter(|| append(&mut log, &done)));
}

/// From the first record to the bytes for the disk.
fn bench_batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log/batch");
    let targets = targets_of(1);
    let record = publication(&targets);
    group.throughput(Throughput::Elements(BATCH_RECORDS));
    group.bench_function(BenchmarkId::from_parameter(BATCH_RECORDS), |bencher| {
        let mut log = log();
        bencher.iter(|| {
            (0..BATCH_RECORDS).for_each(|_| _ = log.append(black_box(&record)));
            commit(&mut log)
        });
    });
}

/// A log of one session that is away.
fn bench_read(criterion: &mut Criterion) {
    let mut log = log();
    log.append(&Record::Session(session()));
    let mut targets = targets_of(1);
    for number in 0..DELIVERIES {
        targets[0].delivery = DeliveryNumber(number);
        log.append(&publication(&targets));
    }
    let mut files: Vec<Vec<u8>> = Vec::new();
    while let Some(batch) = log.next_batch() {
        files.extend(batch.writes.into_iter().map(|write| write.bytes.into_vec()));
        log.batch_committed();
    }
    let mut group = criterion.benchmark_group("log/read");
    group.sample_size(10).throughput(Throughput::Elements(DELIVERIES));
    group.bench_function(BenchmarkId::from_parameter(DELIVERIES), |bencher| {
        bencher.iter_batched(
            || LogReader::new(ID, TimeOrigin::default()),
            |mut reader| {
                for (segment, bytes) in (1..).zip(&files) {
                    reader.read(segment, bytes).expect("no damage");
                }
                let recovered = reader.finish().expect("no damage");
                assert_eq!(recovered.shard.sessions[0].deliveries.len() as u64, DELIVERIES);
            },
            BatchSize::PerIteration,
        );
    });
}

fn log() -> Log {
    Log::new(LogSetup {
        id: ID,
        segment_bytes: SEGMENT_BYTES,
        bytes_max: u64::MAX / 2,
        segments: Vec::new(),
        next_segment: 1,
        next_batch: 1,
    })
}

fn append(log: &mut Log, record: &Record<'_>) {
    log.append(black_box(record));
    if log.appended().is_multiple_of(BATCH_RECORDS) {
        commit(log);
    }
}

/// Nothing is needed of what has been written.
fn commit(log: &mut Log) {
    while let Some(batch) = log.next_batch() {
        black_box(batch);
        log.batch_committed();
    }
    while let Some((segment, _)) = log.to_clean() {
        log.cleaned(segment);
        log.pop_deletable();
    }
}

fn targets_of(count: u64) -> Vec<Target> {
    let target = |session| Target {
        session: SessionNumber(session),
        delivery: DeliveryNumber(10_000),
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: Identifiers::new(),
    };
    (1..=count).map(target).collect()
}

fn publication(targets: &[Target]) -> Record<'_> {
    let message = MessageRecord {
        topic: "plant/line/3/temperature",
        properties: &[],
        payload: &[b'x'; 64],
        shared: None,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
    };
    Record::Publication(PublicationRecord {
        message,
        is_retained: false,
        publisher: None,
        origin: None,
        targets,
    })
}

fn session() -> SessionRecord<'static> {
    SessionRecord {
        number: SessionNumber(1),
        client: "away",
        expiry_secs: u32::MAX,
        ..SessionRecord::default()
    }
}
