//! What a message costs a shard from the publisher's bytes to the last acknowledgement of both sides,
//! with no subscriber but one, and what the two halves of a session cost alone.

mod support;
#[path = "support/shell.rs"]
mod shell;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use ringmq::{
    base::{ConnId, PacketId, QoS, ShardId},
    broker::DropReason,
    codec::{Properties, Version},
    message::{Identifiers, Message, Publication},
    session::{Inbox, Outbox, Outgoing, QueueBounds, Queued},
    topic::TopicName,
};

use self::shell::{NOW, Shell, TOPIC, connect_packet, publish_packets};

fn main() {
    let mut criterion = support::criterion();
    bench_online(&mut criterion);
    bench_offline(&mut criterion);
    bench_outbox(&mut criterion);
    bench_inbox(&mut criterion);
    criterion.final_summary();
}

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// PUBLISH packets in one read from the publisher.
const READS: [u16; 2] = [1, 64];
/// Messages that wait for the subscriber while it is away: fewer than any window or quota.
const OFFLINE_MESSAGES: u16 = 1_000;
/// Exchanges that are open all the time in the benchmarks of one half of a session.
const OPEN_EXCHANGES: u16 = 64;

/// Publisher and subscriber are connected and keep up.
fn bench_online(criterion: &mut Criterion) {
    for qos in ALL_QOS {
        let mut group = criterion.benchmark_group(format!("session/online/qos{}", qos.bits()));
        for messages in READS {
            let mut shell = Shell::new(ShardId(0), 1);
            let publisher = shell.connect(0, Version::V5);
            let subscriber = shell.connect(1, Version::V5);
            shell.subscribe(subscriber, Version::V5, qos);
            let packets = publish_packets(Version::V5, qos, messages);
            group.throughput(Throughput::Elements(messages.into()));
            group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
                bencher.iter(|| {
                    shell.broker.receive(NOW, publisher, black_box(&packets));
                    shell.settle();
                    shell.delivered
                });
            });
            assert_all_delivered(&shell);
        }
    }
}

/// The subscriber is away while the messages are published, then comes back for them.
fn bench_offline(criterion: &mut Criterion) {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for (name, part) in [("queue", Part::Queue), ("resume", Part::Resume)] {
            let mut away = Away::new(qos);
            let mut group = criterion.benchmark_group(format!("session/{name}/qos{}", qos.bits()));
            group.throughput(Throughput::Elements(OFFLINE_MESSAGES.into()));
            group.bench_function(BenchmarkId::from_parameter(OFFLINE_MESSAGES), |bencher| {
                bencher.iter_custom(|rounds| (0..rounds).map(|_| away.round(part)).sum());
            });
            assert_all_delivered(&away.shell);
        }
    }
}

/// Which part of a round is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// From the publisher's bytes to its last acknowledgement.
    Queue,
    /// From the subscriber's CONNECT to its last acknowledgement.
    Resume,
}

/// A subscriber that comes and goes.
struct Away {
    shell: Shell,
    publisher: ConnId,
    packets: Vec<u8>,
    connect: Vec<u8>,
}

impl Away {
    fn new(qos: QoS) -> Self {
        let mut shell = Shell::new(ShardId(0), 1);
        let publisher = shell.connect(0, Version::V5);
        let packets = publish_packets(Version::V5, qos, OFFLINE_MESSAGES);
        let connect = connect_packet(Version::V5, "subscriber", false);
        let subscriber = shell.open(1);
        shell.broker.receive(NOW, subscriber, &connect);
        shell.settle();
        shell.subscribe(subscriber, Version::V5, qos);
        shell.broker.disconnected(NOW, subscriber, None);
        Self { shell, publisher, packets, connect }
    }

    fn round(&mut self, part: Part) -> Duration {
        let start = Instant::now();
        self.shell.broker.receive(NOW, self.publisher, black_box(&self.packets));
        self.shell.settle();
        let queued = Instant::now();
        let subscriber = self.shell.open(1);
        self.shell.broker.receive(NOW, subscriber, black_box(&self.connect));
        self.shell.settle();
        let resumed = Instant::now();
        self.shell.broker.disconnected(NOW, subscriber, None);
        if part == Part::Queue { queued - start } else { resumed - queued }
    }
}

fn assert_all_delivered(shell: &Shell) {
    let summary = shell.broker.summary();
    let counters = summary.counters();
    assert_eq!(shell.delivered, counters.publishes_received);
    assert_eq!(DropReason::ALL.map(|reason| counters.drops(reason)), [0; DropReason::ALL.len()]);
}

/// The send side: identifiers, window and queue, without encoding.
fn bench_outbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session/outbox");
    for (name, qos) in [("qos1", QoS::AtLeastOnce), ("qos2", QoS::ExactlyOnce)] {
        let queued = delivery(qos);
        let mut outbox = Outbox::default();
        let mut oldest = PacketId::FIRST;
        (0..OPEN_EXCHANGES).for_each(|_| _ = outbox.start(queued.clone()));
        group.bench_function(BenchmarkId::new("sent_at_once", name), |bencher| {
            bencher.iter(|| {
                let newest = outbox.start(black_box(&queued).clone());
                assert_eq!(newest, oldest.plus(OPEN_EXCHANGES));
                finish(&mut outbox, oldest, qos);
                oldest = oldest.next();
            });
        });
    }
    for (name, qos) in [("qos1", QoS::AtLeastOnce), ("qos2", QoS::ExactlyOnce)] {
        let queued = delivery(qos);
        let mut outbox = Outbox::default();
        let bounds = QueueBounds { messages_max: 1_000, bytes_max: 1_000_000 };
        let enqueue = |outbox: &mut Outbox| outbox.queue(black_box(&queued).clone(), bounds);
        (0..OPEN_EXCHANGES).for_each(|_| enqueue(&mut outbox).expect("room in the queue"));
        group.bench_function(BenchmarkId::new("queued", name), |bencher| {
            bencher.iter(|| {
                enqueue(&mut outbox).expect("room in the queue");
                let next = outbox.next(u16::MAX, 0, NOW);
                let Some(Outgoing::Publish { packet_id: Some(id), .. }) = black_box(next) else {
                    panic!("a PUBLISH with an identifier is next");
                };
                finish(&mut outbox, id, qos);
            });
        });
        assert_eq!(outbox.queue_len(), usize::from(OPEN_EXCHANGES));
    }
}

/// The subscriber's acknowledgements of one delivery.
fn finish(outbox: &mut Outbox, id: PacketId, qos: QoS) {
    let done = match qos {
        QoS::ExactlyOnce => outbox.received(id, false).and_then(|_| outbox.completed(id)),
        _ => outbox.acknowledged(id),
    };
    done.expect("it is in flight");
}

fn delivery(qos: QoS) -> Queued {
    let message = Message {
        topic: TopicName::parse(TOPIC).expect("a topic"),
        properties: Properties::EMPTY,
        payload: &[b'x'; 64],
        qos,
        retain: false,
        expires_at: None,
        original: None,
        shared: None,
    };
    let publication = Publication::new(&message);
    Queued { publication, qos, retain: false, identifiers: Identifiers::new(), logged: None }
}

/// The receive side of QoS 2: PUBLISH of one identifier, PUBREL of another.
fn bench_inbox(criterion: &mut Criterion) {
    let mut inbox = Inbox::default();
    let mut oldest = PacketId::FIRST;
    (0..OPEN_EXCHANGES).for_each(|steps| assert!(inbox.receive(oldest.plus(steps))));
    criterion.bench_function("session/inbox/qos2", |bencher| {
        bencher.iter(|| {
            assert!(inbox.receive(black_box(oldest.plus(OPEN_EXCHANGES))));
            assert!(inbox.release(black_box(oldest)).is_some());
            oldest = oldest.next();
        });
    });
    assert_eq!(inbox.len(), usize::from(OPEN_EXCHANGES));
}
