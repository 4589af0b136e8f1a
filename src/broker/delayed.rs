//! Delayed publications: `$delayed/SECONDS/TOPIC` is acknowledged at once and published to TOPIC
//! after SECONDS, as if it came then. Held in memory on the shard that took it.
//!
//! Knows deadlines, bounds and what the topic asks for; rewriting and refusals are `destination.rs`.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::{ClientId, QoS, SessionKey, Time, limits},
    codec::ReasonCode,
    message::{Message, Publication},
    storage::{DelayedRecord, Hold, Record, RecoveredDelayed, Source},
    topic::TopicName,
};

use super::{Broker, DropReason, ack_line::Waits, publish::From, route::Lazy};

/// The delayed publications of one shard.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    /// By when they are due, then by arrival.
    waiting: BTreeMap<(Time, u64), Waiting>,
    /// How many have come so far.
    arrivals: u64,
    /// Bytes of those that wait.
    bytes: u64,
}

#[derive(Debug)]
struct Waiting {
    publication: Arc<Publication>,
    publisher: Publisher,
    /// What it keeps of the log, if it is there.
    hold: Option<Hold>,
}

/// Who has published. Its own subscriptions may not want it (No Local), also if they are of a later
/// session of the same client (MQTT-3.8.3-3).
#[derive(Clone, Debug)]
struct Publisher {
    session: SessionKey,
    /// `None` if the session had ended.
    client: Option<ClientId>,
}

impl Delayed {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|((due_at, _), _)| *due_at)
    }

    fn add(&mut self, due_at: Time, waiting: Waiting) {
        self.arrivals += 1;
        self.insert(due_at, self.arrivals, waiting);
    }

    fn insert(&mut self, due_at: Time, number: u64, waiting: Waiting) {
        self.bytes += waiting.publication.size() as u64;
        self.waiting.insert((due_at, number), waiting);
    }

    fn pop_due(&mut self, now: Time) -> Option<(u64, Waiting)> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let number = first.key().1;
        let waiting = first.remove();
        self.bytes -= waiting.publication.size() as u64;
        Some((number, waiting))
    }

    /// The number that the last one got.
    pub(super) const fn last_number(&self) -> u64 {
        self.arrivals
    }

    /// Those that come get higher numbers than this one.
    pub(super) fn count_from(&mut self, number: u64) {
        self.arrivals = self.arrivals.max(number);
    }

    /// Adds one that a restart has found.
    pub(super) fn restore(&mut self, due_at: Time, found: RecoveredDelayed) {
        let RecoveredDelayed { number, client, publication, hold, .. } = found;
        let session = SessionKey { slot: u32::MAX, generation: u32::MAX };
        let publisher = Publisher { session, client };
        self.count_from(number);
        self.insert(due_at, number, Waiting { publication, publisher, hold: Some(hold) });
    }

    /// What one keeps of the log.
    pub(super) fn hold(&self, due_at: Time, number: u64) -> Option<Hold> {
        self.waiting.get(&(due_at, number))?.hold
    }

    /// One stands elsewhere in the log now. Returns what it kept before.
    pub(super) fn relocate(&mut self, due_at: Time, number: u64, hold: Hold) -> Option<Hold> {
        self.waiting.get_mut(&(due_at, number))?.hold.replace(hold)
    }
}

impl Broker {
    /// Lets a message wait; its expiry counts from when it is due. Returns the reason code of its
    /// acknowledgement.
    pub(super) fn delay(
        &mut self,
        publisher: SessionKey,
        message: Message<'_>,
        (secs, expiry_secs): (u32, Option<u32>),
        from: From,
    ) -> (ReasonCode, Waits) {
        let limits = &self.policy.limits;
        let bytes = self.delayed.bytes + message.size() as u64;
        let is_full = self.delayed.len() as u64 >= self.even_part(limits.delayed_messages_max)
            || bytes > self.even_part(limits.delayed_bytes_max);
        if is_full {
            self.count_session_drop(publisher, DropReason::DelayedFull, message.qos);
            return (ReasonCode::QuotaExceeded, Waits::default());
        }
        let is_logged = message.qos > QoS::AtMostOnce && self.durable.is_some();
        if is_logged && self.log_refuses() && from.conn.is_some() {
            self.count_session_drop(publisher, DropReason::Storage, message.qos);
            return (ReasonCode::QuotaExceeded, Waits::default());
        }
        let due_at = self.now.plus_secs(u64::from(secs));
        let expires_at = expiry_secs.map(|secs| due_at.plus_secs(u64::from(secs)));
        let publication = Publication::new(&Message { expires_at, ..message });
        let client = self.sessions.get(publisher).map(|session| session.client.clone());
        let mut waits = Waits::default();
        let hold = if is_logged {
            let hold = self.log_delayed(due_at, &publication, client.as_ref(), from.source);
            if let Some(source) = from.source {
                self.note_logged(publisher, source);
            }
            if !self.is_relaxed(publication.message().topic, from.conn) {
                waits = self.commit();
            }
            hold
        } else {
            None
        };
        let publisher = Publisher { session: publisher, client };
        self.delayed.add(due_at, Waiting { publication, publisher, hold });
        (ReasonCode::Success, waits)
    }

    /// Publishes some of what is due, as long as the lanes to other shards have room.
    pub(super) fn publish_due(&mut self) {
        for _ in 0..limits::DELAYED_PER_TURN {
            if self.peers.any_full() {
                return;
            }
            let Some(due) = self.delayed.pop_due(self.now) else { return };
            let (number, Waiting { publication, publisher, hold }) = due;
            let Publisher { session, client } = publisher;
            let now_there = client.as_ref().and_then(|client| self.sessions.find(client.as_str()));
            let source = hold.map(|_| Source::Delayed(number));
            let from = From { source, conn: None, client: client.as_ref() };
            self.take_over(now_there.unwrap_or(session), Lazy::kept(&publication), from);
            if hold.is_some() {
                // An intake says so too, if there was one.
                self.append(&Record::DelayedDone { number });
                self.release_hold(hold);
            }
        }
    }

    fn log_delayed(
        &mut self,
        due_at: Time,
        publication: &Publication,
        client: Option<&ClientId>,
        source: Option<Source>,
    ) -> Option<Hold> {
        let number = self.delayed.last_number() + 1;
        let durable = self.durable.as_mut()?;
        let (publisher, will_of) = match source {
            Some(Source::Publisher(session, packet_id)) => (Some((session, packet_id)), None),
            Some(Source::Will(session)) => (None, Some(session)),
            _ => (None, None),
        };
        let record = Record::Delayed(DelayedRecord {
            number,
            due_at: durable.origin.wall(due_at),
            client: client.map(ClientId::as_str),
            publisher,
            will_of,
            message: durable.message(&publication.message()),
        });
        Some(durable.append_held(self.now, &record))
    }

    /// When [`publish_due`](Self::publish_due) has something to do.
    pub(super) fn next_delayed(&self) -> Option<Time> {
        self.delayed.next_due().filter(|_| !self.peers.any_full())
    }
}

/// Takes `$delayed/SECONDS/` off a topic. `None`: it is not delayed; an error: it is malformed.
pub(super) fn split_delay(topic: TopicName<'_>) -> Option<Result<(u32, TopicName<'_>), Malformed>> {
    let rest = topic.as_str().strip_prefix(DELAYED)?;
    match rest.strip_prefix('/') {
        Some(rest) => Some(parse_delay(rest).ok_or(Malformed)),
        None if rest.is_empty() => Some(Err(Malformed)),
        // Such as `$delayed2`.
        None => None,
    }
}

fn parse_delay(text: &str) -> Option<(u32, TopicName<'_>)> {
    let (secs, topic) = text.split_once('/')?;
    // `parse` alone would take a sign.
    let is_number = secs.bytes().all(|byte| byte.is_ascii_digit());
    let secs = secs.parse().ok().filter(|secs| is_number && *secs <= limits::DELAY_SECS_MAX)?;
    Some((secs, TopicName::parse(topic).ok()?))
}

/// The topic starts like that of a delayed publication and is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

const DELAYED: &str = "$delayed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{QoS, ShardId},
        broker::BrokerSetup,
        codec::Properties,
        config::Policy,
        topic::TopicFilter,
    };

    const PUBLISHER: SessionKey = SessionKey { slot: 1, generation: 0 };

    fn message(payload: &[u8]) -> Message<'_> {
        Message {
            topic: TopicName::parse("t").unwrap(),
            properties: Properties::EMPTY,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            original: None,
            shared: None,
        }
    }

    /// Due messages neither pass the bound of a lane nor keep the shard busy while it is full.
    #[test]
    fn due_messages_wait_for_the_lanes_and_come_in_portions() {
        const OVER: usize = 10;
        let (own, other) = (ShardId(0), ShardId(1));
        let policy = Policy::default();
        let setup =
            BrokerSetup { shard: own, shards: 2, seed: 1, secret: [0; 32], policy, trace: None };
        let mut broker = Broker::new(setup);
        broker.index.add_shard(&TopicFilter::parse("t").unwrap(), other);
        for _ in 0..limits::LANE_MESSAGES_MAX + OVER {
            let from = From { source: None, conn: None, client: None };
            let (reason, _) = broker.delay(PUBLISHER, message(b"x"), (1, None), from);
            assert_eq!(reason, ReasonCode::Success);
        }
        let due = Time::from_millis(1000);
        assert_eq!(broker.next_deadline(), Some(due));
        broker.advance(Time::from_millis(999));
        assert!(!broker.mesh_waiting(other));
        let mut turns = 0;
        while broker.next_deadline().is_some() {
            broker.advance(due);
            turns += 1;
        }
        assert_eq!(turns, limits::LANE_MESSAGES_MAX / limits::DELAYED_PER_TURN);
        assert_eq!(broker.take_mesh(due, other).len(), limits::LANE_MESSAGES_MAX);
        assert_eq!(broker.next_deadline(), Some(due));
        broker.advance(due);
        assert_eq!(broker.take_mesh(due, other).len(), OVER);
        assert_eq!((broker.delayed.len(), broker.next_deadline()), (0, None));
    }

    #[test]
    fn publications_come_when_due_and_equal_deadlines_in_order_of_arrival() {
        let mut delayed = Delayed::default();
        assert_eq!(delayed.next_due(), None);
        for (millis, payload) in [(20, b"c"), (10, b"a"), (20, b"d"), (10, b"b"), (30, b"e")] {
            let publisher = Publisher { session: PUBLISHER, client: None };
            let publication = Publication::new(&message(payload));
            let waiting = Waiting { publication, publisher, hold: None };
            delayed.add(Time::from_millis(millis), waiting);
        }
        assert_eq!((delayed.len(), delayed.bytes), (5, 10));
        let mut seen = Vec::new();
        for (now, expected) in [(9, &b""[..]), (10, b"ab"), (29, b"abcd"), (31, b"abcde")] {
            while let Some(due) = delayed.pop_due(Time::from_millis(now)) {
                seen.extend_from_slice(due.1.publication.message().payload);
            }
            assert_eq!(seen, expected, "at {now}");
        }
        assert_eq!((delayed.len(), delayed.bytes, delayed.next_due()), (0, 0, None));
    }

    #[test]
    fn topics_say_whether_and_how_long_they_are_delayed() {
        for (text, expected) in [
            ("$delayed/5/t", Some(Ok((5, "t")))),
            ("$delayed/0/a/b", Some(Ok((0, "a/b")))),
            ("$delayed/005//", Some(Ok((5, "/")))),
            ("$delayed/4294967/t", Some(Ok((4_294_967, "t")))),
            ("$delayed/4294968/t", Some(Err(Malformed))),
            ("$delayed/99999999999999999999/t", Some(Err(Malformed))),
            ("$delayed/x/t", Some(Err(Malformed))),
            ("$delayed/-5/t", Some(Err(Malformed))),
            ("$delayed/5 /t", Some(Err(Malformed))),
            ("$delayed/٥/t", Some(Err(Malformed))),
            ("$delayed//t", Some(Err(Malformed))),
            ("$delayed/5/", Some(Err(Malformed))),
            ("$delayed/5", Some(Err(Malformed))),
            ("$delayed/", Some(Err(Malformed))),
            ("$delayed", Some(Err(Malformed))),
            ("$delayed2/5/t", None),
            ("$Delayed/5/t", None),
            ("a/$delayed/5/t", None),
        ] {
            let found = split_delay(TopicName::parse(text).unwrap())
                .map(|split| split.map(|(s, t)| (s, t.as_str())));
            assert_eq!(found, expected, "{text}");
        }
    }
}
