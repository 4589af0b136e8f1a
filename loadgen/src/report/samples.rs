//! Results for tests as three brokers might give them. Always the same: the noise has a seed.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::result::{
    BrokerUsage, Counts, FORMAT, Generator, LatencyName, LatencyResult, Machine, ResultFile,
    RunResult, Second, Settings,
};

/// What makes a run what it is; the rest follows.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) label: &'static str,
    pub(super) round: u32,
    pub(super) qos: u8,
    /// In an open loop.
    pub(super) rate: Option<f64>,
    pub(super) ended: &'static str,
    /// Deliveries per second that the broker can do with one CPU.
    pub(super) capacity: f64,
    /// Median latency without a queue.
    pub(super) base_us: f64,
    /// How much worse the worst messages fare.
    pub(super) tail: f64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            label: "ringmq",
            round: 1,
            qos: 1,
            rate: None,
            ended: "complete",
            capacity: 290_000.0,
            base_us: 60.0,
            tail: 0.55,
        }
    }
}

/// Three brokers, three rounds, QoS 1 and 2, closed loop.
pub(super) fn comparison() -> Vec<RunResult> {
    let mut runs = Vec::new();
    for qos in [1, 2] {
        for round in 1..=3 {
            runs.extend(BROKERS.map(|broker| Sample { round, qos, ..broker }.run()));
        }
    }
    runs
}

/// Three brokers, one round, rates that rise until each of them has broken.
pub(super) fn steps() -> Vec<RunResult> {
    let rates = [10e3, 20e3, 40e3, 60e3, 80e3, 120e3, 160e3, 200e3, 240e3, 280e3];
    let at = |rate| BROKERS.map(|broker| Sample { rate: Some(rate), ..broker }.run());
    rates.into_iter().flat_map(at).collect()
}

/// A file with these runs.
pub(super) fn file(runs: Vec<RunResult>) -> ResultFile {
    ResultFile {
        format: FORMAT.to_owned(),
        loadgen: "0.1.0".to_owned(),
        command: ["loadgen", "compare", "p2p", "-q", "1,2", "--rounds", "3"]
            .map(str::to_owned)
            .to_vec(),
        finished_unix_secs: 1_767_225_599,
        machine: Machine {
            kernel: "6.12.9".to_owned(),
            cpu: "AMD EPYC 9354P 32-Core Processor".to_owned(),
            cpus: 2,
            memory_bytes: 8 << 30,
        },
        runs,
    }
}

impl Sample {
    /// A run of 20 s after 4 s of warm-up.
    pub(super) fn run(self) -> RunResult {
        let mut noise = Noise::new(&self);
        let capacity = self.capacity / f64::from(self.qos.max(1)) * (1.0 + 0.04 * noise.next());
        let offered = self.rate.unwrap_or(f64::INFINITY);
        let delivered_per_sec = offered.min(capacity);
        let load = (offered / capacity).min(1.0);
        let kept_up = self.rate.is_none() || offered <= capacity;
        let (warm, secs) = (4, 20);
        let measured = delivered_per_sec * f64::from(secs);
        let seconds =
            (0..warm + secs).map(|at| self.second(at, delivered_per_sec, load, &mut noise));
        let seconds = seconds.collect();
        let cpu_secs = f64::from(secs) * (0.02 + 0.97 * load);
        let unsent = if kept_up { 0 } else { ((offered.min(1e9) - capacity) * 24.0) as u64 };
        RunResult {
            label: self.label.to_owned(),
            round: self.round,
            settings: self.settings(),
            ended: self.ended.to_owned(),
            connect_secs: 0.5,
            measured_secs: f64::from(secs),
            sent_per_sec: delivered_per_sec,
            delivered_per_sec,
            sent: measured as u64,
            delivered: measured as u64,
            whole_run: Counts {
                connected: 100,
                sent: measured as u64,
                delivered: measured as u64,
                unsent: if self.rate.is_some() { unsent } else { 0 },
                ..Counts::default()
            },
            violations: Vec::new(),
            replay: None,
            latency_us: self.latencies(load, kept_up, &mut noise),
            seconds,
            generator: Generator {
                cpu_secs: cpu_secs * 0.7,
                wall_secs: f64::from(secs),
                cpu_us_per_message: 1.4,
                busy: 0.7,
                rss_bytes: 40 << 20,
                was_the_limit: false,
            },
            broker: Some(BrokerUsage {
                connect_cpu_secs: 0.1,
                cpu_secs,
                cpu_us_per_delivery: cpu_secs * 1e6 / measured,
                deliveries_per_cpu_sec: measured / cpu_secs,
                rss_bytes_before: 9 << 20,
                rss_bytes_connected: 11 << 20,
                rss_bytes_max: 14 << 20,
            }),
        }
    }

    fn second(&self, at: u32, per_sec: f64, load: f64, noise: &mut Noise) -> Second {
        let ramp = if at == 0 { 0.6 } else { 1.0 };
        let p50 = self.median_us(load) * (1.0 + 0.08 * noise.next()) / ramp;
        let stall = if noise.next() > 0.9 { 6.0 } else { 1.0 };
        Second {
            at_secs: f64::from(at),
            connected: 100,
            sent: (per_sec * ramp) as u64,
            delivered: (per_sec * ramp * (1.0 + 0.03 * noise.next())) as u64,
            p50_us: p50 as u64,
            p99_us: (p50 * (2.3 * self.tail).exp() * stall) as u64,
            max_us: (p50 * 20.0) as u64,
            generator_cpu: 0.7,
            broker_cpu: Some((0.02 + 0.97 * load) * (1.0 + 0.02 * noise.next())),
            broker_rss_bytes: Some((self.base_us * 2e5) as u64 + u64::from(at) * 50_000),
        }
    }

    fn median_us(&self, load: f64) -> f64 {
        match self.rate {
            Some(_) => self.base_us * (1.0 + 0.4 / (1.03 - load)),
            None => self.base_us * 12.0 * f64::from(self.qos.max(1)),
        }
    }

    fn latencies(
        &self,
        load: f64,
        kept_up: bool,
        noise: &mut Noise,
    ) -> BTreeMap<LatencyName, LatencyResult> {
        let steps: &[(LatencyName, f64)] = match self.qos {
            0 => &[(LatencyName::PublishToDelivery, 1.0)],
            1 => &[(LatencyName::PublishToDelivery, 1.0), (LatencyName::PublishToPuback, 0.9)],
            _ => &[
                (LatencyName::PublishToDelivery, 1.0),
                (LatencyName::PublishToPubrec, 0.6),
                (LatencyName::PublishToPubcomp, 1.3),
            ],
        };
        let mut all = BTreeMap::new();
        for (name, factor) in steps {
            let mut histogram =
                Histogram::new_with_bounds(1, 1 << 32, 3).expect("bounds are valid");
            for _ in 0..40_000 {
                // About a normal deviate, with a thin second hump.
                let deviate: f64 = (0..4).map(|_| noise.next()).sum::<f64>() * 0.87;
                let rare = if noise.next() > 0.994 { 2.0 + 2.0 * noise.next().abs() } else { 0.0 };
                let queue = if kept_up { 1.0 } else { 400.0 * (1.0 + noise.next().abs()) };
                let spread = (deviate * self.tail + rare * self.tail).exp();
                let micros = self.median_us(load) * factor * spread * queue;
                histogram.saturating_record(micros as u64 + 1);
            }
            all.insert(*name, LatencyResult::new(&histogram));
        }
        all
    }

    fn settings(&self) -> Settings {
        Settings {
            scenario: "p2p".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 1883,
            transport: "tcp".to_owned(),
            mqtt_version: "5.0".to_owned(),
            qos: self.qos,
            payload_bytes: 64,
            publishers: 50,
            subscribers: 50,
            idle: 0,
            topic: "bench/%i".to_owned(),
            filter: "bench/%i".to_owned(),
            retain: false,
            attendance: "present".to_owned(),
            persistent: "nobody".to_owned(),
            pace: self.rate.map_or("window 16".to_owned(), |rate| format!("{rate} messages/s")),
            rate_per_sec: self.rate,
            messages: None,
            connect_rate: 0.0,
            warm_secs: 4.0,
            secs: 20.0,
            threads: 1,
            cpus: vec![1],
            workers: 1,
        }
    }
}

/// Even numbers from -1 to 1 (xorshift).
struct Noise(u64);

impl Noise {
    fn new(sample: &Sample) -> Self {
        let name =
            sample.label.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31) ^ u64::from(byte));
        let rate = sample.rate.unwrap_or(1.0) as u64;
        Self(name ^ (rate << 20) ^ (u64::from(sample.round) << 50) ^ (u64::from(sample.qos) << 56))
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

const BROKERS: [Sample; 3] = {
    let base = Sample {
        label: "ringmq",
        round: 1,
        qos: 1,
        rate: None,
        ended: "complete",
        capacity: 270_000.0,
        base_us: 60.0,
        tail: 0.45,
    };
    [
        base,
        Sample { label: "flashmq", capacity: 140_000.0, base_us: 85.0, tail: 0.6, ..base },
        Sample { label: "mosquitto", capacity: 30_000.0, base_us: 180.0, tail: 0.9, ..base },
    ]
};
