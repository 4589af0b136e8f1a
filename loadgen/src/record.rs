//! What came of the messages: latency histograms, and whether each arrived once and in order.
//!
//! Pure: time is an argument, in nanoseconds since the run's clock started.

use std::{fmt, ops::Range};

use hdrhistogram::Histogram;
use ringmq::base::QoS;

use crate::client::Step;

/// The first bytes of each payload: which message this is and when it was meant to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// Below 2^24.
    pub(crate) publisher: u32,
    /// Counts the publisher's messages from 0; below 2^40.
    pub(crate) sequence: u64,
    pub(crate) intended: u64,
}

impl Stamp {
    /// Bytes of a payload that it takes.
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let number = u128::from(self.publisher) << SEQUENCE_BITS | u128::from(self.sequence);
        (number << 64 | u128::from(self.intended)).to_be_bytes()
    }

    /// The stamp of a payload; `None` if it is too short to be one of ours.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let bytes = u128::from_be_bytes(*payload.first_chunk()?);
        let number = (bytes >> 64) as u64;
        Some(Self {
            publisher: (number >> SEQUENCE_BITS) as u32,
            sequence: number & ((1 << SEQUENCE_BITS) - 1),
            intended: bytes as u64,
        })
    }
}

const SEQUENCE_BITS: u32 = 40;

/// Everything that is known about a run's messages.
pub(crate) struct Record {
    qos: QoS,
    streams: Vec<Stream>,
    /// Messages meant to be sent in this time are measured; what is counted as a rate happened in it.
    pub(crate) window: Range<u64>,
    pub(crate) counts: Counts,
    /// From the intended time of sending to the arrival at a subscriber.
    pub(crate) delivery: Latency,
    /// The same, of the second that has not been reported yet.
    pub(crate) interval: Latency,
    /// From the intended time of sending to PUBACK, PUBREC and PUBCOMP.
    pub(crate) steps: [Latency; 3],
    /// How late this program sent what was due; tells whether it kept up with its own schedule.
    pub(crate) lateness: Latency,
}

/// Numbers of messages and deliveries.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Messages sent, warm-up included, and in the measured time.
    pub(crate) sent: u64,
    pub(crate) sent_measured: u64,
    /// Messages that were due but that the broker never made room for.
    pub(crate) unsent: u64,
    /// Deliveries, each counted once.
    pub(crate) delivered: u64,
    pub(crate) delivered_measured: u64,
    /// Deliveries that were missing when the run ended.
    pub(crate) lost: u64,
    /// Missing deliveries that the run was cut too early to wait for.
    pub(crate) unfinished: u64,
    /// Further deliveries of the same message.
    pub(crate) duplicates: u64,
    /// Deliveries after one with a higher sequence number.
    pub(crate) reordered: u64,
    /// Deliveries to a subscriber that should not have got them, or of a foreign or damaged payload.
    pub(crate) strays: u64,
    /// Publications that the broker acknowledged with an error.
    pub(crate) refused: u64,
}

impl Record {
    /// For so many streams; measures within `window`.
    pub(crate) fn new(qos: QoS, streams: usize, window: Range<u64>) -> Self {
        Self {
            qos,
            streams: (0..streams).map(|_| Stream::default()).collect(),
            window,
            counts: Counts::default(),
            delivery: Latency::new(),
            interval: Latency::new(),
            steps: std::array::from_fn(|_| Latency::new()),
            lateness: Latency::new(),
        }
    }

    /// A message was sent.
    pub(crate) fn sent(&mut self, intended: u64, now: u64) {
        self.counts.sent += 1;
        self.counts.sent_measured += u64::from(self.window.contains(&now));
        if self.window.contains(&intended) {
            self.lateness.add(intended, now);
        }
    }

    /// A message arrived. Returns how many deliveries of its stream are settled with it: itself and
    /// those it has overtaken.
    pub(crate) fn delivered(&mut self, stream: usize, stamp: Stamp, now: u64) -> u64 {
        let stream = &mut self.streams[stream];
        let before = stream.next;
        match stream.arrived(stamp.sequence) {
            Arrival::Duplicate => {
                self.counts.duplicates += 1;
                return 0;
            }
            Arrival::Late => self.counts.reordered += 1,
            Arrival::InOrder => {}
        }
        let settled = stream.next - before;
        self.counts.delivered += 1;
        self.counts.delivered_measured += u64::from(self.window.contains(&now));
        self.interval.add(stamp.intended, now);
        if self.window.contains(&stamp.intended) {
            self.delivery.add(stamp.intended, now);
        }
        settled
    }

    /// A delivery that nobody asked for.
    pub(crate) fn stray(&mut self) {
        self.counts.strays += 1;
    }

    /// The broker acknowledged a message.
    pub(crate) fn acknowledged(&mut self, step: Step, intended: u64, refused: bool, now: u64) {
        self.counts.refused += u64::from(refused);
        if self.window.contains(&intended) && !refused {
            self.steps[step as usize].add(intended, now);
        }
    }

    /// Ends the record. Missing deliveries are lost if they were waited for, or else unfinished.
    pub(crate) fn finish(&mut self, expected: u64, waited: bool, now: u64) {
        let missing = expected.saturating_sub(self.counts.delivered);
        let place = if waited { &mut self.counts.lost } else { &mut self.counts.unfinished };
        *place = missing;
        self.window.end = self.window.end.min(now).max(self.window.start);
    }

    /// What the broker did that the QoS forbids.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let Counts { lost, duplicates, reordered, strays, refused, .. } = self.counts;
        let lost = if self.qos == QoS::AtMostOnce { 0 } else { lost };
        let duplicates = if self.qos == QoS::AtLeastOnce { 0 } else { duplicates };
        let all = [
            (lost, "lost"),
            (duplicates, "delivered more than once"),
            (reordered, "delivered out of order"),
            (strays, "damaged or delivered to the wrong subscriber"),
            (refused, "refused"),
        ];
        let found = all.into_iter().filter(|(count, _)| *count > 0);
        found.map(|(count, what)| Violation { count, what }).collect()
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
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("these bounds are valid"))
    }

    fn add(&mut self, from: u64, to: u64) {
        self.0.saturating_record(to.saturating_sub(from) / 1000);
    }

    /// The histogram (us).
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
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
    gaps: Option<Box<Vec<Range<u64>>>>,
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
            gaps.remove(0);
        }
        gaps.push(gap);
    }
}

/// Gaps remembered for a stream. Past it the oldest is forgotten: if its messages come after all,
/// they count as duplicates.
const GAPS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(qos: QoS) -> Record {
        Record::new(qos, 2, 1_000_000..2_000_000)
    }

    fn arrive(record: &mut Record, sequences: &[u64]) -> Vec<u64> {
        let stamp = |sequence| Stamp { publisher: 0, sequence, intended: 1_500_000 };
        sequences.iter().map(|&one| record.delivered(0, stamp(one), 1_600_000)).collect()
    }

    #[test]
    fn a_stamp_survives_its_bytes() {
        let stamp =
            Stamp { publisher: (1 << 24) - 1, sequence: (1 << 40) - 2, intended: u64::MAX - 3 };
        let mut payload = stamp.to_bytes().to_vec();
        payload.extend([7; 50]);
        assert_eq!(Stamp::of(&payload), Some(stamp));
        assert_eq!(Stamp::of(&payload[..15]), None);
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
            let mut record = record(QoS::AtLeastOnce);
            let settled: u64 = arrive(&mut record, sequences).iter().sum();
            assert_eq!(settled, sequences.iter().max().unwrap() + 1, "{sequences:?}");
            record.finish(10, true, 2_000_000);
            let counts = record.counts;
            assert_eq!(
                (counts.delivered, counts.duplicates, counts.reordered, counts.lost),
                (delivered, duplicates, reordered, 10 - delivered),
                "{sequences:?}"
            );
        }
    }

    #[test]
    fn remembered_gaps_are_bounded() {
        let mut record = record(QoS::AtMostOnce);
        let odd: Vec<u64> = (0..2 * GAPS_MAX as u64).map(|number| number * 2 + 1).collect();
        arrive(&mut record, &odd);
        assert_eq!(record.streams[0].gaps.as_ref().unwrap().len(), GAPS_MAX);
        arrive(&mut record, &[0, *odd.last().unwrap() - 1]);
        assert_eq!((record.counts.duplicates, record.counts.reordered), (1, 1));
    }

    #[test]
    fn each_qos_forbids_what_it_promises_against() {
        for (qos, expected) in [
            (QoS::AtMostOnce, &["1 delivered more than once"][..]),
            (QoS::AtLeastOnce, &["1 lost"]),
            (QoS::ExactlyOnce, &["1 lost", "1 delivered more than once"]),
        ] {
            let mut record = record(qos);
            arrive(&mut record, &[0, 2, 2]);
            record.finish(3, true, 2_000_000);
            let found: Vec<String> = record.violations().iter().map(Violation::to_string).collect();
            assert_eq!(found, expected);
        }
        let mut cut = record(QoS::ExactlyOnce);
        cut.finish(3, false, 1_500_000);
        assert!(cut.violations().is_empty());
        assert_eq!((cut.counts.unfinished, cut.window), (3, 1_000_000..1_500_000));
    }

    #[test]
    fn only_messages_of_the_measured_time_are_measured() {
        let mut record = record(QoS::AtLeastOnce);
        for (sequence, intended) in [999_999, 1_000_000, 1_999_999, 2_000_000].iter().enumerate() {
            let stamp = Stamp { publisher: 0, sequence: sequence as u64, intended: *intended };
            record.sent(*intended, intended + 10_000);
            record.acknowledged(Step::PubAck, *intended, false, intended + 50_000);
            record.delivered(1, stamp, intended + 70_000);
        }
        let summary = |latency: &Latency| (latency.histogram().len(), latency.histogram().max());
        assert_eq!(summary(&record.delivery), (2, 70));
        assert_eq!(summary(&record.steps[Step::PubAck as usize]), (2, 50));
        assert_eq!(summary(&record.lateness), (2, 10));
        assert_eq!(summary(&record.interval), (4, 70));
        assert_eq!((record.counts.sent, record.counts.sent_measured), (4, 2));
        assert_eq!((record.counts.delivered, record.counts.delivered_measured), (4, 2));
    }
}
