//! What was sent, acknowledged and delivered, and the rules that hold between them. One book a run,
//! shared by all clients of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::link::Delivered;
use crate::payload::Payload;

/// The record of a run.
pub(crate) struct Book {
    /// By publisher, by sequence number.
    sent: Vec<Mutex<Vec<Message>>>,
    takers: Vec<Mutex<Taker>>,
    faults: Mutex<Vec<(Fault, String)>>,
    phase: AtomicU8,
    kills: AtomicU32,
    /// Each publisher may have sent so many.
    quota: AtomicU32,
    deliveries: AtomicU64,
    subscribers: AtomicU32,
}

/// A publication.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    /// Its RETAIN is set: it is found by [`Book::retained_wrong`], not by takers.
    pub(crate) retain: bool,
    /// It clears what was retained.
    pub(crate) clears: bool,
    /// PUBACK or PUBREC has come, after so many kills.
    pub(crate) acked: Option<u32>,
    /// It was sent a second time.
    pub(crate) resent: bool,
    /// It was refused, or lost together with its publisher's session.
    pub(crate) is_given_up: bool,
}

/// Those who share what comes for their filters: one client, or the members of a group.
pub(crate) struct Taker {
    pub(crate) name: String,
    /// Without `$share/NAME/`, and the QoS of each.
    pub(crate) filters: Vec<(String, u8)>,
    pub(crate) is_group: bool,
    /// The broker may send a message once for each filter that matches.
    pub(crate) copy_per_filter: bool,
    /// By publisher, the first that it must get; empty until SUBACK.
    since: Vec<u32>,
    seen: HashMap<(u16, u32), Seen>,
    /// The last first delivery by publisher, topic and QoS.
    last: HashMap<(u16, String, u8), u32>,
}

#[derive(Default)]
struct Seen {
    copies: u32,
    packet_id: u16,
    connection: u32,
}

/// What a broker can do wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Acknowledged and never delivered.
    Lost,
    /// QoS 2 end to end and delivered twice.
    Duplicated,
    /// First deliveries of one publisher, topic and QoS.
    OutOfOrder,
    /// Session Present 0 for a session that was promised.
    SessionLost,
    /// A retained message that is older than the last acknowledged, or gone, or back.
    Retained,
    /// It did not start.
    NoStart,
    /// Anything else that the standard rules out.
    Protocol,
}

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Phase {
    /// Kills go on.
    Load,
    /// No more publications; everything is delivered.
    Drain,
    End,
}

impl Book {
    pub(crate) fn new(publishers: usize, takers: Vec<Taker>) -> Self {
        Self {
            sent: (0..publishers).map(|_| Mutex::default()).collect(),
            takers: takers.into_iter().map(Mutex::new).collect(),
            faults: Mutex::default(),
            phase: AtomicU8::new(Phase::Load as u8),
            kills: AtomicU32::new(0),
            quota: AtomicU32::new(0),
            deliveries: AtomicU64::new(0),
            subscribers: AtomicU32::new(0),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Load,
            1 => Phase::Drain,
            _ => Phase::End,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    pub(crate) fn kills(&self) -> u32 {
        self.kills.load(Ordering::SeqCst)
    }

    pub(crate) fn count_kill(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn quota(&self) -> u32 {
        self.quota.load(Ordering::SeqCst)
    }

    pub(crate) fn raise_quota(&self, by: u32) {
        self.quota.fetch_add(by, Ordering::SeqCst);
    }

    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::SeqCst)
    }

    pub(crate) fn fault(&self, fault: Fault, what: &str) {
        let text = format!("after {} kills: {what}", self.kills());
        lock(&self.faults).push((fault, text));
    }

    pub(crate) fn faults(&self) -> Vec<(Fault, String)> {
        lock(&self.faults).clone()
    }

    /// Notes a publication that is about to be sent for the first time; returns its sequence number.
    pub(crate) fn begin(&self, publisher: usize, message: Message) -> u32 {
        let mut sent = lock(&self.sent[publisher]);
        sent.push(message);
        sent.len() as u32 - 1
    }

    pub(crate) fn resend(&self, publisher: usize, sequence: u32) {
        lock(&self.sent[publisher])[sequence as usize].resent = true;
    }

    pub(crate) fn acknowledge(&self, publisher: usize, sequence: u32) {
        let kills = self.kills();
        lock(&self.sent[publisher])[sequence as usize].acked.get_or_insert(kills);
    }

    /// SUBACK: what is begun from here on is for this taker. Said again it changes nothing.
    pub(crate) fn subscribed(&self, taker: usize) {
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        let since: Vec<u32> = self.sent.iter().map(|sent| lock(sent).len() as u32).collect();
        let mut taker = lock(&self.takers[taker]);
        if taker.since.is_empty() {
            taker.since = since;
        }
    }

    /// SUBACKs so far.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::SeqCst) as usize
    }

    /// All that was begun is acknowledged and delivered.
    pub(crate) fn is_settled(&self) -> bool {
        let is_acked = |sent: &Mutex<Vec<Message>>| {
            lock(sent).iter().all(|message| message.acked.is_some() || message.is_given_up)
        };
        self.sent.iter().all(is_acked) && self.missing().is_empty()
    }

    /// Its publisher has no claim on it any more.
    pub(crate) fn give_up(&self, publisher: usize, sequence: u32) {
        lock(&self.sent[publisher])[sequence as usize].is_given_up = true;
    }

    /// A PUBLISH that its client had no record of. `connection` counts those of that client.
    pub(crate) fn deliver(&self, taker: usize, connection: u32, delivered: &Delivered) {
        self.deliveries.fetch_add(1, Ordering::SeqCst);
        let mut taker = lock(&self.takers[taker]);
        let name = taker.name.clone();
        let Some(payload) = Payload::read(&delivered.payload) else {
            return self
                .fault(Fault::Protocol, &format!("{name}: no message of ours: {delivered:?}"));
        };
        let message = lock(&self.sent[usize::from(payload.publisher)])
            .get(payload.sequence as usize)
            .cloned();
        let Some(message) = message.filter(|message| message.topic == delivered.topic) else {
            return self.fault(Fault::Protocol, &format!("{name}: never sent: {payload:?}"));
        };
        let (granted, copies_max) = taker.allowance(&message.topic);
        if delivered.qos != message.qos.min(granted) || delivered.retain {
            self.fault(Fault::Protocol, &format!("{name}: wrong flags: {delivered:?}"));
        }
        let seen = taker.seen.entry((payload.publisher, payload.sequence)).or_default();
        let before = std::mem::replace(
            seen,
            Seen { copies: seen.copies + 1, packet_id: delivered.packet_id, connection },
        );
        let again = before.copies >= copies_max;
        if again && delivered.qos == 2 {
            self.fault(Fault::Duplicated, &format!("{name}: {payload:?} {delivered:?}"));
        } else if again && !taker.is_group && !message.resent {
            // Without a second PUBLISH, the broker repeats only what a former connection may not have
            // acknowledged (MQTT-4.4.0-1), under its identifier.
            let is_repetition = delivered.dup && before.connection != connection;
            if !is_repetition || before.packet_id != delivered.packet_id && copies_max == 1 {
                let what = format!("{name}: repeated as new: {payload:?} {delivered:?}");
                self.fault(Fault::Protocol, &what);
            }
        }
        if before.copies == 0 && !payload.unordered {
            taker.check_order(&payload, &message, self);
        }
    }

    /// What is acknowledged and not delivered: which message, and in words for whom.
    pub(crate) fn missing(&self) -> Vec<((usize, usize), String)> {
        let mut missing = Vec::new();
        for taker in &self.takers {
            let taker = lock(taker);
            for (publisher, sent) in self.sent.iter().enumerate() {
                let since = taker.since.get(publisher).copied().unwrap_or(u32::MAX);
                let sent = lock(sent);
                for (sequence, message) in sent.iter().enumerate().skip(since as usize) {
                    let is_due = message.acked.is_some()
                        && !message.retain
                        && taker.allowance(&message.topic).1 > 0;
                    if is_due && !taker.seen.contains_key(&(publisher as u16, sequence as u32)) {
                        let what = format!(
                            "{}: publisher {publisher}, {sequence}: {message:?}",
                            taker.name
                        );
                        missing.push(((publisher, sequence), what));
                    }
                }
            }
        }
        missing
    }

    /// How many publications were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let count = |sent: &Mutex<Vec<Message>>| {
            lock(sent).iter().filter(|message| message.acked.is_some()).count()
        };
        self.sent.iter().map(count).sum()
    }

    /// What is wrong with these retained messages, by topic.
    pub(crate) fn retained_wrong(&self, found: &HashMap<String, Payload>) -> Vec<String> {
        // By topic: the last acknowledged and all that came after it, in their order.
        let mut allowed: HashMap<String, Vec<(u16, u32, bool)>> = HashMap::new();
        for (publisher, sent) in self.sent.iter().enumerate() {
            for (sequence, message) in lock(sent).iter().enumerate().filter(|(_, m)| m.retain) {
                let entry = allowed.entry(message.topic.clone()).or_default();
                if message.acked.is_some() {
                    entry.clear();
                }
                entry.push((publisher as u16, sequence as u32, message.clears));
            }
        }
        let mut wrong = Vec::new();
        for (topic, allowed) in &allowed {
            let found = found.get(topic);
            let fits = allowed.iter().any(|(publisher, sequence, clears)| match found {
                Some(found) => {
                    (found.publisher, found.sequence, false) == (*publisher, *sequence, *clears)
                }
                None => *clears,
            });
            if !fits {
                wrong.push(format!(
                    "{topic}: {found:?}, allowed (publisher, sequence, clears): {allowed:?}"
                ));
            }
        }
        wrong
    }
}

impl Taker {
    pub(crate) fn new(name: &str, filters: &[(&str, u8)], copy_per_filter: bool) -> Self {
        let plain = |filter: &str| match filter.strip_prefix("$share/") {
            Some(rest) => rest.split_once('/').expect("a group and a filter").1.to_owned(),
            None => filter.to_owned(),
        };
        Self {
            name: name.to_owned(),
            filters: filters.iter().map(|(filter, qos)| (plain(filter), *qos)).collect(),
            is_group: filters[0].0.starts_with("$share/"),
            copy_per_filter,
            since: Vec::new(),
            seen: HashMap::new(),
            last: HashMap::new(),
        }
    }

    /// At which QoS, and in how many copies at most, it gets what is published to `topic`.
    fn allowance(&self, topic: &str) -> (u8, u32) {
        let fitting = self.filters.iter().filter(|(filter, _)| matches(filter, topic));
        let (qos, copies) =
            fitting.fold((0, 0), |(qos, copies), (_, granted)| (qos.max(*granted), copies + 1));
        (qos, if self.copy_per_filter { copies } else { copies.min(1) })
    }

    fn check_order(&mut self, payload: &Payload, message: &Message, book: &Book) {
        if self.is_group {
            return;
        }
        let key = (payload.publisher, message.topic.clone(), message.qos);
        let last = self.last.entry(key).or_default();
        // Published before it had subscribed, and again, since the broker was killed before the PUBACK: that is new to
        // it, and may come behind what followed the first time.
        let since = self.since.get(usize::from(payload.publisher));
        let is_from_before = message.resent && since.is_none_or(|since| payload.sequence < *since);
        if payload.sequence < *last && !is_from_before {
            let what = format!("{}: {payload:?} after {last}: {message:?}", self.name);
            book.fault(Fault::OutOfOrder, &what);
        }
        *last = payload.sequence.max(*last);
    }
}

fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no client of the run has panicked")
}
