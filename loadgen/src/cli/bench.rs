//! `loadgen conn`, `pub` and `sub`: the commands and options of emqtt-bench, by their letters, in one
//! engine with `loadgen run`.

use std::{sync::Arc, time::Duration};

use clap::ArgAction;
use ringmq::{base::QoS, codec::Version};

use super::{
    common::{BrokerArgs, GeneratorArgs, qos_parser, secs, version_parser},
    misuse,
    run::{Output, RunCommand},
};
use crate::scenario::{
    Attendance, CLIENTS_MAX, MESSAGES_MAX, PAYLOAD_BYTES_MAX, Pace, Persistent, RATE_MAX, Rate,
    Scenario, Template, UNTIL_INTERRUPTED,
};

/// Connect clients and hold their connections
///
/// Shows how long the broker takes from a connection's first byte to its CONNACK, and what connections
/// cost (--pid). The first connection that is refused or lost ends the run with the reason (exit code 2).
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = CONN_EXAMPLES)]
pub(super) struct ConnArgs {
    #[command(flatten)]
    clients: ClientArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// Publish messages to topics
///
/// Measures the throughput, and at QoS 1 and 2 the time to each acknowledgement: from when a message was
/// due, not from when there was room for it, so that a broker that stalls is charged for everything it
/// held up. All publishers are connected before the first message. Each message carries what `loadgen
/// sub` needs to measure its latency; `loadgen run` checks what arrives too.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = PUB_EXAMPLES)]
pub(super) struct PubArgs {
    #[command(flatten)]
    messages: MessageArgs,

    #[command(flatten)]
    clients: ClientArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// Subscribe to topics and count what arrives
///
/// Messages of `loadgen pub` show their latency; on two hosts it is as good as their clocks agree. Those
/// of other programs are counted.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = SUB_EXAMPLES)]
pub(super) struct SubArgs {
    /// What to subscribe to; %i is the number of the client, %c its identifier, %u the user name, %% a
    /// percent sign
    #[arg(short, long, value_name = "FILTER", value_parser = template)]
    topic: Template,

    /// QoS of the subscriptions
    #[arg(short, long, value_name = "0|1|2", default_value = "0", value_parser = qos_parser())]
    qos: QoS,

    #[command(flatten)]
    clients: ClientArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// What `pub` sends.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Messages")]
struct MessageArgs {
    /// What to publish to; %i is the number of the client, %c its identifier, %u the user name, %m the
    /// number of the message (ten digits), %r unlike any other run's, %% a percent sign
    #[arg(short, long, value_name = "TOPIC", value_parser = template)]
    topic: Template,

    /// QoS of the messages
    #[arg(short, long, value_name = "0|1|2", default_value = "0", value_parser = qos_parser())]
    qos: QoS,

    /// Payload size in bytes; below 16 there is no room for what `sub` measures latency by
    #[arg(short, long, value_name = "BYTES", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(PAYLOAD_BYTES_MAX)))]
    size: u32,

    /// The payload of all messages: `sub` counts them, but cannot measure their latency
    #[arg(short, long, value_name = "TEXT", conflicts_with = "size")]
    message: Option<String>,

    /// Ask the broker to retain the messages
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_value_t = false,
        default_missing_value = "true", action = ArgAction::Set)]
    retain: bool,

    /// Milliseconds between two messages of one publisher; 0 is as fast as the broker takes them
    ///
    /// The publishers take turns at even intervals: all together send 1000 * COUNT / MS messages a second.
    #[arg(short = 'I', long = "interval_of_msg", alias = "interval-of-msg", value_name = "MS",
        default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=DAY_MILLIS))]
    interval_of_msg: u64,

    /// Messages of all publishers together, then the run ends; 0 is no limit
    ///
    /// Exactly so many: if they cannot be shared evenly, the first publishers send one more each.
    #[arg(short = 'L', long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=MESSAGES_MAX))]
    limit: u64,

    /// QoS 1 and 2: messages of one publisher without their last acknowledgement at once; 0 is no limit
    ///
    /// A message that is due waits for its turn, and the wait is part of its latency.
    #[arg(short = 'F', long, value_name = "N", default_value_t = 1)]
    inflight: u16,

    /// Always so here: nothing is published before all publishers are connected
    #[arg(short = 'w', long = "wait-before-publishing", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true", action = ArgAction::Set)]
    _wait_before_publishing: Option<bool>,
}

/// How many clients, and how they connect.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Clients")]
struct ClientArgs {
    /// Clients
    #[arg(short, long, value_name = "N", default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    count: u32,

    /// Connections per second; 0 leaves it to --interval
    #[arg(short = 'R', long, value_name = "R", default_value = "0", value_parser = rate_or_0)]
    connrate: f64,

    /// Milliseconds from one connection to the next; 0 is as fast as the broker takes them
    #[arg(short, long, value_name = "MS", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(0..=DAY_MILLIS))]
    interval: u64,

    /// MQTT version: 3 is 3.1, 4 is 3.1.1, 5 is 5.0
    #[arg(short = 'V', long, value_name = "3|4|5", default_value = "5",
        value_parser = version_parser())]
    version: Version,

    /// Keep-alive in seconds; 0 is none
    #[arg(short, long, value_name = "S", default_value_t = 300)]
    keepalive: u16,

    /// Start without a session from before
    #[arg(short = 'C', long, value_name = "BOOL", num_args = 0..=1, default_value_t = true,
        default_missing_value = "true", action = ArgAction::Set)]
    clean: bool,

    /// MQTT 5.0: seconds that the broker is to keep the session after the end [default: 0]
    #[arg(short = 'x', long, value_name = "S")]
    session_expiry: Option<u32>,

    /// Seconds to measure, from when all are connected [default: until Ctrl-C]
    #[arg(long, value_name = "S", value_parser = secs)]
    secs: Option<Duration>,
}

/// What is the same as in `run`.
#[derive(Debug, clap::Args)]
struct CommonArgs {
    #[command(flatten)]
    broker: BrokerArgs,

    #[command(flatten)]
    generator: GeneratorArgs,

    #[command(flatten)]
    output: Output,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl ConnArgs {
    pub(super) fn check(self) -> Result<RunCommand, clap::Error> {
        let load = Scenario { idle: self.clients.count, ..self.clients.scenario("conn") };
        command(load, &self.clients, self.common)
    }
}

impl PubArgs {
    pub(super) fn check(self) -> Result<RunCommand, clap::Error> {
        let Self { messages, clients, common } = self;
        let payload = messages.message.map(|text| Arc::<[u8]>::from(text.into_bytes()));
        let load = Scenario {
            qos: vec![messages.qos],
            payload_bytes: payload.as_ref().map_or(messages.size as usize, |bytes| bytes.len()),
            retain: messages.retain,
            publishers: clients.count,
            topic: messages.topic,
            pace: match messages.interval_of_msg {
                0 => Pace::Window(u32::from(u16::MAX)),
                millis => {
                    Pace::Open(Rate::Fixed(f64::from(clients.count) * 1000.0 / millis as f64))
                }
            },
            limit: Some(messages.limit).filter(|limit| *limit > 0),
            ..clients.scenario("pub")
        };
        let mut command = command(load, &clients, common)?;
        command.target.payload = payload;
        command.target.inflight_max =
            Some(if messages.inflight == 0 { u16::MAX } else { messages.inflight });
        Ok(command)
    }
}

impl SubArgs {
    pub(super) fn check(self) -> Result<RunCommand, clap::Error> {
        let load = Scenario {
            qos: vec![self.qos],
            subscribers: self.clients.count,
            filter: self.topic,
            ..self.clients.scenario("sub")
        };
        command(load, &self.clients, self.common)
    }
}

impl ClientArgs {
    /// A scenario without clients and messages.
    fn scenario(&self, name: &str) -> Scenario {
        Scenario {
            name: name.to_owned(),
            description: String::new(),
            version: self.version,
            qos: vec![QoS::AtMostOnce],
            payload_bytes: 0,
            retain: false,
            publishers: 0,
            topic: Template::default(),
            subscribers: 0,
            filter: Template::default(),
            idle: 0,
            attendance: Attendance::Present,
            persistent: Persistent::Nobody,
            pace: Pace::Window(1),
            messages: None,
            limit: None,
            connect_rate: match (self.connrate, self.interval) {
                (0.0, 0) => 0.0,
                (0.0, millis) => 1000.0 / millis as f64,
                (rate, _) => rate,
            },
            warm: Duration::ZERO,
            measure: self.secs.unwrap_or(UNTIL_INTERRUPTED),
            keep_alive_secs: self.keepalive,
            checked: false,
        }
    }
}

fn command(
    scenario: Scenario,
    clients: &ClientArgs,
    common: CommonArgs,
) -> Result<RunCommand, clap::Error> {
    if clients.session_expiry.is_some() && clients.version != Version::V5 {
        return Err(misuse(
            "--session-expiry is of MQTT 5.0 (-V 5); before, the session of a client with --clean false stays",
        ));
    }
    let mut target = common.broker.target(&common.generator, None);
    target.clean_start = Some(clients.clean);
    target.session_expiry_secs = clients.session_expiry;
    common.output.check(&target)?;
    Ok(RunCommand { scenario: scenario.checked().map_err(misuse)?, target, output: common.output })
}

fn template(text: &str) -> Result<Template, String> {
    Template::parse(text).map_err(|error| error.to_string())
}

/// A rate, or 0.
fn rate_or_0(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("a number from 0 to {RATE_MAX} is needed"))
}

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

const CONN_EXAMPLES: &str = "\
Examples:
  loadgen conn -c 10000 -R 500                  10,000 clients, 500 a second, until Ctrl-C
  loadgen conn -c 5000 -i 0 --secs 0            a connection storm: all at once, then the result
  loadgen conn -c 50000 -R 1000 --ifaddr 10.0.0.2,10.0.0.3
                                                more than one address has ports for";

const PUB_EXAMPLES: &str = "\
Examples:
  loadgen pub -t bench/%i                       200 clients, one message a second each
  loadgen pub -t bench/%i -c 10 -I 10 -q 1      10 clients, 100 messages a second each
  loadgen pub -t bench/%i -c 1 -I 0 -q 1 -F 100 -L 1000000
                                                a million as fast as 100 in flight allow
  loadgen pub -t state/%i -c 100 -I 1 -L 100 -r -m on
                                                one retained message to each of 100 topics";

const SUB_EXAMPLES: &str = "\
Examples:
  loadgen sub -t 'bench/#' -c 1                 one subscriber for what `loadgen pub -t bench/%i` sends
  loadgen sub -t bench/%i -q 1                  200 subscribers, each to the topic of its number
  loadgen sub -t '$share/group/bench/#' -c 10   10 subscribers that share the messages
  loadgen sub -t 'sensors/#' -c 1 --secs 60     counts for a minute what others publish";

#[cfg(test)]
mod tests {
    use super::super::tests::{misuse_is_answered, parse};
    use super::*;

    #[test]
    fn defaults_are_those_of_emqtt_bench() {
        for (line, clients, qos, bytes, pace) in [
            ("conn", (0, 0, 200), 0, 0, Pace::Window(1)),
            ("pub -t t", (200, 0, 0), 0, 256, Pace::Open(Rate::Fixed(200.0))),
            ("sub -t t", (0, 200, 0), 0, 0, Pace::Window(1)),
        ] {
            let RunCommand { scenario, target, output } =
                parse(&format!("loadgen {line}")).unwrap();
            let all = (scenario.publishers, scenario.subscribers, scenario.idle);
            assert_eq!((all, scenario.qos().bits()), (clients, qos), "{line}");
            assert_eq!((scenario.payload_bytes, scenario.pace), (bytes, pace), "{line}");
            assert_eq!((scenario.version, scenario.keep_alive_secs), (Version::V5, 300));
            assert_eq!((scenario.connect_rate, scenario.limit), (100.0, None));
            assert!(scenario.is_endless() && scenario.warm.is_zero() && !scenario.checked);
            assert_eq!(
                (target.hosts, target.port, target.first),
                (vec!["127.0.0.1".into()], 1883, 0)
            );
            assert_eq!((target.clean_start, target.session_expiry_secs), (Some(true), None));
            assert_eq!(target.inflight_max, (scenario.publishers > 0).then_some(1));
            assert!(output.json.is_none() && !output.quiet);
        }
    }

    #[test]
    fn letters_and_long_names_are_those_of_emqtt_bench() {
        let letters = "loadgen pub -h a,b -p 1 -V 4 -c 7 -R 50 -i 3 -I 10 -t x/%i -q 2 -s 16 -L 100 -F 9 \
                       -w -S -u joe -P pass -k 60 -C false -n 5 -r --ifaddr 127.0.0.2 --prefix me --ws";
        let long = "loadgen pub --host a,b --port 1 --version 4 --count 7 --connrate 50 --interval 3 \
                    --interval_of_msg 10 --topic x/%i --qos 2 --size 16 --limit 100 --inflight 9 \
                    --wait-before-publishing true --ssl --username joe --password pass \
                    --keepalive 60 --clean false --startnumber 5 --retain true --ifaddr 127.0.0.2 \
                    --prefix me --ws";
        for line in [letters, long] {
            let RunCommand { scenario, target, .. } = parse(line).unwrap();
            assert_eq!((target.hosts, target.port), (vec!["a".into(), "b".into()], 1));
            assert_eq!((scenario.version, scenario.publishers), (Version::V311, 7));
            assert_eq!(
                (scenario.connect_rate, scenario.pace),
                (50.0, Pace::Open(Rate::Fixed(700.0)))
            );
            assert_eq!((scenario.topic.to_string().as_str(), scenario.qos().bits()), ("x/%i", 2));
            assert_eq!((scenario.payload_bytes, scenario.limit), (16, Some(100)));
            assert_eq!((scenario.keep_alive_secs, scenario.retain), (60, true));
            assert_eq!((target.inflight_max, target.clean_start), (Some(9), Some(false)));
            assert_eq!(
                (target.user_name.unwrap(), target.password.unwrap()),
                ("joe".into(), "pass".into())
            );
            assert_eq!((target.prefix.unwrap().as_str(), target.first), ("me", 5));
            assert_eq!(target.from, ["127.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
            assert!(target.tls.is_some() && target.websocket_path.as_deref() == Some("/mqtt"));
        }
    }

    #[test]
    fn zero_is_no_bound() {
        for (options, connect_rate) in
            [("-i 0", 0.0), ("-i 4", 250.0), ("-i 0 -R 9", 9.0), ("-R 0", 100.0)]
        {
            let command = parse(&format!("loadgen conn {options}")).unwrap();
            assert_eq!(command.scenario.connect_rate, connect_rate, "{options}");
        }
        let command = parse("loadgen pub -t t -I 0 -F 0 -L 0 -k 0 -s 0").unwrap();
        assert_eq!(command.scenario.pace, Pace::Window(65_535));
        assert_eq!((command.scenario.limit, command.scenario.keep_alive_secs), (None, 0));
        assert_eq!(command.target.inflight_max, Some(u16::MAX));
    }

    #[test]
    fn a_limit_is_shared_to_the_last_message() {
        for (count, limit) in [(1, 1), (3, 10), (10, 3), (7, 7_000_000_001)] {
            let line = format!("loadgen pub -t t -c {count} -L {limit}");
            let scenario = parse(&line).unwrap().scenario;
            let parts: Vec<u64> = (0..count).map(|one| scenario.messages_of(one)).collect();
            assert_eq!(parts.iter().sum::<u64>(), limit, "{line}");
            assert!(parts.is_sorted_by(|one, next| one >= next && one - next <= 1), "{parts:?}");
        }
    }

    #[test]
    fn a_text_is_the_payload() {
        let command = parse("loadgen pub -t t -m on").unwrap();
        assert_eq!(command.target.payload.as_deref(), Some(&b"on"[..]));
        assert_eq!(command.scenario.payload_bytes, 2);
    }

    #[test]
    fn an_end_and_a_session_can_be_given() {
        let command = parse("loadgen sub -t t --secs 0.5 -x 60 -C false").unwrap();
        assert_eq!(command.scenario.measure, Duration::from_millis(500));
        assert_eq!(command.target.session_expiry_secs, Some(60));
    }

    #[test]
    fn misuse_is_answered_with_what_is_allowed() {
        misuse_is_answered(&[
            ("conn -c 0", "1..=10000000"),
            ("conn -t x", "unexpected argument '-t'"),
            ("conn -R x", "a number from 0"),
            ("conn -V 2", "3, 4, 5"),
            ("conn -x 5 -V 4", "MQTT 5.0 (-V 5)"),
            ("conn -C maybe", "true, false"),
            ("pub", "--topic <TOPIC>"),
            ("pub -t a/%z", "%z is no variable"),
            ("pub -t t -m text -s 5", "cannot be used with"),
            ("pub -t t -q 3", "0, 1, 2"),
            ("pub -t t -F 65536", "65536 is not in 0..=65535"),
            ("pub -t t --prefix", "a value is required"),
            ("sub", "--topic <FILTER>"),
            ("sub -t a/%m", "stands in topics"),
            ("sub -t t -n x", "invalid digit"),
            ("sub -t t --secs -1", "-1"),
            ("sub -t t --cafile x", "--ssl"),
        ]);
    }
}
