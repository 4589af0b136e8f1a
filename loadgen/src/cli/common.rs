//! Options that several commands have: where the broker is, who the clients say they are, and where the
//! generator runs.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ringmq::{base::QoS, codec::Version};

use super::team::TeamArgs;
use crate::{
    homes::Homes,
    measure::Target,
    scenario::{Persistent, RATE_MAX, RATE_MIN, SECS_MAX},
    transport::TlsOptions,
};

/// Where the broker is and who the clients are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Broker and clients")]
pub(super) struct BrokerArgs {
    /// The broker's host name or address; the first of several that answers
    #[arg(
        short,
        long,
        value_name = "HOST,...",
        value_delimiter = ',',
        default_value = "127.0.0.1"
    )]
    host: Vec<String>,

    /// The broker's port
    #[arg(short, long, default_value_t = 1883, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// The broker's process, if it runs here: its CPU time and memory become part of the result
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    #[command(flatten)]
    clients: IdentityArgs,

    #[command(flatten)]
    team: TeamArgs,
}

/// Who the clients are, and how they connect.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Broker and clients")]
pub(super) struct IdentityArgs {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// Password
    #[arg(short = 'P', long, value_name = "PASSWORD")]
    password: Option<String>,

    /// Connect with TLS
    #[arg(short = 'S', long)]
    ssl: bool,

    /// Connect with WebSocket
    #[arg(long)]
    ws: bool,

    /// With --ws: the path
    #[arg(long, value_name = "PATH", requires = "ws", default_value = "/mqtt")]
    ws_path: String,

    /// With --ssl: trust these CA certificates (PEM) [default: those that this machine trusts]
    #[arg(long, value_name = "FILE", requires = "ssl")]
    cafile: Option<PathBuf>,

    /// With --ssl: the clients' certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "ssl", requires = "keyfile")]
    certfile: Option<PathBuf>,

    /// With --ssl: its key (PEM)
    #[arg(long, value_name = "FILE", requires = "certfile")]
    keyfile: Option<PathBuf>,

    /// With --ssl: do not verify the broker's certificate
    #[arg(long, requires = "ssl")]
    insecure: bool,

    /// Source addresses, used in turn: one has ports for some 28,000 connections
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',')]
    ifaddr: Vec<IpAddr>,

    /// First part of the client identifiers [default: one that no other run has]
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// Number of the first client of each kind
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    startnumber: u32,

    /// On ringmq: has each subscriber live on the shard of its publisher (near), or on another one (apart)
    ///
    /// The broker's seed is in the file `meta` of its data directory. Clients are then named so that they live there.
    #[arg(long, value_name = "SEED/SHARDS/near|apart", value_parser = Homes::parse)]
    homes: Option<Homes>,
}

/// Where the generator runs, and what it watches.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Generator")]
pub(super) struct GeneratorArgs {
    /// Threads that make the load
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "cpus",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,

    /// One thread on each of these CPUs
    #[arg(long, alias = "pin", value_name = "CPU,...", value_delimiter = ',')]
    cpus: Vec<usize>,

    /// Never sleep: takes the generator's own waking up out of the latencies, and a CPU for each thread
    #[arg(long)]
    spin: bool,
}

impl BrokerArgs {
    /// The target of all runs. Clean Start and session expiry are the scenario's to say.
    pub(super) fn target(self, generator: &GeneratorArgs, label: Option<String>) -> Target {
        Target {
            hosts: self.host,
            port: self.port,
            team: self.team.team(),
            broker_pid: self.pid,
            label: label.unwrap_or_default(),
            ..self.clients.target(generator)
        }
    }
}

impl IdentityArgs {
    /// A target that has yet to get an address.
    pub(super) fn target(self, generator: &GeneratorArgs) -> Target {
        Target {
            hosts: Vec::new(),
            port: 0,
            from: self.ifaddr,
            tls: self.ssl.then_some(TlsOptions {
                ca_file: self.cafile,
                cert_file: self.certfile,
                key_file: self.keyfile,
                insecure: self.insecure,
                server_name: None,
            }),
            websocket_path: self.ws.then_some(self.ws_path),
            user_name: self.username,
            password: self.password,
            prefix: self.prefix,
            first: self.startnumber.into(),
            homes: self.homes,
            clean_start: None,
            session_expiry_secs: None,
            inflight_max: None,
            payload: None,
            threads: if generator.cpus.is_empty() {
                vec![None; generator.threads.into()]
            } else {
                generator.cpus.iter().copied().map(Some).collect()
            },
            spins: generator.spin,
            team: None,
            broker_pid: None,
            label: String::new(),
        }
    }
}

pub(super) fn version_parser() -> impl TypedValueParser<Value = Version> {
    PossibleValuesParser::new(["3", "4", "5"]).map(|text| match text.as_str() {
        "3" => Version::V31,
        "4" => Version::V311,
        _ => Version::V5,
    })
}

pub(super) fn qos_parser() -> impl TypedValueParser<Value = QoS> {
    PossibleValuesParser::new(["0", "1", "2"]).map(|text| match text.as_str() {
        "0" => QoS::AtMostOnce,
        "1" => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    })
}

pub(super) fn persistent_parser() -> impl TypedValueParser<Value = Persistent> {
    PossibleValuesParser::new(["nobody", "subscribers", "everybody"]).map(|text| {
        match text.as_str() {
            "nobody" => Persistent::Nobody,
            "subscribers" => Persistent::Subscribers,
            _ => Persistent::Everybody,
        }
    })
}

/// Messages or connections per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("a number from {RATE_MIN} to {RATE_MAX} is needed"))
}

/// Two of them, as in `100..5000`; the first may be 0.
pub(super) fn rates(text: &str) -> Result<(f64, f64), String> {
    let error = "two numbers with .. between them are needed, such as 100..5000";
    let (from, to) = text.split_once("..").ok_or(error)?;
    let from = if from.trim() == "0" { Ok(0.0) } else { rate(from) };
    Ok((from?, rate(to)?))
}

/// A length of time in seconds.
pub(super) fn secs(text: &str) -> Result<Duration, String> {
    let secs = text.parse::<f64>().ok().filter(|secs| (0.0..=SECS_MAX).contains(secs));
    let secs = secs.ok_or_else(|| format!("a number of seconds up to {SECS_MAX} is needed"))?;
    Ok(Duration::from_secs_f64(secs))
}
