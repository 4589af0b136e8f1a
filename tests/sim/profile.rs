//! What each client of a simulation is like, drawn from its seed.

use ringmq::{base::QoS, codec::Version};

use crate::{
    plan::{ALL_RETAINED, FILTERS, PLAIN, Plan},
    random::Random,
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct WillPlan {
    pub(crate) topic: usize,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay_secs: u32,
    pub(crate) message_expiry_secs: Option<u32>,
}

/// What one client is like.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Session Expiry Interval that it asks for. Before 5.0: 0 for a clean session, or all ones.
    pub(crate) expiry_secs: u32,
    /// Changes its mind about that from connection to connection, and at their ends.
    pub(crate) is_fickle: bool,
    pub(crate) sub_qos: QoS,
    /// Positions in the plan's filters; of a shared subscriber, of one shared filter.
    pub(crate) filters: Vec<usize>,
    pub(crate) is_shared: bool,
    /// Sends Subscription Identifiers.
    pub(crate) identifies: bool,
    /// Draws the options of its subscriptions.
    pub(crate) is_choosy: bool,
    pub(crate) receive_maximum: u16,
    /// Topic Alias Maximum that it announces.
    pub(crate) alias_maximum: u16,
    /// Maximum Packet Size that it announces; between small and big messages.
    pub(crate) packet_bytes_max: Option<u32>,
    /// Topics it publishes to.
    pub(crate) topics: Vec<usize>,
    pub(crate) publishes: usize,
    /// Publications in one go, at most.
    pub(crate) burst: usize,
    /// Unacknowledged publications at most, if the server allows as many.
    pub(crate) window: usize,
    pub(crate) payload_bytes: usize,
    /// How many in 100 messages have [`BIG_BYTES`], and how many expire.
    pub(crate) big_percent: usize,
    pub(crate) expiring_percent: usize,
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
    /// How many messages in 100 it refuses with an error code.
    pub(crate) refuses_percent: usize,
    /// Requests for retained messages that are left.
    pub(crate) asks: usize,
    /// Positions of the filters that its new sessions have of themselves.
    pub(crate) automatic: Vec<usize>,
    /// Connects with SCRAM.
    pub(crate) authenticates: bool,
}

impl Profile {
    pub(crate) fn ordinary(
        random: &mut Random,
        plan: &mut Plan,
        index: usize,
        retains: bool,
    ) -> Self {
        let bulky = plan.bulky;
        let version =
            random.pick(&[Version::V31, Version::V311, Version::V5, Version::V5, Version::V5]);
        // Version 3.1 cannot tell whether a session is new; the book must, and is not exact then.
        let version = if bulky { version.max(Version::V311) } else { version };
        let is_v5 = version == Version::V5;
        let persistent = random.chance(65);
        let mut topics: Vec<usize> = (0..PLAIN.len()).filter(|_| random.chance(40)).collect();
        if !bulky {
            for _ in 0..random.below(if retains { 7 } else { 3 }) {
                let qos = any_qos(random);
                topics.push(plan.add_retained(qos));
            }
        }
        let will = (!bulky && random.chance(40)).then(|| will(random, plan, index, is_v5));
        let stays = random.chance(40);
        let short = random.pick(&[1, 2, 4, 10, 100]);
        Self {
            // Different names in each simulation: they decide where sessions live.
            name: format!("c{index}-{:x}", random.below(1 << 16)),
            version,
            expiry_secs: match persistent {
                false => 0,
                true if is_v5 && !stays && !bulky && random.chance(50) => short,
                true => u32::MAX,
            },
            is_fickle: is_v5 && !stays && !bulky && random.chance(50),
            sub_qos: any_qos(random),
            filters: (0..FILTERS.len()).filter(|_| random.chance(12)).collect(),
            is_shared: false,
            identifies: is_v5 && random.chance(50),
            is_choosy: is_v5 && random.chance(40),
            receive_maximum: random.pick(&[1, 2, 5, u16::MAX]),
            alias_maximum: random.pick(&[0, 1, 3, 20]),
            packet_bytes_max: (is_v5 && !bulky && random.chance(15)).then_some(BIG_BYTES as u32),
            publishes: if topics.is_empty() {
                0
            } else {
                random.below(if bulky { 20 } else { 50 })
            },
            topics,
            burst: random.pick(&[1, 1, 1, 10]),
            window: random.range(1, 12),
            payload_bytes: if bulky { random.range(700, 1900) << 10 } else { random.range(4, 60) },
            big_percent: if bulky { 0 } else { random.pick(&[0, 0, 20]) },
            expiring_percent: if is_v5 && !bulky { random.pick(&[0, 30, 80]) } else { 0 },
            will,
            keep_alive_secs: if bulky { 0 } else { random.pick(&[0, 0, 0, 3]) },
            troubles: random.pick(&[0, 2, 5, 8, 20]),
            stays,
            eagerness: random.pick(&[1, 3, 30]),
            shuffles: random.chance(30),
            refuses_percent: if is_v5 { random.pick(&[0, 0, 10]) } else { 0 },
            asks: 0,
            automatic: Vec::new(),
            authenticates: false,
        }
    }

    /// Publishes hardly anything but retained messages, and subscribes to them.
    pub(crate) fn only_retain(&mut self, random: &mut Random) {
        self.topics.retain(|&topic| topic >= PLAIN.len());
        // Most messages are the last on their topic, so that none may be missed.
        self.publishes = random.below(2 * self.topics.len() + 1);
        self.filters = ALL_RETAINED.into_iter().filter(|_| random.chance(60)).collect();
        self.sub_qos = random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
        self.stays = random.chance(30);
        self.is_fickle &= !self.stays;
        self.troubles = random.pick(&[0, 10, 30]);
        self.shuffles = false;
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    pub(crate) fn share(&mut self, group: usize, filter: usize, members_stay: bool) {
        self.is_shared = true;
        self.filters = vec![filter];
        self.sub_qos = qos_of_group(group);
        self.packet_bytes_max = None;
        self.stays = members_stay;
        if members_stay {
            self.expiry_secs = u32::MAX;
            self.is_fickle = false;
        }
    }
}

fn will(random: &mut Random, plan: &mut Plan, index: usize, is_v5: bool) -> WillPlan {
    let qos = any_qos(random);
    let retain = random.chance(30);
    let topic = match retain {
        true => plan.add_retained(qos),
        false => plan.add_topic(format!("w/{index}"), None),
    };
    WillPlan {
        topic,
        qos,
        retain,
        delay_secs: if is_v5 { random.pick(&[0, 0, 1, 3, 8, 50]) } else { 0 },
        message_expiry_secs: (is_v5 && random.chance(30)).then(|| random.pick(&[1, 5, 3600])),
    }
}

/// A client that subscribes and never leaves.
pub(crate) fn subscriber(name: String, filter: usize, sub_qos: QoS) -> Profile {
    Profile {
        name,
        version: Version::V5,
        expiry_secs: u32::MAX,
        is_fickle: false,
        sub_qos,
        filters: vec![filter],
        is_shared: false,
        identifies: false,
        is_choosy: false,
        receive_maximum: u16::MAX,
        alias_maximum: 0,
        packet_bytes_max: None,
        topics: Vec::new(),
        publishes: 0,
        burst: 1,
        window: 0,
        payload_bytes: 0,
        big_percent: 0,
        expiring_percent: 0,
        will: None,
        keep_alive_secs: 0,
        troubles: 0,
        stays: true,
        eagerness: 30,
        shuffles: false,
        refuses_percent: 0,
        asks: 0,
        automatic: Vec::new(),
        authenticates: false,
    }
}

pub(crate) fn watcher(random: &mut Random, index: usize, filter: usize) -> Profile {
    let name = format!("watcher{index}-{:x}", random.below(1 << 16));
    let qos = random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
    Profile {
        version: random.pick(&[Version::V311, Version::V5]),
        receive_maximum: random.pick(&[1, 3, u16::MAX]),
        alias_maximum: random.pick(&[0, 5]),
        troubles: random.below(8),
        shuffles: random.chance(30),
        ..subscriber(name, filter, qos)
    }
}

/// A member of a shared subscription that never leaves, so that there is always one.
pub(crate) fn shared_watcher(random: &mut Random, group: usize, filter: usize) -> Profile {
    let name = format!("member{group}-{:x}", random.below(1 << 16));
    Profile {
        is_shared: true,
        receive_maximum: random.pick(&[1, 3, u16::MAX]),
        troubles: random.below(8),
        ..subscriber(name, filter, qos_of_group(group))
    }
}

/// One QoS a group, so that it is known what a member gets.
fn qos_of_group(group: usize) -> QoS {
    if group.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce }
}

pub(crate) fn any_qos(random: &mut Random) -> QoS {
    random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

/// Payload of a big message. Small ones stay below it with all their properties.
pub(crate) const BIG_BYTES: usize = 1_500;
