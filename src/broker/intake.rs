//! Messages that are taken over before they are routed: their record is the commit point, from which
//! on this shard sees to it that every taker gets them, once, whatever crashes.
//!
//! That is how a QoS 2 PUBLISH goes that has durable takers on other shards, or a will or a delayed
//! publication with any: nothing but one record on one disk can be done and undone at once. Takers
//! note the stamp of what they log, and leave out what a restarted shard routes again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::{
    base::{ClientId, QoS},
    message::{Message, Publication},
    storage::{Hold, Intake, Record, Source},
    topic::{Matches, SharedMatch},
};

use super::{Broker, ack_line::Waits, route::Lazy};

/// Those that are not done with, oldest first.
#[derive(Debug, Default)]
pub(super) struct Intakes {
    pub(super) open: VecDeque<Taken>,
    /// How many of the open ones are routed.
    routed: usize,
    /// How many are not, by those of [`order_keys`].
    waiting: HashMap<u64, usize, RandomState>,
    pub(super) last_stamp: u64,
    /// The stamp up to which the log knows them to be done with.
    pub(super) resolved: u64,
}

/// One message taken over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) stamp: u64,
    pub(super) hold: Hold,
    /// How many records are to be on disk before it is routed.
    pub(super) commit: u64,
    pub(super) publication: Arc<Publication>,
    /// The client that has published it.
    pub(super) client: Option<ClientId>,
    /// Members chosen of shared subscriptions.
    pub(super) chosen: Vec<SharedMatch>,
    pub(super) chosen_only: bool,
    /// How often it was passed on already, looking for a member.
    pub(super) hops: u8,
    /// What it waits for, once it is routed.
    pub(super) waits: Waits,
}

impl Intakes {
    pub(super) fn push(&mut self, keys: OrderKeys, taken: Taken) {
        for key in keys {
            *self.waiting.entry(key).or_default() += 1;
        }
        self.open.push_back(taken);
    }

    /// The next one is routed.
    fn note_routed(&mut self, keys: OrderKeys) {
        self.routed += 1;
        for key in keys {
            if let Some(waiting) = self.waiting.get_mut(&key) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.waiting.remove(&key);
                }
            }
        }
    }
}

/// What must not pass each other has one in common: messages on one topic at one QoS, of which some
/// may be of one publisher, or those on one topic that are to be retained.
pub(super) fn order_keys(placement: &RandomState, message: &Message<'_>) -> OrderKeys {
    let topic = message.topic.as_str();
    let retained = message.retain.then(|| placement.hash_one(topic));
    [placement.hash_one((topic, message.qos))].into_iter().chain(retained).collect()
}

type OrderKeys = SmallVec<[u64; 2]>;

impl Broker {
    /// Takes a message over. Its source is not that any more with the commit of what was appended.
    pub(super) fn take_in(
        &mut self,
        publication: &mut Lazy<'_>,
        source: Source,
        client: Option<ClientId>,
        chosen: Vec<SharedMatch>,
        passed_on: Option<u8>,
    ) {
        let chosen_only = passed_on.is_some();
        let keys = order_keys(&self.placement, &publication.message);
        let Some(durable) = &mut self.durable else { return };
        durable.intakes.last_stamp += 1;
        let stamp = durable.intakes.last_stamp;
        let members = chosen.iter().map(|found| (found.filter.as_str(), found.member.shard));
        let record = Record::Intake(Intake {
            stamp,
            source,
            client: client.as_ref().map(ClientId::as_str),
            chosen: members.collect(),
            chosen_only,
            message: durable.message(&publication.message),
        });
        let hold = durable.append_held(self.now, &record);
        let commit = durable.commit();
        let publication = publication.keep();
        let waits = Waits::default();
        let hops = passed_on.unwrap_or(0);
        let taken =
            Taken { stamp, hold, commit, publication, client, chosen, chosen_only, hops, waits };
        durable.intakes.push(keys, taken);
    }

    /// Routes those whose record is on disk, once it is known who is to get them.
    pub(super) fn route_intakes(&mut self) {
        if !self.is_started {
            return;
        }
        let committed = self.committed();
        loop {
            let Some(durable) = &mut self.durable else { return };
            let Intakes { open, routed, .. } = &mut durable.intakes;
            let Some(taken) = open.get_mut(*routed).filter(|taken| taken.commit <= committed)
            else {
                return;
            };
            let kept = taken.publication.clone();
            let (stamp, hops) = (taken.stamp, taken.hops);
            // It may have another session by now, whose No Local counts as well (MQTT-3.8.3-3).
            let client = taken.client.as_ref();
            let publisher = client.and_then(|client| self.sessions.find(client.as_str()));
            let (chosen, chosen_only) = (std::mem::take(&mut taken.chosen), taken.chosen_only);
            let at = *routed;
            durable.intakes.note_routed(order_keys(&self.placement, &kept.message()));
            let mut publication = Lazy::kept(&kept);
            publication.log.origin = Some((self.shard, stamp));
            publication.log.hops = hops;
            publication.log.is_passed_on = chosen_only;
            let mut matches = self.matches.take().unwrap_or_default();
            if chosen_only {
                matches.clear();
            } else {
                self.match_takers(&publication, publisher, &mut matches);
            }
            matches.shared.clear();
            if self.was_taken(Some((self.shard, stamp))) {
                // What this shard has of it, it has since before the restart.
                publication.log.is_stored = true;
                matches.local.clear();
                let elsewhere = chosen.into_iter().filter(|one| one.member.shard != self.shard);
                matches.shared.extend(elsewhere);
            } else {
                publication.log.has_record = chosen.len() > 1
                    || kept.message().retain && !chosen_only
                    || self.has_durable_takers(&matches)
                    || chosen.iter().any(|one| self.is_member(one));
                for found in chosen {
                    matches.shared.extend(self.chosen_for(&mut publication, found));
                }
                let message = kept.message();
                self.leave_out_denied(message.topic, message.qos, &mut matches);
            }
            let waits = self.carry_out(&mut publication, &mut matches, publisher);
            self.matches = Some(matches);
            if let Some(durable) = &mut self.durable
                && let Some(taken) = durable.intakes.open.get_mut(at)
            {
                taken.waits = waits;
            }
        }
    }

    /// Whether a member of this shard that was chosen is one still.
    fn is_member(&self, found: &SharedMatch) -> bool {
        let SharedMatch { filter, member, .. } = found;
        member.shard == self.shard && self.index.member_options(filter, *member).is_some()
    }

    /// Lets go of those that have reached everybody.
    pub(super) fn resolve_intakes(&mut self) {
        let mut last = None;
        loop {
            let Some(durable) = &self.durable else { return };
            let Intakes { open, routed, .. } = &durable.intakes;
            let Some(first) =
                open.front().filter(|first| *routed > 0 && self.is_over(&first.waits))
            else {
                break;
            };
            let (hold, stamp) = (first.hold, first.stamp);
            self.release_hold(Some(hold));
            last = Some(stamp);
            if let Some(durable) = &mut self.durable {
                durable.intakes.open.pop_front();
                durable.intakes.routed -= 1;
                durable.intakes.resolved = stamp;
            }
        }
        if let Some(stamp) = last {
            self.append(&Record::Routed { stamp });
        }
    }

    /// Whether what it may not pass waits to be routed: of the same publishers (MQTT-4.6.0-5), or retained on the
    /// same topic, where it would be replaced.
    pub(super) fn is_behind(&self, message: &Message<'_>) -> bool {
        let Some(durable) = &self.durable else { return false };
        let waiting = &durable.intakes.waiting;
        !waiting.is_empty()
            && order_keys(&self.placement, message).iter().any(|key| waiting.contains_key(key))
    }

    /// Whether a message is to be taken over before it is routed.
    pub(super) fn needs_intake(
        &self,
        publication: &Lazy<'_>,
        matches: &Matches,
        source: Option<Source>,
    ) -> bool {
        if self.durable.is_none() {
            return false;
        }
        let message = &publication.message;
        // Where the log takes no more, what is not acknowledged is not kept waiting for it, unless it would pass
        // what waits already.
        let is_unkept = || source.is_none() && self.log_refuses() && !self.is_behind(message);
        if message.qos == QoS::AtMostOnce && (!message.retain || is_unkept()) {
            return false;
        }
        if self.is_behind(message) {
            return true;
        }
        let Some(source) = source else { return false };
        let remote = self.peers.durable_of(self.takers_elsewhere(matches));
        let is_retained_elsewhere =
            message.retain && self.home_of_topic(message.topic.as_str()) != self.shard;
        let goes_elsewhere = !remote.is_empty() || is_retained_elsewhere;
        match source {
            Source::Publisher(..) => goes_elsewhere,
            _ => goes_elsewhere || message.retain || self.has_durable_takers(matches),
        }
    }
}
