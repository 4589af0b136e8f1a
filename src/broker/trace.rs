//! Tracing of one publication in N: when it passed which stage on this shard.
//!
//! Owns the traces under way and their bounds. Stages end in the middle of handling one input, so the
//! time that comes with the input could not tell them apart, nor could marks that the shell stamps when
//! the call returns. Therefore the shell lends a stopwatch: a function, called for traced publications
//! alone. Nothing is decided by what it shows, and a broker that got none (the simulator's) has no tracer.
//! Input and completed sends bear the stamp that the shell gave for them with [`Tracer::input_taken`].
//!
//! Knows no log: the shell fetches what is finished.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::{
    base::{ClientId, ConnId, QoS, SessionKey, ShardId, Time, limits},
    message::Message,
};

use super::{connection::Connections, deliver::Outcome, sessions::Sessions};

/// What to trace, and by which clock.
#[derive(Clone, Copy, Debug)]
pub struct TraceSetup {
    /// One in so many publications is traced, the first one among them.
    pub every: NonZeroU32,
    /// Reads a clock that all shards share.
    pub stopwatch: fn() -> Instant,
}

/// A part of a publication's way. Each begins where the one before it ends, so they sum up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Stage {
    /// From when its shard took the last of its bytes from the ring, to its routing: what was handled
    /// before it in the same turn, decoding, checks. Bytes that waited while reading was paused count
    /// from when they could be handled.
    Turn,
    /// The index was asked for its takers.
    Match,
    /// To another shard, if this one is not the publisher's.
    Lane,
    /// Until the first taker has it in its output; on another shard than the publisher's with the
    /// search for the takers there.
    Encode,
    /// From the first taker to the last.
    EncodeRest,
    /// From there until a send that carried it was seen to have completed.
    Send,
    /// From the first such send to the last.
    SendRest,
    /// All of it, of publications whose every send has completed.
    Total,
}

impl Stage {
    /// All stages in their order, then the total.
    pub const ALL: [Self; 8] = [
        Self::Turn,
        Self::Match,
        Self::Lane,
        Self::Encode,
        Self::EncodeRest,
        Self::Send,
        Self::SendRest,
        Self::Total,
    ];

    /// Its name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Match => "match",
            Self::Lane => "lane",
            Self::Encode => "encode",
            Self::EncodeRest => "encode_rest",
            Self::Send => "send",
            Self::SendRest => "send_rest",
            Self::Total => "total",
        }
    }
}

/// What is known of one publication on one shard.
#[derive(Debug)]
pub struct Trace {
    start: TraceStart,
    /// Where it was published to.
    pub topic: Box<str>,
    /// QoS it was published with.
    pub qos: QoS,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// Takers that have it wait in their queue: no connection, or no room in window or output.
    pub queued: u32,
    /// Takers that it was dropped for, each with a reason that is counted elsewhere.
    pub dropped: u32,
    /// Takers without a connection that get no QoS 0 later.
    pub offline: u32,
    /// Other shards that got it from here.
    pub forwarded: u32,
    arrived: Option<Instant>,
    encoded: Moments,
    sent: Moments,
}

/// What the publisher's shard knows, and tells others in front of the publication.
#[derive(Clone, Debug)]
pub(super) struct TraceStart {
    id: TraceId,
    publisher: ClientId,
    received: Instant,
    routed: Instant,
    matched: Instant,
}

/// Names a traced publication on all shards that it reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceId {
    shard: ShardId,
    number: u64,
}

/// How often something happened, first and last when.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: u32,
    ends: Option<(Instant, Instant)>,
}

impl Trace {
    fn new(start: TraceStart, message: &Message<'_>, arrived: Option<Instant>) -> Self {
        Self {
            start,
            topic: message.topic.as_str().into(),
            qos: message.qos,
            payload_bytes: message.payload.len(),
            queued: 0,
            dropped: 0,
            offline: 0,
            forwarded: 0,
            arrived,
            encoded: Moments::default(),
            sent: Moments::default(),
        }
    }

    /// The same on all shards.
    pub const fn id(&self) -> TraceId {
        self.start.id
    }

    /// The client that published it.
    pub const fn publisher(&self) -> &ClientId {
        &self.start.publisher
    }

    /// Sessions of this shard that it was for.
    pub const fn takers(&self) -> u32 {
        self.encoded.count + self.queued + self.dropped + self.offline
    }

    /// Takers that it was sent to.
    pub const fn sent(&self) -> u32 {
        self.sent.count
    }

    /// Takers that have it in their output, without word that it was sent: it took too long, their
    /// connection ended, or they were too many to wait for.
    pub const fn unsent(&self) -> u32 {
        self.encoded.count - self.sent.count
    }

    /// How long a stage took, if the publication came through it.
    pub fn stage(&self, stage: Stage) -> Option<Duration> {
        let TraceStart { received, routed, matched, .. } = self.start;
        let here = self.arrived.unwrap_or(matched);
        let (from, to) = match stage {
            Stage::Turn => (received, routed),
            Stage::Match => (routed, matched),
            Stage::Lane => (matched, self.arrived?),
            Stage::Encode => (here, self.encoded.ends?.0),
            Stage::EncodeRest => self.encoded.rest()?,
            Stage::Send => (self.encoded.ends?.1, self.sent.ends?.0),
            Stage::SendRest => self.sent.rest()?,
            Stage::Total if self.unsent() == 0 => (received, self.sent.ends?.1),
            Stage::Total => return None,
        };
        Some(to.saturating_duration_since(from))
    }
}

impl Moments {
    fn add(&mut self, at: Instant) {
        self.count += 1;
        self.ends = Some((self.ends.map_or(at, |(first, _)| first), at));
    }

    fn rest(&self) -> Option<(Instant, Instant)> {
        self.ends.filter(|_| self.count > 1)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shard, self.number)
    }
}

/// The traces of one shard.
#[derive(Debug)]
pub struct Tracer {
    setup: TraceSetup,
    shard: ShardId,
    /// Publications up to the next one that is traced.
    countdown: u32,
    /// When the shell took what is being handled.
    input_at: Instant,
    /// The next publication from another shard is this one.
    announced: Option<Box<TraceStart>>,
    /// The publication that is being routed, if it is traced.
    current: Option<UnderWay>,
    /// Routed, in order of their numbers and so of their times.
    under_way: Vec<UnderWay>,
    /// Sends that traces wait for.
    sends: HashMap<ConnId, SmallVec<[Send; 1]>, RandomState>,
    /// Number of the trace begun last.
    number: u64,
    skipped: u64,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    /// When it is finished whatever it still waits for.
    due: Time,
    /// Sends that it waits for.
    waiting: usize,
    trace: Trace,
}

/// Bytes of a traced publication in a connection's output.
#[derive(Debug)]
struct Send {
    /// Number of the trace.
    trace: u64,
    /// The completion that tells of them, counted from now on.
    completion: u8,
}

impl Tracer {
    pub(super) fn new(setup: TraceSetup, shard: ShardId, hasher: RandomState) -> Self {
        Self {
            setup,
            shard,
            countdown: 1,
            input_at: (setup.stopwatch)(),
            announced: None,
            current: None,
            under_way: Vec::new(),
            sends: HashMap::with_hasher(hasher),
            number: 0,
            skipped: 0,
        }
    }

    /// The shell took completions from the ring or a batch from a lane, and hands them over next.
    pub fn input_taken(&mut self, at: Instant) {
        self.input_at = at;
    }

    /// A trace that is finished: all its sends have completed, or its time is up.
    pub fn pop(&mut self, now: Time) -> Option<Trace> {
        let at = self.under_way.iter().position(|one| one.waiting == 0 || one.due <= now)?;
        let UnderWay { number, waiting, trace, .. } = self.under_way.remove(at);
        if waiting > 0 {
            self.sends.retain(|_, sends| {
                sends.retain(|send| send.trace != number);
                !sends.is_empty()
            });
        }
        Some(trace)
    }

    /// Publications that were to be traced and were not, because too many traces were under way.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// When [`pop`](Self::pop) has something without further input.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.under_way.iter().find(|one| one.waiting > 0).map(|one| one.due)
    }

    /// A publication of a client of this shard is to be routed.
    pub(super) fn begin(
        &mut self,
        message: &Message<'_>,
        publisher: Option<SessionKey>,
        sessions: &Sessions,
    ) {
        self.countdown -= 1;
        if self.countdown > 0 {
            return;
        }
        self.countdown = self.setup.every.get();
        let Some(session) = publisher.and_then(|key| sessions.get(key)) else { return };
        let routed = (self.setup.stopwatch)();
        let start = TraceStart {
            id: TraceId { shard: self.shard, number: self.number + 1 },
            publisher: session.client.clone(),
            received: self.input_at,
            routed,
            matched: routed,
        };
        self.open(|| Trace::new(start, message, None));
    }

    /// Its takers have been found.
    pub(super) fn matched(&mut self) {
        if let Some(UnderWay { trace, .. }) = &mut self.current {
            trace.start.matched = (self.setup.stopwatch)();
        }
    }

    /// Another shard traces the publication that it sends next.
    pub(super) fn announced(&mut self, start: Box<TraceStart>) {
        self.announced = Some(start);
    }

    /// A publication from another shard is to be delivered.
    pub(super) fn begin_forwarded(&mut self, message: &Message<'_>) {
        let Some(start) = self.announced.take() else { return };
        let arrived = Some(self.input_at);
        self.open(|| Trace::new(*start, message, arrived));
    }

    /// The publication that is being routed goes to another shard: what that is to be told in front of
    /// it, if it is traced.
    pub(super) fn forwarded(&mut self) -> Option<Box<TraceStart>> {
        let UnderWay { trace, .. } = self.current.as_mut()?;
        trace.forwarded += 1;
        Some(Box::new(trace.start.clone()))
    }

    /// What became of the publication that is being routed, for one taker.
    pub(super) fn taker(&mut self, outcome: Outcome, connections: &Connections) {
        let Some(UnderWay { number, waiting, trace, .. }) = &mut self.current else { return };
        match outcome {
            Outcome::Encoded(conn) => {
                trace.encoded.add((self.setup.stopwatch)());
                if *waiting < limits::TRACE_SENDS_MAX
                    && let Some(connection) = connections.get(conn)
                {
                    *waiting += 1;
                    // What the shell has taken already goes out first, with a completion of its own.
                    let completion = 1 + u8::from(connection.taken_bytes > 0);
                    self.sends.entry(conn).or_default().push(Send { trace: *number, completion });
                }
            }
            Outcome::Queued => trace.queued += 1,
            Outcome::Dropped => trace.dropped += 1,
            Outcome::Offline => trace.offline += 1,
        }
    }

    /// The routing is over. What was only passed on has nothing to tell of this shard.
    pub(super) fn end(&mut self, now: Time) {
        let Some(mut routed) = self.current.take() else { return };
        if routed.trace.takers() > 0 || routed.trace.forwarded == 0 {
            routed.due = now.plus_millis(limits::TRACE_MILLIS_MAX);
            self.under_way.push(routed);
        }
    }

    /// A send to the connection has completed.
    pub(super) fn written(&mut self, conn: ConnId) {
        let Self { sends, under_way, input_at, .. } = self;
        let Some(waiting) = sends.get_mut(&conn) else { return };
        waiting.retain(|send| {
            send.completion -= 1;
            if send.completion == 0
                && let Some(found) = find(under_way, send.trace)
            {
                found.waiting -= 1;
                found.trace.sent.add(*input_at);
            }
            send.completion > 0
        });
        if waiting.is_empty() {
            sends.remove(&conn);
        }
    }

    /// Nothing more is heard of the connection.
    pub(super) fn gone(&mut self, conn: ConnId) {
        for send in self.sends.remove(&conn).unwrap_or_default() {
            if let Some(found) = find(&mut self.under_way, send.trace) {
                found.waiting -= 1;
            }
        }
    }

    fn open(&mut self, trace: impl FnOnce() -> Trace) {
        if self.under_way.len() >= limits::TRACES_MAX {
            self.skipped += 1;
            return;
        }
        self.number += 1;
        let due = Time::default();
        self.current = Some(UnderWay { number: self.number, due, waiting: 0, trace: trace() });
    }
}

fn find(under_way: &mut [UnderWay], number: u64) -> Option<&mut UnderWay> {
    let at = under_way.binary_search_by_key(&number, |one| one.number).ok()?;
    Some(&mut under_way[at])
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        base::Output,
        broker::{Broker, BrokerSetup, Origin},
        config::{Limits, Policy},
    };

    thread_local! {
        static NOW: Cell<Instant> = Cell::new(Instant::now());
    }

    /// Every look at it is a microsecond after the one before.
    fn stopwatch() -> Instant {
        NOW.set(NOW.get() + Duration::from_micros(1));
        NOW.get()
    }

    const T: Time = Time::from_millis(5);
    /// "t" to topic "a".
    const PUBLISH_QOS0: &[u8] = b"\x30\x04\0\x01at";
    const PUBLISH_QOS1: &[u8] = b"\x32\x06\0\x01a\0\x09t";

    /// Two shards and the part of their shells that traces depend on.
    struct Shards {
        brokers: [Broker; 2],
        opened: u32,
    }

    impl Shards {
        fn tracing_one_in(every: u32) -> Self {
            let limits = Limits { inflight_max: 1, ..Limits::default() };
            let every = NonZeroU32::new(every).unwrap();
            let broker = |shard| {
                Broker::new(BrokerSetup {
                    shard: ShardId(shard),
                    shards: 2,
                    seed: 7,
                    secret: [7; 32],
                    policy: Policy { limits: limits.clone(), ..Policy::default() },
                    trace: Some(TraceSetup { every, stopwatch }),
                })
            };
            Self { brokers: [broker(0), broker(1)], opened: 0 }
        }

        /// A new client of that shard, with Clean Session 0.
        fn connect(&mut self, shard: usize) -> ConnId {
            self.opened += 1;
            let conn = ConnId { slot: self.opened, generation: 0 };
            let is_at_home =
                |id: &String| self.brokers[0].home_of_client(id) == ShardId(shard as u16);
            let mut ids =
                (10..100).map(|number| format!("{}x{number}", (b'a' + conn.slot as u8) as char));
            let id = ids.find(is_at_home).unwrap();
            let origin = Origin::new(([127, 0, 0, 1], 1), true);
            self.brokers[shard].open(T, conn, origin);
            let connect = [b"\x10\x10\0\x04MQTT\x04\0\0\0\0\x04", id.as_bytes()].concat();
            self.receive(shard, conn, &connect);
            conn
        }

        /// A new subscriber of "a" on that shard, which nothing is on its way to.
        fn subscribe(&mut self, shard: usize, qos: u8) -> ConnId {
            let conn = self.connect(shard);
            self.receive(shard, conn, &[0x82, 6, 0, 1, 0, 1, b'a', qos]);
            self.send(shard, conn);
            conn
        }

        fn receive(&mut self, shard: usize, conn: ConnId, bytes: &[u8]) {
            let broker = &mut self.brokers[shard];
            broker.tracer().unwrap().input_taken(stopwatch());
            broker.receive(T, conn, bytes);
            for (from, to) in [(0, 1), (1, 0), (0, 1)] {
                let batch = self.brokers[from].take_mesh(T, ShardId(to as u16));
                self.brokers[to].tracer().unwrap().input_taken(stopwatch());
                self.brokers[to].receive_mesh(T, ShardId(from as u16), batch);
            }
        }

        fn send(&mut self, shard: usize, conn: ConnId) {
            let buffer = self.brokers[shard].take_output(conn);
            self.written(shard, conn, buffer);
        }

        fn written(&mut self, shard: usize, conn: ConnId, buffer: Output) {
            self.brokers[shard].tracer().unwrap().input_taken(stopwatch());
            self.brokers[shard].written(T, conn, buffer);
        }

        fn pop(&mut self, shard: usize) -> Option<Trace> {
            self.brokers[shard].tracer().unwrap().pop(T)
        }
    }

    /// Microseconds of each stage.
    fn stages(trace: &Trace) -> [Option<u128>; Stage::ALL.len()] {
        Stage::ALL.map(|stage| trace.stage(stage).map(|time| time.as_micros()))
    }

    #[test]
    fn stages_of_a_local_delivery_follow_each_other_and_sum_up() {
        let mut shards = Shards::tracing_one_in(1);
        let (publisher, taker) = (shards.connect(0), shards.subscribe(0, 1));
        shards.receive(0, publisher, PUBLISH_QOS1);
        assert!(shards.pop(0).is_none(), "it is not sent");
        shards.send(0, taker);
        let trace = shards.pop(0).unwrap();
        assert_eq!(stages(&trace), [1, 1, 0, 1, 0, 4, 0, 7].map(|us| (us > 0).then_some(us)));
        assert_eq!((&*trace.topic, trace.qos, trace.payload_bytes), ("a", QoS::AtLeastOnce, 1));
        assert_eq!((trace.takers(), trace.sent(), trace.unsent()), (1, 1, 0));
        assert!(trace.publisher().as_str().starts_with('b'));
        assert!(shards.pop(0).is_none() && shards.pop(1).is_none());
    }

    #[test]
    fn each_shard_with_takers_has_a_trace_of_the_same_id() {
        let mut shards = Shards::tracing_one_in(1);
        let publisher = shards.connect(1);
        let takers =
            [(0, shards.subscribe(0, 0)), (0, shards.subscribe(0, 0)), (1, shards.subscribe(1, 0))];
        shards.receive(1, publisher, PUBLISH_QOS0);
        takers.into_iter().for_each(|(shard, conn)| shards.send(shard, conn));
        let [there, here] = [shards.pop(0).unwrap(), shards.pop(1).unwrap()];
        assert_eq!(there.id().to_string(), "1.1");
        assert_eq!(there.id(), here.id());
        assert_eq!((here.takers(), here.forwarded), (1, 1));
        assert_eq!((there.takers(), there.forwarded), (2, 0));
        assert!(there.publisher() == here.publisher() && there.topic == here.topic);
        assert!(here.stage(Stage::Lane).is_none() && here.stage(Stage::EncodeRest).is_none());
        let mut parts = stages(&there).map(|us| us.expect("every stage"));
        assert!(parts.iter().all(|us| *us > 0), "{parts:?}");
        let total = std::mem::take(&mut parts[Stage::Total as usize]);
        assert_eq!(parts.iter().sum::<u128>(), total);
    }

    #[test]
    fn a_shard_that_only_passes_it_on_has_no_trace() {
        let mut shards = Shards::tracing_one_in(1);
        let (publisher, taker) = (shards.connect(0), shards.subscribe(1, 0));
        shards.receive(0, publisher, PUBLISH_QOS0);
        shards.send(1, taker);
        assert!(shards.pop(0).is_none());
        assert_eq!(shards.pop(1).unwrap().takers(), 1);
    }

    #[test]
    fn a_publication_without_takers_is_traced_up_to_that() {
        let mut shards = Shards::tracing_one_in(1);
        let publisher = shards.connect(0);
        shards.receive(0, publisher, PUBLISH_QOS0);
        let trace = shards.pop(0).unwrap();
        assert_eq!(trace.takers(), 0);
        assert!(trace.stage(Stage::Match).is_some() && trace.stage(Stage::Total).is_none());
    }

    #[test]
    fn what_an_earlier_send_carries_is_not_taken_for_it() {
        let mut shards = Shards::tracing_one_in(1);
        let (publisher, taker) = (shards.connect(0), shards.subscribe(0, 0));
        shards.receive(0, publisher, PUBLISH_QOS0);
        let first = shards.brokers[0].take_output(taker);
        shards.receive(0, publisher, PUBLISH_QOS0);
        shards.written(0, taker, first);
        assert_eq!(shards.pop(0).unwrap().id().to_string(), "0.1");
        assert!(shards.pop(0).is_none());
        shards.send(0, taker);
        assert_eq!(shards.pop(0).unwrap().id().to_string(), "0.2");
    }

    #[test]
    fn takers_that_get_it_later_or_never_are_counted_and_not_waited_for() {
        let mut shards = Shards::tracing_one_in(1);
        let publisher = shards.connect(0);
        let [full, offline_qos1, offline_qos0] = [1, 1, 0].map(|qos| shards.subscribe(0, qos));
        // The one delivery of this client's window.
        shards.receive(0, publisher, PUBLISH_QOS1);
        [full, offline_qos1, offline_qos0].into_iter().for_each(|conn| shards.send(0, conn));
        assert_eq!(shards.pop(0).unwrap().takers(), 3);
        shards.brokers[0].disconnected(T, offline_qos1, None);
        shards.brokers[0].disconnected(T, offline_qos0, None);

        shards.receive(0, publisher, PUBLISH_QOS1);
        let trace = shards.pop(0).unwrap();
        assert_eq!((trace.takers(), trace.queued, trace.offline), (3, 2, 1));
        assert_eq!((trace.sent(), trace.unsent()), (0, 0));
    }

    #[test]
    fn one_in_so_many_is_traced_and_the_first_is() {
        let mut shards = Shards::tracing_one_in(3);
        let publisher = shards.connect(0);
        let traced = [(); 7].map(|()| {
            shards.receive(0, publisher, PUBLISH_QOS0);
            shards.pop(0).is_some()
        });
        assert_eq!(traced, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn beyond_their_bound_traces_are_skipped_and_counted() {
        let mut shards = Shards::tracing_one_in(1);
        let publisher = shards.connect(0);
        shards.receive(0, publisher, &PUBLISH_QOS0.repeat(limits::TRACES_MAX + 3));
        assert_eq!(shards.brokers[0].tracer().unwrap().skipped(), 3);
        assert_eq!(std::iter::from_fn(|| shards.pop(0)).count(), limits::TRACES_MAX);
        shards.receive(0, publisher, PUBLISH_QOS0);
        assert!(shards.pop(0).is_some());
    }

    #[test]
    fn a_trace_ends_without_its_sends_when_its_time_is_up() {
        let mut shards = Shards::tracing_one_in(1);
        let (publisher, slow) = (shards.connect(0), shards.subscribe(0, 0));
        shards.receive(0, publisher, PUBLISH_QOS0);
        let due = T.plus_millis(limits::TRACE_MILLIS_MAX);
        let buffer = shards.brokers[0].take_output(slow);
        let tracer = shards.brokers[0].tracer().unwrap();
        assert_eq!(tracer.next_deadline(), Some(due));
        assert!(tracer.pop(Time::from_millis(due.as_millis() - 1)).is_none());
        let trace = tracer.pop(due).unwrap();
        assert_eq!((trace.sent(), trace.unsent()), (0, 1));
        assert!(trace.stage(Stage::Encode).is_some() && trace.stage(Stage::Total).is_none());
        assert!(tracer.sends.is_empty() && tracer.next_deadline().is_none());
        // Too late: nothing waits for it.
        shards.written(0, slow, buffer);
    }

    #[test]
    fn a_trace_does_not_wait_for_a_connection_that_has_ended() {
        let mut shards = Shards::tracing_one_in(1);
        let publisher = shards.connect(0);
        let [leaving, staying] = [shards.subscribe(0, 0), shards.subscribe(0, 0)];
        shards.receive(0, publisher, PUBLISH_QOS0);
        shards.receive(0, leaving, b"\xe0\0");
        assert!(shards.pop(0).is_none());
        shards.send(0, staying);
        let trace = shards.pop(0).unwrap();
        assert_eq!((trace.takers(), trace.sent(), trace.unsent()), (2, 1, 1));
        assert!(shards.brokers[0].tracer().unwrap().sends.is_empty());
    }
}
