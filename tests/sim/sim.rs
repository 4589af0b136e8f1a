//! One simulation: chooses what happens next, step by step, and leads from the
//! first connection to the last.

use std::rc::Rc;

use ringmq::{base::QoS, broker::DropReason};

use crate::{
    client::{Client, State},
    oracle::Oracle,
    plan::{self, Plan},
    random::Random,
    trace::Trace,
    world::{Action, Stats, World},
};

#[derive(Clone, Copy, Debug)]
enum Event {
    World(Action),
    Act(usize),
    Read(usize),
    Closed(usize),
}

pub(crate) struct Sim {
    pub(crate) world: World,
    clients: Vec<Client>,
    oracle: Oracle,
    /// Nobody gets into trouble any more, and nothing is held up.
    calm: bool,
    /// Reused from step to step.
    events: Vec<Event>,
    actions: Vec<Action>,
}

/// Runs the simulation of one seed; panics if a rule is broken.
pub(crate) fn run(seed: u64, trace: Trace) -> Stats {
    let mut random = Random::new(seed);
    let plan = Rc::new(Plan::new(&mut random));
    trace.note(|| format!("{} shards, {:?}", plan.shards, plan.policy));
    let world = World::new(random, trace, plan.shards, &plan.policy, plan.chunk_max);
    let clients = plan.clients.iter().enumerate();
    let clients = clients.map(|(index, profile)| {
        world.trace.note(|| format!("client {index}: {profile:?}"));
        Client::new(index, profile.clone(), world.now)
    });
    let mut sim = Sim {
        clients: clients.collect(),
        world,
        oracle: Oracle::new(plan.clone()),
        calm: true,
        events: Vec::new(),
        actions: Vec::new(),
    };
    let others = sim.clients.split_off(plan.watchers);
    sim.settle();
    sim.clients.extend(others);
    sim.live();
    sim.settle();
    sim.check();
    sim.welcome_newcomers();
    sim.end();
    sim.world.stats.steps = sim.world.step;
    sim.world.stats
}

impl Sim {
    /// Traffic and troubles until there are no more, or it has been enough.
    fn live(&mut self) {
        self.calm = false;
        let until = self.world.step + LIVE_STEPS_MAX;
        while self.world.step < until && self.clients.iter().any(Client::is_lively) && self.step() {
            if self.world.random.below(150) == 0 {
                self.world.freeze_something(self.oracle.plan.freeze_max);
            }
        }
        self.calm = true;
        self.world.thaw();
    }

    /// Lets everything come to rest.
    pub(crate) fn settle(&mut self) {
        let horizon = self.world.now.plus_secs(HORIZON_SECS);
        let until = self.world.step + SETTLE_STEPS_MAX;
        self.world.trace.note(|| "-- settling".into());
        while self.step() {
            assert!(self.world.step < until, "rule 9: no rest after {SETTLE_STEPS_MAX} steps");
            if self.world.now > horizon {
                break;
            }
        }
        self.world.check_quiet();
        for client in &self.clients {
            let rests = client.has_left || client.state == State::Connected;
            assert!(rests, "rule 9: client {} is {:?}", client.index, client.state);
            assert!(
                client.has_nothing_open(),
                "rule 9: client {} waits: {:?} {:?} {:?} {:?}",
                client.index,
                client.requests,
                client.outgoing,
                client.in_use,
                client.received,
            );
        }
    }

    /// One event, chosen from all that can happen; false if none ever can.
    fn step(&mut self) -> bool {
        self.world.step += 1;
        if self.world.random.below(10) == 0 {
            let millis = self.world.random.below(20) as u64;
            self.world.now = self.world.now.plus_millis(millis);
        }
        if self.world.step.is_multiple_of(SWEEP_STEPS) {
            self.world.sweep();
        }
        self.collect_events();
        if self.events.is_empty() {
            if let Some(step) = self.world.next_thaw() {
                self.world.step = step;
                return true;
            }
            return self.advance_clock();
        }
        let event = self.world.random.pick(&self.events);
        match event {
            Event::World(action) => self.world.perform(action),
            Event::Act(client) => {
                self.clients[client].act(&mut self.world, &mut self.oracle, self.calm);
            }
            Event::Read(client) => self.clients[client].read(&mut self.world, &mut self.oracle),
            Event::Closed(client) => {
                self.clients[client].closed_by_broker(&mut self.world, &mut self.oracle);
            }
        }
        true
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
    fn advance_clock(&mut self) -> bool {
        let now = self.world.now;
        let clients = self.clients.iter().filter_map(|client| match client.state {
            State::Idle { at, .. } => Some(at),
            _ => None,
        });
        let times = clients.chain(self.world.next_deadline());
        let Some(next) = times.filter(|at| *at > now).min() else { return false };
        self.world.trace.note(|| format!("-- clock {next:?}"));
        self.world.now = next;
        true
    }

    fn check(&self) {
        let mut slow = 0;
        for shard in self.world.shard_ids() {
            let summary = self.world.broker(shard).summary();
            slow += summary.counters().drops(DropReason::SlowConsumer);
            for reason in NEVER {
                assert_eq!(summary.counters().drops(reason), 0, "{}", reason.name());
            }
        }
        self.oracle.check_complete(&self.clients, slow > 0);
    }

    /// Rule 5, after all has come to rest.
    fn welcome_newcomers(&mut self) {
        let first = self.clients.len();
        for filter in plan::ALL_RETAINED {
            for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
                let index = self.clients.len();
                let name = format!("new{index}-{:x}", self.world.random.below(1 << 16));
                let profile = plan::subscriber(name, filter, qos);
                self.clients.push(Client::new(index, profile, self.world.now));
            }
        }
        self.settle();
        for client in &self.clients[first..] {
            self.oracle.check_newcomer(client);
        }
    }

    /// Rule 10: no session is left when all are ended.
    fn end(&mut self) {
        for client in &mut self.clients {
            client.restart(&mut self.world, &mut self.oracle);
        }
        self.settle();
        for client in &mut self.clients {
            client.find_nobody();
        }
        self.settle();
        let by_server = self.world.random.chance(50);
        for client in &mut self.clients {
            if by_server {
                client.has_left = true;
            } else {
                client.leave(&mut self.world, &mut self.oracle);
            }
        }
        if by_server {
            self.world.shut_down();
        }
        self.settle();
        for shard in self.world.shard_ids() {
            let summary = self.world.broker(shard).summary().to_string();
            assert!(summary.starts_with("connections=0 sessions=0 "), "rule 10: {summary}");
        }
    }
}

/// What no client gives reason for.
const NEVER: [DropReason; 7] = [
    DropReason::QueueMessages,
    DropReason::QueueBytes,
    DropReason::PacketTooLarge,
    DropReason::Expired,
    DropReason::NoMember,
    DropReason::RetainedFull,
    DropReason::ReservedTopic,
];

const LIVE_STEPS_MAX: u64 = 30_000;
const SETTLE_STEPS_MAX: u64 = 2_000_000;
const SWEEP_STEPS: u64 = 64;
/// Longer than any delay or keep-alive of a plan.
const HORIZON_SECS: u64 = 60;
