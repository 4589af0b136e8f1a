//! What it costs that a subscriber lives on another shard: for the two brokers, without a lane between
//! them, and for the channel under the lane, between two executors on two CPUs.
//!
//! The channel carries what a lane does, batches of a broker's messages, and is as long. What a shard
//! adds around it, its turns and the task that waits for room in a full lane, is not part of this.

mod support;
#[path = "support/shell.rs"]
mod shell;

use std::{
    hint::black_box,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use glommio::{
    LocalExecutorBuilder, Placement,
    channels::shared_channel::{SharedReceiver, SharedSender, new_bounded},
};
use ringmq::{
    base::{ConnId, QoS, ShardId},
    broker::MeshMessage,
    codec::Version,
    shard::allowed_cpus,
};

use self::shell::{NOW, Shell, publish_packets};

fn main() {
    let mut criterion = support::criterion();
    bench_brokers(&mut criterion);
    bench_channel(&mut criterion);
    criterion.final_summary();
}

/// Messages in one batch.
const BATCHES: [u16; 2] = [1, 64];

/// From the publisher's bytes on one shard to the last acknowledgement on both. `session/online` is the
/// same with publisher and subscriber on one shard.
fn bench_brokers(criterion: &mut Criterion) {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut group = criterion.benchmark_group(format!("lanes/brokers/qos{}", qos.bits()));
        for messages in BATCHES {
            let mut shards = Shards::new(qos);
            let packets = publish_packets(Version::V5, qos, messages);
            group.throughput(Throughput::Elements(messages.into()));
            group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
                bencher.iter(|| {
                    let batch = shards.publish(black_box(&packets));
                    shards.there.broker.receive_mesh(NOW, HERE, batch);
                    shards.there.settle();
                    shards.there.delivered
                });
            });
            let summary = shards.here.broker.summary();
            let counters = summary.counters();
            assert_eq!(counters.forwarded, counters.publishes_received);
            assert_eq!(shards.there.delivered, counters.publishes_received);
        }
    }
}

const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);

/// Two shards: a publisher is here, the only subscriber there.
struct Shards {
    here: Shell,
    there: Shell,
    publisher: ConnId,
}

impl Shards {
    fn new(qos: QoS) -> Self {
        let (mut here, mut there) = (Shell::new(HERE, 2), Shell::new(THERE, 2));
        let publisher = here.connect(0, Version::V5);
        let subscriber = there.connect(0, Version::V5);
        there.subscribe(subscriber, Version::V5, qos);
        here.broker.receive_mesh(NOW, THERE, there.broker.take_mesh(NOW, HERE));
        there.broker.receive_mesh(NOW, HERE, here.broker.take_mesh(NOW, THERE));
        there.settle();
        Self { here, there, publisher }
    }

    /// What these PUBLISH packets make the lane carry.
    fn publish(&mut self, packets: &[u8]) -> Vec<MeshMessage> {
        self.here.broker.receive(NOW, self.publisher, packets);
        self.here.settle();
        self.here.broker.take_mesh(NOW, THERE)
    }
}

/// What crosses a lane.
type Batch = Vec<MeshMessage>;

/// As in `shard/lanes.rs`.
const LANE_MESSAGES: usize = 16;

/// Messages that are on their way before the clock is read. Ready before the first is sent, so that
/// making them is not measured.
const MESSAGES_PER_ROUND: u64 = 16_384;

fn bench_channel(criterion: &mut Criterion) {
    if allowed_cpus().expect("an affinity mask").len() < 2 {
        eprintln!("lanes/channel needs two CPUs");
        return;
    }
    criterion.bench_function("lanes/channel/round_trip", |bencher| {
        bencher.iter_custom(round_trips);
    });
    let mut group = criterion.benchmark_group("lanes/channel/one_way");
    for messages in BATCHES {
        group.throughput(Throughput::Elements(messages.into()));
        group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
            bencher.iter_custom(|batches| one_way(batches, messages));
        });
    }
}

/// How long a batch of one message takes there and back, so many times. Both executors are idle
/// otherwise, so each time both go to sleep and are woken.
fn round_trips(count: u64) -> Duration {
    let (to_there, from_here) = new_bounded::<Batch>(LANE_MESSAGES);
    let (to_here, from_there) = new_bounded::<Batch>(LANE_MESSAGES);
    let echo = on_cpu(1, move || async move {
        let (from_here, to_here) = (from_here.connect().await, to_here.connect().await);
        while let Some(batch) = from_here.recv().await {
            to_here.send(batch).await.expect("the other end waits for it");
        }
    });
    let elapsed = on_cpu(0, move || async move {
        let (to_there, from_there) = (to_there.connect().await, from_there.connect().await);
        let packets = publish_packets(Version::V5, QoS::AtMostOnce, 1);
        let mut batch = Shards::new(QoS::AtMostOnce).publish(&packets);
        let start = Instant::now();
        for _ in 0..count {
            to_there.send(batch).await.expect("the other end echoes it");
            batch = from_there.recv().await.expect("an echo");
        }
        let elapsed = start.elapsed();
        assert_eq!(batch.len(), 1);
        elapsed
    });
    let elapsed = elapsed.join().expect("the sending end");
    echo.join().expect("the echoing end");
    elapsed
}

/// How long so many batches take from here until they are unpacked and freed there.
fn one_way(batches: u64, messages: u16) -> Duration {
    let (sender, receiver) = new_bounded(LANE_MESSAGES);
    let (to_here, emptied) = new_bounded(1);
    let batches_per_round = MESSAGES_PER_ROUND / u64::from(messages);
    let rounds: Vec<u64> = (0..batches)
        .step_by(batches_per_round as usize)
        .map(|sent| batches_per_round.min(batches - sent))
        .collect();
    let sizes = rounds.clone();
    let there = on_cpu(1, move || take_rounds(sizes, messages, receiver, to_here));
    let here = on_cpu(0, move || send_rounds(rounds, messages, sender, emptied));
    there.join().expect("the receiving end");
    here.join().expect("the sending end")
}

async fn send_rounds(
    rounds: Vec<u64>,
    messages: u16,
    sender: SharedSender<Batch>,
    emptied: SharedReceiver<Instant>,
) -> Duration {
    let (sender, emptied) = (sender.connect().await, emptied.connect().await);
    let packets = publish_packets(Version::V5, QoS::AtMostOnce, messages);
    let mut shards = Shards::new(QoS::AtMostOnce);
    let mut elapsed = Duration::ZERO;
    for size in rounds {
        let batches: Vec<Batch> = (0..size).map(|_| shards.publish(&packets)).collect();
        let start = Instant::now();
        for batch in batches {
            sender.send(batch).await.expect("the other end takes it");
        }
        elapsed += emptied.recv().await.expect("the end of the round") - start;
    }
    elapsed
}

async fn take_rounds(
    rounds: Vec<u64>,
    messages: u16,
    receiver: SharedReceiver<Batch>,
    emptied: SharedSender<Instant>,
) {
    let (receiver, emptied) = (receiver.connect().await, emptied.connect().await);
    for size in rounds {
        for _ in 0..size {
            let batch = receiver.recv().await.expect("a batch");
            assert_eq!(black_box(batch).len(), usize::from(messages));
        }
        emptied.send(Instant::now()).await.expect("the other end waits for it");
    }
}

/// Runs a future on an executor that is set up as a shard's, on one of the allowed CPUs.
fn on_cpu<F, T>(nth: usize, future: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let cpu = allowed_cpus().expect("an affinity mask")[nth];
    thread::spawn(move || {
        let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .io_memory(64 * 1024)
            .preempt_timer(Duration::from_secs(24 * 60 * 60))
            .make()
            .expect("an executor");
        executor.run(future())
    })
}
