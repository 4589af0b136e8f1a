//! A shard: one pinned executor that drives one [`Broker`] with sockets, lanes and time.
//!
//! The broker decides, the shard acts: it takes turns (`turn`), and sleeps in its ring between them. That is the
//! executor's only task. Everything here except [`Control`] belongs to the shard's thread.
//!
//! - `ring`, `buffers`: the private io_uring (with `sys`, the only unsafe code)
//! - `connections`: the table of sockets; `sockets`: how listeners are bound
//! - `accept`: who comes in; `gate`: what all shards count of them
//! - `layers`: TLS, WebSocket and PROXY headers between sockets and the broker
//! - `traffic`: what happens to a connection; `turn`: in which order everything happens
//! - `disk`: the thread that writes the log
//! - `memory`: how much the process uses; `stalls`: clients that do not read
//! - `auth_pool`, `auth_http`: threads for all shards, which check credentials
//! - `lanes`: channels between shards; `wake`: how other threads wake it; `trace`: log of traced publications

mod accept;
mod auth_http;
mod auth_pool;
mod buffers;
mod connections;
mod disk;
mod gate;
mod lanes;
mod layers;
mod memory;
mod ring;
mod sockets;
mod stalls;
mod storage;
pub(crate) mod sys;
mod trace;
mod traffic;
mod turn;
mod wake;

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use self::{
    connections::Connections,
    lanes::{LaneIn, LaneOut},
    layers::Seam,
    memory::MemoryWatch,
    stalls::StallWatch,
    storage::Storage,
    trace::TraceLog,
    turn::Stage,
    wake::Wake,
};
use crate::{
    auth::acl::Acl,
    base::{ConnId, ShardId, Time, TimeOrigin},
    broker::{Broker, BrokerSetup, Summary},
    config::Bans,
    listener,
    storage::{LogSetup, RecoveredShard},
};

/// For the load generator and the benchmarks of this workspace only: nothing here is a stable interface.
#[doc(hidden)]
pub use self::{
    buffers::Filled,
    disk::{Answer, Disk, DiskSetup, DiskSummary, Job},
    ring::{Event, Received, Ring},
    sys::allowed_cpus,
};

pub(crate) use self::{
    auth_pool::AuthPool,
    disk::{parse_segment_name, segment_path, sync_directory, write_at},
    gate::Gate,
    lanes::LaneEnds,
    memory::MemoryBudget,
    sockets::{SocketFile, Sockets, listen, listen_unix, probe},
};

/// What a shard needs to run. Made on the main thread, used on the shard's.
pub(crate) struct ShardSetup {
    pub(crate) broker: BrokerSetup,
    /// Its sockets, each with what is spoken there.
    pub(crate) listeners: Vec<(OwnedFd, Arc<listener::Listener>)>,
    pub(crate) lanes: LaneEnds,
    pub(crate) clock: Clock,
    /// Whom the process lets in.
    pub(crate) gate: Arc<Gate>,
    pub(crate) control: Arc<Control>,
    /// What bounds the memory of the process, if anything does.
    pub(crate) memory: Option<Arc<MemoryBudget>>,
    /// What checks credentials, for all shards.
    pub(crate) auth: Arc<AuthPool>,
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
    /// These access rules are in force there, by how often they have changed.
    AclInForce(u64),
}

/// How the server tells all shards to stop, and by which rules they go. Shared by all threads.
pub(crate) struct Control {
    stopping: AtomicBool,
    /// Shards that have restored what was in their log, and know that the others know.
    restored: AtomicUsize,
    acl: Changing<Acl>,
    bans: Changing<Bans>,
    wakes: Vec<Arc<Wake>>,
}

/// What may be another value some time. At first there is none.
struct Changing<T> {
    value: Mutex<Option<Arc<T>>>,
    /// How often it has changed.
    version: AtomicU64,
}

impl<T> Default for Changing<T> {
    fn default() -> Self {
        Self { value: Mutex::default(), version: AtomicU64::default() }
    }
}

impl<T> Changing<T> {
    fn set(&self, value: Arc<T>) -> u64 {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.version.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// How often it has changed, and what it is now, if that is more than `seen`.
    fn since(&self, seen: u64) -> Option<(u64, Option<Arc<T>>)> {
        let version = self.version.load(Ordering::Acquire);
        let value = || self.value.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (version != seen).then(|| (version, value()))
    }
}

impl Control {
    /// For this many shards.
    pub(crate) fn new(shards: u16) -> io::Result<Arc<Self>> {
        let wakes = (0..shards).map(|_| Wake::new().map(Arc::new)).collect::<io::Result<_>>()?;
        let (stopping, restored) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (acl, bans) = (Changing::default(), Changing::default());
        Ok(Arc::new(Self { stopping, restored, acl, bans, wakes }))
    }

    /// Has all shards go by these access rules from now on. Returns how often they have changed.
    pub(crate) fn set_acl(&self, acl: Arc<Acl>) -> u64 {
        let version = self.acl.set(acl);
        self.wake_all();
        version
    }

    /// The same with bans.
    pub(crate) fn set_bans(&self, bans: Arc<Bans>) {
        self.bans.set(bans);
        self.wake_all();
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
        self.wakes.iter().for_each(|wake| wake.alarm());
    }

    /// What wakes a shard.
    pub(crate) fn wake(&self, shard: ShardId) -> Arc<Wake> {
        self.wakes[shard.index()].clone()
    }

    /// The lanes between the shards, as each of them needs them.
    pub(crate) fn lanes(&self) -> Vec<LaneEnds> {
        LaneEnds::matrix(&self.wakes)
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

/// Runs a shard on the current thread until it is told to stop and has done so.
///
/// # Errors
/// The ring could not be set up, or failed.
pub(crate) fn run(setup: ShardSetup) -> io::Result<Summary> {
    let mut shard = Shard::new(setup)?;
    let outcome = shard.take_turns();
    shard.stop_disk();
    shard.log_last_traces();
    outcome.map(|()| shard.broker.summary())
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
    /// Where connections are taken from first.
    first_listener: usize,
    wake: Arc<Wake>,
    lanes: Vec<LaneOut>,
    lanes_in: Vec<LaneIn>,
    /// Lanes in that may still bring something before the shard may close its connections.
    lanes_to_flush: Vec<ShardId>,
    gate: Arc<Gate>,
    seam: Seam,
    control: Arc<Control>,
    memory: Option<MemoryWatch>,
    stalls: StallWatch,
    auth: Arc<AuthPool>,
    report: Box<dyn Fn(Milestone) + Send>,
    clock: Clock,
    /// Read once a turn, at its start.
    now: Time,
    turn_started: Instant,
    stage: Stage,
    /// How often the access rules had changed that are in force here.
    acl_version: u64,
    /// The same of bans.
    bans_version: u64,
    /// When the ring's timer fires, if it runs.
    timer: Option<Time>,
    /// When to try again after accept ran out of a resource.
    accept_again: Option<Time>,
    /// Connections whose receive has ended or not begun.
    to_receive: Vec<ConnId>,
    /// The same of those that send much, who take turns.
    to_receive_bulk: VecDeque<ConnId>,
    /// Connections that may have output and have no send in progress.
    to_send: Vec<ConnId>,
    /// Bounds for closing connections, each in the order of its times; an entry whose connection has
    /// moved on means nothing.
    draining: VecDeque<(Time, ConnId)>,
    lingering: VecDeque<(Time, ConnId)>,
    refused: RateLimit,
    faulty: RateLimit,
    accept_failed: RateLimit,
    /// If publications are traced.
    trace_log: Option<Box<TraceLog>>,
}

struct Listener {
    socket: OwnedFd,
    /// What is spoken there.
    rules: Arc<listener::Listener>,
    /// The ring looks whether somebody waits.
    is_watched: bool,
    /// Somebody may wait.
    is_ready: bool,
}

impl Shard {
    fn new(setup: ShardSetup) -> io::Result<Self> {
        let own = setup.broker.shard;
        let LaneEnds { outgoing, incoming } = setup.lanes;
        let listener =
            |(socket, rules)| Listener { socket, rules, is_watched: false, is_ready: false };
        let trace_log = setup.broker.trace.map(|_| Box::new(TraceLog::new(own)));
        let now = setup.clock.now();
        let stalls = StallWatch::new(&setup.broker.policy);
        let (mut broker, storage) = match setup.storage {
            Some(ShardStorage { log, recovered, disk, time_origin }) => (
                Broker::restore(setup.broker, log, recovered, time_origin, now),
                Some(Storage::start(disk)?),
            ),
            None => (Broker::new(setup.broker), None),
        };
        broker.count_users_with(setup.gate.users());
        let wake = setup.control.wake(own);
        let mut ring = Ring::new()?;
        ring.watch(wake.as_raw_fd());
        Ok(Self {
            ring,
            broker,
            own,
            storage,
            connections: Connections::default(),
            listeners: setup.listeners.into_iter().map(listener).collect(),
            first_listener: 0,
            wake,
            lanes: outgoing,
            lanes_to_flush: incoming.iter().map(|lane| lane.from).collect(),
            lanes_in: incoming,
            gate: setup.gate,
            seam: Seam::default(),
            control: setup.control,
            memory: setup.memory.and_then(MemoryWatch::new),
            stalls,
            auth: setup.auth,
            report: setup.report,
            clock: setup.clock,
            now,
            turn_started: Instant::now(),
            stage: Stage::Restoring { is_known: false },
            acl_version: 0,
            bans_version: 0,
            timer: None,
            accept_again: None,
            to_receive: Vec::new(),
            to_receive_bulk: VecDeque::new(),
            to_send: Vec::new(),
            draining: VecDeque::new(),
            lingering: VecDeque::new(),
            refused: RateLimit::default(),
            faulty: RateLimit::default(),
            accept_failed: RateLimit::default(),
            trace_log,
        })
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
