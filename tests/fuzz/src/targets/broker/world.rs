//! Brokers with the least shell that keeps their contract: connections, lanes that hold one batch, a clock.

use std::{
    collections::VecDeque,
    io, mem,
    num::NonZeroU32,
    path::Path,
    sync::{Arc, LazyLock},
    time::Instant,
};

use ringmq::{
    auth::{acl::Acl, chain::Verdict},
    base::{ConnId, ShardId, Time},
    broker::{Broker, BrokerSetup, Effect, MeshMessage, Origin, TraceSetup},
    codec::Version,
    config::{AclRules, AnonymousPolicy, Policy},
};

use super::{CLIENTS, packets, view::View};

pub(super) struct World {
    now: Time,
    shards: Vec<Shard>,
    /// From each shard to each, itself included.
    lanes: Vec<Lane>,
    /// Those of the clients, and one for questions at the end.
    links: Vec<Link>,
    /// Bytes that may still be given to the brokers.
    bytes_left: usize,
    /// Clients have to.
    authenticates: bool,
    floods_left: u32,
}

struct Shard {
    broker: Broker,
    /// Generation and link of each connection slot.
    slots: Vec<(u32, Option<usize>)>,
}

#[derive(Default)]
struct Lane {
    item: Option<Item>,
    moves: VecDeque<(usize, Origin, Vec<u8>)>,
}

enum Item {
    Batch(Vec<MeshMessage>),
    Connection(usize, Origin, Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Closed,
    Shard(usize, ConnId),
    /// On its way to another shard.
    Lane,
}

struct Link {
    place: Place,
    is_paused: bool,
    /// Output that the shell has taken and not reported as sent.
    sending: Option<Vec<u8>>,
    view: View,
}

impl World {
    pub(super) fn new(shards: u16, policy: &Policy, is_traced: bool) -> Self {
        let every = NonZeroU32::MIN;
        let trace = is_traced.then_some(TraceSetup { every, stopwatch: || *STOPPED });

        let shard = |id| Shard {
            broker: Broker::new(BrokerSetup {
                shard: ShardId(id),
                shards,
                seed: 5,
                secret: [7; 32],
                policy: policy.clone(),
                trace,
            }),
            slots: Vec::new(),
        };
        let link =
            || Link { place: Place::Closed, is_paused: false, sending: None, view: View::new() };
        Self {
            now: Time::from_millis(1),
            shards: (0..shards).map(shard).collect(),
            lanes: (0..shards * shards).map(|_| Lane::default()).collect(),
            links: (0..=CLIENTS).map(|_| link()).collect(),
            bytes_left: BYTES_MAX,
            authenticates: policy.anonymous == AnonymousPolicy::Nowhere,
            floods_left: FLOODS_MAX,
        }
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The version that the client speaks.
    pub(super) fn version(&self, link: usize) -> Version {
        self.links[link].view.version.unwrap_or(Version::V5)
    }

    /// The client connects, once it is not connected; `choice` says where.
    pub(super) fn open(&mut self, link: usize, choice: u8) {
        if self.links[link].place == Place::Closed {
            self.links[link].view = View::new();
            let is_local = choice < 0xF0;
            let origin = Origin::new(([127, 0, 0, 1], 1024), is_local);
            self.bind(usize::from(choice) % self.shards.len(), link, origin);
        }
    }

    pub(super) fn open_if_closed(&mut self, link: usize) {
        self.open(link, link as u8);
    }

    /// Whether there may be another few thousand messages at once: a few inputs of these teach as much
    /// as many, and each takes its time.
    pub(super) fn may_flood(&mut self) -> bool {
        let may = self.floods_left > 0;
        self.floods_left = self.floods_left.saturating_sub(1);
        may
    }

    /// The client sends. Nothing is read from it while the broker does not want it.
    pub(super) fn feed(&mut self, link: usize, bytes: &[u8]) {
        let Place::Shard(shard, conn) = self.links[link].place else { return };
        if self.links[link].is_paused || bytes.len() > self.bytes_left {
            return;
        }
        self.bytes_left -= bytes.len();
        self.links[link].view.sent(bytes);
        let now = self.now;
        self.shards[shard].broker.receive(now, conn, bytes);
        self.turn(shard);
    }

    pub(super) fn answers(&mut self, link: usize, count: usize) -> Vec<u8> {
        if self.links[link].is_paused { Vec::new() } else { self.links[link].view.answers(count) }
    }

    /// The client gets what the broker has for it.
    pub(super) fn take_output(&mut self, link: usize) {
        let Place::Shard(shard, conn) = self.links[link].place else { return };
        if self.links[link].sending.is_none() {
            let output = self.shards[shard].broker.take_output(conn).into_vec();
            self.links[link].view.received(&output);
            self.links[link].sending = (!output.is_empty()).then_some(output);
        }
    }

    /// The broker learns that all it gave out last was sent.
    pub(super) fn written(&mut self, link: usize) {
        let Place::Shard(shard, conn) = self.links[link].place else { return };
        if let Some(buffer) = self.links[link].sending.take() {
            let now = self.now;
            self.shards[shard].broker.written(now, conn, buffer.into());
            self.turn(shard);
        }
    }

    pub(super) fn hang_up(&mut self, link: usize, is_error: bool) {
        let Place::Shard(shard, conn) = self.links[link].place else { return };
        self.unbind(shard, conn);
        let error = is_error.then(|| io::Error::from(io::ErrorKind::ConnectionReset));
        let now = self.now;
        self.shards[shard].broker.disconnected(now, conn, error);
        self.turn(shard);
    }

    pub(super) fn pass_time(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
        for shard in 0..self.shards.len() {
            self.advance(shard);
        }
    }

    /// Other access rules on some shards, as if the others were a turn behind.
    pub(super) fn change_rules(&mut self, choice: u8) {
        let rules = RULES[usize::from(choice & 3)];
        let rules = AclRules::parse(Path::new("rules"), rules, false).expect("rules");
        let acl = Arc::new(Acl::new(rules));
        let now = self.now;
        for shard in (0..self.shards.len()).filter(|shard| choice >> (shard + 2) & 1 == 0) {
            self.shards[shard].broker.set_acl(now, Some(acl.clone()));
            self.turn(shard);
        }
    }

    pub(super) fn shut_down(&mut self) {
        let now = self.now;
        for shard in 0..self.shards.len() {
            self.shards[shard].broker.shut_down(now);
            self.turn(shard);
        }
    }

    /// Moves something along each lane whose bit is set.
    pub(super) fn move_lanes(&mut self, lanes: u8) {
        for at in (0..self.lanes.len()).filter(|at| lanes >> (at % 8) & 1 == 1) {
            self.move_lane(at);
        }
    }

    /// Goes on until nothing happens by itself any more, without time passing.
    pub(super) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let mut is_quiet = true;
            for at in 0..self.lanes.len() {
                is_quiet &= !self.move_lane(at);
            }
            for shard in 0..self.shards.len() {
                is_quiet &= !self.advance(shard);
            }
            for link in 0..self.links.len() {
                self.take_output(link);
                is_quiet &= self.links[link].sending.is_none();
                self.written(link);
            }
            if is_quiet {
                return;
            }
        }
        panic!("does not come to rest");
    }

    /// Every client goes, and time passes until nothing is due any more: every session has ended,
    /// whatever was delayed is published, and what was retained for a time is gone.
    pub(super) fn end(&mut self) {
        // The last rules, which allow all that is looked at.
        self.change_rules(3);
        // One that is on a lane gets its place on another shard first.
        for _ in 0..=self.shards.len() {
            for link in 0..self.links.len() {
                self.hang_up(link, false);
            }
            self.settle();
        }
        for _ in 0..DEADLINES_MAX {
            let deadlines = self.shards.iter().filter_map(|shard| shard.broker.next_deadline());
            let Some(next) = deadlines.min() else { return };
            self.now = self.now.max(next);
            self.settle();
        }
        panic!("something is always due");
    }

    /// Panics unless the shard has no connection, no session and no deadline; returns how many
    /// messages it retains.
    pub(super) fn check_idle(&self, shard: usize) -> u64 {
        let broker = &self.shards[shard].broker;
        let summary = broker.summary().to_string();
        let retained = summary.strip_prefix("connections=0 sessions=0 retained=");
        let retained = retained.and_then(|rest| rest.split_once(" delayed=0 ")?.0.parse().ok());
        assert_eq!(broker.next_deadline(), None);
        assert!(!broker.holds_input());
        retained.unwrap_or_else(|| panic!("something is left on shard {shard}: {summary}"))
    }

    /// A client of its own connects to the shard, sends the packets one after the other and goes.
    pub(super) fn probe<T>(
        &mut self,
        shard: usize,
        packets: &[Vec<u8>],
        look: impl FnOnce(&mut View) -> T,
    ) -> T {
        self.bytes_left = BYTES_MAX;
        self.open(CLIENTS, shard as u8);
        self.feed(CLIENTS, &packets::connect_as_anybody(self.authenticates));
        self.settle();
        // AUTH, until CONNACK comes.
        for _ in 0..2 {
            let answers = self.answers(CLIENTS, 0);
            self.feed(CLIENTS, &answers);
            self.settle();
        }
        for bytes in packets {
            self.feed(CLIENTS, bytes);
            self.settle();
        }
        let seen = look(&mut self.links[CLIENTS].view);
        self.hang_up(CLIENTS, false);
        self.settle();
        seen
    }

    /// Has the broker do what is due; true if something was.
    fn advance(&mut self, shard: usize) -> bool {
        let (now, broker) = (self.now, &mut self.shards[shard].broker);
        let is_due = broker.next_deadline().is_some_and(|at| at <= now);
        if is_due {
            broker.advance(now);
            self.turn(shard);
        }
        is_due
    }

    /// Carries out what the broker asks for.
    fn turn(&mut self, shard: usize) {
        while let Some(effect) = self.shards[shard].broker.pop_effect() {
            match effect {
                Effect::Close { conn, last } => {
                    let link = self.unbind(shard, conn);
                    let last = last.into_vec();
                    self.links[link].view.received(&last);
                    self.shards[shard].broker.recycle(last.into());
                }
                Effect::Move { conn, to, origin, bytes } => {
                    let link = self.unbind(shard, conn);
                    self.links[link].place = Place::Lane;
                    let lane = shard * self.shards.len() + to.index();
                    self.lanes[lane].moves.push_back((link, origin, bytes));
                }
                Effect::Check { conn, .. } => {
                    // Nobody's password is right.
                    let verdict = Verdict::Refused(String::new());
                    self.shards[shard].broker.authenticated(self.now, conn, verdict);
                }
                Effect::PauseReading { conn } => self.set_paused(shard, conn, true),
                Effect::ResumeReading { conn } => self.set_paused(shard, conn, false),
            }
        }
        // Whoever has output is looked at when the input says so.
        while self.shards[shard].broker.pop_dirty().is_some() {}
        let now = self.now;
        if let Some(tracer) = self.shards[shard].broker.tracer() {
            while tracer.pop(now).is_some() {}
        }
    }

    /// Empties a lane, or puts into it what waits; true if there was something.
    fn move_lane(&mut self, at: usize) -> bool {
        let (from, to) = (at / self.shards.len(), at % self.shards.len());
        let now = self.now;
        match self.lanes[at].item.take() {
            Some(Item::Batch(batch)) => {
                self.shards[to].broker.receive_mesh(now, ShardId(from as u16), batch);
                self.turn(to);
            }
            Some(Item::Connection(link, origin, bytes)) => {
                let conn = self.bind(to, link, origin);
                self.shards[to].broker.receive(now, conn, &bytes);
                self.turn(to);
            }
            None if from != to && self.shards[from].broker.mesh_waiting(ShardId(to as u16)) => {
                let batch = self.shards[from].broker.take_mesh(now, ShardId(to as u16));
                self.lanes[at].item = Some(Item::Batch(batch));
            }
            None => {
                let Some((link, origin, bytes)) = self.lanes[at].moves.pop_front() else {
                    return false;
                };
                self.lanes[at].item = Some(Item::Connection(link, origin, bytes));
            }
        }
        true
    }

    /// Gives a link a slot on a shard.
    fn bind(&mut self, shard: usize, link: usize, origin: Origin) -> ConnId {
        let Shard { broker, slots } = &mut self.shards[shard];
        let slot = slots.iter().position(|(_, link)| link.is_none()).unwrap_or_else(|| {
            slots.push((0, None));
            slots.len() - 1
        });
        slots[slot].1 = Some(link);
        let conn = ConnId { slot: slot as u32, generation: slots[slot].0 };
        broker.open(self.now, conn, origin);
        self.links[link].place = Place::Shard(shard, conn);
        conn
    }

    /// Takes a connection off its slot; returns its link.
    fn unbind(&mut self, shard: usize, conn: ConnId) -> usize {
        let slot = &mut self.shards[shard].slots[conn.slot as usize];
        assert_eq!(slot.0, conn.generation, "an effect for a connection that is gone");
        slot.0 += 1;
        let link = slot.1.take().expect("an effect for a connection that is gone");
        let buffer = mem::take(&mut self.links[link].sending);
        self.links[link].place = Place::Closed;
        self.links[link].is_paused = false;
        self.shards[shard].broker.recycle(buffer.unwrap_or_default().into());
        link
    }

    fn set_paused(&mut self, shard: usize, conn: ConnId, is_paused: bool) {
        // The connection may be gone: it was closed by what followed the pause.
        let slot = self.shards[shard].slots[conn.slot as usize];
        if let (generation, Some(link)) = slot
            && generation == conn.generation
        {
            self.links[link].is_paused = is_paused;
        }
    }
}

/// The clock of traces stands still: what they say is not looked at.
static STOPPED: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Access rules; before any of them come there are none.
const RULES: [&str; 4] = [
    "topic readwrite #\ntopic deny a/b",
    "pattern readwrite %c\npattern read a/#",
    "topic write a/#\n",
    "pattern readwrite #\npattern readwrite $d/#\n",
];
/// Bytes that one input may make of itself: enough to fill a lane.
const BYTES_MAX: usize = 12 * 1024 * 1024;
/// As few as fill a lane.
const FLOODS_MAX: u32 = 3;
/// Deadlines that may be left when all clients are gone.
const DEADLINES_MAX: usize = 100_000;
/// Rounds that [`World::settle`] may take.
const STEPS_MAX: usize = 100_000;
