//! The run itself: one pinned executor, one ring, all connections; the order in which things happen.
//!
//! With `turn` the only module that reads the clock and touches the ring. What a packet means is
//! `client`'s to know, when a message is due `pace`'s, what came of it `record`'s.

mod turn;

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use glommio::{LocalExecutorBuilder, Placement, io::BufferedFile};
use ringmq::{
    base::{ConnId, QoS},
    shard::{Ring, glommio_file},
    topic::TopicName,
};

use crate::{
    client::{Client, ClientError, Setup, Template},
    interrupt::Interrupt,
    machine,
    options::Options,
    pace::{Pace, Pacer},
    record::Record,
    report::LiveLine,
    sockets::{self, ConnectError, Connection},
};

/// What a run has found.
pub(crate) struct Outcome {
    pub(crate) record: Record,
    pub(crate) ended: Ended,
    /// CPU time of this process during the load, and how long that was.
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

/// How the load came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    Complete,
    Interrupted,
    Failed(Failure),
}

impl Ended {
    /// Whether something broke.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// What ends a run before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{client}: {error}")]
    Client { client: String, error: ClientError },
    #[error("{client}: the broker closed the connection")]
    Closed { client: String },
    #[error("{client}: {error}")]
    Socket { client: String, error: io::Error },
    #[error("the ring failed: {0}")]
    Ring(#[from] io::Error),
}

/// Why there is no result at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("before the load began: {0}")]
    Failed(#[from] Failure),
    #[error("{ready} of {clients} clients connected and subscribed, the others got no answer")]
    NotReady { ready: usize, clients: usize },
    #[error("interrupted before the load began")]
    Interrupted,
    #[error("cannot run{on}: {reason}", on = .cpu.map_or(String::new(), |cpu| format!(" on CPU {cpu}")))]
    Executor { cpu: Option<usize>, reason: String },
}

/// Connects, runs the load, disconnects.
///
/// # Errors
/// The load did not begin. What happens later is part of the outcome.
pub(crate) fn run(options: &Options, interrupt: &Interrupt) -> Result<Outcome, RunError> {
    let executor =
        LocalExecutorBuilder::new(options.cpu.map_or(Placement::Unbound, Placement::Fixed))
            .io_memory(EXECUTOR_IO_BYTES)
            .preempt_timer(PREEMPT_AFTER)
            .make();
    let executor = executor
        .map_err(|error| RunError::Executor { cpu: options.cpu, reason: error.to_string() })?;
    executor.run(async {
        let mut run = Run::new(options, interrupt)?;
        run.until_ready().await?;
        Ok(run.load().await)
    })
}

struct Run<'a> {
    // First, so that it is dropped before the sockets it works on.
    ring: Ring,
    /// The eventfd that the ring and Ctrl-C write to.
    wake: BufferedFile,
    options: &'a Options,
    interrupt: &'a Interrupt,
    clock: Instant,
    /// Publishers, then subscribers; the place is the slot of the [`ConnId`].
    connections: Vec<Connection>,
    templates: Vec<Template>,
    pacer: Pacer,
    record: Record,
    live: LiveLine,
    ready: usize,
    /// The connections may end.
    leaving: bool,
    /// Publishers that may have a message to send.
    to_publish: Vec<u32>,
    /// Connections that may have bytes to send.
    to_send: Vec<u32>,
    /// When the ring's timer fires, if it runs.
    timer: Option<u64>,
}

impl<'a> Run<'a> {
    /// Opens all connections and prepares their CONNECTs.
    fn new(options: &'a Options, interrupt: &'a Interrupt) -> Result<Self, RunError> {
        let plan = &options.plan;
        let clients = plan.publishers + plan.subscribers;
        let address = sockets::resolve(&options.host, options.port)?;
        let mut connections = Vec::with_capacity(clients as usize);
        for number in 0..clients {
            let client = Client::new(setup(options, number));
            connections.push(Connection::open(&address, client)?);
        }
        let template = |publisher| {
            let topic = plan.topic(publisher);
            let topic = TopicName::parse(&topic).expect("plans make valid topics");
            Template::new(options.version, options.qos, topic, options.payload_bytes)
        };
        let wake = interrupt.wake().try_clone().map_err(Failure::Ring)?;
        let mut run = Self {
            ring: Ring::new(&wake).map_err(Failure::Ring)?,
            wake: glommio_file(OwnedFd::from(wake)),
            options,
            interrupt,
            clock: Instant::now(),
            connections,
            templates: (0..plan.publishers).map(template).collect(),
            pacer: Pacer::new(options.pace, plan.publishers, plan.takers()),
            record: Record::new(options.qos, plan.streams() as usize, 0..0),
            live: LiveLine::default(),
            ready: 0,
            leaving: false,
            to_publish: Vec::new(),
            to_send: (0..clients).collect(),
            timer: None,
        };
        for (slot, connection) in run.connections.iter().enumerate() {
            run.ring.receive(conn_id(slot), connection.raw_fd());
        }
        Ok(run)
    }

    /// Waits until all clients are connected and subscribed.
    async fn until_ready(&mut self) -> Result<(), RunError> {
        let clients = self.connections.len();
        let (mut ready, mut deadline) = (0, self.now() + PATIENCE);
        while self.ready < clients {
            if self.interrupt.is_asked() {
                return Err(RunError::Interrupted);
            }
            if self.ready > ready {
                (ready, deadline) = (self.ready, self.now() + PATIENCE);
            }
            if self.now() >= deadline {
                return Err(RunError::NotReady { ready, clients });
            }
            self.turn(deadline).await?;
        }
        Ok(())
    }

    /// Warms up, measures, waits for what is on its way, and says goodbye.
    async fn load(mut self) -> Outcome {
        let start = self.now();
        let from = start + nanos(self.options.warm);
        self.record.window = from..from + nanos(self.options.measure);
        self.pacer.start(start, self.record.window.end);
        let cpu_before = machine::cpu_time();
        let published = self.publish_until(self.record.window.end).await;
        let end = self.now();
        let (cpu, wall) = (machine::cpu_time() - cpu_before, Duration::from_nanos(end - start));
        let cut = end < self.record.window.end;
        let drained = match published {
            Ok(()) => self.drain().await,
            Err(failure) => Err(failure),
        };
        let expected = self.record.counts.sent * self.options.plan.takers();
        self.record.counts.unsent = self.pacer.unsent();
        self.record.finish(expected, drained.is_ok(), end);
        let ended = match drained {
            Err(failure) => Ended::Failed(failure),
            Ok(()) => {
                self.goodbye().await;
                if cut { Ended::Interrupted } else { Ended::Complete }
            }
        };
        Outcome { record: self.record, ended, cpu, wall }
    }

    async fn publish_until(&mut self, end: u64) -> Result<(), Failure> {
        self.to_publish.extend(0..self.options.plan.publishers);
        let mut next_second = self.now() + SECOND;
        while self.now() < end && !self.interrupt.is_asked() {
            if self.now() >= next_second {
                self.each_second();
                next_second += SECOND;
            }
            let wake_at = end.min(next_second).min(self.pacer.next_due().unwrap_or(u64::MAX));
            self.turn(wake_at).await?;
        }
        self.pacer.stop(self.now());
        Ok(())
    }

    fn each_second(&mut self) {
        self.live.print(&mut self.record);
        let second = self.live.seconds();
        let clients = self.connections.len();
        for slot in (second % PING_EVERY_SECS..clients).step_by(PING_EVERY_SECS) {
            self.connections[slot].client.ping();
            self.to_send.push(slot as u32);
        }
        if self.options.qos == QoS::AtMostOnce && matches!(self.options.pace, Pace::Window(_)) {
            self.pacer.give_up_stalled(|publisher| self.to_publish.push(publisher));
        }
    }

    /// Sends what was due, and waits for deliveries and acknowledgements as long as any arrive.
    async fn drain(&mut self) -> Result<(), Failure> {
        let (mut left, mut deadline) = (u64::MAX, 0);
        loop {
            let inflight = self.connections.iter().map(|one| one.client.inflight() as u64);
            let now_left = self.pacer.unsettled() + self.pacer.unsent() + inflight.sum::<u64>();
            if now_left != left {
                (left, deadline) = (now_left, self.now() + DRAIN_PATIENCE);
            }
            if left == 0 || self.now() >= deadline {
                return Ok(());
            }
            // Looks at all clients, so not after each turn of a busy drain.
            let look_again = self.now() + DRAIN_LOOK;
            while self.now() < look_again {
                self.turn(look_again).await?;
            }
        }
    }

    /// Sends a DISCONNECT on each connection. The result is known: nothing that happens here matters.
    async fn goodbye(&mut self) {
        self.leaving = true;
        for (slot, connection) in self.connections.iter_mut().enumerate() {
            connection.client.disconnect();
            self.to_send.push(slot as u32);
        }
        let deadline = self.now() + DRAIN_PATIENCE;
        let busy = |one: &Connection| one.sending || one.client.has_output();
        while self.connections.iter().any(busy) && self.now() < deadline {
            if self.turn(deadline).await.is_err() {
                return;
            }
        }
    }
}

fn setup(options: &Options, number: u32) -> Setup {
    let plan = &options.plan;
    Setup {
        version: options.version,
        qos: options.qos,
        client_id: plan.client_id(number),
        filter: number.checked_sub(plan.publishers).map(|subscriber| plan.filter(subscriber)),
        inflight_max: match options.pace {
            Pace::Window(window) => u16::try_from(window).unwrap_or(u16::MAX),
            Pace::Rate(_) => u16::MAX,
        },
        packet_bytes_max: options.payload_bytes as u32 + PACKET_BYTES_EXTRA,
    }
}

fn conn_id(slot: usize) -> ConnId {
    ConnId { slot: slot as u32, generation: 0 }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const SECOND: u64 = 1_000_000_000;

/// Time without any client becoming ready after which the others are not waited for.
const PATIENCE: u64 = 10 * SECOND;

/// Time without any arrival after which missing messages are lost.
const DRAIN_PATIENCE: u64 = 2 * SECOND;

/// How often the drain looks at what is missing.
const DRAIN_LOOK: u64 = SECOND / 50;

/// Each client sends a PINGREQ this often.
const PING_EVERY_SECS: usize = 30;

/// Room in a packet for everything that is not payload.
const PACKET_BYTES_EXTRA: u32 = 256 * 1024;

/// Memory the executor sets aside for file I/O; the smallest that glommio takes.
const EXECUTOR_IO_BYTES: usize = 64 * 1024;

/// Never: there is only one task, so nothing is to be preempted for.
const PREEMPT_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
