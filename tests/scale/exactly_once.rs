//! A hundred thousand messages at QoS 2, each exactly once and in order, while clients are cut at
//! random points on both sides and come back to their sessions all along.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::alone;
use crate::common::Broker;
use crate::lean::{Connection, Received};

const PAIRS: usize = 50;
const MESSAGES_EACH: u64 = 2000;
const WINDOW: usize = 16;
const SEED: u64 = 0x5eed_0002;

static CUTS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn qos_2_messages_arrive_exactly_once_through_cut_connections() {
    let _alone = alone();
    let broker = Broker::start_quiet(
        4,
        &["limits.queue_messages_max=1000000", "limits.queue_bytes_max=1000000000"],
    );
    let port = broker.port;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for pair in 0..PAIRS {
            let mut subscriber = Subscriber::new(port, pair);
            subscriber.subscribe();
            scope.spawn(move || subscriber.run());
            scope.spawn(move || Publisher::new(port, pair).run());
        }
    });
    let cuts = CUTS.load(Ordering::Relaxed);
    println!("{} messages, {cuts} cuts, {:?}", PAIRS as u64 * MESSAGES_EACH, started.elapsed());
    assert!(cuts > 500, "only {cuts} cuts: nothing was tested");
}

/// When connections end: after a random number of packets, mid-write as often as not.
struct Cutter {
    state: u64,
    packets_left: u64,
}

impl Cutter {
    fn new(seed: u64) -> Self {
        let mut cutter =
            Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, packets_left: 0 };
        cutter.next_connection();
        cutter
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state >> 11
    }

    /// Some connections hardly begin, most last for a few hundred packets.
    fn next_connection(&mut self) {
        self.packets_left = match self.random() % 4 {
            0 => self.random() % 8,
            _ => self.random() % 800,
        };
    }

    /// Counts a packet; true when the connection has to end here.
    fn is_due(&mut self) -> bool {
        self.packets_left = self.packets_left.saturating_sub(1);
        self.packets_left == 0
    }

    fn cut(&mut self, connection: Connection) {
        CUTS.fetch_add(1, Ordering::Relaxed);
        let sent_max = self.random() as usize % 64;
        connection.break_off(sent_max);
        self.next_connection();
    }
}

/// Where a message is, on the sender's side (4.3.3).
#[derive(PartialEq)]
enum Phase {
    Published,
    Released,
}

struct Publisher {
    port: u16,
    pair: usize,
    topic: String,
    next: u64,
    /// In the order of their first PUBLISH.
    in_flight: VecDeque<(u16, u64, Phase)>,
    cutter: Cutter,
}

impl Publisher {
    fn new(port: u16, pair: usize) -> Self {
        let cutter = Cutter::new(SEED + 2 * pair as u64);
        let topic = format!("pair/{pair}");
        Self { port, pair, topic, next: 0, in_flight: VecDeque::new(), cutter }
    }

    fn run(mut self) {
        let mut first = true;
        while self.next < MESSAGES_EACH || !self.in_flight.is_empty() {
            let id = format!("publisher {}", self.pair);
            let (mut connection, present) =
                Connection::open(self.port, &id, false, 60).expect("the broker is there");
            assert!(present || first, "{id}: the session is gone");
            first = false;
            // MQTT-4.4.0-1, MQTT-4.6.0-1
            for (packet_id, number, phase) in &self.in_flight {
                match phase {
                    Phase::Published => {
                        connection.publish(true, 2, &self.topic, *packet_id, *number)
                    }
                    Phase::Released => connection.ack(0x62, *packet_id),
                }
            }
            self.serve(connection);
        }
    }

    /// One connection, until it is cut or all is done.
    fn serve(&mut self, mut connection: Connection) {
        loop {
            while self.next < MESSAGES_EACH && self.in_flight.len() < WINDOW {
                let packet_id = (self.next % 60_000) as u16 + 1;
                connection.publish(false, 2, &self.topic, packet_id, self.next);
                self.in_flight.push_back((packet_id, self.next, Phase::Published));
                self.next += 1;
            }
            if self.in_flight.is_empty() {
                return;
            }
            if self.cutter.is_due() {
                return self.cutter.cut(connection);
            }
            match connection.exchange() {
                Ok(Received::Ack { first_byte: 0x50, packet_id }) => {
                    let message = self.in_flight.iter_mut().find(|(id, ..)| *id == packet_id);
                    let (.., phase) = message.expect("a PUBREC for what is in flight");
                    *phase = Phase::Released;
                    connection.ack(0x62, packet_id);
                }
                Ok(Received::Ack { first_byte: 0x70, packet_id }) => {
                    let at = self
                        .in_flight
                        .iter()
                        .position(|(id, _, phase)| *id == packet_id && *phase == Phase::Released);
                    self.in_flight.remove(at.expect("a PUBCOMP for what was released"));
                }
                other => panic!("publisher {} at {}: {other:?}", self.pair, self.next),
            }
        }
    }
}

struct Subscriber {
    port: u16,
    pair: usize,
    next: u64,
    /// Packet ids received, not yet released (4.3.3, the receiver's side).
    unreleased: HashSet<u16>,
    cutter: Cutter,
}

impl Subscriber {
    fn new(port: u16, pair: usize) -> Self {
        let cutter = Cutter::new(SEED + 2 * pair as u64 + 1);
        Self { port, pair, next: 0, unreleased: HashSet::new(), cutter }
    }

    fn open(&self) -> (Connection, bool) {
        let id = format!("subscriber {}", self.pair);
        Connection::open(self.port, &id, false, 60).expect("the broker is there")
    }

    fn subscribe(&mut self) {
        let (mut connection, _) = self.open();
        connection.subscribe(&format!("pair/{}", self.pair), 2);
        let answer = connection.exchange().expect("a SUBACK");
        assert!(matches!(answer, Received::Suback), "{answer:?}");
    }

    fn run(mut self) {
        while self.next < MESSAGES_EACH || !self.unreleased.is_empty() {
            let (connection, present) = self.open();
            assert!(present, "subscriber {}: the session is gone", self.pair);
            self.serve(connection);
        }
    }

    fn serve(&mut self, mut connection: Connection) {
        loop {
            match connection.exchange() {
                Ok(Received::Publish { dup, qos: 2, packet_id, payload }) => {
                    let number = u64::from_be_bytes(payload);
                    if self.unreleased.insert(packet_id) {
                        assert_eq!(
                            number, self.next,
                            "subscriber {}: lost, twice or out of order",
                            self.pair
                        );
                        self.next += 1;
                    } else {
                        assert!(dup, "subscriber {}: id {packet_id} used twice", self.pair);
                    }
                    connection.ack(0x50, packet_id);
                }
                Ok(Received::Ack { first_byte: 0x62, packet_id }) => {
                    self.unreleased.remove(&packet_id);
                    connection.ack(0x70, packet_id);
                }
                other => panic!("subscriber {} at {}: {other:?}", self.pair, self.next),
            }
            if self.next == MESSAGES_EACH && self.unreleased.is_empty() {
                connection.flush().expect("the last PUBCOMP");
                return;
            }
            if self.cutter.is_due() {
                return self.cutter.cut(connection);
            }
        }
    }
}
