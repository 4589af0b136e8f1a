//! What a simulation is about, drawn from its seed: limits, topics, filters,
//! faults. What each client is like is in `profile`.

use ringmq::{
    base::{QoS, limits},
    codec::Version,
    config::{Limits, Policy, SlowConsumer},
    topic::{RewriteScope, Strategies, Strategy, TopicFilter, TopicName},
};

use crate::{
    features::{Features, OLD},
    power::{ROOM, Storage},
    profile::{self, Profile},
    random::Random,
};

pub(crate) struct Topic {
    pub(crate) name: String,
    /// It is published to with this delay.
    pub(crate) delay_secs: Option<u32>,
    /// One client publishes to it, always with RETAIN and this QoS.
    pub(crate) retained: Option<QoS>,
}

/// One of the filters that clients subscribe to.
pub(crate) struct Filter {
    pub(crate) text: String,
    pub(crate) kind: Kind,
    parsed: TopicFilter,
}

/// What a subscription to a filter brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Plain,
    /// To one member of a group: `$share/NAME/` or `$queue/`.
    Shared,
    /// To one session: `$exclusive/`.
    Exclusive,
    /// Retained messages on request: `$request/`.
    Request,
}

impl Filter {
    pub(crate) fn new(text: &str) -> Self {
        let kind = match text.split('/').next() {
            Some("$share" | "$queue") => Kind::Shared,
            Some("$exclusive") => Kind::Exclusive,
            Some("$request") => Kind::Request,
            _ => Kind::Plain,
        };
        Self { text: text.to_owned(), kind, parsed: TopicFilter::parse(text).unwrap() }
    }

    /// What a request for something like this is a request for: the filter, or a single topic.
    pub(crate) fn answers(&self, ask: &Self) -> bool {
        let is_topic = || TopicName::parse(ask.parsed.pattern());
        self.kind == Kind::Request
            && (self.text == ask.text || is_topic().is_ok_and(|topic| self.parsed.matches(topic)))
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.parsed.matches(TopicName::parse(topic).unwrap())
    }
}

pub(crate) struct Plan {
    pub(crate) shards: u16,
    pub(crate) policy: Policy,
    pub(crate) chunk_max: usize,
    /// Longest time that something is held up, in steps.
    pub(crate) freeze_max: usize,
    pub(crate) topics: Vec<Topic>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) clients: Vec<Profile>,
    pub(crate) features: Features,
    /// Topics that ask for retained messages.
    pub(crate) asks: Vec<usize>,
    /// Positions of filters that each new session gets of itself.
    pub(crate) automatic: Vec<usize>,
    /// No member of a shared subscription ever leaves it.
    pub(crate) members_stay: bool,
    /// The first clients, which subscribe before anything happens: to everything,
    /// or as a member of each shared subscription.
    pub(crate) watchers: usize,
    /// Messages so large that lanes fill and reading pauses. It is not known then
    /// when the broker looks at a packet, so there are neither wills nor expiry.
    pub(crate) bulky: bool,
    /// Queues are so short that messages are dropped from them.
    pub(crate) tight: bool,
    /// The server ends in the middle of it all.
    pub(crate) stops_early: bool,
    /// How often the clock jumps far ahead, in 10,000 steps.
    pub(crate) jumps: usize,
    /// How often all clients of one shard are lost, likewise.
    pub(crate) losses: usize,
    /// The logs, if there are any.
    pub(crate) storage: Option<Storage>,
    /// How often the power fails, likewise.
    pub(crate) power_cuts: usize,
    /// The server ends in the middle of it all and begins again.
    pub(crate) comes_back: bool,
    /// The machine may come back with another number of shards.
    pub(crate) changes_shards: bool,
    /// Publications to topics that match are acknowledged before they are on disk.
    pub(crate) relaxed: Option<Filter>,
    /// A disk may be full, or refuse to write.
    pub(crate) refuses: bool,
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let bulky = random.chance(1);
        let tight = !bulky && random.chance(10);
        // In some simulations, all is about few retained messages.
        let retains = !bulky && random.chance(25);
        let clients = random.range(3, if bulky { 4 } else { 10 });
        let watchers = random.range(1, 2);
        let mut policy = policy(random);
        if tight {
            policy.limits.queue_messages_max = random.range(1, 8) as u32;
            policy.limits.queue_bytes_max = 20_000;
        }
        if !bulky && random.chance(20) {
            policy.limits.session_expiry_secs_max = random.pick(&[0, 1, 4, 60]);
        }
        let mut features = if bulky { Features::default() } else { Features::new(random) };
        // From a source of its own: the seeds without logs stay as they were.
        let mut own = Random::new(random.clone().next());
        let storage = (!bulky && own.chance(50)).then(|| storage(&mut own));
        let refuses = storage.is_some_and(|storage| storage.may_refuse());
        if refuses {
            features.delays = false;
            features.exclusive = false;
            features.automatic = None;
        }
        // By the User Name it is known which connection a log tells of.
        features.authenticates &= storage.is_none();
        features.configure(&mut policy);
        let shared = match (features.automatic.is_some(), random.chance(30)) {
            (true, _) => SHARED_APART,
            (false, true) => SHARED_QUEUE,
            (false, false) => SHARED,
        };
        let sessions_last = policy.limits.session_expiry_secs_max == u32::MAX;
        let mut plan = Self {
            shards: random.range(1, 4) as u16,
            policy,
            chunk_max: if bulky { 1 << 19 } else { random.pick(&[40, 300, 4000]) },
            freeze_max: if bulky { 3000 } else { 500 },
            topics: PLAIN.iter().map(|name| topic((*name).into(), None)).collect(),
            filters: FILTERS.iter().chain(shared).map(|text| Filter::new(text)).collect(),
            clients: Vec::new(),
            features,
            asks: Vec::new(),
            automatic: Vec::new(),
            members_stay: sessions_last && random.chance(70),
            watchers,
            bulky,
            tight,
            stops_early: random.chance(5),
            jumps: if bulky { 0 } else { random.pick(&[0, 5, 50]) },
            losses: random.pick(&[0, 0, 20]),
            storage,
            refuses,
            power_cuts: storage.map_or(0, |_| own.pick(&[0, 5, 20, 60])),
            relaxed: None,
            comes_back: false,
            changes_shards: storage.is_some() && own.chance(40),
        };
        if storage.is_some() && own.chance(30) {
            plan.relax(&mut own);
        }
        plan.comes_back |= storage.is_some() && own.chance(10);
        for index in 0..watchers {
            plan.clients.push(profile::watcher(random, index, ALL));
        }
        for group in 0..SHARED.len() {
            plan.clients.push(profile::shared_watcher(random, group, FILTERS.len() + group));
        }
        let watchers = plan.clients.len();
        plan.watchers = watchers;
        for index in watchers..watchers + clients {
            let mut profile = Profile::ordinary(random, &mut plan, index, retains);
            if retains {
                profile.only_retain(random);
            } else if random.chance(25) {
                let group = random.below(SHARED.len());
                profile.share(group, FILTERS.len() + group, plan.members_stay);
            }
            plan.clients.push(profile);
        }
        if refuses {
            // Others cannot be told.
            plan.clients.iter_mut().for_each(|profile| profile.version = Version::V5);
        }
        features.equip(random, &mut plan);
        plan
    }

    fn relax(&mut self, random: &mut Random) {
        let filter = Filter::new(random.pick(&["t/#", "s/#", "r/#", "#"]));
        self.policy.durability.relaxed_millis_max = random.pick(&[1, 50, 2_000]);
        if !self.refuses && random.chance(20) {
            // A loss of power could cost anything then, an orderly end nothing.
            self.policy.durability.relaxed = true;
            self.power_cuts = 0;
            self.comes_back = true;
            return;
        }
        self.policy.durability.relaxed_topics.push(filter.parsed.clone());
        self.relaxed = Some(filter);
    }

    pub(crate) fn add_filter(&mut self, text: &str) -> usize {
        self.filters.push(Filter::new(text));
        self.filters.len() - 1
    }

    /// What a client may write for a topic: also what is read as that.
    pub(crate) fn write_topic(&self, random: &mut Random, topic: usize) -> String {
        let Topic { name, delay_secs, .. } = &self.topics[topic];
        if self.asks.contains(&topic) {
            return self.write_filter(random, name);
        }
        let old = if self.rewrites(random, RewriteScope::Publish) { OLD } else { "" };
        match delay_secs {
            Some(secs) => format!("$delayed/{secs}/{old}{name}"),
            None => format!("{old}{name}"),
        }
    }

    /// The same for a filter.
    pub(crate) fn write_filter(&self, random: &mut Random, text: &str) -> String {
        if !self.rewrites(random, RewriteScope::Subscribe) {
            return text.to_owned();
        }
        // What one of the prefixes stands in front of is rewritten alone.
        let levels = match text.split('/').next() {
            Some("$share") => 2,
            Some(first) => usize::from(first.starts_with('$')),
            None => 0,
        };
        let start = text.match_indices('/').nth(levels.wrapping_sub(1)).map_or(0, |(at, _)| at + 1);
        format!("{}{OLD}{}", &text[..start], &text[start..])
    }

    fn rewrites(&self, random: &mut Random, scope: RewriteScope) -> bool {
        let has = |rule| rule == scope || rule == RewriteScope::All;
        self.features.rewrite.is_some_and(has) && random.chance(50)
    }

    /// A topic for one client to publish retained messages to.
    pub(crate) fn add_retained(&mut self, qos: QoS) -> usize {
        let name = format!("r/{}", self.topics.len());
        self.add_topic(name, Some(qos))
    }

    pub(crate) fn add_topic(&mut self, name: String, retained: Option<QoS>) -> usize {
        self.topics.push(topic(name, retained));
        self.topics.len() - 1
    }

    pub(crate) fn topic_of(&self, name: &str) -> usize {
        let found = self.topics.iter().position(|topic| topic.name == name);
        found.unwrap_or_else(|| panic!("unknown topic {name}"))
    }
}

/// Bounds large enough that nothing is dropped, windows small enough to fill.
pub(crate) fn policy(random: &mut Random) -> Policy {
    let limits = Limits {
        packet_bytes_max: 4 << 20,
        receive_maximum: random.range(1, 20) as u16,
        topic_alias_maximum: random.below(6) as u16,
        client_topic_aliases_max: random.below(6) as u16,
        maximum_qos: QoS::ExactlyOnce,
        retain_available: true,
        wildcard_subscription_available: true,
        shared_subscription_available: true,
        subscription_identifiers_available: true,
        keep_alive_secs_max: 0,
        session_expiry_secs_max: u32::MAX,
        inflight_max: random.range(1, 30) as u16,
        queue_messages_max: 1 << 20,
        queue_bytes_max: 1 << 30,
        queue_qos0: random.chance(50),
        output_bytes_max: limits::OUTPUT_BYTES_MAX,
        output_stalled_secs_max: 0,
        slow_consumer: SlowConsumer::Drop,
        connections_max: 1000,
        connect_timeout_secs: 10,
        sessions_max: 1 << 20,
        subscriptions_max: 100,
        retained_messages_max: 1 << 20,
        retained_bytes_max: 1 << 30,
        delayed_messages_max: 1 << 20,
        delayed_bytes_max: 1 << 30,
        memory_bytes_max: None,
        ..Limits::default()
    };
    Policy { limits, shared: strategies(random.clone()), ..Policy::default() }
}

fn storage(random: &mut Random) -> Storage {
    let segment_bytes = random.pick(&[1 << 10, 4 << 10, 16 << 10]);
    let is_small = random.chance(15);
    Storage {
        segment_bytes,
        bytes_max: if is_small { 8 * u64::from(segment_bytes) } else { ROOM },
        pace: random.pick(&[1, 1, 10, 100]),
        disk_faults: if random.chance(15) { 30 } else { 0 },
    }
}

/// One for the group `one`, another for the others.
fn strategies(mut random: Random) -> Strategies {
    let default = random.pick(&Strategy::ALL);
    Strategies { default, by_prefix: vec![("on".into(), random.pick(&Strategy::ALL))] }
}

fn topic(name: String, retained: Option<QoS>) -> Topic {
    Topic { name, delay_secs: None, retained }
}

/// Topics that anybody publishes to, at any QoS.
pub(crate) const PLAIN: [&str; 6] = ["t/0", "t/1", "t/2", "u/x/0", "s/0", "s/1"];

pub(crate) const FILTERS: &[&str] = &[
    "#", "t/0", "t/1", "t/+", "t/#", "+/1", "u/x/0", "u/+/+", "u/#", "r/#", "r/+", "+/7", "r/6",
    "r/7", "r/8", "s/#", "w/#",
];

/// Position of `#` in [`FILTERS`].
const ALL: usize = 0;
/// Positions of filters that match every retained topic of the plans.
pub(crate) const ALL_RETAINED: [usize; 2] = [9, 10];

const SHARED: &[&str] = &["$share/one/s/+", "$share/two/s/0", "$share/three/#"];
/// One of them without a name.
const SHARED_QUEUE: &[&str] = &["$share/one/s/+", "$queue/s/0", "$share/three/#"];
/// Their members get nothing of what all clients are subscribed to by themselves.
const SHARED_APART: &[&str] = &["$share/one/s/+", "$queue/s/0", "$share/three/t/#"];
