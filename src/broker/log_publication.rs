//! The record of a publication: one for all deliveries of this shard that outlive the process, its
//! retained message and the received Packet Identifier, so that a crash leaves all of it or nothing.

use crate::{
    base::{QoS, SessionKey, ShardSet},
    codec::Properties,
    message::Message,
    session::Logged,
    storage::{DeliveryNumber, Hold, PublicationRecord, Record, Source, Target},
    topic::{LocalMatch, Matches, SubscriptionOptions},
};

use super::{
    Broker,
    deliver::Fate,
    route::{Grant, Lazy},
};

/// What the log has to do with a publication on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogPart {
    /// Where it comes from, if that is to be in the same record.
    pub(super) source: Option<Source>,
    /// The intake that it comes from.
    pub(super) origin: Option<(crate::base::ShardId, u64)>,
    /// Whether it may have a record here that names its origin, apart from those of what is passed on:
    /// that comes last, so that all of it is on disk when the origin is.
    pub(super) has_record: bool,
    /// How often it was passed on before it was taken in.
    pub(super) hops: u8,
    /// Whether the record is that of a retained message too.
    pub(super) keeps: bool,
    /// What the record keeps of the log that says what is retained instead, if a rule wants that.
    pub(super) copy: Option<Hold>,
    /// Whether its home, which is this shard, can keep no retained message of it.
    pub(super) is_unkept: bool,
    /// Whether its home, if that is this shard, has its retained message since before a restart.
    pub(super) is_stored: bool,
    /// Whether it is for chosen members only: another shard has seen to all else.
    pub(super) is_passed_on: bool,
    /// Whether its acknowledgement does not wait for the disk.
    pub(super) is_relaxed: bool,
    /// Whether the record holds the received Packet Identifier.
    pub(super) has_received: bool,
    /// What each delivery, and the retained message, keeps of its record.
    pub(super) logged: Option<Logged>,
}

impl Broker {
    /// Appends the record of a publication, if there is anything for it: deliveries to `local`, which
    /// is in the order of its sessions, and to `members` of shared subscriptions.
    pub(super) fn log_publication(
        &mut self,
        publication: &mut Lazy<'_>,
        local: &[LocalMatch],
        members: &[(SessionKey, SubscriptionOptions)],
    ) {
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        if publication.message.qos > QoS::AtMostOnce {
            for same in local.chunk_by(|a, b| a.session == b.session) {
                if same.iter().any(|found| found.options.marks.is_durable()) {
                    let grant = Grant::of_all(&publication.message, same);
                    self.add_target(&mut targets, same[0].session, publication, &grant);
                }
            }
            for (session, options) in
                members.iter().filter(|(_, options)| options.marks.is_durable())
            {
                let grant = Grant::new(&publication.message, options);
                self.add_target(&mut targets, *session, publication, &grant);
            }
        }
        if !targets.is_empty() || publication.log.keeps {
            self.append_publication(publication, &targets);
        }
        self.targets = targets;
    }

    /// The record of a received Packet Identifier whose message nobody gets who outlives the process.
    pub(super) fn log_received(&mut self, publication: &mut Lazy<'_>) {
        let message =
            Message { properties: Properties::EMPTY, payload: &[], ..publication.message };
        let mut bare = Lazy::new(message);
        bare.log = LogPart { source: publication.log.source.take(), ..publication.log };
        self.append_publication(&mut bare, &[]);
        publication.log.has_received = bare.log.has_received;
        publication.log.logged = bare.log.logged;
    }

    /// The record of one delivery, of a message that was stored or that was routed elsewhere.
    pub(super) fn log_delivery(
        &mut self,
        key: SessionKey,
        publication: &Lazy<'_>,
        grant: &Grant,
    ) -> Option<Logged> {
        let mut single = Lazy::new(publication.message);
        single.log.is_relaxed = publication.log.is_relaxed;
        let mut targets = Vec::new();
        self.add_target(&mut targets, key, &single, grant);
        if !targets.is_empty() {
            self.append_publication(&mut single, &targets);
        }
        single.log.logged
    }

    fn add_target(
        &self,
        targets: &mut Vec<Target>,
        key: SessionKey,
        publication: &Lazy<'_>,
        grant: &Grant,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(durable) = session.durable else { return };
        if grant.qos == QoS::AtMostOnce
            || !matches!(self.fate(key, publication, grant).0, Fate::Sent | Fate::Queued)
        {
            return;
        }
        // A member of a shared subscription may have another one too.
        let before = targets.iter().rev().take_while(|target| target.session == durable.number);
        let next = session.outbox.next_number().0 + before.count() as u64;
        targets.push(Target {
            session: durable.number,
            delivery: DeliveryNumber(next),
            qos: grant.qos,
            retain: grant.retain,
            identifiers: grant.identifiers.clone(),
        });
    }

    fn append_publication(&mut self, publication: &mut Lazy<'_>, targets: &[Target]) {
        let mut is_lazy = publication.log.is_relaxed || publication.message.qos == QoS::AtMostOnce;
        is_lazy &= !targets.iter().any(|target| self.waits_for_log(publication, target.qos));
        let Some(durable) = &mut self.durable else { return };
        let publisher = publication.log.source.take().and_then(Source::publisher);
        let record = PublicationRecord {
            message: durable.message(&publication.message),
            is_retained: publication.log.keeps,
            publisher,
            origin: publication.log.origin,
            targets,
        };
        let record = Record::Publication(record);
        let whole = durable.append(self.now, &record);
        let share = whole.share(targets.len() + usize::from(publication.log.keeps));
        for _ in targets {
            durable.log.hold(share);
        }
        let after = if is_lazy { 0 } else { durable.commit() };
        publication.log.logged = Some(Logged { hold: share, after });
        if publisher.is_some() {
            publication.log.has_received = true;
        }
    }

    /// The other shards with takers.
    pub(super) fn takers_elsewhere(&self, matches: &Matches) -> ShardSet {
        let mut shards = matches.shards;
        for found in &matches.shared {
            shards.insert(found.member.shard);
        }
        shards.remove(self.shard);
        shards
    }

    /// Whether a session of this shard that outlives the process gets it at QoS > 0.
    pub(super) fn has_durable_takers(&self, matches: &Matches) -> bool {
        if self.durable.as_ref().is_none_or(|durable| durable.subscriptions == 0) {
            return false;
        }
        let shared = matches.shared.iter().filter(|found| found.member.shard == self.shard);
        let mut options = matches
            .local
            .iter()
            .map(|found| found.options)
            .chain(shared.map(|found| found.options));
        options.any(|options| options.marks.is_durable() && options.qos > QoS::AtMostOnce)
    }
}
