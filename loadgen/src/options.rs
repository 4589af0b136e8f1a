//! The command line of `loadgen`: what is typed, and the checked [`Options`] that the rest sees.
//!
//! Owns the names of the options, their ranges and defaults, except for the numbers of clients,
//! which depend on the scenario.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{
    ArgAction, CommandFactory, Parser, Subcommand, builder::PossibleValuesParser,
    builder::TypedValueParser, error::ErrorKind,
};
use ringmq::{base::QoS, codec::Version};

use crate::{
    pace::Pace,
    record::Stamp,
    scenario::{Plan, Scenario},
};

/// What to measure, checked.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) version: Version,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: usize,
    pub(crate) plan: Plan,
    pub(crate) pace: Pace,
    pub(crate) warm: Duration,
    pub(crate) measure: Duration,
    /// The CPU to run on; any if not given.
    pub(crate) cpu: Option<usize>,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments of the process. Ends it after `--help` and `--version` (exit code 0) and
    /// misuse (2).
    pub(crate) fn of_process() -> Self {
        Self::from_args(Args::parse()).unwrap_or_else(|error| error.exit())
    }

    fn from_args(Args { command: Command::Run(args) }: Args) -> Result<Self, clap::Error> {
        // Containers on several hosts may all call their process 1.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run_id = format!("{:x}-{:x}", std::process::id(), since_epoch.subsec_nanos());
        let plan = Plan::new(args.scenario, args.publishers, args.subscribers, &run_id);
        let plan =
            plan.map_err(|error| Args::command().error(ErrorKind::ValueValidation, error))?;
        Ok(Self {
            host: args.host,
            port: args.port,
            version: args.version,
            qos: args.qos,
            payload_bytes: args.size as usize,
            plan,
            pace: args.rate.map_or(Pace::Window(args.window), Pace::Rate),
            warm: args.warm,
            measure: args.secs,
            cpu: args.pin,
            json: args.json,
        })
    }
}

/// A load generator for MQTT brokers
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario and measure throughput and latency
    Run(RunArgs),
}

/// Run a scenario and measure throughput and latency
///
/// Publishers and subscribers connect from this process, on one thread. Latency counts from the time
/// a message was meant to be sent, so a broker that stalls is charged for the messages it held up.
/// Every message is checked: the exit code is 1 if one was lost (QoS 1 and 2), repeated (QoS 0 and 2),
/// out of order or sent to the wrong subscriber, and 2 if the measurement could not be finished.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = AFTER_HELP)]
struct RunArgs {
    /// Who publishes to whom
    #[arg(value_enum)]
    scenario: Scenario,

    /// The broker's host name or address
    #[arg(short, long, default_value = "127.0.0.1")]
    host: String,

    /// The broker's port
    #[arg(short, long, default_value_t = 1883, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// MQTT version: 4 is 3.1.1, 5 is 5.0
    #[arg(short = 'V', long, value_name = "4|5", default_value = "4", value_parser = version_parser())]
    version: Version,

    /// QoS of publications and subscriptions
    #[arg(short, long, value_name = "0|1|2", default_value = "0", value_parser = qos_parser())]
    qos: QoS,

    /// Payload size in bytes, at least 16
    #[arg(short, long, value_name = "BYTES", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES))]
    size: u32,

    /// Connections that publish [default: p2p 50, fan-out 1, fan-in 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(CLIENTS))]
    publishers: Option<u32>,

    /// Connections that subscribe [default: p2p 50, fan-out 1000, fan-in 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(CLIENTS))]
    subscribers: Option<u32>,

    /// Closed loop: messages of one publisher that may be on their way
    ///
    /// The next one leaves when one has reached its subscribers and is acknowledged.
    #[arg(long, value_name = "W", default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(WINDOWS))]
    window: u32,

    /// Open loop: messages per second, of all publishers together
    ///
    /// They are due at even intervals whether the broker keeps up or not.
    #[arg(long, value_name = "R", conflicts_with = "window", value_parser = rate)]
    rate: Option<f64>,

    /// Seconds to measure
    #[arg(long, value_name = "S", default_value = "10", value_parser = positive_secs)]
    secs: Duration,

    /// Seconds of the same load before that, cut off from the result
    #[arg(long, value_name = "S", default_value = "2", value_parser = secs)]
    warm: Duration,

    /// Run on this CPU
    #[arg(long, value_name = "CPU")]
    pin: Option<usize>,

    /// Also write the result to this file, with what is needed to repeat it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

fn version_parser() -> impl TypedValueParser<Value = Version> {
    PossibleValuesParser::new(["4", "5"])
        .map(|text| if text == "5" { Version::V5 } else { Version::V311 })
}

fn qos_parser() -> impl TypedValueParser<Value = QoS> {
    PossibleValuesParser::new(["0", "1", "2"]).map(|text| match text.as_str() {
        "0" => QoS::AtMostOnce,
        "1" => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    })
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("a number from {RATE_MIN} to {RATE_MAX} is needed"))
}

fn secs(text: &str) -> Result<Duration, String> {
    let secs = text.parse::<f64>().ok().filter(|secs| (0.0..=SECS_MAX).contains(secs));
    let secs = secs.ok_or_else(|| format!("a number of seconds up to {SECS_MAX} is needed"))?;
    Ok(Duration::from_secs_f64(secs))
}

fn positive_secs(text: &str) -> Result<Duration, String> {
    secs(text).and_then(|secs| {
        if secs.is_zero() { Err("more than 0 seconds are needed".to_owned()) } else { Ok(secs) }
    })
}

/// A stamp has to fit; what all brokers take without being told to.
const PAYLOAD_BYTES: std::ops::RangeInclusive<i64> = Stamp::BYTES as i64..=1024 * 1024;

/// More than one process has ports for towards one address.
const CLIENTS: std::ops::RangeInclusive<i64> = 1..=60_000;

/// A packet identifier each, at most.
const WINDOWS: std::ops::RangeInclusive<i64> = 1..=65_535;

const RATE_MIN: f64 = 0.001;
const RATE_MAX: f64 = 10_000_000.0;

/// A week: well inside what the stamps can count.
const SECS_MAX: f64 = 604_800.0;

const AFTER_HELP: &str = "\
Examples:
  loadgen run p2p -q 1                                   50 pairs, window 16
  loadgen run fan-out --subscribers 100 --rate 50        open loop, 50 messages per second
  loadgen run fan-in -q 2 -V 5 --secs 30 --json in.json  also writes the result as JSON";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let args = Args::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string());
        args.and_then(|args| Options::from_args(args).map_err(|error| error.to_string()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn everything_has_a_default() {
        let options = parse("loadgen run p2p").unwrap();
        assert_eq!((options.host.as_str(), options.port), ("127.0.0.1", 1883));
        assert_eq!((options.version, options.qos), (Version::V311, QoS::AtMostOnce));
        assert_eq!((options.payload_bytes, options.pace), (64, Pace::Window(16)));
        assert_eq!((options.plan.publishers, options.plan.subscribers), (50, 50));
        assert_eq!((options.warm.as_secs(), options.measure.as_secs()), (2, 10));
    }

    #[test]
    fn options_are_named_as_in_emqtt_bench() {
        let line = "loadgen run fan-out -h ::1 -p 1 -q 2 -s 16 -V 5 --rate 0.5 --warm 0 --secs 0.5";
        let options = parse(line).unwrap();
        assert_eq!((options.host.as_str(), options.port), ("::1", 1));
        assert_eq!((options.version, options.qos), (Version::V5, QoS::ExactlyOnce));
        assert_eq!((options.payload_bytes, options.pace), (16, Pace::Rate(0.5)));
        assert_eq!(options.measure, Duration::from_millis(500));
    }

    #[test]
    fn misuse_is_refused() {
        for (line, hint) in [
            ("loadgen", "Usage"),
            ("loadgen run", "SCENARIO"),
            ("loadgen run p3p", "p2p"),
            ("loadgen run p2p -s 15", "16"),
            ("loadgen run p2p -q 3", "0, 1, 2"),
            ("loadgen run p2p --version 3", "4, 5"),
            ("loadgen run p2p --rate 0", "0.001"),
            ("loadgen run p2p --rate NaN", "0.001"),
            ("loadgen run p2p --rate 5 --window 5", "cannot be used with"),
            ("loadgen run p2p --secs 0", "more than 0"),
            ("loadgen run p2p --warm -1", "-1"),
            ("loadgen run p2p --window 0", "1..=65535"),
            ("loadgen run p2p --publishers 2 --subscribers 3", "as many"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(hint), "{line}: {error}");
        }
    }
}
