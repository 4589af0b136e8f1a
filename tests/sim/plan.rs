//! What a simulation is about, drawn from its seed: limits, topics, filters
//! and what each client is like.

use ringmq::{
    base::QoS,
    codec::Version,
    config::{Limits, Policy},
    topic::{Strategies, Strategy, TopicFilter, TopicName},
};

use crate::random::Random;

/// What a topic is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Anybody publishes to it, at any QoS.
    Plain,
    /// One client publishes to it, always with RETAIN and one QoS.
    Retained(QoS),
    /// The will of one client.
    Will,
}

pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) purpose: Use,
}

/// One of the filters that clients subscribe to.
pub(crate) struct Filter {
    pub(crate) text: &'static str,
    parsed: TopicFilter,
}

impl Filter {
    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.parsed.matches(TopicName::parse(topic).unwrap())
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WillPlan {
    pub(crate) topic: usize,
    pub(crate) qos: QoS,
    pub(crate) delay_secs: u32,
}

/// What one client is like.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Its session outlives its connections.
    pub(crate) persistent: bool,
    pub(crate) sub_qos: QoS,
    /// Positions in [`FILTERS`] or, of a shared subscriber, of one shared filter.
    pub(crate) filters: Vec<usize>,
    pub(crate) is_shared: bool,
    /// Sends Subscription Identifiers.
    pub(crate) identifies: bool,
    pub(crate) receive_maximum: u16,
    /// Topics it publishes to.
    pub(crate) topics: Vec<usize>,
    pub(crate) publishes: usize,
    /// Unacknowledged publications at most, if the server allows as many.
    pub(crate) window: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) will: Option<WillPlan>,
    pub(crate) keep_alive_secs: u16,
    /// Cuts, take-overs and other troubles that are left.
    pub(crate) troubles: usize,
    /// Takes part in them only by losing its connection: it keeps its session
    /// and its subscriptions.
    pub(crate) stays: bool,
    /// How readily it subscribes to what it wants, in percent.
    pub(crate) eagerness: usize,
    /// Acknowledges in any order.
    pub(crate) shuffles: bool,
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
    /// No member of a shared subscription ever leaves it.
    pub(crate) members_stay: bool,
    /// The first clients, which subscribe before anything happens: to everything,
    /// or as a member of each shared subscription.
    pub(crate) watchers: usize,
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let bulky = random.chance(2);
        // In some simulations, all is about few retained messages.
        let retains = random.chance(25);
        let clients = random.range(3, if bulky { 4 } else { 10 });
        let watchers = random.range(1, 2);
        let mut plan = Self {
            shards: random.range(1, 4) as u16,
            policy: policy(random),
            chunk_max: if bulky { 1 << 19 } else { random.pick(&[40, 300, 4000]) },
            freeze_max: if bulky { 3000 } else { 500 },
            topics: PLAIN.iter().map(|name| topic((*name).into(), Use::Plain)).collect(),
            filters: FILTERS.iter().chain(SHARED).map(filter).collect(),
            clients: Vec::new(),
            members_stay: random.chance(70),
            watchers,
        };
        for index in 0..watchers {
            plan.clients.push(watcher(random, index));
        }
        for group in 0..SHARED.len() {
            plan.clients.push(shared_watcher(random, group));
        }
        let watchers = plan.clients.len();
        plan.watchers = watchers;
        for index in watchers..watchers + clients {
            let mut profile = plan.ordinary(random, index, bulky, retains);
            if retains {
                profile.only_retain(random);
            } else if random.chance(25) {
                profile.share(random, plan.members_stay);
            }
            plan.clients.push(profile);
        }
        plan
    }

    fn ordinary(
        &mut self,
        random: &mut Random,
        index: usize,
        bulky: bool,
        retains: bool,
    ) -> Profile {
        let version = random.pick(&[Version::V311, Version::V5, Version::V5]);
        let persistent = random.chance(65);
        let mut topics: Vec<usize> = (0..PLAIN.len()).filter(|_| random.chance(40)).collect();
        for _ in 0..random.below(if retains { 7 } else { 3 }) {
            let name = format!("r/{}", self.topics.len());
            topics.push(self.topics.len());
            self.topics.push(topic(name, Use::Retained(any_qos(random))));
        }
        let will = random.chance(40).then(|| {
            self.topics.push(topic(format!("w/{index}"), Use::Will));
            let delay_secs = if version == Version::V5 { random.pick(&[0, 0, 1, 5]) } else { 0 };
            WillPlan { topic: self.topics.len() - 1, qos: any_qos(random), delay_secs }
        });
        let payload_bytes = if bulky { random.range(700, 1900) << 10 } else { random.range(4, 60) };
        Profile {
            // Different names in each simulation: they decide where sessions live.
            name: format!("c{index}-{:x}", random.below(1 << 16)),
            version,
            persistent,
            sub_qos: any_qos(random),
            filters: (0..FILTERS.len()).filter(|_| random.chance(12)).collect(),
            is_shared: false,
            identifies: version == Version::V5 && random.chance(30),
            receive_maximum: random.pick(&[1, 2, 5, u16::MAX]),
            publishes: if topics.is_empty() {
                0
            } else {
                random.below(if bulky { 20 } else { 50 })
            },
            topics,
            window: random.range(1, 12),
            payload_bytes,
            will,
            keep_alive_secs: random.pick(&[0, 0, 0, 3]),
            troubles: random.pick(&[0, 2, 5, 8, 20]),
            stays: random.chance(40),
            eagerness: random.pick(&[1, 3, 30]),
            shuffles: random.chance(30),
        }
    }
}

impl Profile {
    /// Publishes hardly anything but retained messages, and subscribes to them.
    fn only_retain(&mut self, random: &mut Random) {
        self.topics.retain(|&topic| topic >= PLAIN.len());
        // Most messages are the last on their topic, so that none may be missed.
        self.publishes = random.below(2 * self.topics.len() + 1);
        self.filters = ALL_RETAINED.into_iter().filter(|_| random.chance(60)).collect();
        self.sub_qos = random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
        self.stays = random.chance(30);
        self.troubles = random.pick(&[0, 10, 30]);
        self.shuffles = false;
    }

    fn share(&mut self, random: &mut Random, members_stay: bool) {
        self.is_shared = true;
        let group = random.below(SHARED.len());
        self.filters = vec![FILTERS.len() + group];
        self.sub_qos = qos_of_group(group);
        self.stays = members_stay;
        self.persistent |= members_stay;
    }
}

/// A client that subscribes and never leaves.
pub(crate) fn subscriber(name: String, filter: usize, sub_qos: QoS) -> Profile {
    Profile {
        name,
        version: Version::V5,
        persistent: true,
        sub_qos,
        filters: vec![filter],
        is_shared: false,
        identifies: false,
        receive_maximum: u16::MAX,
        topics: Vec::new(),
        publishes: 0,
        window: 0,
        payload_bytes: 0,
        will: None,
        keep_alive_secs: 0,
        troubles: 0,
        stays: true,
        eagerness: 30,
        shuffles: false,
    }
}

fn watcher(random: &mut Random, index: usize) -> Profile {
    let name = format!("watcher{index}-{:x}", random.below(1 << 16));
    let qos = random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
    Profile {
        version: random.pick(&[Version::V311, Version::V5]),
        receive_maximum: random.pick(&[1, 3, u16::MAX]),
        troubles: random.below(8),
        shuffles: random.chance(30),
        ..subscriber(name, ALL, qos)
    }
}

/// A member of a shared subscription that never leaves, so that there is always one.
fn shared_watcher(random: &mut Random, group: usize) -> Profile {
    let name = format!("member{group}-{:x}", random.below(1 << 16));
    Profile {
        is_shared: true,
        receive_maximum: random.pick(&[1, 3, u16::MAX]),
        troubles: random.below(8),
        ..subscriber(name, FILTERS.len() + group, qos_of_group(group))
    }
}

/// One QoS a group, so that it is known what a member gets.
fn qos_of_group(group: usize) -> QoS {
    if group.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce }
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
        connections_max: 1000,
        connect_timeout_secs: 10,
        sessions_max: 1 << 20,
        subscriptions_max: 100,
        retained_messages_max: 1 << 20,
        retained_bytes_max: 1 << 30,
        delayed_messages_max: 1 << 20,
        delayed_bytes_max: 1 << 30,
    };
    Policy { limits, shared: strategies(random.clone()), ..Policy::default() }
}

/// One for the group `one`, another for the others.
fn strategies(mut random: Random) -> Strategies {
    let default = random.pick(&Strategy::ALL);
    Strategies { default, by_prefix: vec![("on".into(), random.pick(&Strategy::ALL))] }
}

fn any_qos(random: &mut Random) -> QoS {
    random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn topic(name: String, purpose: Use) -> Topic {
    Topic { name, purpose }
}

fn filter(text: &&'static str) -> Filter {
    Filter { text, parsed: TopicFilter::parse(text).unwrap() }
}

const PLAIN: [&str; 6] = ["t/0", "t/1", "t/2", "u/x/0", "s/0", "s/1"];

const FILTERS: &[&str] = &[
    "#", "t/0", "t/1", "t/+", "t/#", "+/1", "u/x/0", "u/+/+", "u/#", "r/#", "r/+", "+/7", "r/6",
    "r/7", "r/8", "s/#", "w/#",
];

/// Position of `#` in [`FILTERS`].
const ALL: usize = 0;
/// Positions of filters that match every retained topic of the plans.
pub(crate) const ALL_RETAINED: [usize; 2] = [9, 10];

const SHARED: &[&str] = &["$share/one/s/+", "$share/two/s/0", "$share/three/#"];
