//! The composition root: binds listeners, places shards on CPUs, joins them with lanes, and takes
//! them down again. Runs on the main thread; knows no protocol and touches no connection.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use glommio::{LocalExecutorBuilder, Placement};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::{Handle, Signals},
    low_level::signal_name,
};
use tracing::{error, info, warn};

use crate::{
    auth::acl::Acl,
    base::{ListenerId, ShardId, Time, TimeOrigin, WallTime},
    broker::{BrokerSetup, Summary, TraceSetup},
    certificates::Certificates,
    config::{self, AclRules, Bans, Config, Sources},
    data_dir::{DataDir, DataDirError, Layout},
    listener::{Listener, TlsFault},
    privileges,
    shard::{
        self, AuthPool, Clock, Control, DiskSetup, Gate, LaneEnds, MemoryBudget, Milestone,
        ShardSetup, ShardStorage, SocketFile, Sockets, sys,
    },
    storage::{LogSetup, RecoveredShard},
};

/// Why the server did not start, or ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on; the operator's to change.
    #[error("{address} {}", listen_problem(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A unix socket cannot be listened on; the operator's to change.
    #[error("unix:{} {}", path.display(), listen_problem(source))]
    ListenUnix {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The files of a TLS listener are of no use; the operator's to change.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// No address is left to listen on.
    #[error("no address to listen on")]
    NoAddress,
    /// What is kept on disk cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A resource of the process could not be had.
    #[error("cannot start: {0}")]
    Setup(#[from] io::Error),
    /// A shard could not go on, and the server cannot without it.
    #[error("shard {shard} failed: {reason}")]
    ShardFailed {
        /// Which one.
        shard: ShardId,
        /// The error or panic message.
        reason: String,
    },
}

/// Runs the broker until SIGTERM or SIGINT has ended it in order.
///
/// A second signal ends the process at once with code 1. SIGHUP has access rules and certificates read
/// again, and the bans of `sources`; SIGPIPE is ignored by default.
///
/// # Errors
/// See [`ServerError`]. After [`ServerError::ShardFailed`] other shards may still run, so the caller
/// should end the process.
pub fn run(config: Config, sources: &Sources) -> Result<(), ServerError> {
    let bans = BanSource { sources: sources.clone(), bans: config.policy.bans.clone() };
    let server = Server { bans: Some(bans), ..Server::start(config)? };
    let watch = watch_signals(server.events.clone())?;
    let outcome = server.supervise();
    watch.close();
    outcome
}

/// A running broker.
pub struct Server {
    addresses: Vec<SocketAddr>,
    /// Deleted when the server is told to stop.
    socket_files: Vec<SocketFile>,
    certificates: Certificates,
    control: Arc<Control>,
    /// Keeps others from the data directory until the shards have ended.
    data_dir: Option<DataDir>,
    acl: Option<AclSource>,
    bans: Option<BanSource>,
    shards: Vec<JoinHandle<()>>,
    events: Sender<Event>,
    incoming: Receiver<Event>,
}

/// Where access rules come from, and which are in force.
struct AclSource {
    file: PathBuf,
    allows_rest: bool,
    /// How often they have changed, and how many shards go by the last ones.
    version: u64,
    shards: usize,
}

/// Where bans come from, and which are in force.
struct BanSource {
    sources: Sources,
    bans: Arc<Bans>,
}

/// What the main thread waits for.
enum Event {
    Reached(Milestone),
    Ended(ShardId, Result<Box<Summary>, String>),
    StopRequested(String),
    ReloadRequested,
}

impl Server {
    /// Recovers what is kept on disk, binds all addresses, then starts the shards.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start(config: Config) -> Result<Self, ServerError> {
        let start = Start::now();
        let kept = (!config.ephemeral).then(|| Kept::open(&config, start.origin)).transpose()?;
        let mut certificates = Certificates::default();
        let Bound { addresses, sockets, socket_files } = bind_all(&config, &mut certificates)?;
        privileges::give_up()?;
        let shards = config.shards.get() as u16;
        let control = Control::new(shards)?;
        let (events, incoming) = channel();
        let (data_dir, logs) = kept.map(|kept| (kept.directory, kept.logs)).unzip();
        let mut server = Self {
            addresses,
            socket_files,
            certificates,
            control,
            data_dir,
            acl: None,
            bans: None,
            shards: Vec::new(),
            events,
            incoming,
        };
        server.acl = config.acl.clone().map(|rules| server.put_in_force(rules));
        let setups = server.setups(&config, sockets, start, logs.unwrap_or_default())?;
        for (setup, placement) in setups.into_iter().zip(placements(config.shards.get())?) {
            let shard = start_shard(setup, placement, server.events.clone())?;
            server.shards.push(shard);
        }
        Ok(server)
    }

    /// The addresses clients can connect to, with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A function that asks the server to end, as a signal does; for any thread.
    pub fn stopper(&self) -> impl Fn(&str) + Send + 'static {
        let events = self.events.clone();
        // An error means that it has ended.
        move |reason| drop(events.send(Event::StopRequested(reason.to_owned())))
    }

    /// Waits for the end of the server.
    ///
    /// # Errors
    /// [`ServerError::ShardFailed`].
    pub fn supervise(mut self) -> Result<(), ServerError> {
        let (mut accepting, mut flushed, mut ended) = (0, 0, 0);
        while ended < self.shards.len() {
            match self.next_event() {
                Ok(Event::Reached(Milestone::Accepting)) => {
                    accepting += 1;
                    if accepting == self.shards.len() {
                        info!("ready");
                    }
                }
                Ok(Event::Reached(Milestone::AclInForce(version))) => self.note_acl(version),
                Ok(Event::ReloadRequested) => self.reload(),
                Ok(Event::StopRequested(reason)) => {
                    info!("stopping ({reason}): no more connections or input are taken");
                    self.socket_files.clear();
                    self.control.stop();
                }
                Err(RecvTimeoutError::Timeout) => self.certificates.reload_changed(),
                Ok(Event::Reached(Milestone::Flushed)) => {
                    flushed += 1;
                    if flushed == self.shards.len() {
                        info!("all input is handled: closing connections");
                    }
                }
                Ok(Event::Ended(shard, Ok(summary))) => {
                    info!("shard {shard} has ended: {summary}");
                    ended += 1;
                }
                Ok(Event::Ended(shard, Err(reason))) => {
                    return Err(ServerError::ShardFailed { shard, reason });
                }
                // Not reached: `events` is one of the senders.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for shard in std::mem::take(&mut self.shards) {
            // Its end was reported above, panics included.
            let _ = shard.join();
        }
        info!("stopped");
        Ok(())
    }

    /// What comes next; a timeout now and then if there are files to look at.
    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        match self.certificates.is_empty() {
            true => self.incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => self.incoming.recv_timeout(CERTIFICATES_LOOK_EVERY),
        }
    }

    /// Has all shards go by these rules.
    fn put_in_force(&self, rules: AclRules) -> AclSource {
        info!("{} access rules from {}", rules.rules.len(), rules.file.display());
        let (file, allows_rest) = (rules.file.clone(), rules.allows_rest);
        let version = self.control.set_acl(Arc::new(Acl::new(rules)));
        AclSource { file, allows_rest, version, shards: 0 }
    }

    /// Reads again what can be. If something is wrong with it, the old stays.
    fn reload(&mut self) {
        info!(
            "SIGHUP: reading again the bans, and access rules and certificates where there are files"
        );
        self.certificates.reload();
        self.reload_acl();
        self.reload_bans();
    }

    fn reload_bans(&mut self) {
        let Some(BanSource { sources, bans }) = &mut self.bans else { return };
        match Config::load_bans(sources) {
            Ok(read) if read == **bans => {}
            Ok(read) => {
                info!("{} bans from now on", read.len());
                *bans = Arc::new(read);
                self.control.set_bans(bans.clone());
            }
            Err(errors) => {
                errors.iter().for_each(|problem| error!("{problem}"));
                error!("the bans stay as they were");
            }
        }
    }

    fn reload_acl(&mut self) {
        let Some(AclSource { file, allows_rest, .. }) = &self.acl else { return };
        match Config::load_acl(file, *allows_rest) {
            Ok(rules) => self.acl = Some(self.put_in_force(rules)),
            Err(errors) => {
                errors.iter().for_each(|problem| error!("{problem}"));
                error!("the access rules stay as they were");
            }
        }
    }

    fn note_acl(&mut self, version: u64) {
        if let Some(acl) = self.acl.as_mut().filter(|acl| acl.version == version) {
            acl.shards += 1;
            if acl.shards == self.shards.len() {
                info!("access rules are in force");
            }
        }
    }

    fn setups(
        &self,
        config: &Config,
        sockets: Vec<ShardSockets>,
        start: Start,
        logs: Vec<(LogSetup, RecoveredShard)>,
    ) -> io::Result<Vec<ShardSetup>> {
        let mut sockets = sockets.into_iter();
        let mut logs = logs.into_iter();
        let gate = Gate::new(&config.policy.limits);
        let seed = self.data_dir.as_ref().map_or_else(random_seed, DataDir::seed);
        let secret = sys::random()?;
        let shards = config.shards.get() as u16;
        let lanes = self.control.lanes().into_iter();
        let stopwatch = Instant::now;
        let trace = config.trace_sample.map(|every| TraceSetup { every, stopwatch });
        let budget = |bytes_max| MemoryBudget::new(bytes_max, shards);
        let memory = config.policy.limits.memory_bytes_max.map(budget);
        let auth = AuthPool::new((0..shards).map(|shard| self.control.wake(ShardId(shard))));
        let setup = |(number, lanes): (usize, LaneEnds)| {
            let shard = ShardId(number as u16);
            let policy = config.policy.clone();
            let events = self.events.clone();
            ShardSetup {
                broker: BrokerSetup { shard, shards, seed, secret, policy, trace },
                listeners: sockets.next().unwrap_or_default(),
                lanes,
                clock: start.clock,
                gate: gate.clone(),
                control: self.control.clone(),
                memory: memory.clone(),
                auth: auth.clone(),
                storage: logs.next().and_then(|log| self.storage(shard, log, start.origin)),
                report: Box::new(move |reached| drop(events.send(Event::Reached(reached)))),
            }
        };
        Ok(lanes.enumerate().map(setup).collect())
    }

    fn storage(
        &self,
        shard: ShardId,
        (log, recovered): (LogSetup, RecoveredShard),
        time_origin: TimeOrigin,
    ) -> Option<ShardStorage> {
        let directory = self.data_dir.as_ref()?.log_directory();
        let wake = self.control.wake(shard);
        let wake = Box::new(move || wake.alarm());
        let disk = DiskSetup { directory, shard, segment_bytes: log.segment_bytes, wake };
        Some(ShardStorage { log, recovered, disk, time_origin })
    }
}

/// What was kept on disk.
struct Kept {
    directory: DataDir,
    /// By shard, its log and what was in it.
    logs: Vec<(LogSetup, RecoveredShard)>,
}

impl Kept {
    fn open(config: &Config, origin: TimeOrigin) -> Result<Self, DataDirError> {
        let shards = config.shards.get() as u16;
        let layout = Layout { shards, bytes_max: config.storage_bytes_max };
        let mut directory = DataDir::open(&config.data_dir, shards, random_seed())?;
        let logs = directory.recover(layout, origin)?;
        Ok(Self { directory, logs })
    }
}

/// When the clock of the shards has started, by itself and by the time of day.
#[derive(Clone, Copy)]
struct Start {
    clock: Clock,
    origin: TimeOrigin,
}

impl Start {
    fn now() -> Self {
        // A clock before 1970 shows 1970.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = Clock::start(Time::from_millis(since_1970.as_millis() as u64));
        // So that there is a time for all that was before, too.
        Self { clock, origin: TimeOrigin(WallTime(0)) }
    }
}

/// Keys of std's hash maps are random and differ from process to process.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// Where to run each shard: one CPU each, out of those this process may use.
fn placements(shards: usize) -> io::Result<Vec<Placement>> {
    let cpus = sys::allowed_cpus()?;
    if shards > cpus.len() {
        warn!(shards, cpus = cpus.len(), "more shards than CPUs: they are not pinned");
        return Ok(vec![Placement::Unbound; shards]);
    }
    Ok(cpus.into_iter().take(shards).map(Placement::Fixed).collect())
}

fn start_shard(
    setup: ShardSetup,
    placement: Placement,
    events: Sender<Event>,
) -> io::Result<JoinHandle<()>> {
    let shard = setup.broker.shard;
    thread::Builder::new().name(format!("ringmq-{shard}")).spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| run_executor(setup, placement)));
        let outcome = outcome.unwrap_or_else(|panic| Err(panic_message(&*panic)));
        // Nobody listens any more if another shard has failed.
        let _ = events.send(Event::Ended(shard, outcome.map(Box::new)));
    })
}

fn run_executor(setup: ShardSetup, placement: Placement) -> Result<Summary, String> {
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(EXECUTOR_IO_BYTES)
        .preempt_timer(PREEMPT_AFTER)
        .make()
        .map_err(|error| format!("cannot make an executor: {error}"))?;
    let outcome = executor.run(async { shard::run(setup) });
    outcome.map_err(|error| format!("its ring: {error}"))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}

/// The sockets of one shard, each with what is spoken there.
type ShardSockets = Vec<(OwnedFd, Arc<Listener>)>;

/// All that is listened on.
struct Bound {
    addresses: Vec<SocketAddr>,
    /// By shard.
    sockets: Vec<ShardSockets>,
    socket_files: Vec<SocketFile>,
}

/// All probes come first: afterwards our own sockets would be in the way of overlapping addresses.
fn bind_all(config: &Config, certificates: &mut Certificates) -> Result<Bound, ServerError> {
    let mut probed: Vec<(ListenerId, SocketAddr)> = Vec::new();
    for (id, listener) in numbered(config) {
        for address in &listener.address.addresses {
            let is_known = probed.iter().any(|(_, known)| known == address);
            if is_known && address.port() != 0 {
                continue;
            }
            match probe_patiently(*address) {
                Ok(()) => probed.push((id, *address)),
                Err(error) if config.listen_is_default && lacks_ipv6(*address, &error) => {
                    warn!("not listening on {address}: this machine has no IPv6");
                }
                Err(source) => return Err(ServerError::Listen { address: *address, source }),
            }
        }
    }
    let shards = config.shards.get();
    let sockets = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Bound { addresses: Vec::new(), sockets, socket_files: Vec::new() };
    for (id, listener) in numbered(config) {
        let tls = certificates.open(listener)?;
        let rules = |is_relaxed| {
            let (tls, websocket) = (tls.clone(), listener.websocket.clone().map(Arc::new));
            Arc::new(Listener { id, is_relaxed, tls, websocket, proxies: listener.proxies.clone() })
        };
        for (_, address) in probed.iter().filter(|(of, _)| *of == id) {
            let is_relaxed = listener.relaxed || config.relaxed_listeners.contains(address);
            let Sockets { address, sockets } = shard::listen(*address, shards)
                .map_err(|source| ServerError::Listen { address: *address, source })?;
            bound.addresses.push(address);
            info!("listening on {}{address}", scheme_shown(listener));
            let rules = rules(is_relaxed);
            let of_shards = bound.sockets.iter_mut().zip(sockets);
            of_shards.for_each(|(of_shard, socket)| of_shard.push((socket, rules.clone())));
        }
        if let Some(path) = listener.address.path() {
            let (socket, file) = shard::listen_unix(path, listener.unix_mode)
                .map_err(|source| ServerError::ListenUnix { path: path.to_owned(), source })?;
            bound.socket_files.push(file);
            info!("listening on unix:{}", path.display());
            // Such a socket cannot be divided: one shard accepts for all.
            bound.sockets[usize::from(id.0) % shards].push((socket, rules(listener.relaxed)));
        }
    }
    if bound.addresses.is_empty() && bound.socket_files.is_empty() {
        return Err(ServerError::NoAddress);
    }
    Ok(bound)
}

fn numbered(config: &Config) -> impl Iterator<Item = (ListenerId, &config::Listener)> {
    (0..).map(ListenerId).zip(&config.listen)
}

/// What stands in front of an address in the log: nothing where MQTT is spoken as it is.
fn scheme_shown(listener: &config::Listener) -> &'static str {
    match (&listener.tls, &listener.websocket) {
        (None, None) => "",
        (Some(_), None) => "mqtts://",
        (None, Some(_)) => "ws://",
        (Some(_), Some(_)) => "wss://",
    }
}

/// Whether the address can be listened on. The kernel gives the sockets of a ring back a moment after
/// its process was killed, so a restart at once looks several times.
fn probe_patiently(address: SocketAddr) -> io::Result<()> {
    let mut result = shard::probe(address);
    for _ in 0..IN_USE_LOOKS_MAX {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(IN_USE_PAUSE),
            _ => break,
        }
        result = shard::probe(address);
    }
    result
}

const IN_USE_LOOKS_MAX: u32 = 20;
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

fn lacks_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let missing = matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT));
    address.is_ipv6() && missing
}

fn listen_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "is in use by another process, or by one that was killed just now".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "is not an address of this machine".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "may not be listened on: ports below 1024 need CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => format!("cannot be listened on: {error}"),
    }
}

/// Turns signals into events on a thread of its own.
fn watch_signals(events: Sender<Event>) -> io::Result<Handle> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let handle = signals.handle();
    thread::Builder::new().name("ringmq-signals".to_owned()).spawn(move || {
        let mut stopping: Option<Instant> = None;
        for signal in &mut signals {
            let name = signal_name(signal).unwrap_or("signal");
            if signal == SIGHUP {
                let _ = events.send(Event::ReloadRequested);
            } else if let Some(since) = stopping {
                // `timeout` and terminals signal the process and its group: that is one request.
                if since.elapsed() > SIGNAL_ECHO_MAX {
                    warn!("second signal ({name}): ending at once");
                    std::process::exit(1);
                }
            } else {
                stopping = Some(Instant::now());
                // An error means that the server has ended.
                let _ = events.send(Event::StopRequested(name.to_owned()));
            }
        }
    })?;
    Ok(handle)
}

/// How often the files of certificates are looked at.
const CERTIFICATES_LOOK_EVERY: Duration = Duration::from_secs(2);

/// A signal this soon after the first is the same request.
const SIGNAL_ECHO_MAX: Duration = Duration::from_millis(100);

/// Memory each executor sets aside for file I/O; the smallest that glommio takes.
const EXECUTOR_IO_BYTES: usize = 64 * 1024;

/// The shard's task is the only one, and has no use for glommio's signal to make way for others.
const PREEMPT_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
