//! Everything one shard knows and decides: connections, sessions, its copy of
//! the index, its retained messages.
//!
//! A plain value: no async, no sockets, no clock, no randomness. The shell (or
//! the simulator) feeds it bytes, mesh messages and the time, and carries out
//! the [`Effect`]s. Each input is handled to its end before the next.

mod access;
mod ack_line;
mod admission;
mod authenticate;
mod auto_subscribe;
mod clean;
mod close;
mod connect;
mod connection;
mod counters;
mod credentials;
mod delayed;
mod deliver;
mod destination;
mod durable;
mod exclusive;
mod flapping;
mod input;
mod intake;
mod large;
mod log_publication;
mod log_room;
mod memory;
mod mesh;
mod packet_log;
mod publish;
mod publish_rate;
mod read_back;
mod request;
mod restore;
mod retain;
mod route;
mod session_log;
mod sessions;
mod share;
mod subscribe;
mod sweep;
mod timers;
mod topic_aliases;
mod trace;

use std::{collections::VecDeque, io, sync::Arc};

use ahash::RandomState;

pub use connection::Origin;
pub use counters::{Counters, DropReason, Summary};
pub use durable::LogRead;
pub use mesh::MeshMessage;
pub(crate) use route::Grant;
pub use trace::{Stage, Trace, TraceId, TraceSetup, Tracer};

use self::{
    close::Cause,
    connection::Connections,
    delayed::Delayed,
    deliver::WireForm,
    durable::Durable,
    exclusive::Exclusives,
    flapping::Flapping,
    memory::Memory,
    mesh::Peers,
    retain::Stored,
    sessions::Sessions,
    subscribe::PendingAnswer,
    sweep::Sweep,
    timers::{Timer, Timers},
};
use crate::{
    auth::{
        acl::Acl,
        chain::Check,
        places::{Places, Rule},
        scram,
    },
    base::{ConnId, Output, Peer, SessionKey, ShardId, Text, Time, home_of, limits},
    codec::{Packet, Version},
    config::Policy,
    storage::Target,
    topic::{Index, Matches, Retained},
};

/// What a shard's broker is made of.
#[derive(Clone)]
pub struct BrokerSetup {
    /// Which shard this is.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u16,
    /// Seed of all hashes, assigned names and of where clients and topics live, the same on every shard.
    pub seed: u64,
    /// What nobody may know or guess: nonces are drawn from it. The same on every shard.
    pub secret: [u8; 32],
    /// What clients may do and how they are served.
    pub policy: Policy,
    /// Whether and how publications are traced.
    pub trace: Option<TraceSetup>,
}

/// What the shell is asked to do.
#[derive(Debug)]
pub enum Effect {
    /// The broker has forgotten the connection: send what is in flight, then
    /// `last`, then close.
    Close {
        /// Which connection.
        conn: ConnId,
        /// Its last output.
        last: Output,
    },
    /// The broker has forgotten the connection: its home is another shard.
    Move {
        /// Which connection.
        conn: ConnId,
        /// Its home.
        to: ShardId,
        /// Where it comes from, to be told there.
        origin: Origin,
        /// All that was read from it, CONNECT first.
        bytes: Vec<u8>,
    },
    /// Stop reading from the connection.
    PauseReading {
        /// Which connection.
        conn: ConnId,
    },
    /// Read from the connection again.
    ResumeReading {
        /// Which connection.
        conn: ConnId,
    },
    /// Have this checked where that holds up nobody, and tell with [`Broker::authenticated`].
    Check {
        /// Whose CONNECT waits for it.
        conn: ConnId,
        /// What there is to check.
        check: Box<Check>,
    },
}

/// One shard's broker.
pub struct Broker {
    shard: ShardId,
    policy: Policy,
    /// Names clients and topics by a number; the same on every shard.
    placement: RandomState,
    seed: u64,
    scram: scram::Server,
    /// Who may do what, if rules say so.
    acl: Option<Arc<Acl>>,
    /// The connections of each user, on all shards.
    users: Arc<Places<Box<str>>>,
    flapping: Flapping,
    now: Time,
    connections: Connections,
    sessions: Sessions,
    index: Index,
    retained: Retained<Stored>,
    retained_bytes: u64,
    /// The search for expired retained messages.
    sweep: Sweep,
    delayed: Delayed,
    peers: Peers,
    timers: Timers,
    effects: VecDeque<Effect>,
    /// Connections to be closed when so many records of the log are on disk, with their last output.
    closing: VecDeque<(u64, ConnId, Output)>,
    counters: Counters,
    /// Client ids assigned so far.
    assigned: u64,
    /// Questions for retained messages asked so far.
    queries: u64,
    /// Answers that wait until all shards have applied a change, oldest first.
    pending_answers: VecDeque<PendingAnswer>,
    /// Those that also wait for the disk.
    pending_commits: VecDeque<PendingAnswer>,
    /// The log, unless nothing is to outlive the process.
    durable: Option<Box<Durable>>,
    /// Reused while a publication is put into the log.
    targets: Vec<Target>,
    exclusives: Exclusives,
    /// Connections with acknowledgements that wait for another shard.
    waiting_acks: Vec<ConnId>,
    /// Connections that are not read from because a lane is full.
    paused: Vec<ConnId>,
    memory: Memory,
    /// Sessions whose walk over retained messages can go on.
    ready_fetches: VecDeque<SessionKey>,
    /// Reused while a publication is routed.
    matches: Option<Box<Matches>>,
    /// Reused while a publication is encoded for several subscribers.
    wire_form: WireForm,
    /// Reused while a topic or filter is rewritten.
    rewritten: String,
    tracer: Option<Box<Tracer>>,
    /// Whether clients may be let in and timers run: not before all shards know what was restored.
    is_started: bool,
}

/// Whether the next packet of a connection may be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    Continue,
    /// The connection is closed or moved.
    Gone,
}

impl Broker {
    /// A broker without connections or sessions.
    pub fn new(setup: BrokerSetup) -> Self {
        let BrokerSetup { shard, shards, seed, secret, policy, trace } = setup;
        let placement = RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 1);
        let tracer = trace.map(|setup| Box::new(Tracer::new(setup, shard, placement.clone())));
        Self {
            shard,
            index: Index::with_strategies(seed, shard, policy.shared.clone()),
            scram: scram::Server::new(secret, shard, &policy.credentials),
            users: Places::new(Rule::Each(policy.limits.connections_per_user_max)),
            flapping: Flapping::default(),
            policy,
            acl: None,
            sessions: Sessions::new(placement.clone()),
            placement,
            seed,
            now: Time::default(),
            connections: Connections::default(),
            retained: Retained::new(seed),
            retained_bytes: 0,
            sweep: Sweep::default(),
            delayed: Delayed::default(),
            peers: Peers::new(shard, shards),
            timers: Timers::default(),
            effects: VecDeque::new(),
            closing: VecDeque::new(),
            counters: Counters::default(),
            assigned: 0,
            queries: 0,
            pending_answers: VecDeque::new(),
            pending_commits: VecDeque::new(),
            durable: None,
            targets: Vec::new(),
            exclusives: Exclusives::default(),
            waiting_acks: Vec::new(),
            paused: Vec::new(),
            memory: Memory::default(),
            ready_fetches: VecDeque::new(),
            matches: None,
            wire_form: WireForm::default(),
            rewritten: String::new(),
            tracer,
            is_started: true,
        }
    }

    /// A connection was accepted here, or moved here; in that case
    /// [`receive`](Self::receive) follows with what was read from it.
    pub fn open(&mut self, now: Time, conn: ConnId, origin: Origin) {
        self.now = now;
        self.connections.open(conn, origin, now);
        let deadline = now.plus_secs(u64::from(self.policy.limits.connect_timeout_secs));
        if let Some(connection) = self.connections.get_mut(conn) {
            self.timers.set(conn.into(), &mut connection.timer_at, Some(deadline));
        }
    }

    /// More is known of where a connection comes from: the client behind a proxy, the user of its certificate.
    pub fn introduce(&mut self, conn: ConnId, client: Option<Peer>, user: Option<Text>) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let origin = &mut connection.origin;
        if let Some(client) = client {
            origin.peer = client;
            // Whoever came to this machine through a proxy did not come from it.
            origin.is_local &= client.is_loopback();
        }
        origin.certificate_user = user.or(origin.certificate_user.take());
    }

    /// The client of a connection that is not closed.
    pub fn peer(&self, conn: ConnId) -> Option<Peer> {
        self.connections.get(conn).map(|connection| connection.origin.peer)
    }

    /// An empty buffer, with room from earlier use if there is one.
    pub fn spare(&mut self) -> Vec<u8> {
        self.connections.spare()
    }

    /// Bytes came from the network.
    pub fn receive(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        self.now = now;
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.input.is_empty() && !connection.paused.any() {
            let used = self.read_packets(conn, bytes, None);
            self.keep_input(conn, &bytes[used..]);
        } else {
            self.receive_behind(conn, bytes);
        }
    }

    /// The connection has ended: end of stream, or a socket error.
    pub fn disconnected(&mut self, now: Time, conn: ConnId, error: Option<io::Error>) {
        self.now = now;
        self.close(conn, Cause::NetworkLost(error));
    }

    /// Whether the connection has its home here: its CONNECT was accepted.
    pub fn is_settled(&self, conn: ConnId) -> bool {
        self.connections.get(conn).is_some_and(|connection| connection.session.is_some())
    }

    /// Whether input that was read waits for room in the lanes.
    pub fn holds_input(&self) -> bool {
        !self.paused.is_empty()
    }

    /// Does what is due.
    pub fn advance(&mut self, now: Time) {
        self.now = now;
        if !self.is_started {
            return;
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Connection { slot, generation } => {
                    self.connection_timer(ConnId { slot, generation });
                }
                Timer::Session(key) => self.session_timer(key),
                Timer::Sweep => self.sweep_timer(),
            }
        }
        self.publish_due();
        self.resume_paused();
        self.relieve();
        for _ in 0..limits::RETAINED_PAGES_PER_TURN {
            let Some(key) = self.ready_fetches.pop_front() else { break };
            self.continue_fetch(key);
        }
        self.report_loads();
        self.clean();
        if self.room_notice_at().is_some_and(|at| at <= now) {
            self.note_room();
        }
    }

    /// When [`advance`](Self::advance) has something to do; in the past if it has now.
    pub fn next_deadline(&self) -> Option<Time> {
        let can_resume = !self.paused.is_empty() && !self.peers.any_full();
        if !self.is_started {
            return self.log_deadline();
        }
        if can_resume
            || self.can_clean()
            || !self.ready_fetches.is_empty()
            || self.can_report_loads()
            || self.memory.has_work()
        {
            return Some(self.now);
        }
        let trace_due = self.tracer.as_ref().and_then(|tracer| tracer.next_deadline());
        let room_notice_at = self.room_notice_at();
        [self.timers.next(), self.next_delayed(), trace_due, self.log_deadline(), room_notice_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing that the shell has to do.
    pub fn pop_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A connection whose output can be taken. The same one may come twice.
    pub fn pop_dirty(&mut self) -> Option<ConnId> {
        self.connections.pop_dirty()
    }

    /// What is to be sent to the connection now; empty if nothing is, or if the
    /// connection is gone.
    pub fn take_output(&mut self, conn: ConnId) -> Output {
        self.connections.take_output(conn)
    }

    /// All of the output taken last was sent. Gives its buffer back.
    pub fn written(&mut self, now: Time, conn: ConnId, sent: Output) {
        self.now = now;
        self.connections.recycle(sent.into_room());
        if let Some(tracer) = &mut self.tracer {
            tracer.written(conn);
        }
        let Some(connection) = self.connections.get_mut(conn) else { return };
        connection.taken_bytes = 0;
        if connection.paused.replies && connection.reply_bytes < limits::REPLY_BYTES_MAX {
            connection.paused.replies = false;
            self.resume(conn);
        }
        if let Some(key) = self.connections.get(conn).and_then(|connection| connection.session) {
            self.pump(key);
        }
    }

    /// Gives back the buffer of a connection that the broker has forgotten.
    pub fn recycle(&mut self, output: Output) {
        self.connections.recycle(output.into_room());
    }

    /// Whether something waits for the lane to that shard.
    pub fn mesh_waiting(&self, to: ShardId) -> bool {
        self.peers.is_waiting(to)
    }

    /// Takes what waits for the lane to that shard. The shell does so when the
    /// lane has room; publishers wait meanwhile.
    pub fn take_mesh(&mut self, now: Time, to: ShardId) -> Vec<MeshMessage> {
        self.now = now;
        self.peers.take(to)
    }

    /// Closes every connection because the server ends.
    pub fn shut_down(&mut self, now: Time) {
        self.now = now;
        for conn in self.connections.ids() {
            self.close(conn, Cause::Shutdown);
        }
        if let Some(durable) = &mut self.durable {
            durable.end();
        }
    }

    /// The traces of this shard, if publications are traced.
    pub fn tracer(&mut self) -> Option<&mut Tracer> {
        self.tracer.as_deref_mut()
    }

    /// Counts worth a log line.
    pub fn summary(&self) -> Summary {
        Summary {
            counters: self.counters,
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            retained: self.retained.len(),
            delayed: self.delayed.len(),
            filters: self.index.len(),
        }
    }

    /// The shard that a client's session lives on.
    fn home_of_client(&self, client: &str) -> ShardId {
        self.place(client)
    }

    /// The shard that a topic's retained message lives on.
    fn home_of_topic(&self, topic: &str) -> ShardId {
        self.place(topic)
    }

    /// This shard's part of a bound on the whole process.
    fn even_part(&self, of_all: u64) -> u64 {
        of_all.div_ceil(self.peers.shard_count().into())
    }

    fn place(&self, text: &str) -> ShardId {
        home_of(self.seed, self.peers.shard_count(), text)
    }

    /// Sends a reply to a client's own packet.
    fn reply(&mut self, conn: ConnId, key: SessionKey, packet: &Packet<'_>) -> Flow {
        let cause = match packet {
            Packet::ConnAck(_) => Cause::ConnAckTooLarge,
            _ => Cause::ReplyTooLarge,
        };
        let flow = self.append_reply(conn, cause, |version, out| packet.encode(version, out));
        if flow == Flow::Continue {
            packet_log::sending(&self.sessions, key, packet);
        }
        flow
    }

    /// Appends what `encode` appends, unless it is more than the client takes.
    fn append_reply(
        &mut self,
        conn: ConnId,
        too_large: Cause,
        encode: impl FnOnce(Version, &mut Vec<u8>),
    ) -> Flow {
        let Some(connection) = self.connections.writer(conn) else { return Flow::Gone };
        let output = connection.output.tail();
        let before = output.len();
        encode(connection.version, output);
        let bytes = output.len() - before;
        connection.reply_bytes += bytes;
        if bytes > connection.packet_bytes_max as usize {
            // MQTT-3.1.2-24, and without its answer the client cannot go on.
            output.truncate(before);
            return self.close(conn, too_large);
        }
        Flow::Continue
    }
}
