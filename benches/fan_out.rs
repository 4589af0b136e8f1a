//! What one publication costs a shard that has many subscribers of it: from the publisher's bytes to
//! the PUBLISH packets in the output of all connections, taken and given back. The subscribers'
//! acknowledgements come in between and are not measured; `session` does that.

mod support;
#[path = "support/shell.rs"]
mod shell;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Throughput};
use ringmq::{
    base::{ConnId, PacketId, QoS, ShardId},
    codec::{PacketType, Version, encode_ack},
};

use self::shell::{NOW, Shell, publish_packets};

fn main() {
    let mut criterion = support::criterion();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        for (form, versions) in FORMS {
            let name = format!("fan_out/qos{}/{form}", qos.bits());
            let mut group = criterion.benchmark_group(name);
            for subscribers in SUBSCRIBERS.into_iter().filter(|n| *n as usize >= versions.len()) {
                let mut crowd = Crowd::new(subscribers, versions, qos);
                group.throughput(Throughput::Elements(subscribers.into()));
                group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| {
                    bencher.iter_custom(|publications| crowd.publish(publications));
                });
                crowd.assert_all_delivered();
            }
        }
    }
    criterion.final_summary();
}

const SUBSCRIBERS: [u32; 4] = [1, 10, 100, 1_000];

/// Whose packets the subscribers get: all the same bytes, or two forms in turn, which is the worst
/// order for a broker that remembers the form encoded last.
const FORMS: [(&str, &[Version]); 2] =
    [("one_form", &[Version::V5]), ("mixed_forms", &[Version::V311, Version::V5])];

/// Publications between two acknowledgements: so many that reading the clock does not count, and
/// far fewer than a window holds.
const ROUND: u64 = 32;

struct Crowd {
    shell: Shell,
    publisher: ConnId,
    subscribers: Vec<ConnId>,
    packet: Vec<u8>,
    qos: QoS,
    /// Identifier of the next delivery, the same for all: sessions give them out in sequence.
    next_id: PacketId,
}

impl Crowd {
    fn new(subscribers: u32, versions: &[Version], qos: QoS) -> Self {
        let mut shell = Shell::new(ShardId(0), 1);
        let publisher = shell.connect(0, Version::V5);
        let subscribe = |(slot, version): (u32, &Version)| {
            let conn = shell.connect(slot, *version);
            shell.subscribe(conn, *version, qos);
            conn
        };
        let slots = 1..=subscribers;
        let subscribers = slots.zip(versions.iter().cycle()).map(subscribe).collect();
        let packet = publish_packets(Version::V5, qos, 1);
        Self { shell, publisher, subscribers, packet, qos, next_id: PacketId::FIRST }
    }

    /// How long so many publications take.
    fn publish(&mut self, publications: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        for round in (0..publications).step_by(ROUND as usize) {
            let count = ROUND.min(publications - round);
            let start = Instant::now();
            for _ in 0..count {
                self.shell.broker.receive(NOW, self.publisher, black_box(&self.packet));
                self.drain();
            }
            elapsed += start.elapsed();
            if self.qos > QoS::AtMostOnce {
                self.acknowledge(count);
            }
        }
        elapsed
    }

    fn drain(&mut self) {
        let broker = &mut self.shell.broker;
        while let Some(conn) = broker.pop_dirty() {
            let output = broker.take_output(conn);
            broker.written(NOW, conn, black_box(output));
        }
    }

    fn acknowledge(&mut self, deliveries: u64) {
        let mut acks = Vec::new();
        for _ in 0..deliveries {
            encode_ack(PacketType::PubAck, self.next_id, &mut acks);
            self.next_id = self.next_id.next();
        }
        for conn in &self.subscribers {
            self.shell.broker.receive(NOW, *conn, &acks);
        }
    }

    /// Wrong acknowledgements would fill the windows, and nothing more would be sent.
    fn assert_all_delivered(&mut self) {
        let summary = self.shell.broker.summary();
        let counters = summary.counters();
        let deliveries = counters.publishes_received * self.subscribers.len() as u64;
        assert_eq!(counters.publishes_sent, deliveries);
        assert!(self.shell.broker.pop_effect().is_none(), "nobody is closed or held back");
    }
}
