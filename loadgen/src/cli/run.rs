//! `loadgen run`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ArgAction;
use ringmq::{base::QoS, codec::Version};

use super::{
    common::{
        BrokerArgs, GeneratorArgs, persistent_parser, qos_parser, rate, rates, secs, version_parser,
    },
    misuse,
};
use crate::{
    measure::Target,
    record::Stamp,
    scenario::{self, Overrides, Pace, Persistent, Rate, Scenario, Search},
};

/// A scenario to be run, checked.
#[derive(Debug)]
pub(crate) struct RunCommand {
    pub(crate) scenario: Scenario,
    pub(crate) target: Target,
    pub(crate) output: Output,
}

/// Where results go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Also write the result to this file, with all that is needed to repeat it
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Also write an HdrHistogram log to this file: the latency of each second (us)
    ///
    /// Warm-up included, tag `delivery`; behind each run one interval for each step of the handshakes. Of
    /// further runs of the same command the tags begin with `run2-` and so on.
    #[arg(long, value_name = "FILE")]
    pub(crate) hlog: Option<PathBuf>,

    /// Serve counters to Prometheus while it goes on, such as at 127.0.0.1:9464 (path /metrics)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) prometheus: Option<SocketAddr>,

    /// No line each second
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Run a scenario and measure throughput and latency
///
/// A scenario says how many clients publish and subscribe to what, and at which pace. Latency counts from
/// the time a message was meant to be sent, so a broker that stalls is charged for all messages it held up.
/// Every message is checked: the exit code is 1 if one was lost (QoS 1 and 2), repeated (QoS 0 and 2), out
/// of order or sent to the wrong subscriber, and 2 if the measurement could not be finished.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = after_help())]
pub(super) struct RunArgs {
    /// A built-in scenario, or a TOML file
    #[arg(value_name = "SCENARIO")]
    scenario: String,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    #[command(flatten)]
    generator: GeneratorArgs,

    #[command(flatten)]
    output: Output,

    /// A name for the result, such as the broker's
    #[arg(long, value_name = "NAME")]
    label: Option<String>,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What the command line changes of a scenario.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load (each wins over the scenario)")]
pub(super) struct LoadArgs {
    /// MQTT version: 3 is 3.1, 4 is 3.1.1, 5 is 5.0
    #[arg(short = 'V', long, value_name = "3|4|5", value_parser = version_parser())]
    version: Option<Version>,

    /// QoS of publications and subscriptions
    #[arg(short, long, value_name = "0|1|2", value_parser = qos_parser())]
    qos: Option<QoS>,

    /// Payload size in bytes, at least 16
    #[arg(short, long, value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES))]
    size: Option<u32>,

    /// Connections that publish
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(CLIENTS))]
    publishers: Option<u32>,

    /// Connections that subscribe
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(CLIENTS))]
    subscribers: Option<u32>,

    /// Connections that do nothing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(CLIENTS))]
    idle: Option<u32>,

    /// Whose sessions outlive their connections; at the end of the run they are ended
    ///
    /// What a broker acknowledges for such a session it has to keep, and one that keeps it on disk has to
    /// wait for that.
    #[arg(long, value_name = "WHO", value_parser = persistent_parser())]
    persistent: Option<Persistent>,

    /// Closed loop: messages of one publisher that may be on their way
    ///
    /// The next one leaves when one has reached its subscribers and is acknowledged.
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(WINDOWS), group = "pace")]
    window: Option<u32>,

    /// Open loop: messages per second, of all publishers together
    ///
    /// They are due at even intervals whether the broker keeps up or not.
    #[arg(long, value_name = "R", value_parser = rate, group = "pace")]
    rate: Option<f64>,

    /// Open loop: the same on average, at random intervals
    #[arg(long, value_name = "R", value_parser = rate, group = "pace")]
    poisson: Option<f64>,

    /// Open loop: a rate that changes evenly from the first to the second
    #[arg(long, value_name = "R..R", value_parser = rates, group = "pace")]
    ramp: Option<(f64, f64)>,

    /// Search for the highest rate that the broker serves in time, beginning here
    ///
    /// Runs at one rate after the other: twice the last until the p99 of the latency passes --p99-max or
    /// something is missing, then between the best and the worst.
    #[arg(long, value_name = "R", value_parser = rate, group = "pace")]
    search: Option<f64>,

    /// With --search: the highest p99 of the latency that is in time, in microseconds
    #[arg(long, value_name = "US", requires = "search", default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=60_000_000))]
    p99_max: u64,

    /// Messages of each publisher, if that is reached before the time
    #[arg(short = 'L', long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=9_999_999_999))]
    messages: Option<u64>,

    /// Connections per second [default: as fast as the broker takes them]
    #[arg(short = 'R', long, value_name = "R", value_parser = rate)]
    connrate: Option<f64>,

    /// Seconds to measure
    #[arg(long, value_name = "S", value_parser = secs)]
    secs: Option<Duration>,

    /// Seconds of the same load before that, cut off from the result
    #[arg(long, value_name = "S", value_parser = secs)]
    warm: Option<Duration>,
}

impl RunArgs {
    pub(super) fn check(self) -> Result<RunCommand, clap::Error> {
        let target = self.broker.target(&self.generator, self.label);
        self.output.check(&target)?;
        Ok(RunCommand {
            scenario: self.load.scenario(&self.scenario)?,
            target,
            output: self.output,
        })
    }
}

impl Output {
    /// Only worker 1 has results.
    pub(super) fn check(&self, target: &Target) -> Result<(), clap::Error> {
        let has_any = self.json.is_some() || self.hlog.is_some() || self.prometheus.is_some();
        match &target.team {
            Some(team) if team.worker > 1 && has_any => Err(misuse(
                "--json, --hlog and --prometheus are for worker 1, which has the result",
            )),
            _ => Ok(()),
        }
    }
}

impl LoadArgs {
    /// The scenario, changed by these options.
    pub(super) fn scenario(self, name: &str) -> Result<Scenario, clap::Error> {
        let pace = self
            .window
            .map(Pace::Window)
            .or(self.rate.map(|rate| Pace::Open(Rate::Fixed(rate))))
            .or(self.poisson.map(|rate| Pace::Open(Rate::Poisson(rate))))
            .or(self.ramp.map(|(from, to)| Pace::Open(Rate::Ramp { from, to })))
            .or(self.search.map(|from| Pace::Search(Search { from, p99_us_max: self.p99_max })));
        let overrides = Overrides {
            version: self.version,
            qos: self.qos,
            payload_bytes: self.size,
            publishers: self.publishers,
            subscribers: self.subscribers,
            idle: self.idle,
            persistent: self.persistent,
            pace,
            messages: self.messages,
            connect_rate: self.connrate,
            warm: self.warm,
            measure: self.secs,
        };
        scenario::load(name, &overrides).map_err(misuse)
    }
}

fn after_help() -> String {
    let scenarios: String = scenario::built_in()
        .map(|(name, description)| format!("  {name:<26} {description}\n"))
        .collect();
    format!(
        "\
Built-in scenarios (TOML files in perf/scenarios, to be copied and changed):
{scenarios}
Without options or a scenario that says otherwise: 2 s of warm-up, then 10 s; 64 bytes; QoS 0; MQTT 3.1.1.

Examples:
  loadgen run p2p -q 1                                   50 pairs, window 512
  loadgen run fan-out --subscribers 100 --rate 50        open loop, 50 messages per second
  loadgen run p2p --search 1000 --p99-max 5000           the highest rate with p99 up to 5 ms
  loadgen run fan-in -q 2 -V 5 --secs 30 --json in.json  also writes the result as JSON
  loadgen run offline-replay --publishers 1 -L 100000    for one subscriber that comes back
  loadgen run p2p --worker 1/2 --leader 127.0.0.1:7883   one of two processes; the other is 2/2"
    )
}

/// A stamp has to fit; as much as a broker may take.
const PAYLOAD_BYTES: std::ops::RangeInclusive<i64> =
    Stamp::BYTES as i64..=scenario::PAYLOAD_BYTES_MAX as i64;

const CLIENTS: std::ops::RangeInclusive<i64> = 0..=scenario::CLIENTS_MAX as i64;

/// A packet identifier each, at most.
const WINDOWS: std::ops::RangeInclusive<i64> = 1..=65_535;

#[cfg(test)]
mod tests {
    use super::super::tests::{misuse_is_answered, parse};
    use super::*;
    use crate::scenario::Attendance;

    #[test]
    fn everything_has_a_default() {
        let RunCommand { scenario, target, output } = parse("loadgen run p2p").unwrap();
        assert_eq!((target.hosts, target.port), (vec!["127.0.0.1".to_owned()], 1883));
        assert_eq!((scenario.version, scenario.qos()), (Version::V311, QoS::AtMostOnce));
        assert_eq!((scenario.payload_bytes, scenario.pace), (64, Pace::Window(512)));
        assert_eq!((scenario.publishers, scenario.subscribers, scenario.idle), (50, 50, 0));
        assert_eq!((scenario.warm.as_secs(), scenario.measure.as_secs()), (2, 10));
        assert_eq!((scenario.connect_rate, scenario.messages, scenario.limit), (0.0, None, None));
        assert_eq!((scenario.attendance, scenario.checked), (Attendance::Present, true));
        assert_eq!(scenario.persistent, Persistent::Nobody);
        assert_eq!((target.threads, target.first, target.label.as_str()), (vec![None], 0, ""));
        assert_eq!(
            (target.clean_start, target.inflight_max, target.broker_pid),
            (None, None, None)
        );
        assert!(target.prefix.is_none() && target.tls.is_none() && target.websocket_path.is_none());
        assert!(output.json.is_none() && !output.quiet);
    }

    #[test]
    fn options_are_named_as_in_emqtt_bench() {
        let line = "loadgen run fan-out -h ::1 -p 1 -q 2 -s 16 -V 5 -R 5 -n 3 -u joe -P pass -S --insecure \
                    --rate 0.5 --warm 0 --secs 0.5 --publishers 2 --subscribers 3 --idle 4 -L 9 \
                    --threads 2 --pid 7 --label me --json x.json --quiet";
        let RunCommand { scenario, target, output } = parse(line).unwrap();
        assert_eq!((target.hosts, target.port, target.first), (vec!["::1".to_owned()], 1, 3));
        assert_eq!((scenario.version, scenario.qos()), (Version::V5, QoS::ExactlyOnce));
        assert_eq!((scenario.payload_bytes, scenario.connect_rate), (16, 5.0));
        assert_eq!((scenario.publishers, scenario.subscribers, scenario.idle), (2, 3, 4));
        assert_eq!((scenario.messages, scenario.warm.as_secs()), (Some(9), 0));
        assert_eq!(scenario.measure, Duration::from_millis(500));
        assert_eq!(
            (target.user_name.unwrap(), target.password.unwrap()),
            ("joe".into(), "pass".into())
        );
        assert!(target.tls.unwrap().insecure);
        assert_eq!((target.threads, target.broker_pid), (vec![None; 2], Some(7)));
        assert_eq!((target.label.as_str(), output.quiet), ("me", true));
        assert_eq!(output.json, Some(PathBuf::from("x.json")));
    }

    #[test]
    fn each_pace_has_an_option() {
        for (options, pace) in [
            ("--window 3", Pace::Window(3)),
            ("--rate 0.5", Pace::Open(Rate::Fixed(0.5))),
            ("--poisson 9", Pace::Open(Rate::Poisson(9.0))),
            ("--ramp 0..50", Pace::Open(Rate::Ramp { from: 0.0, to: 50.0 })),
            ("--search 5", Pace::Search(Search { from: 5.0, p99_us_max: 10_000 })),
            ("--search 5 --p99-max 7", Pace::Search(Search { from: 5.0, p99_us_max: 7 })),
        ] {
            let command = parse(&format!("loadgen run p2p {options}")).unwrap();
            assert_eq!(command.scenario.pace, pace, "{options}");
        }
    }

    #[test]
    fn sessions_persist_where_it_is_said() {
        for (line, persistent) in [
            ("p2p --persistent subscribers", Persistent::Subscribers),
            ("durable-p2p", Persistent::Everybody),
            ("durable-p2p --persistent nobody", Persistent::Nobody),
            ("durable-fan-out", Persistent::Subscribers),
            ("offline-replay", Persistent::Subscribers),
        ] {
            let command = parse(&format!("loadgen run {line}")).unwrap();
            assert_eq!(command.scenario.persistent, persistent, "{line}");
        }
    }

    #[test]
    fn cpus_are_threads() {
        for (options, threads) in [
            ("--cpus 1,3", vec![Some(1), Some(3)]),
            ("--pin 0", vec![Some(0)]),
            ("--threads 3", vec![None; 3]),
        ] {
            let command = parse(&format!("loadgen run p2p {options}")).unwrap();
            assert_eq!(command.target.threads, threads, "{options}");
        }
    }

    #[test]
    fn misuse_is_answered_with_what_is_allowed() {
        misuse_is_answered(&[
            ("run", "SCENARIO"),
            ("run p3p", "built in are: p2p, fan-out"),
            ("run p2p -s 15", "16"),
            ("run p2p -q 3", "0, 1, 2"),
            ("run p2p --version 2", "3, 4, 5"),
            ("run p2p -p 0", "1..=65535"),
            ("run p2p --rate 0", "0.001"),
            ("run p2p --rate NaN", "0.001"),
            ("run p2p --ramp 5", "such as 100..5000"),
            ("run p2p --ramp 5..0", "0.001"),
            ("run p2p --rate 5 --window 5", "cannot be used with"),
            ("run p2p --search 5 --poisson 5", "cannot be used with"),
            ("run p2p --p99-max 5", "--search"),
            ("run p2p --warm -1", "-1"),
            ("run p2p --secs inf", "number of seconds up to"),
            ("run p2p --window 0", "1..=65535"),
            ("run p2p --publishers 2 --subscribers 3", "as many"),
            ("run p2p --publishers 0 --subscribers 0", "no clients"),
            ("run idle --search 5", "publishers and subscribers"),
            ("run offline-replay -q 0", "QoS 1 and 2 only"),
            ("run offline-replay --warm 1", "no warm-up"),
            ("run offline-replay --persistent nobody", "only if their sessions persist"),
            ("run p2p --persistent me", "nobody, subscribers, everybody"),
            ("run p2p --threads 2 --cpus 1", "cannot be used with"),
            ("run p2p --threads 0", "1..=256"),
            ("run p2p --ws-path /x", "--ws"),
            ("run p2p --cafile x", "--ssl"),
            ("run p2p --ssl --certfile x", "--keyfile"),
            ("run p2p --ifaddr eth0", "invalid IP address"),
        ]);
    }
}
