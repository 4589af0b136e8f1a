//! The records of sessions: what the log is told as they begin, change and end. Without a log, and
//! of sessions that end with their connection, it is told nothing.

use crate::{
    base::{SessionKey, Time},
    session::{Durable, Session, Will},
    storage::{
        Attached, Delivery, DeliveryNumber, Hold, Position, Record, SessionNumber, SessionRecord,
        WillRecord,
    },
    topic::{FilterKind, Member, SubscriptionOptions, TopicFilter},
};

use super::{Broker, durable};

impl Broker {
    /// A client has connected to a session: names it, if it is new and to outlive the process, or puts
    /// into the log what is new about it.
    pub(super) fn log_connected(&mut self, key: SessionKey, is_new: bool) {
        let (Some(durable), Some(session)) = (&mut self.durable, self.sessions.get_mut(key)) else {
            return;
        };
        if is_new && session.expiry_secs > 0 {
            let number = SessionNumber(durable.next_session);
            durable.next_session += 1;
            self.sessions.enter_log(key, Durable { number, hold: NOWHERE });
        } else if let Some(Durable { number, .. }) = session.durable {
            let record = Record::Attached(Attached {
                session: number,
                user_name: session.user_name.as_deref(),
                is_proven: session.identity().is_proven(),
                groups: session.identity().groups.iter().map(|group| &**group).collect(),
                address: session.identity().address,
                expiry_secs: session.expiry_secs,
                will: session.will.as_deref().map(|will| will_record(durable, will)),
            });
            durable.append(self.now, &record);
        }
    }

    /// Puts a new session into the log, and with it what it has of itself: a crash leaves all of that or
    /// nothing.
    pub(super) fn log_begun(&mut self, key: SessionKey) {
        if let Some(Durable { number, .. }) = self.sessions.get(key).and_then(|found| found.durable)
        {
            self.log_session(key, number);
        }
    }

    /// Puts all of a session but its deliveries into the log.
    pub(super) fn log_session(&mut self, key: SessionKey, number: SessionNumber) {
        let (Some(durable), Some(session)) = (&mut self.durable, self.sessions.get(key)) else {
            return;
        };
        let member = Member { shard: self.shard, session: key };
        let options_of = |filter: &TopicFilter| -> SubscriptionOptions {
            let options = match filter.kind() {
                FilterKind::Shared | FilterKind::Queue => self.index.member_options(filter, member),
                FilterKind::Request => session.requests.find(filter).map(|(_, options)| options),
                FilterKind::Plain | FilterKind::Exclusive => self.index.local_options(filter, key),
            };
            options.unwrap_or_default()
        };
        let subscriptions = session.subscriptions.iter();
        let outbox = &session.outbox;
        let (first, sent) = (outbox.first_number(), outbox.sent_number());
        let mut record = SessionRecord {
            number,
            client: session.client.as_str(),
            user_name: session.user_name.as_deref(),
            is_proven: session.identity().is_proven(),
            groups: session.identity().groups.iter().map(|group| &**group).collect(),
            address: session.identity().address,
            expiry_secs: session.expiry_secs,
            detached_at: session
                .conn
                .is_none()
                .then(|| durable.origin.wall(lost_connection_at(session, self.now))),
            will: session.will.as_deref().map(|will| will_record(durable, will)),
            subscriptions: subscriptions.map(|one| (one.as_str(), options_of(one))).collect(),
            received: session.inbox.logged().collect(),
            first,
            next: outbox.next_number(),
            sent,
            done: Vec::new(),
            released: Vec::new(),
        };
        for number in (first.0..sent.0.min(record.next.0)).map(DeliveryNumber) {
            match outbox.delivery(number) {
                Delivery::Done => record.done.push(number),
                Delivery::Received => record.released.push(number),
                Delivery::Message(_) => {}
            }
        }
        let hold = durable.append_held(self.now, &Record::Session(record));
        let Some(session) = self.sessions.get_mut(key) else { return };
        let before = session.durable.replace(Durable { number, hold });
        self.release_hold(before.map(|before| before.hold));
    }

    /// The session is without a connection, or its will has been published since.
    pub(super) fn log_detached(&mut self, key: SessionKey) {
        let (Some(durable), Some(session)) = (&self.durable, self.sessions.get(key)) else {
            return;
        };
        let Some(Durable { number, .. }) = session.durable else { return };
        let will_at = session.will.as_ref().and_then(|will| will.due_at);
        let record = Record::Detached {
            session: number,
            at: durable.origin.wall(lost_connection_at(session, self.now)),
            expiry_secs: session.expiry_secs,
            will_due_at: will_at.map(|at| durable.origin.wall(at)),
            sent: session.outbox.sent_number(),
        };
        self.append(&record);
    }

    /// The session has ended.
    pub(super) fn log_ended(&mut self, session: &Session) {
        let Some(Durable { number, hold }) = session.durable else { return };
        let Some(durable) = &mut self.durable else { return };
        durable.log.release(hold);
        for hold in session.outbox.holds() {
            durable.log.release(hold);
        }
        self.append(&Record::Ended { session: number });
        let commit = self.commit().commit;
        if let Some(durable) = &mut self.durable {
            durable.ended.insert(session.client.clone(), commit);
        }
    }

    /// The session has a subscription now, or other options for it.
    pub(super) fn log_subscribed(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        options: SubscriptionOptions,
        is_new: bool,
    ) {
        let session = self.sessions.get(key).and_then(|session| session.durable);
        let (Some(Durable { number, .. }), Some(durable)) = (session, &mut self.durable) else {
            return;
        };
        durable.subscriptions += u64::from(is_new);
        self.append(&Record::Subscribed { session: number, filter: filter.as_str(), options });
    }

    /// The session has a subscription no more.
    pub(super) fn log_unsubscribed(&mut self, key: SessionKey, filter: &TopicFilter) {
        let session = self.sessions.get(key).and_then(|session| session.durable);
        let (Some(Durable { number, .. }), Some(durable)) = (session, &mut self.durable) else {
            return;
        };
        durable.subscriptions -= 1;
        self.append(&Record::Unsubscribed { session: number, filter: filter.as_str() });
    }
}

fn will_record<'a>(durable: &durable::Durable, will: &'a Will) -> WillRecord<'a> {
    WillRecord {
        message: durable.message(&will.publication.message()),
        message_expiry_secs: will.message_expiry_secs,
        delay_secs: will.delay_secs,
        due_at: will.due_at.map(|at| durable.origin.wall(at)),
    }
}

/// When a session that is without a connection lost it, as far as that matters: for its expiry.
fn lost_connection_at(session: &Session, now: Time) -> Time {
    let millis = u64::from(session.expiry_secs) * 1000;
    session.expires_at.map_or(now, |at| Time::from_millis(at.as_millis().saturating_sub(millis)))
}

/// What a session keeps of the log that is not there yet.
const NOWHERE: Hold = Hold { at: Position { segment: 0, offset: 0 }, bytes: 0 };
