//! What must be true of any broker, whatever happens: watches every message
//! from its publisher to its subscribers and panics when a rule is broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use ringmq::base::QoS;

use crate::{
    client::Client,
    plan::{Plan, Use},
};

/// What is known about whether the broker has taken a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Its publisher will repeat it until it is acknowledged.
    Pending,
    /// It was published exactly once, as far as its publisher is concerned.
    Certain,
    /// It may be lost.
    Unknown,
    /// A will that must not be published.
    Deleted,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) publisher: usize,
    pub(crate) topic: usize,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// An empty payload removes the retained message.
    pub(crate) is_clear: bool,
    /// Step of the first time that it was sent.
    pub(crate) first_sent: u64,
    pub(crate) attempts: u32,
    pub(crate) fate: Fate,
}

impl Message {
    /// How often it may be routed.
    fn routed_max(&self) -> u32 {
        if self.qos == QoS::AtLeastOnce { self.attempts } else { 1 }
    }
}

/// A PUBLISH as a client's application sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
}

/// What one client got of one message.
#[derive(Clone, Copy, Default)]
struct Count {
    live: u32,
    /// Live ones that are no repetitions.
    fresh: u32,
    retained: u32,
}

pub(crate) struct Oracle {
    pub(crate) plan: Rc<Plan>,
    pub(crate) messages: Vec<Message>,
    /// By client and message.
    counts: BTreeMap<(usize, usize), Count>,
    /// Members of a shared subscription that got a message.
    takers: BTreeMap<(usize, usize), BTreeSet<usize>>,
    /// Last message by client, publisher, topic, and both QoS.
    latest: BTreeMap<(usize, usize, usize, QoS, QoS), usize>,
    /// What a client last got on a retained topic; `None` if it was cleared.
    last_words: BTreeMap<(usize, usize), Option<usize>>,
}

impl Oracle {
    pub(crate) fn new(plan: Rc<Plan>) -> Self {
        Self {
            plan,
            messages: Vec::new(),
            counts: BTreeMap::new(),
            takers: BTreeMap::new(),
            latest: BTreeMap::new(),
            last_words: BTreeMap::new(),
        }
    }

    /// A message that a client sends now for the first time.
    pub(crate) fn publish(&mut self, message: Message) -> usize {
        self.messages.push(message);
        self.messages.len() - 1
    }

    /// A subscriber got a message that is no repetition by the rules of QoS 2.
    pub(crate) fn received(&mut self, client: &Client, received: Received<'_>) {
        let plan = self.plan.clone();
        let topic = plan.topics.iter().position(|topic| topic.name == received.topic);
        let topic = topic.unwrap_or_else(|| panic!("unknown topic {}", received.topic));
        assert!(
            client.asked.iter().any(|&filter| plan.filters[filter].matches(received.topic)),
            "client {} never asked for {}",
            client.index,
            received.topic
        );
        let number = message_number(received.payload);
        if let Use::Retained(_) = plan.topics[topic].purpose {
            self.last_words.insert((client.index, topic), number);
        }
        let Some(number) = number else { return };
        let message = &self.messages[number];
        assert_eq!(message.topic, topic, "message {number} on another topic");
        let qos = message.qos.min(client.profile.sub_qos);
        assert_eq!(received.qos, qos, "message {number} with another QoS");
        assert_ne!(message.fate, Fate::Deleted, "rule 7: deleted will {number} published");
        let count = self.counts.entry((client.index, number)).or_default();
        if received.retain {
            assert!(message.retain, "message {number} was never retained");
            count.retained += 1;
            return;
        }
        count.live += 1;
        count.fresh += u32::from(!received.dup || received.qos == QoS::ExactlyOnce);
        let routed_max = message.routed_max();
        assert!(
            count.fresh <= routed_max,
            "rule 2/3: client {} got message {number} {} times, routed {routed_max}",
            client.index,
            count.fresh,
        );
        if client.profile.is_shared {
            self.check_taker(client, number);
        } else {
            self.check_order(client, number, received.qos);
        }
    }

    /// Rule 6, its upper half.
    fn check_taker(&mut self, client: &Client, number: usize) {
        let group = client.profile.filters[0];
        let takers = self.takers.entry((group, number)).or_default();
        takers.insert(client.index);
        let routed_max = self.messages[number].routed_max();
        assert!(
            takers.len() as u32 <= routed_max,
            "rule 6: message {number} routed {routed_max} times went to members {takers:?}"
        );
    }

    /// Rule 1.
    fn check_order(&mut self, client: &Client, number: usize, qos: QoS) {
        let message = &self.messages[number];
        if message.is_clear || self.counts[&(client.index, number)].live > 1 {
            return;
        }
        let key = (client.index, message.publisher, message.topic, message.qos, qos);
        let latest = self.latest.entry(key).or_insert(number);
        if *latest <= number {
            *latest = number;
            return;
        }
        // A repetition may be the first that a later subscriber gets to see.
        let excused = message.attempts > 1
            && (qos == QoS::AtMostOnce || !is_due(client, &self.plan, message));
        assert!(excused, "rule 1: client {} got {number} behind {latest}", client.index);
    }

    /// At the end of all traffic: what must have arrived has arrived.
    pub(crate) fn check_complete(&self, clients: &[Client], qos0_may_be_lost: bool) {
        for (number, message) in self.messages.iter().enumerate() {
            assert_ne!(message.fate, Fate::Pending, "rule 9: {number} was never acknowledged");
            if message.fate != Fate::Certain || message.is_clear {
                continue;
            }
            for client in clients {
                let qos = message.qos.min(client.profile.sub_qos);
                let due = is_due(client, &self.plan, message)
                    && (qos > QoS::AtMostOnce
                        || client.connected_at < message.first_sent && !qos0_may_be_lost);
                if due && !client.profile.is_shared {
                    let live = self.count(client.index, number).live;
                    assert!(
                        live > 0,
                        "rule 2/4: client {} misses {number}: {message:?}, active {:?}",
                        client.index,
                        client.active,
                    );
                } else if due && self.plan.members_stay && qos > QoS::AtMostOnce {
                    let group = client.profile.filters[0];
                    let taken = self.takers.contains_key(&(group, number));
                    assert!(taken, "rule 6: no member of {group} got {number}: {message:?}");
                }
            }
        }
        for client in clients {
            self.check_last_words(client, qos0_may_be_lost);
        }
    }

    /// Rule 5 for those that subscribed while messages were published.
    fn check_last_words(&self, client: &Client, qos0_may_be_lost: bool) {
        for (topic, known) in self.plan.topics.iter().enumerate() {
            let Use::Retained(qos) = known.purpose else { continue };
            let is_safe = qos.min(client.profile.sub_qos) > QoS::AtMostOnce;
            let since = client.active.iter().find_map(|(&filter, &since)| {
                let fits = self.plan.filters[filter].matches(&known.name);
                let arrives = is_safe || client.connected_at < since && !qos0_may_be_lost;
                (fits && arrives).then_some(since)
            });
            // Acknowledged out of order, an older message may be repeated alone.
            if since.is_none() || client.profile.is_shared || client.profile.shuffles {
                continue;
            }
            let word = self.last_words.get(&(client.index, topic)).copied().flatten();
            let expected = self.retained_candidates(topic);
            // Nobody tells a client of a clear that came before SUBACK, or while it was
            // not subscribed or, at QoS 0, not connected.
            let is_early =
                |number: usize| since.is_some_and(|at| self.messages[number].first_sent < at);
            let excused = expected.contains(&None)
                && (client.has_unsubscribed || !is_safe || word.is_some_and(is_early));
            assert!(
                expected.contains(&word) || excused,
                "rule 5: the last word on {} for client {} is {word:?}, not one of {expected:?}",
                known.name,
                client.index,
            );
        }
    }

    /// A client that has subscribed to everything retained when all was quiet.
    pub(crate) fn check_newcomer(&self, client: &Client) {
        for (topic, known) in self.plan.topics.iter().enumerate() {
            let Use::Retained(_) = known.purpose else { continue };
            let expected = self.retained_candidates(topic);
            let word = self.last_words.get(&(client.index, topic)).copied().flatten();
            assert!(
                expected.contains(&word),
                "rule 5: retained on {} is {word:?}, not one of {expected:?}",
                known.name
            );
        }
        let own = self.counts.range((client.index, 0)..(client.index + 1, 0));
        for (&(_, number), count) in own {
            let Count { live, retained, .. } = *count;
            assert_eq!((live, retained), (0, 1), "rule 5: newcomer got {number} wrongly");
        }
    }

    /// What the retained message of a topic can be: the last that was certainly
    /// published, or one behind it.
    fn retained_candidates(&self, topic: usize) -> Vec<Option<usize>> {
        let mut candidates = Vec::new();
        for (number, message) in self.messages.iter().enumerate().rev() {
            if message.topic == topic {
                candidates.push((!message.is_clear).then_some(number));
                if message.fate == Fate::Certain {
                    return candidates;
                }
            }
        }
        candidates.push(None);
        candidates
    }

    fn count(&self, client: usize, number: usize) -> Count {
        self.counts.get(&(client, number)).copied().unwrap_or_default()
    }
}

/// Whether a subscription of the client was acknowledged before the message was
/// sent, and has lasted.
fn is_due(client: &Client, plan: &Plan, message: &Message) -> bool {
    let name = &plan.topics[message.topic].name;
    client
        .active
        .iter()
        .any(|(&filter, &since)| since < message.first_sent && plan.filters[filter].matches(name))
}

/// The payload of a message: its number, and padding.
pub(crate) fn payload(number: usize, bytes: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; bytes.max(4)];
    payload[..4].copy_from_slice(&(number as u32).to_be_bytes());
    payload
}

fn message_number(payload: &[u8]) -> Option<usize> {
    let number = payload.first_chunk::<4>()?;
    let number = u32::from_be_bytes(*number) as usize;
    assert!(payload[4..].iter().all(|byte| *byte == number as u8), "payload of {number} damaged");
    Some(number)
}
