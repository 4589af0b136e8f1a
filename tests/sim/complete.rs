//! The end of the oracle's work: what must have arrived when all has come to
//! rest, and what must be retained. Whatever is missing was dropped for a reason
//! that the brokers have counted.

use std::collections::BTreeMap;

use ringmq::{
    base::{QoS, Time},
    broker::{Counters, DropReason},
};

use crate::{
    client::Client,
    message::Message,
    oracle::{Ask, Count, Oracle},
    plan::Filter,
};

/// Deliveries that did not come, by what can excuse them.
#[derive(Default, Debug)]
struct Missing {
    /// QoS 0, for a client that does not read.
    slow: u64,
    expired: u64,
    /// There was no room in the queue.
    queue: u64,
}

impl Missing {
    const fn total(&self) -> u64 {
        self.slow + self.expired + self.queue
    }
}

/// When all is at rest: the time, and what the brokers have dropped.
pub(crate) struct End {
    pub(crate) now: Time,
    /// Of all shards.
    pub(crate) counters: Vec<Counters>,
}

impl End {
    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.counters.iter().map(|counters| counters.drops(reason)).sum()
    }
}

impl Oracle {
    /// Rules 2, 4, 6 and 12, their lower halves, and rule 5.
    pub(crate) fn check_complete(&self, clients: &[Client], end: &End) {
        let mut missing = Missing::default();
        for (number, message) in self.messages.iter().enumerate() {
            let comes = |client: &Client| self.counts.contains_key(&(client.index, number));
            assert!(
                !message.is_refused || !clients.iter().any(comes),
                "rule 2: {number} was refused, and has come: {message:?}"
            );
            if message.is_certain && !message.is_clear {
                self.check_arrival(clients, number, message, end, &mut missing);
            }
        }
        let excuses = Missing {
            slow: end.drops(DropReason::SlowConsumer),
            expired: end.drops(DropReason::Expired),
            queue: end.drops(DropReason::QueueMessages) + end.drops(DropReason::QueueBytes),
        };
        // With a full queue it cannot be told of each what became of it.
        let is_excused = match self.plan.tight {
            true => missing.total() <= excuses.total(),
            false => missing.slow <= excuses.slow && missing.expired <= excuses.expired,
        };
        assert!(is_excused, "rule 2/12: {missing:?}, dropped {excuses:?}");
        if !self.plan.tight {
            let qos0_may_be_lost = end.drops(DropReason::SlowConsumer) > 0;
            for client in clients {
                self.check_last_words(client, qos0_may_be_lost, end.now);
            }
        }
    }

    fn check_arrival(
        &self,
        clients: &[Client],
        number: usize,
        message: &Message,
        end: &End,
        missing: &mut Missing,
    ) {
        for client in clients {
            let topic = &self.plan.topics[message.topic].name;
            let is_shared = client.takes_share(&self.plan, topic);
            let qos = message.qos.min(client.least_qos(&self.plan, topic));
            let takes_it = client.profile.packet_bytes_max.is_none() || message.is_small();
            let is_there = qos > QoS::AtMostOnce || client.connected_at < message.first_sent;
            if !takes_it || !is_there || !self.is_due(client, message) {
                continue;
            }
            let has_come = if is_shared {
                let group = client.profile.filters[0];
                !self.plan.members_stay
                    || qos == QoS::AtMostOnce
                    || self.takers.contains_key(&(group, number))
            } else {
                let count = self.count(client.index, number);
                count.live + count.either > 0
            };
            if has_come {
                continue;
            }
            if message.may_be_expired(end.now) && end.drops(DropReason::Expired) > 0 {
                // Several members of a group wait for one copy.
                missing.expired += u64::from(!is_shared);
            } else if qos == QoS::AtMostOnce && end.drops(DropReason::SlowConsumer) > 0 {
                missing.slow += 1;
            } else if self.plan.tight {
                missing.queue += u64::from(!is_shared);
            } else {
                panic!(
                    "rule 2/4/6: client {} misses {number}: {message:?}, active {:?}",
                    client.index, client.active,
                );
            }
        }
    }

    /// Rule 5 for those that subscribed while messages were published.
    fn check_last_words(&self, client: &Client, qos0_may_be_lost: bool, now: Time) {
        for (topic, known) in self.plan.topics.iter().enumerate() {
            let Some(qos) = known.retained else { continue };
            if self.unsure_topics.contains(&topic) || self.is_unknown(topic) {
                continue;
            }
            let is_safe = qos.min(client.least_qos(&self.plan, &known.name)) > QoS::AtMostOnce;
            let since = client.subscriptions.0.iter().find_map(|one| {
                let since = one.active?;
                let fits = self.plan.filters[one.filter].matches(&known.name);
                let arrives = is_safe || client.connected_at < since && !qos0_may_be_lost;
                (fits && arrives && one.surely_retained && !one.is_leaving).then_some(since)
            });
            // Acknowledged out of order, an older message may be repeated alone.
            let (Some(since), false) = (since, client.profile.shuffles) else { continue };
            let word = self.last_words.get(&(client.index, topic)).copied().flatten();
            let last = self.retained.get(&topic).copied();
            let is_own = last.is_some_and(|last| self.messages[last].publisher == client.index);
            let may_be_expired = last.is_some_and(|last| self.messages[last].may_be_expired(now));
            // What it refused may be repeated alone, too.
            let is_refused = |number: usize| self.refused.contains(&(client.index, number));
            if is_own || may_be_expired || word.is_some_and(is_refused) {
                continue;
            }
            let expected = last.filter(|&last| !self.messages[last].is_clear);
            // Nobody tells a client of a clear that came before SUBACK, or while it was
            // not subscribed or, at QoS 0, not connected.
            let is_early = |number: usize| self.messages[number].first_sent < since;
            let excused = expected.is_none()
                && (client.has_unsubscribed || !is_safe || word.is_some_and(is_early));
            assert!(
                expected == word || excused,
                "rule 5: the last word on {} for client {} is {word:?}, not {expected:?}",
                known.name,
                client.index,
            );
        }
    }

    /// Rule 16: what was retained when a client asked for it, and is still, has come since; for each
    /// request anew.
    pub(crate) fn check_answers(&self, clients: &[Client], now: Time) {
        let asks = self.asks.iter().map(|(&number, ask)| (&self.messages[number], ask));
        let asks: Vec<_> = asks.filter(|(asked, ask)| self.is_owed(clients, asked, ask)).collect();
        for (at, (asked, ask)) in asks.iter().enumerate() {
            let client = &clients[asked.publisher];
            for (&topic, &last) in &self.retained {
                let (message, name) = (&self.messages[last], &self.plan.topics[topic].name);
                let qos = message.qos.min(client.profile.sub_qos);
                let arrives = qos > QoS::AtMostOnce || client.connected_at < asked.first_sent;
                // A will or what was delayed is routed only when the log has it, and nobody is told when.
                let is_late = self.plan.storage.is_some()
                    && (message.attempts == 0 || self.plan.topics[topic].delay_secs.is_some());
                let is_stable = !message.is_clear
                    && !is_late
                    && !self.is_unknown(topic)
                    && message.routed < asked.first_sent
                    && message.publisher != client.index
                    && !message.may_be_expired(now);
                if !ask.filter.matches(name) || !is_stable || !arrives {
                    continue;
                }
                // What comes live meanwhile stands for all answers that are due.
                let is_alone = !client.subscriptions.brings_live(&self.plan, name);
                let later = asks[at..].iter().filter(|(other, ask)| {
                    other.publisher == client.index && ask.filter.matches(name)
                });
                let due = if is_alone { later.count() } else { 1 };
                let arrivals = self.arrivals.get(&(client.index, last)).map_or(&[][..], |all| all);
                let came = arrivals.iter().filter(|step| **step > asked.first_sent).count();
                assert!(
                    came >= due,
                    "rule 16: client {} asked {due} times from {} on, and got {last} {came} times \
                     since: {message:?}",
                    client.index,
                    asked.first_sent
                );
            }
        }
    }

    /// Whether a request has come from a client that had registered, and is so still.
    fn is_owed(&self, clients: &[Client], asked: &Message, ask: &Ask) -> bool {
        let subscriptions = clients[asked.publisher].subscriptions.0.iter();
        let mut answering =
            subscriptions.filter(|one| self.plan.filters[one.filter].answers(&ask.filter));
        // With the one of several that it was based on, a request ends, too.
        let has_ended = |gone: u64| gone > asked.first_sent;
        asked.routed > 0
            && answering.clone().all(|one| !one.gone.is_some_and(has_ended))
            && answering
                .any(|one| one.active.is_some_and(|at| at < asked.first_sent) && !one.is_leaving)
    }

    /// The same when nothing else happens: exactly what is retained. `before` is what the client
    /// had got before it asked.
    pub(crate) fn check_answer(
        &self,
        client: &Client,
        ask: &Filter,
        before: &BTreeMap<(usize, usize), Count>,
        now: Time,
    ) {
        for (number, message) in self.messages.iter().enumerate() {
            let key = (client.index, number);
            let came = before.get(&key).map_or(0, |count| count.fresh);
            let comes = self.count(client.index, number).fresh - came;
            let is_last = self.retained.get(&message.topic) == Some(&number) && !message.is_clear;
            let is_meant = is_last && ask.matches(&self.plan.topics[message.topic].name);
            let may_miss = message.may_be_expired(now) || message.publisher == client.index;
            if self.is_unknown(message.topic) {
                continue;
            }
            assert!(
                comes == u32::from(is_meant) || comes == 0 && may_miss,
                "rule 16: client {} got {number} {comes} times on request: {message:?}",
                client.index
            );
        }
    }

    /// A client that has subscribed to everything retained when all was quiet.
    pub(crate) fn check_newcomer(&self, client: &Client, now: Time) {
        for (topic, known) in self.plan.topics.iter().enumerate() {
            if known.retained.is_none() || self.is_unknown(topic) {
                continue;
            }
            let last = self.retained.get(&topic).copied();
            let expected = last.filter(|&last| !self.messages[last].is_clear);
            let word = self.last_words.get(&(client.index, topic)).copied().flatten();
            let may_be_expired = last.is_some_and(|last| self.messages[last].may_be_expired(now));
            assert!(
                word == expected || word.is_none() && may_be_expired,
                "rule 5: retained on {} is {word:?}, not {expected:?}",
                known.name
            );
        }
        let own = self.counts.range((client.index, 0)..(client.index + 1, 0));
        for (&(_, number), count) in own {
            let found = (count.live, count.retained, count.either);
            assert_eq!(found, (0, 1, 0), "rule 5: newcomer got {number} wrongly");
        }
    }

    /// How many retained messages there can be.
    pub(crate) fn retained_max(&self) -> usize {
        self.retained.values().filter(|&&number| !self.messages[number].is_clear).count()
    }
}
