//! What a measurement leaves behind: the form of the JSON files that `run`, `compare` and the members
//! of a team write, and that `report` reads back.
//!
//! Plain data. Knows nothing of how it was measured and nothing of how it is shown.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flate2::read::ZlibDecoder;
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};
use serde::{Deserialize, Serialize};

/// Everything that one command has measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResultFile {
    /// [`FORMAT`].
    pub(crate) format: String,
    /// Version of the program that wrote it.
    pub(crate) loadgen: String,
    /// The command line, to be typed again.
    pub(crate) command: Vec<String>,
    /// When it ended, in seconds since 1970.
    pub(crate) finished_unix_secs: u64,
    pub(crate) machine: Machine,
    /// In the order in which they were made.
    pub(crate) runs: Vec<RunResult>,
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
}

/// One run: the same load from its start to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// The broker's name in a comparison, or what `--label` says; may be empty.
    pub(crate) label: String,
    /// Which time the same thing was run, from 1.
    pub(crate) round: u32,
    pub(crate) settings: Settings,
    /// [`COMPLETE`], [`INTERRUPTED`] or `failed: ` with the reason.
    pub(crate) ended: String,
    /// From the first connection until all clients were connected and, if they asked for it, subscribed, or
    /// until one could not be.
    #[serde(default)]
    pub(crate) connect_secs: f64,
    /// Length of the measured time: the warm-up is cut off.
    pub(crate) measured_secs: f64,
    pub(crate) sent_per_sec: f64,
    pub(crate) delivered_per_sec: f64,
    /// Of the measured time.
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) whole_run: Counts,
    /// What came before the measured time, if the subscribers came after the publishing.
    #[serde(default)]
    pub(crate) replay: Option<Replay>,
    /// What the broker did that the QoS forbids, in words.
    pub(crate) violations: Vec<String>,
    /// Latencies by their [`LatencyName`]s; only those that the run has.
    pub(crate) latency_us: BTreeMap<LatencyName, LatencyResult>,
    /// The run second by second, warm-up included.
    pub(crate) seconds: Vec<Second>,
    pub(crate) generator: Generator,
    /// Of the broker's process, if it was known.
    pub(crate) broker: Option<BrokerUsage>,
}

/// What was measured, with every option that matters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) scenario: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `tcp`, `tls`, `ws` or `wss`.
    pub(crate) transport: String,
    /// `3.1`, `3.1.1` or `5.0`.
    pub(crate) mqtt_version: String,
    pub(crate) qos: u8,
    pub(crate) payload_bytes: usize,
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    /// Clients that only connect.
    pub(crate) idle: u32,
    pub(crate) topic: String,
    pub(crate) filter: String,
    pub(crate) retain: bool,
    /// `present`, `late` or `away`.
    pub(crate) attendance: String,
    /// Whose sessions outlived their connections: `nobody`, `subscribers` or `everybody`.
    #[serde(default)]
    pub(crate) persistent: String,
    /// In words, such as `window 16` or `5000 messages/s (poisson)`.
    pub(crate) pace: String,
    /// Messages per second meant to be sent, of all publishers together; none in a closed loop.
    pub(crate) rate_per_sec: Option<f64>,
    /// Messages of each publisher; none if only the time bounds them.
    pub(crate) messages: Option<u64>,
    /// Connections per second; 0 is as fast as possible.
    pub(crate) connect_rate: f64,
    pub(crate) warm_secs: f64,
    /// 0 also if only the user ended it.
    pub(crate) secs: f64,
    /// The threads of each of the generator's processes, and the CPUs that those of the first were
    /// pinned to, if they were.
    pub(crate) threads: usize,
    pub(crate) cpus: Vec<usize>,
    /// Processes that made the load together.
    pub(crate) workers: u32,
}

/// Numbers of messages and deliveries of a whole run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Clients that were connected and, if they asked for it, subscribed.
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    /// Messages that were due but that the broker never made room for.
    pub(crate) unsent: u64,
    /// Deliveries, each counted once.
    pub(crate) delivered: u64,
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
    /// Publications whose last acknowledgement was missing when the run ended.
    #[serde(default)]
    pub(crate) unacknowledged: u64,
    /// Sessions that outlive the run: the broker did not let them be ended.
    #[serde(default)]
    pub(crate) sessions_left: u64,
}

/// Messages that waited for their subscribers. How fast those got them is the rate of the deliveries.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Replay {
    /// From the first message until all were acknowledged.
    pub(crate) publish_secs: f64,
    pub(crate) published_per_sec: f64,
    /// From the time the subscribers meant to connect again to the first message that any of them got.
    pub(crate) first_delivery_us: Option<u64>,
}

/// From when to when a latency counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LatencyName {
    /// From the intended time of connecting to the CONNACK.
    ConnectToConnack,
    SubscribeToSuback,
    /// From the intended time of sending, like the next three, to the arrival at a subscriber.
    PublishToDelivery,
    PublishToPuback,
    PublishToPubrec,
    PublishToPubcomp,
    /// From the time a late or returning subscriber meant to connect to each message that waited for it.
    ReturnToDelivery,
    /// How late this program sent what was due although the broker had room for it.
    GeneratorLateness,
}

/// A distribution, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencyResult {
    pub(crate) count: u64,
    pub(crate) min: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: u64,
    #[serde(rename = "p99.99")]
    pub(crate) p99_99: u64,
    pub(crate) max: u64,
    /// The whole of it: HdrHistogram's V2 encoding, deflated, in base64.
    pub(crate) histogram: String,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Seconds since the load began; below the warm-up the second is not part of the result.
    pub(crate) at_secs: f64,
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    /// Of the deliveries that arrived in this second, in microseconds.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
    /// Parts of one CPU.
    pub(crate) generator_cpu: f64,
    pub(crate) broker_cpu: Option<f64>,
    pub(crate) broker_rss_bytes: Option<u64>,
}

/// What the load cost to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// In the measured time.
    pub(crate) cpu_secs: f64,
    pub(crate) wall_secs: f64,
    /// CPU time for each message sent or delivered, whichever are more.
    pub(crate) cpu_us_per_message: f64,
    /// The busiest thread's share of the measured time in which it had work: 1 is saturated.
    pub(crate) busy: f64,
    pub(crate) rss_bytes: u64,
    /// The figures say little about the broker: the generator could not have made more load.
    pub(crate) was_the_limit: bool,
}

/// What the broker's process used in the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BrokerUsage {
    pub(crate) cpu_secs: f64,
    /// While the clients connected, before the measured time.
    #[serde(default)]
    pub(crate) connect_cpu_secs: f64,
    pub(crate) cpu_us_per_delivery: f64,
    pub(crate) deliveries_per_cpu_sec: f64,
    /// Memory in RAM: before the clients connected, when all were, and the most seen.
    pub(crate) rss_bytes_before: u64,
    pub(crate) rss_bytes_connected: u64,
    pub(crate) rss_bytes_max: u64,
}

impl RunResult {
    /// Whether nothing has disturbed it.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended == COMPLETE
    }
}

impl LatencyResult {
    /// Of a histogram of microseconds.
    pub(crate) fn new(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min: histogram.min(),
            mean: (histogram.mean() * 10.0).round() / 10.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max(),
            histogram: histogram_to_text(histogram),
        }
    }

    /// The histogram (us), if the text is one.
    pub(crate) fn histogram(&self) -> Option<Histogram<u64>> {
        histogram_of_text(&self.histogram)
    }
}

/// HdrHistogram's V2 encoding, deflated, in base64.
pub(crate) fn histogram_to_text(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Neither a vector nor a histogram of 64-bit counts can fail to be written.
    let _ = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    BASE64.encode(&bytes)
}

/// The histogram that [`histogram_to_text`] wrote.
pub(crate) fn histogram_of_text(text: &str) -> Option<Histogram<u64>> {
    let deflated = BASE64.decode(text).ok()?;
    // Cookie and length, then the deflated bytes. The library would set aside whatever length it reads.
    let mut bytes = Vec::new();
    let inflater = ZlibDecoder::new(deflated.get(8..)?);
    inflater.take(HISTOGRAM_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    let counts = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    let is_sound = bytes.len() as u64 <= HISTOGRAM_BYTES_MAX
        && u64::from(counts) <= bytes.len() as u64
        && deflated.first_chunk() == Some(&DEFLATED_V2_COOKIE);
    is_sound.then(|| Deserializer::new().deserialize(&mut bytes.as_slice()).ok())?
}

impl LatencyName {
    /// Whether it belongs to a message that was meant to be sent at some time.
    pub(crate) fn counts_from_publish(self) -> bool {
        !matches!(self, Self::ConnectToConnack | Self::SubscribeToSuback | Self::ReturnToDelivery)
    }

    /// As a person reads it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::ConnectToConnack => "connect to CONNACK",
            Self::SubscribeToSuback => "SUBSCRIBE to SUBACK",
            Self::PublishToDelivery => "publish to delivery",
            Self::PublishToPuback => "publish to PUBACK",
            Self::PublishToPubrec => "publish to PUBREC",
            Self::PublishToPubcomp => "publish to PUBCOMP",
            Self::ReturnToDelivery => "return to delivery",
            Self::GeneratorLateness => "generator lateness",
        }
    }
}

/// How a run ends that nothing has disturbed.
pub(crate) const COMPLETE: &str = "complete";

/// How a run ends that the user has cut short.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// How HdrHistogram's deflated V2 encoding begins.
const DEFLATED_V2_COOKIE: [u8; 4] = [0x1C, 0x84, 0x93, 0x14];

/// Far more than any histogram of ours.
const HISTOGRAM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Says which version of this form a file has.
pub(crate) const FORMAT: &str = "ringmq-loadgen-1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_survives_its_text_and_nonsense_is_refused() {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        (1..=1000).for_each(|micros| histogram.record(micros * 7).unwrap());
        let text = histogram_to_text(&histogram);
        assert_eq!(histogram_of_text(&text), Some(histogram));
        for nonsense in ["", "!", "AAAA", &text[..text.len() / 2], &text[4..]] {
            assert_eq!(histogram_of_text(nonsense), None, "{nonsense}");
        }
    }
}
