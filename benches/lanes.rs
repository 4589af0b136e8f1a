//! What it costs that a subscriber lives on another shard: for the two brokers, without a lane between
//! them. What sleeping and waking add, a run of `loadgen` with two shards shows.

mod support;
#[path = "support/shell.rs"]
mod shell;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use ringmq::{
    base::{ConnId, QoS, ShardId},
    broker::MeshMessage,
    codec::Version,
};

use self::shell::{NOW, Shell, publish_packets};

fn main() {
    let mut criterion = support::criterion();
    bench_brokers(&mut criterion);
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
