//! What came of the messages: latency histograms, and whether each arrived once and in order.
//!
//! One a thread; [`Tally::add`] merges what they found. Pure: time is an argument, in nanoseconds
//! since the run's clock started.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Range,
};

use ahash::AHashMap;
use hdrhistogram::Histogram;
use ringmq::base::QoS;
use serde::{Deserialize, Serialize};

use crate::result::{Counts, LatencyName};

/// The first bytes of each payload: which message this is and when it was meant to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// Tells this run's messages from others'.
    pub(crate) tag: u16,
    /// Below 2^24.
    pub(crate) publisher: u32,
    /// Counts the publisher's messages from 0; below 2^40.
    pub(crate) sequence: u64,
    /// Microseconds since 1970.
    pub(crate) intended_unix_us: u64,
}

impl Stamp {
    /// Bytes of a payload that it takes.
    pub(crate) const BYTES: usize = 16;

    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let who = u64::from(self.publisher) << SEQUENCE_BITS | self.sequence;
        let when = u64::from(self.tag) << INTENDED_BITS | self.intended_unix_us & INTENDED_MASK;
        (u128::from(who) << 64 | u128::from(when)).to_be_bytes()
    }

    /// The stamp of a payload that arrived at `now_unix_us`; `None` if it is too short to be ours.
    #[inline]
    pub(crate) fn of(payload: &[u8], now_unix_us: u64) -> Option<Self> {
        let bytes = u128::from_be_bytes(*payload.first_chunk()?);
        let (who, when) = ((bytes >> 64) as u64, bytes as u64);
        // The higher bits are those of the arrival: a message is younger than 2^48 us.
        let age = now_unix_us.wrapping_sub(when) & INTENDED_MASK;
        // Clocks of two hosts may differ: what seems to come from the future has the age 0.
        let age = if age > INTENDED_MASK / 2 { 0 } else { age };
        Some(Self {
            tag: (when >> INTENDED_BITS) as u16,
            publisher: (who >> SEQUENCE_BITS) as u32,
            sequence: who & ((1 << SEQUENCE_BITS) - 1),
            intended_unix_us: now_unix_us - age,
        })
    }
}

const SEQUENCE_BITS: u32 = 40;

/// Microseconds since 1970 modulo 2^48, which is almost nine years.
const INTENDED_BITS: u32 = 48;
const INTENDED_MASK: u64 = (1 << INTENDED_BITS) - 1;

/// Everything that one thread knows about a run's messages.
pub(crate) struct Record {
    streams: Vec<Stream>,
    /// What each member of a group got last of each publisher, by member and publisher: the messages of
    /// a group's stream may overtake each other, those of one member may not.
    members: AHashMap<(u32, u32), u64>,
    /// Messages meant to be sent in this time are measured; what is counted as a rate happened in it.
    pub(crate) window: Range<u64>,
    pub(crate) tally: Tally,
    /// From the intended time of sending to the arrival, of the second that has not been told yet:
    /// of measured messages, and of others.
    second: [Latency; 2],
    run: Run,
}

/// Arrivals one after the other that took equally long: messages that were sent together arrive together.
#[derive(Default)]
struct Run {
    /// Which of the two latencies of a second they belong to.
    place: usize,
    micros: u64,
    count: u64,
}

/// What is added up over threads and processes.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// In the measured time.
    pub(crate) sent_measured: u64,
    pub(crate) delivered_measured: u64,
    pub(crate) latencies: BTreeMap<LatencyName, Latency>,
    /// When the last delivery arrived, in nanoseconds since the clock started.
    pub(crate) last_delivery: u64,
    /// CPU time of the threads in the measured time, and the part of it in which the busiest was not
    /// waiting.
    pub(crate) cpu_nanos: u64,
    pub(crate) busy: f64,
}

impl Tally {
    /// Takes in what another thread has found.
    pub(crate) fn add(&mut self, other: &Self) {
        let (own, theirs) = (&mut self.counts, &other.counts);
        own.connected += theirs.connected;
        own.sent += theirs.sent;
        own.unsent += theirs.unsent;
        own.delivered += theirs.delivered;
        own.lost += theirs.lost;
        own.unfinished += theirs.unfinished;
        own.duplicates += theirs.duplicates;
        own.reordered += theirs.reordered;
        own.strays += theirs.strays;
        own.refused += theirs.refused;
        own.unacknowledged += theirs.unacknowledged;
        own.sessions_left += theirs.sessions_left;
        self.sent_measured += other.sent_measured;
        self.delivered_measured += other.delivered_measured;
        self.cpu_nanos += other.cpu_nanos;
        self.busy = self.busy.max(other.busy);
        self.last_delivery = self.last_delivery.max(other.last_delivery);
        for (name, latency) in &other.latencies {
            self.latency(*name).merge(latency);
        }
    }

    /// Notes missing deliveries: lost if they were waited for, or else unfinished.
    pub(crate) fn missing(&mut self, expected: u64, waited: bool) {
        let missing = expected.saturating_sub(self.counts.delivered);
        let place = if waited { &mut self.counts.lost } else { &mut self.counts.unfinished };
        *place = missing;
    }

    /// Nobody has waited for the acknowledgements that are missing.
    pub(crate) fn forgive_unacknowledged(&mut self) {
        self.counts.unacknowledged = 0;
    }

    fn latency(&mut self, name: LatencyName) -> &mut Latency {
        self.latencies.entry(name).or_default()
    }

    /// What the broker did that the QoS forbids.
    pub(crate) fn violations(&self, qos: QoS) -> Vec<Violation> {
        let Counts { lost, duplicates, reordered, strays, refused, unacknowledged, .. } =
            self.counts;
        let lost = if qos == QoS::AtMostOnce { 0 } else { lost };
        let duplicates = if qos == QoS::AtLeastOnce { 0 } else { duplicates };
        let all = [
            (lost, "lost"),
            (duplicates, "delivered more than once"),
            (reordered, "delivered out of order"),
            (strays, "damaged or delivered to the wrong subscriber"),
            (refused, "refused"),
            (unacknowledged, "never acknowledged"),
        ];
        let found = all.into_iter().filter(|(count, _)| *count > 0);
        found.map(|(count, what)| Violation { count, what }).collect()
    }
}

impl Record {
    /// For so many streams. Nothing is measured yet.
    pub(crate) fn new(streams: usize) -> Self {
        Self {
            streams: (0..streams).map(|_| Stream::default()).collect(),
            members: AHashMap::new(),
            window: 0..0,
            tally: Tally::default(),
            second: [Latency::default(), Latency::default()],
            run: Run::default(),
        }
    }

    /// So many messages were sent.
    pub(crate) fn sent(&mut self, messages: u64, now: u64) {
        self.tally.counts.sent += messages;
        self.tally.sent_measured += if self.window.contains(&now) { messages } else { 0 };
    }

    /// A message was sent later than it was meant to be, though the broker had room for it.
    pub(crate) fn late(&mut self, intended: u64, now: u64) {
        if self.window.contains(&intended) {
            self.tally.latency(LatencyName::GeneratorLateness).add(intended, now);
        }
    }

    /// A message arrived. Returns how many deliveries of its stream are settled with it: itself and
    /// those it has overtaken.
    #[inline]
    pub(crate) fn delivered(
        &mut self,
        stream: usize,
        sequence: u64,
        intended: u64,
        now: u64,
    ) -> u64 {
        let stream = &mut self.streams[stream];
        let before = stream.next;
        match stream.arrived(sequence) {
            Arrival::Duplicate => {
                self.tally.counts.duplicates += 1;
                return 0;
            }
            Arrival::Late => self.tally.counts.reordered += 1,
            Arrival::InOrder => {}
        }
        let settled = stream.next - before;
        self.arrived(intended, now);
        settled
    }

    /// A message of a group arrived at one of its members. Returns as [`Record::delivered`].
    pub(crate) fn delivered_to_member(
        &mut self,
        stream: usize,
        (member, publisher): (u32, u32),
        sequence: u64,
        intended: u64,
        now: u64,
    ) -> u64 {
        let Counts { duplicates, reordered, .. } = self.tally.counts;
        let settled = self.delivered(stream, sequence, intended, now);
        self.tally.counts.reordered = reordered;
        if self.tally.counts.duplicates == duplicates {
            let last = self.members.entry((member, publisher)).or_default();
            // One more than the number: 0 is none.
            self.tally.counts.reordered += u64::from(*last > sequence + 1);
            *last = (*last).max(sequence + 1);
        }
        settled
    }

    /// A message arrived of which nothing is known.
    #[inline]
    pub(crate) fn came(&mut self, now: u64) {
        self.tally.counts.delivered += 1;
        self.tally.last_delivery = now;
        self.tally.delivered_measured += u64::from(self.window.contains(&now));
    }

    /// A message arrived of which nothing more is known than when it was meant to be sent.
    #[inline]
    pub(crate) fn arrived(&mut self, intended: u64, now: u64) {
        self.came(now);
        let place = usize::from(!self.window.contains(&intended));
        let micros = now.saturating_sub(intended) / 1000;
        if micros == self.run.micros && place == self.run.place {
            self.run.count += 1;
        } else {
            self.end_run();
            self.run = Run { place, micros, count: 1 };
        }
    }

    fn end_run(&mut self) {
        let Run { place, micros, count } = std::mem::take(&mut self.run);
        self.second[place].0.saturating_record_n(micros, count);
    }

    /// A delivery that nobody asked for.
    pub(crate) fn stray(&mut self) {
        self.tally.counts.strays += 1;
    }

    /// The broker refused a message.
    pub(crate) fn refused(&mut self) {
        self.tally.counts.refused += 1;
    }

    /// Something else took that long.
    pub(crate) fn took(&mut self, name: LatencyName, from: u64, to: u64) {
        if self.window.contains(&from) || !name.counts_from_publish() {
            self.tally.latency(name).add(from, to);
        }
    }

    /// The latency of deliveries since the last call. `name` is what they are measured as.
    pub(crate) fn take_second(&mut self, name: LatencyName) -> Latency {
        self.end_run();
        let [measured, others] = &mut self.second;
        if !measured.is_empty() {
            self.tally.latency(name).merge(measured);
        }
        let mut second = std::mem::take(measured);
        second.merge(others);
        others.clear();
        second
    }
}

/// One way in which messages were not treated as their QoS promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    count: u64,
    what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.what)
    }
}

/// Times in microseconds, to three digits.
#[derive(Clone)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("these bounds are valid"))
    }
}

impl Latency {
    #[inline]
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        self.0.saturating_record(to.saturating_sub(from) / 1000);
    }

    /// Takes in another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// The histogram (us).
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn clear(&mut self) {
        if !self.0.is_empty() {
            self.0.reset();
        }
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::result::histogram_to_text(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let theirs = crate::result::histogram_of_text(&text);
        let theirs = theirs.ok_or_else(|| serde::de::Error::custom("this is no histogram"))?;
        let mut own = Self::default();
        own.0.add(&theirs).map_err(serde::de::Error::custom)?;
        Ok(own)
    }
}

/// An hour; longer times are counted as this.
const MICROS_MAX: u64 = 3_600_000_000;

/// How far one subscriber is with the messages of one publisher.
#[derive(Default)]
struct Stream {
    /// One past the highest sequence number that has arrived.
    next: u64,
    /// Numbers below `next` that have not arrived, in ascending order; `None` as long as all have.
    #[expect(clippy::box_collection, reason = "there are many streams and few gaps")]
    gaps: Option<Box<VecDeque<Range<u64>>>>,
}

enum Arrival {
    InOrder,
    Late,
    Duplicate,
}

impl Stream {
    fn arrived(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            if sequence > self.next {
                self.note_gap(self.next..sequence);
            }
            self.next = sequence + 1;
            return Arrival::InOrder;
        }
        let Some(gaps) = &mut self.gaps else { return Arrival::Duplicate };
        let at = gaps.partition_point(|gap| gap.end <= sequence);
        let Some(gap) = gaps.get_mut(at).filter(|gap| gap.contains(&sequence)) else {
            return Arrival::Duplicate;
        };
        let behind = sequence + 1..gap.end;
        gap.end = sequence;
        if gap.is_empty() {
            gaps.remove(at);
        }
        if !behind.is_empty() {
            let at = gaps.partition_point(|gap| gap.end <= sequence);
            gaps.insert(at, behind);
        }
        Arrival::Late
    }

    fn note_gap(&mut self, gap: Range<u64>) {
        let gaps = self.gaps.get_or_insert_default();
        if gaps.len() == GAPS_MAX {
            gaps.pop_front();
        }
        gaps.push_back(gap);
    }
}

/// Gaps remembered for a stream. Past it the oldest is forgotten: if its messages come after all,
/// they count as duplicates. As many as the members of a group can make of the widest window.
const GAPS_MAX: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: u64 = 1_500_000;

    fn record() -> Record {
        let mut record = Record::new(2);
        record.window = 1_000_000..2_000_000;
        record
    }

    fn arrive(record: &mut Record, sequences: &[u64]) -> Vec<u64> {
        let arrive = |one: &u64| record.delivered(0, *one, MEASURED, 1_600_000);
        sequences.iter().map(arrive).collect()
    }

    #[test]
    fn a_stamp_survives_its_bytes() {
        let now = 1_800_000_000_000_000;
        let stamp = Stamp {
            tag: 0xFEDC,
            publisher: (1 << 24) - 1,
            sequence: (1 << 40) - 2,
            intended_unix_us: now - 5_000_000,
        };
        let mut payload = stamp.to_bytes().to_vec();
        payload.extend([7; 50]);
        assert_eq!(Stamp::of(&payload, now), Some(stamp));
        assert_eq!(Stamp::of(&payload[..15], now), None);
        let future = Stamp::of(&payload, now - 9_000_000).unwrap();
        assert_eq!(future.intended_unix_us, now - 9_000_000, "clocks may differ");
    }

    #[test]
    fn loss_duplicates_and_reordering_are_told_apart() {
        for (sequences, delivered, duplicates, reordered) in [
            (&[0, 1, 2][..], 3, 0, 0),
            (&[0, 1, 1, 0], 2, 2, 0),
            (&[0, 2, 1], 3, 0, 1),
            (&[5, 1, 3, 2, 2, 3, 0, 4], 6, 2, 5),
            (&[9], 1, 0, 0),
        ] {
            let mut record = record();
            let settled: u64 = arrive(&mut record, sequences).iter().sum();
            assert_eq!(settled, sequences.iter().max().unwrap() + 1, "{sequences:?}");
            record.tally.missing(10, true);
            let counts = record.tally.counts;
            assert_eq!(
                (counts.delivered, counts.duplicates, counts.reordered, counts.lost),
                (delivered, duplicates, reordered, 10 - delivered),
                "{sequences:?}"
            );
        }
    }

    #[test]
    fn members_of_a_group_may_overtake_each_other_but_not_themselves() {
        let mut record = record();
        // 3 and 4 came behind 5 at the same member; the second 4 is only a duplicate.
        for (member, sequence) in [(1, 1), (2, 0), (1, 6), (2, 5), (2, 3), (2, 4), (1, 4), (1, 7)] {
            record.delivered_to_member(0, (member, 0), sequence, MEASURED, 1_600_000);
        }
        let counts = record.tally.counts;
        assert_eq!((counts.delivered, counts.duplicates, counts.reordered), (7, 1, 2));
    }

    #[test]
    fn remembered_gaps_are_bounded() {
        let mut record = record();
        let odd: Vec<u64> = (0..2 * GAPS_MAX as u64).map(|number| number * 2 + 1).collect();
        arrive(&mut record, &odd);
        assert_eq!(record.streams[0].gaps.as_ref().unwrap().len(), GAPS_MAX);
        arrive(&mut record, &[0, *odd.last().unwrap() - 1]);
        assert_eq!((record.tally.counts.duplicates, record.tally.counts.reordered), (1, 1));
    }

    #[test]
    fn each_qos_forbids_what_it_promises_against() {
        for (qos, expected) in [
            (QoS::AtMostOnce, &["1 delivered more than once"][..]),
            (QoS::AtLeastOnce, &["1 lost"]),
            (QoS::ExactlyOnce, &["1 lost", "1 delivered more than once"]),
        ] {
            let mut record = record();
            arrive(&mut record, &[0, 2, 2]);
            record.tally.missing(3, true);
            let found = record.tally.violations(qos);
            assert_eq!(found.iter().map(Violation::to_string).collect::<Vec<_>>(), expected);
        }
        let mut silent = Tally::default();
        silent.counts.unacknowledged = 5;
        let found = silent.violations(QoS::AtLeastOnce);
        assert_eq!(found[0].to_string(), "5 never acknowledged");
        silent.forgive_unacknowledged();
        assert!(silent.violations(QoS::AtLeastOnce).is_empty());
        let mut cut = Tally::default();
        cut.missing(3, false);
        assert!(cut.violations(QoS::ExactlyOnce).is_empty());
        assert_eq!(cut.counts.unfinished, 3);
    }

    #[test]
    fn only_messages_of_the_measured_time_are_measured() {
        let mut record = record();
        for (sequence, intended) in [999_999, 1_000_000, 1_999_999, 2_000_000].iter().enumerate() {
            record.sent(1, intended + 10_000);
            record.late(*intended, intended + 10_000);
            record.took(LatencyName::PublishToPuback, *intended, intended + 50_000);
            record.delivered(1, sequence as u64, *intended, intended + 70_000);
        }
        let second = record.take_second(LatencyName::PublishToDelivery);
        let summary = |latency: &Latency| (latency.histogram().len(), latency.histogram().max());
        let tally = &record.tally;
        assert_eq!(summary(&tally.latencies[&LatencyName::PublishToDelivery]), (2, 70));
        assert_eq!(summary(&tally.latencies[&LatencyName::PublishToPuback]), (2, 50));
        assert_eq!(summary(&tally.latencies[&LatencyName::GeneratorLateness]), (2, 10));
        assert_eq!(summary(&second), (4, 70));
        assert_eq!((tally.counts.sent, tally.sent_measured), (4, 2));
        assert_eq!((tally.counts.delivered, tally.delivered_measured), (4, 2));
        assert!(record.take_second(LatencyName::PublishToDelivery).is_empty());
    }

    #[test]
    fn tallies_add_up_and_survive_their_text() {
        let mut record = record();
        arrive(&mut record, &[0, 1]);
        record.take_second(LatencyName::PublishToDelivery);
        let text = serde_json::to_string(&record.tally).unwrap();
        let mut sum: Tally = serde_json::from_str(&text).unwrap();
        sum.add(&record.tally);
        assert_eq!(sum.counts.delivered, 4);
        assert_eq!(sum.latencies[&LatencyName::PublishToDelivery].histogram().len(), 4);
    }
}
