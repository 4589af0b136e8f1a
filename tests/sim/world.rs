//! The simulated machine: shards with their shells, lanes between them, the
//! network and the clock. Mirrors the contract at the methods of `Broker`;
//! knows nothing of what clients say.

use std::{collections::VecDeque, mem};

use ringmq::{
    base::{ShardId, Time},
    broker::{Broker, BrokerSetup, Counters, MeshMessage},
    config::Policy,
};

use crate::{
    book::{Book, Word},
    disk::Disk,
    link::{Link, LinkId, Place, take_front},
    power::Storage,
    random::Random,
    trace::Trace,
};

/// Something that can happen next inside the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// The shell carries out effects and looks at dirty connections.
    Turn(ShardId),
    Advance(ShardId),
    /// The shell moves what waits into a lane that has room.
    Put(ShardId, ShardId),
    /// The shell takes the oldest batch out of a lane.
    Get(ShardId, ShardId),
    Receive(LinkId),
    /// The shell sees the end of a connection.
    Hangup(LinkId),
    Take(LinkId),
    Send(LinkId),
    /// The disk has written a batch.
    Sync(ShardId),
    /// The disk does what else it was asked to.
    Work(ShardId),
    /// The disk takes what it is given again.
    Heal(ShardId),
    /// All shards are restored: clients may come.
    Start,
}

/// What a run has exercised.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Stats {
    pub(crate) steps: u64,
    pub(crate) moves: u64,
    pub(crate) pauses: u64,
    pub(crate) resumes: u64,
    pub(crate) cuts: u64,
    pub(crate) batch_messages_max: usize,
    /// Messages between brokers, and the batches that they went in.
    pub(crate) lane_messages: u64,
    pub(crate) lane_batches: u64,
    /// Leaps of the clock.
    pub(crate) jumps: u64,
    pub(crate) wills: u64,
    pub(crate) sessions_expired: u64,
    /// Messages that clients have refused with an error code.
    pub(crate) refusals: u64,
    /// Drops: expired, larger than a client takes, and for want of room.
    pub(crate) expired: u64,
    pub(crate) too_large: u64,
    pub(crate) overflows: u64,
    /// Connections that were told of a take-over.
    pub(crate) displacements: u64,
    /// PUBLISHes to clients with a topic alias.
    pub(crate) broker_aliases: u64,
    /// Publications that were delayed.
    pub(crate) delayed: u64,
    /// Exclusive filters that clients got, and that they were refused.
    pub(crate) claims_granted: u64,
    pub(crate) claims_refused: u64,
    /// Requests for retained messages.
    pub(crate) asks: u64,
    /// Connections that were authenticated, and that were refused.
    pub(crate) logins: u64,
    pub(crate) wrong_logins: u64,
    /// Sessions that began with automatic subscriptions.
    pub(crate) automatic: u64,
    /// Ends of the whole machine without notice, and logs whose end was torn then.
    pub(crate) power_cuts: u64,
    pub(crate) torn: u64,
    /// Restarts with another number of shards.
    pub(crate) reshardings: u64,
    /// Orderly ends that were followed by a restart.
    pub(crate) returns: u64,
    /// Relaxed publications that were certainly on disk, and that were not when the power failed.
    pub(crate) relaxed_kept: u64,
    pub(crate) relaxed_lost: u64,
    /// Sessions that a restart has found.
    pub(crate) restored: u64,
    /// What the disks have done.
    pub(crate) batches: u64,
    pub(crate) log_reads: u64,
    pub(crate) segments_deleted: u64,
    /// Times that a disk refused to write, and that clients were refused something for want of room or that.
    pub(crate) disk_faults: u64,
    pub(crate) storage_refusals: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.moves += other.moves;
        self.pauses += other.pauses;
        self.resumes += other.resumes;
        self.cuts += other.cuts;
        self.batch_messages_max = self.batch_messages_max.max(other.batch_messages_max);
        self.lane_messages += other.lane_messages;
        self.lane_batches += other.lane_batches;
        self.jumps += other.jumps;
        self.wills += other.wills;
        self.sessions_expired += other.sessions_expired;
        self.refusals += other.refusals;
        self.expired += other.expired;
        self.too_large += other.too_large;
        self.overflows += other.overflows;
        self.displacements += other.displacements;
        self.broker_aliases += other.broker_aliases;
        self.delayed += other.delayed;
        self.claims_granted += other.claims_granted;
        self.claims_refused += other.claims_refused;
        self.asks += other.asks;
        self.logins += other.logins;
        self.wrong_logins += other.wrong_logins;
        self.automatic += other.automatic;
        self.power_cuts += other.power_cuts;
        self.torn += other.torn;
        self.reshardings += other.reshardings;
        self.returns += other.returns;
        self.relaxed_kept += other.relaxed_kept;
        self.relaxed_lost += other.relaxed_lost;
        self.restored += other.restored;
        self.batches += other.batches;
        self.log_reads += other.log_reads;
        self.segments_deleted += other.segments_deleted;
        self.disk_faults += other.disk_faults;
        self.storage_refusals += other.storage_refusals;
    }

    /// Panics if many runs have never come to something that they are to test.
    pub(crate) fn assert_all_was_met(&self) {
        let met = [
            self.moves,
            self.pauses,
            self.cuts,
            self.jumps,
            self.wills,
            self.sessions_expired,
            self.refusals,
            self.expired,
            self.too_large,
            self.overflows,
            self.displacements,
            self.broker_aliases,
            self.delayed,
            self.claims_granted,
            self.claims_refused,
            self.asks,
            self.logins,
            self.wrong_logins,
            self.automatic,
            self.power_cuts,
            self.torn,
            self.reshardings,
            self.returns,
            self.relaxed_kept,
            self.relaxed_lost,
            self.restored,
            self.batches,
            self.log_reads,
            self.segments_deleted,
        ];
        assert!(met.iter().all(|count| *count > 0), "{self:?}");
        assert!(self.power_cuts >= POWER_CUTS_MIN, "{self:?}");
    }
}

pub(crate) struct Shard {
    pub(crate) broker: Broker,
    /// Generation and link of each connection slot.
    pub(crate) slots: Vec<(u32, Option<LinkId>)>,
    pub(crate) free: Vec<u32>,
    /// Whether the broker may have effects or output, and since when.
    pub(crate) touched: bool,
    pub(crate) touched_at: Time,
    /// When its disk was last seen without work after its shell had looked for some.
    pub(crate) idle_at: Time,
}

impl Lane {
    /// What was on it is gone.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.moves.clear();
        self.opens_at = 0;
    }
}

impl Shard {
    pub(crate) fn new(broker: Broker) -> Self {
        Self {
            broker,
            slots: Vec::new(),
            free: Vec::new(),
            touched: false,
            touched_at: Time::default(),
            idle_at: Time::default(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Lane {
    /// Batches that fit it.
    capacity: usize,
    queue: VecDeque<Item>,
    /// Connections that wait to be moved along it.
    pub(crate) moves: VecDeque<(LinkId, Vec<u8>)>,
    /// Step until which nothing is taken out.
    opens_at: u64,
    /// Steps from one batch to the next, at most.
    pace: usize,
}

enum Item {
    Batch(Vec<MeshMessage>),
    Connection(LinkId, Vec<u8>),
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) step: u64,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    pub(crate) book: Book,
    pub(crate) links: Vec<Link>,
    /// Links that are not over.
    pub(crate) live: Vec<LinkId>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) lanes: Vec<Lane>,
    /// What brokers are made of, but for their shard.
    pub(crate) setup: BrokerSetup,
    /// One for each shard, unless nothing outlives the process.
    pub(crate) disks: Vec<Disk>,
    pub(crate) storage: Option<Storage>,
    /// The brokers are restored and not started yet.
    pub(crate) is_starting: bool,
    /// What brokers have counted that are no more.
    pub(crate) past: Vec<Counters>,
    /// Largest chunk that a pipe delivers at once.
    chunk_max: usize,
    pub(crate) is_ending: bool,
    /// A broker may have something from a connection that it has not looked at.
    pub(crate) is_waiting: bool,
    /// Output may wait behind CONNACK for other shards.
    pub(crate) holds_connack: bool,
    /// A fault of this world, for those who test the rules: a lane loses what
    /// is published on [`LOST_TOPIC`].
    pub(crate) loses_batches: bool,
}

impl World {
    pub(crate) fn new(
        mut random: Random,
        trace: Trace,
        shards: u16,
        policy: &Policy,
        chunk_max: usize,
    ) -> Self {
        let setup = BrokerSetup {
            shard: ShardId(0),
            shards,
            seed: random.next(),
            secret: [7; 32],
            policy: policy.clone(),
            trace: None,
        };
        let broker = |shard| Broker::new(BrokerSetup { shard: ShardId(shard), ..setup.clone() });
        let all = (0..shards).map(|shard| Shard::new(broker(shard))).collect();
        Self {
            now: Time::from_millis(1),
            step: 0,
            trace,
            stats: Stats::default(),
            book: Book::new(policy.limits.session_expiry_secs_max),
            loses_batches: false,
            holds_connack: !policy.auto_subscribe.is_empty(),
            is_ending: false,
            is_waiting: false,
            links: Vec::new(),
            live: Vec::new(),
            shards: all,
            setup,
            disks: Vec::new(),
            storage: None,
            is_starting: false,
            past: Vec::new(),
            lanes: lanes(&mut random, shards),
            random,
            chunk_max,
        }
    }

    /// The machine comes back with so many shards.
    pub(crate) fn set_shards(&mut self, shards: u16) {
        self.setup.shards = shards;
        self.lanes = lanes(&mut self.random, shards);
    }

    /// The same without lanes that are slow by themselves.
    pub(crate) fn with_steady_lanes(mut self) -> Self {
        self.lanes.iter_mut().for_each(|lane| lane.pace = 1);
        self
    }

    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards.len() as u16).map(ShardId)
    }

    pub(crate) fn broker(&self, shard: ShardId) -> &Broker {
        &self.shards[shard.index()].broker
    }

    /// A client connects to the listener of some shard.
    pub(crate) fn connect(&mut self, client: usize) -> LinkId {
        let shard = ShardId(self.random.below(self.shards.len()) as u16);
        self.connect_to(shard, client)
    }

    pub(crate) fn connect_to(&mut self, shard: ShardId, client: usize) -> LinkId {
        let room = if self.random.chance(30) { self.random.range(1, 200) } else { 1 << 16 };
        let link = self.links.len();
        let before = self.links.iter().filter(|link| link.owner.0 == client).count();
        let room = room.max(self.chunk_max / 4);
        self.links.push(Link::new((client, before), Place::Gone, room));
        self.live.push(link);
        self.open(shard, link);
        link
    }

    /// The client sends a packet.
    pub(crate) fn write(&mut self, link: LinkId, word: Word, bytes: &[u8]) {
        self.links[link].say(word, bytes);
    }

    /// The client reads some of what has arrived.
    pub(crate) fn read(&mut self, link: LinkId) -> Vec<u8> {
        let count = self.chunk();
        take_front(&mut self.links[link].outbound, count)
    }

    /// The network between client and broker fails.
    pub(crate) fn cut(&mut self, link: LinkId) {
        self.stats.cuts += 1;
        let (inbound, outbound) = (self.links[link].inbound.len(), self.links[link].outbound.len());
        let kept = (self.random.below(inbound + 1), self.random.below(outbound + 1));
        self.links[link].sever(kept.0, kept.1);
    }

    /// The client closes its end: what it has sent still arrives.
    pub(crate) fn close(&mut self, link: LinkId) {
        self.links[link].inbound_ends = true;
        self.ignore(link);
    }

    /// The client has no more interest in the connection, but does not close it.
    pub(crate) fn ignore(&mut self, link: LinkId) {
        let link = &mut self.links[link];
        link.ignored = true;
        link.outbound.clear();
    }

    /// Keeps a lane or one end of a connection from being scheduled for a while.
    pub(crate) fn freeze_something(&mut self, steps_max: usize) {
        let until = self.step + self.random.range(10, steps_max) as u64;
        if self.live.is_empty() || self.random.chance(50) {
            let lane = self.random.below(self.lanes.len());
            self.lanes[lane].opens_at = until;
        } else {
            let link = self.random.pick(&self.live);
            let link = &mut self.links[link];
            if self.random.chance(50) {
                link.receives_from = until
            } else {
                link.reads_from = until
            }
        }
    }

    /// Keeps a lane, which now holds one batch, from being emptied until [`World::thaw`].
    pub(crate) fn block_lane(&mut self, from: ShardId, to: ShardId) {
        let lane = self.lane(from, to);
        lane.capacity = 1;
        lane.opens_at = u64::MAX;
    }

    /// Lets everything be scheduled again.
    pub(crate) fn thaw(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.opens_at = 0);
        self.disks.iter_mut().for_each(Disk::thaw);
        for &link in &self.live {
            self.links[link].receives_from = 0;
            self.links[link].reads_from = 0;
        }
    }

    /// The next step at which something that is held up can go on.
    pub(crate) fn next_thaw(&self) -> Option<u64> {
        let lanes = self.lanes.iter().filter(|lane| !lane.queue.is_empty());
        let links = self.live.iter().map(|&link| &self.links[link]);
        let steps = lanes
            .map(|lane| lane.opens_at)
            .chain(links.flat_map(|link| [link.receives_from, link.reads_from]))
            .chain(self.disks.iter().flat_map(Disk::thaws_at));
        steps.filter(|step| *step > self.step).min()
    }

    /// Whether nothing is on its way from shard to shard.
    pub(crate) fn are_lanes_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty())
            && self
                .shards
                .iter()
                .all(|shard| self.shard_ids().all(|to| !shard.broker.mesh_waiting(to)))
    }

    /// When the clock must go on for something to happen.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.shards.iter().filter_map(|shard| shard.broker.next_deadline()).min()
    }

    /// All that can happen now.
    pub(crate) fn enabled(&self, out: &mut Vec<Action>) {
        let now = self.now;
        self.enabled_disks(out);
        for (from, shard) in self.shard_ids().zip(&self.shards) {
            if shard.touched {
                out.push(Action::Turn(from));
            }
            if shard.broker.next_deadline().is_some_and(|at| at <= now) {
                out.push(Action::Advance(from));
            }
            for to in self.shard_ids().filter(|to| *to != from) {
                let lane = &self.lanes[self.lane_at(from, to)];
                let waits = !lane.moves.is_empty() || shard.broker.mesh_waiting(to);
                if waits && lane.queue.len() < lane.capacity {
                    out.push(Action::Put(from, to));
                }
                if !lane.queue.is_empty() && lane.opens_at <= self.step {
                    out.push(Action::Get(from, to));
                }
            }
        }
        for &id in &self.live {
            let link = &self.links[id];
            if matches!(link.place, Place::Shard(..)) && link.receives_from <= self.step {
                let is_empty = link.inbound.is_empty();
                if !is_empty && !link.paused {
                    out.push(Action::Receive(id));
                }
                if link.inbound_ends && (is_empty && !link.paused || link.severed) {
                    out.push(Action::Hangup(id));
                }
            }
            if link.dirty && !link.is_sending() {
                out.push(Action::Take(id));
            }
            if link.can_send() {
                out.push(Action::Send(id));
            }
        }
    }

    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::Turn(shard) => self.turn(shard),
            Action::Advance(shard) => {
                self.turn(shard);
                let now = self.now;
                self.touch(shard).advance(now);
                if !self.is_starting {
                    let links = &self.links;
                    self.book.advance(self.now, shard, |link| links[link].paused);
                }
            }
            Action::Put(from, to) => self.put(from, to),
            Action::Get(from, to) => self.get(from, to),
            Action::Receive(link) => self.receive(link),
            Action::Hangup(link) => self.hang_up(link),
            Action::Take(link) => self.take(link),
            Action::Send(link) => self.send(link),
            Action::Sync(shard) => self.sync(shard),
            Action::Work(shard) => self.work(shard),
            Action::Heal(shard) => self.heal(shard),
            Action::Start => self.start(),
        }
        if mem::take(&mut self.is_waiting) {
            self.look_who_waits();
        }
    }

    /// The book is to hear at once when the broker reads on from a connection.
    fn look_who_waits(&mut self) {
        for shard in self.shard_ids() {
            if self.shards[shard.index()].touched {
                self.turn(shard);
            }
        }
        let is_durable = self.storage.is_some();
        for at in 0..self.live.len() {
            let id = self.live[at];
            self.is_waiting |= self.links[id].paused && is_durable;
            if self.links[id].may_defer() {
                self.hear(id);
            }
        }
    }

    /// The server ends; connections that are still to be moved go nowhere.
    pub(crate) fn shut_down(&mut self) {
        let now = self.now;
        self.is_ending = true;
        for shard in self.shard_ids() {
            self.touch(shard).shut_down(now);
        }
        self.book.shut_down(self.now, self.storage.is_some());
    }

    /// Forgets the links on which nothing can happen any more.
    pub(crate) fn sweep(&mut self) {
        self.live.retain(|&link| !self.links[link].is_over());
    }

    /// Panics unless all that was promised to the shell has been kept.
    pub(crate) fn check_quiet(&self) {
        assert!(self.disks.iter().all(Disk::is_idle), "rule 9: a disk is busy");
        let is_on_disk = |shard: &Shard| shard.broker.is_on_disk();
        let are_on_disk = self.disks.is_empty() || self.shards.iter().all(is_on_disk);
        assert!(are_on_disk, "rule 9: records are left that nobody writes");
        assert!(!self.is_starting, "rule 9: the brokers do not start");
        for (at, lane) in self.lanes.iter().enumerate() {
            assert!(lane.queue.is_empty() && lane.moves.is_empty(), "rule 9: lane {at} is stuck");
        }
        for (id, link) in self.links.iter().enumerate() {
            let settled = matches!(link.place, Place::Shard(..));
            assert!(!(settled && link.paused), "rule 9: link {id} stays paused");
            assert!(!link.is_sending(), "rule 9: link {id} has unsent output");
        }
    }

    fn put(&mut self, from: ShardId, to: ShardId) {
        let now = self.now;
        let coin = self.random.chance(50);
        let waits = self.broker(from).mesh_waiting(to);
        let lane = self.lane_at(from, to);
        let lane = &mut self.lanes[lane];
        if (coin || !waits)
            && let Some((link, bytes)) = lane.moves.pop_front()
        {
            lane.queue.push_back(Item::Connection(link, bytes));
            return;
        }
        let batch = self.touch(from).take_mesh(now, to);
        self.trace.note(|| format!("{now:?} lane {from}>{to} takes {} messages", batch.len()));
        self.stats.batch_messages_max = self.stats.batch_messages_max.max(batch.len());
        self.stats.lane_messages += batch.len() as u64;
        self.stats.lane_batches += 1;
        self.lane(from, to).queue.push_back(Item::Batch(batch));
    }

    fn get(&mut self, from: ShardId, to: ShardId) {
        let now = self.now;
        let step = self.step;
        let wait = self.random.next();
        let lane = self.lane(from, to);
        let Some(item) = lane.queue.pop_front() else { return };
        lane.opens_at = step + wait % lane.pace as u64;
        match item {
            Item::Batch(batch) => {
                self.trace.note(|| format!("lane {from}>{to} gives {:.500}", format!("{batch:?}")));
                if self.loses_batches && format!("{batch:?}").contains(LOST_TOPIC) {
                    return;
                }
                self.touch(to).receive_mesh(now, from, batch);
            }
            Item::Connection(link, _) if self.is_ending => {
                self.links[link].place = Place::Gone;
                self.links[link].outbound_ends = true;
            }
            Item::Connection(link, bytes) => {
                let conn = self.open(to, link);
                self.touch(to).receive(now, conn, &bytes);
                self.hear(link);
            }
        }
    }

    pub(crate) fn touch(&mut self, id: ShardId) -> &mut Broker {
        let shard = &mut self.shards[id.index()];
        if !shard.touched {
            shard.touched = true;
            shard.touched_at = self.now;
        }
        &mut shard.broker
    }

    fn lane_at(&self, from: ShardId, to: ShardId) -> usize {
        from.index() * self.shards.len() + to.index()
    }

    pub(crate) fn lane(&mut self, from: ShardId, to: ShardId) -> &mut Lane {
        let at = self.lane_at(from, to);
        &mut self.lanes[at]
    }

    pub(crate) fn chunk(&mut self) -> usize {
        let max = if self.random.chance(20) { self.chunk_max.min(9) } else { self.chunk_max };
        self.random.range(1, max)
    }
}

/// From each shard to each.
fn lanes(random: &mut Random, shards: u16) -> Vec<Lane> {
    let lane = |_| Lane {
        capacity: random.range(1, 4),
        pace: random.pick(&[1, 1, 20, 300]),
        ..Lane::default()
    };
    (0..usize::from(shards) * usize::from(shards)).map(lane).collect()
}

/// Of all the seeds that a plain `cargo test` runs.
const POWER_CUTS_MIN: u64 = 10_000;
/// See [`World::loses_batches`].
const LOST_TOPIC: &str = "t/1";
