//! From a publication to its subscribers: on this shard at once, on others by
//! one message each (MQTT 5.0 sections 3.3.4 and 4.7).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    base::{QoS, RetainId, SessionKey, ShardId, ShardSet, limits},
    message::{Identifiers, Message, Publication},
    session::{Logged, Queued},
    storage::Source,
    topic::{LocalMatch, Matches, Member, SharedMatch, SubscriptionOptions, TopicFilter},
};

use super::{
    Broker, DropReason,
    ack_line::{AppliedBy, Waits},
    deliver::Outcome,
    log_publication::LogPart,
    mesh::{ChosenMember, Forward, Mesh},
    share::identity,
};

/// A message that is copied out of its packet once somebody has to keep it.
pub(super) struct Lazy<'a> {
    pub(super) message: Message<'a>,
    kept: Option<Arc<Publication>>,
    /// Which one it is, if it is live and has RETAIN.
    pub(super) retain_id: Option<RetainId>,
    /// What the log has to do with it.
    pub(super) log: LogPart,
}

impl<'a> Lazy<'a> {
    pub(super) fn new(message: Message<'a>) -> Self {
        Self { message, kept: None, retain_id: None, log: LogPart::default() }
    }

    pub(super) fn kept(publication: &'a Arc<Publication>) -> Self {
        let kept = Some(publication.clone());
        Self { message: publication.message(), kept, retain_id: None, log: LogPart::default() }
    }

    pub(super) fn keep(&mut self) -> Arc<Publication> {
        self.kept.get_or_insert_with(|| Publication::new(&self.message)).clone()
    }
}

/// How one session gets a message: the sum of its matching subscriptions.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Identifiers,
    /// Comes no faster than the client takes it, so no bound on what waits for it
    /// has to hold it back, and nothing of it is dropped.
    pub(crate) is_paced: bool,
}

impl Grant {
    /// What one subscription grants a message.
    pub(crate) fn new(message: &Message<'_>, options: &SubscriptionOptions) -> Self {
        Self {
            qos: message.qos.min(options.qos),
            retain: message.retain && options.retain_as_published,
            identifiers: options.identifier.into_iter().collect(),
            is_paced: false,
        }
    }

    /// What the subscriptions of one session grant a message, together.
    pub(crate) fn of_all(message: &Message<'_>, same: &[LocalMatch]) -> Self {
        let mut grant = Self::new(message, &same[0].options);
        for other in &same[1..] {
            grant.merge(message, &other.options);
        }
        grant
    }

    /// A retained message for a new subscription: RETAIN is set (3.1.1:MQTT-3.3.1-8).
    pub(super) fn retained(message: &Message<'_>, options: &SubscriptionOptions) -> Self {
        Self { retain: true, is_paced: true, ..Self::new(message, options) }
    }

    /// Overlapping subscriptions of one session: one delivery with the highest
    /// QoS and all identifiers (section 3.3.4).
    fn merge(&mut self, message: &Message<'_>, options: &SubscriptionOptions) {
        let other = Self::new(message, options);
        self.qos = self.qos.max(other.qos);
        self.retain |= other.retain;
        self.identifiers.extend(other.identifiers);
    }

    pub(super) fn queued(&self, publication: Arc<Publication>, logged: Option<Logged>) -> Queued {
        Queued {
            publication,
            logged,
            qos: self.qos,
            retain: self.retain,
            identifiers: self.identifiers.clone(),
        }
    }
}

impl Broker {
    /// Finds all takers of a message of this shard's.
    pub(super) fn match_takers(
        &mut self,
        publication: &Lazy<'_>,
        publisher: Option<SessionKey>,
        matches: &mut Matches,
    ) {
        if let Some(tracer) = &mut self.tracer {
            tracer.begin(&publication.message, publisher, &self.sessions);
        }
        let (sessions, placement) = (&self.sessions, &self.placement);
        let client = || publisher.map_or(0, |key| identity(sessions, placement, key));
        self.index.matches(publication.message.topic, client, matches);
        self.leave_out_denied(publication.message.topic, publication.message.qos, matches);
        if let Some(tracer) = &mut self.tracer {
            tracer.matched();
        }
    }

    /// Sends a message to its takers and retains it. Returns what its acknowledgement waits for.
    pub(super) fn carry_out(
        &mut self,
        publication: &mut Lazy<'_>,
        matches: &mut Matches,
        publisher: Option<SessionKey>,
    ) -> Waits {
        let may_retain = publication.message.retain && !publication.log.is_passed_on;
        if may_retain {
            publication.retain_id = self.peers.next_retain_id();
        }
        if let Some(publisher) = publisher {
            let all = matches.local.len();
            // MQTT-3.8.3-3.
            matches.local.retain(|found| !found.options.no_local || found.session != publisher);
            if matches.local.len() < all {
                // Nor is it to come from the store.
                self.note_live(publisher, publication);
            }
        }
        sort_by_session(&mut matches.local);
        let mut waits = Waits::default();
        if self.durable.is_some() {
            let has_takers = self.has_durable_takers(matches);
            if may_retain && !publication.log.is_stored {
                self.log_what_is_kept(publication, has_takers);
            }
            if publication.log.keeps || has_takers {
                let own = self.shard;
                let shared = matches.shared.iter().filter(|found| found.member.shard == own);
                let members: SmallVec<[_; 4]> =
                    shared.map(|found| (found.member.session, found.options)).collect();
                self.log_publication(publication, &matches.local, &members);
            }
            if publication.log.source.is_some() && publication.log.logged.is_none() {
                self.log_received(publication);
            }
            if let Some(logged) = publication.log.logged {
                waits.commit = logged.after;
            } else if publication.log.copy.is_some() && publication.message.qos > QoS::AtMostOnce {
                waits = self.commit();
            }
        }
        self.deliver_local(publication, &matches.local);
        if !matches.shards.is_empty()
            || !matches.shared.is_empty()
            || publication.log.origin.is_some()
        {
            self.forward(publication, matches.shards, &mut matches.shared, &mut waits);
        }
        if let Some(id) = publication.retain_id {
            self.retain(publication, id, &mut waits);
        }
        self.end_trace();
        waits
    }

    /// Takes in a message that another shard has routed here.
    pub(super) fn receive_forward(&mut self, from: ShardId, forward: Forward) {
        let mut publication = Lazy::kept(&forward.publication);
        publication.retain_id = forward.retain_id;
        if let Some(id) = forward.retain_id {
            self.peers.note_passed(id);
        }
        let before = self.appended();
        let is_known = self.was_taken(forward.origin);
        if !is_known {
            if let Some(tracer) = &mut self.tracer {
                tracer.begin_forwarded(&publication.message);
            }
            self.deliver_forwarded(&mut publication, &forward);
            self.end_trace();
        }
        if let Some(stamp) = forward.stamp {
            let commit = if self.appended() > before { self.appended() } else { 0 };
            self.peers.confirm_after(from, stamp, commit);
        }
    }

    /// Whether what comes from this intake is here already: its shard has crashed since and routes it
    /// again. Takes note of it if not.
    pub(super) fn was_taken(&mut self, origin: Option<(ShardId, u64)>) -> bool {
        let (Some((shard, stamp)), Some(durable)) = (origin, &mut self.durable) else {
            return false;
        };
        let taken = &mut durable.taken[shard.index()];
        let is_known = stamp <= *taken;
        *taken = stamp.max(*taken);
        is_known
    }

    fn deliver_forwarded(&mut self, publication: &mut Lazy<'_>, forward: &Forward) {
        let mut matches = self.matches.take().unwrap_or_default();
        if forward.ordinary {
            self.index.matches_local(publication.message.topic, &mut matches);
            self.leave_out_denied(publication.message.topic, publication.message.qos, &mut matches);
        } else {
            matches.clear();
        }
        sort_by_session(&mut matches.local);
        publication.log.origin = forward.origin;
        let is_durable = |options: &SubscriptionOptions| options.marks.is_durable();
        let is_member = |chosen: &ChosenMember| {
            let member = Member { shard: self.shard, session: chosen.session };
            self.index.member_options(&chosen.filter, member).is_some()
        };
        publication.log.has_record = forward.keeps
            || forward.shared.len() > 1
            || forward.shared.iter().any(is_member)
            || matches.local.iter().any(|found| is_durable(&found.options));
        let mut members: SmallVec<[(SessionKey, SubscriptionOptions); 4]> = SmallVec::new();
        for chosen in &forward.shared {
            members.extend(self.member_for(publication, chosen.clone()));
        }
        if self.acl.is_some() {
            let Message { topic, qos, .. } = publication.message;
            members.retain(|(session, options)| self.may_have(*session, *options, topic, qos));
        }
        if self.durable.is_some() {
            publication.log.is_relaxed = self.is_relaxed(publication.message.topic, None);
            let has_takers = matches.local.iter().any(|found| is_durable(&found.options))
                || members.iter().any(|(_, options)| is_durable(options));
            if forward.keeps {
                self.log_what_is_kept(publication, has_takers);
            }
            if publication.log.keeps || has_takers {
                self.log_publication(publication, &matches.local, &members);
            }
        }
        self.deliver_local(publication, &matches.local);
        for (session, options) in members {
            let grant = Grant::new(&publication.message, &options);
            self.deliver(session, publication, &grant, false);
        }
        if let (true, Some(id)) = (forward.keeps, publication.retain_id) {
            self.retain_here(publication, id);
        }
        self.matches = Some(matches);
    }

    /// Delivers to the subscribers of this shard. A session with several
    /// matching subscriptions gets the message once.
    fn deliver_local(&mut self, publication: &mut Lazy<'_>, local: &[LocalMatch]) {
        let is_fan_out = local.len() > 1;
        self.wire_form.forget();
        for same in local.chunk_by(|a, b| a.session == b.session) {
            let grant = Grant::of_all(&publication.message, same);
            let outcome = self.deliver(same[0].session, publication, &grant, is_fan_out);
            if publication.retain_id.is_some() && !matches!(outcome, Outcome::Offline) {
                self.note_live(same[0].session, publication);
            }
        }
    }

    /// Hands a message to the other shards that have takers, one message each.
    fn forward(
        &mut self,
        publication: &mut Lazy<'_>,
        ordinary: ShardSet,
        shared: &mut Vec<SharedMatch>,
        waits: &mut Waits,
    ) {
        let mut shards = ordinary;
        shards.remove(self.shard);
        let mut chosen: SmallVec<[(ShardId, ChosenMember); 4]> = SmallVec::new();
        for SharedMatch { filter, member, options, hash } in shared.drain(..) {
            if member.shard == self.shard {
                let grant = Grant::new(&publication.message, &options);
                self.deliver(member.session, publication, &grant, false);
            } else {
                shards.insert(member.shard);
                let (session, hops) = (member.session, publication.log.hops);
                chosen.push((member.shard, ChosenMember { filter, session, hash, hops }));
            }
        }
        let keeper = publication.retain_id.filter(|_| publication.log.origin.is_some());
        let keeper = keeper
            .map(|_| self.home_of_topic(publication.message.topic.as_str()))
            .filter(|home| *home != self.shard);
        if let Some(home) = keeper {
            shards.insert(home);
        }
        let is_confirmed = self.durable.is_some()
            && publication.message.qos > QoS::AtMostOnce
            && (!publication.log.is_relaxed || publication.log.origin.is_some());
        let confirming = if is_confirmed { self.peers.durable_of(shards) } else { ShardSet::EMPTY };
        for shard in shards.iter() {
            let keeps = keeper == Some(shard);
            let confirmed = match confirming.contains(shard) {
                _ if keeps => Some(self.peers.next_retain(shard)),
                true => Some(AppliedBy { shard, stamp: self.peers.next_stamp() }),
                false => None,
            };
            waits.shards.extend(confirmed);
            let stamp = confirmed.map(|confirmed| confirmed.stamp);
            let here = chosen.iter().filter(|(at, _)| *at == shard);
            let forward = Forward {
                publication: publication.keep(),
                retain_id: publication.retain_id,
                stamp,
                origin: publication.log.origin,
                ordinary: ordinary.contains(shard),
                keeps,
                shared: here.map(|(_, member)| member.clone()).collect(),
            };
            self.send_forward(shard, forward);
            self.counters.forwarded += 1;
        }
    }

    /// If the publication is traced, the other shard learns so from the message before it.
    fn send_forward(&mut self, to: ShardId, forward: Forward) {
        if let Some(tracer) = &mut self.tracer
            && let Some(start) = tracer.forwarded()
        {
            self.peers.send(to, Mesh::Traced(start));
        }
        self.peers.send(to, Mesh::Publish(forward));
    }

    pub(super) fn end_trace(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            tracer.end(self.now);
        }
    }

    /// The member for a message that another shard has sent for one; if that has left or gone
    /// offline meanwhile, one is chosen anew. None if it is on another shard, which is sent it.
    fn member_for(
        &mut self,
        publication: &mut Lazy<'_>,
        chosen: ChosenMember,
    ) -> Option<(SessionKey, SubscriptionOptions)> {
        let ChosenMember { filter, session, hash, hops } = chosen;
        self.note_load(session, true);
        let member = Member { shard: self.shard, session };
        let options = self.index.member_options(&filter, member);
        let is_online = self.sessions.get(session).is_some_and(|found| found.conn.is_some());
        // What was taken over on one disk stays with whom it was chosen for, if that one can have it.
        let hops_max = if publication.log.origin.is_some() { 0 } else { limits::SHARE_HOPS_MAX };
        if let Some(options) = options
            && (is_online || hops >= hops_max || !self.index.has_online_member(&filter))
        {
            return Some((session, options));
        }
        match self.index.pick(&filter, hash) {
            Some((other, options)) if other.shard == self.shard => Some((other.session, options)),
            Some((other, options)) if hops < limits::SHARE_DEPARTURES_MAX => {
                self.pass_on(publication, filter, other, options, (hash, hops + 1));
                None
            }
            _ => {
                self.counters.count_drop(DropReason::NoMember);
                let topic = publication.message.topic;
                tracing::debug!(%filter, %topic, "no member of the shared subscription is left");
                None
            }
        }
    }

    /// A member that was chosen before a message waited to be routed: on this shard, one that is there.
    pub(super) fn chosen_for(
        &mut self,
        publication: &mut Lazy<'_>,
        found: SharedMatch,
    ) -> Option<SharedMatch> {
        let SharedMatch { filter, member, hash, .. } = &found;
        if member.shard != self.shard {
            return Some(found);
        }
        let (filter, session, hash) = (filter.clone(), member.session, *hash);
        let chosen = ChosenMember { filter, session, hash, hops: publication.log.hops };
        let (session, options) = self.member_for(publication, chosen)?;
        let member = Member { shard: self.shard, session };
        Some(SharedMatch { member, options, ..found })
    }

    /// Sends a message to a member on another shard, in place of one here.
    fn pass_on(
        &mut self,
        publication: &mut Lazy<'_>,
        filter: TopicFilter,
        member: Member,
        options: SubscriptionOptions,
        (hash, hops): (u64, u8),
    ) {
        let mut shards = ShardSet::EMPTY;
        shards.insert(member.shard);
        if publication.message.qos > QoS::AtMostOnce && !self.peers.durable_of(shards).is_empty() {
            // What this shard confirms, it has to answer for.
            let chosen = vec![SharedMatch { filter, member, options, hash }];
            return self.take_in(
                publication,
                Source::PassedOn(publication.log.origin.filter(|_| !publication.log.has_record)),
                None,
                chosen,
                Some(hops),
            );
        }
        let next = ChosenMember { filter, session: member.session, hash, hops };
        let shared = [next].into_iter().collect();
        let publication = publication.keep();
        // No RetainId: it is not from its publisher's shard.
        let forward = Forward {
            publication,
            retain_id: None,
            stamp: None,
            origin: None,
            ordinary: false,
            keeps: false,
            shared,
        };
        self.send_forward(member.shard, forward);
    }
}

/// One filter's subscribers come in order and once each.
fn sort_by_session(local: &mut [LocalMatch]) {
    if !local.is_sorted_by(|a, b| a.session < b.session) {
        local.sort_by_key(|found| found.session);
    }
}
