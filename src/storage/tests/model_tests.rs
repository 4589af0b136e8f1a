//! A log under random operations, cleaned and restarted in between, against maps that say the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        Boot, DelayedRecord, Delivery, DeliveryNumber, Hold, Intake, Log, LogState, MessageRecord,
        Position, PublicationRecord, Record, RecoveredShard, Scanned, SegmentScan, SessionNumber,
        SessionRecord, Source, Target,
    },
    Random,
    testing::{Disk, ID, commit, read, setup},
};
use crate::{
    base::{PacketId, QoS, WallTime},
    topic::SubscriptionOptions,
};

#[derive(Default)]
struct Session {
    client: String,
    subscriptions: BTreeSet<String>,
    received: BTreeSet<PacketId>,
    /// Those that are not over.
    deliveries: BTreeMap<u64, Delivery>,
    next: u64,
    hold: Option<Hold>,
}

/// What the records so far amount to, and where it stands.
struct Model {
    log: Log,
    disk: Disk,
    sessions: BTreeMap<u64, Session>,
    retained: BTreeMap<String, Hold>,
    intakes: BTreeMap<u64, Hold>,
    delayed: BTreeMap<u64, Hold>,
    boot: Boot,
}

impl Model {
    fn new() -> Self {
        Self {
            log: Log::new(setup(SEGMENT_BYTES)),
            disk: Disk::new(),
            sessions: BTreeMap::new(),
            retained: BTreeMap::new(),
            intakes: BTreeMap::new(),
            delayed: BTreeMap::new(),
            boot: Boot::default(),
        }
    }

    fn step(&mut self, random: &mut Random) {
        let any = random.below(self.sessions.len().max(1));
        let Some(session) = self.sessions.keys().copied().nth(any) else {
            return self.begin();
        };
        match random.below(40) {
            0 if self.sessions.len() < 6 => self.begin(),
            1 => self.end(session),
            2..6 => self.subscribe(session, &format!("f/{}", random.below(6))),
            6..16 => self.publish(random, session),
            16..24 => self.delivery(random, session, Delivery::Done),
            24..28 => self.delivery(random, session, Delivery::Received),
            28..30 => self.release(session),
            30..34 => self.intake(random, session),
            34 => self.routed(),
            35 | 36 => self.delay(),
            37 => self.delayed_done(),
            _ => commit(&mut self.log, &mut self.disk),
        }
    }

    fn begin(&mut self) {
        let number = self.boot.next_session;
        self.boot.next_session += 1;
        let client = format!("client{number}");
        self.sessions.insert(number, Session { client, ..Session::default() });
        self.snapshot(number);
    }

    /// Writes a session anew.
    fn snapshot(&mut self, number: u64) {
        let session = self.sessions.get_mut(&number).expect("a session");
        let first = session.deliveries.keys().next().copied().unwrap_or(session.next);
        let is = |state: Option<&Delivery>, delivery| {
            state.copied().unwrap_or(Delivery::Done) == delivery
        };
        let all = |delivery| {
            let numbers =
                (first..session.next).filter(|number| is(session.deliveries.get(number), delivery));
            numbers.map(DeliveryNumber).collect()
        };
        let options = SubscriptionOptions::default();
        let record = Record::Session(SessionRecord {
            number: SessionNumber(number),
            client: &session.client,
            subscriptions: session.subscriptions.iter().map(|f| (f.as_str(), options)).collect(),
            received: session.received.iter().copied().collect(),
            first: DeliveryNumber(first),
            next: DeliveryNumber(session.next),
            done: all(Delivery::Done),
            released: all(Delivery::Received),
            ..SessionRecord::default()
        });
        let hold = self.log.append(&record);
        self.log.hold(hold);
        if let Some(old) = session.hold.replace(hold) {
            self.log.release(old);
        }
    }

    fn end(&mut self, number: u64) {
        self.log.append(&Record::Ended { session: SessionNumber(number) });
        let session = self.sessions.remove(&number).expect("a session");
        self.log.release(session.hold.expect("a snapshot"));
        for delivery in session.deliveries.into_values() {
            if let Delivery::Message(hold) = delivery {
                self.log.release(hold);
            }
        }
    }

    fn subscribe(&mut self, number: u64, filter: &str) {
        let session = self.sessions.get_mut(&number).expect("a session");
        let options = SubscriptionOptions::default();
        let number = SessionNumber(number);
        if session.subscriptions.remove(filter) {
            self.log.append(&Record::Unsubscribed { session: number, filter });
        } else {
            session.subscriptions.insert(filter.to_owned());
            self.log.append(&Record::Subscribed { session: number, filter, options });
        }
    }

    fn publish(&mut self, random: &mut Random, publisher: u64) {
        let topic = format!("t/{}", random.below(8));
        let packet_id = PacketId::FIRST.plus(random.below(5) as u16);
        let is_qos2 = random.chance(2);
        let targets = self.sessions.iter_mut().filter_map(|(number, session)| {
            let number = SessionNumber(*number);
            let delivery = DeliveryNumber(session.next);
            let is_taker = random.chance(2);
            session.next += u64::from(is_taker);
            is_taker.then(|| target(number, delivery))
        });
        let targets: Vec<_> = targets.collect();
        let is_retained = random.chance(4);
        let payload: &[u8] = if random.chance(3) { b"" } else { b"payload" };
        let publisher = is_qos2.then_some((SessionNumber(publisher), packet_id));
        if let Some((number, packet_id)) = publisher {
            let session = self.sessions.get_mut(&number.0).expect("a session");
            session.received.insert(packet_id);
        }
        self.publication(&topic, payload, is_retained, publisher, &targets);
    }

    fn publication(
        &mut self,
        topic: &str,
        payload: &[u8],
        is_retained: bool,
        publisher: Option<(SessionNumber, PacketId)>,
        targets: &[Target],
    ) {
        let message = message(topic, payload);
        let record = PublicationRecord { message, is_retained, publisher, origin: None, targets };
        let hold = self.log.append(&Record::Publication(record));
        let hold = hold.share(targets.len() + usize::from(is_retained));
        for target in targets {
            let session = self.sessions.get_mut(&target.session.0).expect("a session");
            let delivery = Delivery::Message(hold);
            self.log.hold(hold);
            if let Some(Delivery::Message(old)) =
                session.deliveries.insert(target.delivery.0, delivery)
            {
                self.log.release(old);
            }
        }
        if is_retained {
            let old = if payload.is_empty() {
                self.retained.remove(topic)
            } else {
                self.log.hold(hold);
                self.retained.insert(topic.to_owned(), hold)
            };
            if let Some(old) = old {
                self.log.release(old);
            }
        }
    }

    fn delivery(&mut self, random: &mut Random, number: u64, state: Delivery) {
        let session = self.sessions.get_mut(&number).expect("a session");
        let any = random.below(session.deliveries.len().max(1));
        let Some((&delivery, &old)) = session.deliveries.iter().nth(any) else { return };
        let (session_, delivery_) = (SessionNumber(number), DeliveryNumber(delivery));
        if state == Delivery::Done {
            session.deliveries.remove(&delivery);
            self.log.append(&Record::Done { session: session_, delivery: delivery_ });
        } else {
            session.deliveries.insert(delivery, state);
            self.log.append(&Record::Received { session: session_, delivery: delivery_ });
        }
        if let Delivery::Message(hold) = old {
            self.log.release(hold);
        }
    }

    fn release(&mut self, number: u64) {
        let session = self.sessions.get_mut(&number).expect("a session");
        let Some(packet_id) = session.received.pop_first() else { return };
        self.log.append(&Record::Released { session: SessionNumber(number), packet_id });
    }

    fn intake(&mut self, random: &mut Random, session: u64) {
        self.boot.stamp += 1;
        let delayed = if random.chance(2) { self.delayed.pop_first() } else { None };
        let source = match delayed {
            Some((number, hold)) => {
                self.log.release(hold);
                Source::Delayed(number)
            }
            None => {
                let packet_id = PacketId::FIRST.plus(9);
                let session_ = self.sessions.get_mut(&session).expect("a session");
                session_.received.insert(packet_id);
                Source::Publisher(SessionNumber(session), packet_id)
            }
        };
        self.append_intake(self.boot.stamp, source);
    }

    fn append_intake(&mut self, stamp: u64, source: Source) {
        let intake = Intake {
            stamp,
            source,
            client: None,
            chosen: vec![("$share/g/a", crate::base::ShardId(1))],
            chosen_only: false,
            message: message("intake", b"payload"),
        };
        let hold = self.log.append(&Record::Intake(intake));
        self.log.hold(hold);
        if let Some(old) = self.intakes.insert(stamp, hold) {
            self.log.release(old);
        }
    }

    fn routed(&mut self) {
        let Some((stamp, hold)) = self.intakes.pop_first() else { return };
        self.log.release(hold);
        self.boot.routed = stamp;
        self.log.append(&Record::Routed { stamp });
    }

    fn delay(&mut self) {
        self.boot.last_delayed += 1;
        self.append_delayed(self.boot.last_delayed);
    }

    fn append_delayed(&mut self, number: u64) {
        let hold = self.log.append(&Record::Delayed(DelayedRecord {
            number,
            due_at: WallTime(number),
            client: Some("client"),
            publisher: None,
            will_of: None,
            message: message("delayed", b"payload"),
        }));
        self.log.hold(hold);
        if let Some(old) = self.delayed.insert(number, hold) {
            self.log.release(old);
        }
    }

    fn delayed_done(&mut self) {
        let Some((number, hold)) = self.delayed.pop_first() else { return };
        self.log.release(hold);
        self.log.append(&Record::DelayedDone { number });
    }

    /// Moves what is needed of the oldest segment, as long as that is worth it.
    fn clean(&mut self) {
        for _ in 0..3 {
            let Some((segment, bytes)) = self.log.to_clean() else { break };
            if bytes > 0 {
                let file = self.disk[&segment].clone();
                let mut scan = SegmentScan::new(ID, segment, &file).expect("a segment");
                let mut targets = Vec::new();
                loop {
                    match scan.next(&mut targets) {
                        Scanned::Record(at, _, record) => self.move_record(at, &record),
                        Scanned::Batch(_) => {}
                        Scanned::End(_) => break,
                    }
                }
            }
            self.boot.given_up = segment;
            let boot = Record::Boot(self.boot.clone());
            self.log.append(&boot);
            self.log.cleaned(segment);
            commit(&mut self.log, &mut self.disk);
            assert!(!self.disk.contains_key(&segment));
        }
    }

    fn move_record(&mut self, at: Position, record: &Record<'_>) {
        let is_there = |hold: Option<&Hold>| hold.is_some_and(|hold| hold.at == at);
        match record {
            Record::Session(session) => {
                let number = session.number.0;
                let hold = self.sessions.get(&number).and_then(|session| session.hold);
                if is_there(hold.as_ref()) {
                    self.snapshot(number);
                }
            }
            Record::Publication(record) => {
                let is_retained = is_there(self.retained.get(record.message.topic));
                let mut targets = record.targets.to_vec();
                targets.retain(|target| {
                    let session = self.sessions.get(&target.session.0);
                    let delivery = session.and_then(|s| s.deliveries.get(&target.delivery.0));
                    matches!(delivery, Some(Delivery::Message(hold)) if hold.at == at)
                });
                if is_retained || !targets.is_empty() {
                    let message = record.message;
                    self.publication(message.topic, message.payload, is_retained, None, &targets);
                }
            }
            Record::Intake(intake) if is_there(self.intakes.get(&intake.stamp)) => {
                self.append_intake(intake.stamp, Source::PassedOn(None));
            }
            Record::Delayed(delayed) if is_there(self.delayed.get(&delayed.number)) => {
                self.append_delayed(delayed.number);
            }
            _ => {}
        }
    }

    /// The log that is read again says the same.
    fn check(&self) {
        let recovered = read(&self.disk).expect("no damage");
        assert!(recovered.torn.is_none() && recovered.gaps.is_empty());
        self.check_sessions(&recovered.shard);
        let shard = &recovered.shard;
        let retained = shard.retained.iter();
        let retained =
            retained.map(|r| (r.publication.message().topic.as_str().to_owned(), r.hold));
        assert_eq!(retained.collect::<BTreeMap<_, _>>(), self.retained);
        let intakes = shard.intakes.iter().map(|intake| (intake.stamp, intake.hold));
        assert_eq!(intakes.collect::<BTreeMap<_, _>>(), self.intakes);
        let delayed = shard.delayed.iter().map(|delayed| (delayed.number, delayed.hold));
        assert_eq!(delayed.collect::<BTreeMap<_, _>>(), self.delayed);
        assert_eq!(shard.boot, self.boot);
        assert_eq!(shard.held().values().sum::<u64>(), self.log.live_bytes());
        assert_eq!(recovered.segments.len(), self.log.segments());
    }

    fn check_sessions(&self, shard: &RecoveredShard) {
        assert_eq!(shard.sessions.len(), self.sessions.len());
        for found in &shard.sessions {
            let session = &self.sessions[&found.number.0];
            assert_eq!(found.client.as_str(), session.client);
            let filters = found.subscriptions.iter().map(|(filter, _)| filter.as_str());
            assert!(filters.eq(session.subscriptions.iter()));
            assert!(found.received.iter().eq(&session.received));
            assert_eq!(Some(found.hold), session.hold);
            assert_eq!(found.first.0 + found.deliveries.len() as u64, session.next);
            let deliveries = found.deliveries.iter().zip(found.first.0..);
            let deliveries = deliveries.map(|(slot, number)| (number, slot.get()));
            let needed = deliveries.filter(|(_, delivery)| *delivery != Delivery::Done);
            assert_eq!(needed.collect::<BTreeMap<_, _>>(), session.deliveries);
        }
    }
}

fn target(session: SessionNumber, delivery: DeliveryNumber) -> Target {
    let identifiers = Default::default();
    Target { session, delivery, qos: QoS::AtLeastOnce, retain: false, identifiers }
}

const fn message<'a>(topic: &'a str, payload: &'a [u8]) -> MessageRecord<'a> {
    let properties = &[];
    let (qos, retain, expires_at) = (QoS::ExactlyOnce, false, None);
    MessageRecord { topic, properties, payload, shared: None, qos, retain, expires_at }
}

const SEGMENT_BYTES: u32 = 500;

#[test]
fn a_log_that_is_read_again_amounts_to_what_was_added() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut model = Model::new();
        for step in 0..3_000 {
            model.step(&mut random);
            if random.chance(20) {
                commit(&mut model.log, &mut model.disk);
                model.clean();
                model.check();
            }
            if random.chance(100) {
                commit(&mut model.log, &mut model.disk);
                let recovered = read(&model.disk).expect("no damage");
                let live = model.log.live_bytes();
                model.log = Log::new(recovered.setup(ID, SEGMENT_BYTES, 1 << 40));
                assert_eq!(model.log.live_bytes(), live, "seed {seed}, step {step}");
            }
        }
        let is_cleaned = !model.disk.contains_key(&1) && model.log.segments() < 200;
        assert!(is_cleaned, "{:?}", model.disk.keys());
    }
}

#[test]
fn a_log_that_is_full_says_so_and_still_takes_what_frees_it() {
    let mut model = Model::new();
    model.log = Log::new(super::super::LogSetup { bytes_max: 10 * 500, ..setup(500) });
    model.begin();
    let mut random = Random::new(5);
    while model.log.state() == LogState::Ready {
        let next = model.sessions[&0].next;
        model.sessions.get_mut(&0).expect("a session").next += 1;
        model.publication("t", b"", false, None, &[target(SessionNumber(0), DeliveryNumber(next))]);
    }
    assert_eq!((model.log.state(), model.log.segments()), (LogState::Full, 9));
    commit(&mut model.log, &mut model.disk);
    model.clean();
    assert_eq!(model.log.state(), LogState::Full, "all of it is needed");
    while !model.sessions[&0].deliveries.is_empty() {
        model.delivery(&mut random, 0, Delivery::Done);
        commit(&mut model.log, &mut model.disk);
        model.clean();
        assert!(model.log.segments() <= 11);
    }
    assert_eq!(model.log.state(), LogState::Ready);
    model.log.disk_failed(true);
    assert_eq!(model.log.state(), LogState::Failing);
}

#[test]
fn what_waits_for_a_record_is_told_when_it_is_on_disk() {
    let mut log = Log::new(setup(500));
    assert!(log.next_batch().is_none() && !log.has_pending());
    let first = log.append(&Record::Routed { stamp: 1 });
    assert!(log.has_pending() && !log.is_urgent());
    log.hurry();
    assert!(log.is_urgent());
    let batch = log.next_batch().expect("a batch");
    assert_eq!((batch.writes[0].offset, batch.writes[0].segment_bytes), (0, 500));
    assert!(!log.is_urgent() && !log.has_pending() && !log.is_readable(first.at));
    let second = log.append(&Record::Routed { stamp: 2 });
    assert!(log.has_pending() && log.next_batch().is_none(), "one batch at a time");
    log.batch_committed();
    assert!(log.is_readable(first.at) && !log.is_readable(second.at));
    assert_eq!((log.committed(), log.appended()), (1, 2));
    let batch = log.next_batch().expect("a batch");
    assert_eq!(batch.writes[0].offset as usize, first.at.offset as usize + first.bytes as usize);
    log.batch_committed();
    assert!(log.is_readable(second.at));
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let mut log = Log::new(setup(500));
    let mut disk = Disk::new();
    log.append(&Record::Routed { stamp: 1 });
    let payload = vec![1; 2_000];
    let message = message("t", &payload);
    let large = PublicationRecord {
        message,
        is_retained: true,
        publisher: None,
        origin: None,
        targets: &[],
    };
    let hold = log.append(&Record::Publication(large));
    assert_eq!((hold.at.segment, hold.at.offset), (2, super::super::SEGMENT_HEADER_BYTES));
    let next = log.append(&Record::Routed { stamp: 0 });
    assert_eq!(next.at.segment, 3);
    commit(&mut log, &mut disk);
    assert_eq!(disk[&2].len(), (super::super::SEGMENT_HEADER_BYTES + hold.bytes) as usize);
    assert_eq!(read(&disk).expect("no damage").shard.retained[0].hold, hold);
}

/// Among others, in a segment that has room for it and in one of its own.
#[test]
fn a_shared_payload_is_not_copied_and_sealed_when_it_is_written() {
    for segment_bytes in [500, 1 << 20] {
        let mut log = Log::new(setup(segment_bytes));
        let mut disk = Disk::new();
        let whole = bytes::Bytes::from(vec![7; 40_000]);
        for at in [0, 3] {
            log.append(&Record::Routed { stamp: 0 });
            let payload = &whole[at..at + 20_000];
            let message = MessageRecord { shared: Some(&whole), ..message("t", payload) };
            let publisher = None;
            log.append(&Record::Publication(PublicationRecord {
                message,
                is_retained: true,
                publisher,
                origin: None,
                targets: &[],
            }));
        }
        let last = log.append(&Record::Routed { stamp: 0 });
        let pending = log.pending_bytes();
        assert!((40_000..41_000).contains(&pending) && !whole.is_unique(), "{pending} bytes");
        commit(&mut log, &mut disk);
        assert!(whole.is_unique());
        let recovered = read(&disk).expect("no damage");
        let retained = recovered.shard.retained.last().expect("the second one");
        assert_eq!(retained.publication.message().payload, &whole[3..20_003]);
        assert!(last.at > retained.hold.at);
    }
}
