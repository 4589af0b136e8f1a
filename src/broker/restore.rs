//! A broker from what its log amounts to. The other shards are told of its subscriptions over the
//! lanes; until all have heard, no client may be let in.

use crate::{
    auth::Identity,
    base::{RetainId, SessionKey, Time, TimeOrigin, limits},
    message::Publication,
    session::{Durable as DurableSession, Sending, Session, Will},
    storage::{DeliveryNumber, Log, LogSetup, RecoveredIntake, RecoveredSession, RecoveredShard},
    topic::{FilterKind, Marks, Member, SharedMatch, SubscriptionOptions, TopicFilter},
};

use super::{
    Broker, BrokerSetup, Timer,
    ack_line::Waits,
    durable::Durable,
    intake::{Taken, order_keys},
    retain::Stored,
};

impl Broker {
    /// A broker that goes on where its log ends.
    pub fn restore(
        setup: BrokerSetup,
        log: LogSetup,
        recovered: RecoveredShard,
        origin: TimeOrigin,
        now: Time,
    ) -> Self {
        let shards = setup.shards;
        let mut broker = Self::new(setup);
        broker.now = now;
        broker.is_started = false;
        let mut durable = Durable::new(Log::new(log), origin, shards, &broker.policy.durability);
        let RecoveredShard { sessions, retained, intakes, delayed, boot } = recovered;
        durable.next_session = boot.next_session.max(1);
        durable.intakes.last_stamp = boot.stamp;
        durable.intakes.resolved = boot.routed;
        for (shard, stamp) in boot.taken {
            if let Some(taken) = durable.taken.get_mut(shard.index()) {
                *taken = stamp;
            }
        }
        broker.durable = Some(Box::new(durable));
        broker.delayed.count_from(boot.last_delayed);
        for session in sessions {
            broker.restore_session(session);
        }
        for found in retained {
            let Some(id) = broker.peers.next_retain_id() else { continue };
            broker.restore_retained(found.publication, id, found.hold);
        }
        for found in delayed {
            broker.delayed.restore(origin.time(found.due_at), found);
        }
        for found in intakes {
            broker.restore_intake(found);
        }
        broker.tell_storage();
        broker.peers.raise_barrier();
        broker
    }

    /// Lets time pass, and routes what was not routed before the restart: all shards are restored.
    pub fn start(&mut self, now: Time) {
        self.now = now;
        self.is_started = true;
        self.route_intakes();
        self.after_taken();
    }

    /// Whether all that was restored is in force on every shard.
    pub fn is_restored(&self) -> bool {
        self.peers.index_applied(self.peers.index_stamp())
    }

    fn restore_session(&mut self, found: RecoveredSession) {
        let sent = sent_before_crash(&found);
        let Some(durable) = &mut self.durable else { return };
        let origin = durable.origin;
        let key = self.sessions.insert(Session::new(found.client.clone()));
        durable.next_session = durable.next_session.max(found.number.0 + 1);
        self.sessions.enter_log(key, DurableSession { number: found.number, hold: found.hold });
        let Some(session) = self.sessions.get_mut(key) else { return };
        let user = found.user_name.as_ref().filter(|_| found.is_proven);
        if user.is_some() || found.address.is_some() {
            let user = user.map(|user| user.as_str().into());
            let identity = Identity { user, groups: found.groups, address: found.address };
            session.rights = Some(identity.into());
        }
        session.user_name = found.user_name;
        session.expiry_secs = found.expiry_secs;
        for id in found.received {
            session.inbox.note_logged(id);
        }
        session.outbox = Sending::recovered(found.first, sent, found.deliveries);
        // A connection at the time of the crash has ended with it, as far as anybody can tell now.
        let lost_at = found.detached_at.unwrap_or(origin.wall(self.now));
        session.expires_at = (found.expiry_secs < u32::MAX).then(|| {
            let millis = u64::from(found.expiry_secs) * 1000;
            origin.time(crate::base::WallTime(lost_at.0.saturating_add(millis)))
        });
        session.will = found.will.map(|will| {
            let due_at = match will.due_at {
                Some(at) => origin.time(at),
                None => self.now.plus_secs(will.delay_secs.into()),
            };
            Box::new(Will {
                publication: will.publication,
                message_expiry_secs: will.message_expiry_secs,
                delay_secs: will.delay_secs,
                due_at: Some(due_at),
            })
        });
        let deadline = session.next_deadline();
        self.timers.set(Timer::Session(key), &mut session.timer_at, deadline);
        if found.detached_at.is_none() {
            self.log_detached(key);
        }
        for (filter, options) in found.subscriptions {
            self.restore_subscription(key, filter, options);
        }
    }

    fn restore_subscription(
        &mut self,
        key: SessionKey,
        filter: TopicFilter,
        options: SubscriptionOptions,
    ) {
        let options = SubscriptionOptions { marks: Marks::durable(true), ..options };
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.subscriptions.insert(filter.clone());
        if let Some(durable) = &mut self.durable {
            durable.subscriptions += 1;
        }
        match filter.kind() {
            FilterKind::Shared | FilterKind::Queue => self.join(key, filter, options, false),
            FilterKind::Request => session.requests.insert(filter, options),
            FilterKind::Exclusive => {
                self.claim_again(key, &filter);
                self.listen(key, filter, options, false);
            }
            FilterKind::Plain => {
                self.listen(key, filter, options, false);
            }
        }
    }

    fn restore_retained(
        &mut self,
        publication: std::sync::Arc<Publication>,
        id: RetainId,
        hold: crate::storage::Hold,
    ) {
        self.retained_bytes += publication.size() as u64;
        self.note_retained_expiry(publication.expires_at());
        self.retained.set(Stored { publication, id, hold: Some(hold) });
    }

    fn restore_intake(&mut self, found: RecoveredIntake) {
        // Which member it was, its shard knows, if it has taken the message; otherwise it chooses.
        let nobody = SessionKey { slot: u32::MAX, generation: u32::MAX };
        let shards = self.peers.shard_count();
        let chosen = found.chosen.into_iter().map(|(filter, shard)| SharedMatch {
            filter,
            member: Member { shard: crate::base::ShardId(shard.0 % shards), session: nobody },
            options: SubscriptionOptions::default(),
            hash: 0,
        });
        let keys = order_keys(&self.placement, &found.publication.message());
        let Some(durable) = &mut self.durable else { return };
        let taken = Taken {
            stamp: found.stamp,
            hold: found.hold,
            commit: 0,
            publication: found.publication,
            client: found.client,
            chosen: chosen.collect(),
            chosen_only: found.chosen_only,
            // Nobody is online: it stays where it is.
            hops: limits::SHARE_HOPS_MAX,
            waits: Waits::default(),
        };
        durable.intakes.push(keys, taken);
        durable.intakes.last_stamp = durable.intakes.last_stamp.max(found.stamp);
    }
}

/// The number of the first delivery that cannot have been sent. Of a connection that was there to the
/// end it is not known how far it came: then any of them may be a repetition, and DUP says no more than that.
fn sent_before_crash(found: &RecoveredSession) -> DeliveryNumber {
    match found.detached_at {
        Some(_) => found.sent,
        None => found.next(),
    }
}
