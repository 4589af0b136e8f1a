//! What must be true of any broker, whatever happens: watches every message
//! from its publisher to its subscribers and panics when a rule is broken. What
//! must have arrived in the end is in `complete`.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use ringmq::{
    base::{QoS, ShardId, Time},
    codec::{Properties, Property, Version},
};

use crate::{
    book::News,
    claims::Claims,
    client::Client,
    link::Stamp,
    message::{Message, Told, message_number},
    plan::{Filter, Kind, Plan},
    relaxed::Relaxed,
    subscriptions::{Delivered, Origin},
};

/// A PUBLISH as a client's application sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) properties: Properties<'a>,
    pub(crate) told: Told,
    pub(crate) made: Stamp,
    pub(crate) step: u64,
}

/// A request for retained messages.
pub(crate) struct Ask {
    pub(crate) filter: Filter,
    /// Its client had certainly registered for it when it was sent last; or may have; or may have
    /// any of the times.
    pub(crate) is_registered: bool,
    pub(crate) may_be_registered: bool,
    pub(crate) may_be_answered: bool,
}

/// What one client got of one message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) live: u32,
    pub(crate) retained: u32,
    /// One or the other.
    pub(crate) either: u32,
    /// Those of each that are no repetitions.
    fresh_live: u32,
    /// Those live ones of the last session that came at QoS 2.
    in_session: (Option<u64>, u32),
    fresh_retained: u32,
    pub(crate) fresh: u32,
}

pub(crate) struct Oracle {
    pub(crate) plan: Rc<Plan>,
    pub(crate) messages: Vec<Message>,
    /// By client and message.
    pub(crate) counts: BTreeMap<(usize, usize), Count>,
    /// Members of a shared subscription that got a message.
    pub(crate) takers: BTreeMap<(usize, usize), BTreeSet<usize>>,
    /// Last message by client, publisher, topic, and both QoS.
    pub(crate) latest: BTreeMap<(usize, usize, usize, QoS, QoS), usize>,
    /// What a client last got on a retained topic; `None` if it was cleared.
    pub(crate) last_words: BTreeMap<(usize, usize), Option<usize>>,
    /// The message that the broker has retained last on a topic.
    pub(crate) retained: BTreeMap<usize, usize>,
    /// Those before it, which it is again if all later ones turn out to be refused.
    retained_before: BTreeMap<usize, Vec<Option<usize>>>,
    /// Retained topics of which a message was lost with the power, and nothing was retained since.
    pub(crate) unsure_topics: BTreeSet<usize>,
    /// Messages that a client refused with an error code, so that they may come again.
    pub(crate) refused: BTreeSet<(usize, usize)>,
    pub(crate) wills: u64,
    /// Steps when retained messages came, by client and message. Noted if there are requests.
    pub(crate) arrivals: BTreeMap<(usize, usize), Vec<u64>>,
    /// Requests, by their message.
    pub(crate) asks: BTreeMap<usize, Ask>,
    pub(crate) claims: Claims,
    pub(crate) relaxed: Relaxed,
    /// Messages that wait for their time on a shard, by that and by arrival.
    pub(crate) delayed: BTreeMap<(ShardId, Time, u64), usize>,
    pub(crate) delayed_in_all: u64,
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
            retained: BTreeMap::new(),
            retained_before: BTreeMap::new(),
            unsure_topics: BTreeSet::new(),
            refused: BTreeSet::new(),
            wills: 0,
            arrivals: BTreeMap::new(),
            asks: BTreeMap::new(),
            claims: Claims::default(),
            relaxed: Relaxed::default(),
            delayed: BTreeMap::new(),
            delayed_in_all: 0,
        }
    }

    /// Takes note of a message before it is sent.
    pub(crate) fn add(&mut self, message: Message) -> usize {
        self.messages.push(message);
        self.messages.len() - 1
    }

    /// The same for one that is a request.
    pub(crate) fn add_ask(&mut self, message: Message) -> usize {
        let filter = Filter::new(&self.plan.topics[message.topic].name);
        let number = self.add(message);
        self.asks.insert(
            number,
            Ask { filter, is_registered: false, may_be_registered: false, may_be_answered: false },
        );
        number
    }

    /// How many answers a client may get for a topic.
    fn answers_max(&self, client: usize, topic: &str) -> u32 {
        let fitting = self.asks.iter().filter(|(_, ask)| ask.may_be_answered);
        let own = fitting.map(|(number, ask)| (&self.messages[*number], ask));
        let own =
            own.filter(|(message, ask)| message.publisher == client && ask.filter.matches(topic));
        own.map(|(message, _)| message.routed_max() as u32).sum()
    }

    /// Its publisher sends it, once more.
    pub(crate) fn sent(&mut self, number: usize, now: Time) {
        let message = &mut self.messages[number];
        message.attempts += 1;
        if self.plan.bulky {
            message.heard.push(now);
        }
    }

    /// PUBACK or PUBREC has come.
    pub(crate) fn acknowledged(&mut self, number: usize) {
        let message = &mut self.messages[number];
        assert!(self.plan.bulky || message.is_certain, "{number} acknowledged before it came");
        message.is_certain = true;
        message.is_acknowledged = true;
        self.note_relaxed(number);
    }

    /// The broker has come to know of a message, or to publish it of its own accord.
    pub(crate) fn learn(&mut self, news: News, step: u64) {
        if self.plan.bulky {
            return;
        }
        let (number, at, home) = match news {
            News::Heard { message, at, home } | News::WillIsDue { message, at, home } => {
                (message, at, home)
            }
            News::Advanced { shard, at } => return self.publish_due(shard, at, step),
        };
        let message = &mut self.messages[number];
        if let News::WillIsDue { .. } = news {
            let is_again = !message.heard.is_empty();
            assert!(!is_again || self.plan.storage.is_some(), "the book publishes a will once");
            message.first_sent = step;
            self.wills += 1;
        }
        // It may have been refused before, and that answer been lost.
        let is_new = !message.is_certain || self.plan.refuses && !message.is_acknowledged;
        if message.qos == QoS::ExactlyOnce && !is_new {
            return;
        }
        message.is_certain = true;
        if let Some(secs) = self.plan.topics[message.topic].delay_secs {
            self.delayed_in_all += 1;
            let due_at = at.plus_secs(u64::from(secs));
            self.delayed.insert((home, due_at, self.delayed_in_all), number);
        } else {
            self.route(number, at, step);
        }
    }

    /// The broker publishes a message.
    fn route(&mut self, number: usize, at: Time, step: u64) {
        let message = &mut self.messages[number];
        // Otherwise once more only after the power has failed.
        let is_again = message.qos != QoS::AtLeastOnce && !message.heard.is_empty();
        message.reroutes += usize::from(is_again);
        message.heard.push(at);
        message.routed = step;
        if message.retain {
            self.unsure_topics.remove(&message.topic);
            let before = self.retained.insert(message.topic, number);
            if self.plan.refuses {
                self.retained_before.entry(message.topic).or_default().push(before);
            }
        }
    }

    /// The broker could not keep a message on disk, and has done nothing with it.
    pub(crate) fn refused_by_disk(&mut self, number: usize) {
        let message = &mut self.messages[number];
        message.is_certain = false;
        message.is_refused = message.attempts == 1;
        let is_it = |one: &mut Option<usize>| *one == Some(number);
        let topic = message.topic;
        let Some(before) = self.retained_before.get_mut(&topic).filter(|_| message.retain) else {
            return;
        };
        before.retain_mut(|one| !is_it(one));
        if self.retained.get(&topic) == Some(&number) {
            match before.pop().flatten() {
                Some(older) => _ = self.retained.insert(topic, older),
                None => _ = self.retained.remove(&topic),
            }
        }
    }

    /// Whether nobody knows what is retained on a topic: a message that was refused and repeated may have
    /// come behind a later one that was not, and at QoS 0 nobody is told of one that was not retained.
    pub(crate) fn is_unknown(&self, topic: usize) -> bool {
        let mut on_it = self.messages.iter().filter(|message| message.topic == topic);
        let is_untold = self.plan.topics[topic].retained == Some(QoS::AtMostOnce);
        self.plan.refuses && (is_untold || on_it.any(|message| message.attempts > 1))
    }

    /// A shard has done what was due.
    fn publish_due(&mut self, shard: ShardId, now: Time, step: u64) {
        let first = (shard, Time::default(), 0);
        while let Some((&key, &number)) = self.delayed.range(first..=(shard, now, u64::MAX)).next()
        {
            self.delayed.remove(&key);
            self.route(number, key.1, step);
        }
    }

    /// How many messages wait for their time on a shard.
    pub(crate) fn delayed(&self, shard: ShardId) -> usize {
        let all = (shard, Time::default(), 0)..=(shard, Time::MAX, u64::MAX);
        self.delayed.range(all).count()
    }

    /// A subscriber got a message that is no repetition by the rules of QoS 2.
    pub(crate) fn received(&mut self, client: &Client, received: Received<'_>) {
        let plan = self.plan.clone();
        let topic = plan.topic_of(received.topic);
        let number = message_number(received.payload);
        if plan.topics[topic].retained.is_some() {
            self.last_words.insert((client.index, topic), number);
        }
        let Some(number) = number else { return };
        let message = &self.messages[number];
        assert_eq!(message.topic, topic, "message {number} on another topic");
        let mut all_qos = client.subscriptions.all_qos(&plan, received.topic);
        let fits = all_qos.any(|qos| received.qos == message.qos.min(qos));
        assert!(fits, "message {number} with another QoS: {:?}", received.qos);
        assert!(!message.heard.is_empty(), "rule 7: nobody has published {number}: {message:?}");
        message.check_expiry(number, received.dup, received.told, received.made);
        if client.profile.version == Version::V5 {
            message.check_properties(number, received.properties);
        }
        let kind = client.subscriptions.judge(
            &plan,
            Delivered {
                topic: received.topic,
                retain: received.retain,
                identifiers: identifiers(received.properties),
                is_own: message.publisher == client.index,
                was_retain: message.retain,
                first_sent: message.first_sent,
                was_asked: self.answers_max(client.index, received.topic) > 0,
            },
        );
        self.count_delivery(client, number, kind, received);
        if kind != Origin::Live {
            self.check_order_of_found(client, number, received);
        } else if client.takes_share(&plan, received.topic) {
            self.check_taker(client, number);
        } else {
            self.check_order(client, number, received);
        }
    }

    /// Rules 2 and 3: not too often.
    fn count_delivery(
        &mut self,
        client: &Client,
        number: usize,
        kind: Origin,
        received: Received<'_>,
    ) {
        let comes_surely_live = self.comes_surely_live(client, number, received);
        let message = &self.messages[number];
        let answers_max = self.answers_max(client.index, received.topic);
        let is_refused = self.refused.contains(&(client.index, number));
        let is_shared = client.takes_share(&self.plan, received.topic);
        let count = self.counts.entry((client.index, number)).or_default();
        if count.in_session.0 != client.serial {
            count.in_session = (client.serial, 0);
        }
        let is_qos2 = received.qos == QoS::ExactlyOnce;
        count.in_session.1 += u32::from(kind == Origin::Live && is_qos2);
        assert!(
            count.in_session.1 <= 1 || is_refused || is_shared,
            "rule 18: client {} got {number} at QoS 2 {} times",
            client.index,
            count.in_session.1
        );
        let fresh = u32::from(!received.dup || received.qos == QoS::ExactlyOnce);
        count.fresh += fresh;
        match kind {
            Origin::Live => {
                count.live += 1;
                count.fresh_live += fresh;
            }
            Origin::Retained => {
                count.retained += 1;
                count.fresh_retained += fresh;
            }
            Origin::Either => count.either += 1,
        }
        let live_max = message.routed_max() as u32;
        if message.retain && self.plan.features.requests {
            self.arrivals.entry((client.index, number)).or_default().push(received.step);
        }
        let retained_max = match message.retain {
            true => client.subscriptions.retained_max(&self.plan, received.topic) + answers_max,
            false => 0,
        };
        // At QoS 0 it may have gone by while the client was away, for each subscription to find.
        let may_be_missed = received.qos == QoS::AtMostOnce
            && client.connected_at >= message.first_sent
            && count.fresh_live < live_max;
        let copies_max = match comes_surely_live && !may_be_missed {
            true => live_max + answers_max,
            false => live_max + retained_max,
        };
        let is_too_often = count.fresh_live > live_max
            || count.fresh_retained > retained_max
            || count.fresh > copies_max;
        assert!(
            !is_too_often || is_refused,
            "rule 2/3: client {} got message {number} {} times live, routed {live_max}, \
             and {} times retained of {retained_max}, {} in all of {copies_max}",
            client.index,
            count.fresh_live,
            count.fresh_retained,
            count.fresh,
        );
    }

    /// Whether a message is owed to the client live and to none of its subscriptions from the
    /// store, because SUBACK had come for all of them when it was first sent.
    fn comes_surely_live(&self, client: &Client, number: usize, received: Received<'_>) -> bool {
        let message = &self.messages[number];
        let subscriptions = &client.subscriptions;
        subscriptions.are_settled(&self.plan, received.topic, message.first_sent)
            && self.is_due(client, message)
    }

    /// Rule 6, its upper half.
    fn check_taker(&mut self, client: &Client, number: usize) {
        let group = client.profile.filters[0];
        let takers = self.takers.entry((group, number)).or_default();
        takers.insert(client.index);
        let routed_max = self.messages[number].routed_max();
        assert!(
            takers.len() <= routed_max,
            "rule 6: message {number} routed {routed_max} times went to members {takers:?}"
        );
    }

    /// Rule 1.
    fn check_order(&mut self, client: &Client, number: usize, received: Received<'_>) {
        let Received { qos, dup, .. } = received;
        let message = &self.messages[number];
        let count = self.counts[&(client.index, number)];
        if message.is_clear || count.live + count.either > 1 {
            return;
        }
        let key = (client.index, message.publisher, message.topic, message.qos, qos);
        let latest = self.latest.get(&key).copied();
        let Some(latest) = latest.filter(|latest| *latest > number) else {
            self.latest.insert(key, number);
            return;
        };
        // A repetition may be the first that a later subscriber gets to see, or
        // the first that did not expire or find the queue or the disk full.
        let may_be_first = qos == QoS::AtMostOnce
            || message.expiry_secs.is_some()
            || self.plan.tight
            || self.plan.refuses
            || !self.is_due(client, message);
        // Or it had expired, and the broker has forgotten that with the power.
        let was_expired = dup && message.expiry_secs.is_some() && self.plan.storage.is_some();
        let is_again = message.attempts > 1 || message.reroutes > 0;
        assert!(
            is_again && may_be_first || was_expired,
            "rule 1: client {} got {number} behind {latest}",
            client.index
        );
    }

    /// Rule 1 for what comes, or may come, from the store: nothing older follows something newer.
    fn check_order_of_found(&mut self, client: &Client, number: usize, received: Received<'_>) {
        let message = &self.messages[number];
        let key = (client.index, message.publisher, message.topic, message.qos, received.qos);
        let latest = self.latest.entry(key).or_insert(number);
        // What was not acknowledged before the power failed may have come and not be retained.
        let is_lost = !self.messages[*latest].is_certain;
        let is_again = message.attempts > 1 || message.reroutes > 0;
        let is_excused = received.dup || is_again || is_lost;
        assert!(
            *latest <= number || is_excused,
            "rule 1: client {} got retained {number} behind {latest}",
            client.index
        );
        *latest = number.max(*latest);
    }

    pub(crate) fn count(&self, client: usize, number: usize) -> Count {
        self.counts.get(&(client, number)).copied().unwrap_or_default()
    }

    /// Whether a subscription of the client was acknowledged before the message
    /// was sent, and has lasted.
    pub(crate) fn is_due(&self, client: &Client, message: &Message) -> bool {
        let topic = &self.plan.topics[message.topic].name;
        let matches = |filter: usize| self.plan.filters[filter].matches(topic);
        let is_own = message.publisher == client.index;
        let is_live = |filter: usize| self.plan.filters[filter].kind != Kind::Request;
        let covers = |filter| is_live(filter) && matches(filter);
        client.active.iter().any(|(&filter, &since)| since < message.first_sent && covers(filter))
            && (!is_own || client.subscriptions.covers_own(&self.plan, topic, message.first_sent))
    }
}

fn identifiers(properties: Properties<'_>) -> Vec<u32> {
    let found = properties.iter().filter_map(|property| match property {
        Property::SubscriptionIdentifier(identifier) => Some(identifier),
        _ => None,
    });
    found.collect()
}
