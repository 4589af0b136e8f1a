//! Messages that a crash has left on their way between shards, brought to their end before the number of shards
//! changes: afterwards nobody could tell which sessions have them already.
//!
//! A shard notes up to which of another one's messages it has what was its part of them. The others get their
//! part here, as if they had taken the message just before the crash.

use std::io;

use super::reshard::Resharding;
use crate::{
    base::{QoS, SessionKey, ShardId, home_of},
    broker::Grant,
    storage::{
        DeliveryNumber, MessageRecord, RecoveredIntake, RecoveredSession, RecoveredShard, Target,
    },
    topic::{FilterKind, Index, Matches, Member},
};

/// Finishes all that is between `shards`, those of the old logs.
pub(super) fn finish(
    seed: u64,
    shards: &[RecoveredShard],
    resharding: &mut Resharding<'_>,
) -> io::Result<()> {
    if shards.iter().all(|shard| shard.intakes.is_empty()) {
        return Ok(());
    }
    let mut finishing = Finishing::new(seed, shards);
    for (from, shard) in shards.iter().enumerate() {
        for intake in &shard.intakes {
            finishing.finish(ShardId(from as u16), intake, resharding)?;
        }
    }
    Ok(())
}

/// All sessions of the old logs, and who gets what.
struct Finishing<'a> {
    seed: u64,
    shards: &'a [RecoveredShard],
    /// A key's slot is the session's place here.
    sessions: Vec<OldSession<'a>>,
    /// Everybody is local, whichever shard a member lived on.
    index: Index,
    matches: Matches,
}

struct OldSession<'a> {
    shard: ShardId,
    session: &'a RecoveredSession,
    /// The number of the next delivery to it.
    next: DeliveryNumber,
}

impl<'a> Finishing<'a> {
    fn new(seed: u64, shards: &'a [RecoveredShard]) -> Self {
        let mut sessions = Vec::new();
        let mut index = Index::new(seed);
        for (shard, recovered) in shards.iter().enumerate() {
            let shard = ShardId(shard as u16);
            for session in &recovered.sessions {
                let key = SessionKey { slot: sessions.len() as u32, generation: 0 };
                for (filter, options) in &session.subscriptions {
                    match filter.kind() {
                        FilterKind::Shared | FilterKind::Queue => {
                            let member = Member { shard, session: key };
                            index.join(filter, member, 0, *options, false);
                        }
                        FilterKind::Plain | FilterKind::Exclusive => {
                            index.subscribe(filter, key, *options);
                        }
                        // Gets what it asks for, not what is published.
                        FilterKind::Request => {}
                    }
                }
                sessions.push(OldSession { shard, session, next: session.next() });
            }
        }
        Self { seed, shards, sessions, index, matches: Matches::default() }
    }

    /// What is left to do for one message, which `from` has taken over.
    fn finish(
        &mut self,
        from: ShardId,
        intake: &RecoveredIntake,
        resharding: &mut Resharding<'_>,
    ) -> io::Result<()> {
        let message = intake.publication.message();
        let record = MessageRecord::new(&message, resharding.origin);
        let shards = self.shards;
        let has_part = |shard: ShardId| {
            let taken = shards.get(shard.index()).map_or(&[][..], |found| &found.boot.taken);
            taken.iter().any(|(of, stamp)| *of == from && *stamp >= intake.stamp)
        };
        let mut matches = std::mem::take(&mut self.matches);
        if intake.chosen_only {
            matches.clear();
        } else {
            self.index.matches_local(message.topic, &mut matches);
            let home = home_of(self.seed, shards.len() as u16, message.topic.as_str());
            if message.retain && !has_part(home) {
                resharding.add_retained(record)?;
            }
        }
        matches.local.retain(|found| {
            let OldSession { shard, session, .. } = &self.sessions[found.session.slot as usize];
            let is_own = intake.client.as_ref() == Some(&session.client);
            // MQTT-3.8.3-3.
            let is_barred = found.options.no_local && is_own;
            !has_part(*shard) && !is_barred
        });
        matches.local.sort_by_key(|found| found.session.slot);
        let mut targets = vec![Vec::new(); shards.len()];
        for same in matches.local.chunk_by(|a, b| a.session == b.session) {
            self.deliver(same[0].session, Grant::of_all(&message, same), &mut targets);
        }
        self.matches = matches;
        for (filter, shard) in &intake.chosen {
            if has_part(*shard) {
                continue;
            }
            // Which member it was, its shard would have known; nobody is connected, so any of them is as good.
            if let Some((member, options)) = self.index.pick(filter, 0) {
                self.deliver(member.session, Grant::new(&message, &options), &mut targets);
            }
        }
        targets.iter().enumerate().try_for_each(|(shard, targets)| {
            resharding.add_deliveries(ShardId(shard as u16), record, targets)
        })
    }

    fn deliver(&mut self, key: SessionKey, grant: Grant, targets: &mut [Vec<Target>]) {
        if grant.qos == QoS::AtMostOnce {
            return;
        }
        let OldSession { shard, session, next } = &mut self.sessions[key.slot as usize];
        targets[shard.index()].push(Target {
            session: session.number,
            delivery: *next,
            qos: grant.qos,
            retain: grant.retain,
            identifiers: grant.identifiers,
        });
        next.0 += 1;
    }
}
