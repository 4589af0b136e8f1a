//! What must be left after the power has failed: everything that was promised. What was not may be
//! there or not, so the book and the oracle then go on with what the logs say.

use std::collections::{BTreeMap, BTreeSet};

use ringmq::{
    base::{PacketId, QoS, ShardId, home_of},
    storage::{RecoveredIntake, RecoveredLog, RecoveredSession},
};

use crate::{
    book::{Survivor, Will},
    client::Client,
    message::message_number,
    oracle::Oracle,
    world::World,
};

/// Checks what is left, and has all who know things forget what is lost.
pub(crate) fn check_what_is_left(
    world: &mut World,
    oracle: &mut Oracle,
    clients: &mut [Client],
    logs: &[RecoveredLog],
) {
    let mut held: BTreeSet<usize> = BTreeSet::new();
    let mut found: BTreeMap<usize, (ShardId, &RecoveredSession)> = BTreeMap::new();
    for (at, log) in logs.iter().enumerate() {
        for session in &log.shard.sessions {
            let name = session.client.as_str();
            let client = clients.iter().find(|client| client.profile.name == name);
            let client = client.expect("rule 18: a session of a known client").index;
            let twice = found.insert(client, (ShardId(at as u16), session));
            assert!(twice.is_none(), "rule 18: two sessions of client {client}");
        }
    }
    for client in clients.iter_mut() {
        let session = found.get(&client.index).copied();
        let survivor = session.map(|(home, session)| survivor(home, session));
        let serial = world.book.survive(world.now, client.index, survivor);
        let session = session.filter(|_| client.serial == serial);
        if let Some((_, session)) = session {
            check_subscriptions(oracle, client, session);
        }
        let received: &[PacketId] = session.map_or(&[], |(_, session)| &session.received);
        let outgoing = client.outgoing.iter();
        let kept = outgoing.filter(|one| one.qos == QoS::ExactlyOnce && received.contains(&one.id));
        held.extend(kept.map(|one| one.message));
        client.survive(oracle);
    }
    oracle.claims.survive(&world.book);
    oracle.survive(world, logs, held);
}

fn survivor(home: ShardId, session: &RecoveredSession) -> Survivor {
    let connect = session.user_name.as_ref().and_then(|name| name.parse().ok());
    let will = session.will.as_ref();
    Survivor {
        connect: connect.expect("the number of a CONNECT"),
        home,
        expiry_secs: session.expiry_secs,
        detached_at: session.detached_at.map(World::time_of),
        will: will.map(|will| Will {
            message: message_number(will.publication.message().payload).expect("a will"),
            delay_secs: will.delay_secs,
        }),
        will_due_at: will.and_then(|will| will.due_at).map(World::time_of),
    }
}

/// Each SUBACK and UNSUBACK still holds.
fn check_subscriptions(oracle: &Oracle, client: &Client, session: &RecoveredSession) {
    let has = |filter: usize| {
        let text = &oracle.plan.filters[filter].text;
        session.subscriptions.iter().any(|(found, _)| found.as_str() == text)
    };
    for &filter in client.active.keys() {
        assert!(has(filter), "rule 18: client {} has lost filter {filter}", client.index);
    }
    for one in &client.subscriptions.0 {
        // What was refused may have left an older one in force.
        let mut same = client.subscriptions.0.iter().filter(|same| same.filter == one.filter);
        let is_back = same.all(|same| same.gone.is_some()) && has(one.filter);
        assert!(!is_back, "rule 18: filter {} of client {} is back", one.filter, client.index);
    }
}

impl Client {
    /// The broker may have forgotten what nothing was promised about.
    fn survive(&mut self, oracle: &Oracle) {
        let (received, completing) = (&self.received, &self.completing);
        let (sure, unsure) = std::mem::take(&mut self.in_use)
            .into_iter()
            .partition(|(id, _)| received.contains(id) || completing.contains(id));
        self.in_use = sure;
        let unsure: BTreeMap<_, _> = unsure;
        // Of those that may be lost, those that may not.
        let is_safe = |start: &[u8]| {
            message_number(start).is_some_and(|number| oracle.messages[number].is_acknowledged)
        };
        self.unsure = unsure.into_iter().filter(|(_, start)| is_safe(start)).collect();
        self.miss_retained();
    }

    /// What is retained and was still owed to subscriptions has been forgotten.
    pub(crate) fn miss_retained(&mut self) {
        self.subscriptions.0.iter_mut().for_each(|one| one.surely_retained = false);
    }
}

impl Oracle {
    /// `held`: messages whose identifiers the logs have as received.
    fn survive(&mut self, world: &World, logs: &[RecoveredLog], held: BTreeSet<usize>) {
        let intakes: Vec<(usize, &RecoveredIntake)> = logs
            .iter()
            .enumerate()
            .flat_map(|(at, log)| log.shard.intakes.iter().map(move |intake| (at, intake)))
            .collect();
        let number = |(_, intake): &(usize, &RecoveredIntake)| {
            message_number(intake.publication.message().payload)
        };
        let taken: Vec<usize> = intakes.iter().filter_map(number).collect();
        // What was passed on to a member of a group alone may be lost for all others.
        let whole = intakes.iter().filter(|(_, intake)| !intake.chosen_only);
        let whole: BTreeSet<usize> = whole.filter_map(number).collect();
        let pending = self.survive_delayed(logs, &taken);
        let wills = logs.iter().flat_map(|log| &log.shard.sessions).filter_map(|session| {
            message_number(session.will.as_ref()?.publication.message().payload)
        });
        let wills: BTreeSet<usize> = wills.collect();
        for (number, message) in self.messages.iter_mut().enumerate() {
            let is_will =
                world.book.durable_wills.contains_key(&number) && !wills.contains(&number);
            let is_kept = message.is_acknowledged
                || held.contains(&number)
                || is_will
                || whole.contains(&number)
                || pending.contains(&number);
            message.is_certain &= is_kept && message.qos > QoS::AtMostOnce;
            // Nobody owes an answer to what was asked before.
            if self.asks.contains_key(&number) {
                message.routed = 0;
            }
        }
        for &number in &taken {
            self.messages[number].reroutes += 1;
        }
        self.survive_retained(world, logs, &intakes, &pending);
        let messages = &self.messages;
        self.latest.retain(|_, number| messages[*number].is_certain);
    }

    /// Returns the messages that still wait for their time.
    fn survive_delayed(&mut self, logs: &[RecoveredLog], taken: &[usize]) -> BTreeSet<usize> {
        let waited = std::mem::take(&mut self.delayed);
        let mut pending = BTreeSet::new();
        for (at, log) in logs.iter().enumerate() {
            for delayed in &log.shard.delayed {
                let message = delayed.publication.message();
                let due_at = World::time_of(delayed.due_at);
                // One that clears a retained message has no number in it.
                let number = message_number(message.payload).unwrap_or_else(|| {
                    let same = waited.iter().find(|((_, due, _), number)| {
                        *due == due_at && self.clears(**number, message.topic.as_str())
                    });
                    let routed = || {
                        let due = |number: &usize| self.messages[*number].heard.contains(&due_at);
                        let clears = |number: &usize| self.clears(*number, message.topic.as_str());
                        let all = 0..self.messages.len();
                        all.rev().find(|number| clears(number) && due(number))
                    };
                    same.map(|(_, number)| *number).or_else(routed).expect("it was published")
                });
                pending.insert(number);
                self.delayed_in_all += 1;
                self.delayed.insert((ShardId(at as u16), due_at, self.delayed_in_all), number);
            }
        }
        for number in waited.into_values() {
            let message = &self.messages[number];
            let is_there = pending.contains(&number) || taken.contains(&number);
            assert!(
                is_there || !message.is_acknowledged || message.is_clear,
                "rule 19: {number} was to wait for its time, and is lost: {message:?}"
            );
        }
        pending
    }

    pub(crate) fn clears(&self, number: usize, topic: &str) -> bool {
        let message = &self.messages[number];
        message.is_clear && self.plan.topics[message.topic].name == topic
    }

    fn survive_retained(
        &mut self,
        world: &World,
        logs: &[RecoveredLog],
        intakes: &[(usize, &RecoveredIntake)],
        pending: &BTreeSet<usize>,
    ) {
        let plan = self.plan.clone();
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        let stored = logs.iter().flat_map(|log| &log.shard.retained);
        let stored = stored.map(|one| one.publication.message());
        // What is routed again and was stored already does not take the place of anything.
        let is_stored = |from: usize, intake: &RecoveredIntake| {
            let topic = intake.publication.message().topic.as_str();
            let home = home_of(world.setup.seed, world.setup.shards, topic);
            let mut taken = logs[home.index()].shard.boot.taken.iter();
            taken.any(|(shard, stamp)| shard.index() == from && *stamp >= intake.stamp)
        };
        let taken = intakes.iter().filter(|(from, one)| !one.chosen_only && !is_stored(*from, one));
        let taken = taken.map(|(_, one)| one.publication.message());
        for message in stored.chain(taken.filter(|message| message.retain)) {
            let topic = plan.topic_of(message.topic.as_str());
            match message_number(message.payload) {
                Some(number) => _ = left.insert(topic, number),
                None => _ = left.remove(&topic),
            }
        }
        for (topic, _) in plan.topics.iter().enumerate().filter(|(_, one)| one.retained.is_some()) {
            let on_it = self.messages.iter().enumerate().filter(|(_, one)| one.topic == topic);
            let mut promised = on_it.clone().filter(|(number, one)| {
                one.is_acknowledged && one.routed > 0 && !pending.contains(number)
            });
            let found = left.get(&topic).copied();
            if let Some((promised, message)) = promised.next_back()
                && !self.is_unknown(topic)
            {
                let mut later = on_it.filter(|(number, _)| *number >= promised);
                let is_there = match found {
                    Some(found) => found >= promised,
                    None => later.any(|(_, one)| one.is_clear || one.expiry_secs.is_some()),
                };
                assert!(
                    is_there,
                    "rule 20: retained on {} is {found:?}, not {promised} or later: {message:?}",
                    plan.topics[topic].name
                );
            }
            if self.retained.get(&topic).copied() != found {
                self.unsure_topics.insert(topic);
            }
            match found {
                Some(found) => _ = self.retained.insert(topic, found),
                None => _ = self.retained.remove(&topic),
            }
        }
    }
}
