//! One simulation: chooses what happens next, step by step, and leads from the
//! first connection to the last.

use std::rc::Rc;

use ringmq::{
    base::{QoS, ShardId, Time},
    broker::DropReason,
};

use crate::{
    client::{Client, State},
    complete::End,
    oracle::Oracle,
    plan::{self, Kind, Plan},
    profile,
    random::Random,
    recovery, reshard,
    script::{Beat, Case, Event, Recording},
    trace::Trace,
    world::{Action, Stats, World},
};

pub(crate) struct Sim {
    world: World,
    clients: Vec<Client>,
    oracle: Oracle,
    /// Gives each step a seed of its own.
    seeds: Random,
    /// Nobody gets into trouble any more, and nothing is held up.
    calm: bool,
    /// When it is no use to wait longer.
    horizon: Time,
    /// Reused from step to step.
    events: Vec<Event>,
    actions: Vec<Action>,
}

/// Runs a simulation; panics if a rule is broken. Its lively part is noted in `recording`.
pub(crate) fn run(case: &Case, trace: Trace, recording: Option<&Recording>) -> Stats {
    let mut random = Random::new(case.seed);
    let plan = Rc::new(Plan::new(&mut random));
    trace.note(|| format!("{} shards, {:?}", plan.shards, plan.policy));
    let seeds = random.clone();
    let mut world = World::new(random, trace, plan.shards, &plan.policy, plan.chunk_max);
    world.loses_batches = case.loses_batches;
    if let Some(storage) = plan.storage {
        world = world.with_disks(storage);
        world.trace.note(|| format!("{storage:?}"));
    }
    let clients = plan.clients.iter().enumerate();
    let clients = clients.map(|(index, profile)| {
        let mut client = Client::new(index, profile.clone(), world.now);
        if case.absent.contains(&index) {
            client.make_absent();
        } else {
            world.trace.note(|| format!("client {index}: {profile:?}"));
        }
        client
    });
    let mut sim = Sim {
        clients: clients.collect(),
        world,
        oracle: Oracle::new(plan.clone()),
        seeds,
        calm: true,
        horizon: Time::MAX,
        events: Vec::new(),
        actions: Vec::new(),
    };
    let others = sim.clients.split_off(plan.watchers);
    sim.settle();
    sim.clients.extend(others);
    match &case.script {
        Some(beats) => sim.replay(beats),
        None => sim.live(recording),
    }
    sim.calm = true;
    sim.world.thaw();
    if plan.refuses {
        sim.world.make_room();
        sim.cut_power();
    }
    // From here on, chance does not depend on what was left out.
    sim.seeds = Random::new(!case.seed);
    if plan.stops_early {
        sim.stop(HORIZON_SECS);
        return sim.stats();
    }
    sim.settle();
    sim.check();
    sim.answer_all();
    sim.welcome_newcomers();
    sim.end();
    sim.stats()
}

impl Sim {
    /// Traffic and troubles until there are no more, or it has been enough.
    fn live(&mut self, recording: Option<&Recording>) {
        self.calm = false;
        self.horizon = Time::MAX;
        let until = self.world.step + LIVE_STEPS_MAX;
        let mut comes_back_at = self.oracle.plan.comes_back.then_some(COMES_BACK_STEP);
        while self.world.step < until && self.clients.iter().any(Client::is_lively) {
            let seed = self.seeds.next();
            self.begin_step(seed);
            let chosen = self.choose();
            let comes_back = comes_back_at.take_if(|step| *step <= self.world.step).is_some();
            let event = if comes_back { Event::ComeBack } else { chosen };
            if let Some(recording) = recording {
                recording.borrow_mut().push(Beat::new(&self.world, seed, event));
            }
            if !self.perform(event) {
                return;
            }
            self.bring_faults();
        }
    }

    /// The same from a script: what is not possible now is left out.
    fn replay(&mut self, beats: &[Beat]) {
        self.calm = false;
        self.horizon = Time::MAX;
        for beat in beats {
            self.begin_step(beat.seed);
            self.choose();
            let event = beat.event(&self.world);
            let can_be = |event: &Event| *event == Event::ComeBack || self.events.contains(event);
            if let Some(event) = event.filter(can_be) {
                self.perform(event);
                self.bring_faults();
            }
        }
    }

    /// Lets everything come to rest.
    fn settle(&mut self) {
        self.settle_within(HORIZON_SECS);
    }

    fn settle_within(&mut self, secs: u64) {
        self.horizon = self.world.now.plus_secs(secs);
        let until = self.world.step + SETTLE_STEPS_MAX;
        self.world.trace.note(|| "-- settling".into());
        loop {
            let seed = self.seeds.next();
            self.begin_step(seed);
            let event = self.choose();
            if !self.perform(event) {
                break;
            }
            assert!(self.world.step < until, "rule 9: no rest after {SETTLE_STEPS_MAX} steps");
        }
        self.world.check_quiet();
        for client in &self.clients {
            let rests = client.has_left || client.state == State::Connected;
            assert!(rests, "rule 9: client {} is {:?}", client.index, client.state);
            assert!(
                client.has_left || client.has_nothing_open(),
                "rule 9: client {} waits: {:?} {:?} {:?} {:?}",
                client.index,
                client.requests,
                client.outgoing,
                client.in_use,
                client.received,
            );
        }
    }

    /// The clock may tick; all chance until the next step comes from `seed`.
    fn begin_step(&mut self, seed: u64) {
        self.world.random = Random::new(seed);
        self.world.step += 1;
        if self.world.random.below(10) == 0 {
            let millis = self.world.random.below(20) as u64;
            self.world.now = self.world.now.plus_millis(millis);
        }
        if self.world.step.is_multiple_of(SWEEP_STEPS) {
            self.world.sweep();
        }
    }

    /// One event from all that can happen.
    fn choose(&mut self) -> Event {
        self.collect_events();
        if self.events.is_empty() {
            self.events.push(Event::Wait);
        }
        self.world.random.pick(&self.events)
    }

    /// False if nothing can ever happen any more.
    fn perform(&mut self, event: Event) -> bool {
        match event {
            Event::World(action) => self.world.perform(action),
            Event::Act(client) => {
                self.clients[client].act(&mut self.world, &mut self.oracle, self.calm);
            }
            Event::Read(client) => self.clients[client].read(&mut self.world, &mut self.oracle),
            Event::Closed(client) => self.clients[client].closed_by_broker(&mut self.world),
            Event::ReadDisplaced(client) => self.clients[client].read_displaced(&mut self.world),
            Event::Wait => return self.wait(),
            Event::ComeBack => self.come_back(),
        }
        for news in self.world.book.news.drain(..) {
            self.world.trace.note(|| format!("book: {news:?}"));
            self.oracle.learn(news, self.world.step);
        }
        if let Event::World(Action::Advance(shard)) = event
            && self.oracle.plan.features.delays
        {
            let (wait, expected) = (self.delayed(shard), self.oracle.delayed(shard));
            assert_eq!(wait, expected, "rule 17: publications that wait on shard {shard}");
        }
        self.oracle.claims.look_around(&self.world);
        self.oracle.look_for_relaxed(&mut self.world);
        true
    }

    fn delayed(&self, shard: ShardId) -> usize {
        self.world.broker(shard).summary().delayed()
    }

    /// What nobody has asked for; see [`Plan`] and [`World::freeze_something`].
    fn bring_faults(&mut self) {
        let plan = self.oracle.plan.clone();
        if self.world.random.below(150) == 0 {
            self.world.freeze_something(plan.freeze_max);
        }
        if self.world.random.below(10_000) < plan.jumps {
            let secs = self.world.random.pick(&JUMPS_SECS);
            self.world.trace.note(|| format!("-- the clock jumps {secs} s"));
            self.world.now = self.world.now.plus_secs(secs);
            self.world.stats.jumps += 1;
        }
        if self.world.random.below(10_000) < plan.power_cuts {
            self.cut_power();
        }
        if let Some(storage) = plan.storage
            && self.world.random.below(10_000) < storage.disk_faults
        {
            self.world.bring_disk_fault(plan.freeze_max);
        }
        if self.world.random.below(10_000) < plan.losses {
            let shard = self.world.random.below(self.world.shards.len());
            self.world.trace.note(|| format!("-- shard {shard} loses its clients"));
            for client in &mut self.clients {
                let place = client.link.map(|link| self.world.links[link].place);
                if client.state != State::Closing
                    && place.and_then(|place| place.shard()).is_some_and(|at| at.index() == shard)
                {
                    client.cut(&mut self.world);
                }
            }
        }
    }

    /// The whole machine ends without notice, and begins again some time later with what is on its
    /// disks.
    fn cut_power(&mut self) {
        self.world.trace.note(|| "-- the power fails".into());
        self.world.stats.power_cuts += 1;
        // What the clients read in its last moment was promised no more than the rest.
        for client in &mut self.clients {
            client.lose_machine(&mut self.world, &mut self.oracle);
        }
        let Self { world, oracle, .. } = self;
        world.stats.relaxed_lost += oracle.relaxed.forget(&mut oracle.messages);
        self.restart();
    }

    /// The server ends in an orderly way: nothing is lost, whatever is relaxed.
    fn come_back(&mut self) {
        self.world.trace.note(|| "-- the server ends".into());
        self.world.stats.returns += 1;
        let own = Random::new(self.world.random.next());
        let seeds = std::mem::replace(&mut self.seeds, own);
        let have_left: Vec<_> = self.clients.iter().map(|client| client.has_left).collect();
        self.world.thaw();
        self.calm = true;
        self.stop(0);
        for shard in self.world.shard_ids() {
            let is_on_disk = self.world.broker(shard).is_on_disk();
            assert!(is_on_disk, "rule 9: shard {shard} does not end");
        }
        for client in &mut self.clients {
            client.lose_machine(&mut self.world, &mut self.oracle);
        }
        self.restart();
        for (client, has_left) in self.clients.iter_mut().zip(have_left) {
            client.has_left = has_left;
        }
        self.seeds = seeds;
        self.calm = false;
        self.horizon = Time::MAX;
    }

    /// The process is no more, and another one begins with what the disks have.
    fn restart(&mut self) {
        self.world.power_off();
        let millis = self.world.random.pick(&[0, 5, 900, 5_000, 100_000]);
        self.world.now = self.world.now.plus_millis(millis);
        let logs = self.world.recover();
        for log in &logs {
            self.world.trace.note(|| format!("   left: {:?}", log.shard));
        }
        let Self { world, oracle, clients, .. } = self;
        recovery::check_what_is_left(world, oracle, clients, &logs);
        let shards = match oracle.plan.changes_shards && world.random.chance(60) {
            true => world.random.range(1, SHARDS_MAX) as u16,
            false => world.setup.shards,
        };
        let logs = match shards == world.setup.shards {
            true => logs,
            false => reshard::reshard(world, oracle, clients, logs, shards),
        };
        self.world.power_on(logs);
    }

    fn collect_events(&mut self) {
        self.actions.clear();
        self.world.enabled(&mut self.actions);
        self.events.clear();
        self.events.extend(self.actions.iter().copied().map(Event::World));
        for (at, client) in self.clients.iter().enumerate() {
            if client.can_act(&self.world, self.calm) {
                self.events.push(Event::Act(at));
            }
            if let Some((old, _)) = &client.displaced {
                let old = &self.world.links[*old];
                if !old.outbound.is_empty() || old.outbound_ends {
                    self.events.push(Event::ReadDisplaced(at));
                }
            }
            let Some(link) = client.link.map(|link| &self.world.links[link]) else { continue };
            if link.reads_from > self.world.step {
                continue;
            }
            if !link.outbound.is_empty() {
                self.events.push(Event::Read(at));
            } else if link.outbound_ends {
                self.events.push(Event::Closed(at));
            }
        }
    }

    /// Nothing can happen now: goes to when something can.
    fn wait(&mut self) -> bool {
        if let Some(step) = self.world.next_thaw() {
            self.world.step = step;
            return true;
        }
        let now = self.world.now;
        let clients = self.clients.iter().filter(|client| !client.has_left);
        let clients = clients.filter_map(|client| match client.state {
            State::Idle { at, .. } => Some(at),
            _ => None,
        });
        let times = clients.chain(self.world.next_deadline());
        let Some(next) = times.filter(|at| *at > now).min() else { return false };
        if next > self.horizon {
            return false;
        }
        self.world.trace.note(|| format!("-- clock {next:?}"));
        self.world.now = next;
        true
    }

    fn check(&mut self) {
        let counters = self.world.shard_ids().map(|shard| {
            let broker = self.world.broker(shard);
            *broker.summary().counters()
        });
        let counters = counters.chain(self.world.past.iter().copied());
        let end = End { now: self.world.now, counters: counters.collect() };
        let refuses = self.oracle.plan.refuses;
        for reason in NEVER.into_iter().filter(|one| !refuses || *one != DropReason::Storage) {
            assert_eq!(end.drops(reason), 0, "rule 2: dropped: {}", reason.name());
        }
        let members_stay = self.oracle.plan.policy.limits.session_expiry_secs_max == u32::MAX;
        assert!(end.drops(DropReason::NoMember) == 0 || !members_stay, "rule 6: no member");
        if !self.oracle.plan.tight {
            for reason in [DropReason::QueueMessages, DropReason::QueueBytes] {
                assert_eq!(end.drops(reason), 0, "rule 2: dropped: {}", reason.name());
            }
            // All messages together would not pass what one client may leave unread.
            let slow = end.drops(DropReason::SlowConsumer);
            assert!(slow == 0 || self.oracle.plan.bulky, "rule 2: {slow} dropped unread");
        }
        self.world.stats.expired += end.drops(DropReason::Expired);
        self.world.stats.too_large += end.drops(DropReason::PacketTooLarge);
        self.world.stats.overflows += end.drops(DropReason::QueueMessages)
            + end.drops(DropReason::QueueBytes)
            + end.drops(DropReason::SlowConsumer);
        self.oracle.check_complete(&self.clients, &end);
        if !self.oracle.plan.tight {
            self.oracle.check_answers(&self.clients, end.now);
        }
    }

    /// Rule 16: each client that has registered asks once.
    fn answer_all(&mut self) {
        let plan = self.oracle.plan.clone();
        let before = self.oracle.counts.clone();
        let mut asks = Vec::new();
        for (at, client) in self.clients.iter_mut().enumerate() {
            let mut filters = client.active.keys().map(|&filter| &plan.filters[filter]);
            let filter = filters.find(|filter| filter.kind == Kind::Request);
            if let Some(filter) = filter.filter(|_| client.state == State::Connected) {
                let topic = plan.topic_of(&filter.text);
                client.ask(&mut self.world, &mut self.oracle, topic, QoS::AtMostOnce);
                asks.push((at, filter));
            }
        }
        self.settle();
        for (at, filter) in asks {
            self.oracle.check_answer(&self.clients[at], filter, &before, self.world.now);
        }
    }

    /// Rule 15: what is free can be had.
    fn claim_all(&mut self) {
        let filters = self.oracle.plan.filters.iter().enumerate();
        let exclusive = filters.filter(|(_, filter)| filter.kind == Kind::Exclusive);
        let exclusive: Vec<usize> = exclusive.map(|(position, _)| position).collect();
        let Some(client) = self.clients.iter_mut().find(|client| !client.has_left) else { return };
        client.profile.filters.clone_from(&exclusive);
        let at = client.index;
        self.settle();
        let has_all = exclusive.iter().all(|filter| self.clients[at].active.contains_key(filter));
        assert!(has_all, "rule 15: what nobody has is refused");
    }

    /// Rule 5, after all has come to rest.
    fn welcome_newcomers(&mut self) {
        let first = self.clients.len();
        for filter in plan::ALL_RETAINED {
            for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
                let index = self.clients.len();
                let name = format!("new{index}-{:x}", self.seeds.below(1 << 16));
                let mut profile = profile::subscriber(name, filter, qos);
                profile.automatic.clone_from(&self.oracle.plan.automatic);
                self.clients.push(Client::new(index, profile, self.world.now));
            }
        }
        self.settle();
        for client in &self.clients[first..] {
            self.oracle.check_newcomer(client, self.world.now);
        }
    }

    /// The server ends whatever its clients are about: all connections end, the wills are not
    /// published, and v5 clients are told why.
    fn stop(&mut self, secs: u64) {
        for client in &mut self.clients {
            client.has_left = true;
        }
        self.world.shut_down();
        self.settle_within(secs);
        for shard in self.world.shard_ids() {
            let summary = self.world.broker(shard).summary().to_string();
            assert!(summary.starts_with("connections=0 "), "rule 10: {summary}");
        }
    }

    /// Rule 10: nothing is left when all sessions are ended.
    fn end(&mut self) {
        for client in &mut self.clients {
            client.restart(&mut self.world);
        }
        self.settle();
        for client in &mut self.clients {
            client.find_nobody();
        }
        self.settle();
        self.claim_all();
        let by_server = self.seeds.chance(50);
        for client in &mut self.clients {
            if by_server {
                client.has_left = true;
            } else {
                client.leave(&mut self.world);
            }
        }
        if by_server {
            self.world.shut_down();
        }
        self.settle();
        let mut retained = 0;
        for shard in self.world.shard_ids() {
            let summary = self.world.broker(shard).summary();
            let text = summary.to_string();
            assert!(text.starts_with("connections=0 sessions=0 "), "rule 10: {summary}");
            assert_eq!(summary.filters(), 0, "rule 10: {summary}");
            assert_eq!(summary.delayed(), 0, "rule 10: {summary}");
            retained += summary.retained();
        }
        let retained_max = self.oracle.retained_max();
        let is_known = !self.oracle.plan.refuses;
        assert!(
            !is_known || retained <= retained_max,
            "rule 10: {retained} retained of {retained_max}"
        );
    }

    fn stats(self) -> Stats {
        Stats {
            steps: self.world.step,
            wills: self.oracle.wills,
            delayed: self.oracle.delayed_in_all,
            sessions_expired: self.world.book.sessions_expired,
            ..self.world.stats
        }
    }
}

/// What no client gives reason for.
const NEVER: [DropReason; 3] =
    [DropReason::RetainedFull, DropReason::ReservedTopic, DropReason::Storage];

const SHARDS_MAX: usize = 5;
const COMES_BACK_STEP: u64 = 4_000;
const LIVE_STEPS_MAX: u64 = 30_000;
const SETTLE_STEPS_MAX: u64 = 2_000_000;
const SWEEP_STEPS: u64 = 64;
/// Longer than any delay or keep-alive of a plan.
const HORIZON_SECS: u64 = 60;
const JUMPS_SECS: [u64; 5] = [1, 3, 11, 60, 4_000];
