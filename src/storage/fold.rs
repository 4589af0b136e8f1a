//! From the records of a log to what they amount to, one after the other.
//!
//! A record says what is so from there on. What is said of a session that has not been introduced by a
//! snapshot ([`Record::Session`]) does not count, since one must come that covers it; only its deliveries
//! are kept until then.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use ahash::RandomState;

use super::{
    Attached, Boot, DelayedRecord, Delivery, DeliveryNumber, Hold, Intake, MessageRecord, Position,
    PublicationRecord, Record, RecordError, RecoveredDelayed, RecoveredIntake, RecoveredRetained,
    RecoveredSession, RecoveredShard, RecoveredWill, SessionNumber, SessionRecord, Source, Target,
    WillRecord, deliveries::Deliveries,
};
use crate::{
    base::{ClientId, PacketId, ShardId, TimeOrigin, WallTime},
    codec::Properties,
    message::{Message, Publication},
    topic::{SubscriptionOptions, TopicFilter, TopicName},
};

/// A log as far as it has been read.
#[derive(Debug)]
pub struct Fold {
    origin: TimeOrigin,
    sessions: HashMap<SessionNumber, Session, RandomState>,
    retained: BTreeSet<ByTopic>,
    intakes: BTreeMap<u64, RecoveredIntake>,
    delayed: BTreeMap<u64, RecoveredDelayed>,
    /// But for `taken`.
    boot: Boot,
    taken: BTreeMap<ShardId, u64>,
}

/// Deliveries that a log should have and does not: it was damaged, and has been repaired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Whose session lacks them.
    pub client: ClientId,
    /// How many.
    pub deliveries: u64,
}

#[derive(Debug, Default)]
struct Session {
    deliveries: Deliveries,
    /// All but its deliveries, once a snapshot of it has come.
    known: Option<Box<Known>>,
}

#[derive(Debug)]
struct Known {
    /// Subscriptions are in the order of their filters.
    session: RecoveredSession,
    received: BTreeSet<PacketId>,
    /// Deliveries that have been skipped.
    skipped: u64,
}

impl Fold {
    /// An empty shard, in a process whose clock has begun at `origin`.
    pub fn new(origin: TimeOrigin) -> Self {
        Self {
            origin,
            // Nobody outside chooses the numbers of sessions.
            sessions: HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4)),
            retained: BTreeSet::new(),
            intakes: BTreeMap::new(),
            delayed: BTreeMap::new(),
            boot: Boot::default(),
            taken: BTreeMap::new(),
        }
    }

    /// Adds the next record, and where it stands in how many bytes.
    ///
    /// # Errors
    /// If a log cannot have such a record.
    pub fn apply(
        &mut self,
        at: Position,
        bytes: u32,
        record: &Record<'_>,
    ) -> Result<(), RecordError> {
        let hold = Hold { at, bytes };
        match record {
            Record::Session(record) => return self.session(hold, record),
            Record::Attached(attached) => self.attached(attached),
            Record::Detached { session, at, expiry_secs, will_due_at, sent } => {
                if let Some(known) = self.known(*session) {
                    known.session.detach(*at, *expiry_secs, *will_due_at, *sent);
                }
            }
            Record::Ended { session } => {
                self.sessions.remove(session);
            }
            Record::Subscribed { session, filter, options } => {
                if let Some(known) = self.known(*session) {
                    known.session.subscribe(filter, *options)?;
                }
            }
            Record::Unsubscribed { session, filter } => {
                if let Some(known) = self.known(*session) {
                    known.session.unsubscribe(filter);
                }
            }
            Record::Publication(publication) => return self.publication(hold, publication),
            Record::Done { session, delivery } => {
                return self.delivery(*session, *delivery, Delivery::Done);
            }
            Record::Received { session, delivery } => {
                return self.delivery(*session, *delivery, Delivery::Received);
            }
            Record::Released { session, packet_id } => {
                if let Some(known) = self.known(*session) {
                    known.received.remove(packet_id);
                }
            }
            Record::Intake(intake) => self.intake(hold, intake)?,
            Record::Routed { stamp } => self.routed(*stamp),
            Record::Delayed(delayed) => self.delayed(hold, delayed),
            Record::DelayedDone { number } => {
                self.delayed.remove(number);
            }
            Record::Boot(boot) => self.boot(boot),
        }
        Ok(())
    }

    /// Deliveries that have been left out, for the report of a repair.
    pub fn gaps(&self) -> Vec<Gap> {
        let known = self.sessions.values().filter_map(|session| session.known.as_ref());
        let gaps = known
            .filter(|known| known.skipped > 0)
            .map(|known| Gap { client: known.session.client.clone(), deliveries: known.skipped });
        let mut gaps: Vec<_> = gaps.collect();
        gaps.sort_unstable_by(|a, b| a.client.cmp(&b.client));
        gaps
    }

    /// What the records amount to. Of sessions without a snapshot nothing is left.
    ///
    /// # Errors
    /// If no log can amount to that.
    pub fn finish(self) -> Result<RecoveredShard, RecordError> {
        let mut sessions = Vec::with_capacity(self.sessions.len());
        for session in self.sessions.into_values() {
            let Some(known) = session.known else { continue };
            let Known { session: mut recovered, received, .. } = *known;
            recovered.received = received.into_iter().collect();
            (recovered.first, recovered.deliveries) = session.deliveries.finish()?;
            sessions.push(recovered);
        }
        sessions.sort_unstable_by_key(|session| session.number);
        Ok(RecoveredShard {
            sessions,
            retained: self.retained.into_iter().map(|ByTopic(retained)| retained).collect(),
            intakes: self.intakes.into_values().collect(),
            delayed: self.delayed.into_values().collect(),
            boot: Boot { taken: self.taken.into_iter().collect(), ..self.boot },
        })
    }

    fn known(&mut self, session: SessionNumber) -> Option<&mut Known> {
        self.sessions.get_mut(&session)?.known.as_deref_mut()
    }

    fn session(&mut self, hold: Hold, record: &SessionRecord<'_>) -> Result<(), RecordError> {
        let will = record.will.as_ref().map(|will| RecoveredWill::new(self.origin, will));
        let mut recovered = RecoveredSession {
            number: record.number,
            client: ClientId::new(record.client),
            user_name: record.user_name.map(Into::into),
            is_proven: record.is_proven,
            groups: record.groups.iter().map(|group| (*group).into()).collect(),
            address: record.address,
            expiry_secs: record.expiry_secs,
            detached_at: record.detached_at,
            will,
            subscriptions: Vec::with_capacity(record.subscriptions.len()),
            received: Vec::new(),
            first: record.first,
            sent: record.sent,
            deliveries: Default::default(),
            hold,
        };
        for (filter, options) in &record.subscriptions {
            recovered.subscribe(filter, *options)?;
        }
        self.boot.next_session = self.boot.next_session.max(record.number.0.saturating_add(1));
        let session = self.sessions.entry(record.number).or_default();
        let skipped = session.known.as_ref().map_or(0, |known| known.skipped);
        session.deliveries.limit(record.first, record.next);
        for done in &record.done {
            session.deliveries.set(*done, Delivery::Done)?;
        }
        for released in &record.released {
            session.deliveries.set(*released, Delivery::Received)?;
        }
        let received = record.received.iter().copied().collect();
        session.known = Some(Box::new(Known { session: recovered, received, skipped }));
        Ok(())
    }

    fn attached(&mut self, attached: &Attached<'_>) {
        let will = attached.will.as_ref().map(|will| RecoveredWill::new(self.origin, will));
        if let Some(Known { session, .. }) = self.known(attached.session) {
            session.user_name = attached.user_name.map(Into::into);
            session.is_proven = attached.is_proven;
            session.groups = attached.groups.iter().map(|group| (*group).into()).collect();
            session.address = attached.address;
            session.expiry_secs = attached.expiry_secs;
            session.detached_at = None;
            session.will = will;
        }
    }

    fn publication(
        &mut self,
        hold: Hold,
        record: &PublicationRecord<'_>,
    ) -> Result<(), RecordError> {
        if let Some((shard, stamp)) = record.origin {
            self.taken(shard, stamp);
        }
        self.received(record.publisher);
        let hold = hold.share(record.targets.len() + usize::from(record.is_retained));
        for &Target { session, delivery, .. } in record.targets {
            let session = self.sessions.entry(session).or_default();
            if let Some(known) = &mut session.known {
                known.skipped += delivery.0.saturating_sub(session.deliveries.next());
            }
            session.deliveries.set(delivery, Delivery::Message(hold))?;
        }
        if record.is_retained && record.message.payload.is_empty() {
            self.retained.remove(record.message.topic);
        } else if record.is_retained {
            let publication = record.message.publication(self.origin);
            self.retained.replace(ByTopic(RecoveredRetained { publication, hold }));
        }
        Ok(())
    }

    fn delivery(
        &mut self,
        session: SessionNumber,
        number: DeliveryNumber,
        delivery: Delivery,
    ) -> Result<(), RecordError> {
        // A session that is not known yet may have deliveries; its snapshot says the same of them.
        let Some(session) = self.sessions.get_mut(&session) else { return Ok(()) };
        if let Some(known) = &mut session.known
            && delivery == Delivery::Received
        {
            let sent = DeliveryNumber(number.0.saturating_add(1));
            known.session.sent = known.session.sent.max(sent);
        }
        session.deliveries.set(number, delivery)
    }

    fn received(&mut self, publisher: Option<(SessionNumber, PacketId)>) {
        let Some((session, packet_id)) = publisher else { return };
        if let Some(known) = self.known(session) {
            known.received.insert(packet_id);
        }
    }

    fn intake(&mut self, hold: Hold, record: &Intake<'_>) -> Result<(), RecordError> {
        match record.source {
            Source::Publisher(session, packet_id) => self.received(Some((session, packet_id))),
            Source::Delayed(number) => {
                self.delayed.remove(&number);
            }
            Source::Will(session) => self.end_will(session),
            Source::PassedOn(Some((shard, stamp))) => self.taken(shard, stamp),
            Source::PassedOn(None) => {}
        }
        self.boot.stamp = self.boot.stamp.max(record.stamp);
        let chosen = record.chosen.iter();
        let chosen = chosen.map(|(filter, shard)| Ok((parse(filter)?, *shard)));
        let intake = RecoveredIntake {
            stamp: record.stamp,
            source: record.source,
            client: record.client.map(ClientId::new),
            chosen: chosen.collect::<Result<_, _>>()?,
            chosen_only: record.chosen_only,
            publication: record.message.publication(self.origin),
            hold,
        };
        if record.stamp > self.boot.routed {
            self.intakes.insert(record.stamp, intake);
        }
        Ok(())
    }

    fn routed(&mut self, stamp: u64) {
        self.boot.routed = self.boot.routed.max(stamp);
        self.intakes = match self.boot.routed.checked_add(1) {
            Some(next) => self.intakes.split_off(&next),
            None => BTreeMap::new(),
        };
    }

    fn end_will(&mut self, session: SessionNumber) {
        if let Some(known) = self.known(session) {
            known.session.will = None;
        }
    }

    fn delayed(&mut self, hold: Hold, record: &DelayedRecord<'_>) {
        self.received(record.publisher);
        if let Some(session) = record.will_of {
            self.end_will(session);
        }
        self.boot.last_delayed = self.boot.last_delayed.max(record.number);
        let delayed = RecoveredDelayed {
            number: record.number,
            due_at: record.due_at,
            client: record.client.map(ClientId::new),
            publication: record.message.publication(self.origin),
            hold,
        };
        self.delayed.insert(record.number, delayed);
    }

    fn boot(&mut self, boot: &Boot) {
        let own = &mut self.boot;
        own.next_session = own.next_session.max(boot.next_session);
        own.last_delayed = own.last_delayed.max(boot.last_delayed);
        own.stamp = own.stamp.max(boot.stamp);
        own.given_up = own.given_up.max(boot.given_up);
        self.routed(boot.routed);
        for &(shard, stamp) in &boot.taken {
            self.taken(shard, stamp);
        }
    }

    fn taken(&mut self, shard: ShardId, stamp: u64) {
        let taken = self.taken.entry(shard).or_default();
        *taken = stamp.max(*taken);
    }
}

impl RecoveredSession {
    fn detach(
        &mut self,
        at: WallTime,
        expiry_secs: u32,
        will_due_at: Option<WallTime>,
        sent: DeliveryNumber,
    ) {
        self.detached_at = Some(at);
        self.expiry_secs = expiry_secs;
        self.will = mem::take(&mut self.will).filter(|_| will_due_at.is_some());
        if let Some(will) = &mut self.will {
            will.due_at = will_due_at;
        }
        self.sent = self.sent.max(sent);
    }

    fn subscribe(&mut self, filter: &str, options: SubscriptionOptions) -> Result<(), RecordError> {
        match self.find(filter) {
            Ok(index) => self.subscriptions[index].1 = options,
            Err(index) => self.subscriptions.insert(index, (parse(filter)?, options)),
        }
        Ok(())
    }

    fn unsubscribe(&mut self, filter: &str) {
        if let Ok(index) = self.find(filter) {
            self.subscriptions.remove(index);
        }
    }

    fn find(&self, filter: &str) -> Result<usize, usize> {
        self.subscriptions.binary_search_by(|(known, _)| known.as_str().cmp(filter))
    }
}

impl RecoveredWill {
    fn new(origin: TimeOrigin, will: &WillRecord<'_>) -> Self {
        Self {
            publication: will.message.publication(origin),
            message_expiry_secs: will.message_expiry_secs,
            delay_secs: will.delay_secs,
            due_at: will.due_at,
        }
    }
}

impl<'a> MessageRecord<'a> {
    /// What the log is told of a message, by a process whose clock has begun at `origin`.
    pub fn new(message: &Message<'a>, origin: TimeOrigin) -> Self {
        Self {
            topic: message.topic.as_str(),
            properties: message.properties.raw(),
            payload: message.payload,
            shared: message.shared.filter(|_| message.is_large()),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at.map(|at| origin.wall(at)),
        }
    }

    /// The message, in a process whose clock has begun at `origin`.
    pub fn message(&self, origin: TimeOrigin) -> Message<'a> {
        Message {
            topic: TopicName::trusted(self.topic),
            properties: Properties::trusted(self.properties),
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at.map(|at| origin.time(at)),
            original: None,
            shared: self.shared,
        }
    }

    fn publication(&self, origin: TimeOrigin) -> std::sync::Arc<Publication> {
        Publication::new(&self.message(origin))
    }
}

/// A retained message in the order of topics, each of which has one.
#[derive(Debug)]
struct ByTopic(RecoveredRetained);

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        self.0.publication.message().topic.as_str()
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> Ordering {
        Borrow::<str>::borrow(self).cmp(other.borrow())
    }
}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByTopic {}

fn parse(filter: &str) -> Result<TopicFilter, RecordError> {
    TopicFilter::parse(filter).map_err(|_| RecordError("text is not a topic filter"))
}
