//! One thread of the load: its clients, its ring, and what it does on the conductor's orders.
//!
//! A glommio executor pinned to a CPU with a single task. That task owns everything here and waits for
//! nothing but its ring, so it waits in the kernel.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, mpsc},
    time::Duration,
};

use glommio::{LocalExecutorBuilder, Placement};
use ringmq::{
    base::{ConnId, QoS},
    shard::Ring,
    topic::TopicName,
};

use super::{
    channel::{OrderReceiver, OrderSender},
    orders::{News, Order, Standing, ThreadSecond, Whom},
    peer::{Doing, Peer},
    sockets::Route,
};
use crate::{
    client::{ClientError, Payload, Setup, Template},
    clock::{Clock, SECOND},
    machine::{self, ThreadCpu},
    pace::{Duty, Pacer, Settled},
    plan::{Plan, Role, Streams},
    record::Record,
    result::LatencyName,
    scenario::{Attendance, Pace, Scenario},
    transport::{TransportError, TransportSetup},
};

/// What a thread needs to make its part of the load.
pub(super) struct ThreadSetup {
    /// Which of `threads` this one is, those of other workers included.
    pub(super) number: usize,
    pub(super) threads: usize,
    /// The first of this process, and the way to each of its threads.
    pub(super) first: usize,
    pub(super) siblings: Vec<OrderSender>,
    pub(super) orders: OrderReceiver,
    pub(super) news: mpsc::Sender<(usize, News)>,
    pub(super) cpu: Option<usize>,
    /// Never sleeps.
    pub(super) spins: bool,
    pub(super) clock: Clock,
    pub(super) plan: Arc<Plan>,
    pub(super) scenario: Arc<Scenario>,
    pub(super) client: Arc<Setup>,
    /// The same for clients whose sessions outlive their connections.
    pub(super) kept: Arc<Setup>,
    pub(super) route: Arc<Route>,
    pub(super) transport: TransportSetup,
    pub(super) settled: Settled,
    /// Tells this run's messages from others'.
    pub(super) tag: u16,
    /// The payload of all messages, if they are not to be stamped.
    pub(super) payload: Option<Arc<[u8]>>,
}

/// What ends a thread's work before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{client}: {error}")]
    Client { client: String, error: ClientError },
    #[error("{client}: the broker closed the connection")]
    Closed { client: String },
    #[error("{client}: {error}{}", super::sockets::hint(error))]
    Socket { client: String, error: io::Error },
    #[error("{client}: {error}")]
    Layer { client: String, error: Box<TransportError> },
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Connect(#[from] super::sockets::ConnectError),
    #[error("the broker is millions of messages behind the schedule")]
    Behind,
    #[error("the ring failed: {0}")]
    Ring(#[from] io::Error),
    #[error("cannot run on CPU {cpu}: {reason}")]
    Executor { cpu: usize, reason: String },
}

/// Runs a thread of the load until it is told to leave, or something breaks. Its last news is
/// [`News::Ended`].
pub(super) fn run(setup: ThreadSetup) {
    let (number, news) = (setup.number, setup.news.clone());
    let placement = setup.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(EXECUTOR_IO_BYTES)
        .preempt_timer(PREEMPT_AFTER)
        .make();
    let outcome = match executor {
        Err(error) => {
            Err(Failure::Executor { cpu: setup.cpu.unwrap_or(0), reason: error.to_string() })
        }
        Ok(executor) => executor.run(async { Thread::new(setup).map(Thread::live) }),
    };
    if let Err(failure) = outcome {
        // The receiver is gone only if nobody wants to know any more.
        let _ = news.send((number, News::Failed(failure.to_string())));
        let _ = news.send((number, News::Ended(Box::default())));
    }
}

pub(super) struct Thread {
    // First, so that it is dropped before the sockets it works on.
    pub(super) ring: Ring,
    pub(super) setup: ThreadSetup,
    pub(super) clock: Clock,
    pub(super) plan: Arc<Plan>,
    /// The clients, in ascending order of their numbers; the place is the slot of the [`ConnId`].
    pub(super) peers: Vec<Peer>,
    /// By publisher's place on the thread.
    pub(super) publishers: Vec<Publisher>,
    /// Deliveries not to be expected: of messages that the broker refused.
    pub(super) refused: u64,
    pub(super) streams: Streams,
    pub(super) pacer: Pacer,
    pub(super) record: Record,
    pub(super) delivery: LatencyName,
    /// From here on deliveries count that waited for a subscriber, and the time of its return.
    pub(super) returned: Option<u64>,
    pub(super) phase: Phase,
    /// Clients yet to be connected, in the order of their places.
    pub(super) to_connect: VecDeque<u32>,
    pub(super) connect_from: u64,
    pub(super) connects_started: u64,
    /// Connecting at the moment.
    pub(super) connecting: usize,
    pub(super) ready: usize,
    /// Told to disconnect, and still connected.
    pub(super) leaving: usize,
    /// Publishers, by place, that may have a message to send.
    pub(super) to_publish: Vec<u32>,
    /// Slots that may have bytes to send.
    pub(super) to_send: Vec<u32>,
    /// What layers between socket and client make of received bytes.
    pub(super) plain: Vec<u8>,
    /// For each thread of this process: publishers whose window may have opened.
    pub(super) opened: Vec<Vec<u32>>,
    next_second: u64,
    seconds: u64,
    standing: Option<Standing>,
    cpu: ThreadCpu,
    /// Time in the kernel without work to do.
    pub(super) waited: u64,
    measured: Measured,
    has_published: bool,
    is_over: bool,
}

/// A publisher of the thread.
pub(super) struct Publisher {
    pub(super) number: u32,
    pub(super) slot: u32,
    pub(super) template: Template,
}

/// What the thread is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing, or connecting.
    Waiting,
    Loading,
    /// Sending what was due, and receiving.
    Draining,
    /// The connections may end.
    Leaving,
}

/// The thread's own effort at the borders of the measured time.
#[derive(Default)]
struct Measured {
    from: Option<(u64, u64, u64)>,
    done: bool,
}

impl Thread {
    fn new(setup: ThreadSetup) -> Result<Self, Failure> {
        let plan = setup.plan.clone();
        machine::wake_on_time();
        let (scenario, clock) = (setup.scenario.clone(), setup.clock);
        let clients = plan.clients_of(setup.number, setup.threads);
        let mut publishers = Vec::new();
        for (slot, number) in clients.iter().enumerate() {
            if let Role::Publisher(number) = plan.role(*number) {
                let template = template(&setup, &scenario, &plan, number);
                publishers.push(Publisher { number, slot: slot as u32, template });
            }
        }
        let waits = scenario.attendance == Attendance::Present;
        let duties = publishers.iter().map(|one| Duty {
            publisher: one.number,
            messages: scenario.messages_of(one.number),
            awaited: if waits { plan.takers(one.number) } else { 0 },
        });
        let pacer = Pacer::new(scenario.pace, duties, setup.settled.clone());
        let streams = plan.streams(&clients);
        let ring = Ring::new()?;
        let taker = |role| match role {
            Role::Subscriber(number) => plan.taker(number),
            _ => 0,
        };
        let peers = clients.iter().map(|number| {
            let role = plan.role(*number);
            Peer::new(*number, role, taker(role))
        });
        let mut thread = Self {
            ring,
            clock,
            peers: peers.collect(),
            publishers,
            refused: 0,
            record: Record::new(streams.count),
            streams,
            pacer,
            delivery: match scenario.attendance {
                Attendance::Present => LatencyName::PublishToDelivery,
                Attendance::Late | Attendance::Away => LatencyName::ReturnToDelivery,
            },
            returned: None,
            phase: Phase::Waiting,
            to_connect: VecDeque::new(),
            connect_from: 0,
            connects_started: 0,
            connecting: 0,
            ready: 0,
            leaving: 0,
            to_publish: Vec::new(),
            to_send: Vec::new(),
            plain: Vec::new(),
            opened: setup.siblings.iter().map(|_| Vec::new()).collect(),
            next_second: SECOND,
            seconds: 0,
            standing: None,
            cpu: ThreadCpu::open(),
            waited: 0,
            measured: Measured::default(),
            has_published: false,
            is_over: false,
            plan,
            setup,
        };
        thread.rearm_wake();
        Ok(thread)
    }

    fn live(mut self) {
        if let Err(failure) = self.follow_orders() {
            self.tell(News::Failed(failure.to_string()));
            self.phase = Phase::Leaving;
        }
        self.finish_measuring();
        self.end_sessions();
        self.end();
    }

    fn follow_orders(&mut self) -> Result<(), Failure> {
        while !self.is_over {
            while let Some(order) = self.setup.orders.next() {
                self.obey(order)?;
            }
            let wake_at = self.next_wake();
            self.turn(wake_at)?;
            self.look_at_the_clock();
            if self.pacer.is_hopeless() {
                return Err(Failure::Behind);
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Connect { whom, at_unix_us } => {
                self.connect_from = self.clock.of_unix_us(at_unix_us);
                if self.setup.scenario.measures_connecting() {
                    self.start_measuring(self.clock.now());
                }
                self.start_connecting(whom);
                self.tell_if_ready();
            }
            Order::Load { start_unix_us, measure_unix_us, end_unix_us } => {
                let [start, measure, end] = [start_unix_us, measure_unix_us, end_unix_us]
                    .map(|at| self.clock.of_unix_us(at));
                self.finish_measuring();
                self.record.window = measure..end;
                let seed = u64::from(self.setup.tag) << 32 | self.setup.number as u64;
                self.pacer.start(start, end, self.plan.publishers, seed);
                self.phase = Phase::Loading;
                if self.plan.publishers > 0 {
                    self.next_second = start + SECOND;
                }
            }
            Order::MayPublish(numbers) => {
                let threads = self.setup.threads as u32;
                // Publishers of a thread are every `threads`th.
                self.to_publish.extend(numbers.iter().map(|number| number / threads));
            }
            Order::Drain => {
                let now = self.clock.now();
                self.pacer.stop(now);
                self.finish_measuring();
                let Range { start, end } = self.record.window;
                self.record.window = start..end.min(now.max(start));
                self.phase = Phase::Draining;
                self.standing = None;
            }
            Order::Part => self.part(|role| matches!(role, Role::Subscriber(_))),
            Order::Leave => {
                self.phase = Phase::Leaving;
                let inflight = |one: &Publisher| self.peers[one.slot as usize].inflight() as u64;
                self.record.tally.counts.unacknowledged =
                    self.publishers.iter().map(inflight).sum();
                self.part(|_| true);
                self.say_goodbye()?;
                self.is_over = true;
            }
        }
        Ok(())
    }

    /// Begins to connect some of the clients: subscribers that have been there come back.
    fn start_connecting(&mut self, whom: Whom) {
        let back = whom == Whom::Subscribers;
        if back {
            self.returned = Some(self.connect_from);
            // What waited for the subscribers is measured from their return.
            self.record.window = self.connect_from..u64::MAX;
            self.start_measuring(self.clock.now());
        }
        let wanted = |role: Role| match whom {
            Whom::Everybody => true,
            Whom::Publishers => !matches!(role, Role::Subscriber(_)),
            Whom::Subscribers => matches!(role, Role::Subscriber(_)),
        };
        self.connects_started = 0;
        let slots = self.peers.iter().enumerate().filter(|(_, peer)| wanted(peer.role));
        self.to_connect = slots.map(|(slot, _)| slot as u32).collect();
        self.ready = self.peers.iter().filter(|peer| peer.doing == Doing::Ready).count();
    }

    pub(super) fn part(&mut self, whom: impl Fn(Role) -> bool) {
        for (slot, peer) in self.peers.iter_mut().enumerate() {
            if whom(peer.role) && peer.disconnect() {
                self.leaving += 1;
                self.to_send.push(slot as u32);
            }
        }
        self.tell_if_ready();
    }

    /// Tells the conductor when there is nothing left of what it ordered.
    pub(super) fn tell_if_ready(&mut self) {
        let is_done = self.to_connect.is_empty() && self.connecting == 0 && self.leaving == 0;
        if self.phase != Phase::Leaving && is_done {
            self.tell(News::Ready);
        }
    }

    /// Waits until all bytes are sent. The result is known: what clients meet here does not matter.
    fn say_goodbye(&mut self) -> Result<(), Failure> {
        let deadline = self.clock.now() + GOODBYE_MAX;
        while self.peers.iter().any(Peer::is_sending) && self.clock.now() < deadline {
            self.turn(deadline)?;
        }
        Ok(())
    }

    fn end(&mut self) {
        self.tell_second();
        self.tell_standing();
        self.record.tally.counts.unsent = self.pacer.unsent();
        let tally = std::mem::take(&mut self.record.tally);
        self.tell(News::Ended(Box::new(tally)));
    }

    /// When there is something to do again, whatever arrives.
    fn next_wake(&self) -> u64 {
        let mut at = self.next_second;
        if self.phase == Phase::Loading {
            at = at.min(self.pacer.next_due().unwrap_or(u64::MAX));
            let Record { window, .. } = &self.record;
            if self.measured.from.is_none() {
                at = at.min(window.start);
            } else if !self.has_published {
                at = at.min(window.end);
            }
        }
        if self.phase == Phase::Draining {
            at = at.min(self.clock.now() + LOOK_EVERY);
        }
        at.min(self.next_connect().unwrap_or(u64::MAX))
    }

    fn look_at_the_clock(&mut self) {
        let now = self.clock.now();
        let window = self.record.window.clone();
        if self.phase == Phase::Loading {
            if now >= window.start && self.measured.from.is_none() {
                self.start_measuring(now);
            }
            let has_nothing = self.plan.publishers > 0 && self.pacer.is_finished();
            if !self.has_published && (now >= window.end || has_nothing) {
                self.has_published = true;
                self.tell(News::Published);
            }
            if now >= window.end {
                self.finish_measuring();
            }
        }
        if self.phase == Phase::Draining {
            self.tell_standing();
        }
        if now >= self.next_second {
            self.next_second += SECOND * ((now - self.next_second) / SECOND + 1);
            self.each_second();
        }
    }

    fn each_second(&mut self) {
        self.seconds += 1;
        self.tell_second();
        let every = u64::from(self.setup.client.keep_alive_secs).div_ceil(2);
        if let Some(place) = self.seconds.checked_rem(every) {
            let slots = (place as usize..self.peers.len()).step_by(every as usize);
            for slot in slots {
                if self.peers[slot].ping() {
                    self.to_send.push(slot as u32);
                }
            }
        }
        let window = matches!(self.setup.scenario.pace, Pace::Window(_));
        if self.setup.client.qos == QoS::AtMostOnce && window && self.phase == Phase::Loading {
            let to_publish = &mut self.to_publish;
            self.pacer.give_up_stalled(|place| to_publish.push(place as u32));
        }
    }

    fn tell_second(&mut self) {
        let latency = self.record.take_second(self.delivery);
        let counts = &self.record.tally.counts;
        self.tell(News::Second(Box::new(ThreadSecond {
            connected: counts.connected,
            sent: counts.sent,
            delivered: counts.delivered,
            latency,
        })));
    }

    fn tell_standing(&mut self) {
        let inflight: usize =
            self.publishers.iter().map(|one| self.peers[one.slot as usize].unacknowledged()).sum();
        let sent = self.pacer.expected(|publisher| self.plan.takers(publisher));
        let standing = Standing {
            expected: sent.saturating_sub(self.refused),
            delivered: self.record.tally.counts.delivered,
            unacknowledged: self.pacer.unsent() + inflight as u64,
        };
        if self.standing != Some(standing) {
            self.standing = Some(standing);
            self.tell(News::Standing(standing));
        }
    }

    fn start_measuring(&mut self, now: u64) {
        self.measured = Measured { from: Some((now, self.cpu.nanos(), self.waited)), done: false };
    }

    fn finish_measuring(&mut self) {
        if let Some((from, cpu, waited)) = self.measured.from
            && !std::mem::replace(&mut self.measured.done, true)
        {
            let wall = self.clock.now().saturating_sub(from).max(1);
            self.record.tally.cpu_nanos = self.cpu.nanos().saturating_sub(cpu);
            self.record.tally.busy = 1.0 - (self.waited - waited) as f64 / wall as f64;
        }
    }

    pub(super) fn rearm_wake(&mut self) {
        self.ring.receive(WAKE, self.setup.orders.woken_fd());
    }

    pub(super) fn tell(&self, news: News) {
        // The conductor is gone only if nobody wants to know any more.
        let _ = self.setup.news.send((self.setup.number, news));
    }

    pub(super) fn name(&self, slot: usize) -> String {
        self.plan.client_id(self.peers[slot].number)
    }
}

fn template(setup: &ThreadSetup, scenario: &Scenario, plan: &Plan, publisher: u32) -> Template {
    let (topic, message_at) = plan.topic(publisher);
    let topic = TopicName::parse(&topic).expect("plans make valid topics");
    let payload = match &setup.payload {
        Some(bytes) => Payload::Fixed(bytes),
        None => Payload::Stamped(scenario.payload_bytes),
    };
    Template::new(&setup.client, scenario.retain, topic, message_at, payload)
}

/// The socket that tells of orders; no client has this slot.
pub(super) const WAKE: ConnId = ConnId { slot: u32::MAX, generation: 0 };

/// How often a drain looks at what is missing.
const LOOK_EVERY: u64 = SECOND / 50;

/// Time for the last bytes of all clients.
const GOODBYE_MAX: u64 = 2 * SECOND;

/// Memory the executor sets aside for file I/O; the smallest that glommio takes.
const EXECUTOR_IO_BYTES: usize = 64 * 1024;

/// Never: there is only one task, so nothing is to be preempted for.
const PREEMPT_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
