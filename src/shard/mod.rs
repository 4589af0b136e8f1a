//! A shard: one pinned executor that drives one [`Broker`] with sockets, lanes and time.
//!
//! The broker decides, the shard acts. Each shard has one main task, which takes turns (`turn`), and a
//! few long-lived ones that only bring it news: one a lane, and one that hears the ring's eventfd.
//! Everything here except [`Control`] belongs to the shard's thread.
//!
//! - `ring`, `buffers`: the private io_uring (with `sys`, the only unsafe code)
//! - `connections`: the table of sockets; `sockets`: how listeners are bound
//! - `traffic`: what happens to a connection; `turn`: in which order everything happens
//! - `disk`: the thread that writes the log
//! - `lanes`: channels between shards; `bell`: wake-ups between tasks; `trace`: log of traced publications

mod bell;
mod buffers;
mod connections;
mod disk;
mod lanes;
mod ring;
mod sockets;
mod storage;
pub(crate) mod sys;
mod trace;
mod traffic;
mod turn;

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs::File,
    io,
    io::Write,
    net::TcpListener,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use glommio::{Task, channels::shared_channel::SharedReceiver};

use self::{
    bell::Bell,
    connections::Connections,
    lanes::{LaneMessage, LaneOut},
    storage::Storage,
    trace::TraceLog,
    turn::{Next, Stage},
};
use crate::{
    base::{ConnId, ShardId, Time, TimeOrigin},
    broker::{Broker, BrokerSetup, Summary},
    storage::{LogSetup, RecoveredShard},
};

/// For the load generator and the benchmarks of this workspace only: nothing here is a stable interface.
#[doc(hidden)]
pub use self::{
    buffers::Filled,
    disk::{Answer, Disk, DiskSetup, DiskSummary, Job},
    ring::{Event, Received, Ring},
    sys::{allowed_cpus, new_eventfd},
};

pub(crate) use self::{
    connections::ConnectionCount,
    disk::{parse_segment_name, segment_path, sync_directory},
    lanes::LaneEnds,
    sockets::{Listeners, listen, probe},
};

/// What a shard needs to run. Made on the main thread, used on the shard's.
pub(crate) struct ShardSetup {
    pub(crate) broker: BrokerSetup,
    /// One socket for each address.
    pub(crate) listeners: Vec<TcpListener>,
    /// For each of them, whether what comes there is acknowledged before it is on disk.
    pub(crate) relaxed: Vec<bool>,
    pub(crate) lanes: LaneEnds,
    pub(crate) clock: Clock,
    pub(crate) connections: Arc<ConnectionCount>,
    pub(crate) control: Arc<Control>,
    /// What is kept on disk, unless nothing is.
    pub(crate) storage: Option<ShardStorage>,
    /// Called on the shard's thread when it reaches a milestone.
    pub(crate) report: Box<dyn Fn(Milestone) + Send>,
}

/// What a shard needs to keep its state on disk.
pub(crate) struct ShardStorage {
    /// How its log goes on.
    pub(crate) log: LogSetup,
    /// What the log held.
    pub(crate) recovered: RecoveredShard,
    pub(crate) disk: DiskSetup,
    /// What the time of day was when the shards' clock started.
    pub(crate) time_origin: TimeOrigin,
}

/// How far a shard has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Milestone {
    /// It accepts connections.
    Accepting,
    /// At shutdown: everything read by any shard has been handled; connections close now.
    Flushed,
}

/// How the server tells all shards to stop. Shared by all threads.
pub(crate) struct Control {
    stopping: AtomicBool,
    /// Shards that have restored what was in their log, and know that the others know.
    restored: AtomicUsize,
    /// The eventfd of each shard.
    wakes: Vec<Arc<File>>,
}

impl Control {
    /// For this many shards.
    pub(crate) fn new(shards: u16) -> io::Result<Arc<Self>> {
        let wakes = (0..shards).map(|_| sys::new_eventfd()).collect::<io::Result<_>>()?;
        let (stopping, restored) = (AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Arc::new(Self { stopping, restored, wakes }))
    }

    /// Starts the shutdown of all shards.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_all();
    }

    /// One more shard has restored what was in its log. After the last one, all may serve clients.
    fn note_restored(&self) {
        self.restored.fetch_add(1, Ordering::AcqRel);
        if self.all_restored() {
            self.wake_all();
        }
    }

    fn all_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire) == self.wakes.len()
    }

    fn wake_all(&self) {
        for wake in &self.wakes {
            // Fails only if the counter is full, and then the shard is awake already.
            let _ = (&**wake).write(&1_u64.to_ne_bytes());
        }
    }

    /// What wakes a shard when it is written to.
    pub(crate) fn wake(&self, shard: ShardId) -> Arc<File> {
        self.wakes[shard.index()].clone()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Where [`Time`] begins; the same for all shards.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    shown: Time,
}

impl Clock {
    /// A clock that shows this now.
    pub(crate) fn start(shown: Time) -> Self {
        Self { started: Instant::now(), shown }
    }

    fn now(self) -> Time {
        self.time_at(Instant::now())
    }

    fn time_at(self, at: Instant) -> Time {
        let millis = at.saturating_duration_since(self.started).as_millis();
        self.shown.plus_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// Runs a shard on the current executor until it is told to stop and has done so.
///
/// # Errors
/// The ring could not be set up, or failed.
pub(crate) async fn run(mut setup: ShardSetup) -> io::Result<Summary> {
    let bell = Rc::new(Bell::default());
    let wake = setup.control.wake(setup.broker.shard);
    let incoming = setup.lanes.take_incoming();
    let outgoing = std::mem::take(&mut setup.lanes);
    let shard = Rc::new(RefCell::new(Shard::new(setup, &wake, incoming.len())?));

    let mut tasks = vec![glommio::spawn_local(hear_eventfd(wake.try_clone()?, bell.clone()))];
    for (from, receiver) in incoming {
        tasks.push(glommio::spawn_local(hear_lane(from, receiver, shard.clone(), bell.clone())));
    }
    let lanes = outgoing.connect_outgoing(&bell).await;
    shard.borrow_mut().start(lanes);

    let outcome = take_turns(&shard, &bell).await;
    shard.borrow_mut().stop_disk();
    for task in tasks {
        Task::cancel(task).await;
    }
    let mut shard = shard.borrow_mut();
    shard.log_last_traces();
    outcome.map(|()| shard.broker.summary())
}

/// The main task: all I/O of the shard is done here.
async fn take_turns(shard: &RefCell<Shard>, bell: &Bell) -> io::Result<()> {
    let clock = shard.borrow().clock;
    let mut reactor_ran = clock.now();
    loop {
        let (next, now) = {
            let mut shard = shard.borrow_mut();
            (shard.turn()?, shard.now)
        };
        match next {
            // glommio looks at its rings and at the lanes only while no task can run. Waiting for its
            // next look, about once a millisecond, bounds how long a busy shard leaves lanes alone.
            Next::TurnAgain if now != reactor_ran => {
                glommio::timer::sleep(NEXT_REACTOR_RUN).await;
                reactor_ran = now;
            }
            Next::TurnAgain => glommio::executor().yield_now().await,
            Next::Sleep => {
                bell.heard().await;
                reactor_ran = clock.now();
            }
            Next::Stop => return Ok(()),
        }
    }
}

/// Rings the bell whenever the eventfd has been written: by the kernel for the private ring, or by
/// [`Control::stop`].
async fn hear_eventfd(wake: File, bell: Rc<Bell>) {
    let wake = sys::glommio_file(OwnedFd::from(wake));
    loop {
        wake.read_at(0, 8).await.expect("an eventfd can be read");
        bell.ring();
    }
}

/// Applies what another shard sends. It never waits for anything else, so the lane always drains.
async fn hear_lane(
    from: ShardId,
    lane: SharedReceiver<LaneMessage>,
    shard: Rc<RefCell<Shard>>,
    bell: Rc<Bell>,
) {
    let lane = lane.connect().await;
    let mut until_yield = MESSAGES_PER_YIELD;
    while let Some(message) = lane.recv().await {
        shard.borrow_mut().lane_brought(from, message);
        bell.ring();
        until_yield -= 1;
        if until_yield == 0 {
            // A busy sender must not keep the main task from its turn.
            until_yield = MESSAGES_PER_YIELD;
            glommio::executor().yield_now().await;
        }
    }
    shard.borrow_mut().lane_ended(from);
    bell.ring();
}

/// The state of one shard.
struct Shard {
    // First, so that it is dropped before the sockets it works on.
    ring: Ring,
    broker: Broker,
    own: ShardId,
    /// The disk of its log, unless nothing is to outlive the process.
    storage: Option<Storage>,
    connections: Connections,
    listeners: Vec<Listener>,
    lanes: Vec<LaneOut>,
    /// Lanes in that may still bring something before the shard may close its connections.
    lanes_to_flush: Vec<ShardId>,
    count: Arc<ConnectionCount>,
    control: Arc<Control>,
    report: Box<dyn Fn(Milestone) + Send>,
    clock: Clock,
    /// Read once a turn.
    now: Time,
    stage: Stage,
    /// When the ring's timer fires, if it runs.
    timer: Option<Time>,
    /// When to try again after accept ran out of a resource.
    accept_again: Option<Time>,
    /// Connections whose receive has ended or not begun.
    to_receive: Vec<ConnId>,
    /// Connections that may have output and have no send in progress.
    to_send: Vec<ConnId>,
    /// Bounds for closing connections, each in the order of its times; an entry whose connection has
    /// moved on means nothing.
    draining: VecDeque<(Time, ConnId)>,
    lingering: VecDeque<(Time, ConnId)>,
    refused: RateLimit,
    accept_failed: RateLimit,
    /// If publications are traced.
    trace_log: Option<Box<TraceLog>>,
}

struct Listener {
    socket: TcpListener,
    /// See [`ShardSetup::relaxed`].
    is_relaxed: bool,
    /// An accept is in the kernel.
    accepting: bool,
}

impl Shard {
    fn new(setup: ShardSetup, wake: &File, peers: usize) -> io::Result<Self> {
        let own = setup.broker.shard;
        let all = (0..setup.broker.shards).map(ShardId);
        let lanes_to_flush: Vec<ShardId> = all.filter(|shard| *shard != own).collect();
        debug_assert_eq!(lanes_to_flush.len(), peers);
        let listener = |(socket, is_relaxed)| Listener { socket, is_relaxed, accepting: false };
        let trace_log = setup.broker.trace.map(|_| Box::new(TraceLog::new(own)));
        let now = setup.clock.now();
        let (broker, storage) = match setup.storage {
            Some(ShardStorage { log, recovered, disk, time_origin }) => (
                Broker::restore(setup.broker, log, recovered, time_origin, now),
                Some(Storage::start(disk)?),
            ),
            None => (Broker::new(setup.broker), None),
        };
        Ok(Self {
            ring: Ring::new(wake)?,
            broker,
            own,
            storage,
            connections: Connections::default(),
            listeners: setup.listeners.into_iter().zip(setup.relaxed).map(listener).collect(),
            lanes: Vec::new(),
            lanes_to_flush,
            count: setup.connections,
            control: setup.control,
            report: setup.report,
            clock: setup.clock,
            now,
            stage: Stage::Restoring { is_known: false },
            timer: None,
            accept_again: None,
            to_receive: Vec::new(),
            to_send: Vec::new(),
            draining: VecDeque::new(),
            lingering: VecDeque::new(),
            refused: RateLimit::default(),
            accept_failed: RateLimit::default(),
            trace_log,
        })
    }

    fn start(&mut self, lanes: Vec<LaneOut>) {
        self.lanes = lanes;
    }

    /// The sockets have been listening since they were bound: from here on, clients are served.
    fn serve(&mut self) {
        self.broker.start(self.now);
        self.accept_on_all();
        (self.report)(Milestone::Accepting);
    }

    fn accept_on_all(&mut self) {
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            if !listener.accepting {
                listener.accepting = true;
                self.ring.accept(number as u32, listener.socket.as_raw_fd());
            }
        }
    }
}

/// Lets one log line a second through and counts the others.
#[derive(Default)]
struct RateLimit {
    next: Time,
    suppressed: u64,
}

impl RateLimit {
    /// The number of lines left out since the last one, if a line may be written now.
    fn admit(&mut self, now: Time) -> Option<u64> {
        if now < self.next {
            self.suppressed += 1;
            return None;
        }
        self.next = now.plus_secs(1);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Over by the time the reactor looks at its timers, but not before.
const NEXT_REACTOR_RUN: Duration = Duration::from_micros(1);

/// Lane messages applied before other tasks get a chance.
const MESSAGES_PER_YIELD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_is_admitted_and_the_rest_counted() {
        let mut limit = RateLimit::default();
        let at = |millis| Time::from_millis(millis);
        assert_eq!(limit.admit(at(5)), Some(0));
        assert_eq!((limit.admit(at(6)), limit.admit(at(1004))), (None, None));
        assert_eq!(limit.admit(at(1005)), Some(2));
        assert_eq!(limit.admit(at(2005)), Some(0));
    }
}
